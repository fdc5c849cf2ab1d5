//! The keys of one reactor: values, their expiry, the memory they take.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::num::NonZeroU64;

use corelane::Shared;
use hashbrown::HashTable;
use rapidhash::quality::RandomState;
use smallvec::SmallVec;

/// Up to 16 bytes stay in the place that a vector's pointer and length take.
type Bytes = SmallVec<[u8; 16]>;

/// Values from this size on are shared with the replies that carry them instead of copied into each.
const LARGE: usize = 4 * 1024;
/// What a key takes besides bytes of its own and of its value, and what its expiry does, roughly.
const KEY_WEIGHT: usize = 112;
const EXPIRY_WEIGHT: usize = 64;

/// A moment, in milliseconds since the server's start.
pub(crate) type Millis = u64;

/// When a key is gone; `None`: never.
pub(crate) type Expiry = Option<NonZeroU64>;

#[derive(Debug)]
pub(crate) enum Value {
    Small(Bytes),
    /// With the room that its vector has, which may be more than its bytes take.
    Large(Shared, usize),
}

/// Bytes that are not where the vector is.
#[inline]
fn elsewhere(bytes: &Bytes) -> usize {
    if bytes.spilled() { bytes.capacity() } else { 0 }
}

impl Value {
    fn new(bytes: &[u8]) -> Self {
        if bytes.len() < LARGE { Self::Small(bytes.into()) } else { Self::large(bytes.to_vec()) }
    }

    fn large(bytes: Vec<u8>) -> Self {
        let room = bytes.capacity();
        Self::Large(bytes.into(), room)
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(bytes, _) => bytes,
        }
    }

    #[inline]
    fn weight(&self) -> usize {
        match self {
            Self::Small(bytes) => elsewhere(bytes),
            Self::Large(_, room) => *room,
        }
    }

    /// Takes other bytes, in the place of the old ones if they fit there without much waste.
    #[inline]
    fn replace(&mut self, new: &[u8]) {
        match self {
            Self::Small(old) if new.len() == old.len() => old.copy_from_slice(new),
            Self::Small(old) if new.len() <= old.capacity() && old.capacity() <= 2 * new.len() + 64 => {
                old.clear();
                old.extend_from_slice(new);
            }
            value => *value = Self::new(new),
        }
    }

    fn append(&mut self, more: &[u8]) {
        let length = self.bytes().len() + more.len();
        let mut bytes = match std::mem::replace(self, Self::Small(Bytes::new())) {
            Self::Small(mut bytes) if length < LARGE => {
                bytes.extend_from_slice(more);
                *self = Self::Small(bytes);
                return;
            }
            Self::Small(bytes) => bytes.into_vec(),
            // Copied only while a reply is on its way with it.
            Self::Large(bytes, _) => bytes.into(),
        };
        if bytes.capacity() < length {
            // Room for more of the kind, but not as much again: there may be many.
            bytes.reserve_exact(more.len() + length / 8);
        }
        bytes.extend_from_slice(more);
        *self = Self::large(bytes);
    }
}

/// One cache line: to find a short key and its value takes one look at memory, where three would cost more than
/// all the rest of a GET.
#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    key: Bytes,
    value: Value,
    expiry: Expiry,
}

const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    fn weight(&self) -> usize {
        let expiry = if self.expiry.is_some() { EXPIRY_WEIGHT } else { 0 };
        KEY_WEIGHT + elsewhere(&self.key) + self.value.weight() + expiry
    }

    #[inline]
    fn is_past(&self, now: Millis) -> bool {
        self.expiry.is_some_and(|moment| moment.get() <= now)
    }
}

#[derive(Debug)]
pub(crate) struct Store {
    entries: HashTable<Entry>,
    hasher: RandomState,
    /// The keys that expire, the next first.
    expiring: BTreeSet<(NonZeroU64, Bytes)>,
    /// Bytes in use, and how many may be.
    used: usize,
    limit: usize,
    now: Millis,
}

impl Store {
    pub(crate) fn new(hasher: RandomState, limit: usize) -> Self {
        Self { entries: HashTable::new(), hasher, expiring: BTreeSet::new(), used: 0, limit, now: 1 }
    }

    /// Tells it the time; what has expired by then is no longer found.
    pub(crate) fn set_time(&mut self, now: Millis) {
        self.now = now.max(1);
    }

    /// The moment that is so many milliseconds away; a past one is now.
    pub(crate) fn moment(&self, after: i64) -> Expiry {
        NonZeroU64::new(self.now.saturating_add_signed(after).max(1))
    }

