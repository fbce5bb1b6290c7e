//! Rows of what is known about deltas between two layers of a repository.

use deltaport_oci::{Digest, RepositoryName};

use super::sql::{Connection, values};
use super::{LayerDelta, Tx, repositories};
use crate::error::{Error, Result};
use crate::journal::Change;

/// What is known about a delta.
pub(crate) fn find(
    connection: &Connection,
    repository: &RepositoryName,
    base: &Digest,
    target: &Digest,
) -> Result<Option<LayerDelta>> {
    connection.optional(
        "SELECT digest FROM layer_delta
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND base = ?2 AND target = ?3",
        values![repository, base, target],
        |row| Ok(row.get::<Option<_>>(0)?.map_or(LayerDelta::NotWorthIt, LayerDelta::Blob)),
    )
}

/// How many deltas to a layer are kept. Those that are not worth it take no room and do not count.
pub(crate) fn kept(connection: &Connection, repository: &RepositoryName, target: &Digest) -> Result<usize> {
    connection.one(
        "SELECT count(*) FROM layer_delta
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND target = ?2
             AND digest IS NOT NULL",
        values![repository, target],
        |row| row.get(0),
    )
}

/// The deltas to a layer that are kept: base, and digest of the delta. Oldest first.
pub(crate) fn to(
    connection: &Connection,
    repository: &RepositoryName,
    target: &Digest,
    limit: usize,
) -> Result<Vec<(Digest, Digest)>> {
    connection.query(
        "SELECT base, digest FROM layer_delta
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND target = ?2
             AND digest IS NOT NULL
         ORDER BY made, base LIMIT ?3",
        values![repository, target, limit],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// The layers that a delta is between: base and target of each pair.
pub(crate) fn between(
    connection: &Connection,
    repository: &RepositoryName,
    delta: &Digest,
) -> Result<Vec<(Digest, Digest)>> {
    connection.query(
        "SELECT base, target FROM layer_delta
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2",
        values![repository, delta],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// Remembers a delta; there is nothing left to do for a job that was to make it. Fails with [`Error::Missing`] when the
/// repository does not hold both layers and the delta.
pub(crate) fn put(
    tx: &mut Tx<'_>,
    repository: &RepositoryName,
    base: &Digest,
    target: &Digest,
    delta: &LayerDelta,
) -> Result<()> {
    let digest = match delta {
        LayerDelta::Blob(digest) => Some(*digest),
        LayerDelta::NotWorthIt => None,
    };
    let id = repositories::find(tx.connection, repository)?.unwrap_or(0);
    let mut absent = Vec::new();
    for needed in [Some(*base), Some(*target), digest].into_iter().flatten() {
        if !super::blobs::is_linked(tx.connection, id, &needed)? {
            absent.push(needed);
        }
    }
    if !absent.is_empty() {
        return Err(Error::Missing(absent));
    }
    // Removed first and not overwritten, so that a delta that this one replaces is reviewed.
    tx.connection.execute(
        "DELETE FROM layer_delta WHERE repository = ?1 AND base = ?2 AND target = ?3",
        values![id, base, target],
    )?;
    tx.connection.execute(
        "INSERT INTO layer_delta (repository, base, target, digest, made) VALUES (?1, ?2, ?3, ?4, ?5)",
        values![id, base, target, digest, tx.now],
    )?;
    super::jobs::end(tx, repository, base, target)?;
    tx.log(&Change::Delta { repository: repository.clone(), base: *base, target: *target, digest })
}

/// Forgets the deltas that a blob was a part of, whichever, because its link is gone.
pub(crate) fn forget(
    tx: &mut Tx<'_>,
    repository: &RepositoryName,
    repository_id: i64,
    blob: &Digest,
) -> Result<()> {
    let gone: Vec<(Digest, Digest)> = tx.connection.query(
        "DELETE FROM layer_delta WHERE repository = ?1 AND (base = ?2 OR target = ?2 OR digest = ?2)
         RETURNING base, target",
        values![repository_id, blob],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    for (base, target) in gone {
        tx.log(&Change::DeltaDeleted { repository: repository.clone(), base, target })?;
    }
    Ok(())
}

/// Forgets one delta.
pub(crate) fn delete(
    tx: &mut Tx<'_>,
    repository: &RepositoryName,
    base: &Digest,
    target: &Digest,
) -> Result<()> {
    let id = repositories::find(tx.connection, repository)?.unwrap_or(0);
    let deleted = tx.connection.execute(
        "DELETE FROM layer_delta WHERE repository = ?1 AND base = ?2 AND target = ?3",
        values![id, base, target],
    )?;
    if deleted > 0 {
        tx.log(&Change::DeltaDeleted { repository: repository.clone(), base: *base, target: *target })?;
    }
    Ok(())
}
