//! Beginnings of blobs that are fetched: kept when the transfer breaks off, for whoever goes on with it, be it the next
//! process.
//!
//! A record beside the bytes says how many of them are durable and holds the hasher after them, so that nothing has to
//! be read again. It is written after the bytes were synced; a crash costs what came after it, and the file is cut to
//! what it says when somebody goes on. Syncing is done beside the writing: while one is under way bytes go on arriving,
//! and the next covers all of them.

mod keeper;
pub(crate) mod record;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use deltaport_oci::{Digest, Hasher, RepositoryName};
use tokio::sync::watch;

use crate::blobs::place::{self, Source};
use crate::blobs::{Blob, Size};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::inflow::Inflow;
use crate::layout::Layout;
use crate::names::{self, Tx};
use crate::open::files;
use crate::uploads::Turn;
use crate::{disk, faults};

use keeper::{Keeper, Keeping};
use record::Record;

/// How many records are read to find out whether one is about a repository.
const MAX_LOOKED_AT: usize = 256;

/// The beginning of a blob, on which bytes are put until it is whole: written and hashed on a blocking thread behind a
/// bounded queue of 4 MiB.
///
/// At least every 4 MiB, every ten seconds, and when this is dropped, how far it has come is recorded; whoever asks for
/// the same next goes on there. What must not be gone on with has to be [discarded](Self::discard).
#[derive(Debug)]
pub struct Partial {
    core: Arc<Core>,
    what: Arc<What>,
    inflow: Inflow,
    keeping: Keeping,
}

/// What a partial is the beginning of.
#[derive(Debug)]
struct What {
    key: String,
    repository: RepositoryName,
    digest: Digest,
    /// How many bytes the whole has, as soon as that is known.
    size: Mutex<Option<u64>>,
}

impl What {
    fn size(&self) -> Option<u64> {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partial {
    pub(crate) async fn open(core: &Arc<Core>, repository: &RepositoryName, digest: &Digest) -> Result<Self> {
        let key = Layout::partial_key(repository, digest);
        let turn = Turn::take(core, &key).ok_or(Error::Busy)?;
        let what = What { key, repository: repository.clone(), digest: *digest, size: Mutex::default() };
        let (opening, what) = (Arc::clone(core), Arc::new(what));
        let wanted = Arc::clone(&what);
        // The turn goes along: should the caller leave, nobody else comes in between.
        let (turn, file, record) = core
            .blocking(move || {
                opening.check_space()?;
                opening.faults.at(faults::STAGE_CREATE)?;
                let (file, record) = take_up(&opening.layout, &wanted)?;
                Ok((turn, file, record))
            })
            .await?;
        let (length, hasher) = match record {
            Some(record) => {
                *what.size.lock().unwrap_or_else(PoisonError::into_inner) = record.size;
                (record.length, record.hasher)
            }
            None => (0, Hasher::new(digest.algorithm())),
        };
        let inflow = Inflow::new(core, file, length, hasher);
        let keeping = Keeper::start(core, &what, &inflow, turn, length);
        Ok(Self { core: Arc::clone(core), what, inflow, keeping })
    }

    /// How many bytes are in the file and readable through [`Partial::reader`].
    pub fn length(&self) -> u64 {
        *self.inflow.progress().borrow()
    }

    /// How many bytes the whole has, if an earlier attempt or [`Partial::set_size`] has said so.
    pub fn size(&self) -> Option<u64> {
        self.what.size()
    }

    /// Says how many bytes the whole has; it is recorded with the next bytes.
    pub fn set_size(&self, size: u64) {
        *self.what.size.lock().unwrap_or_else(PoisonError::into_inner) = Some(size);
    }

    /// Queues the next bytes; waits while the queue is full; fails with what an earlier write, or the sync of what it
    /// wrote, failed with. When the future is dropped, either none of up to 4 MiB of bytes are queued or all are.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.inflow.push(bytes).await
    }

    /// [`Partial::length`], watched by those who read along.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.inflow.progress()
    }

