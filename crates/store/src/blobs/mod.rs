//! Bytes by digest: files that are written once, under a name that their content proves, or objects of a bucket.

pub(crate) mod object;
pub(crate) mod place;
pub(crate) mod pool;
pub(crate) mod recent;
mod stream;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Algorithm, Digest, RepositoryName};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::bucket::read::Object;
use crate::bucket::{Fault, scratch};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::names::blobs;
use crate::partial::{self, Partial};
use crate::staging::Staging;

use object::Found;
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
    ///
    /// With a bucket this says what names say: that an object is gone shows when it is read.
    pub async fn open(&self, digest: &Digest) -> Result<Option<Blob>> {
        if let Some(bucket) = &self.core.bucket {
            let found = object::find(&self.core, bucket, digest).await?;
            return Ok(found.map(|found| match found {
                Found::Object(object) => {
                    Blob { size: Size::Known(object.size), source: Source::Object(object) }
                }
                Found::Manifest(bytes) => {
                    Blob { size: Size::Known(bytes.len() as u64), source: Source::Memory(bytes) }
                }
            }));
        }
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
        let known = self.core.database.read(move |names| blobs::size_of(names, &digest_there)).await;
        let known = match known {
            // The bytes are here all the same.
            Err(Error::Unavailable { .. }) => None,
            known => known?,
        };
        if known.is_some_and(|known| known != size) {
            tracing::error!(%digest, size, ?known, "the file of a blob has another size than it had; run fsck");
            return Ok(None);
        }
        self.core.recent.keep(*digest, (Arc::clone(&file), size));
        Ok(Some(Blob::new(&self.core, file, Size::Known(size))))
    }

    /// An address at which the bytes of `digest` can be read for `life` by whoever knows it, without credentials; `None` when
    /// they are not an object of a bucket. Asks no repository, and nobody else either.
    pub async fn address(&self, digest: &Digest, life: Duration) -> Result<Option<String>> {
        let Some(bucket) = &self.core.bucket else { return Ok(None) };
        match object::find(&self.core, bucket, digest).await? {
            Some(Found::Object(object)) => Ok(Some(bucket.presign(&object.place, life).await?)),
            _ => Ok(None),
        }
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
    source: Source,
    size: Size,
}

/// Where the bytes of an open blob are.
#[derive(Clone, Debug)]
enum Source {
    File { file: Arc<File>, pool: Arc<Pool>, runtime: Handle },
    Object(Object),
    Memory(Bytes),
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
        Self {
            source: Source::File { file, pool: Arc::clone(&core.pool), runtime: core.runtime.clone() },
            size,
        }
    }

    /// Its size in bytes; of one that is still being written ([`Staging::reader`]), how much of it can be read now.
    pub fn size(&self) -> u64 {
        match &self.size {
            Size::Known(size) => *size,
            Size::Growing(size) => *size.borrow(),
        }
    }

    /// Streams part of it. Of a file in chunks of up to 256 KiB, one read ahead of the consumer, through pooled buffers:
    /// pages that are in memory are read at once, others on a blocking thread. Of an object as the service sends it, with
    /// one request, and with further ones where an answer breaks off.
    ///
    /// A range that reaches behind [`Blob::size`] ends in [`io::ErrorKind::UnexpectedEof`].
    pub fn read(&self, range: ByteRange) -> BlobStream {
        match &self.source {
            Source::File { file, pool, runtime } => {
                BlobStream::file(Arc::clone(file), Arc::clone(pool), runtime.clone(), range)
            }
            Source::Object(object) => BlobStream::object(object.read(range)),
            Source::Memory(bytes) => BlobStream::memory(bytes, range),
        }
    }

    /// The same, but not before it is clear that the bytes can be had: waits until a service has begun to answer. Fails
    /// with [`Error::Unavailable`](crate::Error::Unavailable) when it does not.
    pub async fn begin(&self, range: ByteRange) -> Result<BlobStream> {
        match &self.source {
            Source::Object(object) => match object.open(range).await {
                Ok(stream) => Ok(BlobStream::object(stream)),
                Err(Fault::Gone) => Err(object::lost(&object.digest)),
                Err(fault) => Err(fault.into()),
            },
            _ => Ok(self.read(range)),
        }
    }

    /// A file with the bytes, for positioned, blocking reads (the delta engine on its worker thread). The cursor of the
    /// handle may be shared with others: seek and plain `read` have no meaning.
    ///
    /// An object is copied to the local disk for that, unless it was lately; fails with
    /// [`Error::NoSpace`](crate::Error::NoSpace) when it is larger than what such copies may take.
    pub async fn file(&self) -> Result<File> {
        match &self.source {
            Source::File { file, .. } => Ok(file.try_clone()?),
            Source::Object(object) => scratch::copy(object, &object.bucket.copies).await,
            Source::Memory(_) => Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        }
    }
}
