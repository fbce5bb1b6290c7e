//! Uploads: blobs on their way in, whole or in chunks.
//!
//! Only one in chunks has an identifier and outlives its requests. One that comes whole is gone when it breaks off: its
//! sender has nothing by which to go on with it.

use bytes::Bytes;
use deltaport_oci::wire::ContentRange;
use deltaport_oci::{Algorithm, Digest, RepositoryName};
use deltaport_store as store;
use deltaport_trust::Caller;

use crate::{Error, Registry, Result};

impl Registry {
    /// Begins an upload and returns its identifier. Only the same caller can go on with it.
    ///
    /// `algorithm` says of which kind the digest at the end will be, if the caller knows.
    pub async fn begin_upload(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        algorithm: Option<Algorithm>,
    ) -> Result<String> {
        self.check_own(repository)?;
        let limit = self.options().limits.uploads_per_caller;
        let begun = self.store().uploads().begin(repository, &owner(caller), algorithm, limit).await;
        let id = begun.map_err(|error| match error {
            store::Error::TooManyUploads => Error::TooManyUploads { limit },
            other => other.into(),
        })?;
        self.metrics().uploads_begun.inc();
        Ok(id)
    }

    /// How many bytes of an upload are safe.
    pub async fn upload_offset(&self, caller: &Caller, repository: &RepositoryName, id: &str) -> Result<u64> {
        self.store().uploads().offset(repository, id, &owner(caller)).await.map_err(upload_error)
    }

    /// Opens an upload to append to it. `range` is what the caller says the bytes are; without it they are whatever
    /// comes next. `length` is how many will come, when that is known.
    ///
    /// Fails with [`Error::OutOfOrder`] when the range does not begin where the upload ends, with [`Error::Size`] when
    /// range and length contradict each other, and with [`Error::BlobTooLarge`].
    pub async fn append(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
        range: Option<ContentRange>,
        length: Option<u64>,
    ) -> Result<Upload> {
        let expected = range.map(|range| range.last - range.first + 1);
        let uploads = self.store().uploads();
        let offset = uploads.offset(repository, id, &owner(caller)).await.map_err(upload_error)?;
        if let Some(range) = range.filter(|range| range.first != offset) {
            tracing::debug!(%repository, first = range.first, offset, "a chunk came out of order");
            return Err(Error::OutOfOrder { offset });
        }
        if let (Some(expected), Some(actual)) = (expected, length)
            && expected != actual
        {
            return Err(Error::Size { expected, actual });
        }
        let size = SizeCheck::new(self.options().limits.blob_bytes, offset, expected.or(length))?;
        let appender =
            uploads.append(repository, id, &owner(caller), Some(offset)).await.map_err(upload_error)?;
        Ok(Upload { registry: self.clone(), appender, size })
    }

    /// Opens a way in for a blob that comes whole, in one request, with as many bytes as `length` if that is known.
    ///
    /// Fails with [`Error::BlobTooLarge`].
    pub async fn receive(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        length: Option<u64>,
    ) -> Result<Incoming> {
        self.check_own(repository)?;
        let size = SizeCheck::new(self.options().limits.blob_bytes, 0, length)?;
        let staging = self.store().blobs().stage(digest.algorithm()).await?;
        self.metrics().uploads_begun.inc();
        Ok(Incoming {
            registry: self.clone(),
            staging,
            repository: repository.clone(),
            digest: *digest,
            size,
        })
    }

    /// Ends an upload: its bytes become the blob `digest` of the repository, or are gone if they are not that.
    pub async fn finish_upload(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        id: &str,
        digest: &Digest,
    ) -> Result<()> {
        let finished = self.store().uploads().finish(repository, id, &owner(caller), digest).await;
        finished.map_err(upload_error)?;
        self.metrics().uploads_finished.inc();
        Ok(())
    }

    /// Ends an upload and drops its bytes.
    pub async fn cancel_upload(&self, caller: &Caller, repository: &RepositoryName, id: &str) -> Result<()> {
        self.store().uploads().cancel(repository, id, &owner(caller)).await.map_err(upload_error)
    }
}

