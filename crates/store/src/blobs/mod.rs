//! Bytes by digest: files that are written once, under a name that their content proves.

pub(crate) mod place;
pub(crate) mod pool;
pub(crate) mod recent;
mod stream;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Algorithm, Digest, RepositoryName};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::core::Core;
use crate::error::Result;
use crate::names::blobs;
use crate::partial::{self, Partial};
use crate::staging::Staging;

pub(crate) use place::put_manifest;
use pool::Pool;
pub use stream::BlobStream;

/// Bytes by digest.
#[derive(Clone, Debug)]
pub struct Blobs {
    core: Arc<Core>,
}

impl Blobs {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Opens the bytes of `digest`; `None` when they are not here, or not all of them any more. Asks no repository: callers
    /// check the link first.
    pub async fn open(&self, digest: &Digest) -> Result<Option<Blob>> {
        if let Some((file, size)) = self.core.recent.find(digest) {
            return Ok(Some(Blob::new(&self.core, file, Size::Known(size))));
        }
        let path = self.core.layout.blob(digest);
        let opened = self
            .core
            .blocking(move || match File::open(&path) {
                Ok(file) => Ok(Some((file.metadata()?.len(), Arc::new(file)))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            })
            .await?;
        let Some((size, file)) = opened else { return Ok(None) };
        let digest_there = *digest;
        let known = self.core.database.read(move |names| blobs::size_of(names, &digest_there)).await?;
        if known.is_some_and(|known| known != size) {
            tracing::error!(%digest, size, ?known, "the file of a blob has another size than it had; run fsck");
            return Ok(None);
        }
        self.core.recent.keep(*digest, (Arc::clone(&file), size));
        Ok(Some(Blob::new(&self.core, file, Size::Known(size))))
    }

    /// A new place for bytes whose digest is not yet proven; gone when dropped before [`Store::commit`].
    ///
    /// [`Store::commit`]: crate::Store::commit
    pub async fn stage(&self, algorithm: Algorithm) -> Result<Staging> {
        Staging::begin(&self.core, algorithm).await
    }

    /// A place for the bytes of `digest` that arrive for `repository`, with what has been kept of an earlier attempt. By
    /// repository too, since what one upstream has sent must not be gone on with for another.
    ///
    /// Fails with [`Error::Busy`](crate::Error::Busy) while somebody has it.
    pub async fn partial(&self, repository: &RepositoryName, digest: &Digest) -> Result<Partial> {
        Partial::open(&self.core, repository, digest).await
    }

    /// Removes what [`Blobs::partial`] has kept, which is of no use when the blob has come another way. It does no harm
    /// that there is nothing, or that somebody works on it.
    pub async fn forget_partial(&self, repository: &RepositoryName, digest: &Digest) -> Result<()> {
        partial::forget(&self.core, repository, digest).await
    }

    /// Whether something is kept of a transfer for `repository` that nobody works on now. Where very much is kept for
    /// whomever, it counts as if there were.
    pub async fn keeps_partials(&self, repository: &RepositoryName) -> Result<bool> {
        partial::is_kept(&self.core, repository).await
    }

    /// A source of scratch files beside the staged bytes. They have no names, and are gone when they are closed.
    pub fn scratch(&self) -> Scratch {
        Scratch { directory: self.core.layout.staging() }
    }
}

/// Makes scratch files, where it may block.
#[derive(Clone, Debug)]
pub struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    /// An empty file for reading and writing.
    pub fn file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.directory)
    }
}

/// An open blob; cheap to clone, usable while the blob is collected.
#[derive(Clone, Debug)]
pub struct Blob {
    file: Arc<File>,
    size: Size,
    pool: Arc<Pool>,
    runtime: Handle,
}

/// How large an open blob is.
#[derive(Clone, Debug)]
pub(crate) enum Size {
    Known(u64),
    /// It is still being written; so much of it is there.
    Growing(watch::Receiver<u64>),
}

impl Blob {
    pub(crate) fn new(core: &Core, file: Arc<File>, size: Size) -> Self {
        Self { file, size, pool: Arc::clone(&core.pool), runtime: core.runtime.clone() }
    }

    /// Its size in bytes; of one that is still being written ([`Staging::reader`]), how much of it can be read now.
    pub fn size(&self) -> u64 {
        match &self.size {
            Size::Known(size) => *size,
            Size::Growing(size) => *size.borrow(),
        }
    }

    /// Streams part of it in chunks of up to 256 KiB, one read ahead of the consumer, through pooled buffers. Pages
    /// that are in memory are read at once, others on a blocking thread.
    ///
    /// A range that reaches behind [`Blob::size`] ends in [`io::ErrorKind::UnexpectedEof`].
    pub fn read(&self, range: ByteRange) -> BlobStream {
        BlobStream::new(Arc::clone(&self.file), Arc::clone(&self.pool), self.runtime.clone(), range)
    }

    /// The file itself for positioned, blocking reads (the delta engine on its worker thread). The cursor of the handle
    /// is shared with every other: seek and plain `read` have no meaning.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}
