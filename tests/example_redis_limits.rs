//! What the redis example bounds: memory, replies, how long clients may be silent or take nothing.

mod support;

use std::io::Read;

use corelane::Address;
use support::redis::{REACTORS, ask, connect, request, serve, words};
use support::{Client, End, Example, Random, resident_of};

/// Bytes of memory that the example has in use.
fn resident(example: &Example) -> usize {
    resident_of(&example.id().to_string())
}

/// The most that it has had in use.
fn peak(example: &Example) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/status", example.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

const TOO_LARGE: &str = "-ERR the reply is larger than --max-output allows\r\n";

/// A request for values of `keys` in turn.
fn mget(keys: &[&str], count: usize) -> Vec<u8> {
    let mut words = vec![&b"MGET"[..]];
    words.extend((0..count).map(|key| keys[key % keys.len()].as_bytes()));
    request(&words)
}

fn bulk(value: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

#[test]
fn a_small_request_cannot_ask_for_gigabytes() {
    let keys = ["a", "b", "c", "d", "e"];
    for reactors in REACTORS {
        let (example, address) = serve(&["--reactors", reactors]);
        let mut client = connect(address);
        // Both are kept in different ways.
        for value in [vec![b'x'; 4095], vec![b'y'; 100_000]] {
            let set = keys.iter().flat_map(|key| [key.as_bytes(), &value[..]]);
            client.send(&request(&[&b"MSET"[..]].into_iter().chain(set).collect::<Vec<_>>()));
            assert_eq!(client.receive(5), b"+OK\r\n");
            for keys in [&keys[..], &keys[..1], &keys[4..]] {
                client.send(&mget(keys, 200_000));
                assert_eq!(String::from_utf8_lossy(&client.receive(TOO_LARGE.len())), TOO_LARGE);
            }
            // 20 MB are allowed.
            let count = 20_000_000 / value.len();
            client.send(&mget(&keys, count));
            let head = format!("*{count}\r\n");
            assert_eq!(client.receive(head.len()), head.as_bytes());
            let item = bulk(&value);
            assert!((0..count).all(|_| client.receive(item.len()) == item));
        }
        assert!(peak(&example) < 200_000_000, "{} bytes were in use", peak(&example));
        drop(client);
        example.stop();
    }
}

#[test]
fn many_names_are_no_reply_either() {
    for reactors in REACTORS {
        let flags = ["--reactors", reactors, "--max-output", "1000000", "--max-request", "400000"];
        let (example, address) = serve(&flags);
        let mut client = connect(address);
        let set = |client: &mut Client, keys: std::ops::Range<usize>| {
            for key in keys {
                ask(client, &format!("SET {}{key:04} 1", "k".repeat(996)), "+OK\r\n");
            }
        };
        set(&mut client, 0..900);
        // Many of them at a time take no more than one.
        for _ in 0..100 {
            client.send(&words("KEYS *"));
        }
        for _ in 0..100 {
            assert_eq!(client.receive(6), b"*900\r\n");
            client.receive(900 * 1009);
        }
        assert!(peak(&example) < 50_000_000, "{} bytes were in use", peak(&example));
        set(&mut client, 900..1100);
        ask(&mut client, "KEYS *", TOO_LARGE);
        ask(&mut client, "KEYS *0001", &format!("*1\r\n$1000\r\n{}0001\r\n", "k".repeat(996)));
        client.send(&words(&format!("COMMAND INFO {}", "append ".repeat(20_000))));
        assert_eq!(String::from_utf8_lossy(&client.receive(TOO_LARGE.len())), TOO_LARGE);
        drop(client);
        example.stop();
    }
}

#[test]
fn replies_do_not_keep_every_state_of_a_value() {
    for reactors in REACTORS {
        let (example, address) = serve(&["--reactors", reactors]);
        let mut client = connect(address);
        let value = vec![b'x'; 1_000_000];
        for key in ["a", "b", "c", "d"] {
            client.send(&request(&[b"SET", key.as_bytes(), &value]));
            assert_eq!(client.receive(5), b"+OK\r\n");
            let mut requests = Vec::new();
            for _ in 0..150 {
                requests.extend(words(&format!("GET {key}")));
                requests.extend(words(&format!("APPEND {key} x")));
            }
            client.send(&requests);
            for length in value.len()..value.len() + 150 {
                let reply = [bulk(&vec![b'x'; length]), format!(":{}\r\n", length + 1).into()].concat();
                assert!(client.receive(reply.len()) == reply);
            }
        }
        assert!(peak(&example) < 50_000_000, "{} bytes were in use", peak(&example));
        drop(client);
        example.stop();
    }
}

#[test]
fn what_can_be_stored_can_be_read() {
    for reactors in REACTORS {
        let flags = ["--reactors", reactors, "--max-request", "1000000", "--max-output", "100000"];
        let (_example, address) = serve(&flags);
        let mut client = connect(address);
        let piece = vec![b'x'; 400_000];
        ask(
            &mut client,
            "CONFIG GET proto-max-bulk-len",
            "*2\r\n$18\r\nproto-max-bulk-len\r\n$7\r\n1000000\r\n",
        );
        for key in ["a", "b", "c", "d"] {
            let append = request(&[b"APPEND", key.as_bytes(), &piece]);
            client.send(&append.repeat(3));
            let refusal = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n";
            let replies = format!(":400000\r\n:800000\r\n{refusal}");
            assert_eq!(String::from_utf8_lossy(&client.receive(replies.len())), replies);
            client.send(&request(&[b"APPEND", key.as_bytes(), &piece[..200_000]]));
            assert_eq!(client.receive(10), b":1000000\r\n");
            ask(&mut client, &format!("APPEND {key} x"), refusal);
            client.send(&words(&format!("GET {key}")));
            let value = bulk(&[b'x'; 1_000_000]);
            assert!(client.receive(value.len()) == value);
        }
    }
}

#[test]
fn large_values_come_back_whole_and_wait_uncopied() {
    for reactors in REACTORS {
        let (example, address) = serve(&["--reactors", reactors]);
        let mut client = connect(address);
        let value = Random::new(7).bytes(3_000_000);
        for key in 0..4 {
            client.send(&request(&[b"SET", format!("large{key}").as_bytes(), &value]));
            assert_eq!(client.receive(5), b"+OK\r\n");
        }
        let mut reply = b"$3000000\r\n".to_vec();
        reply.extend_from_slice(&value);
        reply.extend_from_slice(b"\r\n");
        // 300 MB of replies, asked for before one is taken.
        let mut requests = Vec::new();
        for round in 0..100 {
            requests.extend(words(&format!("GET large{}", round % 4)));
        }
        client.send(&requests);
        let mut array = b"*4\r\n".to_vec();
        (0..4).for_each(|_| array.extend_from_slice(&reply));
        client.send(&words("MGET large0 large1 large2 large3"));
        assert!(client.receive(reply.len()) == reply);
        assert!(resident(&example) < 120_000_000, "{} bytes are in use", resident(&example));
        for round in 1..100 {
            assert!(client.receive(reply.len()) == reply, "reply {round}");
        }
        assert!(client.receive(array.len()) == array);
        // Bytes of its own now, but for what is on its way.
        ask(&mut client, "APPEND large0 tail", ":3000004\r\n");
        ask(&mut client, "APPEND large0 tail", ":3000008\r\n");
        drop(client);
        example.stop();
    }
}

#[test]
fn memory_is_limited_and_the_limit_told() {
    for reactors in REACTORS {
        let (_example, address) = serve(&["--reactors", reactors, "--max-memory", "1000000"]);
        let mut client = connect(address);
        let refusal = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";
        let mut stored = 0;
        let refused = (0..100).find(|key| {
            client.send(&request(&[b"SET", format!("key{key}").as_bytes(), &[b'x'; 50_000]]));
            let is_stored = client.receive(5) == b"+OK\r\n";
            stored += usize::from(is_stored);
            !is_stored
        });
        assert!(refused.is_some() && (5..20).contains(&stored), "{stored} were stored");
        assert_eq!(client.receive(refusal.len() - 5), refusal[5..]);
        ask(&mut client, "DBSIZE", &format!(":{stored}\r\n"));
        ask(&mut client, "FLUSHDB", "+OK\r\n");
        ask(&mut client, "SET key0 again", "+OK\r\n");
        ask(&mut client, "GET key0", "$5\r\nagain\r\n");
    }
}

#[test]
fn only_who_waits_for_messages_may_be_idle() {
    let (_example, address) = serve(&["--reactors", "1", "--idle", "4"]);
    let mut former = connect(address);
    ask(&mut former, "SUBSCRIBE a", "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    ask(&mut former, "UNSUBSCRIBE a", "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n");
    let mut member = connect(address);
    ask(&mut member, "SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    let mut idle = connect(address);
    ask(&mut idle, "PING", "+PONG\r\n");
    assert_eq!(idle.receive_rest().0, b"");
    assert_eq!(former.receive_rest().0, b"", "it waits for no messages any more");
    ask(&mut connect(address), "PUBLISH news hello", ":1\r\n");
    let message = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n";
    assert_eq!(member.receive(message.len()), message);
}

/// Fills a server, key after key, until it refuses; bytes of memory it has in use then.
fn fill(max_memory: usize, reactors: &str, requests: impl Fn(usize) -> Vec<u8>) -> usize {
    let (example, address) = serve(&["--reactors", reactors, "--max-memory", &max_memory.to_string()]);
    let mut client = connect(address);
    for key in 0.. {
        client.send(&requests(key));
        client.send(b"PING\r\n");
        let mut replies = Vec::new();
        while !replies.ends_with(b"+PONG\r\n") {
            let mut buffer = [0; 16 * 1024];
            let count = client.read(&mut buffer).unwrap();
            assert!(count > 0, "closed");
            replies.extend_from_slice(&buffer[..count]);
        }
        if replies.windows(4).any(|word| word == b"-OOM") {
            return resident(&example);
        }
    }
    unreachable!("it stored everything")
}

#[test]
fn the_memory_limit_is_one_of_the_process() {
    let max_memory = 40_000_000;
    for reactors in REACTORS {
        for (length, piece) in
            [(10, 0), (100, 0), (4000, 0), (100_000, 0), (4000, 200), (90_000, 90_000), (1_000_000, 100_000)]
        {
            let used = fill(max_memory, reactors, |key| {
                let mut requests = Vec::new();
                // Names and values that are short are asked for together.
                for key in key * 100..key * 100 + if length < 10_000 { 100 } else { 1 } {
                    let name = format!("key{key}");
                    requests.extend(request(&[b"SET", name.as_bytes(), &vec![b'x'; length]]));
                    if piece > 0 {
                        requests.extend(request(&[b"APPEND", name.as_bytes(), &vec![b'x'; piece]]));
                    }
                }
                requests
            });
            assert!(used < max_memory * 5 / 4, "{used} bytes are in use: {length} and {piece} bytes");
        }
    }
}

#[test]
fn what_a_connection_says_of_itself_is_bounded() {
    let (_example, address) = serve(&["--reactors", "2"]);
    let mut client = connect(address);
    let (first, second) = ("a".repeat(600_000), "b".repeat(600_000));
    let confirmed = |what: &str, channel: &str, count: usize| {
        format!("*3\r\n${}\r\n{what}\r\n${}\r\n{channel}\r\n:{count}\r\n", what.len(), channel.len())
    };
    let refusal = "-ERR too many subscriptions\r\n";
    ask(&mut client, &format!("SUBSCRIBE {first}"), &confirmed("subscribe", &first, 1));
    ask(&mut client, &format!("SUBSCRIBE {first}"), &confirmed("subscribe", &first, 1));
    ask(&mut client, &format!("SUBSCRIBE {second}"), refusal);
    ask(&mut client, &format!("UNSUBSCRIBE {second}"), &confirmed("unsubscribe", &second, 1));
    ask(&mut client, &format!("UNSUBSCRIBE {first}"), &confirmed("unsubscribe", &first, 0));
    ask(&mut client, &format!("SUBSCRIBE {second}"), &confirmed("subscribe", &second, 1));
    ask(&mut client, "UNSUBSCRIBE", &confirmed("unsubscribe", &second, 0));
    ask(&mut client, &format!("SUBSCRIBE {first}"), &confirmed("subscribe", &first, 1));
    ask(&mut client, "RESET", "+RESET\r\n");
    ask(&mut client, &format!("SUBSCRIBE {second}"), &confirmed("subscribe", &second, 1));
    ask(&mut client, "RESET", "+RESET\r\n");
    ask(&mut client, &format!("CLIENT SETNAME {}", "x".repeat(1024)), "+OK\r\n");
    let refusal = "-ERR Client names cannot be longer than 1024 bytes.\r\n";
    ask(&mut client, &format!("CLIENT SETNAME {}", "x".repeat(1025)), refusal);
    ask(&mut client, &format!("HELLO 3 SETNAME {first}"), refusal);
}

#[test]
fn who_has_ended_is_closed_however_full_the_mailboxes_are() {
    // Nobody is closed for being idle here.
    let (example, address) = serve(&["--reactors", "2", "--mailbox", "1", "--idle", "0"]);
    let mut requests = Vec::new();
    (0..40).for_each(|key| requests.extend(words(&format!("GET key{key}"))));
    let mut clients: Vec<Client> = (0..1000).map(|_| connect(address)).collect();
    for client in &mut clients {
        client.send(&requests);
        client.finish();
    }
    for client in &mut clients {
        assert_eq!(client.receive_all(), b"$-1\r\n".repeat(40));
    }
    example.stop();
}

#[test]
fn a_subscriber_that_takes_nothing_is_cut_off() {
    let (mut example, address) =
        serve(&["--reactors", "2", "--max-output", "100000", "--max-request", "20000"]);
    let mut member = Client::connect_narrow(&Address::Tcp(address));
    ask(&mut member, "SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    let mut publisher = connect(address);
    let message = request(&[b"PUBLISH", b"news", &[b'x'; 15_000]]);
    let mut count = 0;
    while count < 100_000 {
        publisher.send(&message);
        count += 1;
        if publisher.receive(4) == b":0\r\n" {
            break;
        }
    }
    assert!(count < 100_000, "it was never cut off");
    example.hear("client ");
    ask(&mut publisher, "PING", "+PONG\r\n");
    assert_eq!(member.receive_rest().1, End::Reset);
}
