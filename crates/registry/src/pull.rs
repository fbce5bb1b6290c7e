//! Pulling: manifests and blobs that are here, or are on their way.

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_store as store;
use deltaport_trust::Caller;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::image::Lost;
use crate::{Error, Manifest, Registry, Result, fill};

impl Registry {
    /// The manifest that `reference` means in `repository`.
    ///
    /// Fails with [`Error::ManifestUnknown`] when it is neither here nor upstream, with [`Error::Absent`] when besides an
    /// index here names it, with [`Error::OverQuota`] when it is not here and the upstream wants to be left alone, and with
    /// [`Error::Refused`] when the policy does not accept it.
    pub async fn manifest(&self, repository: &RepositoryName, reference: &Reference) -> Result<Pulled> {
        let found = self.find_manifest(repository, reference).await?;
        self.admit(repository, reference, &found).await?;
        self.note_use(repository, &found.digest);
        Ok(found)
    }

    /// The same for `caller`, who sees also what waits for its signature where he may push: to sign it, and no more, since
    /// its blobs are given to nobody.
    pub async fn manifest_for(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Pulled> {
        match self.may_sign(caller, repository) {
            true => self.find_manifest(repository, reference).await,
            false => self.manifest(repository, reference).await,
        }
    }

    async fn find_manifest(&self, repository: &RepositoryName, reference: &Reference) -> Result<Pulled> {
        let stored = self.store().names().manifest(repository, reference).await?;
        let found = match (stored, reference) {
            (Some(manifest), Reference::Digest(_)) => {
                self.count_cached(repository, manifest.bytes.len() as u64);
                Some(Pulled::fresh(manifest))
            }
            (None, Reference::Digest(digest)) => return self.absent_manifest(repository, digest).await,
            (stored, _) => self.fill_manifest(repository, reference, stored).await?,
        };
        found.ok_or_else(|| Error::ManifestUnknown(reference.clone()))
    }

    /// The bytes of a blob of `repository`.
    ///
    /// Fails with [`Error::BlobUnknown`] when it is neither here nor upstream, with [`Error::Absent`] when besides it
    /// belongs to an image of an index here, and with [`Error::Refused`] when the policy accepts nothing that refers to it.
    pub async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Body> {
        let held = self.store().names().blob(repository, digest).await?;
        if held.is_some() || self.0.upstreams.mirrored(repository).is_some() {
            self.admit_blob(repository, digest).await?;
        }
        if let Some(size) = held {
            // The repository holds it, so its bytes are here; were they lost, an upstream may have them still.
            match self.store().blobs().open(digest).await? {
                Some(blob) => {
                    self.count_cached(repository, size);
                    return Ok(Body::Stored(blob));
                }
                // It may have made room for others just now.
                None if self.store().names().blob(repository, digest).await?.is_none() => {}
                None => {
                    tracing::error!(%repository, %digest, size, "the bytes of a blob are missing; run fsck")
                }
            }
        }
        self.check_wanted(repository, Lost::Blob(digest)).await?;
        match self.fill_blob(repository, digest).await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err(self.explain(repository, Lost::Blob(digest), Error::BlobUnknown(*digest)).await),
            Err(error) => Err(self.explain(repository, Lost::Blob(digest), error).await),
        }
    }

    /// An address at which a client can read a blob of `repository` for `life` without us, when its bytes are an object of a
    /// bucket; `None` when they are not, or not here. Fails with [`Error::Refused`] as [`Registry::blob`] does.
    pub async fn blob_address(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        life: Duration,
    ) -> Result<Option<String>> {
        let Some(size) = self.store().names().blob(repository, digest).await? else { return Ok(None) };
        self.admit_blob(repository, digest).await?;
        let address = self.store().blobs().address(digest, life).await?;
        if address.is_some() {
            self.count_cached(repository, size);
        }
        Ok(address)
    }

    /// The size of a blob of `repository` in bytes, as [`Registry::blob`] would serve it.
    pub async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64> {
        let held = self.store().names().blob(repository, digest).await?;
        if held.is_some() || self.0.upstreams.mirrored(repository).is_some() {
            self.admit_blob(repository, digest).await?;
        }
        self.find_size(repository, digest).await
    }

    /// The same for `caller`, who is told also of what waits for a signature where he may push: it need not be sent again.
    pub async fn blob_size_for(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<u64> {
        match self.may_sign(caller, repository) {
            true => self.find_size(repository, digest).await,
            false => self.blob_size(repository, digest).await,
        }
    }

    async fn find_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<u64> {
        if let Some(size) = self.store().names().blob(repository, digest).await? {
            return Ok(size);
        }
        self.check_wanted(repository, Lost::Blob(digest)).await?;
        match self.size_upstream(repository, digest).await {
            Ok(Some(size)) => Ok(size),
            Ok(None) => Err(self.explain(repository, Lost::Blob(digest), Error::BlobUnknown(*digest)).await),
            Err(error) => Err(self.explain(repository, Lost::Blob(digest), error).await),
        }
    }

    /// Counts `bytes` of `repository` that a client was sent, if they are an upstream's.
    pub fn count_served(&self, repository: &RepositoryName, bytes: u64) {
        if let Some(remote) = self.0.upstreams.mirrored(repository) {
            self.metrics().served(remote.client.host(), bytes);
        }
    }

    /// Counts content of `bytes` bytes that was here when it was asked for, if it is an upstream's.
    fn count_cached(&self, repository: &RepositoryName, bytes: u64) {
        if let Some(remote) = self.0.upstreams.mirrored(repository) {
            self.metrics().cached(remote.client.host(), bytes);
        }
    }
}

/// A manifest as it is served.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// Whether its tag may have moved upstream: it could not be asked.
    pub stale: bool,
}