    /// Whether a request that brings so many bytes may be served.
    #[inline]
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.used.saturating_add(bytes) <= self.limit
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Its entry, unless that has expired.
    #[inline]
    fn find(&self, key: &[u8]) -> Option<&Entry> {
        let found = self.entries.find(self.hasher.hash_one(key), |entry| *entry.key == *key);
        found.filter(|entry| !entry.is_past(self.now))
    }

    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Value> {
        self.find(key).map(|entry| &entry.value)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// Milliseconds that a key has left, `Some(None)` if for ever.
    pub(crate) fn left(&self, key: &[u8]) -> Option<Option<Millis>> {
        self.find(key).map(|entry| entry.expiry.map(|moment| moment.get() - self.now))
    }

    /// Changes a key's entry, or the one that is made for it: of a key that was not there or has expired, the
    /// value is empty and stays for ever.
    #[inline]
    fn change<T>(&mut self, key: &[u8], change: impl FnOnce(&mut Entry) -> T) -> T {
        let Self { entries, hasher, expiring, .. } = self;
        let hash = hasher.hash_one(key);
        let same = |entry: &Entry| *entry.key == *key;
        let entry = match entries.find_entry(hash, same) {
            Ok(place) => {
                self.used -= place.get().weight();
                place.into_mut()
            }
            Err(absent) => {
                let entry = Entry { key: key.into(), value: Value::Small(Bytes::new()), expiry: None };
                let rehash = |entry: &Entry| hasher.hash_one(&*entry.key);
                absent.into_table().insert_unique(hash, entry, rehash).into_mut()
            }
        };
        let before = entry.expiry;
        if entry.is_past(self.now) {
            (entry.value, entry.expiry) = (Value::Small(Bytes::new()), None);
        }
        let result = change(entry);
        self.used += entry.weight();
        if entry.expiry != before {
            if let Some(moment) = before {
                expiring.remove(&(moment, entry.key.clone()));
            }
            if let Some(moment) = entry.expiry {
                expiring.insert((moment, entry.key.clone()));
            }
        }
        result
    }

    #[inline]
    pub(crate) fn set(&mut self, key: &[u8], value: &[u8], expiry: Expiry) {
        self.change(key, |entry| {
            entry.value.replace(value);
            entry.expiry = expiry;
        });
    }

    /// Whether the key was there.
    pub(crate) fn set_expiry(&mut self, key: &[u8], expiry: Expiry) -> bool {
        self.contains(key) && {
            self.change(key, |entry| entry.expiry = expiry);
            true
        }
    }

    /// Puts bytes behind those that are there; how many that makes.
    pub(crate) fn append(&mut self, key: &[u8], more: &[u8]) -> usize {
        self.change(key, |entry| {
            entry.value.append(more);
            entry.value.bytes().len()
        })
    }

    /// Replaces a value and leaves its expiry as it is.
    pub(crate) fn update(&mut self, key: &[u8], value: &[u8]) {
        self.change(key, |entry| entry.value.replace(value));
    }

    /// Whether the key was there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
        let Ok(place) = self.entries.find_entry(hash, |entry| *entry.key == *key) else { return false };
        let (entry, _) = place.remove();
        self.used -= entry.weight();
        let was_there = !entry.is_past(self.now);
        if let Some(moment) = entry.expiry {
            self.expiring.remove(&(moment, entry.key));
        }
        was_there
    }

    pub(crate) fn clear(&mut self) {
        self.entries = HashTable::new();
        self.expiring.clear();
        self.used = 0;
    }

    /// The keys that match a pattern.
    pub(crate) fn keys<'a>(&'a self, pattern: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let live = self.entries.iter().filter(|entry| !entry.is_past(self.now));
        live.map(|entry| &*entry.key).filter(|key| matches(pattern, key))
    }

    /// Frees keys that have expired, at most so many.
    pub(crate) fn sweep(&mut self, most: usize) {
        for _ in 0..most {
            match self.expiring.first() {
                Some((moment, key)) if moment.get() <= self.now => {
                    let key = key.clone();
                    self.remove(&key);
                }
                _ => return,
            }
        }
    }
}

/// Whether a text matches a pattern of `*`, `?`, `[a-z]`, `[^a]` and `\`, as redis's KEYS has them.
///
/// Where a `*` has matched too little it is given one more byte; earlier ones need never be looked at again,
/// so no pattern takes longer than its length times the text's.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    let mut star = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at + 1, next));
            at += 1;
            continue;
        }
        match text.get(next) {
            None if at == pattern.len() => return true,
            None => return false,
            Some(&byte) => {
                if let Some(length) = matches_one(&pattern[at..], byte) {
                    at += length;
                    next += 1;
                    continue;
                }
            }
        }
        let Some((behind, from)) = star else { return false };
        star = Some((behind, from + 1));
        (at, next) = (behind, from + 1);
    }
}

/// How long the pattern's first element is, if the byte matches it.
fn matches_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (escaped == byte).then_some(2),
        [b'[', ref class @ ..] => matches_class(class, byte).map(|length| length + 1),
        [first, ..] => (first == byte).then_some(1),
    }
}

/// A class without its opening bracket; one without a closing bracket goes to the end.
fn matches_class(class: &[u8], byte: u8) -> Option<usize> {
    let is_negated = class.first() == Some(&b'^');
    let mut at = usize::from(is_negated);
    let mut is_in = false;
    loop {
        match class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                is_in |= escaped == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                is_in |= (first.min(last)..=first.max(last)).contains(&byte);
                at += 3;
            }
            [first, ..] => {
                is_in |= first == byte;
                at += 1;
            }
        }
    }
    (is_in != is_negated).then_some(at)
}
