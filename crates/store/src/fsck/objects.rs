//! Checking a bucket: that every blob's object is there with its size, and if wanted with its bytes, and what is there
//! besides.
//!
//! Other replicas may be at work, so whatever looks wrong is looked at once more before it is told.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use deltaport_oci::{Digest, Hasher};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::runtime::Runtime;

use super::bytes::Progress;
use super::{Check, Code, NAMED_FINDINGS};
use crate::bucket::{Bucket, BucketOptions, Fault, Listed, Place};
use crate::error::{Error, Result};
use crate::names::sql::values;
use crate::names::{doomed, parts, places};

/// How many entries of the list may wait to be compared.
const AHEAD: usize = 1_000;
/// How many objects are read at a time.
const READERS: usize = 4;
/// How many rows are looked at before their objects are read.
const PAGE: usize = 64;
/// How old an object must be that nothing refers to before repairing has it removed, in milliseconds: a day.
const OLD: i64 = 24 * 3600 * 1000;

/// A bucket, for who may block.
pub(super) struct Remote {
    bucket: Arc<Bucket>,
    /// Taken when this is dropped.
    runtime: Option<Runtime>,
    rehash: bool,
}

impl Remote {
    pub(super) fn new(options: &BucketOptions, rehash: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { bucket: Arc::new(Bucket::new(options.clone())?), runtime: Some(runtime), rehash })
    }

    /// Waits for something, also on a thread that belongs to another runtime.
    fn wait<T, F>(&self, work: impl FnOnce(Arc<Bucket>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let Some(runtime) = &self.runtime else { return Err(Error::closed()) };
        let (sender, done) = mpsc::sync_channel(1);
        let work = work(Arc::clone(&self.bucket));
        runtime.spawn(async move {
            // Whoever asked waits for it.
            let _ = sender.send(work.await);
        });
        done.recv().map_err(|_| Error::closed())?
    }

    /// Every object, in the order of names.
    fn list(&self) -> Receiver<Result<Listed, Fault>> {
        let (sender, listed) = mpsc::sync_channel(AHEAD);
        if let Some(runtime) = &self.runtime {
            let bucket = Arc::clone(&self.bucket);
            runtime.spawn(async move {
                let mut list = bucket.list();
                while let Some(found) = list.next().await {
                    // The thread is this list's alone; whoever compares may have given up.
                    if sender.send(found).is_err() {
                        return;
                    }
                }
            });
        }
        listed
    }

    /// Whether an object is there, and how large it is.
    fn size(&self, place: &Place) -> Result<Option<u64>> {
        let place = place.clone();
        self.wait(|bucket| async move { Ok(bucket.size(&place).await?) })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What one look at rows and list leaves to be looked at again.
#[derive(Default)]
struct Doubts {
    missing: Vec<(Digest, Place)>,
    resized: Vec<(Digest, Place, u64, u64)>,
    unknown: Vec<Listed>,
    /// How many more there are of those than are remembered.
    beyond: u64,
}

impl Doubts {
    /// Whether another may be remembered.
    fn has_room(&mut self) -> bool {
        let named = self.missing.len() + self.resized.len() + self.unknown.len();
        self.beyond += u64::from(named >= NAMED_FINDINGS);
        named < NAMED_FINDINGS
    }

    fn unknown(&mut self, listed: Listed) {
        if self.has_room() {
            self.unknown.push(listed);
        }
    }
}

impl Check<'_> {
    /// Checks every object, and that names know it.
    pub(super) fn objects(&mut self, remote: &Remote, progress: &(dyn Fn(Progress) + Sync)) -> Result<()> {
        let expected = self.expected()?;
        let doubts = self.side_by_side(remote, expected, progress)?;
        if self.report.blobs == 0 && !doubts.missing.is_empty() {
            return Err(Error::Unusable(
                "no object that names know is in the bucket; is it the right one, and the right prefix?"
                    .to_owned(),
            ));
        }
        self.report.unnamed += doubts.beyond;
        for (digest, place) in doubts.missing {
            self.missing(remote, &digest, &place)?;
        }
        for (digest, place, said, found) in doubts.resized {
            if places::find(self.connection, &digest)?.is_some_and(|now| now.place == Some(place)) {
                let detail = format!("the object has {found} bytes, the row says {said}");
                self.find(Code::BlobSize, digest, detail, false);
            }
        }
        for listed in doubts.unknown {
            self.unknown(listed)?;
        }
        if remote.rehash {
            self.rehash(remote, expected, progress)?;
        }
        self.nowhere()?;
        self.tails(remote)
    }

    /// Goes through rows and list side by side: both are in the order of names.
    fn side_by_side(
        &mut self,
        remote: &Remote,
        expected: Progress,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Doubts> {
        let listed = remote.list();
        let mut next = listed.recv().ok().transpose()?;
        let (mut doubts, mut seen) = (Doubts::default(), Progress::default());
        places::each(self.connection, |place, digest, size| {
            while let Some(found) = next.take_if(|found| found.place.as_ref().is_none_or(|at| *at < place)) {
                doubts.unknown(found);
                next = listed.recv().ok().transpose()?;
            }
            match next.take_if(|found| found.place.as_ref() == Some(&place)) {
                Some(found) => {
                    if found.size == size {
                        (seen.blobs, seen.bytes) = (seen.blobs + 1, seen.bytes + size);
                    } else if doubts.has_room() {
                        doubts.resized.push((digest, place, size, found.size));
                    }
                    next = listed.recv().ok().transpose()?;
                }
                None if doubts.has_room() => doubts.missing.push((digest, place)),
                None => {}
            }
            if !remote.rehash {
                progress(Progress { blobs: seen.blobs, bytes: seen.bytes, ..expected });
            }
            Ok(())
        })?;
        while let Some(found) = next {
            doubts.unknown(found);
            next = listed.recv().ok().transpose()?;
        }
        (self.report.blobs, self.report.bytes) = (seen.blobs, seen.bytes);
        Ok(doubts)
    }

    /// A row whose object was not in the list.
    fn missing(&mut self, remote: &Remote, digest: &Digest, place: &Place) -> Result<()> {
        let still =
            places::find(self.connection, digest)?.is_some_and(|now| now.place.as_ref() == Some(place));
        if !still || remote.size(place)?.is_some() {
            return Ok(());
        }
        let detail = format!("the object {place} is not there, {}", self.held_by(digest)?);
        let repaired = self.mend(|mend| mend.forget_object(digest))?;
        self.find(Code::BlobMissing, digest, detail, repaired);
        Ok(())
    }

    /// An object that no row of a blob named.
    fn unknown(&mut self, listed: Listed) -> Result<()> {
        let Listed { place, key, size, modified } = listed;
        let Some(place) = place else {
            self.find(Code::StrayFile, key, "not the name of an object of ours; it is left alone", false);
            return Ok(());
        };
        if doomed::is_known(self.connection, &place)? {
            return Ok(());
        }
        let old = crate::names::milliseconds(std::time::SystemTime::now()).saturating_sub(modified) > OLD;
        let repaired = old && self.mend(|mend| mend.doom(&place))?;
        let detail = match old {
            true => format!("{size} bytes that nothing refers to; repaired, the collector removes them"),
            false => format!("{size} bytes that nothing refers to, younger than a day; they stay"),
        };
        self.find(Code::BlobOrphan, key, detail, repaired);
        Ok(())
    }

    /// Reads objects and hashes them.
    fn rehash(
        &mut self,
        remote: &Remote,
        expected: Progress,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<()> {
        let mut seen = Progress::default();
        let mut last = None;
        loop {
            let some = places::after(self.connection, last.as_ref(), PAGE)?;
            let Some((_, end, _)) = some.last() else { return Ok(()) };
            last = Some(end.clone());
            let hashed = remote.wait(|bucket| async move {
                let hash = |(digest, place, size): (Digest, Place, u64)| {
                    let bucket = Arc::clone(&bucket);
                    async move {
                        let actual = hash(&bucket, &digest, &place, size).await;
                        (digest, place, size, actual)
                    }
                };
                Ok(futures_util::stream::iter(some).map(hash).buffered(READERS).collect::<Vec<_>>().await)
            })?;
            for (digest, place, size, actual) in hashed {
                (seen.blobs, seen.bytes) = (seen.blobs + 1, seen.bytes + size);
                match actual {
                    Ok(actual) if actual == digest => {}
                    Ok(actual) => {
                        let holders = self.held_by(&digest)?;
                        let detail = format!("the object {place} hashes to {actual}, {holders}");
                        let repaired = self.mend(|mend| mend.forget_object(&digest))?;
                        self.find(Code::BlobCorrupt, digest, detail, repaired);
                    }
                    // It was collected meanwhile.
                    Err(Fault::Gone) => {}
                    Err(fault) => {
                        self.find(Code::BlobUnreadable, digest, fault.to_string(), false);
                    }
                }
            }
            progress(Progress { blobs: seen.blobs, bytes: seen.bytes, ..expected });
        }
    }

    /// Blobs of repositories that are neither objects nor manifests.
    fn nowhere(&mut self) -> Result<()> {
        let nowhere: Vec<Digest> = self.connection.query(
            "SELECT digest FROM blob WHERE place IS NULL
                 AND NOT EXISTS (SELECT 1 FROM manifest WHERE manifest.digest = blob.digest)
                 AND EXISTS (SELECT 1 FROM repository_blob WHERE repository_blob.digest = blob.digest)",
            values![],
            |row| row.get(0),
        )?;
        for digest in nowhere {
            let detail = format!("no object holds them, {}", self.held_by(&digest)?);
            let repaired = self.mend(|mend| mend.forget_object(&digest))?;
            self.find(Code::BlobMissing, digest, detail, repaired);
        }
        Ok(())
    }

    /// Uploads of which the end is an object.
    fn tails(&mut self, remote: &Remote) -> Result<()> {
        for (id, place) in parts::tails(self.connection)? {
            if remote.size(&place)?.is_none() && parts::tail(self.connection, &id)? == Some(place) {
                let repaired = self.mend(|mend| mend.end_upload_in_bucket(&id))?;
                self.find(Code::UploadDamaged, id, "the object with its last bytes is not there", repaired);
            }
        }
        Ok(())
    }
}

/// The digest of what is in an object.
async fn hash(bucket: &Bucket, digest: &Digest, place: &Place, size: u64) -> Result<Digest, Fault> {
    let mut hasher = Hasher::new(digest.algorithm());
    if size > 0 {
        let (_, mut chunks) = bucket.get(place, 0..size).await?;
        while let Some(chunk) = chunks.try_next().await? {
            hasher.update(&chunk);
        }
    }
    Ok(hasher.finish())
}
