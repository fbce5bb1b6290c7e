//! Bytes in a bucket: what is asked of the service, what becomes visible when, and what is left behind.

mod broken;
mod check;
mod reads;
#[path = "../suite/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "the same suite for another place")]
mod suite;
mod uploads;

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use deltaport_oci::Digest;
use deltaport_store::{BucketOptions, ByteStore, Options, Store};
use deltaport_testkit::s3::Server;

use crate::common::*;

/// What the suite's stores are: with names in the directory.
fn home() -> crate::common::Home {
    crate::common::Home::embedded().and_bucket()
}

/// The size of the parts here: small, so that tests are fast.
pub(crate) const PART: u64 = 5 << 20;

/// A data directory, and a bucket for its bytes.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: Server,
    pub(crate) bucket: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        let server = Server::start();
        let bucket = server.bucket();
        Self { dir: tempfile::tempdir().unwrap(), server, bucket }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn bucket_options(&self) -> BucketOptions {
        crate::common::bucket_options(&self.server, &self.bucket)
    }

    pub(crate) fn options(&self) -> Options {
        Options { bytes: ByteStore::Bucket(Box::new(self.bucket_options())), ..options(self.root()) }
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(self.options()).await.unwrap()
    }

    /// How many objects there are.
    pub(crate) fn objects(&self) -> usize {
        self.server.objects(&self.bucket).len()
    }

    /// Runs the collector as if an hour had passed twice, so that what it finds is due.
    pub(crate) async fn collect(&self, store: &Store) -> deltaport_store::Collected {
        store.collect(SystemTime::now() + Duration::from_secs(3601)).await.unwrap();
        store.collect(SystemTime::now() + Duration::from_secs(2 * 3601)).await.unwrap()
    }

    /// Runs the collector a minute later: what nothing refers to any more has been removed then, and blobs are too young.
    pub(crate) async fn tidy(&self, store: &Store) {
        store.collect(SystemTime::now() + Duration::from_secs(60)).await.unwrap();
    }

    /// Changes rows behind the store's back.
    pub(crate) fn alter(&self, sql: &str) -> usize {
        let names = rusqlite::Connection::open(self.root().join("names.db")).unwrap();
        names.busy_timeout(Duration::from_secs(10)).unwrap();
        names.execute(sql, []).unwrap()
    }
}

/// Pushes in one chunk and finishes with another request, as most clients do; the number of bytes sent.
pub(crate) async fn push_in_two(store: &Store, repository: &str, bytes: &Bytes) -> Digest {
    let (repository, digest) = (crate::common::repository(repository), Digest::sha256(bytes));
    let id = store.uploads().begin(&repository, OWNER, None, 10).await.unwrap();
    let mut appender = store.uploads().append(&repository, &id, OWNER, Some(0)).await.unwrap();
    for chunk in pieces(bytes) {
        appender.write(chunk).await.unwrap();
    }
    assert_eq!(appender.finish().await.unwrap(), bytes.len() as u64);
    assert_eq!(store.uploads().finish(&repository, &id, OWNER, &digest).await.unwrap(), bytes.len() as u64);
    digest
}

/// Pieces as they come from a connection.
pub(crate) fn pieces(bytes: &Bytes) -> impl Iterator<Item = Bytes> + use<> {
    const PIECE: usize = 100_000;
    let bytes = bytes.clone();
    (0..bytes.len()).step_by(PIECE).map(move |at| bytes.slice(at..bytes.len().min(at + PIECE)))
}
