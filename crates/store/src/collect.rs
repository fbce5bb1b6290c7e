//! The collector: looks at what may have become unreferenced, and removes what is.
//!
//! It goes through the review queue in small steps and holds nothing between them. A link is decided in one
//! transaction. Bytes are decided in one transaction that forgets them, and their file goes after it, under the lock
//! that whoever puts the same bytes in their place takes too; their entry leaves the queue last, so that after a crash
//! the file is found again.

use std::sync::Arc;
use std::time::SystemTime;

use deltaport_oci::Digest;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use crate::bucket::Bucket;
use crate::core::Core;
use crate::error::Result;
use crate::names::doomed::{self, Doomed};
use crate::names::review::{self, Entry, Kind, Verdict};
use crate::names::{database, milliseconds, parts, sessions};
use crate::uploads::{self, Turn};
use crate::{disk, faults, partial};

/// How many entries one step looks at.
const STEP: usize = 64;
/// How many objects are being removed at a time.
const REMOVED_ABREAST: usize = 8;

/// What one run of the collector did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Links from repositories to unreferenced blobs that were removed.
    pub links: u64,
    /// Abandoned uploads that were removed.
    pub uploads: u64,
    /// Beginnings of blobs that nobody has gone on with and that were removed.
    pub partials: u64,
}

/// One run, as of `now`.
pub(crate) async fn collect(core: Arc<Core>, now: SystemTime) -> Result<Collected> {
    let _alone = core.collecting.lock().await;
    // Rows have the time of the clock of a shared database.
    let now = core.database.by_its_clock(now).await?;
    let mut collected = Collected {
        uploads: expire_uploads(&core, now).await?,
        partials: partial::expire(&core, now).await?,
        ..Collected::default()
    };
    // Before others are forgotten, so that those stay at least until the next run.
    if let Some(bucket) = &core.bucket {
        remove_objects(&core, bucket, now).await?;
    }
    let until =
        milliseconds(now - core.grace.min(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()));
    let mut last = None;
    while let Some(entries) = due(&core, Kind::Links, until, last).await? {
        last = entries.last().copied();
        collected.links += review_links(&core, entries).await?;
    }
    let mut last = None;
    while let Some(entries) = due(&core, Kind::Bytes, until, last).await? {
        last = entries.last().copied();
        review_bytes(&core, entries, &mut collected).await?;
    }
    compact_journal(&core, JOURNAL_SLACK).await?;
    if let Some(shared) = core.database.shared() {
        shared.forget_outcomes().await?;
    }
    Ok(collected)
}

/// The next step's entries; `None` at the end of the queue.
async fn due(core: &Core, kind: Kind, until: i64, last: Option<Entry>) -> Result<Option<Vec<Entry>>> {
    let entries = core.database.read(move |names| review::due(names, kind, until, last, STEP)).await?;
    Ok(Some(entries).filter(|entries| !entries.is_empty()))
}

async fn review_links(core: &Core, entries: Vec<Entry>) -> Result<u64> {
    core.database
        .change(move |tx| {
            let mut removed = 0;
            for entry in &entries {
                removed += u64::from(review::decide_link(tx, entry)?);
            }
            Ok(removed)
        })
        .await
}

async fn review_bytes(core: &Arc<Core>, entries: Vec<Entry>, collected: &mut Collected) -> Result<()> {
    if let Some(bucket) = &core.bucket {
        return forget_objects(core, bucket, entries, collected).await;
    }
    let guards = core.locks.all(entries.iter().map(|entry| &entry.digest)).await;
    let doomed = core
        .database
        .change(move |tx| {
            let mut doomed = Vec::new();
            for entry in &entries {
                if let Verdict::Remove(size) = review::decide_bytes(tx, entry)? {
                    doomed.push((*entry, size));
                }
            }
            Ok(doomed)
        })
        .await?;
    if doomed.is_empty() {
        return Ok(());
    }
    let removing = Arc::clone(core);
    let digests: Vec<Digest> = doomed.iter().map(|(entry, _)| entry.digest).collect();
    core.blocking(move || remove_files(&removing, &digests)).await?;
    drop(guards);
    collected.blobs += doomed.len() as u64;
    collected.bytes += doomed.iter().filter_map(|(_, size)| *size).sum::<u64>();
    core.database
        .change(move |tx| {
            for (entry, _) in &doomed {
                review::settle(tx, entry)?;
            }
            Ok(())
        })
        .await
}

/// The same when bytes are in a bucket: with their rows go their entries, for what is to be removed is written down in the
/// same transaction.
async fn forget_objects(
    core: &Core,
    bucket: &Bucket,
    entries: Vec<Entry>,
    collected: &mut Collected,
) -> Result<()> {
    let forgotten = core
        .database
        .change(move |tx| {
            let mut forgotten = Vec::new();
            for entry in &entries {
                if let Verdict::Remove(size) = review::decide_bytes(tx, entry)? {
                    review::settle(tx, entry)?;
                    forgotten.extend(size.map(|size| (entry.digest, size)));
                }
            }
            Ok(forgotten)
        })
        .await?;
    for (digest, size) in forgotten {
        let faults = core.faults.clone();
        core.blocking(move || Ok(faults.at(faults::COLLECT_UNLINK)?)).await?;
        bucket.remembered.forget(&digest);
        collected.blobs += 1;
        collected.bytes += size;
    }
    Ok(())
}

