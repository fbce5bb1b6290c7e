//! Where bytes and names live.
//!
//! Everything that deltaport must not lose goes through this crate, and no other crate touches the disk or SQL. Its
//! contract, in one sentence: **nothing is visible under a digest unless its bytes hashed to it and are durable, and a
//! name points only to what is visible** (a sparse index says itself which of its children are absent).
//!
//! Bytes are content-addressed files, written once ([`Blobs`], [`Uploads`]); names are rows of an embedded SQLite
//! database ([`Names`]). [`Store`] joins the two where an operation needs both.

#![allow(unused_variables, missing_debug_implementations, clippy::todo)] // while the contract is only a contract

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Algorithm, Descriptor, Digest, Reference, RepositoryName, Tag, manifest};

/// What an open store is told. Settings are data; see the configuration reference for the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that holds everything.
    pub root: PathBuf,
    /// Free disk space that writes must leave, in bytes.
    pub keep_free: u64,
    /// How much memory recently served manifests may take, in bytes.
    pub manifest_cache: usize,
    /// How long bytes that nothing refers to are kept, so that a push in progress finds what it uploaded.
    pub grace: Duration,
    /// How long an upload that nobody touches is kept.
    pub upload_expiry: Duration,
    /// Where tests make things fail; [`Faults::none`] otherwise.
    pub faults: Faults,
}

/// A seam for tests: called with the name of each step that durability depends on. An error from it is that step's.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<dyn Fn(&'static str) -> std::io::Result<()> + Send + Sync>>);

impl Faults {
    /// Nothing fails on purpose.
    pub fn none() -> Self {
        Self(None)
    }
    /// Every step asks `at` first.
    pub fn new(at: impl Fn(&'static str) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(at)))
    }
}
impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faults")
    }
}

/// Why the store could not do something, cut by what the caller will do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not here (upload, repository): answer 404.
    #[error("not found")]
    NotFound,
    /// The bytes do not have the digest that was announced: the sender's fault; nothing was kept of them.
    #[error("the content is {actual}, not {expected}")]
    Mismatch {
        /// Announced.
        expected: Digest,
        /// Computed.
        actual: Digest,
    },
    /// A chunk does not begin where the upload ends: the sender asks for the offset and goes on there.
    #[error("the upload continues at byte {offset}")]
    OutOfOrder {
        /// Where it continues.
        offset: u64,
    },
    /// Somebody else is writing to this upload right now.
    #[error("another request is writing to this upload")]
    Busy,
    /// The caller has too many uploads open.
    #[error("too many uploads are open; finish or cancel one")]
    TooManyUploads,
    /// A manifest refers to things that are not in the repository.
    #[error("the manifest refers to {} that are not in the repository", .0.len())]
    Missing(Vec<Digest>),
    /// The disk is full, or would leave less than [`Options::keep_free`].
    #[error("not enough disk space")]
    NoSpace,
    /// Bytes on disk are not what they were.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The disk or the database failed.
    #[error("storage: {0}")]
    Io(#[from] std::io::Error),
}
/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An open store; cheap to clone, every clone is the same store.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens the store at `options.root`, making it when there is none. Takes a lock so that no second process opens
    /// it; finishes or discards what a crash left half-done; brings an older schema up to date.
    pub async fn open(options: Options) -> Result<Self> {
        todo!()
    }
    /// Names: which repository holds what under which name.
    pub fn names(&self) -> &Names {
        todo!()
    }
    /// Bytes by digest.
    pub fn blobs(&self) -> &Blobs {
        todo!()
    }
    /// Uploads in progress.
    pub fn uploads(&self) -> &Uploads {
        todo!()
    }
    /// Verifies that `staging` holds `digest`, makes it durable and visible, and links it into `repository`, all before
    /// it returns. The bytes may already be known: then only the link is new.
    pub async fn commit(
        &self,
        staging: Staging,
        digest: &Digest,
        repository: &RepositoryName,
    ) -> Result<u64> {
        todo!()
    }
    /// Reviews what may have become unreferenced and removes what is, as of `now`. Safe beside everything else.
    pub async fn collect(&self, now: SystemTime) -> Result<Collected> {
        todo!()
    }
    /// Waits for what was acknowledged to be flushed and closes the database. Later calls fail.
    pub async fn close(&self) -> Result<()> {
        todo!()
    }
    /// Whether names can be read and the disk has the room that it must keep; what `/readyz` asks.
    pub async fn ready(&self) -> Result<()> {
        todo!()
    }
}

