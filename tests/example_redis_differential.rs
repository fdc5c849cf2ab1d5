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
                    let option = ["nx", "XX", "ex", "PX", "900000", "ex 900000", "PX 800000", "ex x", "px 0"];
                    words.extend(self.pick(&option).split(' ').map(str::to_owned));
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
                if self.0.below(2) == 0 {
                    // None that another may be equal to, in one of the two by a millisecond.
                    words[2] = (3000 + self.0.below(1_000_000)).to_string();
                }
                for _ in 0..self.0.below(3) {
                    words.push(self.pick(&["NX", "xx", "GT", "lt", "GT", "lt", "nope"]).to_owned());
                }
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
        drop(ours);
        example.stop();
    }
}

#[test]
fn what_breaks_the_protocol_is_answered_alike() {
    let folder = TempDir::new();
    let socket = folder.join("redis.sock");
    let Some(_original) = Original::start(folder.path(), &socket) else { return };
    let (_example, address) = Example::serve("redis", &["--reactors", "2"]);
    let cases: [&[u8]; 22] = [
        b"*1\r\n\r\n",
        b"*1\r\n\n\r\n",
        b"*2\r\n$4\r\nECHO\r\n\r\n",
        b"*\r\n",
        b"*1\r\n$\r\n",
        b"*1\r\n\rx",
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

/// What a server says of itself is left out: its name and version, and the client's number.
fn without_identity(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    let mut lines = text.split_inclusive('\n');
    let mut kept = String::new();
    while let Some(line) = lines.next() {
        kept.push_str(line);
        let left_out = match line.trim_end() {
            "server" | "version" => 2,
            "id" => 1,
            _ => 0,
        };
        for _ in 0..left_out {
            lines.next();
        }
    }
    kept
}

#[test]
fn what_is_said_about_the_connection_is_answered_alike() {
    let folder = TempDir::new();
    let socket = folder.join("redis.sock");
    let Some(_original) = Original::start(folder.path(), &socket) else { return };
    for reactors in ["1", "2"] {
        let (_example, address) = Example::serve("redis", &["--reactors", reactors]);
        let mut ours = Client::connect(&Address::Tcp(address));
        let mut theirs = Client::connect(&Address::Unix(socket.clone()));
        for script in CONNECTION {
            // In the end both are as they were, whatever came before.
            let script = format!("FLUSHDB; {script}; RESET; CLIENT GETNAME").replace("; ", "\r\n") + "\r\n";
            let [ours, theirs] = [&mut ours, &mut theirs].map(|client| reply(client, script.as_bytes()));
            assert_eq!(without_identity(&ours), without_identity(&theirs), "{script}");
        }
    }
}

const CONNECTION: [&str; 37] = [
    "HELLO; GET a",
    "HELLO 2; GET a",
    "HELLO 3; GET a; HELLO; HELLO 2; GET a",
    "HELLO 1; HELLO 4; HELLO x; HELLO AUTH default x; GET a",
    "HELLO 3 AUTH default x; GET a",
    "HELLO 3 AUTH nobody x; GET a",
    "HELLO 4 AUTH nobody x",
    "HELLO 3 AUTH; HELLO 3 AUTH default; HELLO 3 SETNAME; HELLO 3 NOPE; GET a",
    "HELLO 3 SETNAME me; CLIENT GETNAME",
    "HELLO 3 SETNAME \"a b\"; CLIENT GETNAME",
    "HELLO 3 SETNAME me AUTH nobody x; CLIENT GETNAME",
    "HELLO 2 auth default x setname me; client getname",
    // Replies of RESP3.
    "HELLO 3; SET a 1; MGET a nope; SET b 1 XX; SET a 2 NX; KEYS nope; KEYS a; INCR nope; DEL nope; TTL a; DBSIZE",
    "HELLO 3; CONFIG GET save; CONFIG GET nope; PING; PING x; ECHO x; PUBLISH a b; NOPE; FLUSHDB",
    "HELLO 3; EXPIRE a 10; EXISTS a a; APPEND a b; INCR a; MSET a 1 b 2; MGET a b",
    "HELLO 3; COMMAND INFO nope nope; COMMAND DOCS nope; CLIENT GETNAME",
    "COMMAND INFO nope nope; COMMAND DOCS nope; COMMAND NOPE; COMMAND COUNT x; CONFIG NOPE; CONFIG GET",
    // CLIENT.
    "CLIENT GETNAME; CLIENT SETNAME me; CLIENT GETNAME; client setname \"\"; CLIENT GETNAME",
    "CLIENT SETNAME me; CLIENT SETNAME \"a b\"; CLIENT SETNAME \"a\\n\"; CLIENT GETNAME",
    "CLIENT; CLIENT NOPE; CLIENT GETNAME x; CLIENT SETNAME; CLIENT SETNAME a b; CLIENT ID x",
    "CLIENT SETNAME me; HELLO 3; RESET; CLIENT GETNAME; GET a; RESET x",
    // Who has subscribed.
    "SUBSCRIBE a; PING; PING x; PING x y; SUBSCRIBE a b; UNSUBSCRIBE a; UNSUBSCRIBE nope; UNSUBSCRIBE; PING",
    "SUBSCRIBE a a b; UNSUBSCRIBE b b a; UNSUBSCRIBE; GET a",
    "SUBSCRIBE a; GET a; GET; NOPE; SET a 1; MSET a; PUBLISH a b; SUBSCRIBE",
    "SUBSCRIBE a; HELLO 3; HELLO; CLIENT ID; client getname; CLIENT; UNSUBSCRIBE; GET a",
    "SUBSCRIBE a; COMMAND; command count; CONFIG GET save; ECHO x; KEYS a; FLUSHDB; DBSIZE",
    "SUBSCRIBE a; RESET; GET a; PING; UNSUBSCRIBE",
    "UNSUBSCRIBE; UNSUBSCRIBE a b; PING",
    "HELLO 3; SUBSCRIBE a b; PING; PING x; GET a; SET a 1; GET a; UNSUBSCRIBE a; UNSUBSCRIBE; UNSUBSCRIBE; GET a",
    "HELLO 3; SUBSCRIBE a; RESET; GET a; UNSUBSCRIBE",
    "HELLO 3; SUBSCRIBE a; HELLO 2; GET a; HELLO 3; PING",
    "HELLO 3; SUBSCRIBE a; CLIENT SETNAME me; CLIENT GETNAME; DBSIZE; UNSUBSCRIBE a b",
    // Times, and options that come again.
    "SET a 1 EX 10 EX 2000; EXPIRE a 1000 GT; EXPIRE a 3000 LT; EXPIRE a 3000 NX; EXPIRE a 3000 GT; EXPIRE a 10 LT",
    "SET a 1 PX 10 PX 900000; SET a 1 PX 10 EX 20; SET a 1 EX x EX 900; SET a 1 EX 10 EX; SET a 1 NX NX; EXISTS a",
    "SET a 1; EXPIRE a 100 GT; EXPIRE a 100 XX; EXPIRE a 100 LT; EXPIRE a 50 xx lt; EXPIRE a 200 XX GT; EXPIRE a -1 GT",
    "EXPIRE a 100 NX XX; EXPIRE a 100 GT LT; EXPIRE a x NX GT; EXPIRE a x GT; EXPIRE a 1 nope GT LT; EXPIRE a 1 NX NX",
    "SET a 1; EXPIRE a 9223372036854775807 GT; EXPIRE a -1 XX LT; EXPIRE a -1 LT; EXISTS a; EXPIRE a 1 LT",
];

#[test]
fn messages_are_sent_alike() {
    let folder = TempDir::new();
    let socket = folder.join("redis.sock");
    let Some(_original) = Original::start(folder.path(), &socket) else { return };
    for reactors in ["1", "2"] {
        let (_example, address) = Example::serve("redis", &["--reactors", reactors]);
        let servers = [Address::Tcp(address), Address::Unix(socket.clone())];
        for protocol in ["2", "3"] {
            let [ours, theirs] = servers.clone().map(|address| {
                let [mut member, mut publisher] = [(); 2].map(|()| Client::connect(&address));
                let hello = format!("HELLO {protocol}\r\n");
                let mut all = reply(&mut member, hello.as_bytes());
                // Between requests there is nothing that could show where the replies end.
                member.send(b"SUBSCRIBE a b\r\nPING\r\n");
                let end = if protocol == "2" { "*2\r\n$4\r\npong\r\n$0\r\n\r\n" } else { "+PONG\r\n" };
                while !all.ends_with(end.as_bytes()) {
                    all.extend(member.receive(1));
                }
                let script =
                    b"PUBLISH a hello\r\nPUBLISH b \"\"\r\nPUBLISH c x\r\nPUBLISH a \"a\\r\\nb\"\r\n";
                all.extend(reply(&mut publisher, script));
                all.extend(reply(&mut member, b"UNSUBSCRIBE a\r\nRESET\r\n"));
                all.extend(reply(&mut publisher, b"PUBLISH a none\r\nPUBLISH b none\r\n"));
                all.extend(reply(&mut member, b"GET a\r\n"));
                without_identity(&all)
            });
            assert_eq!(ours, theirs, "HELLO {protocol}");
        }
    }
}
