//! Counters as text for Prometheus (exposition format 0.0.4).

use std::fmt::Write;

use corelane::http1::{CountersSnapshot, Problem};
use corelane::{CloseReason, Snapshot};

/// What goes up and down; all else only up.
const GAUGES: [&str; 2] = ["active", "peak"];

/// What the runtime's counters count.
const RUNTIME: [(&str, &str); 29] = [
    ("active", "Connections open now."),
    ("peak", "The most connections there were at a time, added up over reactors."),
    ("accepted", "Connections that came from a listener."),
    ("accepted_ended", "Connections from a listener that have ended."),
    ("handed_over", "Connections accepted by one reactor and handed to another."),
    ("dialed", "Outbound connections asked for."),
    ("connected", "Outbound connections made."),
    ("dial_failures", "Outbound connections that failed."),
    ("refused", "Connections refused by the service when they opened."),
    ("shed_by_server_cap", "Connections closed at once as there were too many."),
    ("shed_by_source_cap", "Connections closed at once as there were too many of their source address."),
    ("accept_errors", "Accepts that failed."),
    ("accept_pauses", "Times that accepting paused for want of descriptors or memory."),
    ("bytes_in", "Bytes received."),
    ("bytes_out", "Bytes that the kernel took to send."),
    ("reads", "System calls that receive."),
    ("empty_reads", "System calls that received nothing."),
    ("writes", "System calls that send."),
    ("blocked_writes", "System calls that found no room to send."),
    ("polls", "System calls that wait or look for events."),
    ("events", "Events that the polls returned."),
    ("turns", "Turns of the loops."),
    ("wakeups", "Times that another thread woke a sleeping reactor."),
    ("budget_exhausted", "Times that a connection had more to read than its share of a turn."),
    ("commands", "Commands from other threads."),
    ("stale_commands", "Commands from other threads whose connection was gone."),
    ("timers", "Timers that fired."),
    ("refused_writes", "Writes that the cap of output refused."),
    ("panics", "Callbacks that panicked."),
];

/// The counters of the runtime and of the protocol, and how many replies wait for their time.
pub(crate) fn page(runtime: &Snapshot, http: &CountersSnapshot, waiting: u64) -> String {
    let mut page = Page(String::with_capacity(16 * 1024));
    for (name, value) in runtime.named() {
        let help = RUNTIME.iter().find_map(|(other, help)| (*other == name).then_some(*help));
        let help = help.unwrap_or("As the documentation of corelane::Snapshot says.");
        if GAUGES.contains(&name) {
            page.gauge(&format!("corelane_{name}"), help, value);
        } else {
            page.counter(&format!("corelane_{name}_total"), help, value);
        }
    }
    let closed = CloseReason::NAMES.into_iter().zip(runtime.closed);
    page.counters("corelane_closed_total", "Connections that ended, by reason.", "reason", closed);
    page.counter("http_requests_total", "Requests whose head was whole and in order.", http.requests);
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(http.statuses);
    page.counters("http_responses_total", "Replies, by class of status.", "class", classes);
    let problems = Problem::ALL.into_iter().map(|problem| (problem.name(), http.problems[problem.index()]));
    page.counters(
        "http_refused_total",
        "Requests refused before the service, by problem.",
        "problem",
        problems,
    );
    page.counter("http_request_body_bytes_total", "Bytes of bodies received.", http.body_in);
    page.counter("http_response_body_bytes_total", "Bytes of bodies of whole replies.", http.body_out);
    page.counter("http_aborted_total", "Requests whose connection ended before their reply.", http.aborted);
    page.counter("http_upgrades_total", "Connections that went over to another protocol.", http.upgrades);
    page.latency("http_request_duration_seconds", "Time from the head to the end of the reply.", http);
    page.gauge("netapp_waiting", "Replies that wait for their time.", waiting);
    page.0
}

/// Writing to its string cannot fail.
struct Page(String);

impl Page {
    fn begin(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.begin(name, help, "gauge");
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.begin(name, help, "counter");
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'static str, u64)>,
    ) {
        self.begin(name, help, "counter");
        for (of, value) in values {
            let _ = writeln!(self.0, "{name}{{{label}=\"{of}\"}} {value}");
        }
    }

    /// Bucket n holds what took less than 2^n microseconds; Prometheus wants each with all below it.
    fn latency(&mut self, name: &str, help: &str, http: &CountersSnapshot) {
        self.begin(name, help, "histogram");
        let (last, buckets) = http.latency.split_last().expect("there are buckets");
        let mut count = 0;
        for (power, bucket) in buckets.iter().enumerate() {
            count += bucket;
            let bound = (1_u64 << power) as f64 / 1e6;
            let _ = writeln!(self.0, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        count += last;
        let sum = http.latency_sum.as_secs_f64();
        let _ =
            writeln!(self.0, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }
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
