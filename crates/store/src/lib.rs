//! Where bytes and names live.
//!
//! Everything that deltaport must not lose goes through this crate, and no other crate touches the disk or SQL. Its
//! contract, in one sentence: **nothing is visible under a digest unless its bytes hashed to it and are durable, and a
//! name points only to what is visible** (a sparse index says itself which of its children are absent).
//!
//! Bytes are content-addressed files or objects of a bucket, written once ([`Blobs`], [`Uploads`]); names are rows of an
//! embedded SQLite database, or of a PostgreSQL that replicas share ([`Names`]). [`Store`] joins the two where an operation
//! needs both.
//!
//! In a directory everything that changes something goes the same way: bytes are synced, renamed into place and their
//! directory is synced; then one thread commits the names of all who wait and appends them to the journal; then they are
//! answered. With a bucket and a PostgreSQL, the transaction that names an object comes after the object is there.

mod blobs;
mod bucket;
mod check;
mod collect;
mod core;
mod disk;
mod error;
mod faults;
mod fsck;
mod inflow;
mod journal;
mod layout;
mod lease;
mod migrate;
mod names;
mod open;
mod pair;
mod partial;
mod private;
mod rebuild;
mod secrets;
mod staging;
mod uploads;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use deltaport_oci::{Digest, RepositoryName};

use crate::core::Core;

pub use blobs::{Blob, BlobStream, Blobs, Scratch};
pub use bucket::{BucketOptions, Credentials, check::check_bucket};
pub use check::{check_directory, check_file};
pub use collect::Collected;
pub use error::{Error, Result};
pub use faults::Faults;
pub use fsck::{Code, Finding, FsckOptions, Progress, Report, Severity, fsck};
pub use lease::{Holder, Lease};
pub use migrate::{Migration, Pass, Step};
pub use names::{
    Absence, Cached, ClaimLimits, DeltaJob, Evicted, Layer, LayerDelta, MAX_VERDICT_LEN, Manifest, Names,
    NewManifest, Page, PostgresOptions, Referenced, Slot, Told, Verdict, check_database,
};
pub use partial::Partial;
pub use private::{CommandSocket, MAX_PRIVATE_LEN, PrivateFile, Stamp};
pub use rebuild::{Rebuilt, rebuild};
pub use secrets::{Secret, Secrets};
pub use staging::Staging;
pub use uploads::{Appender, Uploads};
pub use usage::{Held, Places, Usage, usage};

/// What an open store is told. Settings are data; see the configuration reference for the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory, which holds everything that is not said to be elsewhere.
    pub root: PathBuf,
    /// Where the bytes of blobs are.
    pub bytes: ByteStore,
    /// Free disk space that writes must leave, in bytes.
    pub keep_free: u64,
    /// How much memory recently served manifests may take, in bytes.
    pub manifest_cache: usize,
    /// How long bytes that nothing refers to are kept, so that a push in progress finds what it uploaded.
    pub grace: Duration,
    /// How long an upload that nobody touches is kept.
    pub upload_expiry: Duration,
    /// How long the beginning of a blob that nobody goes on with is kept ([`Blobs::partial`]).
    pub partial_expiry: Duration,
    /// Where names live.
    pub names: NamesOptions,
    /// Where tests make things fail; [`Faults::none`] otherwise.
    pub faults: Faults,
}

/// Where the bytes of blobs are.
#[derive(Clone, Debug)]
pub enum ByteStore {
    /// In files of the data directory.
    Directory,
    /// In files of another directory, on another disk perhaps, which no other process may use. What becomes a blob there
    /// is there from its first byte: uploads, what is staged, beginnings of blobs.
    Elsewhere(PathBuf),
    /// In a bucket, which other replicas may share that share the database, too.
    Bucket(Box<BucketOptions>),
}

/// Where names live.
#[derive(Clone, Debug, Default)]
pub enum NamesOptions {
    /// In the data directory, beside a journal.
    #[default]
    Directory,
    /// In this file, which no other process may use; the journal is in the data directory.
    File(PathBuf),
    /// In a PostgreSQL, which any number of replicas share.
    Postgres(PostgresOptions),
}

