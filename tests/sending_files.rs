//! Files are sent in order with everything else, byte for byte, without passing through memory, and what goes
//! wrong with them is never a silent gap.

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use corelane::{
    CloseReason, Deadlines, Delivery, FileSlice, Flow, Server, Shared, SlowConsumer, SocketOptions,
    Watermarks, Written,
};
use support::{
    Client, End, Event, Random, Script, TempDir, TestServer, alone, descriptors, eventually, resident,
};

/// A file of random bytes, and those bytes.
fn file_of(folder: &TempDir, length: usize) -> (FileSlice, Vec<u8>) {
    let bytes = Random::new(length as u64).bytes(length);
    let path = folder.join(&format!("{length}"));
    fs::write(&path, &bytes).unwrap();
    (FileSlice::whole(File::open(path).unwrap()).unwrap(), bytes)
}

/// A server whose connections take little at a time. (Linux moves a stream over even smaller buffers by its timers.)
fn narrow() -> Server {
    Server::new().socket_options(SocketOptions { send_buffer: Some(64 << 10), ..SocketOptions::default() })
}

fn listening(server: Server, address: &str, script: Script) -> TestServer {
    TestServer::configured(server.reactors(1).listen(address), script)
}

#[test]
fn files_between_other_writes_arrive_in_order_over_tcp_and_unix() {
    let folder = TempDir::new();
    let socket = format!("unix:{}", folder.join("socket").display());
    let (file, bytes) = file_of(&folder, 3_000_000);
    for address in ["127.0.0.1:0", &socket] {
        for server in [Server::new(), narrow()] {
            let (file, bytes) = (file.clone(), &bytes);
            let server = listening(server, address, Script::new());
            let (mut client, id) = server.connect();
            let mut random = Random::new(7);
            let mut expected = Vec::new();
            for round in 0..40 {
                let small = random.bytes(1 + round * 37);
                let large = random.bytes(20_000);
                let offset = random.below(2_000_000);
                let length = [0, 1, 4096, 100_000, 1_000_000][random.below(5)];
                expected.extend_from_slice(&small);
                expected.extend_from_slice(&bytes[offset..offset + length]);
                expected.extend_from_slice(&bytes[round..round + 10]);
                expected.extend_from_slice(&large);
                let (range, tiny) = (
                    file.range(offset as u64, length as u64).unwrap(),
                    file.range(round as u64, 10).unwrap(),
                );
                let taken = server.core(move |core| {
                    [
                        core.write(id, &small),
                        core.write_file(id, range),
                        core.write_file(id, tiny),
                        core.write_shared(id, &Shared::from(large)),
                    ]
                });
                assert!(taken.iter().all(|written| written.is_taken()), "{taken:?}");
                if round % 3 == 0 {
                    let part: Vec<u8> = expected.drain(..expected.len() / 2).collect();
                    assert!(client.receive(part.len()) == part, "round {round}");
                }
            }
            // The end comes behind all that waits.
            server.handle.close(id).unwrap();
            assert!(client.receive_all() == expected);
            drop(client);
            assert_eq!(server.closed(id), CloseReason::Local);
        }
    }
}

#[test]
fn a_reply_of_the_callback_itself_keeps_its_order() {
    let folder = TempDir::new();
    let (file, bytes) = file_of(&folder, 400_000);
    let script = Script::new().quiet().data(move |conn, input, _| {
        for _ in 0..input.take_all().len() {
            conn.write(b"head;");
            assert_eq!(conn.write_file(file.clone()), Written::Accepted);
            conn.write(b";tail");
            conn.write(&[b'!'; 10_000]);
        }
        Flow::Continue
    });
    let server = TestServer::with(narrow(), script);
    let (mut client, _) = server.connect();
    client.send(b"123");
    client.send(b"4");
    let reply = [b"head;", &bytes[..], b";tail", &[b'!'; 10_000]].concat();
    for _ in 0..4 {
        assert!(client.receive(reply.len()) == reply);
    }
}

#[test]
fn a_file_is_no_memory_and_waits_for_a_slow_reader() {
    alone("a_file_is_no_memory_and_waits_for_a_slow_reader", || {
        let folder = TempDir::new();
        let (file, bytes) = file_of(&folder, 40_000_000);
        let marks = Watermarks { high: 64 << 10, low: 16 << 10, cap: 256 << 10 };
        let server = TestServer::with(narrow().watermarks(marks), Script::new());
        let (mut client, id) = server.connect_narrow();
        let before = resident();
        let file = file.clone();
        let waiting = server.core(move |core| {
            assert_eq!(core.write_file(id, file.clone()), Written::Accepted);
            assert_eq!(core.write_file(id, file), Written::Accepted);
            core.pending_output(id).unwrap()
        });
        assert_eq!(waiting, 2 * bytes.len());
        assert!(client.receive(bytes.len()) == bytes);
        assert!(client.receive(1_000_000) == bytes[..1_000_000]);
        server.settle();
        // The test's own copy of what it received is gone by now.
        assert!(resident() < before + (8 << 20), "{} bytes more", resident() - before);
        assert!(!server.rest().contains(&Event::Drained(id)), "it never was above the mark");
    });
}

