//! Rows of uploads whose bytes go to a bucket: parts that are there already, what is behind the last of them, and who may
//! go on.
//!
//! Whoever works on an upload holds a lease on its row, under a name that nobody else has. Everything is recorded on
//! condition that the lease is still his; when he stops renewing it, because he is dead or slow, another may take it.

use std::time::Duration;

use deltaport_oci::{Digest, RepositoryName};

use super::sql::{Connection, values};
use super::{Tx, doomed, places};
use crate::bucket::Place;
use crate::bucket::send::INTENT;
use crate::error::{Error, Result};

/// How long a lease lasts that is not renewed.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// What of an upload is where, as of the last record.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Bytes recorded.
    pub(crate) position: u64,
    /// The saved hasher after them.
    pub(crate) state: Vec<u8>,
    /// How many bytes its first parts have.
    pub(crate) part_size: u64,
    /// The object that parts are sent to, and the service's name for them; `None` before the first.
    pub(crate) object: Option<(Place, String)>,
    /// The tags of the parts that are there.
    pub(crate) tags: Vec<String>,
    /// What is behind the last part.
    pub(crate) tail: Tail,
    /// Whether a lease has run out: whoever had it may still send things, so that what comes of the parts has to be read.
    pub(crate) doubtful: bool,
    /// The name of an object that is the holder's alone to make.
    pub(crate) spare: Place,
}

/// The bytes behind the last whole part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Few or none, in the row.
    Row(Vec<u8>),
    /// An object of its own.
    Object(Place),
}

impl Default for Tail {
    fn default() -> Self {
        Self::Row(Vec::new())
    }
}

/// Takes the lease on an upload of this repository and owner for `holder`. Fails with [`Error::NotFound`] when there is
/// no such upload and with [`Error::Busy`] when somebody has the lease. `part_size` is what the upload's parts will have
/// unless they have another already.
pub(crate) fn acquire(
    tx: &Tx<'_>,
    id: &str,
    repository: &RepositoryName,
    owner: &str,
    holder: &Place,
    part_size: u64,
) -> Result<Progress> {
    let held: Option<(Option<String>, i64, Option<Place>)> = tx.connection.optional(
        "SELECT holder, until, spare FROM upload WHERE id = ?1 AND repository = ?2 AND owner = ?3",
        values![id, repository, owner],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let (held, until, spare) = held.ok_or(Error::NotFound)?;
    let lapsed = held.is_some();
    if lapsed && until > tx.now {
        return Err(Error::Busy);
    }
    if let Some(spare) = spare {
        // Whoever had the lease may be about to make it.
        doomed::put(tx, &spare, None, INTENT)?;
    }
    tx.connection.execute(
        "UPDATE upload SET holder = ?2, until = ?3, spare = ?2, part_size = coalesce(part_size, ?4),
             doubtful = CASE WHEN ?5 = 1 THEN 1 ELSE doubtful END
         WHERE id = ?1",
        values![id, holder, end(tx), part_size, lapsed],
    )?;
    let tags = tx.connection.query(
        "SELECT tag FROM upload_part WHERE upload = ?1 ORDER BY number",
        values![id],
        |row| row.get(0),
    )?;
    tx.connection.one(
        "SELECT position, state, part_size, object, multipart, rest, tail, doubtful, spare FROM upload WHERE id = ?1",
        values![id],
        |row| {
            let object: Option<Place> = row.get(3)?;
            let multipart: Option<String> = row.get(4)?;
            let tail: Option<Place> = row.get(6)?;
            let rest: Option<Vec<u8>> = row.get(5)?;
            Ok(Progress {
                position: row.get(0)?,
                state: row.get(1)?,
                part_size: row.get(2)?,
                object: object.zip(multipart),
                tags,
                tail: tail.map_or_else(|| Tail::Row(rest.unwrap_or_default()), Tail::Object),
                doubtful: row.get(7)?,
                spare: row.get(8)?,
            })
        },
    )
}

/// When a lease ends that begins now.
fn end(tx: &Tx<'_>) -> i64 {
    tx.now.saturating_add(i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX))
}

/// Goes on holding a lease. Fails with [`Error::Busy`] when it is another's, and with [`Error::NotFound`] when the upload
/// is gone; so do all that follow.
pub(crate) fn renew(tx: &Tx<'_>, id: &str, holder: &Place) -> Result<()> {
    let renewed = tx.connection.execute(
        "UPDATE upload SET until = ?3, touched = ?4 WHERE id = ?1 AND holder = ?2",
        values![id, holder, end(tx), tx.now],
    )?;
    if renewed > 0 {
        return Ok(());
    }
    match super::sessions::exists(tx.connection, id)? {
        true => Err(Error::Busy),
        false => Err(Error::NotFound),
    }
}

/// Gives the lease back.
pub(crate) fn release(tx: &Tx<'_>, id: &str, holder: &Place) -> Result<()> {
    let spare: Option<Option<Place>> = tx.connection.optional(
        "UPDATE upload SET holder = NULL, until = 0 WHERE id = ?1 AND holder = ?2 RETURNING spare",
        values![id, holder],
        |row| row.get(0),
    )?;
    if let Some(spare) = spare.flatten() {
        // It may have been made, and a request that is still under way may make it.
        doomed::put(tx, &spare, None, LEASE)?;
        tx.connection.execute("UPDATE upload SET spare = NULL WHERE id = ?1", values![id])?;
    }
    Ok(())
}

