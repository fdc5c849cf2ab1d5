//! A relay brings every message to its reactor in order, however little room there is in the mailboxes.

mod support;

use std::sync::mpsc::{self, Receiver, Sender};

use corelane::{
    Conn, Core, Flow, Handle, Handler, Input, Open, Relay, Running, SendError, Server, Sessions, Start,
    TimerId,
};
use support::DEADLINE;

const COUNT: u64 = 1000;
const KEY: u64 = 7;

/// What the reactors say of themselves.
#[derive(Debug, PartialEq)]
enum Said {
    /// So much waited behind the messages of one callback.
    Waits(usize),
    /// This reactor got a message: from which, and its number.
    Got { reactor: usize, from: usize, number: u64 },
    /// These came back.
    Returned(Vec<Message>),
}

#[derive(Debug, PartialEq)]
enum Message {
    Begin,
    Number(usize, u64),
}

/// Sends numbers to every reactor when it is told to begin, after reactor 0 told the other so.
struct Numbers {
    relay: Relay<Message>,
    said: Sender<Said>,
}

impl Handler for Numbers {
    type Session = ();
    type Message = Message;

    fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
        Open::Refuse
    }

    fn on_data(&mut self, _: &mut Conn<'_>, _: &mut (), _: &mut Input<'_>) -> Flow {
        Flow::Close
    }

    fn on_message(&mut self, message: Message, _: &mut Sessions<()>, core: &mut Core<'_>) {
        let reactor = core.reactor();
        match message {
            Message::Begin => {
                // From outside there might be no room for it any more.
                if reactor == 0 {
                    self.relay.send(core, 1, Message::Begin);
                }
                for number in 0..COUNT {
                    for to in 0..self.relay.reactors() {
                        self.relay.send(core, to, Message::Number(reactor, number));
                    }
                }
                self.said.send(Said::Waits(self.relay.waiting())).unwrap();
            }
            Message::Number(from, number) => {
                self.said.send(Said::Got { reactor, from, number }).unwrap();
            }
        }
    }

    fn on_timer(&mut self, _: TimerId, key: u64, _: &mut Sessions<()>, core: &mut Core<'_>) {
        assert_eq!(key, KEY);
        let returned = self.relay.retry(core);
        if !returned.is_empty() {
            self.said.send(Said::Returned(returned)).unwrap();
        }
    }
}

/// A server whose mailboxes hold 16 messages, and what it says. Its relays send to `other`, or to itself.
fn start(other: Option<Handle<Message>>) -> (Running<Message>, Receiver<Said>) {
    let (said, heard) = mpsc::channel();
    let server = Server::new().reactors(2).mailbox(16, 1024);
    let factory = move |start: &Start<Message>| Numbers {
        relay: Relay::new(other.clone().unwrap_or_else(|| start.handle()), KEY),
        said: said.clone(),
    };
    (server.start(factory).unwrap(), heard)
}

#[test]
fn nothing_is_lost_or_overtaken_where_mailboxes_are_full() {
    let (server, heard) = start(None);
    server.handle().send(0, Message::Begin).unwrap();
    let mut next = [[0; 2]; 2];
    let mut waited = Vec::new();
    while next != [[COUNT; 2]; 2] {
        match heard.recv_timeout(DEADLINE).unwrap() {
            Said::Got { reactor, from, number } => {
                assert_eq!(number, next[reactor][from], "to {reactor} from {from}");
                next[reactor][from] += 1;
            }
            Said::Waits(count) => waited.push(count),
            other => panic!("{other:?}"),
        }
    }
    // A reactor takes nothing out of its own mailbox while its callback runs.
    assert!(waited.len() == 2 && waited.iter().all(|&count| count >= COUNT as usize - 16), "{waited:?}");
    server.shutdown();
    server.join();
}

#[test]
fn what_a_stopped_reactor_is_sent_comes_back() {
    let (stopped, _) = start(None);
    let handle = stopped.handle();
    stopped.shutdown();
    stopped.join();
    assert_eq!(handle.send(0, Message::Begin), Err(SendError::Stopped(Message::Begin)));
    let (server, heard) = start(Some(handle));
    server.handle().send(1, Message::Begin).unwrap();
    assert_eq!(heard.recv_timeout(DEADLINE).unwrap(), Said::Waits(0));
    let sent = (0..COUNT).flat_map(|number| [Message::Number(1, number), Message::Number(1, number)]);
    assert_eq!(heard.recv_timeout(DEADLINE).unwrap(), Said::Returned(sent.collect()));
    server.shutdown();
    server.join();
}
