//! Fuzz targets for the state of a connection: arbitrary bytes, arbitrary calls, arbitrary answers of the
//! kernel, checked against plain vectors. `tests/fuzz` feeds them; here their corpora run as tests.

use std::collections::{BTreeMap, HashMap};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    CloseReason, Connection, Delivery, Due, Flag, Inbox, Key, Outbox, Peer, Periods, Phase, Pools, Receipt,
    Slots,
};
use crate::buffer::Shared;
use crate::time::Wheel;

/// Reads a fuzzer's bytes as a sequence of decisions.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn number(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) << 8 | usize::from(self.byte()?))
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// The outbox hands over every byte once and in order, whatever the kernel takes of what it is offered, and
/// answers every receipt once with the truth.
pub fn outbox(data: &[u8]) {
    let mut script = Script(data);
    let mut pools = Pools::new();
    let mut outbox = Outbox::default();
    let (mut put, mut got) = (Vec::new(), 0_usize);
    let answered = Arc::new(AtomicUsize::new(0));
    let mut asked = 0;
    while let Some(choice) = script.byte() {
        match choice % 5 {
            0 => {
                let count = script.number().unwrap_or(0) % 300;
                let bytes = script.bytes(count);
                outbox.append(bytes, &mut pools);
                put.extend_from_slice(bytes);
            }
            1 => {
                // Longer than a block, from a pattern: the fuzzer need not spell it out.
                let bytes: Vec<u8> =
                    (0..script.number().unwrap_or(0)).map(|n| (n ^ put.len()) as u8).collect();
                outbox.append(&bytes, &mut pools);
                put.extend(bytes);
            }
            2 => {
                let bytes: Vec<u8> =
                    (0..script.number().unwrap_or(0)).map(|n| (n + put.len()) as u8).collect();
                put.extend(&bytes);
                outbox.append_shared(Shared::from(bytes));
            }
            3 => {
                let answered = Arc::clone(&answered);
                let start = put.len() - usize::from(choice >> 3).min(put.len() - got);
                let receipt = Receipt::new(move |delivery| {
                    assert_eq!(delivery, Delivery::Sent);
                    answered.fetch_add(1, Ordering::Relaxed);
                });
                outbox.expect(start as u64, put.len() as u64, receipt);
                asked += 1;
            }
            _ => {
                let mut slices = [IoSlice::new(&[]); 7];
                let limit = script.number().unwrap_or(1) + 1;
                let (count, total) = outbox.gather(&mut slices, limit);
                let offered: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                assert_eq!(offered, put[got..got + total]);
                assert_eq!(total == 0, outbox.is_empty());
                let taken = total * usize::from(choice >> 3) / 31;
                outbox.advance(taken, &mut pools);
                got += taken;
                while let Some(receipt) = outbox.settled(got as u64) {
                    receipt.answer(Delivery::Sent);
                }
            }
        }
        assert_eq!(outbox.len(), put.len() - got);
    }
    let rest = outbox.len();
    outbox.advance(rest, &mut pools);
    while let Some((receipt, delivery)) = outbox.failed(put.len() as u64) {
        receipt.answer(delivery);
    }
    assert!(outbox.is_idle());
    assert_eq!(answered.load(Ordering::Relaxed), asked);
    pools.give_outbox(Box::new(outbox));
}

/// The inbox shows what was appended and not consumed, in one piece.
pub fn inbox(data: &[u8]) {
    let mut script = Script(data);
    let mut pools = Pools::new();
    let mut inbox: Box<Inbox> = pools.inbox();
    let mut model = Vec::new();
    while let Some(choice) = script.byte() {
        match choice % 4 {
            0 => {
                let count = script.number().unwrap_or(0) % 500;
                let bytes = script.bytes(count);
                inbox.append(bytes);
                model.extend_from_slice(bytes);
            }
            1 => {
                let bytes: Vec<u8> = (0..script.number().unwrap_or(0)).map(|n| n as u8).collect();
                inbox.append(&bytes);
                model.extend(bytes);
            }
            2 => {
                let count = script.number().unwrap_or(0) % (model.len() + 1);
                inbox.consume(count);
                model.drain(..count);
            }
            _ => {
                pools.give_inbox(inbox);
                inbox = pools.inbox();
                model.clear();
            }
        }
        assert_eq!(inbox.as_slice(), model);
    }
}