/// What one run of the collector did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Links from repositories to unreferenced blobs that were removed.
    pub links: u64,
    /// Abandoned uploads that were removed.
    pub uploads: u64,
}

/// A manifest as stored.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type, as pushed.
    pub media_type: Arc<str>,
    /// The bytes, as received.
    pub bytes: Bytes,
}

/// A manifest to be stored.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Digest of `bytes`; the caller has checked it.
    pub digest: Digest,
    /// The bytes, as received.
    pub bytes: Bytes,
    /// What they refer to.
    pub view: manifest::View,
    /// Tags to point at it, in the same transaction.
    pub tags: Vec<Tag>,
    /// Blobs and manifests that must be in the repository, or nothing is stored.
    pub required: Vec<Digest>,
}

/// One page of a sorted list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

/// What is known about a delta between two layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerDelta {
    /// It is this blob of the repository.
    Blob(Digest),
    /// It was tried and is not worth its bytes.
    NotWorthIt,
}

/// Names: repositories, manifests, tags and links to blobs. Every method is one transaction; a method that writes
/// returns when the change is durable, the journal included. Reads see every write that returned before they began.
pub struct Names {}

impl Names {
    /// The manifest that `reference` means in `repository`.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Arc<Manifest>>> {
        todo!()
    }
    /// Stores a manifest, its references (with which of them are present) and its tags; the repository comes into being
    /// with its first content. Fails with [`Error::Missing`] when something in `required` is absent.
    pub async fn put_manifest(&self, repository: &RepositoryName, manifest: NewManifest) -> Result<()> {
        todo!()
    }
    /// Removes a manifest and every tag on it; `false` when it was not there.
    pub async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
        todo!()
    }
    /// Removes a tag, not its manifest; `false` when it was not there.
    pub async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool> {
        todo!()
    }
    /// The tags of a repository in byte order, behind `last`; `None` when there is no such repository.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page<Tag>>> {
        todo!()
    }
    /// The repositories in byte order, behind `last`.
    pub async fn repositories(&self, last: Option<&str>, limit: usize) -> Result<Page<RepositoryName>> {
        todo!()
    }
    /// Whether the repository exists.
    pub async fn repository_exists(&self, repository: &RepositoryName) -> Result<bool> {
        todo!()
    }
    /// The manifests whose subject is `subject`, by digest, behind `last`.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Descriptor>> {
        todo!()
    }
    /// The size of a blob, if `repository` holds it.
    pub async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>> {
        todo!()
    }
    /// Repositories that hold a blob, at most `limit`; what an anonymous mount chooses from.
    pub async fn repositories_with(&self, digest: &Digest, limit: usize) -> Result<Vec<RepositoryName>> {
        todo!()
    }
    /// Links a blob that some repository holds into `repository`; `false` when its bytes are not here.
    pub async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
        todo!()
    }
    /// Removes the link from `repository` to a blob; `false` when there was none.
    pub async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
        todo!()
    }
    /// Layers that the repository holds whole, those of the most recently stored manifests first: what a delta may be
    /// based on. At most `limit`.
    pub async fn recent_layers(&self, repository: &RepositoryName, limit: usize) -> Result<Vec<Descriptor>> {
        todo!()
    }
    /// What is known about a delta between two layers of a repository.
    pub async fn layer_delta(
        &self,
        repository: &RepositoryName,
        base: &Digest,
        target: &Digest,
    ) -> Result<Option<LayerDelta>> {
        todo!()
    }
    /// Remembers a delta (its blob is already linked into the repository and is kept while both layers are).
    pub async fn put_layer_delta(
        &self,
        repository: &RepositoryName,
        base: &Digest,
        target: &Digest,
        delta: &LayerDelta,
    ) -> Result<()> {
        todo!()
    }
}

