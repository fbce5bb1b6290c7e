//! Rows of repositories: one comes into being with its first content and goes with its last.

use deltaport_oci::RepositoryName;

use super::sql::{Connection, values};
use super::{Page, Tx, page};
use crate::error::Result;

/// The row of a repository; `None` when it does not exist.
pub(crate) fn find(connection: &Connection, name: &RepositoryName) -> Result<Option<i64>> {
    connection.optional("SELECT id FROM repository WHERE name = ?1", values![name], |row| row.get(0))
}

/// The row of a repository, which is made when it is not there.
pub(crate) fn ensure(tx: &Tx<'_>, name: &RepositoryName) -> Result<i64> {
    if let Some(id) = find(tx.connection, name)? {
        return Ok(id);
    }
    tx.connection
        .one("INSERT INTO repository (name) VALUES (?1) RETURNING id", values![name], |row| row.get(0))
}

/// Removes a repository that holds nothing any more.
pub(crate) fn drop_if_empty(tx: &Tx<'_>, id: i64) -> Result<()> {
    tx.connection.execute(
        "DELETE FROM repository WHERE id = ?1
             AND NOT EXISTS (SELECT 1 FROM repository_blob WHERE repository = ?1)
             AND NOT EXISTS (SELECT 1 FROM manifest WHERE repository = ?1)
             AND NOT EXISTS (SELECT 1 FROM layer_delta WHERE repository = ?1)",
        values![id],
    )?;
    Ok(())
}

/// The repositories in byte order, behind `last`.
pub(crate) fn list(connection: &Connection, last: &str, limit: usize) -> Result<Page<RepositoryName>> {
    let found = connection.query(
        "SELECT name FROM repository WHERE name > ?1 ORDER BY name LIMIT ?2",
        values![last, super::one_more(limit)],
        |row| row.get(0),
    );
    Ok(page(found?, limit))
}
