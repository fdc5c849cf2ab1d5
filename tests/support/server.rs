use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use corelane::{
    Address, CloseReason, ConnId, Core, Handle, Receipt, Running, SendError, Server, Sessions, Snapshot,
    StartError,
};

use super::script::{Event, Job, Report, Script, Scripted, Seen};
use super::{Client, DEADLINE, eventually};

/// A server at work, what its handlers have reported, and ways to meddle with it.
#[derive(Debug)]
pub(crate) struct TestServer {
    running: Option<Running<Job>>,
    pub(crate) handle: Handle<Job>,
    pub(crate) addresses: Vec<Address>,
    report: Report,
    seen: Receiver<Seen>,
    /// What was seen and not asked for yet.
    kept: RefCell<VecDeque<Seen>>,
}

impl TestServer {
    /// One reactor on a TCP port.
    #[track_caller]
    pub(crate) fn start(script: Script) -> Self {
        Self::with(Server::new(), script)
    }

    /// One reactor on a TCP port, and other settings.
    #[track_caller]
    pub(crate) fn with(server: Server, script: Script) -> Self {
        Self::configured(server.reactors(1).listen("127.0.0.1:0"), script)
    }

    #[track_caller]
    pub(crate) fn configured(server: Server, script: Script) -> Self {
        Self::try_start(server, script).unwrap()
    }

    pub(crate) fn try_start(server: Server, script: Script) -> Result<Self, StartError> {
        let (sender, seen) = mpsc::channel();
        let report = Report { reactor: usize::MAX, sender: sender.clone() };
        let running = server.start(move |start| Scripted {
            script: script.clone(),
            report: Report { reactor: start.reactor(), sender: Sender::clone(&sender) },
        })?;
        Ok(Self {
            handle: running.handle(),
            addresses: running.addresses().cloned().collect(),
            running: Some(running),
            report,
            seen,
            kept: RefCell::default(),
        })
    }

