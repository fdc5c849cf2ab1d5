use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, ThreadId};

use corelane::{
    CloseReason, Conn, ConnId, ConnectError, ConnectProblem, Core, Delivery, Flow, Handler, Input, Open,
    Receipt, Sessions, TimerId, Written,
};

/// What a handler has been told, or what a test wants noted down in the same order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Start,
    Open(ConnId),
    Data(ConnId, Vec<u8>),
    Drained(ConnId),
    Eof(ConnId, Vec<u8>),
    Drain(ConnId),
    Close(ConnId, CloseReason),
    Timer(u64),
    Tick,
    Shutdown,
    ConnectError(ConnId, ConnectProblem),
    Wrote(Written),
    Delivered(u64, Delivery),
    Note(String),
}

/// An [`Event`], where it happened, and on which thread.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) reactor: usize,
    pub(crate) thread: ThreadId,
    pub(crate) event: Event,
}

/// Tells the test what happens on one reactor.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(super) reactor: usize,
    pub(super) sender: Sender<Seen>,
}

impl Report {
    pub(crate) fn send(&self, event: Event) {
        let seen = Seen { reactor: self.reactor, thread: thread::current().id(), event };
        // A test that has seen enough is gone.
        let _ = self.sender.send(seen);
    }

    pub(crate) fn note(&self, text: impl Into<String>) {
        self.send(Event::Note(text.into()));
    }

    /// A receipt whose answer is reported under `name`.
    pub(crate) fn receipt(&self, name: u64) -> Receipt {
        let report = self.clone();
        Receipt::new(move |delivery| report.send(Event::Delivered(name, delivery)))
    }
}

/// Something to be done on a reactor's thread.
pub(crate) struct Job(pub(crate) Box<Work>);

