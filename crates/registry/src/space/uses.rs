//! When images were used, on its way to the database: a pull only notes it in memory, and what has been noted is written
//! together. What a crash loses is a minute of it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use deltaport_oci::{Digest, RepositoryName};

/// How many images may wait for their last use to be written down. One takes about 200 bytes. Those that come when it is
/// full are not noted: each of so many has been used within a minute.
pub(super) const MAX_USES: usize = 16_384;

/// The last use of images.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<Noted>);

type Noted = HashMap<(RepositoryName, Digest), SystemTime>;

impl Uses {
    /// Notes that a manifest was used now.
    pub(crate) fn note(&self, repository: &RepositoryName, digest: &Digest) {
        let mut noted = self.noted();
        let key = (repository.clone(), *digest);
        if noted.len() < MAX_USES || noted.contains_key(&key) {
            noted.insert(key, SystemTime::now());
        }
    }

    /// Takes what has been noted.
    pub(super) fn take(&self) -> Vec<(RepositoryName, Digest, SystemTime)> {
        let uses = std::mem::take(&mut *self.noted());
        uses.into_iter().map(|((repository, digest), at)| (repository, digest, at)).collect()
    }

    /// Nothing under this lock can stop half-way, so a poisoned one is as good as any.
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_image_has_its_last_use_and_there_are_never_too_many() {
        let (uses, app): (Uses, RepositoryName) = (Uses::default(), "app".parse().unwrap());
        let digest = |n: usize| Digest::sha256(&n.to_le_bytes());
        uses.note(&app, &digest(1));
        uses.note(&app, &digest(2));
        std::thread::sleep(Duration::from_millis(2));
        uses.note(&app, &digest(1));
        let mut taken = uses.take();
        taken.sort_by_key(|(.., at)| *at);
        assert_eq!(taken.iter().map(|(_, digest, _)| *digest).collect::<Vec<_>>(), [2, 1].map(digest));
        assert!(uses.take().is_empty());
        for n in 0..=MAX_USES {
            uses.note(&app, &digest(n));
        }
        let before = SystemTime::now();
        uses.note(&app, &digest(0));
        let taken = uses.take();
        assert_eq!(taken.len(), MAX_USES);
        assert!(taken.iter().any(|(_, found, at)| *found == digest(0) && *at >= before));
    }
}
