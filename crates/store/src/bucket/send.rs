//! Sending what is proven, or a part of it, from a local file into an object.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::OwnedSemaphorePermit;

use super::{Bucket, Completed, Fault, Place};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::names::doomed;
use crate::names::parts::LEASE;

/// How many parts of one file are under way at a time.
const ABREAST: usize = 3;
/// The most parts of an object that services take.
pub(crate) const MOST_PARTS: u64 = 10_000;
/// Up to here all parts of an upload have the same size, as some services want it; those behind are larger, so that the
/// parts suffice for blobs that those services would not take anyway.
const EQUAL_PARTS: usize = 5_000;
/// How much larger.
const GROWTH: u64 = 4;
/// When the object of a name that was written down is removed unless something refers to it: much longer than sending
/// takes, even if its replica stood still for a while.
pub(crate) const INTENT: Duration = Duration::from_secs(24 * 3600);

/// How many bytes the part `index` of an upload has whose first parts have `part_size` bytes, unless it is the last.
pub(crate) fn part_len(part_size: u64, index: usize) -> u64 {
    if index < EQUAL_PARTS { part_size } else { part_size.saturating_mul(GROWTH) }
}

/// How many bytes so many parts of an upload have.
pub(crate) fn parts_len(part_size: u64, count: usize) -> u64 {
    let equal = count.min(EQUAL_PARTS) as u64;
    let larger = count.saturating_sub(EQUAL_PARTS) as u64;
    equal.saturating_mul(part_size).saturating_add(larger.saturating_mul(part_len(part_size, EQUAL_PARTS)))
}

/// A piece of a file in memory, within the limit for all of them.
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    room: Room,
}

impl Piece {
    pub(crate) fn into_parts(self) -> (Bytes, Room) {
        (self.bytes, self.room)
    }
}

/// Room for what is being sent, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room(#[allow(dead_code, reason = "held, not used")] OwnedSemaphorePermit);

/// Waits for room for `len` bytes. More than there is room for altogether go when nothing else does.
pub(crate) async fn room(bucket: &Bucket, len: u64) -> Result<Room> {
    let most = bucket.options.memory.min(u64::from(u32::MAX));
    let permits = u32::try_from(len.min(most)).unwrap_or(u32::MAX);
    let room = Arc::clone(&bucket.memory).acquire_many_owned(permits).await;
    room.map(Room).map_err(|_| Error::closed())
}

/// Reads a piece of a file, as soon as there is room for it.
pub(crate) async fn piece(
    core: &Core,
    bucket: &Bucket,
    file: &Arc<File>,
    from: u64,
    len: u64,
) -> Result<Piece> {
    let room = room(bucket, len).await?;
    let (file, len) = (Arc::clone(file), usize::try_from(len).map_err(std::io::Error::other)?);
    let read = core.blocking(move || {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, from)?;
        Ok(Bytes::from(bytes))
    });
    Ok(Piece { bytes: read.await?, room })
}

/// The end of a chunk, `len` bytes that were sent to an object: from the local file of it, or else from there.
pub(crate) async fn end(core: &Core, bucket: &Bucket, place: &Place, len: u64) -> Result<Piece, Fault> {
    if let Some(file) = bucket.take_end(place) {
        return piece(core, bucket, &file, 0, len).await.map_err(Fault::here);
    }
    let room = room(bucket, len).await.map_err(Fault::here)?;
    Ok(Piece { bytes: bucket.get_all(place, len).await?.into(), room })
}

/// Makes an object of the first `size` bytes of a file, whose name is written down before anything is sent. What becomes
/// of it is decided by the transaction that refers to it; if there is none, it is removed after [`INTENT`].
pub(crate) async fn file(
    core: &Arc<Core>,
    bucket: &Arc<Bucket>,
    file: &Arc<File>,
    size: u64,
) -> Result<Place> {
    let place = intend(core).await?;
    let sent = match size <= bucket.options.part_size {
        true => {
            async { Ok(bucket.put(&place, piece(core, bucket, file, 0, size).await?.bytes).await?) }.await
        }
        false => in_parts(core, bucket, &place, file, size).await,
    };
    match sent {
        Ok(()) => Ok(place),
        Err(error) => {
            // Nothing refers to it and nothing will; but a request may still be under way.
            let given_up = place.clone();
            let _ = core.database.change(move |tx| doomed::put(tx, &given_up, None, LEASE)).await;
            Err(error)
        }
    }
}

/// Writes down the name of an object that is about to be made.
async fn intend(core: &Arc<Core>) -> Result<Place> {
    let place = Place::draw()?;
    let written = place.clone();
    core.database.change(move |tx| doomed::put(tx, &written, None, INTENT)).await?;
    Ok(place)
}

async fn in_parts(
    core: &Arc<Core>,
    bucket: &Arc<Bucket>,
    place: &Place,
    file: &Arc<File>,
    size: u64,
) -> Result<()> {
    let multipart = bucket.create_multipart(place).await?;
    let (named, id) = (place.clone(), multipart.clone());
    core.database.change(move |tx| doomed::in_parts(tx, &named, &id)).await?;
    // The size is known, so that all parts can be equal.
    let part = bucket.options.part_size.max(size.div_ceil(MOST_PARTS));
    let count = usize::try_from(size.div_ceil(part)).map_err(std::io::Error::other)?;
    let multipart = &multipart;
    let tags: Vec<String> = futures_util::stream::iter(0..count)
        .map(|index| async move {
            let from = index as u64 * part;
            let piece = piece(core, bucket, file, from, part.min(size - from)).await?;
            Ok::<_, Error>(bucket.put_part(place, multipart, index, piece.bytes).await?)
        })
        .buffered(ABREAST)
        .try_collect()
        .await?;
    match bucket.complete(place, multipart, tags, size).await? {
        // Nobody else knows the name: what was completed before was so by this very request.
        Completed::Surely | Completed::Perhaps => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_until_there_are_very_many() {
        const PART: u64 = 16 << 20;
        for count in [0, 1, 4, 4_999, 5_000, 5_001, 10_000] {
            let sum: u64 = (0..count).map(|index| part_len(PART, index)).sum();
            assert_eq!(parts_len(PART, count), sum, "{count}");
        }
        assert!(parts_len(PART, 10_000) > 390 << 30);
    }
}
