//! Questions for deltas that are about to be asked.
//!
//! When a manifest has come, one connection is free, the one that it came over; every other takes a round trip or more to
//! make. What decides how soon an image is here are its layers, so the other blobs of the repository wait until the
//! questions for deltas are out, which takes as long as looking a few things up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltaport_oci::RepositoryName;
use tokio::sync::Notify;
use tokio::time::timeout;

/// The longest that a blob waits for questions.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// The questions that are about to be asked; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Questions(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How many there are for each repository.
    intended: Mutex<HashMap<RepositoryName, usize>>,
    fewer: Notify,
}

/// Somebody may be about to ask, until this is dropped.
#[derive(Debug)]
pub(super) struct Intention {
    questions: Questions,
    repository: RepositoryName,
}

impl Questions {
    pub(super) fn intend(&self, repository: &RepositoryName) -> Intention {
        *self.lock().entry(repository.clone()).or_default() += 1;
        Intention { questions: self.clone(), repository: repository.clone() }
    }

    /// Waits until nobody is about to ask, or for [`LONGEST_WAIT`].
    pub(super) async fn go_first(&self, repository: &RepositoryName) {
        let none_left = async {
            loop {
                let fewer = self.0.fewer.notified();
                tokio::pin!(fewer);
                fewer.as_mut().enable();
                if !self.lock().contains_key(repository) {
                    return;
                }
                fewer.await;
            }
        };
        // Late is no worse than together.
        let _ = timeout(LONGEST_WAIT, none_left).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RepositoryName, usize>> {
        // Nothing under this lock can stop half-way.
        self.0.intended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Intention {
    fn drop(&mut self) {
        let mut intended = self.questions.lock();
        if let Some(count) = intended.get_mut(&self.repository) {
            *count -= 1;
            if *count == 0 {
                intended.remove(&self.repository);
            }
        }
        drop(intended);
        self.questions.0.fewer.notify_waiters();
    }
}