    /// A handle on the growing bytes; it stays readable when they get their place, and when they are discarded.
    pub fn reader(&self) -> Blob {
        Blob::new(&self.core, Arc::clone(self.inflow.file()), Size::Growing(self.inflow.progress()))
    }

    /// Waits until everything that was written is in the file, and says whether that is the whole blob: whether it has
    /// the digest.
    pub async fn is_whole(&mut self) -> Result<bool> {
        let (_, hasher) = self.inflow.drain().await?;
        Ok(hasher.finish() == self.what.digest)
    }

    /// Verifies the digest, makes the bytes durable and visible as a blob of the repository, all before it returns; see
    /// [`Store::commit`](crate::Store::commit). Returns the size in bytes.
    ///
    /// When it fails with [`Error::Mismatch`] the bytes are gone; after another failure they are kept as when this is
    /// dropped.
    pub async fn commit(self) -> Result<u64> {
        let core = Arc::clone(&self.core);
        core.to_the_end(self.settle()).await
    }

    async fn settle(self) -> Result<u64> {
        let Self { core, what, inflow, keeping } = self;
        let (size, hasher) = match inflow.drain().await {
            Ok(written) => written,
            Err(error) => {
                keeping.close().await;
                return Err(error);
            }
        };
        let path = core.layout.partial(&what.key);
        let (proving, file, digest, from) =
            (Arc::clone(&core), Arc::clone(inflow.file()), what.digest, path.clone());
        match core.blocking(move || place::prove(&proving, &file, &from, hasher, &digest)).await {
            Ok(()) => {}
            Err(error @ Error::Mismatch { .. }) => {
                remove(&core, &what, keeping).await?;
                return Err(error);
            }
            Err(error) => {
                // What a failed sync has lost, the next one does not tell: nothing more may be recorded.
                keeping.leave().await?;
                return Err(error);
            }
        }
        let repository = what.repository.clone();
        let change = move |tx: &mut Tx<'_>| names::blobs::link(tx, &repository, &digest);
        let from = Source::File(path.clone());
        if let Err(error) = place::settle(&core, digest, size, from, change).await {
            match disk::size_if_there(&path) {
                // They have come as far as their place, and it is not here that one could go on.
                Ok(None) => remove(&core, &what, keeping).await?,
                _ => keeping.close().await,
            }
            return Err(error);
        }
        // The bytes have moved, or were there already.
        if let Err(error) = remove(&core, &what, keeping).await {
            tracing::warn!(%digest, %error, "what was kept of a transfer stays until the next start");
        }
        Ok(size)
    }

    /// Ends it and forgets everything. Handles that are being read stay readable.
    pub async fn discard(self) -> Result<()> {
        let Self { core, what, inflow, keeping } = self;
        inflow.stop(Error::closed());
        let forgetting = Arc::clone(&core);
        core.to_the_end(async move {
            inflow.rest().await;
            remove(&forgetting, &what, keeping).await
        })
        .await
    }

    /// Ends it and waits until how far it has come is recorded, as it also is when this is dropped. Somebody else can go
    /// on then.
    pub async fn close(self) {
        self.keeping.close().await;
    }
}

