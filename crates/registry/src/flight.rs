//! Work that is done once however many ask for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is working on what. `V` is what those who join get; usually a way to follow the work.
#[derive(Debug)]
pub(crate) struct SingleFlight<K, V> {
    running: Arc<Mutex<HashMap<K, V>>>,
    limit: usize,
}

/// How somebody takes part in a piece of work.
#[derive(Debug)]
pub(crate) enum Flight<K: Eq + Hash, V> {
    /// Somebody else does it.
    Joined(V),
    /// It is this caller's to do, until the guard is dropped.
    Started(V, Guard<K, V>),
    /// Too much is being done already.
    Full,
}

/// The duty to do a piece of work. Dropping it lets the next who asks start anew, so it goes only when the result can
/// be found by other means.
#[derive(Debug)]
pub(crate) struct Guard<K: Eq + Hash, V> {
    running: Arc<Mutex<HashMap<K, V>>>,
    key: K,
}

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// At most `limit` pieces of work at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self { running: Arc::default(), limit }
    }

    /// Whether somebody works on `key`.
    pub(crate) fn is_running(&self, key: &K) -> bool {
        lock(&self.running).contains_key(key)
    }

    /// What those get who join the work on `key`, if somebody does it.
    pub(crate) fn look(&self, key: &K) -> Option<V> {
        lock(&self.running).get(key).cloned()
    }

    /// Joins the work on `key`, or starts it with what `start` makes.
    pub(crate) fn join(&self, key: K, start: impl FnOnce() -> V) -> Flight<K, V> {
        let mut running = lock(&self.running);
        if let Some(value) = running.get(&key) {
            return Flight::Joined(value.clone());
        }
        if running.len() >= self.limit {
            return Flight::Full;
        }
        let value = start();
        running.insert(key.clone(), value.clone());
        Flight::Started(value, Guard { running: Arc::clone(&self.running), key })
    }
}

impl<K: Eq + Hash, V> Drop for Guard<K, V> {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}

/// Nothing under this lock can stop half-way, so a poisoned one is as good as any.
fn lock<K, V>(running: &Mutex<HashMap<K, V>>) -> MutexGuard<'_, HashMap<K, V>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_starts_others_join_and_afterwards_it_begins_anew() {
        let flights = SingleFlight::new(2);
        let Flight::Started(1, guard) = flights.join("a", || 1) else { panic!("nobody works on it") };
        assert!(matches!(flights.join("a", || 2), Flight::Joined(1)));
        assert!(flights.is_running(&"a") && !flights.is_running(&"b"));
        let Flight::Started(3, _other) = flights.join("b", || 3) else { panic!("another key is other work") };
        assert!(matches!(flights.join("c", || 4), Flight::Full));
        assert!(matches!(flights.join("a", || 4), Flight::Joined(1)), "joining costs nothing");
        drop(guard);
        assert!(matches!(flights.join("a", || 5), Flight::Started(5, _)));
    }
}
