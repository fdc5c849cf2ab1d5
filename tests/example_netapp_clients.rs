//! The programs that people measure and look at HTTP servers with: each works against the netapp example. One that is
//! not installed is left out, and says so; under CI that is a failure for those that CI installs.
#![cfg(feature = "http1")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use corelane::Address;
use nix::sys::signal::Signal;
use support::{Client, Example, Random, TempDir, eventually, installed};

const REQUESTS: &str = "4000";

fn serve(arguments: &[&str]) -> (Example, SocketAddr) {
    Example::serve("netapp", arguments)
}

/// What a program prints, or `None` where it is not installed.
#[track_caller]
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = installed(program, Command::new(program).args(arguments).stdin(Stdio::null()).output())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

/// Requests that the server says it answered with a 2xx.
#[track_caller]
fn answered(example: Example) -> u64 {
    let output = example.stop();
    let line = output.iter().find_map(|line| line.strip_prefix("answered ")).expect("a summary");
    assert!(line.contains(" 4xx 0, 5xx 0;"), "{line}");
    line.split("2xx ").nth(1).and_then(|rest| rest.split(',').next()).unwrap().parse().unwrap()
}

#[test]
fn wrk() {
    for path in ["/plaintext", "/json", "/slow?ms=2", "/alloc"] {
        let (example, address) = serve(&[]);
        let url = format!("http://{address}{path}");
        let Some(text) = run("wrk", &["-t1", "-c20", "-d1s", "--timeout", "30s", &url]) else { return };
        assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
        assert!(answered(example) > 0);
    }
}

#[test]
fn wrk_that_pipelines() {
    let folder = TempDir::new();
    let script = folder.join("pipeline.lua");
    fs::write(&script, "init = function() r = wrk.format():rep(16) end\nrequest = function() return r end\n")
        .unwrap();
    let (example, address) = serve(&[]);
    let url = format!("http://{address}/plaintext");
    let Some(text) =
        run("wrk", &["-t1", "-c20", "-d1s", "--timeout", "30s", "-s", script.to_str().unwrap(), &url])
    else {
        return;
    };
    assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
    assert!(answered(example) > 0);
}

#[test]
fn h2load_with_version_1() {
    let (example, address) = serve(&[]);
    for depth in ["1", "8"] {
        let url = format!("http://{address}/json");
        let Some(text) = run("h2load", &["--h1", "-n", REQUESTS, "-c", "20", "-m", depth, &url]) else {
            return;
        };
        assert!(text.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
    }
    assert_eq!(answered(example), 8000);
}

#[test]
fn hey() {
    let (example, address) = serve(&[]);
    let url = format!("http://{address}/echo");
    for more in [&[][..], &["-disable-keepalive"]] {
        let arguments =
            [&["-n", REQUESTS, "-c", "20", "-m", "POST", "-d", "some text"], more, &[&url]].concat();
        let Some(text) = run("hey", &arguments) else { return };
        assert!(text.contains("[200]\t4000 responses"), "{text}");
    }
    assert_eq!(answered(example), 8000);
}

#[test]
fn oha() {
    let (example, address) = serve(&[]);
    let common = ["--no-tui", "--output-format", "json", "-n", REQUESTS, "-c", "20"];
    // As fast as it can, at a rate from which it counts latencies, with a connection for each request, with bodies.
    for (path, more) in [
        ("/json", &[][..]),
        ("/plaintext", &["-q", "8000", "--latency-correction"]),
        ("/alloc", &["--disable-keepalive"]),
        ("/echo", &["-m", "POST", "-d", "some text"]),
    ] {
        let url = format!("http://{address}{path}");
        let Some(text) = run("oha", &[&common, more, &[&url]].concat()) else { return };
        let text: String = text.split_whitespace().collect();
        assert!(text.contains(r#""statusCodeDistribution":{"200":4000}"#), "{text}");
        assert!(text.contains(r#""errorDistribution":{}"#), "{text}");
    }
    assert_eq!(answered(example), 16000);
}

#[test]
fn ab() {
    let (example, address) = serve(&[]);
    // It speaks version 1.0, with and without keep-alive.
    for more in [&["-k"][..], &[]] {
        let url = format!("http://{address}/plaintext");
        let arguments = [&["-q", "-n", REQUESTS, "-c", "20"], more, &[&url]].concat();
        let Some(text) = run("ab", &arguments) else { return };
        let line = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|line| line.trim().to_owned())
        };
        assert_eq!(line("Complete requests:").as_deref(), Some(REQUESTS), "{text}");
        assert_eq!(line("Failed requests:").as_deref(), Some("0"), "{text}");
        assert_eq!(line("Non-2xx responses:"), None, "{text}");
    }
    assert_eq!(answered(example), 8000);
}

#[test]
fn a_program_that_is_missing_fails_its_test_under_ci() {
    // This program again, where nothing is installed.
    let run = |test: &str, is_ci: bool| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]).env("PATH", "").env_remove("CI");
        if is_ci {
            command.env("CI", "true");
        }
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    // CI does not install the last two.
    for (test, program, is_left_out_there) in [
        ("wrk", "wrk", false),
        ("ab", "ab", false),
        ("h2load_with_version_1", "h2load", false),
        ("hey", "hey", false),
        ("oha", "oha", true),
        ("a_browser", "chromium", true),
    ] {
        let (passed, text) = run(test, false);
        assert!(passed && text.contains(&format!("SKIPPED: {program} is not installed")), "{text}");
        let (passed, text) = run(test, true);
        assert!(
            passed == is_left_out_there && text.contains(&format!("{program} is not installed")),
            "{text}"
        );
    }
}

#[test]
fn a_browser() {
    let folder = TempDir::new();
    let root = folder.join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("style.css"), "p { color: rgb(1, 2, 3) }").unwrap();
    fs::write(root.join("data.bin"), Random::new(5).bytes(1_000_000)).unwrap();
    let page = r#"<!doctype html><link rel="stylesheet" href="style.css"><p id="p">nothing yet</p><script>
        async function go() {
            const json = await (await fetch("/json")).json();
            const bytes = await (await fetch("data.bin")).arrayBuffer();
            const part = await fetch("data.bin", { headers: { range: "bytes=10-19" } });
            const sent = "x".repeat(300000);
            const echo = await (await fetch("/echo", { method: "POST", body: sent })).text();
            const all = await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(n => fetch("/slow?ms=" + 5 * n)));
            const p = document.getElementById("p");
            p.textContent = [json.message, bytes.byteLength, part.status, echo === sent,
                all.every(reply => reply.ok), getComputedStyle(p).color].join("|");
        }
        go().catch(error => document.getElementById("p").textContent = error);
        </script>"#;
    fs::write(root.join("index.html"), page).unwrap();
    let (example, address) = serve(&["--files", root.to_str().unwrap()]);
    let profile = format!("--user-data-dir={}", folder.join("profile").display());
    let url = format!("http://{address}/files/");
    let arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        &profile,
        "--virtual-time-budget=20000",
        "--dump-dom",
        &url,
    ];
    let Some(text) = run("chromium", &arguments) else { return };
    assert!(text.contains("Hello, World!|1000000|206|true|true|rgb(1, 2, 3)"), "{text}");
    drop(example);
}