    pub(crate) fn running(&self) -> &Running<Job> {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn address(&self) -> &Address {
        &self.addresses[0]
    }

    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// A client and its connection's id; for servers to which nobody else connects meanwhile.
    #[track_caller]
    pub(crate) fn connect(&self) -> (Client, ConnId) {
        let client = self.client();
        (client, self.opened())
    }

    /// As [`TestServer::connect`], with a client to which very little can be sent before it reads.
    #[track_caller]
    pub(crate) fn connect_narrow(&self) -> (Client, ConnId) {
        let client = Client::connect_narrow(self.address());
        (client, self.opened())
    }

    /// The next thing that has not been asked for.
    #[track_caller]
    pub(crate) fn next_seen(&self) -> Seen {
        if let Some(seen) = self.kept.borrow_mut().pop_front() {
            return seen;
        }
        self.seen.recv_timeout(DEADLINE).expect("something to happen")
    }

    /// The next thing that was seen already.
    pub(crate) fn try_next(&self) -> Option<Seen> {
        self.kept.borrow_mut().pop_front().or_else(|| self.seen.try_recv().ok())
    }

    #[track_caller]
    pub(crate) fn next(&self) -> Event {
        self.next_seen().event
    }

    /// The first thing that `pick` wants; what it does not want stays for others.
    #[track_caller]
    pub(crate) fn find<T>(&self, what: &str, mut pick: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut at = 0;
        loop {
            if at == self.kept.borrow().len() {
                match self.seen.recv_timeout(DEADLINE) {
                    Ok(seen) => self.kept.borrow_mut().push_back(seen),
                    Err(_) => panic!("waited for {what} and saw {:#?}", self.kept.borrow()),
                }
            }
            let picked = pick(&self.kept.borrow()[at]);
            if let Some(picked) = picked {
                self.kept.borrow_mut().remove(at);
                return picked;
            }
            at += 1;
        }
    }

    /// Waits for just this.
    #[track_caller]
    pub(crate) fn expect(&self, event: Event) {
        self.find(&format!("{event:?}"), |seen| (seen.event == event).then_some(()));
    }

    #[track_caller]
    pub(crate) fn opened(&self) -> ConnId {
        self.find("a connection", |seen| match seen.event {
            Event::Open(id) => Some(id),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn closed(&self, id: ConnId) -> CloseReason {
        self.find(&format!("the end of {id}"), |seen| match seen.event {
            Event::Close(closed, reason) if closed == id => Some(reason),
            _ => None,
        })
    }

    /// The next input of a connection.
    #[track_caller]
    pub(crate) fn data(&self, id: ConnId) -> Vec<u8> {
        self.find(&format!("input of {id}"), |seen| match &seen.event {
            Event::Data(from, bytes) if *from == id => Some(bytes.clone()),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn note(&self) -> String {
        self.find("a note", |seen| match &seen.event {
            Event::Note(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// Everything that was seen until now and not asked for. What the reactors have done before a call of
    /// [`TestServer::core`] returned is in it.
    pub(crate) fn rest(&self) -> Vec<Event> {
        let mut kept = self.kept.borrow_mut();
        kept.extend(self.seen.try_iter());
        kept.drain(..).map(|seen| seen.event).collect()
    }

    /// Does something on the first reactor's thread.
    #[track_caller]
    pub(crate) fn core<T: Send + 'static>(&self, act: impl FnOnce(&mut Core<'_>) -> T + Send + 'static) -> T {
        self.on_reactor(0, |_, core| act(core))
    }

    #[track_caller]
    pub(crate) fn on_reactor<T: Send + 'static>(
        &self,
        reactor: usize,
        act: impl FnOnce(&mut Sessions<()>, &mut Core<'_>) -> T + Send + 'static,
    ) -> T {
        let (result, results) = mpsc::channel();
        self.send(reactor, move |sessions, core| {
            let _ = result.send(act(sessions, core));
        })
        .expect("a mailbox with room");
        results.recv_timeout(DEADLINE).expect("the reactor to do as it is told")
    }

    /// As [`TestServer::on_reactor`], but does not wait for it.
    pub(crate) fn send(
        &self,
        reactor: usize,
        act: impl FnOnce(&mut Sessions<()>, &mut Core<'_>) + Send + 'static,
    ) -> Result<(), SendError<Job>> {
        self.handle.send(reactor, Job(Box::new(act)))
    }

    /// Holds a reactor up in the middle of its mailbox until the result is dropped.
    #[track_caller]
    pub(crate) fn hold(&self, reactor: usize) -> Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (holding, held) = mpsc::channel();
        self.send(reactor, move |_, _| {
            let _ = holding.send(());
            let _ = released.recv_timeout(DEADLINE);
        })
        .expect("a mailbox with room");
        held.recv_timeout(DEADLINE).expect("the reactor to stop");
        release
    }

    pub(crate) fn receipt(&self, name: u64) -> Receipt {
        self.report.receipt(name)
    }

    pub(crate) fn report(&self) -> Report {
        self.report.clone()
    }

    /// The counters as of a turn that has ended after this call began.
    #[track_caller]
    pub(crate) fn total(&self) -> Snapshot {
        for reactor in 0..self.handle.reactors() {
            let turns = || self.handle.counters()[reactor].turns;
            self.on_reactor(reactor, |_, _| ());
            // Counters are published at the end of a turn: of this one, or it has ended and the next job
            // makes another.
            let before = turns();
            self.on_reactor(reactor, |_, _| ());
            eventually("the end of a turn", || turns() > before);
        }
        self.handle.total()
    }

    /// Lets the reactors handle every event that is there.
    #[track_caller]
    pub(crate) fn settle(&self) {
        self.total();
        self.total();
    }

    /// Shuts down in good order, and returns the report at the end.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> corelane::Report {
        let running = self.running.take().unwrap();
        running.shutdown();
        join_in_time(running)
    }

    /// Waits for an end that somebody else has asked for.
    #[track_caller]
    pub(crate) fn join(&mut self) -> corelane::Report {
        join_in_time(self.running.take().unwrap())
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop_now();
            if thread::panicking() {
                // Another panic now would hide the first.
                thread::spawn(move || drop(running));
            } else {
                join_in_time(running);
            }
        }
    }
}

#[track_caller]
pub(crate) fn join_in_time<M: Send + Debug + 'static>(running: Running<M>) -> corelane::Report {
    let (report, reports) = mpsc::channel();
    thread::spawn(move || report.send(running.join()).unwrap());
    reports.recv_timeout(DEADLINE).expect("the server to end")
}
