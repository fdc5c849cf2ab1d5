//! Servers by name: corelane's examples, the peers, the one built in, or any command line.
//!
//! Called by the commands that load a server which they start themselves.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::cpu::CpuList;
use crate::outcome::{Status, WithStatus, ends};
use crate::plan::{Dialect, Target};
use crate::process::{Lines, Server};

/// The server inside this program.
const BUILT_IN: &str = "builtin";

/// A server that was started for a run.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) server: Server,
    /// The command line that it was started with.
    pub(crate) command: String,
    /// What is usually said to it, and the path that is fetched over HTTP.
    dialect: Dialect,
    path: Option<&'static str>,
    /// What it says later is thrown away, but must be taken.
    _lines: Lines,
}

impl Started {
    /// Starts the server of this name, and waits until it listens.
    ///
    /// To be called on a thread that outlives the server.
    pub(crate) fn start(
        name: &str,
        reactors: Option<usize>,
        cpus: Option<&CpuList>,
        takes_publishers: bool,
        stop: &AtomicBool,
    ) -> Result<Self> {
        let line = command_line(name, reactors, takes_publishers).status(Status::Usage)?;
        let [program, arguments @ ..] = line.words.as_slice() else {
            bail!("the command of a server is empty")
        };
        let mut command = Command::new(program);
        command.args(arguments);
        let (mut server, lines) = Server::start_any(command, name, cpus, stop).map_err(|error| {
            let is_stopped = stop.load(Ordering::Relaxed);
            ends(if is_stopped { Status::Interrupted } else { Status::Unreachable }, error)
        })?;
        if takes_publishers {
            server.takes_publishers(&lines, stop).with_context(|| format!("`{name}` takes no publishers"))?;
        }
        let Line { words, dialect, path } = line;
        Ok(Self { server, command: shell_words::join(&words), dialect, path, _lines: lines })
    }

    /// Where it is, and what is usually said to it.
    pub(crate) fn target(&self) -> Target {
        let mut target = Target::new(self.dialect, self.server.listening());
        if let Some(path) = self.path {
            target.path = path.to_owned();
        }
        target
    }
}

/// What is built to have a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// An example of corelane's, with this feature.
    Example(Option<&'static str>),
    /// A peer of the workspace.
    Peer,
    /// A peer of the package that has other runtimes.
    AsyncPeer,
    /// Needs a Go toolchain.
    Go,
}

