//! The broadcast example as its users see it: everybody gets everything in order, or the latest if they are
//! slow, and nobody suffers from another.

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::sync::Barrier;
use std::thread;

use corelane::Address;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use support::{Client, End, Example, resident_of};

struct Feed {
    example: Example,
    subscribers: Address,
    publishers: Address,
    marks: Cell<u32>,
}

impl Feed {
    #[track_caller]
    fn start(flags: &[&str]) -> Self {
        // Each client of a test is a descriptor.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let (mut example, address) =
            Example::serve("broadcast", &[&["--publish", "127.0.0.1:0"], flags].concat());
        let publishers = Address::Tcp(example.hear("publish on ").parse().unwrap());
        Self { example, subscribers: Address::Tcp(address), publishers, marks: Cell::new(0) }
    }

    fn subscribe(&self) -> Subscriber {
        Subscriber(BufReader::new(Client::connect(&self.subscribers)))
    }

    /// One that the server can send very little before it reads.
    fn subscribe_narrow(&self) -> Subscriber {
        Subscriber(BufReader::new(Client::connect_narrow(&self.subscribers)))
    }

    fn publisher(&self) -> Client {
        Client::connect(&self.publishers)
    }

    /// So many subscribers, each of which is known to get whatever is published from now on.
    #[track_caller]
    fn subscribed(&self, count: usize) -> Vec<Subscriber> {
        let mut subscribers: Vec<_> = (0..count).map(|_| self.subscribe()).collect();
        self.mark(&mut subscribers);
        subscribers
    }

    #[track_caller]
    fn mark(&self, subscribers: &mut [Subscriber]) {
        let mark = format!("MARK {}", self.marks.replace(self.marks.get() + 1));
        self.publisher().send((mark.clone() + "\n").as_bytes());
        subscribers.iter_mut().for_each(|subscriber| _ = subscriber.lines_until(&mark));
    }

    fn resident(&self) -> usize {
        resident_of(&self.example.id().to_string())
    }
}

struct Subscriber(BufReader<Client>);

