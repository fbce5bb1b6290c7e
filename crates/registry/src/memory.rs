//! Facts that are believed for a while: in memory only, and never more of them than a fixed number.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Facts by key, each until its time is over.
#[derive(Debug)]
pub(crate) struct Memory<K, V> {
    facts: Mutex<HashMap<K, Fact<V>>>,
    limit: usize,
}

#[derive(Debug)]
struct Fact<V> {
    value: V,
    until: Instant,
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    /// Holds at most `limit` facts.
    pub(crate) fn new(limit: usize) -> Self {
        Self { facts: Mutex::default(), limit }
    }

    /// The fact that is known and still believed.
    pub(crate) fn recall(&self, key: &K) -> Option<V> {
        let facts = self.facts();
        let fact = facts.get(key)?;
        (Instant::now() < fact.until).then(|| fact.value.clone())
    }

    /// Believes `value` until then. When there are too many facts, those go whose time is over, and if that is not
    /// enough, the quarter whose time is over next.
    pub(crate) fn remember(&self, key: K, value: V, until: Instant) {
        let now = Instant::now();
        if until <= now {
            return;
        }
        let mut facts = self.facts();
        if facts.len() >= self.limit {
            facts.retain(|_, fact| now < fact.until);
        }
        if facts.len() >= self.limit {
            let mut ends: Vec<Instant> = facts.values().map(|fact| fact.until).collect();
            let (_, last, _) = ends.select_nth_unstable(self.limit / 4);
            let last = *last;
            facts.retain(|_, fact| last < fact.until);
        }
        facts.insert(key, Fact { value, until });
    }

    /// Believes nothing about `key`.
    pub(crate) fn forget(&self, key: &K) {
        self.facts().remove(key);
    }

    /// Nothing under this lock can stop half-way, so a poisoned one is as good as any.
    fn facts(&self) -> MutexGuard<'_, HashMap<K, Fact<V>>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn a_fact_is_believed_until_its_time_is_over() {
        let memory = Memory::new(4);
        memory.remember("a", 1, soon(60));
        memory.remember("b", 2, Instant::now());
        assert_eq!((memory.recall(&"a"), memory.recall(&"b")), (Some(1), None));
        memory.remember("c", 3, Instant::now() + Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(memory.recall(&"c"), None);
        memory.forget(&"a");
        assert_eq!(memory.recall(&"a"), None);
    }

    #[test]
    fn there_are_never_more_than_the_limit_and_the_longest_lived_stay() {
        let memory = Memory::new(8);
        for n in 0..1000 {
            memory.remember(n, n, soon(1000 + n));
            assert!(memory.facts().len() <= 8);
            assert_eq!(memory.recall(&n), Some(n));
        }
        // All at the same moment, as a burst leaves them.
        let (memory, end) = (Memory::new(8), soon(60));
        for n in 0..100 {
            memory.remember(n, n, end);
            assert!(memory.facts().len() <= 8);
        }
        let least = Memory::new(1);
        least.remember(1, 1, end);
        least.remember(2, 2, end);
        assert_eq!((least.recall(&1), least.recall(&2)), (None, Some(2)));
    }
}
