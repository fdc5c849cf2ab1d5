//! A free list that is bounded and gives memory back when it is not used.

/// Parts kept for reuse, at most `limit` of them.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    free: Vec<T>,
    limit: usize,
    /// The fewest parts that lay here since the last [`Pool::trim`]: nobody needed those.
    idle: usize,
}

impl<T> Pool<T> {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { free: Vec::new(), limit, idle: 0 }
    }

    pub(crate) fn take(&mut self) -> Option<T> {
        let part = self.free.pop();
        self.idle = self.idle.min(self.free.len());
        part
    }

    /// Keeps `part` for later, or drops it where the pool is full.
    pub(crate) fn give(&mut self, part: T) {
        if self.free.len() < self.limit {
            self.free.push(part);
        }
    }

    /// Frees half of what lay unused since the last call, so that a burst does not pin its peak for ever
    /// and a steady load does not allocate anew after each trim.
    pub(crate) fn trim(&mut self) {
        let surplus = self.idle.div_ceil(2);
        self.free.truncate(self.free.len() - surplus);
        self.idle = self.free.len();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_given() {
        let mut pool = Pool::new(4);
        assert_eq!(pool.take(), None);
        pool.give(1);
        pool.give(2);
        assert_eq!(pool.take(), Some(2));
        assert_eq!(pool.take(), Some(1));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn keeps_no_more_than_its_limit() {
        let mut pool = Pool::new(3);
        for part in 0..10 {
            pool.give(part);
        }
        assert_eq!(pool.len(), 3);
    }

    #[test]
    fn trimming_an_unused_pool_empties_it() {
        let mut pool = Pool::new(64);
        for part in 0..64 {
            pool.give(part);
        }
        for _ in 0..16 {
            pool.trim();
        }
        assert!(pool.is_empty());
    }

    #[test]
    fn trimming_while_all_is_lent_leaves_the_room_to_give_it_back() {
        let mut pool = Pool::new(64);
        pool.give(1);
        let part = pool.take();
        let room = pool.free.capacity();
        pool.trim();
        part.into_iter().for_each(|part| pool.give(part));
        assert_eq!(pool.free.capacity(), room, "a steady load allocated anew");
        assert_ne!(room, 0);
    }

    #[test]
    fn trimming_keeps_what_is_in_use() {
        let mut pool = Pool::new(64);
        for part in 0..8 {
            pool.give(part);
        }
        for _ in 0..16 {
            let parts: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
            parts.into_iter().for_each(|part| pool.give(part));
            pool.trim();
        }
        assert_eq!(pool.len(), 8);
    }
}
