//! The chat example with `nc` as its client, and with sockets where `nc` is too kind.

mod support;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use corelane::Address;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use support::chat::{Member, end, serve, serve_in_turn};
use support::{Client, DEADLINE, End, Example, Random, TempDir, eventually};

/// `nc`, as somebody would use it.
struct Netcat {
    process: Child,
    lines: Receiver<String>,
}

impl Netcat {
    fn start(address: SocketAddr) -> Self {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let mut command = Command::new("nc");
        // -N: its end of the stream follows the end of what is typed.
        command.args(["-N", &host, &port]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("nc: Debian's netcat-openbsd");
        let stdout = process.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { process, lines }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    #[track_caller]
    fn expect(&self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.lines.recv_timeout(DEADLINE).as_deref(), Ok(*line));
        }
    }

    /// Types no more, and waits until it ends by itself; what it has shown since.
    #[track_caller]
    fn rest(mut self) -> Vec<String> {
        drop(self.process.stdin.take());
        eventually("the end of nc", || self.process.try_wait().unwrap().is_some());
        std::iter::from_fn(|| self.lines.recv_timeout(DEADLINE).ok()).collect()
    }
}

impl Drop for Netcat {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn two_people_talk_with_netcat() {
    let (chat, address) = Example::serve("chat", &["--reactors", "2"]);
    let mut alice = Netcat::start(address);
    alice.expect(&["-- welcome; which nickname do you want?"]);
    alice.type_line("alice");
    alice.expect(&["-- you are alice; /join ROOM to talk, /help for more"]);
    alice.type_line("hello?");
    alice.expect(&["-- you are in no room; /join one"]);
    alice.type_line("/join lobby");
    alice.expect(&["-- you are in lobby (1 here)"]);
    alice.type_line("is anybody here?");
    alice.expect(&["alice: is anybody here?"]);

    let mut bob = Netcat::start(address);
    bob.type_line("bob");
    bob.type_line("/join lobby");
    bob.type_line("yes");
    bob.expect(&[
        "-- welcome; which nickname do you want?",
        "-- you are bob; /join ROOM to talk, /help for more",
        "-- you are in lobby (2 here)",
        "alice: is anybody here?",
        "bob: yes",
    ]);
    alice.expect(&["-- bob has joined", "bob: yes"]);
    bob.type_line("/me waves");
    alice.expect(&["* bob waves"]);
    alice.type_line("/who");
    alice.expect(&["-- 2 in lobby: alice, bob"]);
    alice.type_line("/rooms");
    alice.expect(&["-- rooms, with their members: lobby (2)"]);
    alice.type_line("/dance");
    alice.expect(&["-- there is no /dance; try /help"]);
    alice.type_line("//dance is not a command");
    alice.expect(&["alice: /dance is not a command"]);
    bob.expect(&["* bob waves", "alice: /dance is not a command"]);

