//! A connection's id names it alone, for ever; what belongs to one connection never reaches another.

mod support;

use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use corelane::{
    Address, Balance, CloseReason, ConnId, Delivery, Dial, Flow, Handle, Open, Server, Shared, Written,
};
use support::{Client, End, Event, Job, Random, Script, TestServer, eventually};

/// The place that an id names, without the generation.
fn slot(id: ConnId) -> String {
    id.to_string().rsplit_once('.').unwrap().0.to_owned()
}

#[test]
fn a_token_reused_within_one_batch_reaches_nobody_else() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = Address::Tcp(elsewhere.local_addr().unwrap());
    // A's input ends B, whose own event is in the same batch, and dials, which takes a slot at once.
    let victim = Arc::new(Mutex::new(None));
    let (target, dialed_to) = (Arc::clone(&victim), upstream.clone());
    let server = TestServer::start(Script::new().data(move |conn, input, report| {
        if input.take_all() == b"end the other" {
            let victim: ConnId = target.lock().unwrap().unwrap();
            assert!(conn.core().abort(victim));
            assert!(!conn.core().is_open(victim));
            let successor = conn.core().connect(&Dial::to(dialed_to.clone()));
            assert_ne!(successor, victim);
            report.note(format!("dialed {successor}"));
        }
        Flow::Continue
    }));
    let mut ids = HashSet::new();
    let mut victims = HashSet::new();
    let mut slots = HashSet::new();
    for _ in 0..40 {
        let (mut a, id_a) = server.connect();
        let (mut b, id_b) = server.connect();
        *victim.lock().unwrap() = Some(id_b);
        victims.insert(id_b);
        // The kernel reports events in the order in which they come: nothing must be left of before.
        server.settle();
        let hold = server.hold(0);
        a.send(b"end the other");
        b.send(b"for B alone");
        // C waits to be accepted in the same batch.
        let mut c = server.client();
        c.send(b"from C");
        drop(hold);
        assert_eq!(server.closed(id_b), CloseReason::Aborted);
        let opened = [server.opened(), server.opened()];
        let (mut upstream, _) = elsewhere.accept().unwrap();
        assert_eq!(server.data(id_a), b"end the other");
        let dialed = server.note();
        let id_c = *opened.iter().find(|id| format!("dialed {id}") != dialed).unwrap();
        assert_eq!(server.data(id_c), b"from C");
        for id in [id_a, id_b, opened[0], opened[1]] {
            assert!(ids.insert(id), "{id} came twice");
            slots.insert(slot(id));
        }
        server.core(move |core| opened.iter().chain([&id_a]).for_each(|&id| assert!(core.abort(id))));
        assert!(std::io::Read::read(&mut upstream, &mut [0; 8]).is_err(), "a reset is all that it sees");
    }
    // B's bytes went to nobody but a B whose turn came before A's: poll(2) reports in any order.
    let is_stray = |event: &Event| matches!(event, Event::Data(id, _) if !victims.contains(id));
    let strays: Vec<_> = server.rest().into_iter().filter(is_stray).collect();
    assert_eq!(strays, []);
    assert!(slots.len() < 10, "slots are used again, else this shows nothing: {slots:?}");
}

