//! The redis example beside Debian's redis-server: the same requests, the same replies, byte for byte.

mod support;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use corelane::Address;
use support::{Client, Example, Random, TempDir, eventually, installed};

/// Debian's redis-server on a unix socket, keeping nothing.
struct Original(Child);

impl Original {
    /// `None` where the program is missing.
    #[track_caller]
    fn start(folder: &Path, socket: &Path) -> Option<Self> {
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"]).arg(folder);
        command.arg("--unixsocket").arg(socket).stdout(Stdio::null());
        let original = Self(installed("redis-server", command.spawn())?);
        eventually("redis-server to listen", || UnixStream::connect(socket).is_ok());
        Some(original)
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const MARK: &[u8] = b"$8\r\nthe-mark\r\n";

/// Sends a request and everything that comes back for it.
fn reply(client: &mut Client, request: &[u8]) -> Vec<u8> {
    client.send(&[request, b"*2\r\n$4\r\nECHO\r\n$8\r\nthe-mark\r\n"].concat());
    let mut reply = Vec::new();
    let mut buffer = [0; 8192];
    while !reply.ends_with(MARK) {
        let count = client.read(&mut buffer).unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&reply));
        reply.extend_from_slice(&buffer[..count]);
    }
    reply.truncate(reply.len() - MARK.len());
    reply
}

struct Script(Random);

impl Script {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.0.below(of.len())]
    }

    fn key(&mut self) -> String {
        format!("key{}", self.0.below(12))
    }

    fn value(&mut self) -> String {
        let longest = [4, 30, 6000][self.0.below(3)];
        match self.0.below(3) {
            0 => self
                .pick(&[
                    "0",
                    "-1",
                    "007",
                    "-0",
                    "9223372036854775807",
                    "-9223372036854775808",
                    "",
                    " 1",
                    "1.5",
                ])
                .to_owned(),
            1 => self.0.below(1000).to_string(),
            _ => "v".repeat(self.0.below(longest)),
        }
    }

    fn words(&mut self) -> Vec<String> {
        let name = self.pick(&[
            "get", "GET", "set", "SET", "Set", "set", "incr", "incrby", "append", "del", "exists", "mget",
            "mset", "expire", "ttl", "dbsize", "flushdb", "keys", "ping", "echo", "nope", "publish",
        ]);
        let mut words = vec![name.to_owned()];
        match &name.to_ascii_lowercase()[..] {
            "get" | "incr" | "ttl" => words.push(self.key()),
            "append" => words.extend([self.key(), self.value()]),
            "incrby" => words.extend([self.key(), self.value()]),
            "set" => {
                words.extend([self.key(), self.value()]);
                for _ in 0..self.0.below(4).saturating_sub(1) {
                    words.push(self.pick(&["nx", "XX", "ex", "PX", "900000", "100000", "0", "x"]).to_owned());
                }
            }
            "del" | "exists" | "mget" => (0..=self.0.below(5)).for_each(|_| words.push(self.key())),
            "mset" => (0..=self.0.below(5)).for_each(|_| words.extend([self.key(), self.value()])),
            // None that ends while the script runs.
            "expire" => {
                let time = self.pick(&[
                    "100",
                    "1000",
                    "-1",
                    "0",
                    "x",
                    "9223372036854775807",
                    "-9223372036854775808",
                ]);
                words.extend([self.key(), time.to_owned()]);
            }
            // Several keys would come in any order.
            "keys" => words.push(
                self.pick(&["key1", "k*y1", "*y1", "nobody*", "key[5]", "[^k]*", "key\\5", "key1?x"]).into(),
            ),
            "flushdb" if self.0.below(10) > 0 => words = vec!["dbsize".into()],
            "echo" | "nope" => words.push(self.value()),
            "publish" => words.extend([self.key(), self.value()]),
            _ => {}
        }
        // A word too few or too many, now and then.
        match self.0.below(30) {
            0 => drop(words.pop().filter(|_| words.len() > 1)),
            1 => words.push(self.value()),
            _ => {}
        }
        words
    }
}

fn request(words: &[String]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| bytes.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    bytes.into_bytes()
}

/// Seconds that are left are counted by each from a moment of its own.
fn are_close(ours: &str, theirs: &str) -> bool {
    let seconds = |text: &str| text.strip_prefix(':')?.trim_end().parse::<i64>().ok();
    matches!((seconds(ours), seconds(theirs)), (Some(ours), Some(theirs)) if ours > 0 && (ours - theirs).abs() <= 30)
}

#[test]
fn the_same_requests_get_the_same_replies() {
    let folder = TempDir::new();
    let socket = folder.join("redis.sock");
    let Some(_original) = Original::start(folder.path(), &socket) else { return };
    for reactors in ["1", "2"] {
        let (example, address) = Example::serve("redis", &["--reactors", reactors]);
        let mut ours = Client::connect(&Address::Tcp(address));
        let mut theirs = Client::connect(&Address::Unix(socket.clone()));
        reply(&mut theirs, b"FLUSHALL\r\n");
        let mut script = Script(Random::new(2026));
        for step in 0..4000 {
            let words = script.words();
            let request = request(&words);
            let (ours, theirs) = (reply(&mut ours, &request), reply(&mut theirs, &request));
            let (ours, theirs) = (String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs));
            if are_close(&ours, &theirs) && words[0] == "ttl" {
                continue;
            }
            assert_eq!(ours, theirs, "step {step}, {reactors} reactors: {words:?}");
        }
        example.stop();
    }
}

#[test]
fn what_breaks_the_protocol_is_answered_alike() {
    let folder = TempDir::new();
    let socket = folder.join("redis.sock");
    let Some(_original) = Original::start(folder.path(), &socket) else { return };
    let (_example, address) = Example::serve("redis", &["--reactors", "2"]);
    let cases: [&[u8]; 16] = [
        b"*x\r\n",
        b"*99999999999\r\n",
        b"*1\r\nGET\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$01\r\n",
        b"*2\r\n$3\r\nGET\r\n:1\r\n",
        b"*1\r\n$99999999999\r\n",
        b"GET 'a\r\n",
        b"GET \"a\"b\r\n",
        b"*0\r\n*-5\r\nQUIT\r\n",
        b"\r\n\n  \r\nQUIT\r\n",
        b"PING\nQUIT\n",
        b"ECHO \"\\x41\\n\\q\"\r\nECHO 'a\\'b\\n'\r\nQUIT\r\n",
        b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nQUITxx",
        b"ECHO a\tb\r\nECHO a\tQUIT\r\nQUIT\r\n",
        b"nope \"a\\r\\nb\" \"c\\x00d\"\r\nQUIT\r\n",
    ];
    for case in cases {
        let mut ours = Client::connect(&Address::Tcp(address));
        let mut theirs = Client::connect(&Address::Unix(socket.clone()));
        ours.send(case);
        theirs.send(case);
        let (ours, theirs) = (ours.receive_rest().0, theirs.receive_rest().0);
        let (ours, theirs) = (String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs));
        assert_eq!(ours, theirs, "{}", case.escape_ascii());
    }
}