type Work = dyn FnOnce(&mut Sessions<()>, &mut Core<'_>) + Send;

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

type Opens = Arc<dyn Fn(&mut Conn<'_>, &Report) -> Open<()> + Send + Sync>;
type Reads = Arc<dyn Fn(&mut Conn<'_>, &mut Input<'_>, &Report) -> Flow + Send + Sync>;
type Turns = Arc<dyn Fn(&mut Conn<'_>, &Report) -> Flow + Send + Sync>;
type Closes = Arc<dyn Fn(ConnId, CloseReason, &mut Core<'_>, &Report) + Send + Sync>;
type Times = Arc<dyn Fn(u64, &mut Core<'_>, &Report) + Send + Sync>;
type Works = Arc<dyn Fn(&mut Core<'_>, &Report) + Send + Sync>;
type Fails = Arc<dyn Fn(ConnId, ConnectError, &mut Core<'_>, &Report) + Send + Sync>;

/// What a handler does; where nothing is said, what [`Handler`] does by itself, and input is consumed.
/// Every callback but an unscripted start is reported before anything is done in it.
#[derive(Clone, Default)]
pub(crate) struct Script {
    is_quiet: bool,
    open: Option<Opens>,
    data: Option<Reads>,
    eof: Option<Reads>,
    drained: Option<Turns>,
    drain: Option<Turns>,
    close: Option<Closes>,
    timer: Option<Times>,
    start: Option<Works>,
    tick: Option<Works>,
    shutdown: Option<Works>,
    connect_error: Option<Fails>,
}

impl Script {
    /// Consumes input and answers nothing.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Sends back what comes, and does not report it.
    pub(crate) fn echo() -> Self {
        Self::new().quiet().data(|conn, input, _| {
            conn.write(input.take_all());
            Flow::Continue
        })
    }

    /// Input is not reported.
    pub(crate) fn quiet(mut self) -> Self {
        self.is_quiet = true;
        self
    }

    pub(crate) fn open(
        mut self,
        f: impl Fn(&mut Conn<'_>, &Report) -> Open<()> + Send + Sync + 'static,
    ) -> Self {
        self.open = Some(Arc::new(f));
        self
    }

    pub(crate) fn data(
        mut self,
        f: impl Fn(&mut Conn<'_>, &mut Input<'_>, &Report) -> Flow + Send + Sync + 'static,
    ) -> Self {
        self.data = Some(Arc::new(f));
        self
    }

    pub(crate) fn eof(
        mut self,
        f: impl Fn(&mut Conn<'_>, &mut Input<'_>, &Report) -> Flow + Send + Sync + 'static,
    ) -> Self {
        self.eof = Some(Arc::new(f));
        self
    }

    pub(crate) fn drained(
        mut self,
        f: impl Fn(&mut Conn<'_>, &Report) -> Flow + Send + Sync + 'static,
    ) -> Self {
        self.drained = Some(Arc::new(f));
        self
    }

    pub(crate) fn drain(
        mut self,
        f: impl Fn(&mut Conn<'_>, &Report) -> Flow + Send + Sync + 'static,
    ) -> Self {
        self.drain = Some(Arc::new(f));
        self
    }

    pub(crate) fn close(
        mut self,
        f: impl Fn(ConnId, CloseReason, &mut Core<'_>, &Report) + Send + Sync + 'static,
    ) -> Self {
        self.close = Some(Arc::new(f));
        self
    }

    pub(crate) fn timer(mut self, f: impl Fn(u64, &mut Core<'_>, &Report) + Send + Sync + 'static) -> Self {
        self.timer = Some(Arc::new(f));
        self
    }

    pub(crate) fn on_start(mut self, f: impl Fn(&mut Core<'_>, &Report) + Send + Sync + 'static) -> Self {
        self.start = Some(Arc::new(f));
        self
    }

    pub(crate) fn tick(mut self, f: impl Fn(&mut Core<'_>, &Report) + Send + Sync + 'static) -> Self {
        self.tick = Some(Arc::new(f));
        self
    }

    pub(crate) fn shutdown(mut self, f: impl Fn(&mut Core<'_>, &Report) + Send + Sync + 'static) -> Self {
        self.shutdown = Some(Arc::new(f));
        self
    }

    pub(crate) fn connect_error(
        mut self,
        f: impl Fn(ConnId, ConnectError, &mut Core<'_>, &Report) + Send + Sync + 'static,
    ) -> Self {
        self.connect_error = Some(Arc::new(f));
        self
    }
}

/// The handler that plays a [`Script`].
pub(crate) struct Scripted {
    pub(super) script: Script,
    pub(super) report: Report,
}

impl Handler for Scripted {
    type Session = ();
    type Message = Job;

    fn on_start(&mut self, core: &mut Core<'_>) {
        if let Some(start) = &self.script.start {
            self.report.send(Event::Start);
            start(core, &self.report);
        }
    }

    fn on_open(&mut self, conn: &mut Conn<'_>) -> Open<()> {
        self.report.send(Event::Open(conn.id()));
        self.script.open.as_ref().map_or(Open::Accept(()), |open| open(conn, &self.report))
    }

    fn on_data(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
        if !self.script.is_quiet {
            self.report.send(Event::Data(conn.id(), input.peek().to_vec()));
        }
        match &self.script.data {
            Some(data) => data(conn, input, &self.report),
            None => {
                input.take_all();
                Flow::Continue
            }
        }
    }

    fn on_drained(&mut self, conn: &mut Conn<'_>, _: &mut ()) -> Flow {
        self.report.send(Event::Drained(conn.id()));
        self.script.drained.as_ref().map_or(Flow::Continue, |drained| drained(conn, &self.report))
    }

    fn on_eof(&mut self, conn: &mut Conn<'_>, _: &mut (), input: &mut Input<'_>) -> Flow {
        self.report.send(Event::Eof(conn.id(), input.peek().to_vec()));
        self.script.eof.as_ref().map_or(Flow::Close, |eof| eof(conn, input, &self.report))
    }

    fn on_close(&mut self, id: ConnId, (): (), reason: CloseReason, core: &mut Core<'_>) {
        self.report.send(Event::Close(id, reason));
        if let Some(close) = &self.script.close {
            close(id, reason, core, &self.report);
        }
    }

    fn on_message(&mut self, Job(job): Job, sessions: &mut Sessions<()>, core: &mut Core<'_>) {
        job(sessions, core);
    }

    fn on_timer(&mut self, _: TimerId, key: u64, _: &mut Sessions<()>, core: &mut Core<'_>) {
        self.report.send(Event::Timer(key));
        if let Some(timer) = &self.script.timer {
            timer(key, core, &self.report);
        }
    }

    fn on_tick(&mut self, _: &mut Sessions<()>, core: &mut Core<'_>) {
        self.report.send(Event::Tick);
        if let Some(tick) = &self.script.tick {
            tick(core, &self.report);
        }
    }

    fn on_shutdown(&mut self, _: &mut Sessions<()>, core: &mut Core<'_>) {
        self.report.send(Event::Shutdown);
        if let Some(shutdown) = &self.script.shutdown {
            shutdown(core, &self.report);
        }
    }

    fn on_drain(&mut self, conn: &mut Conn<'_>, (): &mut ()) -> Flow {
        self.report.send(Event::Drain(conn.id()));
        self.script.drain.as_ref().map_or(Flow::Close, |drain| drain(conn, &self.report))
    }

    fn on_connect_error(&mut self, id: ConnId, error: ConnectError, core: &mut Core<'_>) {
        self.report.send(Event::ConnectError(id, error.problem));
        if let Some(connect_error) = &self.script.connect_error {
            connect_error(id, error, core, &self.report);
        }
    }
}
