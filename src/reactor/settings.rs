use crate::connection::Periods;
use crate::time::Nanos;

/// Who stops reading when a connection's output has gone above the high watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Backpressure {
    /// The reactor: it reads nothing more from this connection until its output has fallen below the low
    /// watermark. Right wherever input causes output on the same connection.
    #[default]
    Automatic,
    /// The handler, with `pause` and `resume`. Right where input and output are independent, as in a proxy,
    /// which pauses the *other* connection.
    Manual,
}

/// What the reactor needs of the server's configuration, validated and in its own units.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) high_watermark: usize,
    pub(crate) low_watermark: usize,
    pub(crate) output_cap: usize,
    pub(crate) input_cap: usize,
    /// Bytes that one connection may read, or flush, in one turn.
    pub(crate) byte_budget: usize,
    pub(crate) accept_budget: usize,
    pub(crate) mailbox_budget: usize,
    pub(crate) timer_budget: usize,
    pub(crate) periods: Periods,
    pub(crate) backpressure: Backpressure,
    pub(crate) close_slow_consumers: bool,
    pub(crate) abort_on_panic: bool,
    /// How long to look for events again and again before sleeping.
    pub(crate) spin: Nanos,
    pub(crate) tick: Option<Nanos>,
    pub(crate) drain_deadline: Nanos,
}
