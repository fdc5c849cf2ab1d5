//! How many connections there may be, over all reactors and from one source address.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Enough that reactors on as many cores seldom meet at one lock.
const SHARDS: usize = 32;

/// The caps, and who has been let in under them. Touched when a connection comes and goes, never for a
/// message; a server without caps has none of this.
#[derive(Debug)]
pub(crate) struct Admission {
    total: AtomicUsize,
    total_cap: usize,
    sources: Vec<Mutex<HashMap<IpAddr, usize>>>,
    source_cap: usize,
    hasher: RandomState,
}

/// Which cap was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Server,
    Source,
}

/// One connection's place; dropping it frees the place, on whatever path the connection ends.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    source: Option<IpAddr>,
}

impl Admission {
    pub(crate) fn new(total_cap: Option<usize>, source_cap: Option<usize>) -> Option<Arc<Self>> {
        (total_cap.is_some() || source_cap.is_some()).then(|| {
            Arc::new(Self {
                total: AtomicUsize::new(0),
                total_cap: total_cap.unwrap_or(usize::MAX),
                sources: (0..SHARDS).map(|_| Mutex::default()).collect(),
                source_cap: source_cap.unwrap_or(usize::MAX),
                hasher: RandomState::new(),
            })
        })
    }

    /// A place for a connection from `source` (`None`: one that has no address and is not counted by it).
    pub(crate) fn admit(self: &Arc<Self>, source: Option<IpAddr>) -> Result<Permit, Full> {
        // Counted first and given back by the permit's drop where a cap is met: two reactors that admit at
        // the same time can then refuse one connection too many, but never let in one too many.
        let before = self.total.fetch_add(1, Ordering::Relaxed);
        let mut permit = Permit { admission: Arc::clone(self), source: None };
        if before >= self.total_cap {
            return Err(Full::Server);
        }
        if let Some(source) = source.filter(|_| self.source_cap != usize::MAX) {
            let mut shard = self.shard(source);
            let count = shard.entry(source).or_insert(0);
            if *count >= self.source_cap {
                return Err(Full::Source);
            }
            *count += 1;
            permit.source = Some(source);
        }
        Ok(permit)
    }

    fn shard(&self, source: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        let index = self.hasher.hash_one(source) as usize % SHARDS;
        // Nothing here panics while it holds the lock, and a count is right at any point.
        self.sources[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(source) = self.source {
            let mut shard = self.admission.shard(source);
            if let Some(count) = shard.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    shard.remove(&source);
                }
            }
        }
        self.admission.total.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, last]))
    }

    #[test]
    fn no_caps_no_bookkeeping() {
        assert!(Admission::new(None, None).is_none());
    }

    #[test]
    fn the_server_cap_counts_every_source_together() {
        let admission = Admission::new(Some(2), None).unwrap();
        let first = admission.admit(ip(1)).unwrap();
        let _second = admission.admit(None).unwrap();
        assert_eq!(admission.admit(ip(3)).unwrap_err(), Full::Server);
        drop(first);
        assert!(admission.admit(ip(3)).is_ok());
    }

    #[test]
    fn the_source_cap_counts_each_source_alone() {
        let admission = Admission::new(None, Some(1)).unwrap();
        let first = admission.admit(ip(1)).unwrap();
        assert_eq!(admission.admit(ip(1)).unwrap_err(), Full::Source);
        let _other = admission.admit(ip(2)).unwrap();
        drop(first);
        let _again = admission.admit(ip(1)).unwrap();
    }

    #[test]
    fn everything_is_given_back() {
        let admission = Admission::new(Some(10), Some(3)).unwrap();
        for _ in 0..100 {
            let permits: Vec<_> = (0..20).map(|n| admission.admit(ip(n % 4))).collect();
            assert_eq!(permits.iter().filter(|permit| permit.is_ok()).count(), 10);
        }
        assert_eq!(admission.total.load(Ordering::Relaxed), 0);
        assert!(admission.sources.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