    bob.type_line("/quit");
    bob.expect(&["-- goodbye"]);
    assert!(bob.rest().is_empty());
    alice.expect(&["-- bob has left"]);
    chat.signal(Signal::SIGTERM);
    alice.expect(&["-- the server is shutting down; goodbye"]);
    assert!(alice.rest().is_empty());
    assert!(chat.wait().0.success());
}

/// The last line may lack its end, and a pipe ends right behind it: all is answered still.
#[test]
fn what_is_piped_into_netcat_is_answered_to_the_end() {
    let (chat, address) = Example::serve("chat", &["--reactors", "2"]);
    let mut netcat = Netcat::start(address);
    let stdin = netcat.process.stdin.as_mut().unwrap();
    stdin.write_all(b"alice\r\n/join lobby\r\none\r\ntwo\r\n/rooms\r\n/who").unwrap();
    let heard = netcat.rest();
    let expected =
        ["alice: one", "alice: two", "-- rooms, with their members: lobby (1)", "-- 1 in lobby: alice"];
    assert_eq!(heard[3..], expected, "{heard:#?}");
    chat.stop();
}

#[test]
fn all_hear_the_same_order_on_every_reactor() {
    const LINES: usize = 300;
    let folder = TempDir::new();
    let (chat, address) = serve_in_turn(&folder, &[]);
    // Some of these rooms belong to the one reactor, some to the other.
    for room in ["lobby", "hall", "attic", "cellar", "garden", "roof"] {
        let mut members: Vec<Member> =
            ["ann", "ben", "cat"].iter().map(|name| Member::enter_room(&address, name, room)).collect();
        let lines: String = (0..LINES).map(|n| format!("{n}\n")).collect();
        members.iter_mut().for_each(|member| member.client.send(lines.as_bytes()));
        let heard: Vec<Vec<String>> = members.iter_mut().map(|member| member.said(3 * LINES)).collect();
        assert!(heard.iter().all(|lines| *lines == heard[0]), "{room}");
        for name in ["ann", "ben", "cat"] {
            let of_one = heard[0].iter().filter_map(|line| line.strip_prefix(&format!("{name}: ")));
            assert!(of_one.eq((0..LINES).map(|n| n.to_string())), "{name} in {room}");
        }
        for mut member in members {
            member.say("/quit");
            assert_eq!(member.rest().last().map(String::as_str), Some("-- goodbye"));
        }
        wait_until_free(&address, &["ann", "ben", "cat"]);
    }
    chat.stop();
}

/// Waits until nobody bears any of these nicknames.
#[track_caller]
fn wait_until_free(address: &Address, nicknames: &[&str]) {
    let mut probe = Member::enter(address, "probe");
    for nickname in nicknames {
        eventually(&format!("{nickname} is free"), || {
            probe.say(&format!("/nick {nickname}"));
            !probe.line().contains("is taken")
        });
    }
    probe.say("/quit");
    probe.rest();
}

#[test]
fn a_nickname_belongs_to_one() {
    let folder = TempDir::new();
    let (chat, address) = serve_in_turn(&folder, &[]);
    let mut alice = Member::enter_room(&address, "alice", "lobby");
    let mut other = Member::new(Client::connect(&address));
    other.line();
    other.say("/join lobby");
    other.expect(&["-- your nickname first, please"]);
    for taken in ["alice", "ALICE"] {
        other.say(taken);
        other.expect(&[&format!("-- {taken} is taken; choose another nickname")]);
    }
    for refused in ["9lives", "-", "a b", "döner", "abcdefghijklmnopq"] {
        other.say(refused);
        other.hear("-- a nickname has 1 to 16 letters");
    }
    other.say("bob");
    other.hear("-- you are bob;");
    other.join("lobby");
    alice.expect(&["-- bob has joined"]);
    // A change of case is not another name; a change frees the old name.
    alice.say("/nick Alice");
    alice.say("/nick carol");
    alice.hear("-- you are Alice;");
    alice.hear("-- you are carol;");
    other.expect(&["-- alice is now Alice", "-- Alice is now carol"]);
    other.say("/nick alice");
    other.hear("-- you are alice;");
    other.hear("-- bob is now alice");
    alice.hear("-- bob is now alice");
    alice.say("hi");
    other.expect(&["carol: hi"]);
    end(chat, [alice, other]);
}

#[test]
fn who_joins_is_shown_what_was_said_last() {
    let folder = TempDir::new();
    let (chat, address) = serve_in_turn(&folder, &["--history", "3"]);
    let mut alice = Member::enter_room(&address, "alice", "lobby");
    for n in 1..=5 {
        alice.say(&n.to_string());
    }
    alice.hear("alice: 5");
    let mut bob = Member::enter_room(&address, "bob", "lobby");
    alice.expect(&["-- bob has joined"]);
    alice.say("6");
    bob.expect(&["alice: 3", "alice: 4", "alice: 5", "alice: 6"]);
    bob.say("/leave");
    bob.expect(&["-- you have left lobby"]);
    alice.expect(&["alice: 6", "-- bob has left"]);
    alice.say("7");
    alice.expect(&["alice: 7"]);
    bob.say("/join LOBBY");
    bob.expect(&["-- you are in lobby (2 here)", "alice: 5", "alice: 6", "alice: 7"]);
    // To join another room is to leave this one.
    bob.join("attic");
    alice.expect(&["-- bob has joined", "-- bob has left"]);
    alice.say("8");
    bob.say("9");
    bob.expect(&["bob: 9"]);
    alice.expect(&["alice: 8"]);
    // A room that everybody has left begins anew.
    bob.say("/leave");
    bob.expect(&["-- you have left attic"]);
    bob.join("attic");
    bob.say("/who");
    bob.expect(&["-- 1 in attic: bob"]);
    end(chat, [alice, bob]);
}

#[test]
fn the_rooms_of_all_reactors_are_listed() {
    let folder = TempDir::new();
    let (chat, address) = serve_in_turn(&folder, &[]);
    let rooms = ["attic", "cellar", "garden", "hall", "lobby", "roof"];
    let enter = |room: &&str| Member::enter_room(&address, room, room);
    let mut members: Vec<Member> = rooms.iter().map(enter).collect();
    let listed: Vec<String> = rooms.iter().map(|room| format!("{room} (1)")).collect();
    for member in &mut members {
        member.say("/rooms");
        member.expect(&[&format!("-- rooms, with their members: {}", listed.join(", "))]);
    }
    end(chat, members);
}

/// It would cut off whoever joins.
#[test]
fn a_history_larger_than_what_may_wait_is_refused() {
    let (status, output) = Example::start("chat", &["--history", "1000"]).wait();
    assert_eq!(status.code(), Some(2));
    assert!(output[0].contains("--output-cap is too small for --history"), "{output:#?}");
}

#[test]
fn rooms_and_their_members_are_counted() {
    let (chat, address) = serve(&["--reactors", "1", "--rooms", "1", "--members", "2"]);
    let mut alice = Member::enter_room(&address, "alice", "lobby");
    let mut bob = Member::enter_room(&address, "bob", "lobby");
    let mut carol = Member::enter(&address, "carol");
    carol.say("/join lobby");
    carol.expect(&["-- lobby is full"]);
    carol.say("/join attic");
    carol.expect(&["-- there are too many rooms"]);
    // Who is refused stays where they are.
    bob.say("/join attic");
    bob.expect(&["-- there are too many rooms"]);
    alice.say("still here?");
    bob.expect(&["alice: still here?"]);
    bob.say("/leave");
    bob.expect(&["-- you have left lobby"]);
    carol.join("lobby");
    end(chat, [alice, bob, carol]);
}

#[test]
fn a_line_too_long_ends_with_a_word() {
    let (chat, address) = serve(&["--reactors", "2", "--line", "100"]);
    let mut watcher = Member::enter_room(&address, "watcher", "lobby");
    let mut alice = Member::enter_room(&address, "alice", "lobby");
    let longest = "x".repeat(100);
    alice.say(&longest);
    alice.expect(&[&format!("alice: {longest}")]);
    alice.client.send(&[b'x'; 5000]);
    assert_eq!(alice.rest(), ["-- a line has at most 100 bytes; goodbye"]);
    watcher.expect(&["-- alice has joined", &format!("alice: {longest}"), "-- alice has left"]);
    end(chat, [watcher]);
}

/// Long ones are as good as others, in all sizes that the flag takes.
#[test]
fn a_line_may_be_as_long_as_the_flag_says() {
    let flags = ["--reactors", "2", "--line", "2000000", "--history", "0", "--output-cap", "10000000"];
    let (chat, address) = serve(&flags);
    let mut alice = Member::enter_room(&address, "alice", "lobby");
    let mut bob = Member::enter_room(&address, "bob", "lobby");
    alice.expect(&["-- bob has joined"]);
    let longest = "x".repeat(2_000_000);
    alice.say(&longest);
    let said = format!("alice: {longest}");
    assert!(alice.line() == said && bob.line() == said);
    alice.client.send(&[b'x'; 2_000_001]);
    assert_eq!(alice.rest(), ["-- a line has at most 2000000 bytes; goodbye"]);
    bob.expect(&["-- alice has left"]);
    end(chat, [bob]);
    for (flags, problem) in [
        (["--line", "0", "--history", "0"], "0 is not in 1..=16777216"),
        (["--line", "16777217", "--history", "0"], "16777217 is not in 1..=16777216"),
        (["--line", "100000", "--history", "0"], "--output-cap is too small for a line of --line bytes"),
    ] {
        let (status, output) = Example::start("chat", &flags).wait();
        assert_eq!(status.code(), Some(2));
        assert!(output[0].contains(problem), "{output:#?}");
    }
}

#[test]
fn who_vanishes_has_left() {
    let (chat, address) = serve(&["--reactors", "2"]);
    let mut watcher = Member::enter_room(&address, "watcher", "lobby");
    for n in 0..20 {
        let nickname = format!("guest{n}");
        let guest = Member::enter_room(&address, &nickname, "lobby");
        watcher.expect(&[&format!("-- {nickname} has joined")]);
        let Member { client, lines } = guest;
        drop(lines);
        if n % 2 == 0 {
            client.reset();
        } else {
            drop(client);
        }
        watcher.expect(&[&format!("-- {nickname} has left")]);
    }
    end(chat, [watcher]);
}

/// They vanish at any point: while a nickname is claimed, a room joined or left, or a word said.
#[test]
fn nobody_stays_behind_who_vanishes_in_the_middle_of_something() {
    const GUESTS: usize = 200;
    let folder = TempDir::new();
    let in_turn = serve_in_turn(&folder, &[]);
    for (chat, address) in [in_turn, serve(&["--reactors", "2"])] {
        let mut random = Random::new(7);
        let mut names = Vec::new();
        for n in 0..GUESTS {
            let script = format!(
                "guest{n}\n/join lobby\nhello\n/join attic\n/leave\n/nick other{n}\n/join lobby\nhi\n"
            );
            names.extend([format!("guest{n}"), format!("other{n}")]);
            let mut client = Client::connect(&address);
            client.send(&script.as_bytes()[..=random.below(script.len())]);
            if random.below(2) == 0 {
                client.reset();
            }
        }
        let mut watcher = Member::enter(&address, "watcher");
        for room in ["lobby", "attic"] {
            watcher.join(room);
            eventually(&format!("an empty {room}"), || {
                watcher.who(room) == format!("-- 1 in {room}: watcher")
            });
        }
        wait_until_free(&address, &names.iter().map(String::as_str).collect::<Vec<_>>());
        end(chat, [watcher]);
    }
}

#[test]
fn garbage_is_shown_harmlessly_or_refused() {
    let (chat, address) = serve(&["--reactors", "2"]);
    let mut alice = Member::enter_room(&address, "alice", "lobby");
    let mut bob = Member::enter_room(&address, "bob", "lobby");
    bob.client.send(b"\xff\xfe caf\xc3\xa9 \x1b[2J\0\x07\ttab\n");
    alice.hear("-- bob has joined");
    alice.expect(&["bob: \u{fffd}\u{fffd} café \u{fffd}[2J\u{fffd}\u{fffd}\ttab"]);
    let mut random = Random::new(11);
    for _ in 0..50 {
        let mut client = Client::connect(&address);
        let garbage = random.bytes(4000);
        // It may be cut off in the middle of a line that is too long.
        let _ = client.write_all(b"garbler\n/join lobby\n");
        let _ = client.write_all(&garbage);
    }
    alice.say("still here");
    bob.hear("alice: still here");
    end(chat, [alice, bob]);
}

#[test]
fn a_member_who_does_not_read_is_cut_off_and_the_others_hear_all() {
    one_does_not_read(&["--output-cap", "65536"], "slow_consumer");
}

#[test]
fn so_is_one_for_whom_less_waits_but_for_too_long() {
    one_does_not_read(&["--output-cap", "1000000000", "--stall", "1"], "write_stall");
}

#[track_caller]
fn one_does_not_read(flags: &[&str], reason: &str) {
    let (mut chat, address) = serve(&[&["--reactors", "2"], flags].concat());
    let mut talker = Member::enter_room(&address, "talker", "lobby");
    let mut listener = Member::enter_room(&address, "listener", "lobby");
    talker.hear("-- listener has joined");
    let mut slow = Member::new(Client::connect_narrow(&address));
    slow.say("slow\n/join lobby");
    slow.hear("-- you are in lobby");
    for other in [&mut talker, &mut listener] {
        other.expect(&["-- slow has joined"]);
    }
    let (mut heard, mut heard_by_other) = (Vec::new(), Vec::new());
    let text = "x".repeat(1000);
    let start = Instant::now();
    while heard.last().is_none_or(|line| line != "-- slow has left") {
        assert!(start.elapsed() < DEADLINE, "nobody was cut off");
        talker.say(&text);
        // In step, so that they are never slow themselves. What the talker says comes back, and the notice
        // comes between.
        heard.push(talker.line());
        heard_by_other.push(listener.line());
    }
    talker.say("done");
    for (member, heard) in [(&mut talker, &mut heard), (&mut listener, &mut heard_by_other)] {
        while heard.last().is_none_or(|line| line != "talker: done") {
            heard.push(member.line());
        }
    }
    assert!(heard_by_other == heard, "{} lines, {} lines", heard_by_other.len(), heard.len());
    let Client::Tcp(stream) = &slow.client else { unreachable!("it has an address") };
    let peer = stream.local_addr().unwrap();
    let logged = chat.hear("cut off slow at ");
    assert_eq!(logged, format!("{peer}, who reads too slowly: {reason}"));
    assert_eq!(slow.client.receive_rest().1, End::Reset);
    end(chat, [talker, listener]);
}

/// With next to no room in the mailboxes members have to wait; but nothing is lost, the order is one, and who
/// joins in the middle hears all from there on.
#[test]
fn full_mailboxes_lose_nothing() {
    const MEMBERS: usize = 24;
    const LINES: usize = 50;
    for mailbox in ["1", "5"] {
        let (chat, address) = serve(&["--reactors", "2", "--mailbox", mailbox]);
        let mut members: Vec<Member> =
            (0..MEMBERS).map(|n| Member::enter_room(&address, &format!("m{n}"), "lobby")).collect();
        let mut late: Vec<Member> = (0..8).map(|n| Member::enter(&address, &format!("late{n}"))).collect();
        for member in &mut members {
            member.say(&(0..LINES).map(|n| format!("{n}\n")).collect::<String>());
        }
        late.iter_mut().for_each(|member| member.say("/join lobby"));
        let heard: Vec<Vec<String>> = members.iter_mut().map(|member| member.said(MEMBERS * LINES)).collect();
        assert!(heard.iter().all(|lines| *lines == heard[0]));
        assert_eq!(heard[0].iter().collect::<HashSet<_>>().len(), MEMBERS * LINES, "something came twice");
        for member in &mut late {
            let mut heard_late = member.said(1);
            while heard_late.last() != heard[0].last() {
                heard_late.extend(member.said(1));
            }
            assert!(heard[0].ends_with(&heard_late), "{heard_late:#?}");
        }
        end(chat, members.into_iter().chain(late));
    }
}

#[test]
fn two_thousand_in_a_room_hear_each_word_once() {
    const MEMBERS: usize = 2000;
    const LINES: usize = 50;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let (chat, address) = serve(&["--reactors", "2"]);
    let mut members: Vec<Member> = (0..MEMBERS)
        .map(|n| {
            let mut member = Member::new(Client::connect(&address));
            member.say(&format!("m{n}\n/join hall"));
            member
        })
        .collect();
    members.iter_mut().for_each(|member| drop(member.hear("-- you are in hall ")));
    members[0].say("/who");
    members[0].hear("-- 2000 in hall: m0, m1, ");
    for speaker in &mut members[..4] {
        speaker.client.send((0..LINES).map(|n| format!("{n}\n")).collect::<String>().as_bytes());
    }
    let first = members[0].said(4 * LINES);
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 4 * LINES, "something came twice");
    for member in &mut members[1..] {
        assert!(member.said(4 * LINES) == first);
    }
    let output = end(chat, members);
    assert!(output.iter().any(|line| line.contains("2000 drained")), "{output:#?}");
}