impl Subscriber {
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the feed ended with {line:?}");
        line.pop();
        line
    }

    /// What comes up to the line `last`, and that.
    #[track_caller]
    fn lines_until(&mut self, last: &str) -> Vec<String> {
        let mut lines = vec![self.line()];
        while lines.last().is_some_and(|line| line != last) {
            lines.push(self.line());
        }
        lines
    }

    /// Whatever comes before the end in good order.
    #[track_caller]
    fn rest(mut self) -> Vec<String> {
        let mut rest = self.0.buffer().to_vec();
        rest.extend(self.0.get_mut().receive_all());
        String::from_utf8(rest).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The numbers that each symbol had, in their order.
fn by_symbol(lines: &[String]) -> BTreeMap<&str, Vec<u64>> {
    let mut symbols = BTreeMap::<_, Vec<u64>>::new();
    for line in lines {
        let mut words = line.split(' ');
        let symbol = words.next().unwrap();
        symbols.entry(symbol).or_default().push(words.next().unwrap().parse().unwrap());
    }
    symbols
}

/// What `publisher` sends: `count` lines, of 7 symbols of its own.
fn lines_of(publisher: usize, count: u64) -> Vec<String> {
    (0..count).map(|number| format!("P{publisher}S{} {number}\n", number % 7)).collect()
}

#[track_caller]
fn is_all_of(lines: &[String], publishers: usize, count: u64) {
    let symbols = by_symbol(lines);
    assert_eq!(symbols.len(), publishers * 7);
    for (symbol, numbers) in symbols {
        let first = symbol.split('S').nth(1).unwrap().parse().unwrap();
        assert!(numbers.iter().copied().eq((first..count).step_by(7)), "{symbol}: {numbers:?}");
    }
}

#[test]
fn every_subscriber_gets_everything_in_order() {
    let feed = Feed::start(&["--reactors", "2"]);
    let subscribers = feed.subscribed(40);
    thread::scope(|scope| {
        for publisher in 0..3 {
            let mut client = feed.publisher();
            scope.spawn(move || {
                // Cut anywhere, and sent a little at a time.
                for part in lines_of(publisher, 2000).concat().as_bytes().chunks(997) {
                    client.send(part);
                }
            });
        }
        for mut subscriber in subscribers {
            scope.spawn(move || {
                let lines: Vec<_> = (0..3 * 2000).map(|_| subscriber.line()).collect();
                is_all_of(&lines, 3, 2000);
            });
        }
    });
    feed.example.stop();
}

#[test]
fn publishers_wait_for_a_full_mailbox_and_nothing_is_lost() {
    let feed = Feed::start(&["--reactors", "2", "--mailbox", "1"]);
    let subscribers = feed.subscribed(8);
    thread::scope(|scope| {
        for publisher in 0..6 {
            let mut client = feed.publisher();
            scope.spawn(move || {
                lines_of(publisher, 1000).iter().for_each(|line| client.send(line.as_bytes()));
            });
        }
    });
    // All of it has been sent, and some of it may not have been taken yet.
    feed.example.signal(Signal::SIGTERM);
    for subscriber in subscribers {
        is_all_of(&subscriber.rest(), 6, 1000);
    }
    feed.example.wait();
}

#[test]
fn a_thousand_subscribers() {
    let feed = Feed::start(&["--reactors", "2"]);
    let mut subscribers = feed.subscribed(1000);
    feed.publisher().send(lines_of(0, 200).concat().as_bytes());
    for subscriber in &mut subscribers {
        let lines: Vec<_> = (0..200).map(|_| subscriber.line()).collect();
        is_all_of(&lines, 1, 200);
    }
    drop(subscribers);
    feed.example.stop();
}

#[test]
fn whoever_joins_gets_the_latest_of_each_symbol_first() {
    // Of several reactors one may be a batch behind, and then its subscribers get all lines of that.
    let feed = Feed::start(&["--reactors", "1"]);
    let mut first = feed.subscribed(1).remove(0);
    feed.publisher().send(b"A 1\nB 1\nA 2\nC 1\r\nB 2 and more\n");
    first.lines_until("B 2 and more");
    let mut others: Vec<_> = (0..10).map(|_| feed.subscribe()).collect();
    for other in &mut others {
        assert_eq!(other.lines_until("B 2 and more"), ["MARK 0", "A 2", "C 1", "B 2 and more"]);
    }
    feed.publisher().send(b"A 3\n");
    others.iter_mut().chain([&mut first]).for_each(|subscriber| assert_eq!(subscriber.line(), "A 3"));
}

#[test]
fn whoever_joins_misses_nothing_from_then_on() {
    let feed = Feed::start(&["--reactors", "2"]);
    let mut first = feed.subscribed(1).remove(0);
    thread::scope(|scope| {
        let mut publisher = feed.publisher();
        scope.spawn(move || {
            for start in (0..20_000).step_by(100) {
                let lines: String = (start..start + 100).map(|number| format!("X {number}\n")).collect();
                publisher.send(lines.as_bytes());
                first.lines_until(&format!("X {}", start + 99));
            }
            publisher.send(b"END 0\n");
        });
        for _ in 0..20 {
            let mut subscriber = feed.subscribe();
            scope.spawn(move || {
                let lines = subscriber.lines_until("END 0");
                let numbers = by_symbol(&lines).remove("X").unwrap();
                assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap");
                assert_eq!(numbers.last(), Some(&19_999));
            });
        }
    });
}

/// The last line of each symbol.
fn latest(lines: &[String]) -> BTreeMap<&str, &str> {
    lines.iter().filter_map(|line| line.split_once(' ')).collect()
}

#[test]
fn publishers_of_one_symbol_leave_the_same_line_latest_everywhere() {
    const ROUNDS: usize = 2000;
    let feed = Feed::start(&["--reactors", "2", "--backlog", "4000000"]);
    let mut subscribers = feed.subscribed(6);
    let together = Barrier::new(6);
    thread::scope(|scope| {
        for publisher in 0..6 {
            let (mut client, together) = (feed.publisher(), &together);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    together.wait();
                    client.send(format!("X{round} {publisher}\n").as_bytes());
                }
                // When the server has ended it, all of it was published.
                client.finish();
                assert_eq!(client.receive_all(), b"");
            });
        }
    });
    feed.publisher().send(b"END 0\n");
    let expected = subscribers[0].lines_until("END 0");
    let expected = latest(&expected);
    assert_eq!(expected.len(), ROUNDS + 1);
    subscribers.extend((0..6).map(|_| feed.subscribe()));
    for subscriber in &mut subscribers[1..] {
        let lines = subscriber.lines_until("END 0");
        let mut latest = latest(&lines);
        latest.remove("MARK");
        assert!(latest == expected, "two subscribers do not agree");
    }
}