/// An open store; cheap to clone, every clone is the same store.
#[derive(Clone, Debug)]
pub struct Store {
    core: Arc<Core>,
    names: Names,
    blobs: Blobs,
    uploads: Uploads,
}

impl Store {
    /// Opens the store at `options.root`, and where else it is said to be, making it when there is none. Takes a lock so that no second process opens
    /// it; finishes or discards what a crash left half-done; brings an older schema up to date. Must be called within a
    /// tokio runtime, which the store goes on to use.
    ///
    /// Fails with [`Error::Unusable`] when a [`Migration`] to here was begun and has not ended.
    pub async fn open(options: Options) -> Result<Self> {
        let store = Self::open_as_it_is(options).await?;
        // Before it is asked whether one is under way, so that none begins between the two.
        if let Some(shared) = store.core.database.shared() {
            shared.respect_migration();
        }
        if store.core.database.read(names::held::is_unfinished).await? {
            store.close().await?;
            return Err(Error::Unusable(
                "a registry is being moved to here and not all of it has come; run `deltaport migrate` again"
                    .to_owned(),
            ));
        }
        Ok(store)
    }

    /// The same for what is not whole, perhaps.
    pub(crate) async fn open_as_it_is(options: Options) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let core = tokio::task::spawn_blocking(move || open::open(options, runtime)).await??;
        Ok(Self {
            names: Names::new(Arc::clone(&core)),
            blobs: Blobs::new(Arc::clone(&core)),
            uploads: Uploads::new(Arc::clone(&core)),
            core,
        })
    }

    /// Names: which repository holds what under which name.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Bytes by digest.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Uploads in progress.
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Whether other replicas may be at work over the same names.
    pub fn is_shared(&self) -> bool {
        self.core.database.shared().is_some()
    }

    /// What every replica over the same names knows and nobody else may.
    pub fn secrets(&self) -> Secrets {
        match self.core.database.shared() {
            Some(shared) => Secrets::shared(shared.clone()),
            None => Secrets::in_directory(self.core.layout.root()),
        }
    }

    /// Verifies that `staging` holds `digest`, makes it durable and visible, and links it into `repository`, all before
    /// it returns. The bytes may already be known: then only the link is new. Returns the size in bytes.
    pub async fn commit(
        &self,
        staging: Staging,
        digest: &Digest,
        repository: &RepositoryName,
    ) -> Result<u64> {
        staging.commit(*digest, repository.clone()).await
    }

    /// Reviews what may have become unreferenced and removes what is, as of `now`. Safe beside everything else. Goes on
    /// to its end when the future is dropped; a second call waits for the first.
    pub async fn collect(&self, now: SystemTime) -> Result<Collected> {
        self.core.to_the_end(collect::collect(Arc::clone(&self.core), now)).await
    }

    /// How many bytes may still be written to the disk that blobs are on, the room counted in that writes must leave;
    /// `None` when they are in a bucket.
    pub async fn free_disk(&self) -> Result<Option<u64>> {
        if self.core.bucket.is_some() {
            return Ok(None);
        }
        let core = Arc::clone(&self.core);
        self.core.blocking(move || core.space.free().map(Some)).await
    }

    /// Waits for what was acknowledged to be flushed, records how far partials have come, and closes the database. Later
    /// calls fail.
    pub async fn close(&self) -> Result<()> {
        self.core.closing.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
        let core = Arc::clone(&self.core);
        tokio::task::spawn_blocking(move || core.database.close()).await?;
        Ok(())
    }

    /// Whether names can be read and the disk has the room that it must keep; what `/readyz` asks. A shared database that
    /// is away makes no replica unready: it would make all of them so, and what each remembers can still be served.
    pub async fn ready(&self) -> Result<()> {
        self.core.check_space()?;
        if self.core.database.shared().is_some() {
            return Ok(());
        }
        self.core
            .database
            .read(|names| names.exists("SELECT 1 FROM repository LIMIT 1", &[]).map(|_| ()))
            .await
    }
}