/// Opens the file of a partial where its record says that it ends; or begins again when the two do not fit. Blocks.
fn take_up(layout: &Layout, what: &What) -> io::Result<(File, Option<Record>)> {
    let path = layout.partial(&what.key);
    if let Some(record) = Record::read(layout, &what.key)?
        .filter(|record| record.repository == what.repository && record.digest == what.digest)
    {
        match File::options().read(true).write(true).open(&path) {
            Ok(file) => {
                let length = file.metadata()?.len();
                if length >= record.length {
                    // What is behind may not have reached the disk.
                    file.set_len(record.length)?;
                    // Somebody is interested in it: it expires later. That this fails does no harm.
                    let _ = file.set_modified(SystemTime::now());
                    return Ok((file, Some(record)));
                }
                tracing::warn!(digest = %what.digest, length, recorded = record.length, "a partial has lost bytes");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // A new file, for the old one may still be read. The record goes first: it must not meet bytes that it is not about.
    record::remove(layout, &what.key)?;
    disk::remove_if_there(&path)?;
    Ok((File::options().read(true).write(true).create_new(true).open(&path)?, None))
}

/// Ends the keeping and removes the files.
async fn remove(core: &Arc<Core>, what: &Arc<What>, keeping: Keeping) -> Result<()> {
    let turn = keeping.leave().await?;
    let (removing, what) = (Arc::clone(core), Arc::clone(what));
    core.blocking(move || {
        record::remove(&removing.layout, &what.key)?;
        disk::remove_if_there(&removing.layout.partial(&what.key))?;
        drop(turn);
        Ok(())
    })
    .await
}

/// Removes what there is of a partial, unless somebody works on it.
pub(crate) async fn forget(core: &Arc<Core>, repository: &RepositoryName, digest: &Digest) -> Result<()> {
    let key = Layout::partial_key(repository, digest);
    let Some(turn) = Turn::take(core, &key) else { return Ok(()) };
    let removing = Arc::clone(core);
    core.blocking(move || {
        record::remove(&removing.layout, &key)?;
        disk::remove_if_there(&removing.layout.partial(&key))?;
        drop(turn);
        Ok(())
    })
    .await
}

/// Whether there is the record of a partial for `repository` that nobody works on, as far as that can be told by reading
/// [`MAX_LOOKED_AT`] records.
pub(crate) async fn is_kept(core: &Arc<Core>, repository: &RepositoryName) -> Result<bool> {
    let (looking, repository) = (Arc::clone(core), repository.clone());
    core.blocking(move || {
        let mut read = 0;
        for path in files(looking.layout.partials())? {
            let Some(key) = Layout::key_of(&path).filter(|key| path == looking.layout.partial_record(key))
            else {
                continue;
            };
            if Turn::is_taken(&looking, key) {
                continue;
            }
            read += 1;
            let record = Record::read(&looking.layout, key)?;
            if read > MAX_LOOKED_AT || record.is_some_and(|record| record.repository == repository) {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await
}

/// Removes what has not been touched for the store's `partial_expiry` before `now`; returns how many partials.
pub(crate) async fn expire(core: &Arc<Core>, now: SystemTime) -> Result<u64> {
    let before = now.checked_sub(core.partial_expiry).unwrap_or(SystemTime::UNIX_EPOCH);
    let removing = Arc::clone(core);
    core.blocking(move || {
        let mut removed = 0;
        for key in untouched(&removing.layout, before)? {
            let Some(_turn) = Turn::take(&removing, &key) else { continue };
            // Somebody may have been at it in between.
            let path = removing.layout.partial(&key);
            if modified(&path)?.is_some_and(|at| at >= before) {
                continue;
            }
            let recorded = record::remove(&removing.layout, &key)?;
            removed += u64::from(disk::remove_if_there(&path)? || recorded);
        }
        Ok(removed)
    })
    .await
}

/// The keys of partials of which every file is older than `before`.
fn untouched(layout: &Layout, before: SystemTime) -> Result<Vec<String>> {
    let mut newest = BTreeMap::new();
    for path in files(layout.partials())? {
        if let (Some(key), Some(at)) = (Layout::key_of(&path), modified(&path)?) {
            let newest = newest.entry(key.to_owned()).or_insert(at);
            *newest = at.max(*newest);
        }
    }
    Ok(newest.into_iter().filter(|(_, at)| *at < before).map(|(key, _)| key).collect())
}

/// When a file was last written to; `None` when it is not there.
fn modified(path: &std::path::Path) -> io::Result<Option<SystemTime>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.modified()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes what a crash left that nobody can go on with: bytes that were never recorded, and records without bytes.
pub(crate) fn remove_leftovers(layout: &Layout) -> Result<()> {
    for path in files(layout.partials())? {
        let Some(key) = Layout::key_of(&path) else { continue };
        let other =
            if path == layout.partial(key) { layout.partial_record(key) } else { layout.partial(key) };
        if path == layout.new_partial_record(key) || disk::size_if_there(&other)?.is_none() {
            disk::remove_if_there(&path)?;
        }
    }
    Ok(())
}
