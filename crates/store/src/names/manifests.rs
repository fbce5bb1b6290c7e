//! Rows of manifests and of what they refer to.

use std::sync::Arc;

use bytes::Bytes;
use deltaport_oci::{Descriptor, Digest, Reference, RepositoryName, manifest::View};

use super::cached::{self, Origin};
use super::sql::{Connection, Parameter as _, Row, Value, values};
use super::{Manifest, NewManifest, Stale, Tx, repositories};
use crate::error::{Error, Result};
use crate::journal::Change;

/// The manifest that `reference` means.
pub(crate) fn load(
    connection: &Connection,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Option<Manifest>> {
    let read =
        |row: &Row<'_>| Ok(Manifest { digest: row.get(0)?, media_type: row.get(1)?, bytes: row.get(2)? });
    match reference {
        Reference::Digest(digest) => connection.optional(
            "SELECT digest, media_type, bytes FROM manifest
             WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2",
            values![repository, digest],
            read,
        ),
        Reference::Tag(tag) => connection.optional(
            "SELECT manifest.digest, media_type, bytes FROM tag
             JOIN manifest ON manifest.repository = tag.repository AND manifest.digest = tag.digest
             WHERE tag.repository = (SELECT id FROM repository WHERE name = ?1) AND tag.name = ?2",
            values![repository, tag],
            read,
        ),
    }
}

/// A manifest whose bytes may be known already.
pub(crate) struct Seen {
    pub(crate) digest: Digest,
    pub(crate) media_type: Arc<str>,
    /// `None` when they are known.
    pub(crate) bytes: Option<Bytes>,
}

/// The manifest that `reference` means; without its bytes when it is `known`.
pub(crate) fn look(
    connection: &Connection,
    repository: &RepositoryName,
    reference: &Reference,
    known: Option<&Digest>,
) -> Result<Option<Seen>> {
    let read = |row: &Row<'_>| Ok(Seen { digest: row.get(0)?, media_type: row.get(1)?, bytes: row.get(2)? });
    match reference {
        Reference::Digest(digest) => connection.optional(
            "SELECT digest, media_type, CASE WHEN digest = ?3 THEN NULL ELSE bytes END FROM manifest
             WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2",
            values![repository, digest, known],
            read,
        ),
        Reference::Tag(tag) => connection.optional(
            "SELECT manifest.digest, media_type, CASE WHEN manifest.digest = ?3 THEN NULL ELSE bytes END FROM tag
             JOIN manifest ON manifest.repository = tag.repository AND manifest.digest = tag.digest
             WHERE tag.repository = (SELECT id FROM repository WHERE name = ?1) AND tag.name = ?2",
            values![repository, tag, known],
            read,
        ),
    }
}

/// Those of `digests` that the repository holds neither as a blob nor as a manifest.
pub(crate) fn missing(
    connection: &Connection,
    repository: &RepositoryName,
    digests: &[Digest],
) -> Result<Vec<Digest>> {
    let id = repositories::find(connection, repository)?.unwrap_or(0);
    let held: Vec<bool> = connection.one_each(
        "SELECT EXISTS (SELECT 1 FROM repository_blob WHERE repository = ?1 AND digest = ?2)
             OR EXISTS (SELECT 1 FROM manifest WHERE repository = ?1 AND digest = ?2)",
        digests.iter().map(|digest| [id.value(), digest.value()]),
        |row| row.get(0),
    )?;
    Ok(digests.iter().zip(held).filter(|(_, held)| !held).map(|(digest, _)| *digest).collect())
}

/// Whether a repository holds a manifest.
pub(crate) fn exists(connection: &Connection, repository: i64, digest: &Digest) -> Result<bool> {
    connection
        .exists("SELECT 1 FROM manifest WHERE repository = ?1 AND digest = ?2", values![repository, digest])
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
    tx.connection.one(
        "INSERT INTO manifest
             (repository, digest, media_type, artifact_type, subject, annotations, size, pushed, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (repository, digest) DO UPDATE SET
             media_type = excluded.media_type, artifact_type = excluded.artifact_type,
             subject = excluded.subject, annotations = excluded.annotations, pushed = excluded.pushed
         RETURNING id",
        values![
            repository,
            new.digest,
            new.view.media_type,
            new.view.referrer_type(),
            new.view.subject.as_ref().map(|subject| subject.digest),
            annotations,
            new.bytes.len(),
            tx.now,
            new.bytes[..],
        ],
        |row| row.get(0),
    )
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
    tx.connection.execute("DELETE FROM reference WHERE manifest = ?1", values![manifest])?;
    let platforms: Vec<Option<String>> = references(view)
        .map(|(_, descriptor)| descriptor.platform.as_ref().map(ToString::to_string))
        .collect();
    tx.connection.execute_each(
        "INSERT INTO reference
             (manifest, position, repository, kind, digest, media_type, size, platform, present)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, CASE
             WHEN ?4 IN ('config', 'layer')
                 AND EXISTS (SELECT 1 FROM repository_blob WHERE repository = ?3 AND digest = ?5) THEN 1
             WHEN ?4 IN ('manifest', 'subject')
                 AND EXISTS (SELECT 1 FROM manifest WHERE repository = ?3 AND digest = ?5) THEN 1
             ELSE 0 END)",
        references(view).zip(&platforms).enumerate().map(|(position, ((kind, of), platform))| {
            [
                manifest.value(),
                Value::count(position),
                repository.value(),
                kind.value(),
                of.digest.value(),
                of.media_type.value(),
                of.size.value(),
                platform.value(),
            ]
        }),
    )
}

/// Removes a manifest and every tag on it; `false` when it was not there.
pub(crate) fn delete(tx: &mut Tx<'_>, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
    let Some(repository_id) = repositories::find(tx.connection, repository)? else { return Ok(false) };
    super::tags::delete_of(tx, repository, repository_id, digest)?;
    let deleted = tx.connection.execute(
        "DELETE FROM manifest WHERE repository = ?1 AND digest = ?2",
        values![repository_id, digest],
    )?;
    if deleted == 0 {
        return Ok(false);
    }
    tx.log(&Change::ManifestDeleted { repository: repository.clone(), digest: *digest })?;
    tx.stale(Stale::Manifest(repository.clone(), Reference::Digest(*digest)));
    repositories::drop_if_empty(tx, repository_id)?;
    Ok(true)
}
