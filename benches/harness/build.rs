//! Tells the program what it was built from: every result names its commit, compiler and peers.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

fn main() {
    let lock = Path::new("../../Cargo.lock");
    for path in ["../../src", "src", "build.rs", "../../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Some(commit) = commit() {
        println!("cargo::rustc-env=CORELANE_BENCH_COMMIT={commit}");
    }
    if let Ok(profile) = env::var("PROFILE") {
        println!("cargo::rustc-env=CORELANE_BENCH_PROFILE={profile}");
    }
    let mut versions = fs::read_to_string(lock).map(|text| locked_versions(&text)).unwrap_or_default();
    if let Some(rustc) = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"])) {
        versions.push(rustc);
    }
    println!("cargo::rustc-env=CORELANE_BENCH_VERSIONS={}", versions.join(";"));
}

/// The first line that a command prints; `None` if it fails, as where there is no git.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.lines().next().unwrap_or_default().to_owned())
}

/// The commit, and whether a file of it has been changed since.
fn commit() -> Option<String> {
    // Gains a line with every commit; a branch's own file may be packed away.
    let log = output("git", &["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    let commit = output("git", &["rev-parse", "HEAD"])?;
    let changed = output("git", &["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// `name version` of corelane, and of what the peers name as their dependencies.
fn locked_versions(lock: &str) -> Vec<String> {
    let packages: Vec<&str> = lock.split("[[package]]").collect();
    let name = |package: &str| value(package, "name").unwrap_or_default().to_owned();
    let wanted: Vec<String> = packages
        .iter()
        .filter(|package| name(package) == "corelane-peers")
        .flat_map(|package| {
            let (_, list) = package.split_once("dependencies = [").unwrap_or_default();
            let (list, _) = list.split_once(']').unwrap_or_default();
            // Where two versions are locked, the entry is `name version`.
            list.split('"').skip(1).step_by(2).filter_map(|entry| entry.split(' ').next()).map(str::to_owned)
        })
        .chain(["corelane".to_owned()])
        .collect();
    let mut versions: Vec<String> = packages
        .iter()
        .filter(|package| wanted.contains(&name(package)))
        .filter_map(|package| Some(format!("{} {}", name(package), value(package, "version")?)))
        .collect();
    versions.sort();
    versions.dedup();
    versions
}

/// The value of the line `key = "value"`.
fn value<'a>(package: &'a str, key: &str) -> Option<&'a str> {
    package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'))
}