#[test]
fn so_many_files_wait_and_no_more() {
    let folder = TempDir::new();
    let (file, bytes) = file_of(&folder, 1_000_000);
    let marks = Watermarks { high: 80 << 10, low: 16 << 10, cap: 160 << 10 };
    let server = narrow().watermarks(marks).slow_consumer(SlowConsumer::RefuseWrites);
    let server = TestServer::with(server, Script::new());
    let (mut client, id) = server.connect_narrow();
    let slice = file.clone();
    let written = server.core(move |core| {
        // The first is under way, and waits for the reader.
        core.write_file(id, slice.clone());
        (0..30).map(|_| core.write_file(id, slice.clone())).collect::<Vec<_>>()
    });
    // Each counts 8 KiB.
    assert_eq!(written[8], Written::Accepted);
    assert_eq!(written[9], Written::High);
    assert_eq!(written[18], Written::High);
    assert_eq!(written[19..], vec![Written::Refused; 11]);
    for _ in 0..20 {
        assert!(client.receive(bytes.len()) == bytes);
    }
    server.expect(Event::Drained(id));
}

#[test]
fn receipts_know_how_much_of_a_file_went_out() {
    let folder = TempDir::new();
    let (file, bytes) = file_of(&folder, 2_000_000);
    let server = TestServer::with(narrow(), Script::new());
    let (mut client, id) = server.connect_narrow();
    let (first, second, third) = (server.receipt(1), server.receipt(2), server.receipt(3));
    server.core(move |core| {
        core.write_file_with_receipt(id, file.range(0, 5000).unwrap(), first);
        core.write_file_with_receipt(id, file, second);
        core.write_with_receipt(id, &Shared::from("behind it"), third);
    });
    assert!(client.receive(5000) == bytes[..5000]);
    server.expect(Event::Delivered(1, Delivery::Sent));
    assert!(client.receive(300_000) == bytes[..300_000]);
    client.reset();
    assert_eq!(server.closed(id), CloseReason::Reset);
    let sent = server.find("the second receipt", |seen| match seen.event {
        Event::Delivered(2, Delivery::Failed { sent }) => Some(sent),
        _ => None,
    });
    assert!((300_000..2_000_000).contains(&sent), "{sent}");
    server.expect(Event::Delivered(3, Delivery::Failed { sent: 0 }));
}

#[test]
fn a_peer_that_resets_is_no_signal_even_where_the_process_does_not_ignore_it() {
    alone("a_peer_that_resets_is_no_signal_even_where_the_process_does_not_ignore_it", || {
        use nix::sys::signal::{SigHandler, Signal, signal};
        // SAFETY: this process has no other thread yet that could depend on it.
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
        let folder = TempDir::new();
        let (file, _) = file_of(&folder, 8_000_000);
        let socket = format!("unix:{}", folder.join("socket").display());
        for address in ["127.0.0.1:0", &socket] {
            let server = listening(narrow(), address, Script::new());
            let (mut client, id) = server.connect();
            let slice = file.clone();
            server.core(move |core| core.write_file(id, slice));
            client.receive(10_000);
            // Closing with unread input: what is sent from now on finds nobody.
            drop(client);
            assert_eq!(server.closed(id), CloseReason::Reset);
        }
    });
}

#[test]
fn a_file_that_gets_shorter_ends_the_connection_for_that_reason() {
    let folder = TempDir::new();
    let path = folder.join("shrinking");
    fs::write(&path, vec![b's'; 4_000_000]).unwrap();
    for asks_to_close in [false, true] {
        let writable = File::options().write(true).open(&path).unwrap();
        writable.set_len(4_000_000).unwrap();
        let file = FileSlice::whole(File::open(&path).unwrap()).unwrap();
        let server = TestServer::with(narrow(), Script::new());
        let (mut client, id) = server.connect_narrow();
        server.core(move |core| {
            core.write(id, b"head");
            core.write_file(id, file);
            core.write(id, b"behind it");
            if asks_to_close {
                core.close(id);
            }
        });
        client.receive(100_000);
        writable.set_len(200_000).unwrap();
        let (rest, end) = client.receive_rest();
        assert_eq!(end, End::Reset, "the peer takes it for the whole");
        assert!(rest.len() < 3_800_000);
        assert_eq!(server.closed(id), CloseReason::FileTruncated);
    }
}

