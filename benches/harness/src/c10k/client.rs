//! The client: a corelane server without an address, whose connections are all dialed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use corelane::{Running, Server};

use super::caller::{Caller, Common, Event, Order, Talk, Tally};
use crate::pattern::Pattern;

/// How long the connections that remain at the end may take.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// What the client is to be like.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) target: SocketAddr,
    pub(super) sources: Vec<Ipv4Addr>,
    /// One for every CPU if not given.
    pub(super) reactors: Option<usize>,
    /// The largest message.
    pub(super) largest: usize,
    pub(super) dial_timeout: Duration,
}

#[derive(Debug)]
pub(super) struct Client {
    running: Running<Order>,
    events: Receiver<Event>,
    opened: Arc<AtomicUsize>,
    dialed: usize,
}

impl Client {
    pub(super) fn start(plan: Plan) -> Result<Self> {
        let (sender, events) = mpsc::channel();
        let opened = Arc::new(AtomicUsize::new(0));
        let common = Common {
            target: plan.target,
            sources: plan.sources.into(),
            dial_timeout: plan.dial_timeout,
            pattern: Pattern::leak(plan.largest),
            events: sender,
            opened: Arc::clone(&opened),
        };
        let mut server =
            Server::new().tick(Caller::TICK).drain_deadline(DRAIN_DEADLINE).thread_name("client");
        if let Some(reactors) = plan.reactors {
            server = server.reactors(reactors);
        }
        let running = server
            .start(move |start| Caller::new(common.clone(), start.reactor(), start.reactors()))
            .map_err(|error| anyhow!("the client did not start: {error}"))?;
        Ok(Self { running, events, opened, dialed: 0 })
    }

    pub(super) fn reactors(&self) -> usize {
        self.running.reactors()
    }

    /// Has connections opened until so many were dialed in all.
    pub(super) fn dial(&mut self, up_to: usize) -> Result<()> {
        if up_to > self.dialed {
            self.dialed = up_to;
            self.order(Order::Dial { up_to })?;
        }
        Ok(())
    }

    /// Connections that were opened so far.
    pub(super) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// Connections that were opened and have ended.
    pub(super) fn ended(&self) -> u64 {
        self.running.handle().total().closed_in_all()
    }

    /// Bytes that came back so far.
    pub(super) fn bytes_in(&self) -> u64 {
        self.running.handle().total().bytes_in
    }

    /// Has messages go back and forth; each reactor then has a [`Tally`] to tell.
    pub(super) fn talk(&self, talk: Talk) -> Result<()> {
        self.order(Order::Talk(talk))
    }

    /// The next tally, if it is there within the `patience`. Fails if the client has.
    pub(super) fn tally(&self, patience: Duration) -> Result<Option<Tally>> {
        match self.events.recv_timeout(patience) {
            Ok(Event::Talked(tally)) => Ok(Some(tally)),
            Ok(Event::Failed(problem)) => bail!(problem),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the client ended"),
        }
    }

    /// Fails if the client has.
    pub(super) fn ensure_well(&self) -> Result<()> {
        match self.tally(Duration::ZERO)? {
            None => Ok(()),
            Some(_) => bail!("the client sent messages it was not asked for"),
        }
    }

    /// Lets connections end from now on.
    pub(super) fn part(&self) -> Result<()> {
        self.order(Order::Part)
    }

    /// Ends the client.
    pub(super) fn end(self) -> Result<()> {
        self.running.shutdown();
        let report = self.running.join();
        ensure!(report.failures.is_empty() && report.total.panics == 0, "the client failed: {report}");
        Ok(())
    }

    fn order(&self, order: Order) -> Result<()> {
        let handle = self.running.handle();
        (0..handle.reactors())
            .try_for_each(|reactor| handle.send(reactor, order))
            .map_err(|error| anyhow!("the client takes no order: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Instant;

    use super::*;

    const SIZE: usize = 100;

    /// Echoes; the seventh read of each connection is treated in a way that may be wrong.
    fn serve(mut stream: TcpStream, treat: fn(&mut Vec<u8>) -> bool) {
        let mut buffer = [0; 1024];
        for read in 1.. {
            let Ok(length @ 1..) = stream.read(&mut buffer) else { return };
            let mut reply = buffer[..length].to_vec();
            if read == 7 && !treat(&mut reply) || stream.write_all(&reply).is_err() {
                return;
            }
        }
    }

    fn plan(target: SocketAddr) -> Plan {
        Plan {
            target,
            sources: vec![Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)],
            reactors: Some(2),
            largest: SIZE,
            dial_timeout: Duration::from_secs(5),
        }
    }

    /// What the first reactor that has something to tell tells of ten messages on four connections.
    fn talk_to(treat: fn(&mut Vec<u8>) -> bool) -> Result<Option<Tally>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Client::start(plan(listener.local_addr().unwrap())).unwrap();
        client.dial(4).unwrap();
        for _ in 0..4 {
            let (stream, _) = listener.accept().unwrap();
            thread::spawn(move || serve(stream, treat));
        }
        while client.opened() < 4 {
            client.ensure_well().unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        let deadline = Duration::from_millis(300);
        client.talk(Talk { size: SIZE, rounds: 10, until: Instant::now(), deadline }).unwrap();
        client.tally(Duration::from_secs(10))
    }

    fn failure_of(treat: fn(&mut Vec<u8>) -> bool) -> String {
        talk_to(treat).unwrap_err().to_string()
    }

    #[test]
    fn every_connection_carries_its_rounds() {
        let tally = talk_to(|_| true).unwrap().unwrap();
        assert_eq!((tally.messages, tally.fewest, tally.most), (20, 10, 10));
        assert_eq!(tally.latencies.len(), 20);
    }

    #[test]
    fn a_wrong_byte_is_told() {
        let said = failure_of(|reply| {
            reply[40] ^= 1;
            true
        });
        assert!(said.contains("wrong byte"), "{said}");
    }

    #[test]
    fn a_byte_too_many_is_told() {
        let said = failure_of(|reply| {
            reply.push(0);
            true
        });
        assert!(said.contains("bytes came back where"), "{said}");
    }

    #[test]
    fn a_byte_that_lacks_is_told() {
        let said = failure_of(|reply| {
            reply.pop();
            true
        });
        assert!(said.contains("did not arrive within 300ms"), "{said}");
    }

    #[test]
    fn a_lost_connection_is_told() {
        let said = failure_of(|_| false);
        assert!(said.contains("was lost: peer_closed"), "{said}");
    }

    #[test]
    fn a_connection_that_cannot_be_opened_is_told() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut client = Client::start(plan(closed)).unwrap();
        client.dial(1).unwrap();
        let said = client.tally(Duration::from_secs(10)).unwrap_err().to_string();
        assert!(said.contains("could not be opened") && said.contains("nobody listens there"), "{said}");
    }
}
