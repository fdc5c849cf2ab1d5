//! Other threads reach reactors and connections through a handle, whatever these are doing.

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use corelane::{Balance, ConnId, Delivery, Flow, Open, Receipt, SendError, Server, Shared};
use support::{Client, Event, Job, Script, TestServer, eventually};

/// A receipt whose answers are counted.
fn counted(answers: &Arc<AtomicU64>) -> Receipt {
    let answers = Arc::clone(answers);
    Receipt::new(move |_| {
        answers.fetch_add(1, Ordering::Relaxed);
    })
}

#[test]
fn messages_arrive_once_in_order_and_on_the_reactors_thread() {
    const SENDERS: u64 = 4;
    const MESSAGES: u64 = 5_000;
    let server = TestServer::configured(Server::new().reactors(2), Script::new());
    // By which reactor, from whom, which of his, and where.
    let seen = Arc::new(Mutex::new(Vec::<(usize, u64, u64, thread::ThreadId)>::new()));
    let senders = (0..SENDERS).map(|sender| {
        let (handle, seen) = (server.handle.clone(), Arc::clone(&seen));
        thread::spawn(move || {
            for number in 0..MESSAGES {
                let seen = Arc::clone(&seen);
                let mut job = Job(Box::new(move |_, core| {
                    let thread = thread::current().id();
                    seen.lock().unwrap().push((core.reactor(), sender, number, thread));
                }));
                while let Err(refused) = handle.send((number % 2) as usize, job) {
                    assert!(matches!(refused, SendError::Full(_)));
                    job = refused.into_inner();
                    thread::yield_now();
                }
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.join().unwrap();
    }
    eventually("all messages", || seen.lock().unwrap().len() as u64 == SENDERS * MESSAGES);
    let mut next: HashMap<(usize, u64), u64> = HashMap::new();
    let mut threads: HashMap<usize, HashSet<thread::ThreadId>> = HashMap::new();
    for &(reactor, sender, number, thread) in &*seen.lock().unwrap() {
        let expected = next.entry((reactor, sender)).or_insert(number % 2);
        assert_eq!(number, *expected);
        assert_eq!(number % 2, reactor as u64);
        *expected += 2;
        threads.entry(reactor).or_default().insert(thread);
    }
    assert!(threads.values().all(|threads| threads.len() == 1));
    assert_ne!(threads[&0], threads[&1]);
}

#[test]
fn closes_from_other_threads_race_with_callbacks() {
    // Short connections: while the callbacks of each run, another thread closes it, resets it, writes to it.
    let (ids, meddle) = std::sync::mpsc::channel::<ConnId>();
    let ids = Mutex::new(ids);
    let script = Script::new()
        .quiet()
        .open(move |conn, _| {
            let _ = ids.lock().unwrap().send(conn.id());
            Open::Accept(())
        })
        .data(|conn, input, _| {
            conn.write(input.take_all());
            Flow::Continue
        });
    let server = Server::new().listen("127.0.0.1:0").reactors(2).balance(Balance::RoundRobin);
    let server = TestServer::configured(server, script);
    let (handle, asked) = (server.handle.clone(), Arc::new(AtomicU64::new(0)));
    let answered = Arc::new(AtomicU64::new(0));
    let (count, answers) = (Arc::clone(&asked), Arc::clone(&answered));
    let meddler = thread::spawn(move || {
        for (n, id) in meddle.into_iter().enumerate() {
            // A full mailbox gives it back; then this one is left alone.
            match n % 4 {
                0 => drop(handle.close(id)),
                1 => drop(handle.abort(id)),
                2 => {
                    count.fetch_add(1, Ordering::Relaxed);
                    let receipt = counted(&answers);
                    let _ = handle.write_with_receipt(id, "pushed", receipt);
                    let _ = handle.close(id);
                }
                _ => {
                    let _ = handle.write(id, "pushed");
                    let _ = handle.close(id);
                    let _ = handle.close(id);
                    let _ = handle.abort(id);
                }
            }
        }
    });
    let clients = (0..4).map(|_| {
        let address = server.address().clone();
        thread::spawn(move || {
            for _ in 0..300 {
                // It may be reset as early as in the connect.
                let Ok(mut client) = Client::try_connect(&address) else { continue };
                let _ = std::io::Write::write_all(&mut client, b"hello");
                client.receive_rest();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().unwrap();
    }
    eventually("the end of all connections", || server.handle.total().active == 0);
    let total = server.total();
    assert_eq!(total.accepted, total.closed_in_all());
    let mut ends: HashMap<ConnId, u32> = HashMap::new();
    for event in server.rest() {
        match event {
            Event::Open(id) => assert_eq!(ends.insert(id, 0), None),
            Event::Close(id, _) => *ends.get_mut(&id).unwrap() += 1,
            _ => {}
        }
    }
    assert_eq!(ends.len() as u64, total.accepted);
    assert!(ends.values().all(|&count| count == 1));
    drop(server);
    meddler.join().unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_full_mailbox_gives_the_value_back() {
    let server = TestServer::with(Server::new().mailbox(4, 100), Script::new());
    let (mut client, id) = server.connect();
    let hold = server.hold(0);
    // Bytes first: one payload is always taken, however large.
    server.handle.write(id, vec![1; 150]).unwrap();
    let refused = server.handle.write(id, vec![2; 1]).unwrap_err();
    assert_eq!(refused, SendError::Full(Shared::from(vec![2; 1])));
    assert_eq!(refused.to_string(), "the reactor's mailbox is full");
    // Then commands.
    for _ in 0..3 {
        server.send(0, |_, _| ()).unwrap();
    }
    assert_eq!(server.handle.close(id), Err(SendError::Full(id)));
    assert_eq!(server.handle.abort(id), Err(SendError::Full(id)));
    assert!(matches!(server.send(0, |_, _| ()), Err(SendError::Full(Job(_)))));
    drop(hold);
    assert_eq!(client.receive(150), [1; 150]);
    // There is room again.
    server.settle();
    server.handle.write(id, vec![3; 90]).unwrap();
    server.handle.close(id).unwrap();
    assert_eq!(client.receive_all(), [3; 90]);
}

#[test]
fn a_handle_outlives_its_server_and_says_so() {
    let mut server = TestServer::start(Script::echo());
    let (mut client, id) = server.connect();
    client.echo(b"hello");
    drop(client);
    server.closed(id);
    let handle = server.handle.clone();
    server.stop();
    assert!(matches!(handle.send(0, Job(Box::new(|_, _| ()))), Err(SendError::Stopped(Job(_)))));
    assert_eq!(handle.write(id, "late"), Err(SendError::Stopped(Shared::from("late"))));
    assert_eq!(handle.close(id), Err(SendError::Stopped(id)));
    assert_eq!(handle.abort(id), Err(SendError::Stopped(id)));
    assert_eq!(SendError::Stopped(()).to_string(), "the server has stopped");
    // Its counters stay.
    assert_eq!((handle.total().bytes_in, handle.total().active), (5, 0));
}

#[test]
fn a_reactor_that_is_not_there_has_stopped() {
    let server = TestServer::start(Script::new());
    assert!(matches!(server.send(1, |_, _| ()), Err(SendError::Stopped(_))));
}

#[test]
fn commands_keep_their_order() {
    let server = TestServer::start(Script::new());
    let (mut client, id) = server.connect();
    for number in 0..1_000u32 {
        server.handle.write(id, number.to_string()).unwrap();
    }
    server.handle.close(id).unwrap();
    // Behind the close: nowhere.
    server.handle.write_with_receipt(id, "too late", server.receipt(1)).unwrap();
    let expected: String = (0..1_000u32).map(|number| number.to_string()).collect();
    assert_eq!(client.receive_all(), expected.as_bytes());
    server.expect(Event::Delivered(1, Delivery::Failed { sent: 0 }));
}

#[test]
fn a_sleeping_reactor_is_woken_for_every_command_that_it_would_miss() {
    // A lost wake-up shows as a job that never runs: each of these finds the reactor asleep, or nearly.
    let server = TestServer::configured(Server::new().reactors(2), Script::new());
    for number in 0..20_000usize {
        assert_eq!(server.on_reactor(number % 2, move |_, _| number), number);
    }
    let total = server.total();
    assert!(total.wakeups > 0 && total.wakeups <= total.commands, "{} wake-ups", total.wakeups);
}

#[test]
fn stopping_while_others_send_loses_no_receipt() {
    for _ in 0..10 {
        let mut server =
            TestServer::configured(Server::new().listen("127.0.0.1:0").reactors(2), Script::new());
        let (_client, id) = server.connect();
        let stopped = Arc::new(AtomicBool::new(false));
        let (asked, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let senders = (0..3).map(|_| {
            let (handle, stopped) = (server.handle.clone(), Arc::clone(&stopped));
            let (asked, answered) = (Arc::clone(&asked), Arc::clone(&answered));
            thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let _ = handle.write_with_receipt(id, "x", counted(&answered));
                }
            })
        });
        let senders: Vec<_> = senders.collect();
        eventually("some writes", || answered.load(Ordering::Relaxed) > 100);
        server.running().stop_now();
        server.join();
        stopped.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(asked.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
    }
}

#[test]
fn all_callbacks_are_on_the_reactors_thread() {
    let script = Script::new().on_start(|_, _| {}).eof(|_, _, _| Flow::Continue);
    let server = Server::new().listen("127.0.0.1:0").reactors(3).balance(Balance::RoundRobin);
    let mut server = TestServer::configured(server, script);
    for _ in 0..9 {
        let (mut client, id) = server.connect();
        client.send(b"hello");
        client.finish();
        server.handle.write(id, "from afar").unwrap();
        server.find("the end", |seen| matches!(seen.event, Event::Eof(..)).then_some(()));
        server.handle.close(id).unwrap();
        assert_eq!(client.receive_all(), b"from afar");
    }
    server.stop();
    let mut threads: HashMap<usize, HashSet<thread::ThreadId>> = HashMap::new();
    while let Some(seen) = server.try_next() {
        threads.entry(seen.reactor).or_default().insert(seen.thread);
    }
    assert_eq!(threads.len(), 3);
    assert!(threads.values().all(|threads| threads.len() == 1));
    assert!(!threads.values().flatten().any(|&thread| thread == thread::current().id()));
}
