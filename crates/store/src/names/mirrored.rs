//! Rows of what mirror rules have done: the tags that each has brought, here and elsewhere, and the uploads that it has
//! begun elsewhere.
//!
//! They are no names, so the journal does not have them: after a rebuild the tags that are here are nobody's, and stay.

use std::collections::BTreeSet;

use deltaport_oci::{Digest, RepositoryName, Tag};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::cached::{beside, blobs_of, is_child, tags_of, unlink};
use super::{Evicted, Tx, column, manifests, repositories, tags};
use crate::error::Result;

/// The tags that a rule has brought to a place, with what each led to when it last did, in byte order.
pub(crate) fn list(
    connection: &Connection,
    rule: &str,
    place: &str,
    limit: usize,
) -> Result<Vec<(Tag, Digest)>> {
    let mut statement = connection.prepare_cached(
        "SELECT tag, digest FROM mirrored WHERE rule = ?1 AND place = ?2 ORDER BY tag LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows =
        statement.query_map(params![rule, place, limit], |row| Ok((column(row, 0)?, column(row, 1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The rules that have brought a tag to a place.
pub(crate) fn rules(connection: &Connection, place: &str, tag: &Tag) -> Result<Vec<String>> {
    let mut statement =
        connection.prepare_cached("SELECT rule FROM mirrored WHERE place = ?1 AND tag = ?2 ORDER BY rule")?;
    let rows = statement.query_map(params![place, tag.as_str()], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Writes down that a rule has brought a tag.
pub(crate) fn put(tx: &Tx<'_>, rule: &str, place: &str, tag: &Tag, digest: &Digest) -> Result<()> {
    tx.connection
        .prepare_cached(
            "INSERT INTO mirrored (rule, place, tag, digest) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET digest = excluded.digest",
        )?
        .execute(params![rule, place, tag.as_str(), digest.to_string()])?;
    Ok(())
}

/// A tag is no longer a rule's.
pub(crate) fn forget(tx: &Tx<'_>, rule: &str, place: &str, tag: &Tag) -> Result<()> {
    tx.connection
        .prepare_cached("DELETE FROM mirrored WHERE rule = ?1 AND place = ?2 AND tag = ?3")?
        .execute(params![rule, place, tag.as_str()])?;
    Ok(())
}

/// Where the upload of a blob to a place goes on.
pub(crate) fn upload(connection: &Connection, place: &str, digest: &Digest) -> Result<Option<String>> {
    let mut statement =
        connection.prepare_cached("SELECT upload FROM outgoing WHERE place = ?1 AND digest = ?2")?;
    Ok(statement.query_row(params![place, digest.to_string()], |row| row.get(0)).optional()?)
}

/// Writes that down; `None` when it is over.
pub(crate) fn note_upload(tx: &Tx<'_>, place: &str, digest: &Digest, upload: Option<&str>) -> Result<()> {
    match upload {
        Some(upload) => tx
            .connection
            .prepare_cached(
                "INSERT INTO outgoing (place, digest, upload) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET upload = excluded.upload",
            )?
            .execute(params![place, digest.to_string(), upload])?,
        None => tx
            .connection
            .prepare_cached("DELETE FROM outgoing WHERE place = ?1 AND digest = ?2")?
            .execute(params![place, digest.to_string()])?,
    };
    Ok(())
}

/// Removes a tag that still leads to `digest`; with `image`, also that manifest, those below it and those about it, as far
/// as no other tag and no other index leads to them. `None` when the tag is gone or leads elsewhere.
pub(crate) fn prune(
    tx: &mut Tx<'_>,
    repository: &RepositoryName,
    tag: &Tag,
    digest: &Digest,
    image: bool,
) -> Result<Option<Evicted>> {
    let Some(id) = repositories::find(tx.connection, repository)? else { return Ok(None) };
    if !tags_of(tx.connection, id, digest)?.contains(tag) || !tags::delete(tx, repository, tag)? {
        return Ok(None);
    }
    let mut pruned = Evicted { tags: 1, ..Evicted::default() };
    let (mut left, mut blobs) = (vec![*digest], BTreeSet::new());
    while let Some(digest) = left.pop().filter(|_| image) {
        let held = !tags_of(tx.connection, id, &digest)?.is_empty() || is_child(tx.connection, id, &digest)?;
        if held || pruned.manifests.contains(&digest) || !manifests::exists(tx.connection, id, &digest)? {
            continue;
        }
        left.extend(beside(tx.connection, id, &digest)?);
        blobs.extend(blobs_of(tx.connection, id, &digest)?);
        manifests::delete(tx, repository, &digest)?;
        pruned.manifests.push(digest);
    }
    unlink(tx, repository, id, blobs)?;
    Ok(Some(pruned))
}
