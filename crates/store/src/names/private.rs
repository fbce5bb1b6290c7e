//! Rows of what all replicas have to know and nobody else may. They are in PostgreSQL alone; in a data directory, files with
//! mode 0600 are in their place ([`crate::private`]).

use super::Tx;
use super::sql::{Connection, values};
use crate::error::Result;

/// The content of a row.
pub(crate) fn find(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>> {
    connection.optional("SELECT content FROM private WHERE name = ?1", values![name], |row| row.get(0))
}

/// When a row was changed last, in milliseconds since 1970, and its length in bytes.
pub(crate) fn stamp(connection: &Connection, name: &str) -> Result<Option<(i64, u64)>> {
    connection.optional(
        "SELECT changed, length(content) FROM private WHERE name = ?1",
        values![name],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// Replaces the content. Two changes within a millisecond have different times all the same.
pub(crate) fn put(tx: &Tx<'_>, name: &str, content: &[u8]) -> Result<()> {
    let last = stamp(tx.connection, name)?.map_or(0, |(changed, _)| changed);
    tx.connection.execute(
        "INSERT INTO private (name, content, changed) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET content = excluded.content, changed = excluded.changed",
        values![name, content, last.saturating_add(1).max(tx.now)],
    )?;
    Ok(())
}
