//! The client: a corelane server without an address, whose connections are all dialed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use corelane::{Running, Server};

use super::caller::{Caller, Common, Order};
use crate::pattern::Pattern;
use crate::worker::{Assignment, Fault, Talk, Tally};

/// How long the connections that remain at the end may take.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// Orders that may wait for a reactor: the coordinator sends some hundred at most.
const MAILBOX: (usize, usize) = (4_096, 1 << 20);

/// What a reactor has to tell.
#[derive(Debug)]
pub(crate) enum Event {
    /// The talk is over; every message was answered.
    Talked(Box<Tally>),
    /// Connections may end now.
    Parted,
    /// The first of a reactor's failures; the others are not told.
    Failed(Fault),
}

#[derive(Debug)]
pub(crate) struct Client {
    running: Running<Order>,
    opened: Arc<AtomicUsize>,
    dialed: usize,
}

impl Client {
    /// Starts it; its reactors pass on what they have to tell.
    pub(crate) fn start(
        assignment: Assignment,
        tell: impl Fn(Event) + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        let opened = Arc::new(AtomicUsize::new(0));
        let common = Common {
            target: assignment.target,
            sources: assignment.sources.into(),
            dial_timeout: assignment.dial_timeout,
            pattern: Pattern::leak(assignment.largest),
            tell,
            opened: Arc::clone(&opened),
            first: assignment.first,
            begun: Instant::now(),
        };
        let mut server = Server::new()
            .tick(assignment.tick)
            .mailbox(MAILBOX.0, MAILBOX.1)
            .drain_deadline(DRAIN_DEADLINE)
            .thread_name("client");
        if let Some(reactors) = assignment.reactors {
            server = server.reactors(reactors);
        }
        let running = server
            .start(move |start| Caller::new(common.clone(), start.reactor(), start.reactors()))
            .map_err(|error| anyhow!("the client did not start: {error}"))?;
        Ok(Self { running, opened, dialed: 0 })
    }

    pub(crate) fn reactors(&self) -> usize {
        self.running.reactors()
    }

    /// Has connections opened until so many were dialed in all.
    pub(crate) fn dial(&mut self, up_to: usize) -> Result<()> {
        if up_to > self.dialed {
            self.dialed = up_to;
            self.order(Order::Dial { up_to })?;
        }
        Ok(())
    }

