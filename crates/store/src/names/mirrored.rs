//! Rows of what mirror rules have done: the tags that each has brought, here and elsewhere, and the uploads that it has
//! begun elsewhere.
//!
//! They are no names, so the journal does not have them: after a rebuild the tags that are here are nobody's, and stay.

use std::collections::BTreeSet;

use deltaport_oci::{Digest, RepositoryName, Tag};

use super::cached::{beside, blobs_of, is_child, tags_of, unlink};
use super::sql::{Connection, values};
use super::{Evicted, Tx, manifests, repositories, tags};
use crate::error::Result;

/// The tags that a rule has brought to a place, with what each led to when it last did, in byte order.
pub(crate) fn list(
    connection: &Connection,
    rule: &str,
    place: &str,
    limit: usize,
) -> Result<Vec<(Tag, Digest)>> {
    connection.query(
        "SELECT tag, digest FROM mirrored WHERE rule = ?1 AND place = ?2 ORDER BY tag LIMIT ?3",
        values![rule, place, limit],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// The rules that have brought a tag to a place.
pub(crate) fn rules(connection: &Connection, place: &str, tag: &Tag) -> Result<Vec<String>> {
    connection.query(
        "SELECT rule FROM mirrored WHERE place = ?1 AND tag = ?2 ORDER BY rule",
        values![place, tag],
        |row| row.get(0),
    )
}

/// Writes down that a rule has brought a tag.
pub(crate) fn put(tx: &Tx<'_>, rule: &str, place: &str, tag: &Tag, digest: &Digest) -> Result<()> {
    tx.connection.execute(
        "INSERT INTO mirrored (rule, place, tag, digest) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (rule, place, tag) DO UPDATE SET digest = excluded.digest",
        values![rule, place, tag, digest],
    )?;
    Ok(())
}

/// A tag is no longer a rule's.
pub(crate) fn forget(tx: &Tx<'_>, rule: &str, place: &str, tag: &Tag) -> Result<()> {
    tx.connection.execute(
        "DELETE FROM mirrored WHERE rule = ?1 AND place = ?2 AND tag = ?3",
        values![rule, place, tag],
    )?;
    Ok(())
}

/// Where the upload of a blob to a place goes on.
pub(crate) fn upload(connection: &Connection, place: &str, digest: &Digest) -> Result<Option<String>> {
    connection.optional(
        "SELECT upload FROM outgoing WHERE place = ?1 AND digest = ?2",
        values![place, digest],
        |row| row.get(0),
    )
}

/// Writes that down; `None` when it is over.
pub(crate) fn note_upload(tx: &Tx<'_>, place: &str, digest: &Digest, upload: Option<&str>) -> Result<()> {
    match upload {
        Some(upload) => tx.connection.execute(
            "INSERT INTO outgoing (place, digest, upload) VALUES (?1, ?2, ?3)
             ON CONFLICT (place, digest) DO UPDATE SET upload = excluded.upload",
            values![place, digest, upload],
        )?,
        None => tx
            .connection
            .execute("DELETE FROM outgoing WHERE place = ?1 AND digest = ?2", values![place, digest])?,
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
