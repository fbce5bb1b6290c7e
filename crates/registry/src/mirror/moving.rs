//! What of a run is on its way right now, for who watches it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltaport_oci::Digest;
use serde::{Deserialize, Serialize};

use super::plan::Step;

/// A blob that is being fetched or sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Moving {
    /// The blob.
    pub digest: Digest,
    /// How many of its bytes are where they are to be; of one that comes as a delta, none before all.
    pub bytes: u64,
    /// How many it has.
    pub of: u64,
    /// Whether it goes on to the destination.
    #[serde(default)]
    pub sent: bool,
}

/// The blobs of a run that are on their way, or wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Blobs(Mutex<BTreeMap<(Digest, bool), Counted>>);

#[derive(Clone, Debug)]
struct Counted {
    of: u64,
    bytes: Arc<AtomicU64>,
}

/// A step that is being taken, until this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    blobs: &'a Blobs,
    key: Option<(Digest, bool)>,
    /// How many bytes of it have been sent.
    pub(super) sent: Arc<AtomicU64>,
}

impl Blobs {
    /// A step is taken from now on.
    pub(super) fn take(&self, step: &Step) -> Taken<'_> {
        let sent = Arc::<AtomicU64>::default();
        let moving = match step {
            Step::Blob { digest, size } => Some(((*digest, false), *size)),
            Step::SendBlob { digest, size } => Some(((*digest, true), *size)),
            _ => None,
        };
        if let Some((key, of)) = moving {
            self.lock().insert(key, Counted { of, bytes: Arc::clone(&sent) });
        }
        Taken { blobs: self, key: moving.map(|(key, _)| key), sent }
    }

    /// Those of which something has come or gone; `arrived` says how much of one has come.
    pub(super) fn list(&self, arrived: impl Fn(&Digest) -> u64) -> Vec<Moving> {
        let counted = self.lock().clone();
        let moving = counted.into_iter().map(|((digest, sent), Counted { of, bytes })| {
            let bytes = if sent { bytes.load(Ordering::Relaxed) } else { arrived(&digest) };
            Moving { digest, bytes: bytes.min(of), of, sent }
        });
        moving.filter(|moving| moving.bytes > 0).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Digest, bool), Counted>> {
        // Nothing under this lock can stop half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.blobs.lock().remove(key);
        }
    }
}
