//! Counters as text for Prometheus (exposition format 0.0.4).

use std::fmt::Write;

use corelane::http1::{CountersSnapshot, Problem};
use corelane::{CloseReason, Snapshot};

/// What goes up and down; all else only up.
const GAUGES: [&str; 2] = ["active", "peak"];

/// The counters of the runtime and of the protocol, and how many replies wait for their time.
pub(crate) fn page(runtime: &Snapshot, http: &CountersSnapshot, waiting: u64) -> String {
    let mut page = String::with_capacity(8 * 1024);
    for (name, value) in runtime.named() {
        if GAUGES.contains(&name) {
            single(&mut page, "gauge", &format!("corelane_{name}"), value);
        } else {
            single(&mut page, "counter", &format!("corelane_{name}_total"), value);
        }
    }
    let closed = CloseReason::NAMES.into_iter().zip(runtime.closed);
    labelled(&mut page, "corelane_closed_total", "reason", closed);
    single(&mut page, "counter", "http_requests_total", http.requests);
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(http.statuses);
    labelled(&mut page, "http_responses_total", "class", classes);
    let problems = Problem::ALL.into_iter().map(|problem| (problem.name(), http.problems[problem.index()]));
    labelled(&mut page, "http_refused_total", "problem", problems);
    single(&mut page, "counter", "http_request_body_bytes_total", http.body_in);
    single(&mut page, "counter", "http_response_body_bytes_total", http.body_out);
    single(&mut page, "counter", "http_aborted_total", http.aborted);
    histogram(&mut page, http);
    single(&mut page, "gauge", "netapp_waiting", waiting);
    page
}

fn single(page: &mut String, kind: &str, name: &str, value: u64) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "# TYPE {name} {kind}\n{name} {value}");
}

fn labelled(page: &mut String, name: &str, label: &str, values: impl Iterator<Item = (&'static str, u64)>) {
    let _ = writeln!(page, "# TYPE {name} counter");
    for (of, value) in values {
        let _ = writeln!(page, "{name}{{{label}=\"{of}\"}} {value}");
    }
}

/// Bucket n holds what took less than 2^n microseconds; Prometheus wants each with all below it.
fn histogram(page: &mut String, http: &CountersSnapshot) {
    let name = "http_request_duration_seconds";
    let _ = writeln!(page, "# TYPE {name} histogram");
    let (last, buckets) = http.latency.split_last().expect("there are buckets");
    let mut count = 0;
    for (power, bucket) in buckets.iter().enumerate() {
        count += bucket;
        let _ = writeln!(page, "{name}_bucket{{le=\"{}\"}} {count}", (1_u64 << power) as f64 / 1e6);
    }
    count += last;
    let _ = writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(page, "{name}_sum {}\n{name}_count {count}", http.latency_sum.as_secs_f64());
}

/// A line for the end.
pub(crate) fn summary(http: &CountersSnapshot) -> String {
    let [_, ok, redirected, refused, failed] = http.statuses;
    let aborted = http.aborted;
    format!(
        "{} requests: 2xx {ok}, 3xx {redirected}, 4xx {refused}, 5xx {failed}; {aborted} given up by clients",
        http.requests
    )
}
