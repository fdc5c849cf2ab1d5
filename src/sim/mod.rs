//! A deterministic simulation of one reactor, to test handlers with: no sockets, no threads, no waiting.
//!
//! A [`Simulation`] runs a handler on a real reactor whose kernel is made up from a seed: a network that
//! splits and delays, buffers that fill up, a clock that jumps to whatever happens next, and [`Faults`].
//! Everything that happens follows from the seed and from what the test does, so a run that fails fails
//! again with the same seed.
//!
//! ```
//! use corelane::sim::{Faults, Simulation};
//! use corelane::{Conn, Flow, Handler, Input, Open, Server};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Session = ();
//!     type Message = ();
//!
//!     fn on_open(&mut self, _: &mut Conn<'_>) -> Open<()> {
//!         Open::Accept(())
//!     }
//!
//!     fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
//!         conn.write(input.take_all());
//!         Flow::Continue
//!     }
//! }
//!
//! for seed in 0..50 {
//!     let server = Server::new().listen("127.0.0.1:7000");
//!     let mut sim = Simulation::new(seed, server, Faults::lossless(), |_| Echo).unwrap();
//!     let remote = sim.connect();
//!     remote.send(b"hello, ");
//!     remote.send(b"echo");
//!     remote.finish();
//!     sim.run_until(|_| remote.is_over()).unwrap();
//!     assert_eq!(remote.received(), b"hello, echo", "seed {seed}");
//!     sim.shut_down();
//!     sim.run_to_the_end().unwrap();
//!     assert_eq!(sim.counters().accepted, 1);
//! }
//! ```
//!
//! A simulation watches the reactor too, and panics where that does what no kernel would put up with, or
//! ends and leaves something behind.

mod remote;

pub use crate::driver::sim::{Call, Calls, DialAnswer, Faults, Reading};
pub use remote::Remote;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::Peer;
use crate::driver::sim::{Horizon, SimDriver, Waker, World, limits, remote_address};
use crate::handler::{Dispatch, Handle, Handler, Sessions};
use crate::net::Address;
use crate::reactor::{Command, Mailbox, Reactor, Snapshot, Then, panic_message};
use crate::server::{Server, Simulated, Start, StartError};
use crate::time::nanos;

/// Turns after which a run is given up that has not come to its end.
const MOST_TURNS: usize = 1_000_000;

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The reactor goes on.
    On,
    /// The reactor goes on, but nothing will ever happen unless the test does something.
    Idle,
    /// The reactor has ended.
    Ended,
}

/// Why a run stopped before what it ran for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// Nothing will ever happen unless the test does something.
    Idle,
    /// The reactor has ended.
    Ended,
    /// A million turns were not enough.
    TurnLimit,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "nothing will ever happen any more",
            Self::Ended => "the reactor has ended",
            Self::TurnLimit => "a million turns were not enough",
        })
    }
}

impl std::error::Error for Stuck {}

/// One reactor with its handler on a made-up kernel. See the [module](self).
pub struct Simulation<H: Handler> {
    reactor: Reactor<SimDriver, Dispatch<H>>,
    world: Rc<RefCell<World>>,
    handle: Handle<H::Message>,
    mailboxes: Arc<[Mailbox<Command<H::Message>>]>,
    listeners: Vec<Listener>,
    has_ended: bool,
    failure: Option<io::Error>,
}

#[derive(Debug)]
struct Listener {
    is_tcp: bool,
    /// Of the receive and send buffers of what it accepts.
    limits: (usize, usize),
}

impl<H: Handler> Simulation<H> {
    /// A reactor with the settings of `server`, and the handler that `factory` makes for it. Its
    /// `on_start` has been called.
    ///
    /// There is one reactor, whatever the server's settings say; pinning, balance, signals and the names
    /// of threads are ignored. Buffers of the made-up kernel are as large as the server's
    /// [`SocketOptions`](crate::SocketOptions) say, or 128 KiB.
    ///
    /// # Errors
    ///
    /// As [`Server::start`], of which the settings, the addresses and a panic in `on_start` remain.
    pub fn new<F>(seed: u64, server: Server, faults: Faults, factory: F) -> Result<Self, StartError>
    where
        F: FnOnce(&Start<H::Message>) -> H,
    {
        let waker = Waker::default();
        let Simulated { parts, start, options, backlog, read_buffer } = server.simulated(waker.clone())?;
        let world = Rc::new(RefCell::new(World::new(seed, faults, start.addresses().len(), backlog)));
        let listener = |address: &Address| Listener {
            is_tcp: matches!(address, Address::Tcp(_)),
            limits: limits(&options),
        };
        let mailboxes = Arc::clone(&parts.mailboxes);
        let driver = SimDriver::new(Rc::clone(&world), waker, read_buffer);
        let callbacks = Dispatch::new(factory(&start), parts.index);
        let mut simulation = Self {
            reactor: Reactor::new(parts, driver, callbacks),
            world,
            handle: start.handle(),
            mailboxes,
            listeners: start.addresses().iter().map(listener).collect(),
            has_ended: false,
            failure: None,
        };
        simulation.start()?;
        Ok(simulation)
    }

