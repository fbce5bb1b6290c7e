//! Pulling: manifests and blobs that are here, or are on their way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_store as store;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::{Error, Manifest, Registry, Result};

impl Registry {
    /// The manifest that `reference` means in `repository`.
    ///
    /// Fails with [`Error::ManifestUnknown`] when it is neither here nor upstream.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Arc<Manifest>> {
        if let Some(manifest) = self.store().names().manifest(repository, reference).await? {
            return Ok(manifest);
        }
        let filled = self.fill_manifest(repository, reference).await?;
        filled.ok_or_else(|| Error::ManifestUnknown(reference.clone()))
    }

    /// The bytes of a blob of `repository`.
    ///
    /// Fails with [`Error::BlobUnknown`] when it is neither here nor upstream.
    pub async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Body> {
        if let Some(size) = self.store().names().blob(repository, digest).await? {
            // The repository holds it, so its bytes are here; were they lost, an upstream may have them still.
            match self.store().blobs().open(digest).await? {
                Some(blob) => return Ok(Body::Stored(blob)),
                None => {
                    tracing::error!(%repository, %digest, size, "the bytes of a blob are missing; run fsck")
                }
            }
        }
        self.fill_blob(repository, digest).await?.ok_or(Error::BlobUnknown(*digest))
    }

    /// The size of a blob of `repository` in bytes, as [`Registry::blob`] would serve it.
    pub async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64> {
        if let Some(size) = self.store().names().blob(repository, digest).await? {
            return Ok(size);
        }
        let filled = self.fill_blob(repository, digest).await?;
        filled.map(|body| body.size()).ok_or(Error::BlobUnknown(*digest))
    }
}

/// The bytes of a blob: all here, or on their way.
#[derive(Clone)]
pub enum Body {
    /// All here, and proven.
    Stored(store::Blob),
    /// On their way from an upstream.
    Filling(Filling),
}

/// A blob that is being fetched and can be read as far as it has arrived.
///
/// The end that fetches announces progress. It must not announce the last byte before the digest is proven, so that
/// nobody receives the whole of wrong bytes; when it gives up it drops the sender, and readers fail.
#[derive(Clone)]
pub struct Filling {
    /// The size of the whole blob in bytes.
    pub size: u64,
    /// The growing bytes.
    pub reader: store::Blob,
    /// How many bytes may be read.
    pub progress: watch::Receiver<u64>,
}

impl Body {
    /// The size of the whole blob in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Stored(blob) => blob.size(),
            Self::Filling(filling) => filling.size,
        }
    }

    /// Streams a part of it, which must lie within [`Body::size`].
    pub fn read(&self, range: ByteRange) -> BodyStream {
        BodyStream(match self {
            Self::Stored(blob) => Source::Stored(blob.read(range)),
            Self::Filling(filling) => Source::Filling(Tail {
                reader: filling.reader.clone(),
                left: range,
                state: Follow::wait(filling.progress.clone(), range.start),
            }),
        })
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("size", &self.size()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Filling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filling").field("size", &self.size).finish_non_exhaustive()
    }
}

/// The chunks of a [`Body::read`].
pub struct BodyStream(Source);

enum Source {
    Stored(store::BlobStream),
    Filling(Tail),
}

impl std::fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BodyStream")
    }
}

impl Stream for BodyStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Source::Stored(stream) => Pin::new(stream).poll_next(cx),
            Source::Filling(tail) => tail.poll_next(cx),
        }
    }
}

/// Reads along with a blob that is being fetched.
struct Tail {
    reader: store::Blob,
    /// What is still to be read. Empty (start at end) once everything has been.
    left: ByteRange,
    state: Follow,
}

enum Follow {
    /// Waits until there is more to read.
    Wait(BoxFuture<'static, io::Result<(watch::Receiver<u64>, u64)>>),
    /// Reads what had arrived.
    Read(watch::Receiver<u64>, store::BlobStream),
}

impl Follow {
    fn wait(mut progress: watch::Receiver<u64>, behind: u64) -> Self {
        Self::Wait(Box::pin(async move {
            let arrived = match progress.wait_for(|arrived| *arrived > behind).await {
                Ok(arrived) => *arrived,
                Err(_gave_up) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the upstream transfer was given up",
                    ));
                }
            };
            Ok((progress, arrived))
        }))
    }
}

impl Tail {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if self.left.start >= self.left.end {
                return Poll::Ready(None);
            }
            match &mut self.state {
                Follow::Wait(more) => {
                    let (progress, arrived) = ready!(more.as_mut().poll(cx))?;
                    let readable = ByteRange { start: self.left.start, end: arrived.min(self.left.end) };
                    self.state = Follow::Read(progress, self.reader.read(readable));
                }
                Follow::Read(progress, stream) => match ready!(Pin::new(stream).poll_next(cx)) {
                    Some(Ok(chunk)) => {
                        self.left.start += chunk.len() as u64;
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => self.state = Follow::wait(progress.clone(), self.left.start),
                },
            }
        }
    }
}
