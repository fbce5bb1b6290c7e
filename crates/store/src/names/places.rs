//! Which object of a bucket holds the bytes of a blob. A row without one is about a file that is named after its digest,
//! or, with a bucket, about bytes that are in the row of a manifest.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use deltaport_oci::Digest;

use super::sql::{Connection, values};
use super::{Tx, doomed};
use crate::bucket::Place;
use crate::error::{Error, Result};

/// How long the object of a blob stays that was collected: whoever reads it at that time, or remembers where it is, comes
/// to an end.
const LINGER: Duration = Duration::from_secs(3600);

/// What is known of a blob's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) size: u64,
    /// The object that holds them, if one does.
    pub(crate) place: Option<Place>,
}

/// Where the bytes of a digest are.
pub(crate) fn find(connection: &Connection, digest: &Digest) -> Result<Option<Placed>> {
    connection.optional("SELECT size, place FROM blob WHERE digest = ?1", values![digest], |row| {
        Ok(Placed { size: row.get(0)?, place: row.get(1)? })
    })
}

/// The bytes of a manifest, whichever repositories have it.
pub(crate) fn manifest_bytes(connection: &Connection, digest: &Digest) -> Result<Option<Bytes>> {
    connection
        .optional("SELECT bytes FROM manifest WHERE digest = ?1 LIMIT 1", values![digest], |row| row.get(0))
}

/// Writes down that an object, which is made and was told, holds the bytes of `digest`. When another holds them already,
/// this one is removed instead. The name must stand among the doomed, or be about to leave a row of an upload.
pub(crate) fn put(tx: &Tx<'_>, digest: &Digest, size: u64, place: &Place) -> Result<()> {
    let taken = tx.connection.execute(
        "INSERT INTO blob (digest, size, created, place) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (digest) DO UPDATE SET place = excluded.place WHERE blob.place IS NULL",
        values![digest, size, tx.now, place],
    )?;
    if taken == 0 {
        doomed::put(tx, place, None, Duration::ZERO)?;
    }
    Ok(())
}

/// Has the object removed, in a while, that holds the bytes of a blob whose row goes.
pub(crate) fn doom(tx: &Tx<'_>, digest: &Digest) -> Result<()> {
    let place: Option<Option<Place>> =
        tx.connection
            .optional("SELECT place FROM blob WHERE digest = ?1", values![digest], |row| row.get(0))?;
    match place.flatten() {
        Some(place) => doomed::put(tx, &place, None, LINGER),
        None => Ok(()),
    }
}

/// Shows every blob that is an object, in the order of the names of the objects.
pub(crate) fn each(
    connection: &Connection,
    mut visit: impl FnMut(Place, Digest, u64) -> Result<()>,
) -> Result<()> {
    connection.each(
        "SELECT place, digest, size FROM blob WHERE place IS NOT NULL ORDER BY place",
        values![],
        |row| {
            visit(row.get(0)?, row.get(1)?, row.get(2)?)?;
            Ok(ControlFlow::Continue(()))
        },
    )
}

/// Blobs that are objects, in the order of the names of the objects, behind `last`, at most `limit`.
pub(crate) fn after(
    connection: &Connection,
    last: Option<&Place>,
    limit: usize,
) -> Result<Vec<(Digest, Place, u64)>> {
    connection.query(
        "SELECT digest, place, size FROM blob WHERE place > ?1 ORDER BY place LIMIT ?2",
        values![*last.map_or("", Place::as_str), limit],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
}

/// Fails when the bytes of blobs are certainly not where the store is told to look for them.
pub(crate) fn check(connection: &Connection, in_bucket: bool) -> Result<()> {
    let objects = connection.exists("SELECT 1 FROM blob WHERE place IS NOT NULL LIMIT 1", values![])?;
    let wrong = match in_bucket {
        false => objects,
        true => !objects && connection.exists("SELECT 1 FROM repository_blob LIMIT 1", values![])?,
    };
    let text = match (wrong, in_bucket) {
        (false, _) => return Ok(()),
        (true, true) => "the bytes that names tell of are in a directory and not in a bucket",
        (true, false) => "the bytes that names tell of are in a bucket and not in a directory",
    };
    Err(Error::Unusable(format!("{text}; correct storage.blobs, or move them with `deltaport migrate`")))
}
