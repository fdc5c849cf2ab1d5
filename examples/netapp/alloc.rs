//! What `/alloc` does: many allocations of many sizes, most of them soon given back and some kept, so that a profile
//! of the heap has something to show.

use std::collections::{BTreeMap, VecDeque};

/// Entries of what is made for one request.
const ENTRIES: usize = 100;
/// One of so many requests has its allocations kept.
const KEPT: u64 = 10;

type Made = BTreeMap<String, Vec<u8>>;

/// The allocations of one reactor.
pub(crate) struct Allocations {
    kept: VecDeque<Made>,
    most: usize,
    requests: u64,
}

impl Allocations {
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: VecDeque::new(), most, requests: 0 }
    }

    /// Does a request's work, and tells of it.
    pub(crate) fn work(&mut self) -> String {
        self.requests += 1;
        let made: Made = (0..ENTRIES).map(|entry| (format!("entry {entry}"), self.value(entry))).collect();
        let bytes: usize = made.iter().map(|(key, value)| key.capacity() + value.capacity()).sum();
        if self.requests.is_multiple_of(KEPT) && self.most > 0 {
            if self.kept.len() == self.most {
                self.kept.pop_front();
            }
            self.kept.push_back(made);
        }
        format!("allocated {bytes} bytes in {} pieces; keeping {}\n", 2 * ENTRIES, self.kept.len())
    }

    /// 16 bytes to 4 KiB, most of them small.
    fn value(&self, entry: usize) -> Vec<u8> {
        vec![self.requests as u8; 16 << (entry % 9).min(entry % 7)]
    }
}
