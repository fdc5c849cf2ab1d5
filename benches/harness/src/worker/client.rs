//! The hidden command `worker`: a process with some of a run's connections.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::words::{Assignment, Ended, Order, Talk, Tally, Word};
use super::{hear, say, spread};
use crate::stand::client::{Client, Event};

/// How often the progress of a talk is told.
const PROGRESS: Duration = Duration::from_secs(1);

/// Hold some of the connections of a run, as the coordinator on stdin says.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {}

/// What a worker waits for.
pub(super) enum Input {
    Order(Order),
    /// The coordinator is gone.
    Gone,
    Event(Event),
}

/// Runs the command.
pub(crate) fn run(_: &Args) -> Result<()> {
    let (sender, inputs) = mpsc::channel();
    let orders = sender.clone();
    // Nobody takes inputs any more when the worker ends.
    hear(move |order| drop(orders.send(order.map_or(Input::Gone, Input::Order))))?;
    let assignment = match inputs.recv().context("no channel")? {
        Input::Order(Order::Connect(assignment)) => assignment,
        Input::Order(Order::Load(load)) => {
            spread::work(*load, inputs);
            return Ok(());
        }
        _ => bail!("a worker is started by other commands, not by hand"),
    };
    Worker::start(assignment, inputs, move |event| drop(sender.send(Input::Event(event))))?.work()
}

struct Worker {
    client: Client,
    size: usize,
    inputs: Receiver<Input>,
    /// Of the talk that goes on.
    talk: Option<Talking>,
    parting: usize,
}

struct Talking {
    tally: Tally,
    /// Reactors that have not told theirs.
    left: usize,
    told: Instant,
    bytes_before: u64,
}

impl Worker {
    fn start(
        assignment: Assignment,
        inputs: Receiver<Input>,
        tell: impl Fn(Event) + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        let client = Client::start(assignment, tell)?;
        say(&Word::Ready { reactors: client.reactors() });
        Ok(Self { client, size: 1, inputs, talk: None, parting: 0 })
    }

    fn work(mut self) -> Result<()> {
        loop {
            // An idle worker sleeps until something comes.
            let input = if self.talk.is_some() {
                match self.inputs.recv_timeout(PROGRESS) {
                    Ok(input) => Some(input),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            } else {
                Some(self.inputs.recv().context("no channel")?)
            };
            match input {
                Some(Input::Order(Order::End)) => return self.end(),
                Some(Input::Order(order)) => self.follow(order)?,
                Some(Input::Event(event)) => self.hear(event)?,
                Some(Input::Gone) => return self.client.abandon(),
                None => {}
            }
            self.tell_progress();
        }
    }

    fn follow(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Dial { up_to } => self.client.dial(up_to),
            Order::Talk(talk) => self.begin(talk),
            Order::Status => {
                say(&Word::Opened { opened: self.client.opened() as u64, ended: self.client.ended() });
                Ok(())
            }
            Order::Part => {
                self.parting = self.client.reactors();
                self.client.part()
            }
            Order::Connect(_) | Order::Load(_) | Order::Go | Order::End => {
                bail!("an order out of turn: {order:?}")
            }
        }
    }

    fn begin(&mut self, talk: Talk) -> Result<()> {
        self.size = talk.size;
        self.talk = Some(Talking {
            tally: Tally::new(),
            left: self.client.reactors(),
            told: Instant::now(),
            bytes_before: self.client.bytes_in(),
        });
        self.client.talk(talk)
    }

    fn hear(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Failed(fault) => say(&Word::Failed(fault)),
            Event::Parted => {
                self.parting = self.parting.saturating_sub(1);
                if self.parting == 0 {
                    say(&Word::Parted);
                }
            }
            Event::Talked(of_reactor) => {
                let talk = self.talk.as_mut().context("a reactor talked without being asked")?;
                talk.tally.add(&of_reactor)?;
                talk.left -= 1;
                if talk.left == 0
                    && let Some(Talking { tally, .. }) = self.talk.take()
                {
                    say(&Word::Talked(Box::new(tally)));
                }
            }
        }
        Ok(())
    }

    fn tell_progress(&mut self) {
        let (bytes, size) = (self.client.bytes_in(), self.size as u64);
        if let Some(talk) = self.talk.as_mut().filter(|talk| talk.told.elapsed() >= PROGRESS) {
            talk.told = Instant::now();
            say(&Word::Progress { messages: (bytes - talk.bytes_before) / size });
        }
    }

    fn end(self) -> Result<()> {
        let report = self.client.end()?;
        say(&Word::Ended(Ended { report, ..Ended::default() }));
        Ok(())
    }
}
