//! The redis example beside its real clients: redis-cli, redis-benchmark, and sockets that misbehave.

mod support;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use support::redis::{REACTORS, ask, connect, line, serve, words};
use support::{Client, Random, eventually, installed};

/// Whether a program of Debian's redis-tools is here.
#[track_caller]
fn has(program: &str) -> bool {
    installed(program, Command::new(program).arg("--version").stdout(Stdio::null()).status()).is_some()
}

#[test]
fn every_command_answers_as_redis_does() {
    for reactors in REACTORS {
        let (example, address) = serve(&["--reactors", reactors]);
        let mut client = connect(address);
        for (line, reply) in [
            ("PING", "+PONG\r\n"),
            ("ping hi", "$2\r\nhi\r\n"),
            ("ECHO hello", "$5\r\nhello\r\n"),
            ("GET a", "$-1\r\n"),
            ("SET a 1", "+OK\r\n"),
            ("GET a", "$1\r\n1\r\n"),
            ("SET a 2 NX", "$-1\r\n"),
            ("SET b 2 XX", "$-1\r\n"),
            ("SET b 2 nx ex 100", "+OK\r\n"),
            ("SET a 3 xx PX 100000", "+OK\r\n"),
            ("TTL a", ":100\r\n"),
            ("TTL b", ":100\r\n"),
            ("SET a 3", "+OK\r\n"),
            ("TTL a", ":-1\r\n"),
            ("TTL nobody", ":-2\r\n"),
            ("INCR a", ":4\r\n"),
            ("INCRBY a -10", ":-6\r\n"),
            ("INCR fresh", ":1\r\n"),
            ("APPEND a 7", ":3\r\n"),
            ("GET a", "$3\r\n-67\r\n"),
            ("APPEND new x", ":1\r\n"),
            ("MSET c 1 d 2 e 3 f 4", "+OK\r\n"),
            ("MGET c nobody d e f", "*5\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n"),
            ("EXISTS c c d nobody", ":3\r\n"),
            ("DEL c d nobody", ":2\r\n"),
            ("EXPIRE e 100", ":1\r\n"),
            ("EXPIRE nobody 100", ":0\r\n"),
            ("TTL e", ":100\r\n"),
            ("EXPIRE e -1", ":1\r\n"),
            ("EXISTS e", ":0\r\n"),
            ("KEYS fre[s-t]?", "*1\r\n$5\r\nfresh\r\n"),
            ("DBSIZE", ":5\r\n"),
            ("FLUSHDB", "+OK\r\n"),
            ("DBSIZE", ":0\r\n"),
            ("PUBLISH nobody hears", ":0\r\n"),
            ("CLIENT SETINFO LIB-NAME test", "+OK\r\n"),
            ("CLIENT SETNAME me", "+OK\r\n"),
            ("CLIENT GETNAME", "$2\r\nme\r\n"),
            ("COMMAND COUNT", ":25\r\n"),
            ("COMMAND INFO nope", "*1\r\n$-1\r\n"),
            ("COMMAND DOCS", "*0\r\n"),
            ("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
            ("CONFIG GET appendonly", "*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n"),
        ] {
            if reply == ":100\r\n" {
                // Less if this took a while.
                client.send(&words(line));
                let left = String::from_utf8(self::line(&mut client)).unwrap();
                let left: u32 = left.trim().trim_start_matches(':').parse().unwrap();
                assert!((40..=100).contains(&left), "{line}: {left}");
            } else {
                ask(&mut client, line, reply);
            }
        }
        client.send(b"QUIT\r\nPING\r\n");
        assert_eq!(client.receive_all(), b"+OK\r\n");
        drop(client);
        example.stop();
    }
}

#[test]
fn what_is_wrong_is_said_as_redis_says_it() {
    let (_example, address) = serve(&["--reactors", "2"]);
    let mut client = connect(address);
    ask(&mut client, "SET text abc", "+OK\r\n");
    ask(&mut client, "SET most 9223372036854775807", "+OK\r\n");
    for (line, error) in [
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
        ("PING a b", "ERR wrong number of arguments for 'ping' command"),
        ("NOPE a b", "ERR unknown command 'NOPE', with args beginning with: 'a' 'b' "),
        ("INCR text", "ERR value is not an integer or out of range"),
        ("INCR most", "ERR increment or decrement would overflow"),
        ("INCRBY most x", "ERR value is not an integer or out of range"),
        ("SET a b EX", "ERR syntax error"),
        ("SET a b NX XX", "ERR syntax error"),
        ("SET a b EX 1 PX 1", "ERR syntax error"),
        ("SET a b EX x", "ERR value is not an integer or out of range"),
        ("SET a b EX 0", "ERR invalid expire time in 'set' command"),
        ("EXPIRE a x", "ERR value is not an integer or out of range"),
        ("EXPIRE a 9223372036854775807", "ERR invalid expire time in 'expire' command"),
        ("FLUSHDB NOW", "ERR syntax error"),
        ("CLIENT DANCE", "ERR unknown subcommand 'DANCE'. Try CLIENT HELP."),
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        ("HELLO x", "ERR Protocol version is not an integer or out of range"),
    ] {
        ask(&mut client, line, &format!("-{error}\r\n"));
    }
}

#[test]
fn what_breaks_the_protocol_is_told_and_the_connection_closed() {
    let (_example, address) = serve(&["--reactors", "2", "--max-request", "4096"]);
    let long = [b'x'; 70 * 1024];
    let cases: [(&[u8], &str); 8] = [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*1\r\n+GET\r\n", "expected '$', got '+'"),
        (b"*2\r\n$3\r\nGET\r\n$-1\r\n", "invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$5000\r\n", "invalid bulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"SET a \"b\r\n", "unbalanced quotes in request"),
        (&long, "too big inline request"),
    ];
    for (bytes, error) in cases {
        let mut client = connect(address);
        client.send(&words("SET seen before"));
        client.send(bytes);
        let expected = format!("+OK\r\n-ERR Protocol error: {error}\r\n");
        assert_eq!(String::from_utf8_lossy(&client.receive_all()), expected);
    }
}

#[test]
fn lines_typed_by_hand_are_requests_too() {
    let (_example, address) = serve(&[]);
    let mut client = connect(address);
    client.send(b"\r\n  SET   key  \"a \\x41\\n\\\"b\"\r\nGET key\nset 'it''s' 1\r\n");
    let replies = client.receive_all();
    let expected = "+OK\r\n$6\r\na A\n\"b\r\n-ERR Protocol error: unbalanced quotes in request\r\n";
    assert_eq!(String::from_utf8_lossy(&replies), expected);
    let mut client = connect(address);
    client.send(b"ECHO 'it\\'s'\r\nEXISTS \"\"\r\n*0\r\n*-1\r\nPING\r\n");
    let expected: &[u8] = b"$4\r\nit's\r\n:0\r\n+PONG\r\n";
    assert_eq!(client.receive(expected.len()), expected);
}

/// Requests for keys of every shard in turn, all with this beginning, and the replies.
fn conversation(name: &str, keys: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for key in 0..keys {
        requests.extend(words(&format!("SET {name}{key} value{key}")));
        replies.extend(b"+OK\r\n");
        requests.extend(words(&format!("GET {name}{key}")));
        let value = format!("value{key}");
        let value = format!("${}\r\n{value}\r\n", value.len());
        replies.extend(value.bytes());
        requests.extend(words(&format!("MGET {name}{key} {name}0 nobody")));
        replies.extend(format!("*3\r\n{value}$6\r\nvalue0\r\n$-1\r\n").bytes());
        requests.extend(b"PING\r\n");
        replies.extend(b"+PONG\r\n");
    }
    requests.extend(words(&format!("DEL {name}0 {name}1 {name}2 nobody")));
    replies.extend(b":3\r\n");
    (requests, replies)
}

#[test]
fn a_pipeline_cut_anywhere_is_answered_alike() {
    for reactors in REACTORS {
        let (_example, address) = serve(&["--reactors", reactors]);
        let (requests, replies) = conversation("key", 4);
        for cut in 1..requests.len() {
            let mut client = connect(address);
            client.send(&requests[..cut]);
            // The first part has been read when something of its own has come back.
            if cut > 40 {
                assert_eq!(client.receive(5), replies[..5]);
                client.send(&requests[cut..]);
                assert_eq!(client.receive(replies.len() - 5), replies[5..], "cut at {cut}");
            } else {
                client.send(&requests[cut..]);
                assert_eq!(client.receive(replies.len()), replies, "cut at {cut}");
            }
        }
        let mut client = connect(address);
        for byte in &requests {
            client.send(std::slice::from_ref(byte));
        }
        assert_eq!(client.receive(replies.len()), replies);
    }
}

#[test]
fn replies_come_in_order_whoever_owns_the_keys() {
    for mailbox in ["1", "4096"] {
        many_pipelines(&["--reactors", "2", "--mailbox", mailbox]);
    }
}

fn many_pipelines(arguments: &[&str]) {
    let (example, address) = serve(arguments);
    let clients: Vec<_> = (0..4).map(|_| connect(address)).collect();
    std::thread::scope(|scope| {
        for (seed, client) in clients.into_iter().enumerate() {
            scope.spawn(move || {
                let (requests, replies) = conversation(&format!("client{seed}-"), 3000);
                let (mut sender, mut receiver) = (client.another(), client);
                let sending = std::thread::spawn(move || {
                    Random::new(seed as u64)
                        .pieces(&requests, 5000)
                        .into_iter()
                        .for_each(|piece| sender.send(piece));
                });
                assert!(receiver.receive(replies.len()) == replies, "client {seed} got something else");
                sending.join().unwrap();
            });
        }
    });
    example.stop();
}

#[test]
fn messages_reach_the_subscribers_of_every_reactor() {
    for reactors in REACTORS {
        let (_example, address) = serve(&["--reactors", reactors]);
        let mut members: Vec<Client> = (0..16).map(|_| connect(address)).collect();
        for member in &mut members {
            ask(member, "SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
        }
        let mut new = connect(address);
        new.send(&words("HELLO 3"));
        new.send(&words("SUBSCRIBE news"));
        let mut seen = Vec::new();
        while !seen.ends_with(b">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n") {
            seen.extend(new.receive(1));
        }
        assert!(seen.starts_with(b"%7\r\n$6\r\nserver\r\n"), "{}", String::from_utf8_lossy(&seen));
        let mut publisher = connect(address);
        ask(&mut publisher, "PUBLISH news hello", ":17\r\n");
        let message = "3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n";
        for member in &mut members {
            assert_eq!(member.receive(message.len() + 1), format!("*{message}").as_bytes());
        }
        assert_eq!(new.receive(message.len() + 1), format!(">{message}").as_bytes());

        let member = &mut members[0];
        let refusal = "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
                       are allowed in this context\r\n";
        ask(member, "GET a", refusal);
        ask(member, "PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
        ask(member, "UNSUBSCRIBE other", "*3\r\n$11\r\nunsubscribe\r\n$5\r\nother\r\n:1\r\n");
        ask(member, "UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n");
        ask(member, "UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
        ask(member, "GET a", "$-1\r\n");
        ask(&mut new, "GET a", "_\r\n");
        members.truncate(4);
        eventually("members that have left are not counted", || {
            publisher.send(&words("PUBLISH news again"));
            line(&mut publisher) == b":4\r\n"
        });
    }
}

#[test]
fn whoever_vanishes_leaves_nothing_behind() {
    let (example, address) = serve(&["--reactors", "2"]);
    for round in 0..50 {
        let mut client = connect(address);
        client.send(&words(&format!("SET kept{round} 1")));
        client.send(b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1000000\r\nabc");
        if round % 2 == 0 { client.reset() } else { drop(client) }
    }
    let mut client = connect(address);
    // One that has sent all it has to say still gets its answers.
    client.send(&words("EXISTS half"));
    client.send(&words("MGET half half half"));
    client.finish();
    assert_eq!(client.receive_all(), b":0\r\n*3\r\n$-1\r\n$-1\r\n$-1\r\n");
    example.stop();
}

#[test]
fn a_shutdown_cuts_no_reply_in_two() {
    let (example, address) = serve(&["--reactors", "2"]);
    let readers: Vec<_> = (0..4)
        .map(|name| {
            let (requests, replies) = conversation(&format!("client{name}-"), 2000);
            let mut client = connect(address);
            client.send(&requests[..100]);
            assert_eq!(client.receive(5), b"+OK\r\n");
            std::thread::spawn(move || {
                // It may be refused when the server no longer reads.
                let _ = client.write_all(&requests[100..]);
                let received = client.receive_rest().0;
                assert!(replies[5..].starts_with(&received), "something else than the replies");
                assert!(received.is_empty() || received.ends_with(b"\r\n"), "a part of a reply");
            })
        })
        .collect();
    example.stop();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

#[test]
fn keys_expire() {
    for reactors in REACTORS {
        let (_example, address) = serve(&["--reactors", reactors]);
        let mut client = connect(address);
        for key in 0..10 {
            ask(&mut client, &format!("SET key{key} 1 PX 50"), "+OK\r\n");
        }
        ask(&mut client, "SET kept 1 EX 1000", "+OK\r\n");
        eventually("the end of a key", || {
            client.send(&words("EXISTS key0"));
            client.receive(4) == b":0\r\n"
        });
        ask(&mut client, "TTL key0", ":-2\r\n");
        // The others go too though nobody asks for them.
        eventually("the end of keys", || {
            client.send(&words("DBSIZE"));
            line(&mut client) == b":1\r\n"
        });
        ask(&mut client, "APPEND key0 new", ":3\r\n");
        ask(&mut client, "TTL key0", ":-1\r\n");
    }
}

#[test]
fn redis_cli_is_served() {
    if !has("redis-cli") {
        return;
    }
    let (_example, address) = serve(&["--reactors", "2"]);
    let port = address.port().to_string();
    let cli = |words: &[&str]| {
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(cli(&["set", "greeting", "hello world", "ex", "60"]), "OK\n");
    assert_eq!(cli(&["get", "greeting"]), "hello world\n");
    assert_eq!(cli(&["-3", "hello"]).lines().next(), Some("server corelane"));
    assert_eq!(cli(&["mset", "a", "1", "b", "2", "c", "3"]), "OK\n");
    assert_eq!(cli(&["mget", "a", "b", "c", "d"]), "1\n2\n3\n\n");
    assert!(cli(&["nope"]).starts_with("ERR unknown command 'nope'"));
    // As its prompt is used: it asks for the commands' docs first.
    let mut prompt = Command::new("redis-cli")
        .args(["-p", &port])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    prompt.stdin.take().unwrap().write_all(b"incr a\nkeys gr*\nget a\n").unwrap();
    let mut output = String::new();
    prompt.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    prompt.wait().unwrap();
    assert_eq!(output, "2\ngreeting\n2\n");
}

#[test]
fn redis_benchmark_runs_clean() {
    if !has("redis-benchmark") {
        return;
    }
    for reactors in REACTORS {
        let (example, address) = serve(&["--reactors", reactors]);
        let port = address.port().to_string();
        let mut benchmark = Command::new("timeout");
        benchmark.args(["60", "redis-benchmark", "-p", &port, "-t", "set,get,incr,mset"]);
        benchmark.args(["-n", "2000", "-c", "20", "-P", "16", "-q", "-r", "100"]);
        let output = benchmark.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}: {text}", output.status);
        assert!(!text.contains("rror") && output.stderr.is_empty(), "{text} {:?}", output.stderr);
        assert_eq!(text.matches("requests per second").count(), 4, "{text}");
        example.stop();
    }
}
