//! A server that runs on the thread that calls it.

mod support;

use std::net::TcpListener;
use std::sync::mpsc;
use std::thread::{self, ThreadId};

use corelane::{Address, Conn, Core, Flow, Handle, Handler, Input, Open, Server, Sessions, StartError};
use support::Client;

/// Echoes, and says on which thread it was made and called.
struct Echo {
    reactor: usize,
    report: mpsc::Sender<(&'static str, usize, ThreadId)>,
}

impl Echo {
    fn tell(&self, what: &'static str) {
        self.report.send((what, self.reactor, thread::current().id())).unwrap();
    }
}

impl Handler for Echo {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        self.tell("open");
        Open::Accept(())
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
        conn.write(input.take_all());
        Flow::Continue
    }

    fn on_message(&mut self, _: (), _: &mut Sessions<()>, _: &mut Core<'_>) {
        self.tell("message");
    }
}

fn tcp_port(address: &Address) -> u16 {
    let Address::Tcp(address) = address else { panic!("{address} is not of TCP") };
    address.port()
}

#[test]
fn one_reactor_serves_on_the_calling_thread() {
    let (report, told) = mpsc::channel();
    let mut guest = None;
    let served = Server::new().listen("127.0.0.1:0").reactors(1).run(
        move |start| Echo { reactor: start.reactor(), report: report.clone() },
        |running| {
            let (address, handle) = (running.addresses().next().unwrap().clone(), running.handle());
            guest = Some(thread::spawn(move || {
                let mut client = Client::connect(&address);
                client.send(b"hello");
                assert_eq!(client.receive(5), b"hello");
                handle.shutdown();
            }));
        },
    );
    guest.unwrap().join().unwrap();
    let served = served.unwrap();
    assert_eq!((served.total.accepted, served.total.bytes_out, served.failures.len()), (1, 5, 0));
    assert_eq!(told.iter().collect::<Vec<_>>(), [("open", 0, thread::current().id())]);
}

#[test]
fn of_several_reactors_the_first_is_on_the_calling_thread() {
    let (report, told) = mpsc::channel();
    let served = Server::new()
        .reactors(3)
        .run(
            move |start| Echo { reactor: start.reactor(), report: report.clone() },
            |running| {
                let handle: Handle<()> = running.handle();
                (0..3).for_each(|reactor| handle.send(reactor, ()).unwrap());
                handle.shutdown();
            },
        )
        .unwrap();
    assert_eq!(served.reactors.len(), 3);
    let mut told: Vec<_> = told.iter().collect();
    told.sort_by_key(|(_, reactor, _)| *reactor);
    let here: Vec<_> =
        told.iter().map(|(_, reactor, at)| (*reactor, *at == thread::current().id())).collect();
    assert_eq!(here, [(0, true), (1, false), (2, false)]);
}

#[test]
fn a_reactor_that_cannot_start_leaves_nothing_behind() {
    for culprit in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (report, _told) = mpsc::channel();
        let error = Server::new()
            .listen(address)
            .reactors(2)
            .run(
                move |start| {
                    assert!(start.reactor() != culprit, "out of luck");
                    Echo { reactor: start.reactor(), report: report.clone() }
                },
                |_| panic!("it does not serve"),
            )
            .unwrap_err();
        match error {
            StartError::Panicked { reactor, message } => {
                assert_eq!((reactor, message.as_str()), (culprit, "out of luck"));
            }
            other => panic!("{other}"),
        }
        TcpListener::bind(address).unwrap();
    }
}

#[test]
fn a_panic_while_it_is_announced_ends_all_reactors() {
    let (report, told) = mpsc::channel();
    let mut port = 0;
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Server::new().listen("127.0.0.1:0").reactors(2).run(
            move |start| Echo { reactor: start.reactor(), report: report.clone() },
            |running| {
                port = tcp_port(running.addresses().next().unwrap());
                panic!("nobody reads");
            },
        )
    }));
    assert!(ran.is_err());
    // Every handler has gone, and with it every sender.
    assert_eq!(told.iter().count(), 0);
    TcpListener::bind(("127.0.0.1", port)).unwrap();
}
