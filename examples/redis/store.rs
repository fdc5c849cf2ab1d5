//! The keys of one reactor: values, their expiry, the memory they take.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::rc::Rc;

use corelane::Shared;
use rapidhash::quality::RandomState;

/// Values from this size on are shared with the replies that carry them instead of copied into each.
const LARGE: usize = 4 * 1024;
/// What a key takes besides its bytes and its value's, and what its expiry does, roughly.
const KEY_WEIGHT: usize = 96;
const EXPIRY_WEIGHT: usize = 64;

/// A moment, in milliseconds since the server's start.
pub(crate) type Millis = u64;

/// When a key is gone; `None`: never.
pub(crate) type Expiry = Option<NonZeroU64>;

#[derive(Debug)]
pub(crate) enum Value {
    Small(Vec<u8>),
    Large(Shared),
}

impl Value {
    fn new(bytes: &[u8]) -> Self {
        if bytes.len() < LARGE { Self::Small(bytes.to_vec()) } else { Self::Large(bytes.into()) }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(bytes) => bytes,
        }
    }

    #[inline]
    fn weight(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.capacity(),
            Self::Large(bytes) => bytes.len(),
        }
    }

    /// Takes other bytes, in the place of the old ones if they fit there without much waste.
    #[inline]
    fn replace(&mut self, new: &[u8]) {
        match self {
            Self::Small(old) if new.len() <= old.capacity() && old.capacity() <= 2 * new.len() + 64 => {
                old.clear();
                old.extend_from_slice(new);
            }
            value => *value = Self::new(new),
        }
    }

    fn append(&mut self, more: &[u8]) {
        let mut bytes = match std::mem::replace(self, Self::Small(Vec::new())) {
            Self::Small(bytes) => bytes,
            // Copied only while a reply is on its way with it.
            Self::Large(bytes) => bytes.into(),
        };
        bytes.extend_from_slice(more);
        *self = if bytes.len() < LARGE { Self::Small(bytes) } else { Self::Large(bytes.into()) };
    }
}

#[derive(Debug)]
struct Entry {
    value: Value,
    expiry: Expiry,
}

#[derive(Debug)]
pub(crate) struct Store {
    entries: HashMap<Rc<[u8]>, Entry, RandomState>,
    /// The keys that expire, the next first.
    expiring: BTreeSet<(NonZeroU64, Rc<[u8]>)>,
    /// Bytes in use, and how many may be.
    used: usize,
    limit: usize,
    now: Millis,
}

impl Store {
    pub(crate) fn new(hasher: RandomState, limit: usize) -> Self {
        Self { entries: HashMap::with_hasher(hasher), expiring: BTreeSet::new(), used: 0, limit, now: 1 }
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

    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Value> {
        self.entries.get(key).filter(|entry| !self.is_past(entry.expiry)).map(|entry| &entry.value)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// Milliseconds that a key has left, `Some(None)` if for ever.
    pub(crate) fn left(&self, key: &[u8]) -> Option<Option<Millis>> {
        let entry = self.entries.get(key).filter(|entry| !self.is_past(entry.expiry))?;
        Some(entry.expiry.map(|moment| moment.get() - self.now))
    }

    #[inline]
    pub(crate) fn set(&mut self, key: &[u8], value: &[u8], expiry: Expiry) {
        match self.entries.get_mut(key) {
            Some(entry) => {
                self.used -= entry.value.weight();
                entry.value.replace(value);
                self.used += entry.value.weight();
                if entry.expiry == expiry {
                    return;
                }
            }
            None => self.insert(key, value),
        }
        self.set_expiry(key, expiry);
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) {
        let value = Value::new(value);
        self.used += KEY_WEIGHT + key.len() + value.weight();
        self.entries.insert(key.into(), Entry { value, expiry: None });
    }

    /// Whether the key was there.
    pub(crate) fn set_expiry(&mut self, key: &[u8], expiry: Expiry) -> bool {
        self.forget_if_past(key);
        let Some((name, entry)) = self.entries.get_key_value(key) else { return false };
        let (name, old) = (Rc::clone(name), entry.expiry);
        if let Some(old) = old {
            self.expiring.remove(&(old, Rc::clone(&name)));
            self.used -= EXPIRY_WEIGHT;
        }
        if let Some(new) = expiry {
            self.expiring.insert((new, name));
            self.used += EXPIRY_WEIGHT;
        }
        if let Some(entry) = self.entries.get_mut(key) {
            entry.expiry = expiry;
        }
        true
    }

    /// Puts bytes behind those that are there; how many that makes.
    pub(crate) fn append(&mut self, key: &[u8], more: &[u8]) -> usize {
        self.forget_if_past(key);
        let Some(entry) = self.entries.get_mut(key) else {
            self.insert(key, more);
            return more.len();
        };
        self.used -= entry.value.weight();
        entry.value.append(more);
        self.used += entry.value.weight();
        entry.value.bytes().len()
    }

    /// Replaces a value and leaves its expiry as it is.
    pub(crate) fn update(&mut self, key: &[u8], value: &[u8]) {
        self.forget_if_past(key);
        let expiry = self.entries.get(key).and_then(|entry| entry.expiry);
        self.set(key, value, expiry);
    }

    /// Whether the key was there.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let Some((name, entry)) = self.entries.remove_entry(key) else { return false };
        self.used -= KEY_WEIGHT + name.len() + entry.value.weight();
        let was_there = !self.is_past(entry.expiry);
        if let Some(moment) = entry.expiry {
            self.used -= EXPIRY_WEIGHT;
            self.expiring.remove(&(moment, name));
        }
        was_there
    }

    pub(crate) fn clear(&mut self) {
        let hasher = *self.entries.hasher();
        self.entries = HashMap::with_hasher(hasher);
        self.expiring.clear();
        self.used = 0;
    }

    /// The keys that match a pattern.
    pub(crate) fn keys<'a>(&'a self, pattern: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let live = self.entries.iter().filter(|(_, entry)| !self.is_past(entry.expiry));
        live.map(|(key, _)| &**key).filter(|key| matches(pattern, key))
    }

    /// Frees keys that have expired, at most so many.
    pub(crate) fn sweep(&mut self, most: usize) {
        for _ in 0..most {
            match self.expiring.first() {
                Some((moment, key)) if self.is_past(Some(*moment)) => {
                    let key = Rc::clone(key);
                    self.remove(&key);
                }
                _ => return,
            }
        }
    }

    #[inline]
    fn is_past(&self, expiry: Expiry) -> bool {
        expiry.is_some_and(|moment| moment.get() <= self.now)
    }

    /// What has expired is not to be changed but made anew.
    fn forget_if_past(&mut self, key: &[u8]) {
        if !self.expiring.is_empty() && self.entries.get(key).is_some_and(|entry| self.is_past(entry.expiry))
        {
            self.remove(key);
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
