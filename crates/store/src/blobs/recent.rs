//! Files of blobs that were opened lately and stay open: a layer that many clients pull at once is asked for again and
//! again, and opening it costs a visit to a blocking thread.

use std::fmt;
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltaport_oci::Digest;
use lru::LruCache;

/// How many files stay open. Each holds a descriptor, and the room of a blob that was collected meanwhile.
const OPEN: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not zero");

/// An open file and its size in bytes.
type Opened = (Arc<File>, u64);

/// The files that stay open.
///
/// A file is never rewritten, so one that is still open reads right even if its name is gone. It is dropped from here
/// when it is removed, to give its room back, and when it was found to be damaged.
pub(crate) struct Recent(Mutex<LruCache<Digest, Opened>>);

impl Recent {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(OPEN)))
    }

    pub(crate) fn find(&self, digest: &Digest) -> Option<Opened> {
        self.files().get(digest).cloned()
    }

    pub(crate) fn keep(&self, digest: Digest, opened: Opened) {
        self.files().put(digest, opened);
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        self.files().pop(digest);
    }

    fn files(&self) -> MutexGuard<'_, LruCache<Digest, Opened>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").field("open", &self.files().len()).finish()
    }
}