/// Bytes by digest.
pub struct Blobs {}

impl Blobs {
    /// Opens the bytes of `digest`; `None` when they are not here. Asks no repository: callers check the link first.
    pub async fn open(&self, digest: &Digest) -> Result<Option<Blob>> {
        todo!()
    }
    /// A new place for bytes whose digest is not yet proven; gone when dropped before [`Store::commit`].
    pub async fn stage(&self, algorithm: Algorithm) -> Result<Staging> {
        todo!()
    }
}

/// An open blob; cheap to clone, usable while the blob is collected.
#[derive(Clone)]
pub struct Blob {}

impl Blob {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        todo!()
    }
    /// Streams part of it in chunks of up to 256 KiB, one read ahead of the consumer, through pooled buffers. Pages
    /// that are in memory are read at once, others on a blocking thread.
    pub fn read(&self, range: ByteRange) -> BlobStream {
        todo!()
    }
    /// The file itself for positioned, blocking reads (the delta engine on its worker thread).
    pub fn file(&self) -> std::io::Result<std::fs::File> {
        todo!()
    }
}

/// The chunks of a [`Blob::read`]; a stream of `io::Result<Bytes>`, `Send` and `Unpin`.
pub struct BlobStream {}
impl futures_util::Stream for BlobStream {
    type Item = std::io::Result<Bytes>;
    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        todo!()
    }
}

/// Bytes on their way in: written and hashed on a blocking thread behind a bounded queue.
pub struct Staging {}

impl Staging {
    /// Queues the next bytes; waits while the queue is full; fails with what an earlier write failed with.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        todo!()
    }
    /// How many bytes are in the file and readable through [`Staging::reader`], watched by those who read along.
    pub fn progress(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }
    /// A handle on the growing bytes, for those who read along; it stays readable after commit.
    pub fn reader(&self) -> Result<Blob> {
        todo!()
    }
}

/// Uploads in progress. They belong to a repository and to the caller that began them (`owner`); for anybody else they
/// are [`Error::NotFound`]. Offset and hash state survive a crash as of the last acknowledged chunk.
pub struct Uploads {}

impl Uploads {
    /// Begins an upload and returns its identifier (128 random bits, hexadecimal). `algorithm` is a hint: the digest
    /// given at the end may still be of the other one, which costs another read of the bytes.
    pub async fn begin(
        &self,
        repository: &RepositoryName,
        owner: &str,
        algorithm: Option<Algorithm>,
        per_owner: usize,
    ) -> Result<String> {
        todo!()
    }
    /// How many bytes have been acknowledged.
    pub async fn offset(&self, repository: &RepositoryName, id: &str, owner: &str) -> Result<u64> {
        todo!()
    }
    /// Opens an upload to append to it, alone. `at` is where the sender believes the upload ends.
    pub async fn append(
        &self,
        repository: &RepositoryName,
        id: &str,
        owner: &str,
        at: Option<u64>,
    ) -> Result<Appender> {
        todo!()
    }
    /// Checks the digest, makes the blob durable and visible, links it and ends the upload. On a mismatch the upload
    /// is gone.
    pub async fn finish(
        &self,
        repository: &RepositoryName,
        id: &str,
        owner: &str,
        digest: &Digest,
    ) -> Result<u64> {
        todo!()
    }
    /// Ends an upload and drops its bytes.
    pub async fn cancel(&self, repository: &RepositoryName, id: &str, owner: &str) -> Result<()> {
        todo!()
    }
}

/// An upload that is being written to.
pub struct Appender {}

impl Appender {
    /// Queues the next bytes; waits while the queue is full.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        todo!()
    }
    /// Makes what was written durable and returns the new offset. When an appender is dropped instead, for instance
    /// because the client's connection broke, what arrived is kept as far as it reached the disk.
    pub async fn finish(self) -> Result<u64> {
        todo!()
    }
}
