//! Bytes on their way in, before their digest is proven.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use deltaport_oci::{Algorithm, Digest, Hasher, RepositoryName};
use tokio::sync::watch;

use crate::blobs::place::{self, Source};
use crate::blobs::{Blob, Size};
use crate::core::Core;
use crate::disk;
use crate::error::Result;
use crate::faults;
use crate::inflow::Inflow;
use crate::names::{self, Tx};

/// Bytes on their way in: written and hashed on a blocking thread behind a bounded queue of 4 MiB.
#[derive(Debug)]
pub struct Staging {
    inflow: Inflow,
    scrap: Scrap,
}

impl Staging {
    pub(crate) async fn begin(core: &Arc<Core>, algorithm: Algorithm) -> Result<Self> {
        let making = Arc::clone(core);
        core.blocking(move || {
            making.check_space()?;
            making.faults.at(faults::STAGE_CREATE)?;
            let path = making.layout.staged(&disk::random_name()?);
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            let scrap = Scrap { core: Arc::clone(&making), path };
            Ok(Self { inflow: Inflow::new(&making, file, 0, Hasher::new(algorithm)), scrap })
        })
        .await
    }

    /// Queues the next bytes; waits while the queue is full; fails with what an earlier write failed with. When the
    /// future is dropped, either none of up to 4 MiB of bytes are queued or all are.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.inflow.push(bytes).await
    }

    /// How many bytes are in the file and readable through [`Staging::reader`], watched by those who read along.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.inflow.progress()
    }

    /// A handle on the growing bytes, for those who read along; it stays readable after commit.
    pub fn reader(&self) -> Result<Blob> {
        let size = Size::Growing(self.inflow.progress());
        Ok(Blob::new(&self.scrap.core, Arc::clone(self.inflow.file()), size))
    }

    /// See [`Store::commit`](crate::Store::commit).
    pub(crate) async fn commit(self, digest: Digest, repository: RepositoryName) -> Result<u64> {
        self.settle(digest, move |tx| names::blobs::link(tx, &repository, &digest)).await
    }

    /// The same without a repository that holds the blob; the collector will look at it.
    pub(crate) async fn keep(self, digest: Digest) -> Result<u64> {
        self.settle(digest, move |tx| names::review::queue_bytes(tx.connection, &digest, tx.now)).await
    }

    /// Proves the bytes and puts them in their place, with what `change` says of them.
    async fn settle<F>(self, digest: Digest, change: F) -> Result<u64>
    where
        F: Fn(&mut Tx<'_>) -> Result<()> + Send + Sync + 'static,
    {
        let core = Arc::clone(&self.scrap.core);
        let settling = Arc::clone(&core);
        core.to_the_end(async move {
            let (size, hasher) = self.inflow.drain().await?;
            let core = settling;
            let path = self.scrap.path.clone();
            let (proving, file, source) = (Arc::clone(&core), Arc::clone(self.inflow.file()), path.clone());
            core.blocking(move || place::prove(&proving, &file, &path, hasher, &digest)).await?;
            place::settle(&core, digest, size, Source::File(source), change).await?;
            // What the drop of `self` would remove is either moved or not needed.
            drop(self);
            Ok(size)
        })
        .await
    }
}

/// A file that is removed when this is dropped, in the background; it does no harm that it has been moved away.
#[derive(Debug)]
struct Scrap {
    core: Arc<Core>,
    path: PathBuf,
}

impl Drop for Scrap {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        // What is not removed now, because the process ends, is removed when the store opens.
        self.core.tasks.spawn_blocking_on(move || disk::remove_if_there(&path), &self.core.runtime);
    }
}
