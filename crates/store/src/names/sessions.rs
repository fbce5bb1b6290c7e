//! Rows of uploads in progress.

use deltaport_oci::RepositoryName;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Tx, size_column};
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
    let open: i64 = tx
        .connection
        .prepare_cached("SELECT count(*) FROM upload WHERE owner = ?1")?
        .query_row([owner], |row| row.get(0))?;
    if usize::try_from(open).is_ok_and(|open| open >= per_owner) {
        return Err(Error::TooManyUploads);
    }
    tx.connection
        .prepare_cached(
            "INSERT INTO upload (id, repository, owner, position, state, touched)
             VALUES (?1, ?2, ?3, 0, ?4, ?5)",
        )?
        .execute(params![id, repository.as_str(), owner, state, tx.now])?;
    Ok(())
}

/// An upload of this repository and owner.
pub(crate) fn find(
    connection: &Connection,
    id: &str,
    repository: &RepositoryName,
    owner: &str,
) -> Result<Option<Session>> {
    let mut statement = connection.prepare_cached(
        "SELECT position, state FROM upload WHERE id = ?1 AND repository = ?2 AND owner = ?3",
    )?;
    let read = |row: &rusqlite::Row<'_>| Ok(Session { position: size_column(row, 0)?, state: row.get(1)? });
    Ok(statement.query_row(params![id, repository.as_str(), owner], read).optional()?)
}

/// Records how far an upload has come.
pub(crate) fn advance(tx: &Tx<'_>, id: &str, position: u64, state: &[u8]) -> Result<()> {
    let updated = tx
        .connection
        .prepare_cached("UPDATE upload SET position = ?2, state = ?3, touched = ?4 WHERE id = ?1")?
        .execute(params![id, position.cast_signed(), state, tx.now])?;
    if updated == 0 { Err(Error::NotFound) } else { Ok(()) }
}

/// Ends an upload; `false` when there was none.
pub(crate) fn end(tx: &Tx<'_>, id: &str) -> Result<bool> {
    Ok(tx.connection.prepare_cached("DELETE FROM upload WHERE id = ?1")?.execute([id])? > 0)
}

/// Uploads that nobody touched after `before`, those behind `last` in byte order.
pub(crate) fn expired(connection: &Connection, before: i64, last: &str, limit: usize) -> Result<Vec<String>> {
    let mut statement = connection
        .prepare_cached("SELECT id FROM upload WHERE touched <= ?1 AND id > ?2 ORDER BY id LIMIT ?3")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![before, last, limit], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Uploads of `owner` that nobody touched after `before`, the longest idle first.
pub(crate) fn idle(connection: &Connection, owner: &str, before: i64) -> Result<Vec<String>> {
    let mut statement = connection
        .prepare_cached("SELECT id FROM upload WHERE owner = ?1 AND touched <= ?2 ORDER BY touched, id")?;
    let rows = statement.query_map(params![owner, before], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Ends an upload if still nobody touched it after `before`.
pub(crate) fn expire(tx: &Tx<'_>, id: &str, before: i64) -> Result<bool> {
    let mut statement = tx.connection.prepare_cached("DELETE FROM upload WHERE id = ?1 AND touched <= ?2")?;
    Ok(statement.execute(params![id, before])? > 0)
}

/// Whether there is an upload of this name, whoever's.
pub(crate) fn exists(connection: &Connection, id: &str) -> Result<bool> {
    Ok(connection.prepare_cached("SELECT 1 FROM upload WHERE id = ?1")?.exists([id])?)
}
