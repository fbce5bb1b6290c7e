//! How many connections to an upstream are likely to stand idle. The HTTP library keeps them and does not tell; this counts
//! along, and being wrong costs a small request or a round trip.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an idle connection is kept. Servers close them after 60 s or more, often 75 s; a request over a connection that
/// the other end is just closing has to be sent again.
pub(crate) const LIFE: Duration = Duration::from_secs(58);
/// How many are counted.
const MAX_COUNTED: usize = 64;

/// When connections became idle, the last one last.
#[derive(Debug, Default)]
pub(crate) struct Idle(Mutex<Vec<Instant>>);

impl Idle {
    /// A request takes the connection that became idle last, if there is one.
    pub(crate) fn take(&self) {
        self.current().pop();
    }

    /// A connection can take another request.
    pub(crate) fn leave(&self) {
        let mut idle = self.current();
        if idle.len() < MAX_COUNTED {
            idle.push(Instant::now());
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.current().len()
    }

    fn current(&self) -> MutexGuard<'_, Vec<Instant>> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|since| since.elapsed() < LIFE);
        idle
    }
}
