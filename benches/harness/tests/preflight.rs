//! Runs `preflight` under several limits of descriptors.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

/// What it says under a limit, and its exit status.
fn preflight(limit: u32, more: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {limit} && exec \"$@\""), "sh"]);
    command.args([env!("CARGO_BIN_EXE_corelane-bench"), "preflight"]).args(more);
    let Output { status, stdout, .. } = command.output().unwrap();
    (String::from_utf8(stdout).unwrap(), status.code())
}

fn limits(limit: u32, connections: &str) -> (Vec<Value>, Option<i32>) {
    let (text, code) = preflight(limit, &["--connections", connections, "--format", "json"]);
    (serde_json::from_str(&text).unwrap(), code)
}

fn limit<'a>(limits: &'a [Value], name: &str) -> &'a Value {
    limits.iter().find(|limit| limit["name"] == name).unwrap_or_else(|| panic!("no {name} in {limits:?}"))
}

#[test]
fn the_descriptor_limit_is_compared() {
    for (files, verdict) in [(1_200, "fits"), (1_023, "around"), (500, "around"), (30, "lacking")] {
        let (limits, code) = limits(files, "1000");
        let limit = limit(&limits, "RLIMIT_NOFILE");
        assert_eq!((&limit["current"], &limit["needed"]), (&files.into(), &1_064.into()));
        assert_eq!(limit["verdict"], verdict, "{limit}");
        assert_eq!(limit["advice"].is_null(), verdict == "fits", "{limit}");
        assert_eq!(limit["around"].is_string(), verdict == "around", "{limit}");
        assert_eq!(code == Some(5), verdict == "lacking", "{limit}");
    }
}

#[test]
fn what_the_kernel_says_is_passed_on() {
    let (limits, _) = limits(1_000, "100");
    for name in ["net.core.somaxconn", "fs.nr_open", "net.ipv4.tcp_mem", "net.ipv4.ip_local_port_range"] {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let kernel: Vec<String> =
            fs::read_to_string(path).unwrap().split_whitespace().map(str::to_owned).collect();
        let current = &limit(&limits, name)["current"];
        let current = current.as_str().map_or_else(|| current.to_string(), str::to_owned);
        assert_eq!(current, kernel.join(" "), "{name}");
    }
}

#[test]
fn people_get_a_verdict() {
    let (text, code) = preflight(500, &["--connections", "1000", "--role", "server"]);
    assert!(text.contains("1,000 connections, their server on this host: "), "{text}");
    assert!(text.contains("server processes"), "{text}");
    assert!(code == Some(0) || text.contains("do not fit"), "{text}");
}

#[test]
fn nonsense_is_refused() {
    for wrong in [["--connections", "0"], ["--connections", "many"], ["--role", "nobody"]] {
        let (text, code) = preflight(500, &wrong);
        assert!(text.is_empty() && matches!(code, Some(1 | 2)), "{wrong:?}: {code:?} {text}");
    }
}
