//! What the parts of an open store share.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deltaport_oci::Digest;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blobs::pool::Pool;
use crate::blobs::recent::Recent;
use crate::bucket::Bucket;
use crate::disk::Space;
use crate::error::{Error, Result};
use crate::faults::Faults;
use crate::layout::Layout;
use crate::names::database::Database;

/// The shared state of an open store.
pub(crate) struct Core {
    pub(crate) layout: Layout,
    pub(crate) faults: Faults,
    pub(crate) grace: Duration,
    pub(crate) upload_expiry: Duration,
    pub(crate) partial_expiry: Duration,
    pub(crate) space: Space,
    /// Where the bytes of blobs are, if not in the data directory.
    pub(crate) bucket: Option<Arc<Bucket>>,
    pub(crate) database: Database,
    pub(crate) locks: DigestLocks,
    pub(crate) pool: Arc<Pool>,
    pub(crate) recent: Recent,
    /// Identifiers of the uploads and keys of the partials that somebody works on right now.
    pub(crate) busy: Mutex<HashSet<String>>,
    /// Held by the one collector that runs.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// Cancelled when the store closes: what goes on until it is told to end, ends then.
    pub(crate) closing: CancellationToken,
    /// Work that goes on when whoever asked for it has gone away.
    pub(crate) tasks: TaskTracker,
    pub(crate) runtime: Handle,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.layout.root()).finish_non_exhaustive()
    }
}

impl Core {
    /// Runs `work` to its end even if the caller goes away, so that no step that belongs to another is left undone.
    pub(crate) async fn to_the_end<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.tasks.spawn_on(work, &self.runtime).await?
    }

    /// Asks the disk whether anything may be written; fails with [`Error::NoSpace`] when not. Local copies of objects go
    /// first. Looks at the disk, which takes less time than going to another thread; removing copies blocks.
    pub(crate) fn check_space(&self) -> Result<()> {
        self.make_space(|| self.space.check())
    }

    /// Allows `bytes` to be written to the disk, likewise.
    pub(crate) fn take_space(&self, bytes: u64) -> Result<()> {
        self.make_space(|| self.space.take(bytes))
    }

    fn make_space(&self, ask: impl Fn() -> Result<()>) -> Result<()> {
        match (ask(), &self.bucket) {
            (Err(Error::NoSpace), Some(bucket)) if bucket.copies.clear(&self.layout)? => ask(),
            (asked, _) => asked,
        }
    }

    /// Runs `work` on a thread that may block.
    pub(crate) async fn blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        self.tasks.spawn_blocking_on(work, &self.runtime).await?
    }
}

/// How many locks digests are spread over.
const LOCKS: usize = 256;

/// Keeps the putting of a blob's file in its place, with the row that says so, apart from its removal. Two digests may
/// share a lock, so nobody takes a second one while holding one, except in the order of [`DigestLocks::all`].
pub(crate) struct DigestLocks {
    locks: Vec<Arc<tokio::sync::Mutex<()>>>,
    hasher: RandomState,
}

impl DigestLocks {
    pub(crate) fn new() -> Self {
        Self { locks: (0..LOCKS).map(|_| Arc::default()).collect(), hasher: RandomState::new() }
    }

    /// Locks one digest.
    pub(crate) async fn one(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        Arc::clone(&self.locks[self.index(digest)]).lock_owned().await
    }

    /// Locks several digests, in an order that is the same for everybody.
    pub(crate) async fn all(&self, digests: impl Iterator<Item = &Digest>) -> Vec<OwnedMutexGuard<()>> {
        let mut indices: Vec<usize> = digests.map(|digest| self.index(digest)).collect();
        indices.sort_unstable();
        indices.dedup();
        let mut guards = Vec::with_capacity(indices.len());
        for index in indices {
            guards.push(Arc::clone(&self.locks[index]).lock_owned().await);
        }
        guards
    }

    fn index(&self, digest: &Digest) -> usize {
        (self.hasher.hash_one(digest) % LOCKS as u64) as usize
    }
}
