//! What everybody should know: the latest line of each symbol.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use corelane::Shared;

/// What all reactors agree on: a number for each symbol, and one for each line.
pub(crate) struct Registry {
    /// Locked when a reactor sees a symbol for the first time, and not after that.
    symbols: Mutex<HashMap<Box<[u8]>, u32>>,
    limit: usize,
    /// The number of the next line. Of two lines of a symbol the one with the higher number is newer, even
    /// where they come from different publishers and reach some reactor in the other order.
    next: AtomicU64,
    /// Reactors that will publish nothing more.
    published: AtomicUsize,
}

impl Registry {
    pub(crate) fn new(limit: usize) -> Self {
        Self { symbols: Mutex::default(), limit, next: AtomicU64::new(1), published: AtomicUsize::new(0) }
    }

    /// The number of a symbol; `None` if it is one too many.
    pub(crate) fn symbol(&self, name: &[u8]) -> Option<u32> {
        let mut symbols = self.symbols.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&symbol) = symbols.get(name) {
            return Some(symbol);
        }
        let symbol = symbols.len();
        if symbol >= self.limit {
            return None;
        }
        symbols.insert(name.into(), symbol as u32);
        Some(symbol as u32)
    }

    /// The first of `count` numbers for lines.
    fn lines(&self, count: usize) -> u64 {
        self.next.fetch_add(count as u64, Ordering::Relaxed)
    }

    /// A reactor has put its last batch into every mailbox.
    pub(crate) fn count_published(&self) {
        self.published.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn published(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }
}

/// Lines that a publisher sent together, and that leave together: one payload for everybody.
pub(crate) struct Batch {
    payload: Shared,
    /// The symbol of each line, and where in the payload the line ends.
    lines: Vec<(u32, usize)>,
    first: u64,
}

/// One line of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) symbol: u32,
    number: u64,
    pub(crate) bytes: &'a [u8],
}

impl Batch {
    /// Numbers the lines, of which `bytes` is made up.
    pub(crate) fn new(bytes: Vec<u8>, lines: Vec<(u32, usize)>, registry: &Registry) -> Self {
        let first = registry.lines(lines.len());
        Self { payload: bytes.into(), lines, first }
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let mut start = 0;
        self.lines.iter().zip(self.first..).map(move |(&(symbol, end), number)| {
            let bytes = &self.payload[start..end];
            start = end;
            Line { symbol, number, bytes }
        })
    }
}

/// A line on the board.
struct Latest {
    number: u64,
    /// When it came: the how manieth of all lines of this reactor.
    place: u64,
    bytes: Vec<u8>,
}

/// The latest line of each symbol, as one reactor knows them.
///
/// It is all that there is of the past: a subscriber that has missed lines needs to remember no more than the
/// place up to which it has seen everything.
#[derive(Default)]
pub(crate) struct Board {
    /// By symbol.
    latest: Vec<Option<Latest>>,
    /// The symbols by the place of their latest line: what came last is last.
    order: BTreeMap<u64, u32>,
    /// The place of the line that came last.
    pub(crate) end: u64,
}

impl Board {
    /// Puts up the lines of a batch, and returns what subscribers are to be sent: the payload as it is, but
    /// for the rare line that was overtaken by a newer one of its symbol from another publisher.
    pub(crate) fn put(&mut self, batch: &Batch) -> Shared {
        let is_all_new = batch.lines().all(|line| self.is_new(line));
        let payload = if is_all_new {
            batch.payload.clone()
        } else {
            let new = batch.lines().filter(|&line| self.is_new(line));
            new.flat_map(|line| line.bytes).copied().collect::<Vec<u8>>().into()
        };
        batch.lines().for_each(|line| self.put_line(line));
        payload
    }

    fn is_new(&self, line: Line<'_>) -> bool {
        let latest = self.latest.get(line.symbol as usize).and_then(Option::as_ref);
        latest.is_none_or(|latest| latest.number < line.number)
    }

    fn put_line(&mut self, line: Line<'_>) {
        if !self.is_new(line) {
            return;
        }
        let symbol = line.symbol as usize;
        if symbol >= self.latest.len() {
            self.latest.resize_with(symbol + 1, || None);
        }
        self.end += 1;
        let latest = self.latest[symbol].get_or_insert(Latest { number: 0, place: 0, bytes: Vec::new() });
        self.order.remove(&latest.place);
        self.order.insert(self.end, line.symbol);
        latest.number = line.number;
        latest.place = self.end;
        latest.bytes.clear();
        latest.bytes.extend_from_slice(line.bytes);
    }

    /// The first of the latest lines that came after `place`, and its own place.
    pub(crate) fn after(&self, place: u64) -> Option<(u64, &[u8])> {
        let (&place, &symbol) = self.order.range((Bound::Excluded(place), Bound::Unbounded)).next()?;
        let latest = self.latest.get(symbol as usize)?.as_ref()?;
        Some((place, &latest.bytes))
    }
}
