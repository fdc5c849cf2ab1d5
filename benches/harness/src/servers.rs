//! Servers by name: corelane's examples, the peers, the one built in, or any command line.
//!
//! Called by the commands that load a server which they start themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use corelane::Address;

use crate::cpu::CpuList;
use crate::outcome::{Status, WithStatus};
use crate::plan::Dialect;
use crate::process::{Lines, Server};

/// The server inside this program.
const BUILT_IN: &str = "builtin";

/// A server that was started for a run.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) server: Server,
    /// The command line that it was started with.
    pub(crate) command: String,
    /// What is usually said to it.
    pub(crate) dialect: Dialect,
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
    ) -> Result<Self> {
        let (words, dialect) = command_line(name, reactors, takes_publishers).status(Status::Usage)?;
        let [program, arguments @ ..] = words.as_slice() else { bail!("the command of a server is empty") };
        let mut command = Command::new(program);
        command.args(arguments);
        let (mut server, lines) = Server::start_any(command, name, cpus).status(Status::Unreachable)?;
        if takes_publishers {
            server.takes_publishers(&lines).with_context(|| format!("`{name}` takes no publishers"))?;
        }
        Ok(Self { server, command: shell_words::join(&words), dialect, _lines: lines })
    }

    pub(crate) fn address(&self) -> &Address {
        self.server.listening()
    }
}

/// The command line of a server, and what is usually said to it.
fn command_line(name: &str, reactors: Option<usize>, publishes: bool) -> Result<(Vec<String>, Dialect)> {
    if name.contains(char::is_whitespace) || name.contains('/') {
        let words = shell_words::split(name).with_context(|| format!("--server: cannot split `{name}`"))?;
        ensure!(!words.is_empty(), "--server: the command is empty");
        return Ok((words, Dialect::Echo));
    }
    let is_plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    ensure!(is_plain, "--server: `{name}` is no name of a server");
    let text = |word: &str| word.to_owned();
    let (program, address, threads) = match name {
        BUILT_IN => (text("/proc/self/exe"), "--listen", "--reactors"),
        peer if peer.starts_with("peer-") => (program(peer, peer, false)?, "--addr", "--threads"),
        example => (program(&format!("examples/{example}"), example, true)?, "--listen", "--reactors"),
    };
    let mut words = vec![program];
    if name == BUILT_IN {
        words.push(text("echo-server"));
    }
    words.extend([text(address), text("127.0.0.1:0")]);
    if publishes {
        words.extend([text("--publish"), text("127.0.0.1:0")]);
    }
    if let Some(reactors) = reactors {
        words.extend([text(threads), reactors.to_string()]);
    }
    if address == "--listen" && name != BUILT_IN {
        words.extend([text("--idle"), text("0")]);
    }
    let dialect = match name {
        "frames" => Dialect::Frames,
        "redis" => Dialect::Redis,
        name if name.contains("http") || name.contains("web") => Dialect::Http,
        _ => Dialect::Echo,
    };
    Ok((words, dialect))
}

/// The path of a program beside this one, which is built if it is not there.
fn program(path: &str, name: &str, is_example: bool) -> Result<String> {
    let ours = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = ours.parent().unwrap_or(Path::new("."));
    let path = folder.join(path);
    if !path.is_file() {
        build(name, is_example, folder).with_context(|| format!("--server: no `{name}`"))?;
    }
    ensure!(path.is_file(), "--server: no `{name}` at {} after building it", path.display());
    Ok(path.to_string_lossy().into_owned())
}

/// Builds a server with the profile and into the folder of this program.
fn build(name: &str, is_example: bool, folder: &Path) -> Result<()> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let source = match is_example {
        true => [format!("examples/{name}.rs"), format!("examples/{name}/main.rs")],
        false => {
            [format!("benches/peers/src/bin/{name}.rs"), format!("benches/peers/src/bin/{name}/main.rs")]
        }
    };
    let is_known = source.iter().any(|source| workspace.join(source).is_file());
    ensure!(is_known, "none of corelane's examples or peers is called so");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&workspace).arg("build").stdin(Stdio::null()).stdout(Stdio::null());
    match is_example {
        true => cargo.args(["--example", name]),
        false => cargo.args(["-p", "corelane-peers", "--bin", name]),
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
        let (words, dialect) = command_line("builtin", Some(3), false).unwrap();
        assert_eq!(words[1..], ["echo-server", "--listen", "127.0.0.1:0", "--reactors", "3"]);
        assert_eq!(dialect, Dialect::Echo);
        let (words, _) = command_line("/bin/server --port 'a b'", None, false).unwrap();
        assert_eq!(words, ["/bin/server", "--port", "a b"]);
    }

    #[test]
    fn unknown_servers_are_refused() {
        for name in ["", "no-such-example", "peer-none", "x;y", "..", "/bin/x 'unfinished"] {
            let problem = format!("{:#}", command_line(name, None, false).unwrap_err());
            assert!(problem.starts_with("--server: "), "{name}: {problem}");
        }
    }
}
