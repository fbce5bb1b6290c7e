//! Names of objects of a bucket that are to be removed: each is written down before its object is made, leaves the list
//! in the transaction that refers to it, and comes back when nothing does any more.
//!
//! Whoever removes objects takes a name first. What was taken can never be referred to again, so that a replica which
//! comes back after a long time finds its name gone and not its object missing later.

use std::time::Duration;

use super::Tx;
use super::sql::{Connection, values};
use crate::bucket::Place;
use crate::error::{Error, Result};

/// An object to be removed, or the parts of one.
#[derive(Clone, Debug)]
pub(crate) struct Doomed {
    pub(crate) place: Place,
    /// The service's name for the parts that it may have been sent in.
    pub(crate) multipart: Option<String>,
}

/// Writes down an object that is about to be made, or that nothing refers to any more; it is removed after `wait` unless
/// something refers to it then.
pub(crate) fn put(tx: &Tx<'_>, place: &Place, multipart: Option<&str>, wait: Duration) -> Result<()> {
    let due = tx.now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
    tx.connection.execute(
        "INSERT INTO doomed (place, multipart, due, taken) VALUES (?1, ?2, ?3, 0)
         ON CONFLICT (place) DO UPDATE SET due = excluded.due",
        values![place, multipart, due],
    )?;
    Ok(())
}

/// Adds in which parts it is sent.
pub(crate) fn in_parts(tx: &Tx<'_>, place: &Place, multipart: &str) -> Result<()> {
    tx.connection.execute("UPDATE doomed SET multipart = ?2 WHERE place = ?1", values![place, multipart])?;
    Ok(())
}

/// Takes a name from the list because something refers to it from now on. Fails when it has been taken for removal.
pub(crate) fn spare(tx: &Tx<'_>, place: &Place) -> Result<()> {
    let spared =
        tx.connection.execute("DELETE FROM doomed WHERE place = ?1 AND taken = 0", values![place])?;
    if spared == 1 {
        return Ok(());
    }
    Err(Error::unavailable("the bucket", format!("sending the object {place} took too long")))
}

/// Takes up to `limit` objects that are due at `now`, behind `last`, for removal. They stay on the list until they are
/// [removed](remove), so that another goes on with them if this one dies.
pub(crate) fn take(tx: &Tx<'_>, now: i64, last: &str, limit: usize) -> Result<Vec<Doomed>> {
    let due = tx.connection.query(
        "SELECT place, multipart FROM doomed WHERE due <= ?1 AND place > ?2 ORDER BY place LIMIT ?3",
        values![now, last, limit],
        |row| Ok(Doomed { place: row.get(0)?, multipart: row.get(1)? }),
    )?;
    for doomed in &due {
        tx.connection.execute("UPDATE doomed SET taken = 1 WHERE place = ?1", values![doomed.place])?;
    }
    Ok(due)
}

/// Strikes an object from the list that is removed.
pub(crate) fn remove(tx: &Tx<'_>, place: &Place) -> Result<()> {
    tx.connection.execute("DELETE FROM doomed WHERE place = ?1", values![place])?;
    Ok(())
}

/// Whether anything refers to an object, or will have it removed.
pub(crate) fn is_known(connection: &Connection, place: &Place) -> Result<bool> {
    connection.one(
        "SELECT EXISTS (SELECT 1 FROM blob WHERE place = ?1)
             OR EXISTS (SELECT 1 FROM doomed WHERE place = ?1)
             OR EXISTS (SELECT 1 FROM upload WHERE object = ?1 OR spare = ?1 OR tail = ?1)",
        values![place],
        |row| row.get(0),
    )
}