    fn start(&mut self) -> Result<(), StartError> {
        if self.reactor.start() == Then::Panicked
            && let Some(caught) = self.reactor.io.panics.pop()
        {
            let message = panic_message(&*caught.payload).to_owned();
            return Err(StartError::Panicked { reactor: 0, message });
        }
        Ok(())
    }

    /// A remote that connects to the server's first address, from an address of its own.
    ///
    /// # Panics
    ///
    /// If the server was given no address to listen on.
    pub fn connect(&mut self) -> Remote {
        let from = remote_address(self.world.borrow().connections());
        self.connect_to(0, from)
    }

    /// A remote that connects to the server's address of this index, from the given address (which means
    /// nothing if the server's is a Unix socket).
    ///
    /// # Panics
    ///
    /// If the server has no such address.
    pub fn connect_to(&mut self, address: usize, from: SocketAddr) -> Remote {
        let listener = &self.listeners[address];
        let peer = if listener.is_tcp { Peer::Tcp(from) } else { Peer::Unix };
        let link = self.world.borrow_mut().connect(address as u16, peer, listener.limits);
        Remote::new(&self.world, link)
    }

    /// How dials of the handler are answered from now on; until this is called, remotes accept all.
    pub fn answer_dials(&mut self, answer: impl FnMut(&Address) -> DialAnswer + 'static) {
        self.world.borrow_mut().answer_dials(Box::new(answer));
    }

    /// The remotes that the handler has dialed so far, in the order of its dials, whatever they were
    /// answered, except those that failed at once.
    pub fn dialed(&self) -> Vec<Remote> {
        let links = self.world.borrow().dialed_links();
        links.into_iter().map(|link| Remote::new(&self.world, link)).collect()
    }

    /// A handle, as other threads have it.
    pub fn handle(&self) -> Handle<H::Message> {
        self.handle.clone()
    }

    /// Has `act` called as soon as the reactor waits for events the next time: what another thread might
    /// do at just that moment.
    pub fn while_polling(&mut self, act: impl FnOnce() + 'static) {
        self.world.borrow_mut().act_while_polling(Box::new(act));
    }

    /// Lets the `nth` call of this kind, counted from 1 and from now, fail once with this `errno`.
    ///
    /// `EINTR` for [`Call::Poll`] is an empty poll; with anything else the reactor cannot go on.
    pub fn fail_call(&mut self, call: Call, nth: u64, errno: i32) {
        self.world.borrow_mut().fail_call(call, nth, errno);
    }

    /// How often the reactor has made each call.
    pub fn calls(&self) -> Calls {
        self.world.borrow().calls()
    }

    /// One turn of the reactor. Where nothing is to be done, the clock moves on to whatever comes next.
    ///
    /// # Panics
    ///
    /// If the reactor does what no kernel would put up with, or ends and leaves something behind. That
    /// would be a bug in corelane.
    pub fn turn(&mut self) -> Turn {
        if self.has_ended {
            return Turn::Ended;
        }
        match self.reactor.turn() {
            Ok(true) => {}
            Ok(false) => self.end(),
            Err(error) => {
                self.failure = Some(error);
                self.end();
            }
        }
        self.check();
        match self.has_ended {
            true => Turn::Ended,
            false if self.world.borrow().is_idle() => Turn::Idle,
            false => Turn::On,
        }
    }

    fn end(&mut self) {
        self.has_ended = true;
        self.mailboxes.iter().for_each(Mailbox::close);
        // Others have yet to see what was sent to them.
        self.world.borrow_mut().settle();
    }

    fn check(&mut self) {
        let mut breaches = self.world.borrow_mut().take_breaches();
        if self.has_ended && self.failure.is_none() {
            breaches.extend(self.left_behind());
        }
        assert!(breaches.is_empty(), "the reactor broke the rules: {}", breaches.join("; "));
    }

