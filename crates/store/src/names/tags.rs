//! Rows of tags.

use deltaport_oci::{Digest, Reference, RepositoryName, Tag};

use super::sql::{Connection, values};
use super::{Page, Stale, Tx, page, past, repositories};
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
    let before: Option<Digest> = tx.connection.optional(
        "SELECT digest FROM tag WHERE repository = ?1 AND name = ?2",
        values![repository_id, tag],
        |row| row.get(0),
    )?;
    tx.connection.execute(
        "INSERT INTO tag (repository, name, digest, updated) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (repository, name) DO UPDATE SET digest = excluded.digest, updated = excluded.updated",
        values![repository_id, tag, digest, tx.now],
    )?;
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
        .execute("DELETE FROM tag WHERE repository = ?1 AND name = ?2", values![repository_id, tag])?;
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
    let tags: Vec<Tag> = tx.connection.query(
        "DELETE FROM tag WHERE repository = ?1 AND digest = ?2 RETURNING name",
        values![repository_id, digest],
        |row| row.get(0),
    )?;
    tags.iter().try_for_each(|tag| deleted_one(tx, repository, tag))
}

fn deleted_one(tx: &mut Tx<'_>, repository: &RepositoryName, tag: &Tag) -> Result<()> {
    tx.log(&Change::TagDeleted { repository: repository.clone(), tag: tag.clone() })?;
    tx.stale(Stale::Manifest(repository.clone(), Reference::Tag(tag.clone())));
    Ok(())
}

/// The tags that point at a manifest, in byte order.
pub(crate) fn of(connection: &Connection, repository: &RepositoryName, digest: &Digest) -> Result<Vec<Tag>> {
    connection.query(
        "SELECT name FROM tag
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2 ORDER BY name",
        values![repository, digest],
        |row| row.get(0),
    )
}

/// The tags of a repository in byte order, behind `last`; `None` when there is no such repository.
pub(crate) fn list(
    connection: &Connection,
    repository: &RepositoryName,
    last: &str,
    limit: usize,
) -> Result<Option<Page<Tag>>> {
    let Some(id) = repositories::find(connection, repository)? else { return Ok(None) };
    let found = connection.query(
        "SELECT name FROM tag WHERE repository = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
        values![id, last, super::one_more(limit)],
        |row| row.get(0),
    );
    Ok(Some(page(found?, limit)))
}
