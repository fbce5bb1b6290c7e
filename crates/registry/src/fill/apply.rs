//! The layer of a delta, made of it and of layers that are here.

use std::fs::File;
use std::io::{self, Write as _};

use deltaport_delta as delta;
use deltaport_oci::Digest;
use deltaport_store as store;
use tokio::sync::mpsc;

use super::blobs::Fill;
use super::delta::Fallback;
use crate::files;

/// How many threads apply a delta: one makes content while the other compresses it.
const APPLYING_THREADS: usize = 2;
/// How many chunks of the result may wait to be written.
const QUEUE: usize = 4;

impl Fill {
    /// Makes the layer of the delta, on a thread of its own.
    pub(super) async fn apply(
        &self,
        delta: store::Blob,
        offered: &[Digest],
        size: u64,
    ) -> Result<(), Fallback> {
        let delta = delta.file().await?;
        let header = blocking({
            let delta = delta.try_clone()?;
            move || Ok(delta::inspect(files::reader(delta))?)
        })
        .await?;
        if header.target.digest != self.digest || header.target.size != size {
            return Err(Fallback::Unasked);
        }
        let mut bases = Vec::with_capacity(header.bases.len());
        for base in &header.bases {
            bases.push(self.open_base(&base.blob.digest, offered).await?);
        }
        let store = self.registry.store();
        let mut staging = store.blobs().stage(self.digest.algorithm()).await?;
        let (sender, mut chunks) = mpsc::channel(QUEUE);
        let limits = delta::Limits {
            target_size: size,
            scratch: self.registry.options().delta.scratch,
            threads: APPLYING_THREADS,
        };
        let scratch = store.blobs().scratch();
        let made = tokio::task::spawn_blocking(move || {
            let mut bases: Vec<_> = bases.into_iter().map(files::reader).collect();
            let mut out = files::Chunks::new(sender);
            delta::apply(&mut bases, files::reader(delta), &mut out, scratch.file()?, &limits)?;
            Ok(out.flush()?)
        });
        let mut stored = Ok(());
        while let Some(chunk) = chunks.recv().await {
            stored = staging.write(chunk).await;
            if stored.is_err() {
                // Ends the thread at its next chunk.
                chunks.close();
                break;
            }
        }
        drop(chunks);
        let made = made.await.unwrap_or_else(|panic| Err(Fallback::Store(io::Error::other(panic).into())));
        stored?;
        made?;
        let reader = staging.reader()?;
        let size = store.commit(staging, &self.digest, &self.repository).await?;
        self.prove_other(reader, size).await;
        Ok(())
    }

    /// Opens a base. Only what was offered is one: a delta must not be able to ask for other repositories' bytes.
    async fn open_base(&self, digest: &Digest, offered: &[Digest]) -> Result<File, Fallback> {
        if !offered.contains(digest) {
            return Err(Fallback::Unasked);
        }
        let blob = self.registry.store().blobs().open(digest).await?.ok_or(Fallback::NoBase)?;
        Ok(blob.file().await?)
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fallback> + Send + 'static,
) -> Result<T, Fallback> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(Fallback::Store(io::Error::other(panic).into())))
}