#[test]
fn a_publisher_that_vanishes_in_the_middle_of_a_line_has_not_published_it() {
    let feed = Feed::start(&[]);
    let mut subscriber = feed.subscribed(1).remove(0);
    let mut publisher = feed.publisher();
    publisher.send(b"A 1\nA 2");
    assert_eq!(subscriber.line(), "A 1");
    publisher.reset();
    let mut publisher = feed.publisher();
    publisher.send(b"B 1\nB 2");
    publisher.finish();
    assert_eq!(publisher.receive_all(), b"");
    feed.publisher().send(b"C 1\n");
    assert_eq!(subscriber.line(), "B 1");
    assert_eq!(subscriber.line(), "C 1");
}

#[test]
fn what_is_wrong_is_said_and_closes_that_publisher_alone() {
    let feed = Feed::start(&["--max-line", "16", "--symbols", "3"]);
    let mut subscriber = feed.subscribed(1).remove(0);
    let mut bystander = feed.publisher();
    bystander.send(b"A 1\n");
    assert_eq!(subscriber.line(), "A 1");
    for (wrong, said) in [
        (&b"A 2\nA 345678901234567890"[..], "error: a line is longer than 16 bytes\n"),
        (b"A 2\nA 345678901234567\nA 4\n", "error: a line is longer than 16 bytes\n"),
        (b"A 2\nprice\n", "error: expected SYMBOL VALUE\n"),
        (b"A 2\nprice \n", "error: expected SYMBOL VALUE\n"),
        (b"A 2\n 1\n", "error: expected SYMBOL VALUE\n"),
        (b"A 2\n\n", "error: expected SYMBOL VALUE\n"),
        (b"A 2\nB 1\nC 1\n", "error: too many symbols\n"),
    ] {
        let mut publisher = feed.publisher();
        publisher.send(wrong);
        assert_eq!(String::from_utf8(publisher.receive_all()).unwrap(), said);
        assert_eq!(subscriber.line(), "A 2");
    }
    bystander.send(b"A 5\n");
    assert_eq!(subscriber.line(), "B 1");
    assert_eq!(subscriber.line(), "A 5");
}

/// Publishes `count` lines of 100 bytes and 8 symbols, no faster than `subscriber` takes them.
#[track_caller]
fn publish_slowly(feed: &Feed, subscriber: &mut Subscriber, count: u64) {
    let mut publisher = feed.publisher();
    let numbers: Vec<_> = (0..count).collect();
    for numbers in numbers.chunks(50) {
        let lines: Vec<_> = numbers.iter().map(|number| format!("S{} {number:096}", number % 8)).collect();
        publisher.send((lines.join("\n") + "\n").as_bytes());
        lines.iter().for_each(|line| assert_eq!(subscriber.line(), *line));
    }
}

const NARROW: [&str; 4] = ["--backlog", "16384", "--send-buffer", "4096"];

