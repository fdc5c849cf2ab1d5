//! What the redis example bounds: memory, replies, how long clients may be silent or take nothing.

mod support;

use corelane::Address;
use support::redis::{REACTORS, ask, connect, request, serve, words};
use support::{Client, End, Example, Random, resident_of};

/// Bytes of memory that the example has in use.
fn resident(example: &Example) -> usize {
    resident_of(&example.id().to_string())
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
    let mut member = connect(address);
    ask(&mut member, "SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    let mut idle = connect(address);
    ask(&mut idle, "PING", "+PONG\r\n");
    assert_eq!(idle.receive_rest().0, b"");
    ask(&mut connect(address), "PUBLISH news hello", ":1\r\n");
    let message = b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n";
    assert_eq!(member.receive(message.len()), message);
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
