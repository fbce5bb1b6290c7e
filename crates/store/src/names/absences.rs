//! Rows that say why a repository lacks a manifest which one of its indexes refers to.
//!
//! Triggers end them (see [`super::schema`]): when the manifest arrives, and when no index refers to it any more. They
//! are no names, so the journal does not have them: after a rebuild such a manifest is missing for no known reason.

use deltaport_oci::{Digest, RepositoryName};

use super::sql::{Connection, values};
use super::{Tx, manifests, repositories};
use crate::error::Result;

/// Why a repository lacks a manifest that one of its indexes refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absence {
    /// It was here and was removed on purpose.
    Evicted,
    /// The registry that the index came from does not have it either.
    Upstream,
}

impl Absence {
    fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Upstream => "upstream",
        }
    }
}

/// Why a manifest is absent, if that is known.
pub(crate) fn find(
    connection: &Connection,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Absence>> {
    connection.optional(
        "SELECT reason = 'evicted' FROM absence
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2",
        values![repository, digest],
        |row| Ok(if row.get(0)? { Absence::Evicted } else { Absence::Upstream }),
    )
}

/// Writes down why a manifest is absent, if it is and an index refers to it; whether that is so.
pub(crate) fn put(
    tx: &Tx<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    absence: Absence,
) -> Result<bool> {
    let written = tx.connection.execute(
        "INSERT INTO absence (repository, digest, reason)
         SELECT repository, digest, ?3 FROM reference
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2 AND kind = 'manifest'
             AND present = 0
         LIMIT 1
         ON CONFLICT (repository, digest) DO UPDATE SET reason = excluded.reason",
        values![repository, digest, absence.as_str()],
    )?;
    Ok(written > 0)
}

/// The indexes of a repository that refer to a manifest, the most recently stored first.
pub(crate) fn indexes_with(
    connection: &Connection,
    repository: &RepositoryName,
    child: &Digest,
    limit: usize,
) -> Result<Vec<Digest>> {
    connection.query(
        "SELECT manifest.digest FROM reference JOIN manifest ON manifest.id = reference.manifest
         WHERE reference.repository = (SELECT id FROM repository WHERE name = ?1) AND reference.digest = ?2
             AND kind = 'manifest'
         GROUP BY manifest.id ORDER BY pushed DESC, manifest.id DESC LIMIT ?3",
        values![repository, child, limit],
        |row| row.get(0),
    )
}

/// Removes those of `children` that are here and to which no tag leads but by the index `root`; returns them.
pub(crate) fn evict(
    tx: &mut Tx<'_>,
    repository: &RepositoryName,
    root: &Digest,
    children: &[Digest],
) -> Result<Vec<Digest>> {
    let Some(id) = repositories::find(tx.connection, repository)? else { return Ok(Vec::new()) };
    let mut evicted = Vec::new();
    for child in children {
        if child != root
            && manifests::exists(tx.connection, id, child)?
            && !is_held(tx.connection, id, root, child)?
        {
            manifests::delete(tx, repository, child)?;
            put(tx, repository, child, Absence::Evicted)?;
            evicted.push(*child);
        }
    }
    Ok(evicted)
}

/// Whether a tag is on `child`, or on an index above it that is not `root`.
fn is_held(connection: &Connection, repository: i64, root: &Digest, child: &Digest) -> Result<bool> {
    connection.one(
        "WITH RECURSIVE above (digest) AS (
             VALUES (?3 COLLATE BINARY)
             UNION
             SELECT manifest.digest FROM above
             JOIN reference ON reference.repository = ?1 AND reference.digest = above.digest AND kind = 'manifest'
             JOIN manifest ON manifest.id = reference.manifest AND manifest.digest <> ?2)
         SELECT EXISTS (SELECT 1 FROM above JOIN tag ON tag.repository = ?1 AND tag.digest = above.digest)",
        values![repository, root, child],
        |row| row.get(0),
    )
}