impl Pulled {
    /// What is as it should be.
    pub(crate) fn fresh(manifest: Arc<Manifest>) -> Self {
        Self { manifest, stale: false }
    }
}

impl Deref for Pulled {
    type Target = Manifest;

    fn deref(&self) -> &Manifest {
        &self.manifest
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
#[derive(Clone)]
pub struct Filling {
    /// The size of the whole blob in bytes.
    pub(crate) size: u64,
    /// How far it is.
    pub(crate) progress: watch::Receiver<Progress>,
}

/// How far a blob that is being fetched has come.
///
/// The end that fetches announces it. The last bytes are not announced before the digest is proven, so that nobody
/// receives the whole of wrong bytes.
#[derive(Clone, Default)]
pub(crate) struct Progress {
    /// The size of the whole blob in bytes, as soon as it is known and the blob is known to come.
    pub(crate) size: Option<u64>,
    /// The growing bytes, as soon as there are any.
    pub(crate) reader: Option<store::Blob>,
    /// How many bytes may be read.
    pub(crate) readable: u64,
    /// Which attempt the bytes of `reader` are from. Another one may have other bytes: whoever has read some of one must
    /// not get the rest from another.
    pub(crate) version: u32,
    /// How it ended.
    pub(crate) end: Option<Result<(), fill::Failure>>,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { size, readable, version, end, reader: _ } = self;
        f.debug_struct("Progress")
            .field("size", size)
            .field("readable", readable)
            .field("version", version)
            .field("end", end)
            .finish_non_exhaustive()
    }
}

impl Progress {
    /// Whether all of the blob can be read.
    pub(crate) fn is_proven(&self) -> bool {
        self.reader.is_some() && self.size == Some(self.readable)
    }

    /// All of the blob, which is proven, is in `reader`.
    pub(crate) fn prove(&mut self, reader: store::Blob, size: u64) {
        (self.size, self.reader, self.readable) = (Some(size), Some(reader), size);
    }
}

impl Body {
    /// The size of the whole blob in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Stored(blob) => blob.size(),
            Self::Filling(filling) => filling.size,
        }
    }

    /// Streams a part of it, which must lie within [`Body::size`]. Any number of parts may be read at the same time, each
    /// at its own pace.
    pub fn read(&self, range: ByteRange) -> BodyStream {
        BodyStream(match self {
            Self::Stored(blob) => Source::Stored(blob.read(range)),
            Self::Filling(filling) => Source::Filling(Tail {
                left: range,
                state: Follow::wait(filling.progress.clone(), range.start, None),
            }),
        })
    }
}

impl Body {
    /// The same, but not before it is clear that the bytes can be had, as far as that can be known: fails with
    /// [`Error::Unavailable`] when what they are kept in does not answer.
    pub async fn begin(&self, range: ByteRange) -> Result<BodyStream> {
        match self {
            Self::Stored(blob) => Ok(BodyStream(Source::Stored(blob.begin(range).await?))),
            Self::Filling(_) => Ok(self.read(range)),
        }
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
    /// What is still to be read. Empty (start at end) once everything has been.
    left: ByteRange,
    state: Follow,
}

enum Follow {
    /// Waits until there is more to read.
    Wait(BoxFuture<'static, io::Result<More>>),
    /// Reads what had arrived.
    Read(watch::Receiver<Progress>, store::BlobStream, u32),
}

/// More than there was.
struct More {
    progress: watch::Receiver<Progress>,
    reader: store::Blob,
    readable: u64,
    version: u32,
}

impl Follow {
    /// Waits for bytes behind the first `behind`, of the version of which some were read.
    fn wait(mut progress: watch::Receiver<Progress>, behind: u64, read: Option<u32>) -> Self {
        Self::Wait(Box::pin(async move {
            let replaced = |now: &Progress| read.is_some_and(|read| read != now.version);
            let changed = progress
                .wait_for(|now| now.readable > behind || now.end.is_some() || replaced(now))
                .await
                .map(|now| now.clone());
            let gave_up = |why| io::Error::new(io::ErrorKind::UnexpectedEof, why);
            match changed {
                Ok(now) if replaced(&now) => Err(gave_up("what was sent so far may be wrong")),
                Ok(Progress { reader: Some(reader), readable, version, .. }) if readable > behind => {
                    Ok(More { progress, reader, readable, version })
                }
                _ => Err(gave_up("the upstream transfer was given up")),
            }
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
                    let More { progress, reader, readable, version } = ready!(more.as_mut().poll(cx))?;
                    let now = ByteRange { start: self.left.start, end: readable.min(self.left.end) };
                    self.state = Follow::Read(progress, reader.read(now), version);
                }
                Follow::Read(progress, stream, version) => match ready!(Pin::new(stream).poll_next(cx)) {
                    Some(Ok(chunk)) => {
                        self.left.start += chunk.len() as u64;
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        self.state = Follow::wait(progress.clone(), self.left.start, Some(*version));
                    }
                },
            }
        }
    }
}
