//! Somebody who uses the chat example.

use std::io::{BufRead, BufReader};

use corelane::Address;
use nix::sys::signal::Signal;

use super::{Client, Example, TempDir};

/// Somebody in the chat.
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) lines: BufReader<Client>,
}

impl Member {
    /// Connects, and chooses a nickname.
    #[track_caller]
    pub(crate) fn enter(address: &Address, nickname: &str) -> Self {
        let mut member = Self::new(Client::connect(address));
        member.say(nickname);
        member.hear(&format!("-- you are {nickname}; "));
        member
    }

    #[track_caller]
    pub(crate) fn enter_room(address: &Address, nickname: &str, room: &str) -> Self {
        let mut member = Self::enter(address, nickname);
        member.join(room);
        member
    }

    pub(crate) fn new(client: Client) -> Self {
        Self { lines: BufReader::new(client.another()), client }
    }

    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) {
        self.client.send(format!("{line}\n").as_bytes());
    }

    #[track_caller]
    pub(crate) fn join(&mut self, room: &str) {
        self.say(&format!("/join {room}"));
        self.hear(&format!("-- you are in {room} "));
    }

    /// Who is in the room that this member is in.
    #[track_caller]
    pub(crate) fn who(&mut self, room: &str) -> String {
        self.say("/who");
        let is_answer = |line: &String| line.starts_with("--") && line.contains(&format!(" in {room}: "));
        std::iter::repeat_with(|| self.line()).find(is_answer).unwrap()
    }

    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap_or_else(|error| panic!("no line: {error}, {line:?}"));
        assert!(line.ends_with('\n'), "the stream ended after {line:?}");
        line.pop();
        line
    }

    /// The next line that begins with `prefix`.
    #[track_caller]
    pub(crate) fn hear(&mut self, prefix: &str) -> String {
        let mut heard = Vec::new();
        loop {
            let line = self.line();
            if line.starts_with(prefix) {
                return line;
            }
            heard.push(line);
            assert!(heard.len() < 10_000, "{prefix:?} is not in {:?} ..", &heard[..20]);
        }
    }

    /// The next lines that members said, passing over the server's own.
    #[track_caller]
    pub(crate) fn said(&mut self, count: usize) -> Vec<String> {
        let lines = std::iter::repeat_with(|| self.line());
        lines.filter(|line| !line.starts_with("--")).take(count).collect()
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, lines: &[&str]) {
        lines.iter().for_each(|line| assert_eq!(self.line(), *line));
    }

    /// All that still comes, up to an end in good order.
    #[track_caller]
    pub(crate) fn rest(self) -> Vec<String> {
        self.lines.lines().map(|line| line.unwrap_or_else(|error| panic!("{error}"))).collect()
    }
}

pub(crate) fn serve(arguments: &[&str]) -> (Example, Address) {
    let (chat, address) = Example::serve("chat", arguments);
    (chat, Address::Tcp(address))
}

/// A server of two reactors, where each next connection is on the other one: those to a Unix socket are handed
/// out in turn.
pub(crate) fn serve_in_turn(folder: &TempDir, arguments: &[&str]) -> (Example, Address) {
    let path = folder.join("chat.sock");
    let unix = format!("unix:{}", path.display());
    let (mut chat, _) =
        Example::serve("chat", &[&["--listen", &unix, "--reactors", "2"], arguments].concat());
    assert_eq!(chat.hear("listening on "), unix);
    (chat, Address::Unix(path))
}

/// Ends the server: who is there is told, and it ends well; what it printed.
#[track_caller]
pub(crate) fn end(chat: Example, members: impl IntoIterator<Item = Member>) -> Vec<String> {
    chat.signal(Signal::SIGTERM);
    for member in members {
        let rest = member.rest();
        assert_eq!(rest.last().map(String::as_str), Some("-- the server is shutting down; goodbye"));
    }
    let (status, output) = chat.wait();
    assert!(status.success(), "{status}: {output:#?}");
    assert!(output.iter().any(|line| line.contains(", 0 cut off")), "{output:#?}");
    assert!(!output.iter().any(|line| line.contains("panic")), "{output:#?}");
    output
}