#[test]
fn a_slow_subscriber_gets_the_latest_of_each_symbol() {
    const COUNT: u64 = 40_000;
    let feed = Feed::start(&NARROW);
    let mut fast = feed.subscribed(1).remove(0);
    let mut slow = feed.subscribe_narrow();
    assert_eq!(slow.line(), "MARK 0");
    publish_slowly(&feed, &mut fast, 1000);
    let before = feed.resident();
    publish_slowly(&feed, &mut fast, COUNT);
    let grown = feed.resident().saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes more");

    let last = format!("S{} {:096}", (COUNT - 1) % 8, COUNT - 1);
    let lines = slow.lines_until(&last);
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    assert!(bytes < COUNT as usize * 100 / 10, "{bytes} bytes came");
    let latest: Vec<_> = (COUNT - 8..COUNT).map(|number| format!("S{} {number:096}", number % 8)).collect();
    assert_eq!(lines[lines.len() - 8..], latest);
    // From here on it is as fast as the others.
    publish_slowly(&feed, &mut fast, 50);
    assert_eq!(slow.lines_until(&format!("S1 {:096}", 49)).len(), 50);
    drop((fast, slow));
    let said = feed.example.stop();
    assert!(!said.iter().any(|line| line.contains("slow_consumer")), "{said:#?}");
}

#[test]
fn a_slow_subscriber_is_cut_off_where_that_is_the_policy() {
    let mut feed = Feed::start(&[&NARROW[..], &["--slow", "close", "--reactors", "1"]].concat());
    let mut fast = feed.subscribed(1).remove(0);
    let mut slow = feed.subscribe_narrow();
    assert_eq!(slow.line(), "MARK 0");
    publish_slowly(&feed, &mut fast, 10_000);
    feed.example.hear("slow subscribers: 0 times conflated, 1 cut off");
    let (bytes, end) = slow.0.get_mut().receive_rest();
    assert_eq!(end, End::Reset, "after {} bytes", bytes.len());
    publish_slowly(&feed, &mut fast, 100);
    drop((fast, slow));
    let said = feed.example.stop();
    assert!(said.iter().any(|line| line.contains("slow_consumer 1")), "{said:#?}");
}

#[test]
fn one_payload_takes_the_memory_of_one_however_many_it_goes_to() {
    const LINE: usize = 1 << 20;
    let feed = Feed::start(&["--max-line", "2000000", "--reactors", "2", "--backlog", "4000000"]);
    let mut fast = feed.subscribed(1).remove(0);
    let mut slow: Vec<_> = (0..200).map(|_| feed.subscribe_narrow()).collect();
    feed.mark(&mut slow);
    assert_eq!(fast.line(), "MARK 1");
    let before = feed.resident();
    let line = format!("A {}", "x".repeat(LINE - 2));
    let mut publisher = feed.publisher();
    publisher.write_all((line.clone() + "\n").as_bytes()).unwrap();
    assert!(fast.line() == line);
    // Both reactors are done with it when both have served somebody after it.
    let mut others: Vec<_> = (0..8).map(|_| feed.subscribe()).collect();
    others.iter_mut().for_each(|other| assert!(other.lines_until(&line).len() == 2));
    let grown = feed.resident().saturating_sub(before);
    assert!(grown < 20 << 20, "{} KiB for a payload of 1 MiB", grown >> 10);
    slow.truncate(3);
    slow.iter_mut().for_each(|slow| assert!(slow.line() == line));
}

#[test]
fn a_drain_delivers_what_was_published() {
    let feed = Feed::start(&["--reactors", "2"]);
    let subscribers = feed.subscribed(20);
    // It takes nothing until the end, and is waited for.
    let mut narrow = feed.subscribe_narrow();
    assert_eq!(narrow.line(), "MARK 0");
    // Held still, so that it learns of all this at once.
    feed.example.signal(Signal::SIGSTOP);
    let mut publishers: Vec<_> = (0..400).map(|_| feed.publisher()).collect();
    for (index, publisher) in publishers.iter_mut().enumerate() {
        publisher.send(lines_of(index, 20).concat().as_bytes());
    }
    feed.example.signal(Signal::SIGTERM);
    feed.example.signal(Signal::SIGCONT);
    for subscriber in subscribers.into_iter().chain([narrow]) {
        is_all_of(&subscriber.rest(), 400, 20);
    }
    drop(publishers);
    let (status, output) = feed.example.wait();
    assert!(status.success(), "{output:#?}");
    assert!(output.iter().any(|line| line.contains(" 0 cut off")), "{output:#?}");
}