/// An upload that is being written to. When it is dropped instead of finished, what arrived is kept, so that the
/// caller can go on there.
pub struct Upload {
    registry: Registry,
    appender: store::Appender,
    size: SizeCheck,
}

impl Upload {
    /// Takes the next bytes; waits while earlier ones are on their way to the disk.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.size.add(bytes.len())?;
        Ok(self.appender.write(bytes).await?)
    }

    /// Makes what was written durable and returns how many bytes the upload has.
    pub async fn finish(self) -> Result<u64> {
        let offset = self.appender.finish().await?;
        self.registry.metrics().upload_bytes.inc_by(self.size.written);
        self.size.finish()?;
        Ok(offset)
    }

    /// Makes everything that the upload has the blob `digest` of the repository and ends the upload: what
    /// [`Upload::finish`] and then [`Registry::finish_upload`] do, with one wait for the disk instead of two.
    pub async fn commit(self, repository: &RepositoryName, digest: &Digest) -> Result<()> {
        if self.size.finish().is_err() {
            return self.finish().await.map(drop);
        }
        self.appender.commit(repository, digest).await.map_err(upload_error)?;
        self.registry.metrics().upload_bytes.inc_by(self.size.written);
        self.registry.metrics().uploads_finished.inc();
        Ok(())
    }
}

/// A blob that comes whole. When it is dropped instead of finished, nothing of it is kept.
pub struct Incoming {
    registry: Registry,
    staging: store::Staging,
    repository: RepositoryName,
    digest: Digest,
    size: SizeCheck,
}

impl Incoming {
    /// Takes the next bytes; waits while earlier ones are on their way to the disk.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.size.add(bytes.len())?;
        Ok(self.staging.write(bytes).await?)
    }

    /// Makes what was written the blob that it was announced as, or fails because it is not.
    pub async fn finish(self) -> Result<()> {
        self.size.finish()?;
        let size = self.registry.store().commit(self.staging, &self.digest, &self.repository).await?;
        self.registry.metrics().upload_bytes.inc_by(size);
        self.registry.metrics().uploads_finished.inc();
        Ok(())
    }
}

/// Compares what arrives with what was announced and with the limit.
#[derive(Debug)]
struct SizeCheck {
    /// How many bytes were announced.
    expected: Option<u64>,
    written: u64,
    /// How many more bytes the blob may have.
    room: u64,
    limit: u64,
}

impl SizeCheck {
    /// For `expected` bytes, if that is known, behind the first `offset` of a blob of at most `limit`.
    fn new(limit: u64, offset: u64, expected: Option<u64>) -> Result<Self> {
        let room = limit.saturating_sub(offset);
        if expected.is_some_and(|expected| expected > room) {
            return Err(Error::BlobTooLarge { limit });
        }
        Ok(Self { expected, written: 0, room, limit })
    }

    fn add(&mut self, bytes: usize) -> Result<()> {
        self.written += bytes as u64;
        if let Some(expected) = self.expected.filter(|expected| self.written > *expected) {
            return Err(Error::Size { expected, actual: self.written });
        }
        if self.written > self.room { Err(Error::BlobTooLarge { limit: self.limit }) } else { Ok(()) }
    }

    fn finish(&self) -> Result<()> {
        match self.expected.filter(|expected| self.written < *expected) {
            Some(expected) => Err(Error::Size { expected, actual: self.written }),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("written", &self.size.written).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("written", &self.size.written).finish_non_exhaustive()
    }
}

/// What an upload is bound to. A user's name may be anything, so the other two kinds of caller are kept apart from it
/// by a prefix.
fn owner(caller: &Caller) -> String {
    match &caller.user {
        Some(user) => format!("user:{user}"),
        None if caller.local => "local".to_owned(),
        None => "anonymous".to_owned(),
    }
}

fn upload_error(error: store::Error) -> Error {
    match error {
        store::Error::NotFound => Error::UploadUnknown,
        other => other.into(),
    }
}