/// Removes objects that nothing refers to. What a service does not take now is tried again by the next run.
async fn remove_objects(core: &Arc<Core>, bucket: &Bucket, now: SystemTime) -> Result<()> {
    let (now, mut last) = (milliseconds(now), String::new());
    loop {
        let behind = last.clone();
        let step = core.database.change(move |tx| doomed::take(tx, now, &behind, STEP)).await?;
        let Some(end) = step.last() else { return Ok(()) };
        last = end.place.to_string();
        let removed = futures_util::stream::iter(step)
            .map(|doomed| async move { (remove_object(core, bucket, &doomed).await, doomed.place) })
            .buffer_unordered(REMOVED_ABREAST)
            .collect::<Vec<_>>()
            .await;
        let mut failed = None;
        let mut places = Vec::new();
        for (outcome, place) in removed {
            match outcome {
                Ok(()) => places.push(place),
                Err(error) => failed = Some(error),
            }
        }
        core.database.change(move |tx| places.iter().try_for_each(|place| doomed::remove(tx, place))).await?;
        if let Some(error) = failed {
            tracing::warn!(%error, "objects that nothing refers to could not be removed; they are tried again");
            return Ok(());
        }
    }
}

async fn remove_object(core: &Core, bucket: &Bucket, doomed: &Doomed) -> Result<()> {
    if let Some(multipart) = &doomed.multipart {
        bucket.abort(&doomed.place, multipart).await?;
    }
    bucket.delete(&doomed.place).await?;
    core.faults.at(faults::COLLECT_UNLINKED)?;
    Ok(())
}

/// Removes the files of blobs whose rows are gone, durably.
fn remove_files(core: &Core, digests: &[Digest]) -> Result<()> {
    let mut directories = std::collections::BTreeSet::new();
    for digest in digests {
        core.faults.at(faults::COLLECT_UNLINK)?;
        let path = core.layout.blob(digest);
        core.recent.forget(digest);
        if disk::remove_if_there(&path)? {
            directories.extend(path.parent().map(ToOwned::to_owned));
        }
        core.faults.at(faults::COLLECT_UNLINKED)?;
    }
    for directory in directories {
        disk::sync_directory(&directory)?;
    }
    Ok(())
}

/// Ends uploads that nobody has touched for long.
async fn expire_uploads(core: &Arc<Core>, now: SystemTime) -> Result<u64> {
    let before = milliseconds(now.checked_sub(core.upload_expiry).unwrap_or(SystemTime::UNIX_EPOCH));
    let (mut ended, mut last) = (0, String::new());
    loop {
        let ids = core
            .database
            .read({
                let last = last.clone();
                move |names| sessions::expired(names, before, &last, STEP)
            })
            .await?;
        let Some(end) = ids.last() else { return Ok(ended) };
        last = end.clone();
        for id in ids {
            if core.bucket.is_some() {
                ended += u64::from(core.database.change(move |tx| parts::expire(tx, &id, before)).await?);
                continue;
            }
            let Some(turn) = Turn::take(core, &id) else { continue };
            ended += u64::from(uploads::expire(core, &turn, before).await?);
        }
    }
}

/// How much larger than when it was last compacted the journal may be, besides three times that size, in bytes.
const JOURNAL_SLACK: u64 = 16 << 20;

/// Writes the journal anew when most of it is history. Changes go on meanwhile: they stand behind the mark from which
/// the old journal's lines are copied.
pub(crate) async fn compact_journal(core: &Arc<Core>, slack: u64) -> Result<()> {
    let Some(mark) = core.database.journal(|journal| journal.mark()).await? else { return Ok(()) };
    let base = core.database.read(database::journal_base).await?;
    if mark.len < 4 * base + slack {
        return Ok(());
    }
    rewrite_journal(core).await
}

/// Writes the journal anew, if there is one: what it says is what names say.
pub(crate) async fn rewrite_journal(core: &Arc<Core>) -> Result<()> {
    let Some(mark) = core.database.journal(|journal| journal.mark()).await? else { return Ok(()) };
    let layout = core.layout.clone();
    let snapshot = core
        .database
        .read(move |names| {
            // One statement after another would see different states.
            names.batch("BEGIN")?;
            let written = database::snapshot(&layout, names, mark.last);
            names.batch("ROLLBACK")?;
            let file = written?;
            file.sync_all()?;
            Ok(file)
        })
        .await?;
    let layout = core.layout.clone();
    let replaced = core
        .database
        .journal(move |journal| {
            let base = snapshot.metadata()?.len();
            journal.replace(&layout, snapshot, mark).map(|()| base)
        })
        .await?;
    let Some(base) = replaced.transpose()? else { return Ok(()) };
    core.database.change(move |tx| database::set_journal_base(tx.connection, base)).await
}
