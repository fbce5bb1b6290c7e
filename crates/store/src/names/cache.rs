//! Bounded memory of names that were asked for recently. What is in it is true as of the last commit of this process;
//! where others change names, too, it is asked whether it still is.
//!
//! A reader that began before a commit must not put what it read into the cache after it. So a reader takes a ticket
//! before it reads; every commit invalidates the tickets of the keys that it changed before it drops the entries; and
//! an entry is only taken with a ticket that is still valid.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltaport_oci::{Digest, Reference, RepositoryName};
use lru::LruCache;

use super::Manifest;

/// How many memberships of blobs are remembered; about 200 bytes each.
const BLOBS: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("not zero");
/// How many counters the keys are spread over. Two keys on one counter cost a missed insertion, nothing else.
const COUNTERS: usize = 1024;
/// What an entry costs besides the bytes of its manifest.
const OVERHEAD: usize = 512;

type ManifestKey = (RepositoryName, Reference);
type BlobKey = (RepositoryName, Digest);

/// A key whose value a committed change may have altered.
#[derive(Clone, Debug)]
pub(crate) enum Stale {
    Manifest(RepositoryName, Reference),
    Blob(RepositoryName, Digest),
}

/// The right to remember what is read from now on, until a commit changes it.
#[derive(Debug)]
pub(crate) struct Ticket {
    counter: usize,
    value: u64,
}

pub(crate) struct Cache {
    manifests: Mutex<Manifests>,
    blobs: Mutex<LruCache<BlobKey, u64>>,
    counters: Box<[AtomicU64]>,
    hasher: RandomState,
}

struct Manifests {
    entries: LruCache<ManifestKey, Arc<Manifest>>,
    /// What the entries cost together, at most `limit`, in bytes.
    cost: usize,
    limit: usize,
}

impl Manifests {
    fn remove(&mut self, key: &ManifestKey) {
        if let Some(old) = self.entries.pop(key) {
            self.cost -= old.bytes.len() + OVERHEAD;
        }
    }
}

impl Cache {
    /// A cache whose manifests take at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            manifests: Mutex::new(Manifests { entries: LruCache::unbounded(), cost: 0, limit }),
            blobs: Mutex::new(LruCache::new(BLOBS)),
            counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn manifest(&self, key: &ManifestKey) -> Option<Arc<Manifest>> {
        locked(&self.manifests).entries.get(key).map(Arc::clone)
    }

    pub(crate) fn blob(&self, key: &BlobKey) -> Option<u64> {
        locked(&self.blobs).get(key).copied()
    }

    /// To be taken before the database is read.
    pub(crate) fn ticket(&self, key: &impl Hash) -> Ticket {
        let counter = self.counter(key);
        Ticket { counter, value: self.counters[counter].load(Ordering::SeqCst) }
    }

    pub(crate) fn remember_manifest(&self, key: ManifestKey, manifest: &Arc<Manifest>, ticket: &Ticket) {
        let mut manifests = locked(&self.manifests);
        let cost = manifest.bytes.len() + OVERHEAD;
        // Checked under the lock that `invalidate` takes after it has counted up.
        if self.expired(ticket) || cost > manifests.limit {
            return;
        }
        manifests.cost += cost;
        if let Some((_, old)) = manifests.entries.push(key, Arc::clone(manifest)) {
            manifests.cost -= old.bytes.len() + OVERHEAD;
        }
        while manifests.cost > manifests.limit {
            let Some((_, old)) = manifests.entries.pop_lru() else { break };
            manifests.cost -= old.bytes.len() + OVERHEAD;
        }
    }

    pub(crate) fn remember_blob(&self, key: BlobKey, size: u64, ticket: &Ticket) {
        let mut blobs = locked(&self.blobs);
        if !self.expired(ticket) {
            blobs.put(key, size);
        }
    }

    /// Forgets what somebody else has removed.
    pub(crate) fn forget_manifest(&self, key: &ManifestKey) {
        locked(&self.manifests).remove(key);
    }

    /// The same for a blob.
    pub(crate) fn forget_blob(&self, key: &BlobKey) {
        locked(&self.blobs).pop(key);
    }

    /// Forgets what a commit has changed. Called after the commit and before anybody is told of it.
    pub(crate) fn invalidate(&self, stale: &[Stale]) {
        for key in stale {
            match key {
                Stale::Manifest(repository, reference) => {
                    let key = (repository.clone(), reference.clone());
                    self.counters[self.counter(&key)].fetch_add(1, Ordering::SeqCst);
                    locked(&self.manifests).remove(&key);
                }
                Stale::Blob(repository, digest) => {
                    let key = (repository.clone(), *digest);
                    self.counters[self.counter(&key)].fetch_add(1, Ordering::SeqCst);
                    locked(&self.blobs).pop(&key);
                }
            }
        }
    }

    fn counter(&self, key: &impl Hash) -> usize {
        (self.hasher.hash_one(key) % COUNTERS as u64) as usize
    }

    fn expired(&self, ticket: &Ticket) -> bool {
        self.counters[ticket.counter].load(Ordering::SeqCst) != ticket.value
    }
}

/// Nothing under these locks can panic half-way, so a poisoned one is as good as any.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn manifest(bytes: usize) -> Arc<Manifest> {
        let bytes = Bytes::from(vec![b'x'; bytes]);
        Arc::new(Manifest { digest: Digest::sha256(&bytes), media_type: "m".into(), bytes })
    }

    fn key(tag: &str) -> ManifestKey {
        ("a".parse().unwrap(), Reference::Tag(tag.parse().unwrap()))
    }

    #[test]
    fn a_reader_that_began_before_a_commit_remembers_nothing_after_it() {
        let cache = Cache::new(1 << 20);
        let ticket = cache.ticket(&key("v1"));
        cache.invalidate(&[Stale::Manifest(key("v1").0, key("v1").1)]);
        cache.remember_manifest(key("v1"), &manifest(1), &ticket);
        assert!(cache.manifest(&key("v1")).is_none());

        let ticket = cache.ticket(&key("v1"));
        cache.remember_manifest(key("v1"), &manifest(1), &ticket);
        assert!(cache.manifest(&key("v1")).is_some());
        cache.invalidate(&[Stale::Manifest(key("v1").0, key("v1").1)]);
        assert!(cache.manifest(&key("v1")).is_none());
    }

    #[test]
    fn manifests_stay_within_their_bytes() {
        let cache = Cache::new(10_000);
        for n in 0..100 {
            let key = key(&format!("v{n}"));
            cache.remember_manifest(key.clone(), &manifest(1000), &cache.ticket(&key));
            // The same key again must not be counted twice.
            cache.remember_manifest(key.clone(), &manifest(1000), &cache.ticket(&key));
        }
        let manifests = locked(&cache.manifests);
        let sum: usize = manifests.entries.iter().map(|(_, m)| m.bytes.len() + OVERHEAD).sum();
        assert_eq!(manifests.cost, sum);
        assert!(sum <= 10_000 && manifests.entries.len() == 6, "{sum}");
        drop(manifests);
        cache.remember_manifest(key("big"), &manifest(20_000), &cache.ticket(&key("big")));
        assert!(cache.manifest(&key("big")).is_none());
        assert!(cache.manifest(&key("v99")).is_some());
    }
}
