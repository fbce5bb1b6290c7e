//! Rows of uploads in progress.

use deltaport_oci::RepositoryName;

use super::Tx;
use super::sql::{Connection, values};
use crate::error::{Error, Result};

/// How far an upload has come, as of the last acknowledged chunk.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Bytes acknowledged.
    pub(crate) position: u64,
    /// The saved hasher after them.
    pub(crate) state: Vec<u8>,
}

/// Begins an upload unless its owner has `per_owner` already.
pub(crate) fn begin(
    tx: &Tx<'_>,
    id: &str,
    repository: &RepositoryName,
    owner: &str,
    state: &[u8],
    per_owner: usize,
) -> Result<()> {
    let count = "SELECT count(*) FROM upload WHERE owner = ?1";
    let open: usize = tx.connection.one(count, values![owner], |row| row.get(0))?;
    if open >= per_owner {
        return Err(Error::TooManyUploads);
    }
    tx.connection.execute(
        "INSERT INTO upload (id, repository, owner, position, state, touched)
         VALUES (?1, ?2, ?3, 0, ?4, ?5)",
        values![id, repository, owner, state, tx.now],
    )?;
    Ok(())
}

/// An upload of this repository and owner.
pub(crate) fn find(
    connection: &Connection,
    id: &str,
    repository: &RepositoryName,
    owner: &str,
) -> Result<Option<Session>> {
    connection.optional(
        "SELECT position, state FROM upload WHERE id = ?1 AND repository = ?2 AND owner = ?3",
        values![id, repository, owner],
        |row| Ok(Session { position: row.get(0)?, state: row.get(1)? }),
    )
}

/// Records how far an upload has come.
pub(crate) fn advance(tx: &Tx<'_>, id: &str, position: u64, state: &[u8]) -> Result<()> {
    let updated = tx.connection.execute(
        "UPDATE upload SET position = ?2, state = ?3, touched = ?4 WHERE id = ?1",
        values![id, position, state, tx.now],
    )?;
    if updated == 0 { Err(Error::NotFound) } else { Ok(()) }
}

/// Ends an upload; `false` when there was none.
pub(crate) fn end(tx: &Tx<'_>, id: &str) -> Result<bool> {
    Ok(tx.connection.execute("DELETE FROM upload WHERE id = ?1", values![id])? > 0)
}

/// Uploads that nobody touched after `before`, those behind `last` in byte order.
pub(crate) fn expired(connection: &Connection, before: i64, last: &str, limit: usize) -> Result<Vec<String>> {
    connection.query(
        "SELECT id FROM upload WHERE touched <= ?1 AND id > ?2 ORDER BY id LIMIT ?3",
        values![before, last, limit],
        |row| row.get(0),
    )
}

/// Uploads of `owner` that nobody touched after `before`, the longest idle first.
pub(crate) fn idle(connection: &Connection, owner: &str, before: i64) -> Result<Vec<String>> {
    connection.query(
        "SELECT id FROM upload WHERE owner = ?1 AND touched <= ?2 ORDER BY touched, id",
        values![owner, before],
        |row| row.get(0),
    )
}

/// Ends an upload if still nobody touched it after `before`.
pub(crate) fn expire(tx: &Tx<'_>, id: &str, before: i64) -> Result<bool> {
    let ended = "DELETE FROM upload WHERE id = ?1 AND touched <= ?2";
    Ok(tx.connection.execute(ended, values![id, before])? > 0)
}

/// Whether there is an upload of this name, whoever's.
pub(crate) fn exists(connection: &Connection, id: &str) -> Result<bool> {
    connection.exists("SELECT 1 FROM upload WHERE id = ?1", values![id])
}
