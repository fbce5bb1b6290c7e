//! Rows of manifests and of what they refer to.

use bytes::Bytes;
use deltaport_oci::{Descriptor, Digest, Reference, RepositoryName, manifest::View};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::cached::{self, Origin};
use super::{Manifest, NewManifest, Stale, Tx, column, repositories};
use crate::error::{Error, Result};
use crate::journal::Change;

/// The manifest that `reference` means.
pub(crate) fn load(
    connection: &Connection,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Option<Manifest>> {
    let read = |row: &Row<'_>| {
        Ok(Manifest {
            digest: column(row, 0)?,
            media_type: row.get(1)?,
            bytes: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        })
    };
    let found = match reference {
        Reference::Digest(digest) => connection
            .prepare_cached(
                "SELECT digest, media_type, bytes FROM manifest
                 WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2",
            )?
            .query_row(params![repository.as_str(), digest.to_string()], read),
        Reference::Tag(tag) => connection
            .prepare_cached(
                "SELECT manifest.digest, media_type, bytes FROM tag
                 JOIN manifest ON manifest.repository = tag.repository AND manifest.digest = tag.digest
                 WHERE tag.repository = (SELECT id FROM repository WHERE name = ?1) AND tag.name = ?2",
            )?
            .query_row(params![repository.as_str(), tag.as_str()], read),
    };
    Ok(found.optional()?)
}

/// Those of `digests` that the repository holds neither as a blob nor as a manifest.
pub(crate) fn missing(
    connection: &Connection,
    repository: &RepositoryName,
    digests: &[Digest],
) -> Result<Vec<Digest>> {
    let id = repositories::find(connection, repository)?.unwrap_or(0);
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM repository_blob WHERE repository = ?1 AND digest = ?2)
             OR EXISTS (SELECT 1 FROM manifest WHERE repository = ?1 AND digest = ?2)",
    )?;
    let mut absent = Vec::new();
    for digest in digests {
        if !statement.query_row(params![id, digest.to_string()], |row| row.get(0))? {
            absent.push(*digest);
        }
    }
    Ok(absent)
}

/// Whether a repository holds a manifest.
pub(crate) fn exists(connection: &Connection, repository: i64, digest: &Digest) -> Result<bool> {
    let mut statement =
        connection.prepare_cached("SELECT 1 FROM manifest WHERE repository = ?1 AND digest = ?2")?;
    Ok(statement.exists(params![repository, digest.to_string()])?)
}

/// Stores a manifest whose bytes are already a durable blob, with its references and tags. One that was pushed before
/// stays so even if it is fetched, too.
pub(crate) fn put(
    tx: &mut Tx<'_>,
    repository: &RepositoryName,
    new: &NewManifest,
    origin: Origin,
) -> Result<()> {
    let absent = missing(tx.connection, repository, &new.required)?;
    if !absent.is_empty() {
        return Err(Error::Missing(absent));
    }
    super::blobs::ensure(tx, &new.digest, new.bytes.len() as u64)?;
    let repository_id = repositories::ensure(tx, repository)?;
    let was_pushed = exists(tx.connection, repository_id, &new.digest)?
        && !cached::is_fetched(tx.connection, repository_id, &new.digest)?;
    let id = put_row(tx, repository_id, new)?;
    put_references(tx, repository_id, id, &new.view)?;
    tx.log(&Change::Manifest {
        repository: repository.clone(),
        digest: new.digest,
        media_type: new.view.media_type.clone(),
    })?;
    match origin {
        Origin::Fetched if !was_pushed => cached::put(tx, repository, repository_id, &new.digest)?,
        _ => cached::forget(tx, repository_id, &new.digest)?,
    }
    tx.stale(Stale::Manifest(repository.clone(), Reference::Digest(new.digest)));
    for tag in &new.tags {
        super::tags::put(tx, repository, repository_id, tag, &new.digest)?;
    }
    Ok(())
}

/// Writes the row itself; the same manifest again only becomes younger. Returns its identifier.
fn put_row(tx: &Tx<'_>, repository: i64, new: &NewManifest) -> Result<i64> {
    let annotations = match &new.view.subject {
        Some(_) if !new.view.annotations.is_empty() => {
            Some(serde_json::to_string(&new.view.annotations).map_err(std::io::Error::other)?)
        }
        _ => None,
    };
    let mut statement = tx.connection.prepare_cached(
        "INSERT INTO manifest
             (repository, digest, media_type, artifact_type, subject, annotations, size, pushed, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (repository, digest) DO UPDATE SET
             media_type = excluded.media_type, artifact_type = excluded.artifact_type,
             subject = excluded.subject, annotations = excluded.annotations, pushed = excluded.pushed
         RETURNING id",
    )?;
    let id = statement.query_row(
        params![
            repository,
            new.digest.to_string(),
            new.view.media_type,
            new.view.referrer_type(),
            new.view.subject.as_ref().map(|subject| subject.digest.to_string()),
            annotations,
            new.bytes.len() as i64,
            tx.now,
            &new.bytes[..],
        ],
        |row| row.get(0),
    )?;
    Ok(id)
}

/// What a manifest refers to, in the order in which it is stored.
pub(crate) fn references(view: &View) -> impl Iterator<Item = (&'static str, &Descriptor)> {
    let config = view.config.iter().map(|descriptor| ("config", descriptor));
    let layers = view.layers.iter().map(|descriptor| ("layer", descriptor));
    let manifests = view.manifests.iter().map(|descriptor| ("manifest", descriptor));
    let subject = view.subject.iter().map(|descriptor| ("subject", descriptor));
    config.chain(layers).chain(manifests).chain(subject)
}

/// Replaces the rows of what a manifest refers to, each with whether it is there now.
pub(crate) fn put_references(tx: &Tx<'_>, repository: i64, manifest: i64, view: &View) -> Result<()> {
    tx.connection.prepare_cached("DELETE FROM reference WHERE manifest = ?1")?.execute([manifest])?;
    let mut insert = tx.connection.prepare_cached(
        "INSERT INTO reference
             (manifest, position, repository, kind, digest, media_type, size, platform, present)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, CASE WHEN ?4 IN ('config', 'layer')
             THEN EXISTS (SELECT 1 FROM repository_blob WHERE repository = ?3 AND digest = ?5)
             ELSE EXISTS (SELECT 1 FROM manifest WHERE repository = ?3 AND digest = ?5) END)",
    )?;
    for (position, (kind, descriptor)) in references(view).enumerate() {
        insert.execute(params![
            manifest,
            position as i64,
            repository,
            kind,
            descriptor.digest.to_string(),
            descriptor.media_type,
            i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            descriptor.platform.as_ref().map(ToString::to_string),
        ])?;
    }
    Ok(())
}

/// Removes a manifest and every tag on it; `false` when it was not there.
pub(crate) fn delete(tx: &mut Tx<'_>, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
    let Some(repository_id) = repositories::find(tx.connection, repository)? else { return Ok(false) };
    super::tags::delete_of(tx, repository, repository_id, digest)?;
    let deleted = tx
        .connection
        .prepare_cached("DELETE FROM manifest WHERE repository = ?1 AND digest = ?2")?
        .execute(params![repository_id, digest.to_string()])?;
    if deleted == 0 {
        return Ok(false);
    }
    tx.log(&Change::ManifestDeleted { repository: repository.clone(), digest: *digest })?;
    tx.stale(Stale::Manifest(repository.clone(), Reference::Digest(*digest)));
    repositories::drop_if_empty(tx, repository_id)?;
    Ok(true)
}
