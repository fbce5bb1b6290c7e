//! Rows of what is known about deltas between two layers of a repository.

use deltaport_oci::{Digest, RepositoryName};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{LayerDelta, Tx, column, optional_column, repositories};
use crate::error::{Error, Result};
use crate::journal::Change;

/// What is known about a delta.
pub(crate) fn find(
    connection: &Connection,
    repository: &RepositoryName,
    base: &Digest,
    target: &Digest,
) -> Result<Option<LayerDelta>> {
    let mut statement = connection.prepare_cached(
        "SELECT digest FROM layer_delta
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND base = ?2 AND target = ?3",
    )?;
    let found = statement
        .query_row(params![repository.as_str(), base.to_string(), target.to_string()], |row| {
            optional_column(row, 0)
        })
        .optional()?;
    Ok(found.map(|digest| digest.map_or(LayerDelta::NotWorthIt, LayerDelta::Blob)))
}

/// How many deltas to a layer are kept. Those that are not worth it take no room and do not count.
pub(crate) fn kept(connection: &Connection, repository: &RepositoryName, target: &Digest) -> Result<usize> {
    let kept: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM layer_delta
             WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND target = ?2
                 AND digest IS NOT NULL",
        )?
        .query_row(params![repository.as_str(), target.to_string()], |row| row.get(0))?;
    Ok(usize::try_from(kept).unwrap_or(usize::MAX))
}

/// The deltas to a layer that are kept: base, and digest of the delta. Oldest first.
pub(crate) fn to(
    connection: &Connection,
    repository: &RepositoryName,
    target: &Digest,
    limit: usize,
) -> Result<Vec<(Digest, Digest)>> {
    let mut statement = connection.prepare_cached(
        "SELECT base, digest FROM layer_delta
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND target = ?2
             AND digest IS NOT NULL
         ORDER BY made, base LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![repository.as_str(), target.to_string(), limit], |row| {
        Ok((column(row, 0)?, column(row, 1)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The layers that a delta is between: base and target of each pair.
pub(crate) fn between(
    connection: &Connection,
    repository: &RepositoryName,
    delta: &Digest,
) -> Result<Vec<(Digest, Digest)>> {
    let mut statement = connection.prepare_cached(
        "SELECT base, target FROM layer_delta
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2",
    )?;
    let rows = statement.query_map(params![repository.as_str(), delta.to_string()], |row| {
        Ok((column(row, 0)?, column(row, 1)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
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
    tx.connection
        .prepare_cached("DELETE FROM layer_delta WHERE repository = ?1 AND base = ?2 AND target = ?3")?
        .execute(params![id, base.to_string(), target.to_string()])?;
    tx.connection
        .prepare_cached(
            "INSERT INTO layer_delta (repository, base, target, digest, made) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            id,
            base.to_string(),
            target.to_string(),
            digest.map(|digest| digest.to_string()),
            tx.now
        ])?;
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
    let mut statement = tx.connection.prepare_cached(
        "DELETE FROM layer_delta WHERE repository = ?1 AND (base = ?2 OR target = ?2 OR digest = ?2)
         RETURNING base, target",
    )?;
    let rows = statement
        .query_map(params![repository_id, blob.to_string()], |row| Ok((column(row, 0)?, column(row, 1)?)))?;
    let gone = rows.collect::<rusqlite::Result<Vec<(Digest, Digest)>>>()?;
    drop(statement);
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
    let deleted = tx
        .connection
        .prepare_cached("DELETE FROM layer_delta WHERE repository = ?1 AND base = ?2 AND target = ?3")?
        .execute(params![id, base.to_string(), target.to_string()])?;
    if deleted > 0 {
        tx.log(&Change::DeltaDeleted { repository: repository.clone(), base: *base, target: *target })?;
    }
    Ok(())
}