/// Reads one reply; `None` where the connection has ended before it began.
fn reply(client: &mut Client) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) if head.is_empty() => return None,
            other => panic!("{other:?} in the middle of a head: {}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    client.receive(length.parse().unwrap());
    Some(())
}

#[test]
fn a_drain_under_load_breaks_no_reply() {
    for reactors in ["1", "2"] {
        let (example, address) = serve(&["--reactors", reactors]);
        let replies = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..16)
            .map(|number| {
                let (replies, is_over) = (Arc::clone(&replies), Arc::clone(&is_over));
                thread::spawn(move || {
                    let path = ["/plaintext", "/slow?ms=5", "/json", "/alloc"][number % 4];
                    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                    let Ok(mut client) = Client::try_connect(&Address::Tcp(address)) else { return };
                    while client.write_all(request.as_bytes()).is_ok() && reply(&mut client).is_some() {
                        replies.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(is_over.load(Ordering::Relaxed), "closed before anybody asked");
                })
            })
            .collect();
        eventually("a few replies", || replies.load(Ordering::Relaxed) > 1000);
        is_over.store(true, Ordering::Relaxed);
        example.signal(Signal::SIGTERM);
        clients.into_iter().for_each(|client| client.join().unwrap());
        let (status, output) = example.wait();
        assert!(status.success() && output.iter().any(|line| line.contains(" 0 cut off")), "{output:#?}");
        // Every reply that was made has come, and no other.
        let line = output.iter().find_map(|line| line.strip_prefix("answered ")).unwrap();
        assert!(line.contains(" 4xx 0, 5xx 0; 0 given up"), "{line}");
        assert!(line.starts_with(&format!("{} requests", replies.load(Ordering::Relaxed))), "{line}");
    }
}

#[test]
fn slow_heads_are_closed_by_their_deadline_and_hold_up_nobody() {
    let (example, address) = serve(&["--head-deadline", "2"]);
    let slow: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = Client::connect(&Address::Tcp(address));
            client.send(b"GET /fast HTTP/1.1\r\nHost: a\r\nx: ");
            client
        })
        .collect();
    let mut honest = Client::connect(&Address::Tcp(address));
    let (mut open, mut rounds) = (slow, 0);
    // A byte now and then is no progress.
    while !open.is_empty() {
        rounds += 1;
        honest.send(b"GET /fast HTTP/1.1\r\nHost: a\r\n\r\n");
        reply(&mut honest).expect("the honest client is served");
        open.retain_mut(|client| client.write_all(b"x").is_ok());
        thread::park_timeout(std::time::Duration::from_millis(50));
        assert!(rounds < 1000, "{} slow clients are still there", open.len());
    }
    let output = example.stop();
    assert!(output.iter().any(|line| line.contains(" 4xx 200,")), "{output:#?}");
}