    fn left_behind(&mut self) -> Vec<String> {
        let slots = self.reactor.keys().count();
        let counters = self.reactor.final_counters();
        let world = self.world.borrow();
        let (moved_in, moved_out) = world.moved();
        let checks = [
            ("slots in use", slots as u64, 0),
            ("sockets open", world.sockets() as u64, 0),
            ("connections counted as active", counters.active, 0),
            ("accepted connections that have ended", counters.accepted_ended, counters.accepted),
            ("bytes counted as received", counters.bytes_in, moved_in),
            ("bytes counted as sent", counters.bytes_out, moved_out),
        ];
        let wrong = checks.into_iter().filter(|(_, is, should)| is != should);
        wrong.map(|(what, is, should)| format!("{what}: {is}, not {should}")).collect()
    }

    /// Turns until `condition` is met.
    ///
    /// # Errors
    ///
    /// [`Stuck`] if it will not be met.
    pub fn run_until(&mut self, mut condition: impl FnMut(&mut Self) -> bool) -> Result<(), Stuck> {
        for _ in 0..MOST_TURNS {
            if condition(self) {
                return Ok(());
            }
            let turn = self.turn();
            if turn != Turn::On && !condition(self) {
                return Err(if turn == Turn::Idle { Stuck::Idle } else { Stuck::Ended });
            }
        }
        Err(Stuck::TurnLimit)
    }

    /// Turns until the network is silent and the reactor waits for nothing but time to pass (or has ended).
    ///
    /// # Errors
    ///
    /// [`Stuck::TurnLimit`] if it never comes to rest.
    pub fn run_until_quiet(&mut self) -> Result<(), Stuck> {
        self.world.borrow_mut().set_horizon(Horizon::Network);
        let result = (0..MOST_TURNS).find(|_| self.turn() != Turn::On);
        self.world.borrow_mut().set_horizon(Horizon::Free);
        result.map(|_| ()).ok_or(Stuck::TurnLimit)
    }

    /// Turns until this much time of the simulation has passed.
    ///
    /// # Errors
    ///
    /// [`Stuck`] if the reactor ends before.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Stuck> {
        let end = nanos(self.now().saturating_add(time));
        self.world.borrow_mut().set_horizon(Horizon::Until(end));
        let turn = (0..MOST_TURNS).find_map(|_| match self.turn() {
            Turn::On if !self.is_at(end) => None,
            turn => Some(turn),
        });
        self.world.borrow_mut().set_horizon(Horizon::Free);
        match turn {
            None => Err(Stuck::TurnLimit),
            Some(Turn::Ended) => Err(Stuck::Ended),
            Some(Turn::Idle | Turn::On) => {
                self.world.borrow_mut().skip_to(end);
                Ok(())
            }
        }
    }

    fn is_at(&self, end: u64) -> bool {
        nanos(self.now()) >= end
    }

    /// The time since the simulation began, by its own clock.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.world.borrow().now())
    }

    /// Begins to shut down in good order, as [`Running::shutdown`](crate::Running::shutdown) does.
    pub fn shut_down(&mut self) {
        self.handle.shutdown();
    }

    /// Ends now, as [`Running::stop_now`](crate::Running::stop_now) does.
    pub fn stop_now(&mut self) {
        self.handle.stop_now();
    }

    /// Turns until the reactor has ended.
    ///
    /// # Errors
    ///
    /// [`Stuck`] if it does not, which is so unless it was asked to.
    pub fn run_to_the_end(&mut self) -> Result<(), Stuck> {
        self.run_until(|simulation| simulation.has_ended)
    }

    /// Whether the reactor has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Why it could not go on, if it could not.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.reactor.callbacks.handler
    }

    /// The handler, to change it.
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.reactor.callbacks.handler
    }

    /// The sessions of the open connections.
    pub fn sessions(&self) -> &Sessions<H::Session> {
        &self.reactor.callbacks.sessions
    }

    /// What the reactor has counted.
    pub fn counters(&mut self) -> Snapshot {
        self.reactor.final_counters()
    }

    /// What the handler's panics said, with the callback in which they happened; the first 16.
    pub fn panics(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.reactor.io.panics.iter().map(|caught| (caught.callback, panic_message(&*caught.payload)))
    }
}

impl<H: Handler> fmt::Debug for Simulation<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("now", &self.now())
            .field("has_ended", &self.has_ended)
            .finish_non_exhaustive()
    }
}
