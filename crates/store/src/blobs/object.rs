//! Blobs whose bytes are in a bucket: where they are, and how they get there.

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use deltaport_oci::Digest;
use lru::LruCache;

use crate::bucket::read::Object;
use crate::bucket::{Bucket, Place, send};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::names::places::{self, Placed};
use crate::names::{Tx, doomed};

/// Of how many blobs it is remembered which object they are.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("16384 is not zero");

/// Which objects blobs are, as far as it was asked lately. What it says may have been collected meanwhile, but never is
/// another blob: no object is ever written to again.
pub(crate) struct Remembered(Mutex<LruCache<Digest, (Place, u64)>>);

impl Remembered {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    fn all(&self) -> MutexGuard<'_, LruCache<Digest, (Place, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        self.all().pop(digest);
    }
}

/// What a blob is with a bucket.
pub(crate) enum Found {
    Object(Object),
    /// A manifest, whose bytes are in its row.
    Manifest(Bytes),
}

/// Finds the bytes of a digest.
pub(crate) async fn find(core: &Arc<Core>, bucket: &Arc<Bucket>, digest: &Digest) -> Result<Option<Found>> {
    let object = |place, size| {
        let (core, bucket) = (Arc::clone(core), Arc::clone(bucket));
        Found::Object(Object { core, bucket, digest: *digest, place, size })
    };
    let remembered = bucket.remembered.all().get(digest).cloned();
    if let Some((place, size)) = remembered {
        return Ok(Some(object(place, size)));
    }
    if let Some((place, size)) = find_anew(core, digest).await? {
        return Ok(Some(object(place, size)));
    }
    let digest = *digest;
    let bytes = core.database.read(move |names| places::manifest_bytes(names, &digest)).await?;
    Ok(bytes.map(Found::Manifest))
}

/// Asks the database which object a blob is, and how large it is.
pub(crate) async fn find_anew(core: &Arc<Core>, digest: &Digest) -> Result<Option<(Place, u64)>> {
    let Some(bucket) = &core.bucket else { return Ok(None) };
    let asked = *digest;
    let placed = core.database.read(move |names| places::find(names, &asked)).await?;
    let found = placed.and_then(|Placed { size, place }| place.map(|place| (place, size)));
    match &found {
        Some(found) => bucket.remembered.all().put(*digest, found.clone()),
        None => bucket.remembered.all().pop(digest),
    };
    Ok(found)
}

/// Makes an object of the proven bytes of `digest` and does `change`, which refers to the blob, in the transaction that
/// says where it is. When the bytes are there already, nothing is sent.
pub(crate) async fn settle<T, F>(
    core: &Arc<Core>,
    bucket: &Arc<Bucket>,
    digest: Digest,
    size: u64,
    file: Arc<File>,
    change: F,
) -> Result<T>
where
    T: Send + 'static,
    F: Fn(&mut Tx<'_>) -> Result<T> + Send + Sync + 'static,
{
    let change = Arc::new(change);
    let changing = Arc::clone(&change);
    let known = core.database.change(move |tx| match places::find(tx.connection, &digest)? {
        Some(Placed { place: Some(_), .. }) => changing(tx).map(Some),
        _ => Ok(None),
    });
    if let Some(done) = known.await? {
        return Ok(done);
    }
    let place = send::file(core, bucket, &file, size).await?;
    core.database
        .change(move |tx| {
            doomed::spare(tx, &place)?;
            places::put(tx, &digest, size, &place)?;
            change(tx)
        })
        .await
}

/// What is said of a blob whose object is gone.
pub(crate) fn lost(digest: &Digest) -> Error {
    Error::Corrupt(format!("the object of {digest} is gone; run fsck"))
}
