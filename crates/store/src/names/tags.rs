//! Rows of tags.

use deltaport_oci::{Digest, Reference, RepositoryName, Tag};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Page, Stale, Tx, column, page, past, repositories};
use crate::error::Result;
use crate::journal::Change;

/// Points a tag at a manifest of the repository, and remembers what it pointed at before.
pub(crate) fn put(
    tx: &mut Tx<'_>,
    repository: &RepositoryName,
    repository_id: i64,
    tag: &Tag,
    digest: &Digest,
) -> Result<()> {
    let before: Option<Digest> = tx
        .connection
        .prepare_cached("SELECT digest FROM tag WHERE repository = ?1 AND name = ?2")?
        .query_row(params![repository_id, tag.as_str()], |row| column(row, 0))
        .optional()?;
    tx.connection
        .prepare_cached(
            "INSERT INTO tag (repository, name, digest, updated) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET digest = excluded.digest, updated = excluded.updated",
        )?
        .execute(params![repository_id, tag.as_str(), digest.to_string(), tx.now])?;
    if let Some(before) = before.filter(|before| before != digest) {
        past::remember(tx, repository_id, tag, &before, digest)?;
    }
    tx.log(&Change::Tag { repository: repository.clone(), tag: tag.clone(), digest: *digest })?;
    tx.stale(Stale::Manifest(repository.clone(), Reference::Tag(tag.clone())));
    Ok(())
}

/// Removes one tag, with its past; `false` when it was not there.
pub(crate) fn delete(tx: &mut Tx<'_>, repository: &RepositoryName, tag: &Tag) -> Result<bool> {
    let Some(repository_id) = repositories::find(tx.connection, repository)? else { return Ok(false) };
    let deleted = tx
        .connection
        .prepare_cached("DELETE FROM tag WHERE repository = ?1 AND name = ?2")?
        .execute(params![repository_id, tag.as_str()])?;
    if deleted > 0 {
        deleted_one(tx, repository, tag)?;
    }
    Ok(deleted > 0)
}

/// Removes every tag on a manifest.
pub(crate) fn delete_of(
    tx: &mut Tx<'_>,
    repository: &RepositoryName,
    repository_id: i64,
    digest: &Digest,
) -> Result<()> {
    let mut statement = tx
        .connection
        .prepare_cached("DELETE FROM tag WHERE repository = ?1 AND digest = ?2 RETURNING name")?;
    let rows = statement.query_map(params![repository_id, digest.to_string()], |row| column(row, 0))?;
    let tags = rows.collect::<rusqlite::Result<Vec<Tag>>>()?;
    drop(statement);
    tags.iter().try_for_each(|tag| deleted_one(tx, repository, tag))
}

fn deleted_one(tx: &mut Tx<'_>, repository: &RepositoryName, tag: &Tag) -> Result<()> {
    tx.log(&Change::TagDeleted { repository: repository.clone(), tag: tag.clone() })?;
    tx.stale(Stale::Manifest(repository.clone(), Reference::Tag(tag.clone())));
    Ok(())
}

/// The tags that point at a manifest, in byte order.
pub(crate) fn of(connection: &Connection, repository: &RepositoryName, digest: &Digest) -> Result<Vec<Tag>> {
    let mut statement = connection.prepare_cached(
        "SELECT name FROM tag
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2 ORDER BY name",
    )?;
    let rows = statement.query_map(params![repository.as_str(), digest.to_string()], |row| column(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The tags of a repository in byte order, behind `last`; `None` when there is no such repository.
pub(crate) fn list(
    connection: &Connection,
    repository: &RepositoryName,
    last: &str,
    limit: usize,
) -> Result<Option<Page<Tag>>> {
    let Some(id) = repositories::find(connection, repository)? else { return Ok(None) };
    let mut statement = connection
        .prepare_cached("SELECT name FROM tag WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3")?;
    let rows = statement.query_map(params![id, last, super::one_more(limit)], |row| column(row, 0))?;
    page(rows, limit).map(Some)
}
