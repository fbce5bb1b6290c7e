//! How much room what comes from upstreams may take, and what goes when it is too much.
//!
//! The least recently used images of mirrored repositories go, each whole ([`Registry::evict`]): their tags and manifests,
//! then their bytes with the next run of the collector. What was pushed, is pinned, is being fetched, or cannot be
//! fetched again stays. Who asks again for what is gone is sent what is fetched again.

mod collect;
mod evict;
mod pin;
mod uses;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use deltaport_oci::{Digest, RepositoryName};
use tokio::sync::{Mutex, Notify};

use crate::Registry;
use crate::memory::Memory;
use uses::Uses;

pub use collect::TakenBack;
pub use evict::Evicted;
pub use pin::{Pin, PinError};

/// How many images it is remembered of that they cannot be fetched again. One takes about 200 bytes.
const MAX_KEPT: usize = 16_384;

/// What is known about the room that is taken.
#[derive(Debug)]
pub(crate) struct Room {
    uses: Uses,
    /// Images that the upstream did not have (any more) when it was asked.
    kept: Memory<(RepositoryName, Digest), ()>,
    /// How many bytes are cached: those of the last look, and those that have arrived since.
    cached: AtomicU64,
    /// Told when that has become too many.
    exceeded: Notify,
    /// Held by the one run that evicts.
    evicting: Mutex<()>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            uses: Uses::default(),
            kept: Memory::new(MAX_KEPT),
            cached: AtomicU64::new(0),
            exceeded: Notify::new(),
            evicting: Mutex::new(()),
        }
    }
}

impl Room {
    /// Returns when more is cached than should be.
    async fn is_exceeded(&self) {
        self.exceeded.notified().await;
    }

    /// Whether the upstream did not have an image when it was asked, not long ago.
    fn is_kept(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.kept.recall(&(repository.clone(), *digest)).is_some()
    }

    fn keep(&self, repository: &RepositoryName, digest: &Digest) {
        self.kept.remember((repository.clone(), *digest), (), Instant::now() + evict::KEEP);
    }
}

impl Registry {
    /// Notes that a client was given a manifest, if it is an upstream's. Writes nothing yet.
    pub(crate) fn note_use(&self, repository: &RepositoryName, digest: &Digest) {
        if self.0.upstreams.mirrored(repository).is_some() {
            self.0.room.uses.note(repository, digest);
        }
    }

    /// Notes that a blob of `bytes` bytes has arrived.
    pub(crate) fn note_arrived(&self, bytes: u64) {
        let room = &self.0.room;
        let cached = room.cached.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if self.options().space.cached.is_some_and(|cap| cached > cap) {
            room.exceeded.notify_one();
        }
    }

    /// Writes down when images were used, as far as it has been noted.
    async fn write_uses(&self) {
        let uses = self.0.room.uses.take();
        if uses.is_empty() {
            return;
        }
        if let Err(error) = self.store().names().note_uses(uses).await {
            tracing::warn!(%error, "it is not written down when images were used");
        }
    }
}
