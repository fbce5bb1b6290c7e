//! The line for the password checks, which is short: who asks too much is told so, and the others get their turn.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// How many checks may be waiting or running, for each that may run at once.
const LENGTH_PER_CHECK: usize = 8;
/// How many of them may be for one address.
const LENGTH_PER_PEER: usize = 4;

/// What stands for a user and a password in memory.
pub(crate) type Mark = [u8; 32];

/// What a check finds: the user, if the password is theirs.
pub(crate) type Verdict = Option<Arc<str>>;

/// Those whose passwords are to be checked. Requests with the same password share a place and its verdict: clients
/// send several at once, and may do so without being refused.
#[derive(Debug)]
pub(crate) struct Line {
    length: usize,
    places: Mutex<HashMap<Mark, Shared>>,
}

#[derive(Debug)]
struct Shared {
    verdict: Arc<OnceCell<Verdict>>,
    /// Who asked first.
    peer: IpAddr,
    /// How many requests share it.
    holders: usize,
}

/// A place in the line, while this lives.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    line: &'a Line,
    mark: Mark,
    pub(crate) verdict: Arc<OnceCell<Verdict>>,
}

/// The line is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Line {
    /// The line for `checks` at once.
    pub(crate) fn new(checks: usize) -> Self {
        Self { length: checks.saturating_mul(LENGTH_PER_CHECK), places: Mutex::default() }
    }

    /// Gets in line on behalf of `peer`.
    pub(crate) fn join(&self, mark: Mark, peer: IpAddr) -> Result<Place<'_>, Full> {
        let mut places = self.places();
        let length = places.len();
        let of_peer = places.values().filter(|place| place.peer == peer).count();
        let verdict = match places.entry(mark) {
            Entry::Occupied(mut shared) => {
                shared.get_mut().holders += 1;
                Arc::clone(&shared.get().verdict)
            }
            Entry::Vacant(_) if length >= self.length || of_peer >= LENGTH_PER_PEER => return Err(Full),
            Entry::Vacant(free) => {
                Arc::clone(&free.insert(Shared { verdict: Arc::default(), peer, holders: 1 }).verdict)
            }
        };
        Ok(Place { line: self, mark, verdict })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Mark, Shared>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.line.places();
        let Entry::Occupied(mut shared) = places.entry(self.mark) else { return };
        // After a verdict the first to leave takes the place along, and others may have made a new one since.
        if !Arc::ptr_eq(&shared.get().verdict, &self.verdict) {
            return;
        }
        shared.get_mut().holders -= 1;
        if shared.get().holders == 0 || self.verdict.initialized() {
            shared.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn the_line_is_short_and_shorter_for_each_peer() {
        let line = Line::new(1);
        let mut places: Vec<_> = (0..4).map(|n| line.join([n; 32], peer(1)).expect("a place")).collect();
        assert_eq!(line.join([4; 32], peer(1)).err(), Some(Full), "the peer has its share");
        places.extend((4..8).map(|n| line.join([n; 32], peer(2)).expect("a place")));
        assert_eq!(line.join([8; 32], peer(3)).err(), Some(Full), "the line is at its end");
        let shared = line.join([0; 32], peer(3)).expect("the same password needs no other place");
        places.remove(0);
        assert_eq!(line.join([8; 32], peer(3)).err(), Some(Full), "the place is still held");
        drop(shared);
        assert!(line.join([8; 32], peer(1)).is_ok());
        drop(places);
        assert!(line.places().is_empty());
    }

    #[test]
    fn a_verdict_is_for_those_who_waited_for_it() {
        let line = Line::new(1);
        let (one, two) =
            (line.join([0; 32], peer(1)).expect("a place"), line.join([0; 32], peer(2)).expect("one"));
        one.verdict.set(None).expect("the first verdict");
        drop(one);
        let late = line.join([0; 32], peer(1)).expect("a place");
        assert!(two.verdict.initialized() && !late.verdict.initialized());
        drop(two);
        assert_eq!(line.places().len(), 1, "the place of the later one");
        drop(late);
        assert!(line.places().is_empty());
    }
}
