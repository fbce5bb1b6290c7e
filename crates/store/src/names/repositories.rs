//! Rows of repositories: one comes into being with its first content and goes with its last.

use deltaport_oci::RepositoryName;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Page, Tx, column, page};
use crate::error::Result;

/// The row of a repository; `None` when it does not exist.
pub(crate) fn find(connection: &Connection, name: &RepositoryName) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT id FROM repository WHERE name = ?1")?;
    Ok(statement.query_row([name.as_str()], |row| row.get(0)).optional()?)
}

/// The row of a repository, which is made when it is not there.
pub(crate) fn ensure(tx: &Tx<'_>, name: &RepositoryName) -> Result<i64> {
    if let Some(id) = find(tx.connection, name)? {
        return Ok(id);
    }
    tx.connection.prepare_cached("INSERT INTO repository (name) VALUES (?1)")?.execute([name.as_str()])?;
    Ok(tx.connection.last_insert_rowid())
}

/// Removes a repository that holds nothing any more.
pub(crate) fn drop_if_empty(tx: &Tx<'_>, id: i64) -> Result<()> {
    tx.connection
        .prepare_cached(
            "DELETE FROM repository WHERE id = ?1
                AND NOT EXISTS (SELECT 1 FROM repository_blob WHERE repository = ?1)
                AND NOT EXISTS (SELECT 1 FROM manifest WHERE repository = ?1)
                AND NOT EXISTS (SELECT 1 FROM layer_delta WHERE repository = ?1)",
        )?
        .execute([id])?;
    Ok(())
}

/// The repositories in byte order, behind `last`.
pub(crate) fn list(connection: &Connection, last: &str, limit: usize) -> Result<Page<RepositoryName>> {
    let mut statement =
        connection.prepare_cached("SELECT name FROM repository WHERE name > ?1 ORDER BY name LIMIT ?2")?;
    let rows = statement.query_map(params![last, super::one_more(limit)], |row| column(row, 0))?;
    page(rows, limit)
}