#[test]
fn a_stale_id_is_answered_by_every_call() {
    let server = TestServer::start(Script::new());
    let (client, stale) = server.connect();
    drop(client);
    assert_eq!(server.closed(stale), CloseReason::PeerClosed);
    // Another connection lives in the slot now.
    let (mut successor, id) = server.connect();
    assert_eq!((slot(id), id == stale), (slot(stale), false));
    let receipt = server.receipt(1);
    server.on_reactor(0, move |sessions, core| {
        let shared = Shared::from(b"stale");
        assert_eq!(core.write(stale, b"stale"), Written::Closed);
        assert_eq!(core.write_slices(stale, &[b"st", b"ale"]), Written::Closed);
        assert_eq!(core.write_shared(stale, &shared), Written::Closed);
        assert_eq!(core.write_with_receipt(stale, &shared, receipt), Written::Closed);
        assert!(!core.is_open(stale));
        assert!(!core.pause(stale));
        assert!(!core.resume(stale));
        assert!(!core.finish(stale));
        assert!(!core.close(stale));
        assert!(!core.abort(stale));
        assert_eq!(core.pending_output(stale), None);
        assert_eq!(core.peer(stale), None);
        assert_eq!(sessions.get(stale), None);
        assert_eq!(sessions.get_mut(stale), None);
        assert_eq!(sessions.iter().map(|(id, _)| id).collect::<Vec<_>>(), [id]);
    });
    server.expect(Event::Delivered(1, Delivery::Failed { sent: 0 }));
    server.handle.write(stale, "stale").unwrap();
    server.handle.write_with_receipt(stale, "stale", server.receipt(2)).unwrap();
    server.handle.close(stale).unwrap();
    server.handle.abort(stale).unwrap();
    server.expect(Event::Delivered(2, Delivery::Failed { sent: 0 }));
    assert_eq!(server.total().stale_commands, 4);
    // The successor felt nothing of all that.
    server.core(move |core| assert!(core.write(id, b"mine").is_taken() && core.close(id)));
    assert_eq!(successor.receive_all(), b"mine");
}

#[test]
fn an_id_of_another_reactor_is_stale_here() {
    let server = Server::new().reactors(2).balance(Balance::RoundRobin).listen("127.0.0.1:0");
    let server = TestServer::configured(server, Script::new());
    let (mut first, one) = server.connect();
    let (_second, two) = server.connect();
    assert_eq!([one.reactor(), two.reactor()], [0, 1]);
    server.on_reactor(1, move |sessions, core| {
        assert_eq!(core.reactor(), 1);
        assert_eq!(core.write(one, b"from afar"), Written::Closed);
        assert!(!core.is_open(one) && !core.close(one) && !core.abort(one));
        assert_eq!(sessions.get(one), None);
    });
    // A handle reaches it.
    server.handle.write(one, "near").unwrap();
    server.handle.close(one).unwrap();
    assert_eq!(first.receive_all(), b"near");
}

#[test]
fn a_connection_closed_many_times_ends_once() {
    let server = TestServer::start(Script::new().data(|conn, input, _| {
        input.take_all();
        let id = conn.id();
        assert!(conn.core().close(id) && conn.core().close(id));
        assert_eq!(conn.write(b"too late"), Written::Closed);
        Flow::Close
    }));
    for abort_too in [false, true] {
        let (mut client, id) = server.connect();
        for _ in 0..3 {
            server.handle.close(id).unwrap();
        }
        if abort_too {
            server.handle.abort(id).unwrap();
        }
        assert_eq!(client.receive_rest().0, b"");
        drop(client);
        // The first cause wins.
        assert_eq!(server.closed(id), CloseReason::Local);
        server.handle.close(id).unwrap();

        let (mut client, id) = server.connect();
        client.send(b"x");
        assert_eq!(client.receive_all(), b"");
        drop(client);
        assert_eq!(server.closed(id), CloseReason::Local);
    }
    let total = server.total();
    assert_eq!((total.accepted, total.closed_in_all(), total.active), (4, 4, 0));
    let again = server.rest().into_iter().filter(|event| matches!(event, Event::Close(..))).count();
    assert_eq!(again, 0);
}