/// Keys go stale; the wheel hands out what is due, once, and promises no later than that.
pub fn slots_and_wheel(data: &[u8]) {
    let mut script = Script(data);
    let mut slots: Slots<usize> = Slots::new();
    let mut wheel = Wheel::new();
    let mut keys: Vec<Key> = Vec::new();
    let mut live: HashMap<Key, usize> = HashMap::new();
    let mut due_at: BTreeMap<u32, u64> = BTreeMap::new();
    let mut now = 0_u64;
    while let Some(choice) = script.byte() {
        let pick = usize::from(choice >> 3);
        match choice % 4 {
            0 => {
                let key = slots.insert(keys.len());
                assert!(live.insert(key, keys.len()).is_none());
                keys.push(key);
            }
            1 if !keys.is_empty() => {
                let key = keys[pick % keys.len()];
                if live.remove(&key).is_some() {
                    assert!(slots.remove(key).is_some());
                    wheel.cancel(key.slot);
                    due_at.remove(&key.slot);
                } else {
                    assert!(slots.remove(key).is_none());
                }
            }
            2 if !live.is_empty() => {
                let slot = live.keys().map(|key| key.slot).nth(pick % live.len()).unwrap_or(0);
                let distance = (script.number().unwrap_or(0) as u64) << (pick % 12);
                wheel.set(slot, now + distance);
                due_at.insert(slot, (now + distance).max(now + 1));
            }
            _ => {
                now += (script.number().unwrap_or(0) as u64) << (pick % 10);
                let mut due = Vec::new();
                wheel.advance(now, &mut due);
                due.sort_unstable();
                let expected: Vec<u32> =
                    due_at.iter().filter(|&(_, &at)| at <= now).map(|(&slot, _)| slot).collect();
                due_at.retain(|_, at| *at > now);
                assert_eq!(due, expected);
            }
        }
        assert!(wheel.next() <= due_at.values().min().copied() || due_at.is_empty());
        assert_eq!(slots.len(), live.len());
        for key in &keys {
            assert_eq!(slots.get(*key), live.get(key));
        }
    }
}

/// A deadline is never in another phase's name, and the first cause of an end stays the cause.
pub fn deadlines(data: &[u8]) {
    let mut script = Script(data);
    let mut word = || script.number().unwrap_or(0) as u32;
    let now = word() << 16 | word();
    let mut connection = Connection::new(Peer::Unix, Phase::Open, now.wrapping_sub(word()));
    let periods = Periods {
        first_byte: word(),
        idle: word(),
        write_stall: word(),
        linger: word(),
        flush_stall: word().max(1),
        minimum_rate: word(),
        grace: word(),
    };
    connection.idle = periods.idle;
    connection.active = now.wrapping_sub(word());
    connection.until = now.wrapping_add(word());
    if word() % 2 == 0 {
        let mut inbox = Box::<Inbox>::default();
        inbox.append(&[0; 3]);
        inbox.since = now.wrapping_sub(word());
        connection.inbox = Some(inbox);
    }
    if word() % 2 == 0 {
        connection.outbox = Some(Box::default());
        connection.assign(Flag::Blocked, word() % 2 == 0);
    }
    for phase in [Phase::Connecting, Phase::Open, Phase::Flushing, Phase::Lingering, Phase::Dead] {
        connection.phase = phase;
        let due = connection.deadline(&periods, now).map(|(_, due)| due);
        let is_possible = match (phase, due) {
            (Phase::Dead, due) => due.is_none(),
            (Phase::Connecting, due) => matches!(due, None | Some(Due::Dial)),
            (Phase::Lingering, due) => due == Some(Due::Linger),
            (Phase::Flushing, due) => matches!(due, None | Some(Due::Close(CloseReason::WriteStall))),
            (Phase::Open, due) => !matches!(due, Some(Due::Dial | Due::Linger)),
        };
        assert!(is_possible, "{phase:?} {due:?}");
    }
    connection.blame(CloseReason::Idle);
    connection.blame(CloseReason::Reset);
    assert_eq!(connection.reason(), Some(CloseReason::Idle));
}

/// Runs a target on every file of its corpus.
#[cfg(test)]
pub(crate) fn replay(name: &str, target: fn(&[u8])) {
    let folder = format!("{}/tests/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut count = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        if std::panic::catch_unwind(|| target(&data)).is_err() {
            panic!("the corpus file {} fails", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "{folder} is empty");
}

#[cfg(test)]
mod tests {
    use super::replay;

    #[test]
    fn corpus_of_outbox() {
        replay("outbox", super::outbox);
    }

    #[test]
    fn corpus_of_inbox() {
        replay("inbox", super::inbox);
    }

    #[test]
    fn corpus_of_slots_and_wheel() {
        replay("slots_and_wheel", super::slots_and_wheel);
    }

    #[test]
    fn corpus_of_deadlines() {
        replay("deadlines", super::deadlines);
    }
}