/// A server that has a name: what it is built from, and what is usually said to it.
type Known = (&'static str, Source, Dialect);

#[rustfmt::skip]
const SERVERS: &[Known] = &[
    ("echo", Source::Example(None), Dialect::Echo),
    ("frames", Source::Example(None), Dialect::Frames),
    ("redis", Source::Example(None), Dialect::Redis),
    ("broadcast", Source::Example(None), Dialect::Echo),
    ("netapp", Source::Example(Some("http1")), Dialect::Http),
    ("peer-broadcast", Source::Peer, Dialect::Echo),
    ("peer-claims", Source::Peer, Dialect::Echo),
    ("peer-epoll", Source::Peer, Dialect::Echo),
    ("peer-epoll-http", Source::Peer, Dialect::Http),
    ("peer-io-uring", Source::Peer, Dialect::Echo),
    ("peer-mio", Source::Peer, Dialect::Echo),
    ("peer-nginx", Source::Peer, Dialect::Http),
    ("peer-redis", Source::Peer, Dialect::Redis),
    ("peer-threads", Source::Peer, Dialect::Echo),
    ("peer-tokio", Source::Peer, Dialect::Echo),
    ("peer-tokio-per-core", Source::Peer, Dialect::Echo),
    ("peer-actix", Source::AsyncPeer, Dialect::Http),
    ("peer-compio", Source::AsyncPeer, Dialect::Echo),
    ("peer-glommio", Source::AsyncPeer, Dialect::Echo),
    ("peer-hyper", Source::AsyncPeer, Dialect::Http),
    ("peer-hyper-per-core", Source::AsyncPeer, Dialect::Http),
    ("peer-may", Source::AsyncPeer, Dialect::Echo),
    ("peer-monoio", Source::AsyncPeer, Dialect::Echo),
    ("peer-monoio-epoll", Source::AsyncPeer, Dialect::Echo),
    ("peer-ntex", Source::AsyncPeer, Dialect::Http),
    ("peer-ntex-epoll", Source::AsyncPeer, Dialect::Http),
    ("peer-go", Source::Go, Dialect::Echo),
    ("peer-go-http", Source::Go, Dialect::Http),
];

/// What every one of them that speaks HTTP answers.
const PATH: &str = "/plaintext";

/// A server's command line, and what is usually said to it.
#[derive(Debug)]
struct Line {
    words: Vec<String>,
    dialect: Dialect,
    path: Option<&'static str>,
}

fn command_line(name: &str, reactors: Option<usize>, publishes: bool) -> Result<Line> {
    if name.contains(char::is_whitespace) || name.contains('/') {
        let words = shell_words::split(name).with_context(|| format!("--server: cannot split `{name}`"))?;
        ensure!(!words.is_empty(), "--server: the command is empty");
        return Ok(Line { words, dialect: Dialect::Echo, path: None });
    }
    let text = |word: &str| word.to_owned();
    let (mut words, source, dialect) = if name == BUILT_IN {
        (vec![text("/proc/self/exe"), text("echo-server")], None, Dialect::Echo)
    } else {
        let known = SERVERS.iter().find(|known| known.0 == name).with_context(|| unknown(name))?;
        (vec![program(known)?], Some(known.1), known.2)
    };
    let is_ours = matches!(source, None | Some(Source::Example(_)));
    let (address, threads) = if is_ours { ("--listen", "--reactors") } else { ("--addr", "--threads") };
    words.extend([text(address), text("127.0.0.1:0")]);
    if publishes {
        words.extend([text(if is_ours { "--publish" } else { "--publish-addr" }), text("127.0.0.1:0")]);
    }
    if let Some(reactors) = reactors {
        words.extend([text(threads), reactors.to_string()]);
    }
    if matches!(source, Some(Source::Example(_))) {
        words.extend([text("--idle"), text("0")]);
    }
    Ok(Line { words, dialect, path: (dialect == Dialect::Http).then_some(PATH) })
}

fn unknown(name: &str) -> String {
    let names: Vec<_> = SERVERS.iter().map(|known| known.0).collect();
    format!("--server: no `{name}`: it is neither {BUILT_IN}, {} nor a command line", names.join(", "))
}

/// Servers of others that say what they are, and how they are asked. Any other program might serve instead of answering;
/// of corelane's own and the peers the commit and the lock files tell.
const VERSIONS: [(&str, &str); 3] = [("haproxy", "-v"), ("nginx", "-v"), ("redis-server", "--version")];

/// What a server of others calls itself: the first line that its program says of its version.
pub(crate) fn version(pid: u32) -> Option<String> {
    let program = PathBuf::from(format!("/proc/{pid}/exe"));
    let name = match std::fs::read_link(&program).ok()?.file_name()?.to_str()? {
        // It goes by what it is called as: Debian has a link to the one that checks files.
        "redis-check-rdb" => "redis-server".to_owned(),
        name => name.to_owned(),
    };
    let (called, flag) = VERSIONS.iter().find(|(called, _)| *called == name)?;
    let output = Command::new(program).arg0(called).arg(flag).stdin(Stdio::null()).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}

/// The path of a program beside this one, which is built if it is not there.
fn program(&(name, source, _): &Known) -> Result<String> {
    let ours = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = ours.parent().unwrap_or(Path::new("."));
    let path = match source {
        Source::Example(_) => folder.join("examples").join(name),
        _ => folder.join(name),
    };
    if !path.is_file() {
        build(name, source, folder).with_context(|| format!("--server: no `{name}`"))?;
    }
    ensure!(path.is_file(), "--server: no `{name}` at {} after building it", path.display());
    Ok(path.to_string_lossy().into_owned())
}

/// Builds a server with the profile and into the folder of this program.
fn build(name: &str, source: Source, folder: &Path) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    cargo.current_dir(&workspace).args(["build", "--locked"]).stdin(Stdio::null()).stdout(Stdio::null());
    match source {
        Source::Example(feature) => {
            cargo.args(["--example", name]).args(feature.map(|feature| format!("--features={feature}")))
        }
        Source::Peer => cargo.args(["-p", "corelane-peers", "--bin", name]),
        Source::AsyncPeer => cargo.args(["--manifest-path", "benches/peers/async/Cargo.toml", "--bin", name]),
        Source::Go => bail!("build it with benches/peers/go/build.sh {}", folder.display()),
    };
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo could not build it ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_command_lines() {
        let line = command_line("builtin", Some(3), false).unwrap();
        assert_eq!(line.words[1..], ["echo-server", "--listen", "127.0.0.1:0", "--reactors", "3"]);
        assert_eq!((line.dialect, line.path), (Dialect::Echo, None));
        let line = command_line("/bin/server --port 'a b'", None, false).unwrap();
        assert_eq!(line.words, ["/bin/server", "--port", "a b"]);
    }

    #[test]
    fn unknown_servers_are_refused() {
        for name in ["", "no-such-example", "peer-none", "x;y", "..", "/bin/x 'unfinished"] {
            let problem = format!("{:#}", command_line(name, None, false).unwrap_err());
            assert!(problem.starts_with("--server: "), "{name}: {problem}");
        }
    }

    #[test]
    fn every_peer_has_its_name_and_is_spoken_to_in_its_way() {
        let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (folder, source) in [("peers/src/bin", Source::Peer), ("peers/async/src/bin", Source::AsyncPeer)]
        {
            for file in std::fs::read_dir(benches.join(folder)).unwrap() {
                let path = file.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap();
                if !name.starts_with("peer-") {
                    continue;
                }
                let known = SERVERS.iter().find(|known| known.0 == name);
                let (_, known, dialect) = known.unwrap_or_else(|| panic!("{name} is not known"));
                assert_eq!(*known, source, "{name}");
                let text = std::fs::read_to_string(&path).unwrap();
                assert_eq!(*dialect == Dialect::Http, text.contains("GET /plaintext"), "{name}");
                assert_eq!(*dialect == Dialect::Redis, text.contains("redis-server"), "{name}");
            }
        }
    }
}