#[test]
fn a_range_beyond_the_end_and_what_is_no_file_end_only_their_connection() {
    let folder = TempDir::new();
    let (file, bytes) = file_of(&folder, 1000);
    let directory = FileSlice::new(File::open(folder.path()).unwrap(), 0, 10).unwrap();
    let server = TestServer::start(Script::new());
    let (mut bystander, other) = server.connect();
    for (file, sent) in [(file.range(990, 20).unwrap(), &bytes[990..]), (directory, &[][..])] {
        let (mut client, id) = server.connect();
        server.core(move |core| core.write_file(id, file));
        let (received, end) = client.receive_rest();
        assert!(sent.starts_with(&received) && end == End::Reset);
        let reason = server.closed(id);
        let expected =
            if sent.is_empty() { CloseReason::Io(libc::EISDIR) } else { CloseReason::FileTruncated };
        assert_eq!(reason, expected);
    }
    server.core(move |core| core.write_file(other, file));
    assert_eq!(bystander.receive(1000), bytes);
}

#[test]
fn a_drain_sends_files_to_their_end() {
    let folder = TempDir::new();
    let (file, bytes) = file_of(&folder, 5_000_000);
    let mut server = TestServer::with(narrow(), Script::new());
    let (mut client, id) = server.connect_narrow();
    server.core(move |core| core.write_file(id, file));
    let reader = std::thread::spawn(move || client.receive_all() == bytes);
    let report = server.stop();
    assert!(reader.join().unwrap());
    assert_eq!(report.total.closed_by(CloseReason::Shutdown), 1);
}

#[test]
fn a_peer_that_takes_nothing_of_a_file_is_cut_off() {
    let folder = TempDir::new();
    let (file, _) = file_of(&folder, 8_000_000);
    let deadlines = Deadlines { write_stall: Some(Duration::from_millis(300)), ..Deadlines::default() };
    let server = TestServer::with(narrow().deadlines(deadlines), Script::new());
    let (_client, id) = server.connect_narrow();
    server.core(move |core| core.write_file(id, file));
    assert_eq!(server.closed(id), CloseReason::WriteStall);
}

#[test]
fn a_large_file_is_sent_in_turns_between_which_others_are_served() {
    let folder = TempDir::new();
    let (file, bytes) = file_of(&folder, 32_000_000);
    let budget = 64 * 1024;
    let server = TestServer::with(Server::new().byte_budget(budget), Script::echo());
    let (mut client, id) = server.connect();
    let before = server.total().turns;
    server.core(move |core| core.write_file(id, file));
    assert!(client.receive(bytes.len()) == bytes);
    let turns = server.total().turns - before;
    // An edge and the ready list may each come to it in one turn.
    assert!(turns >= (bytes.len() / budget / 2) as u64, "only {turns} turns");
}

#[test]
fn descriptors_are_closed_when_nobody_needs_them() {
    alone("descriptors_are_closed_when_nobody_needs_them", || {
        let folder = TempDir::new();
        let (file, bytes) = file_of(&folder, 3_000_000);
        drop(file);
        let server = TestServer::with(narrow(), Script::new());
        let before = descriptors();
        for reads in [true, false] {
            let (mut client, id) = server.connect();
            let path = folder.join("3000000");
            server.core(move |core| {
                for _ in 0..3 {
                    core.write_file(id, FileSlice::whole(File::open(&path).unwrap()).unwrap());
                }
            });
            if reads {
                assert!(client.receive(bytes.len()) == bytes);
                client.finish();
                client.receive_all();
            }
            drop(client);
            server.closed(id);
        }
        eventually("the files to be closed", || descriptors() == before);
    });
}

#[test]
fn one_file_goes_to_many_at_a_time() {
    let folder = TempDir::new();
    let (file, bytes) = file_of(&folder, 500_000);
    let bytes = Arc::new(bytes);
    let server = TestServer::with(narrow(), Script::new());
    let clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let ids: Vec<_> = clients.iter().map(|client| client.1).collect();
    server.core(move |core| ids.iter().for_each(|&id| _ = core.write_file(id, file.clone())));
    let readers: Vec<_> = clients
        .into_iter()
        .map(|(mut client, _): (Client, _)| {
            let bytes = Arc::clone(&bytes);
            std::thread::spawn(move || {
                let mut received = vec![0; bytes.len()];
                client.read_exact(&mut received).unwrap();
                received == *bytes
            })
        })
        .collect();
    assert!(readers.into_iter().all(|reader| reader.join().unwrap()));
}