/// Says that the object that was the holder's to make was never begun, so that nobody has to remove it.
pub(crate) fn forget_spare(tx: &Tx<'_>, id: &str, holder: &Place) -> Result<()> {
    tx.connection
        .execute("UPDATE upload SET spare = NULL WHERE id = ?1 AND holder = ?2", values![id, holder])?;
    Ok(())
}

/// Records to which object parts are sent.
pub(crate) fn begin(tx: &Tx<'_>, id: &str, holder: &Place, object: &Place, multipart: &str) -> Result<()> {
    renew(tx, id, holder)?;
    tx.connection.execute(
        "UPDATE upload SET object = ?2, multipart = ?3 WHERE id = ?1",
        values![id, object, multipart],
    )?;
    Ok(())
}

/// Records a part that is there, and with it everything up to `position`: there is no tail then.
pub(crate) fn add(
    tx: &Tx<'_>,
    id: &str,
    holder: &Place,
    part: (usize, &str),
    position: u64,
    state: &[u8],
) -> Result<()> {
    renew(tx, id, holder)?;
    tx.connection.execute(
        "INSERT INTO upload_part (upload, number, tag) VALUES (?1, ?2, ?3)",
        values![id, part.0, part.1],
    )?;
    forget_tail(tx, id)?;
    tx.connection
        .execute("UPDATE upload SET position = ?2, state = ?3 WHERE id = ?1", values![id, position, state])?;
    Ok(())
}

/// Records what is behind the last part, and gives the lease back. A tail that is an object is the spare one.
pub(crate) fn rest(
    tx: &Tx<'_>,
    id: &str,
    holder: &Place,
    tail: &Tail,
    position: u64,
    state: &[u8],
) -> Result<()> {
    renew(tx, id, holder)?;
    forget_tail(tx, id)?;
    match tail {
        Tail::Row(bytes) => tx.connection.execute(
            "UPDATE upload SET position = ?2, state = ?3, rest = ?4 WHERE id = ?1",
            values![id, position, state, bytes[..]],
        )?,
        Tail::Object(place) => tx.connection.execute(
            "UPDATE upload SET position = ?2, state = ?3, tail = ?4, spare = NULL WHERE id = ?1",
            values![id, position, state, place],
        )?,
    };
    release(tx, id, holder)
}

fn forget_tail(tx: &Tx<'_>, id: &str) -> Result<()> {
    if let Some(tail) = tail(tx.connection, id)? {
        doomed::put(tx, &tail, None, LEASE)?;
    }
    tx.connection.execute("UPDATE upload SET tail = NULL, rest = NULL WHERE id = ?1", values![id])?;
    Ok(())
}

/// Ends an upload with a blob: the object `place`, which is one of the upload's, holds the bytes of `digest`.
pub(crate) fn finish(
    tx: &mut Tx<'_>,
    id: &str,
    holder: &Place,
    place: &Place,
    blob: (&Digest, u64),
    repository: &RepositoryName,
) -> Result<()> {
    renew(tx, id, holder)?;
    let (digest, size) = blob;
    end_but(tx, id, Some(place))?;
    places::put(tx, digest, size, place)?;
    super::blobs::link(tx, repository, digest)
}

/// Ends an upload and has everything of it removed; for who holds the lease.
pub(crate) fn cancel(tx: &Tx<'_>, id: &str, holder: &Place) -> Result<()> {
    renew(tx, id, holder)?;
    end_but(tx, id, None)
}

/// Ends an upload that nobody holds if nobody touched it after `before`; whether it was ended.
pub(crate) fn expire(tx: &Tx<'_>, id: &str, before: i64) -> Result<bool> {
    let idle = tx.connection.exists(
        "SELECT 1 FROM upload WHERE id = ?1 AND touched <= ?2 AND (holder IS NULL OR until <= ?3)",
        values![id, before, tx.now],
    )?;
    if idle {
        end_but(tx, id, None)?;
    }
    Ok(idle)
}

/// Removes the row of an upload, and has its objects removed, but for the one that becomes a blob.
pub(crate) fn end_but(tx: &Tx<'_>, id: &str, kept: Option<&Place>) -> Result<()> {
    let objects: Option<[Option<Place>; 3]> = tx.connection.optional(
        "SELECT object, spare, tail FROM upload WHERE id = ?1",
        values![id],
        |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]),
    )?;
    let Some(objects) = objects else { return Ok(()) };
    let multipart: Option<String> =
        tx.connection.one("SELECT multipart FROM upload WHERE id = ?1", values![id], |row| row.get(0))?;
    let [object, spare, tail] = objects;
    for (place, multipart) in [(object, multipart.as_deref()), (spare, None), (tail, None)] {
        if let Some(place) = place.filter(|place| Some(place) != kept) {
            // A request of somebody who had the lease may still be under way.
            doomed::put(tx, &place, multipart, LEASE)?;
        }
    }
    tx.connection.execute("DELETE FROM upload_part WHERE upload = ?1", values![id])?;
    super::sessions::end(tx, id).map(|_| ())
}

/// The uploads whose last bytes are an object, and which.
pub(crate) fn tails(connection: &Connection) -> Result<Vec<(String, Place)>> {
    connection.query("SELECT id, tail FROM upload WHERE tail IS NOT NULL ORDER BY id", values![], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// The object with the last bytes of an upload.
pub(crate) fn tail(connection: &Connection, id: &str) -> Result<Option<Place>> {
    let found: Option<Option<Place>> =
        connection.optional("SELECT tail FROM upload WHERE id = ?1", values![id], |row| row.get(0))?;
    Ok(found.flatten())
}