#[test]
fn closing_another_connection_in_a_callback_sends_it_nothing_of_ours() {
    // What is gathered for A waits until A's callback returns: whatever happens to B meanwhile, none of it
    // is B's.
    let other = Arc::new(Mutex::new(None));
    let target = Arc::clone(&other);
    let server = TestServer::start(Script::new().data(move |conn, input, _| {
        let how = input.take_all();
        let other: ConnId = target.lock().unwrap().unwrap();
        conn.write(b"for A, ");
        match how {
            b"close" => assert!(conn.core().close(other)),
            b"finish" => assert!(conn.core().finish(other)),
            b"write and close" => {
                assert_eq!(conn.core().write(other, b"for B"), Written::Accepted);
                assert!(conn.core().close(other));
            }
            _ => assert!(conn.core().abort(other)),
        }
        conn.write(b"all of it");
        Flow::Continue
    }));
    let cases: [(&[u8], &[u8], End); 4] = [
        (b"close", b"", End::Fin),
        (b"finish", b"", End::Fin),
        (b"write and close", b"for B", End::Fin),
        (b"abort", b"", End::Reset),
    ];
    for (how, expected, end) in cases {
        let (mut a, _) = server.connect();
        let (mut b, id) = server.connect();
        *other.lock().unwrap() = Some(id);
        a.send(how);
        assert_eq!(a.receive(16), b"for A, all of it");
        assert_eq!(b.receive_rest(), (expected.to_vec(), end), "{}", how.escape_ascii());
    }
    assert_eq!(server.total().panics, 0);
}

const FRAME: usize = 64;

/// One byte that says whose it is, all over.
fn frame(tag: u8) -> [u8; FRAME] {
    [tag; FRAME]
}

/// Connections come, write and vanish; the server writes to them from callbacks and another thread, as
/// long as they last and beyond.
#[test]
fn the_bytes_of_many_connections_never_cross() {
    let tags: Arc<Mutex<HashMap<ConnId, u8>>> = Arc::default();
    let seen = Arc::clone(&tags);
    let server = Server::new().reactors(2).listen("127.0.0.1:0");
    let script = Script::new().quiet().open(|_, _| Open::Accept(())).data(move |conn, input, report| {
        let mut tags = seen.lock().unwrap();
        while input.len() >= FRAME {
            let frame = input.take(FRAME);
            let tag = *tags.entry(conn.id()).or_insert(frame[0]);
            if frame.iter().any(|&byte| byte != tag) {
                report.note(format!("{} got {frame:?} instead of {tag}", conn.id()));
            }
            conn.write(frame);
        }
        Flow::Continue
    });
    let server = TestServer::configured(server, script);
    let clients: Vec<_> = (0..6)
        .map(|seed| {
            let address = server.address().clone();
            thread::spawn(move || (0..150).for_each(|round| short_life(&address, seed, round)))
        })
        .collect();
    while clients.iter().any(|client| !client.is_finished()) {
        let known: Vec<_> = tags.lock().unwrap().iter().map(|(&id, &tag)| (id, tag)).collect();
        let recent = known.iter().rev().take(50);
        recent.for_each(|&(id, tag)| push(&server.handle, id, tag));
        thread::yield_now();
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    eventually("the end of all connections", || {
        let total = server.handle.total();
        (total.accepted, total.active) == (900, 0)
    });
    let mut opened = HashMap::new();
    for event in server.rest() {
        match event {
            Event::Open(id) => assert_eq!(opened.insert(id, 0), None, "{id} came twice"),
            Event::Close(id, _) => *opened.get_mut(&id).expect("open before close") += 1,
            Event::Note(text) => panic!("{text}"),
            _ => {}
        }
    }
    assert_eq!(opened.len(), 900);
    assert!(opened.values().all(|&ends| ends == 1));
}

fn push(handle: &Handle<Job>, id: ConnId, tag: u8) {
    // A full mailbox is no concern of this test.
    let _ = handle.write(id, frame(tag).to_vec());
}

fn short_life(address: &Address, seed: u64, round: u64) {
    let mut random = Random::new(seed * 1_000 + round);
    let tag = random.below(256) as u8;
    let mut client = Client::connect(address);
    for _ in 0..1 + random.below(20) {
        client.send(&frame(tag));
        if random.below(3) == 0 {
            let echoed = client.receive(FRAME);
            assert!(echoed.iter().all(|&byte| byte == tag), "{tag} got {echoed:?}");
        }
    }
    if random.below(3) == 0 {
        return client.reset();
    }
    client.finish();
    let (rest, _) = client.receive_rest();
    assert!(rest.iter().all(|&byte| byte == tag), "{tag} got {rest:?}");
}
