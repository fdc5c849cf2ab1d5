//! The netapp example beside its real clients: curl for every feature it can reach.
#![cfg(feature = "http1")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use corelane::Address;
use nix::sys::signal::Signal;
use support::{Client, End, Example, Random, TempDir, eventually};

fn serve(arguments: &[&str]) -> (Example, SocketAddr) {
    Example::serve("netapp", arguments)
}

fn connect(address: SocketAddr) -> Client {
    Client::connect(&Address::Tcp(address))
}

/// Runs curl against a path; silent, and never for long.
#[track_caller]
fn curl(address: SocketAddr, path: &str, options: &[&str]) -> Output {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--path-as-is"])
        .args(options)
        .arg(format!("http://{address}{path}"))
        .stdin(Stdio::null())
        .output()
        .expect("curl is installed");
    assert!(output.status.success(), "{path} {options:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The status that curl got.
#[track_caller]
fn status(address: SocketAddr, path: &str, options: &[&str]) -> String {
    let output =
        curl(address, path, &[&["--output", "/dev/null", "--write-out", "%{http_code}"], options].concat());
    String::from_utf8(output.stdout).unwrap()
}

/// Head and body of a reply.
#[track_caller]
fn whole(address: SocketAddr, path: &str, options: &[&str]) -> (String, Vec<u8>) {
    let output = curl(address, path, &[&["--include"], options].concat()).stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    (String::from_utf8(output[..end].to_vec()).unwrap().to_lowercase(), output[end..].to_vec())
}

/// The value of a header in a head of lower case.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Sends raw bytes on a connection of its own, ends it, and returns everything that comes back.
#[track_caller]
fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut client = connect(address);
    client.send(bytes);
    client.finish();
    String::from_utf8(client.receive_rest().0).unwrap()
}

#[test]
fn every_page_answers() {
    let (example, address) = serve(&[]);
    for (path, text) in [
        ("/plaintext", "Hello, World!"),
        ("/json", "{\"message\":\"Hello, World!\"}"),
        ("/fast", "fast\n"),
        ("/slow?ms=3", "waited 3 ms\n"),
        ("/slow?x=1&ms=300", "waited 300 ms\n"),
        ("/healthz", "alive\n"),
        ("/readyz", "ready\n"),
    ] {
        let (head, body) = whole(address, path, &[]);
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
        assert_eq!(String::from_utf8_lossy(&body), text);
        assert_eq!(header(&head, "content-length"), Some(text.len().to_string().as_str()));
        assert_eq!(header(&head, "server"), Some("corelane"));
        assert!(header(&head, "date").is_some_and(|date| date.ends_with("gmt")), "{head}");
    }
    assert_eq!(header(&whole(address, "/json", &[]).0, "content-type"), Some("application/json"));
    assert_eq!(header(&whole(address, "/plaintext", &[]).0, "content-type"), Some("text/plain"));
    for path in ["/slow?ms=0", "/slow?ms=301", "/slow?ms=x"] {
        assert_eq!(status(address, path, &[]), "400", "{path}");
    }
    assert!(String::from_utf8_lossy(&curl(address, "/slow", &[]).stdout).starts_with("waited "));
    assert!(String::from_utf8_lossy(&curl(address, "/alloc", &[]).stdout).starts_with("allocated "));
    for path in ["/", "/nothing", "/files/x", "/plaintext/"] {
        assert_eq!(status(address, path, &[]), "404", "{path}");
    }
    let (head, body) = whole(address, "/plaintext", &["--request", "DELETE"]);
    assert!(head.starts_with("http/1.1 405 ") && body.is_empty(), "{head}");
    assert_eq!(header(&head, "allow"), Some("get, head"));
    example.stop();
}

#[test]
fn connections_are_kept_and_closed_as_clients_ask() {
    let (example, address) = serve(&["--max-requests", "3"]);
    let reused = |options: &[&str]| {
        let url = format!("http://{address}/plaintext");
        let both = ["--output", "/dev/null", "--output", "/dev/null", &url];
        let output =
            curl(address, "/plaintext", &[&both, options, &["--write-out", "%{num_connects} "]].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(reused(&[]), "1 0 ");
    assert_eq!(reused(&["--header", "connection: close"]), "1 1 ");
    assert_eq!(reused(&["--http1.0"]), "1 1 ");
    assert_eq!(reused(&["--http1.0", "--header", "connection: keep-alive"]), "1 0 ");
    let (head, _) = whole(address, "/plaintext", &["--http1.0"]);
    assert!(header(&head, "connection") == Some("close") || header(&head, "connection").is_none(), "{head}");
    // The third request of a connection is its last.
    let replies = raw(address, "GET /fast HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5).as_bytes());
    assert_eq!(replies.matches("HTTP/1.1 200 OK").count(), 3, "{replies}");
    assert_eq!(replies.to_lowercase().matches("connection: close").count(), 1, "{replies}");
    example.stop();
}

#[test]
fn pipelined_requests_are_answered_in_their_order_whatever_they_take() {
    let (example, address) = serve(&["--pipeline", "4"]);
    let delays = [50, 1, 20, 3, 30, 2, 1, 1, 15, 1];
    let requests: String =
        delays.iter().map(|delay| format!("GET /slow?ms={delay} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let requests = requests + "GET /fast HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut client = connect(address);
    client.send(requests.as_bytes());
    let replies = String::from_utf8(client.receive_all()).unwrap();
    drop(client);
    let told: Vec<_> = replies.lines().filter(|line| line.starts_with("waited") || *line == "fast").collect();
    let expected: Vec<_> =
        delays.iter().map(|delay| format!("waited {delay} ms")).chain(["fast".into()]).collect();
    assert_eq!(told, expected);
    example.stop();
}

#[test]
fn bodies_come_back_as_they_were_sent() {
    let (example, address) = serve(&[]);
    let folder = TempDir::new();
    let (sent, came) = (folder.join("sent"), folder.join("came"));
    let mut random = Random::new(3);
    for size in [0, 1, 1000, 70_000, 20_000_000] {
        let bytes = random.bytes(size);
        fs::write(&sent, &bytes).unwrap();
        let data = format!("@{}", sent.display());
        for options in [
            &["--header", "content-type: application/x-test"][..],
            &["--header", "transfer-encoding: chunked"],
            // Without it curl sends the header itself only for large bodies.
            &["--header", "expect: 100-continue"],
            &["--header", "expect:"],
            &["--http1.0"],
        ] {
            curl(
                address,
                "/echo",
                &[&["--data-binary", &data, "--output", came.to_str().unwrap()], options].concat(),
            );
            assert!(fs::read(&came).unwrap() == bytes, "{size} bytes with {options:?}");
        }
    }
    let (head, _) = whole(address, "/echo", &["--data", "x", "--header", "content-type: text/x-own"]);
    assert_eq!(header(&head, "content-type"), Some("text/x-own"));
    example.stop();
}

#[test]
fn a_slow_reader_and_a_slow_writer_are_waited_for() {
    let (example, address) = serve(&["--body-rate", "1"]);
    let folder = TempDir::new();
    let (sent, came) = (folder.join("sent"), folder.join("came"));
    let bytes = Random::new(4).bytes(3_000_000);
    fs::write(&sent, &bytes).unwrap();
    let data = format!("@{}", sent.display());
    // curl limits both directions.
    curl(
        address,
        "/echo",
        &["--data-binary", &data, "--output", came.to_str().unwrap(), "--limit-rate", "2M"],
    );
    assert!(fs::read(&came).unwrap() == bytes);
    example.stop();
}

#[test]
fn a_client_that_asks_first_is_told_whether_to_send() {
    let (example, address) = serve(&["--max-body", "1000"]);
    let mut client = connect(address);
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.send(head);
    assert_eq!(client.receive(25), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"hello");
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\nhello") {
        reply.extend(client.receive(1));
    }
    drop(client);
    // Too large: refused before it is sent.
    let (head, _) =
        whole(address, "/echo", &["--data", &"x".repeat(1001), "--header", "expect: 100-continue"]);
    assert!(head.starts_with("http/1.1 413 "), "{head}");
    example.stop();
}

#[test]
fn trailers_come_back_behind_the_body() {
    let (example, address) = serve(&[]);
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        5;name=value\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n";
    let reply = raw(address, request.as_bytes()).to_lowercase();
    assert!(reply.contains("transfer-encoding: chunked\r\n"), "{reply}");
    assert!(reply.ends_with("5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n"), "{reply}");
    example.stop();
}

#[test]
fn what_is_too_much_or_wrong_is_refused_with_its_status() {
    let (example, address) = serve(&[
        "--max-head",
        "2000",
        "--max-target",
        "100",
        "--max-headers",
        "10",
        "--max-body",
        "1000",
        "--head-deadline",
        "4",
    ]);
    assert_eq!(status(address, &format!("/{}", "x".repeat(200)), &[]), "414");
    assert_eq!(status(address, "/fast", &["--header", &format!("x: {}", "y".repeat(3000))]), "431");
    let many: Vec<String> = (0..20).flat_map(|n| ["--header".into(), format!("x{n}: y")]).collect();
    assert_eq!(status(address, "/fast", &many.iter().map(String::as_str).collect::<Vec<_>>()), "431");
    assert_eq!(status(address, "/echo", &["--data", &"x".repeat(2000), "--header", "expect:"]), "413");
    let chunked =
        ["--data", &"x".repeat(2000), "--header", "transfer-encoding: chunked", "--header", "expect:"];
    // The reply has begun when the chunks turn out to be too many: it breaks off.
    let broken = Command::new("curl")
        .args(["--silent", "--max-time", "30"])
        .args(chunked)
        .arg(format!("http://{address}/echo"))
        .output()
        .unwrap();
    assert!(!broken.status.success());
    assert_eq!(status(address, "/fast", &["--header", "expect: the unexpected"]), "417");
    for (request, expected) in [
        ("GET /fast HTTP/1.1\r\n\r\n", "400"),
        ("GET /fast HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET /fast HTTP/2.0\r\nHost: a\r\n\r\n", "505"),
        ("GET /fast HTTP/1.1\nHost: a\n\n", "400"),
        ("nonsense\r\n\r\n", "400"),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "400"),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501"),
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
    ] {
        let reply = raw(address, request.as_bytes());
        assert!(reply.starts_with(&format!("HTTP/1.1 {expected} ")), "{request:?}: {reply}");
    }
    // A head that does not come to its end.
    let mut client = connect(address);
    client.send(b"GET /fast HTTP/1.1\r\nHos");
    let (reply, end) = client.receive_rest();
    assert!(reply.starts_with(b"HTTP/1.1 408 ") && end == End::Fin, "{}", String::from_utf8_lossy(&reply));
    drop(client);
    for problem in ["target_length", "head_size", "header_count", "framing", "host", "head_timeout"] {
        assert_ne!(refused(address, problem), 0, "{problem}");
    }
    example.stop();
}

#[test]
fn a_head_may_be_limited_alone() {
    let (example, address) = serve(&["--max-head", "1000"]);
    assert_eq!(status(address, "/fast", &[]), "200");
    assert_eq!(status(address, "/fast", &["--header", &format!("x: {}", "y".repeat(1000))]), "431");
    // The limit of targets is above that of heads: it is not reached.
    assert_eq!(status(address, &format!("/{}", "x".repeat(1000)), &[]), "431");
    example.stop();
}

/// Families of HELP, TYPE and samples, as the exposition format wants them.
#[track_caller]
fn check_format(metrics: &str) {
    assert!(metrics.ends_with('\n'));
    let (mut families, mut samples) = (BTreeSet::new(), BTreeSet::new());
    for family in metrics.split("# HELP ").skip(1) {
        let mut lines = family.lines();
        let (name, help) = lines.next().unwrap().split_once(' ').expect("a name and its help");
        assert!(
            families.insert(name) && help.ends_with('.') && !help.contains("documentation"),
            "{name}: {help}"
        );
        let kind =
            lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect("a type");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        let lines: Vec<(&str, f64)> = lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(sample, number)| (sample, number.parse().unwrap()))
            .collect();
        assert!(lines.iter().all(|(sample, number)| samples.insert(*sample) && *number >= 0.0), "{family}");
        match kind {
            "counter" | "gauge" => {
                assert!(!lines.is_empty() && lines.iter().all(|line| line.0.split('{').next() == Some(name)));
            }
            "histogram" => check_histogram(name, &lines),
            kind => panic!("{name} is a {kind}"),
        }
    }
}

/// Buckets by their bounds, each with all before it, the last without a bound; then the sum and the count.
#[track_caller]
fn check_histogram(name: &str, lines: &[(&str, f64)]) {
    let [buckets @ .., (sum, _), (count, total)] = lines else { panic!("{lines:?}") };
    assert_eq!((*sum, *count), (format!("{name}_sum").as_str(), format!("{name}_count").as_str()));
    let start = format!("{name}_bucket{{le=\"");
    let bound = |sample: &str| -> f64 {
        sample.strip_prefix(&start).and_then(|rest| rest.strip_suffix("\"}")).unwrap().parse().unwrap()
    };
    let is_in_order = |pair: &[(&str, f64)]| bound(pair[0].0) < bound(pair[1].0) && pair[0].1 <= pair[1].1;
    assert!(buckets.windows(2).all(is_in_order), "{buckets:?}");
    let (last, all) = buckets.last().unwrap();
    assert!(last.ends_with("\"+Inf\"}") && all == total, "{buckets:?}");
}

#[test]
fn metrics_can_be_read_by_prometheus() {
    let (example, address) = serve(&["--reactors", "2"]);
    (0..20).for_each(|_| _ = curl(address, "/plaintext", &[]));
    curl(address, "/slow?ms=30", &[]);
    let value = |metrics: &str, name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
    };
    let (head, body) = whole(address, "/metrics", &[]);
    assert_eq!(header(&head, "content-type"), Some("text/plain; version=0.0.4"));
    let metrics = String::from_utf8(body).unwrap();
    check_format(&metrics);
    assert_eq!(value(&metrics, "http_upgrades_total"), 0.0);
    assert!(value(&metrics, "http_requests_total") >= 22.0);
    assert!(value(&metrics, "corelane_accepted_total") >= 22.0);
    // The connection before may still be closing.
    eventually("this connection alone", || {
        value(&String::from_utf8(curl(address, "/metrics", &[]).stdout).unwrap(), "corelane_active") == 1.0
    });
    let count = value(&metrics, "http_request_duration_seconds_count");
    assert_eq!(value(&metrics, "http_request_duration_seconds_bucket{le=\"+Inf\"}"), count);
    assert_eq!(value(&metrics, "http_request_duration_seconds_bucket{le=\"0.016384\"}"), count - 1.0);
    assert!((0.03..10.0).contains(&value(&metrics, "http_request_duration_seconds_sum")));
    example.stop();
}

#[test]
fn what_waits_for_its_time_is_forgotten_with_its_client() {
    let (example, address) = serve(&["--reactors", "2", "--fast-delay", "3600000"]);
    let waiting = || metric(address, "netapp_waiting");
    for _ in 0..3 {
        let mut clients: Vec<Client> = (0..20).map(|_| connect(address)).collect();
        for client in &mut clients {
            client.send("GET /fast HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5).as_bytes());
        }
        eventually("a hundred that wait", || waiting() == 100);
        clients.into_iter().for_each(Client::reset);
        eventually("none that waits", || waiting() == 0);
    }
    // One whose time has come waits no more either.
    assert_eq!(status(address, "/slow?ms=1", &[]), "200");
    assert_eq!(waiting(), 0);
    let output = example.stop();
    assert!(
        output.iter().any(|line| line.contains("2xx ") && line.contains("; 300 given up")),
        "{output:#?}"
    );
}

#[test]
fn not_ready_is_told_before_anybody_is_sent_away() {
    let (mut example, address) = serve(&["--reactors", "1", "--grace", "6", "--log-every", "1"]);
    assert_eq!(status(address, "/readyz", &[]), "200");
    example.hear("");
    example.signal(Signal::SIGTERM);
    eventually("the service to be not ready", || status(address, "/readyz", &[]) == "503");
    // New connections are taken all the while.
    assert_eq!(status(address, "/healthz", &[]), "200");
    let (status, output) = example.wait();
    assert!(status.success(), "{output:#?}");
    assert!(output.iter().any(|line| line.starts_with("answered ")), "{output:#?}");
}

#[test]
fn a_drain_finishes_what_is_under_way_and_closes_the_rest() {
    let (mut example, address) = serve(&["--reactors", "1", "--log-every", "1"]);
    let mut idle = connect(address);
    idle.send(b"GET /fast HTTP/1.1\r\nHost: a\r\n\r\n");
    example.hear("");
    let mut busy: Vec<Client> = (0..20).map(|_| connect(address)).collect();
    let mut upload = connect(address);
    upload.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf.");
    let mut echoed = Vec::new();
    while !echoed.ends_with(b"half.") {
        echoed.extend(upload.receive(1));
    }
    // However long this thread takes, they are under way when the drain begins.
    example.signal(Signal::SIGSTOP);
    busy.iter_mut().for_each(|client| client.send(b"GET /slow?ms=300 HTTP/1.1\r\nHost: a\r\n\r\n"));
    example.signal(Signal::SIGTERM);
    example.signal(Signal::SIGCONT);
    let reply = String::from_utf8(idle.receive_all()).unwrap();
    assert!(reply.ends_with("fast\n"));
    drop(idle);
    for mut client in busy {
        let reply = String::from_utf8(client.receive_all()).unwrap().to_lowercase();
        assert!(reply.ends_with("waited 300 ms\n") && reply.contains("connection: close"), "{reply}");
    }
    upload.send(b"whole");
    assert_eq!(upload.receive_all(), b"whole");
    drop(upload);
    let (status, output) = example.wait();
    assert!(status.success(), "{output:#?}");
    assert!(output.iter().any(|line| line.contains("0 cut off")), "{output:#?}");
}

#[test]
fn the_second_signal_does_not_wait() {
    let (example, address) = serve(&["--head-deadline", "60"]);
    let mut client = connect(address);
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    client.receive(15);
    example.signal(Signal::SIGTERM);
    support::wait_for_nobody_at(&Address::Tcp(address));
    example.signal(Signal::SIGTERM);
    let (status, output) = example.wait();
    assert!(status.success() && output.iter().any(|line| line.contains("1 cut off")), "{output:#?}");
}

/// How often the server says it refused a request for this.
#[track_caller]
fn refused(address: SocketAddr, problem: &str) -> u64 {
    metric(address, &format!("http_refused_total{{problem=\"{problem}\"}}"))
}

#[track_caller]
fn metric(address: SocketAddr, name: &str) -> u64 {
    let metrics = String::from_utf8(curl(address, "/metrics", &[]).stdout).unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}

#[test]
fn a_body_that_stops_is_given_up_after_its_grace() {
    let (example, address) = serve(&["--body-grace", "1", "--body-rate", "1000000"]);
    let mut client = connect(address);
    client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf.");
    let (reply, _) = client.receive_rest();
    assert!(reply.ends_with(b"half."), "{}", String::from_utf8_lossy(&reply));
    drop(client);
    assert_eq!(refused(address, "body_rate"), 1);
    example.stop();
}

#[test]
fn extensions_of_chunks_have_a_limit() {
    let (example, address) = serve(&["--max-chunk-extension", "20"]);
    let request = |extension: &str| {
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        raw(address, format!("{head}5;{extension}\r\nhello\r\n0\r\n\r\n").as_bytes())
    };
    assert!(request("a=b").ends_with("5\r\nhello\r\n0\r\n\r\n"));
    assert_eq!(refused(address, "chunk_extension"), 0);
    assert!(!request(&"x".repeat(30)).contains("hello"));
    assert_eq!(refused(address, "chunk_extension"), 1);
    example.stop();
}

#[test]
fn a_body_that_nobody_wants_is_dropped_if_it_is_small() {
    let (example, address) = serve(&["--max-discard", "10"]);
    for (size, replies) in [(10, 2), (11, 1)] {
        let body = "x".repeat(size);
        let refused = format!("POST /plaintext HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}");
        let all = raw(address, (refused + "GET /fast HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(all.starts_with("HTTP/1.1 405 "), "{all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), replies, "{size} bytes: {all}");
    }
    example.stop();
}

#[test]
fn no_more_is_read_while_too_much_waits_for_its_turn() {
    // One after the other would come, were it not for the limit: all of them are there at once.
    for (held, expected) in [("0", 2), ("1000000", 6)] {
        let (example, address) = serve(&["--reactors", "1", "--fast-delay", "3600000", "--max-held", held]);
        let mut client = connect(address);
        let plain = "GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5);
        client.send(format!("GET /fast HTTP/1.1\r\nHost: a\r\n\r\n{plain}").as_bytes());
        // Those of this connection, without the ones that ask.
        let mut asked = 0;
        let mut read = 0;
        eventually("the first requests", || {
            asked += 1;
            read = metric(address, "http_requests_total") - asked;
            read > 0
        });
        assert_eq!(read, expected, "{held} bytes held");
        client.reset();
        eventually("the end of it", || metric(address, "netapp_waiting") == 0);
        example.stop();
    }
}

#[test]
fn its_own_flags_are_explained_with_their_units_and_defaults() {
    let (status, help) = Example::start("netapp", &["--help"]).wait();
    assert!(status.success(), "{status}");
    for (flag, default) in [
        ("--files <DIR>", "none"),
        ("--fast-delay <MS>", "0"),
        ("--alloc-keep <N>", "1000"),
        ("--log-every <N>", "0"),
        ("--grace <SECONDS>", "0"),
        ("--head-deadline <SECONDS>", "10"),
        ("--body-rate <BYTES/S>", "240"),
        ("--body-grace <SECONDS>", "10"),
        ("--max-head <BYTES>", "16384"),
        ("--max-headers <N>", "100"),
        ("--max-target <BYTES>", "8192"),
        ("--max-body <BYTES>", "67108864"),
        ("--max-chunk-extension <BYTES>", "1024"),
        ("--max-discard <BYTES>", "65536"),
        ("--pipeline <N>", "16"),
        ("--max-held <BYTES>", "262144"),
        ("--max-requests <N>", "4294967295"),
    ] {
        let line = help.iter().find(|line| line.trim_start().starts_with(flag));
        let line = line.unwrap_or_else(|| panic!("{flag} is not explained: {help:#?}"));
        assert!(line.ends_with(&format!("[default: {default}]")), "{line}");
    }
}

#[test]
fn a_mistake_in_the_flags_is_told_in_one_line() {
    for (arguments, named) in [
        (&["--files", "/nowhere"][..], "--files /nowhere"),
        (&["--max-head", "1"], "limits.head"),
        (&["--pipeline", "0"], "limits.pipeline"),
        (&["--head-deadline", "0"], "timeouts.head"),
        (&["--body-grace", "0"], "timeouts.body.grace"),
        (&["--body-rate", "0"], "timeouts.body.bytes_per_second"),
        (&["--max-target", "0"], "limits.target"),
        (&["--max-headers", "129"], "limits.headers"),
        (&["--max-requests", "0"], "limits.requests"),
    ] {
        let (status, output) = Example::start("netapp", arguments).wait();
        assert!(!status.success());
        assert!(output.len() == 1 && output[0].contains(named), "{arguments:?}: {output:#?}");
    }
}