    /// Connections that were opened so far.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// Connections that were opened and have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.running.handle().total().closed_in_all()
    }

    /// Bytes that came back so far.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.running.handle().total().bytes_in
    }

    /// Has messages go back and forth; each reactor then has a [`Tally`] to tell.
    pub(crate) fn talk(&self, talk: Talk) -> Result<()> {
        self.order(Order::Talk(talk))
    }

    /// Lets connections end from now on; each reactor tells when it does.
    pub(crate) fn part(&self) -> Result<()> {
        self.order(Order::Part)
    }

    /// Ends the client; tells in a line what it did.
    pub(crate) fn end(self) -> Result<String> {
        self.running.shutdown();
        let report = self.running.join();
        ensure!(report.failures.is_empty() && report.total.panics == 0, "the client failed: {report}");
        Ok(report.to_string().replace('\n', "; "))
    }

    /// Resets every connection and ends.
    pub(crate) fn abandon(self) -> Result<()> {
        self.running.stop_now();
        self.running.join();
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
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
    use std::sync::mpsc::{self, Receiver};
    use std::thread;

    use super::*;
    use crate::worker::{Blame, Monotonic};

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

    /// Echoes the first byte of each message at once, and the rest after a while.
    fn hesitate(mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut message = [0; SIZE];
        while stream.read_exact(&mut message).is_ok() {
            let begun = stream.write_all(&message[..1]);
            thread::sleep(Duration::from_millis(20));
            if begun.and_then(|()| stream.write_all(&message[1..])).is_err() {
                return;
            }
        }
    }

    /// A client of two reactors, and what they tell.
    fn start(target: SocketAddr) -> (Client, Receiver<Event>) {
        let assignment = Assignment {
            target,
            sources: vec![Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)],
            reactors: Some(2),
            first: 0,
            largest: SIZE,
            dial_timeout: Duration::from_secs(5),
            tick: Duration::from_millis(50),
        };
        let (sender, events) = mpsc::channel();
        (Client::start(assignment, move |event| drop(sender.send(event))).unwrap(), events)
    }

    /// What the first reactor that has something to tell tells of ten messages on four connections.
    fn talk_to(treat: fn(&mut Vec<u8>) -> bool) -> Event {
        talk_in_waves(move |stream| serve(stream, treat), u64::MAX)
    }

    fn talk_in_waves(serve: impl Fn(TcpStream) + Copy + Send + 'static, wave: u64) -> Event {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut client, events) = start(listener.local_addr().unwrap());
        client.dial(4).unwrap();
        for _ in 0..4 {
            let (stream, _) = listener.accept().unwrap();
            thread::spawn(move || serve(stream));
        }
        while client.opened() < 4 {
            assert!(events.try_recv().is_err());
            thread::yield_now();
        }
        let talk = Talk {
            size: SIZE,
            rounds: 10,
            active: 100.0,
            at: Monotonic::now().unwrap().after(Duration::from_millis(5)),
            time: Duration::ZERO,
            deadline: Duration::from_millis(300),
            wave,
        };
        client.talk(talk).unwrap();
        events.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn failure_of(treat: fn(&mut Vec<u8>) -> bool) -> (Blame, String) {
        match talk_to(treat) {
            Event::Failed(Fault { blame, problem }) => (blame, problem),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_connection_carries_its_rounds() {
        let Event::Talked(tally) = talk_to(|_| true) else { panic!("no tally") };
        assert_eq!((tally.messages, tally.fewest, tally.most, tally.active), (20, 10, 10, 2));
        assert_eq!((tally.corrected.count(), tally.raw.count(), tally.connect.count()), (20, 20, 2));
        assert_eq!(tally.verified, 2_000);
        assert_eq!((tally.first_corrected.count(), tally.first_raw.count()), (20, 20));
    }

    #[test]
    fn the_first_byte_has_a_time_of_its_own() {
        let Event::Talked(tally) = talk_in_waves(hesitate, u64::MAX) else { panic!("no tally") };
        assert_eq!((tally.first_raw.count(), tally.raw.count()), (20, 20));
        let (first, last) = (tally.first_raw.quantile_us(0.0), tally.raw.quantile_us(0.0));
        assert!(last.unwrap() > 19e3 && first < last, "{first:?} {last:?}");
    }

    #[test]
    fn every_connection_gets_its_turn_in_a_narrow_wave() {
        let Event::Talked(tally) = talk_in_waves(|stream| serve(stream, |_| true), 1) else {
            panic!("no tally")
        };
        assert_eq!((tally.messages, tally.fewest, tally.most, tally.active), (20, 10, 10, 2));
    }

    #[test]
    fn a_wrong_byte_is_told() {
        let (blame, said) = failure_of(|reply| {
            reply[40] ^= 1;
            true
        });
        assert!(blame == Blame::WrongData && said.contains("wrong byte"), "{said}");
    }

    #[test]
    fn a_byte_too_many_is_told() {
        let (blame, said) = failure_of(|reply| {
            reply.push(0);
            true
        });
        assert!(blame == Blame::WrongData && said.contains("bytes came back where"), "{said}");
    }

    #[test]
    fn a_byte_that_lacks_is_told() {
        let (blame, said) = failure_of(|reply| {
            reply.pop();
            true
        });
        assert!(blame == Blame::Target && said.contains("did not arrive within 300ms"), "{said}");
    }

    #[test]
    fn a_lost_connection_is_told() {
        let (blame, said) = failure_of(|_| false);
        assert!(blame == Blame::Target && said.contains("was lost: peer_closed"), "{said}");
    }

    #[test]
    fn a_connection_that_cannot_be_opened_is_told() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (mut client, events) = start(closed);
        client.dial(1).unwrap();
        let Event::Failed(fault) = events.recv_timeout(Duration::from_secs(10)).unwrap() else {
            panic!("no failure");
        };
        assert_eq!(fault.blame, Blame::Target);
        let said = fault.problem;
        assert!(said.contains("could not be opened") && said.contains("nobody listens there"), "{said}");
    }
}
