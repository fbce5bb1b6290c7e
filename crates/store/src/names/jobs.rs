//! Rows of deltas that are to be made.
//!
//! Whoever makes them claims one job after the other. Claiming is a change like any other, so that it can be shared out
//! among processes one day: what such a claim then needs besides is an owner and an end.

use deltaport_oci::{Digest, RepositoryName};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Tx, blobs, column, deltas, past, repositories};
use crate::error::Result;

/// A delta that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeltaJob {
    /// The repository that holds both layers, and will hold the delta.
    pub repository: RepositoryName,
    /// The old layer.
    pub base: Digest,
    /// The new one.
    pub target: Digest,
    /// Whether somebody waits for it; otherwise it is made ahead.
    pub waited: bool,
}

/// When a job is not made after all.
#[derive(Clone, Copy, Debug)]
pub struct ClaimLimits {
    /// How many deltas to one layer a repository keeps, those that are being made included.
    pub kept: usize,
    /// How often a job is begun that never comes to an end, because the process dies of it, say.
    pub attempts: u32,
}

/// Whether a job stands already that serves as well as `job`: one that is being made, or one that is no less urgent.
pub(crate) fn stands(connection: &Connection, job: &DeltaJob) -> Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM delta_job
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND base = ?2 AND target = ?3
             AND (claimed IS NOT NULL OR waited >= ?4)",
    )?;
    let DeltaJob { repository, base, target, waited } = job;
    Ok(statement.exists(params![repository.as_str(), base.to_string(), target.to_string(), waited])?)
}

/// Puts a job down, unless `most` of its urgency stand already; one that stands becomes more urgent. `false` when it
/// will not be made: the list is full, or a layer is not here. A delta that is known needs no job.
pub(crate) fn put(tx: &Tx<'_>, job: &DeltaJob, most: usize) -> Result<bool> {
    let DeltaJob { repository, base, target, waited } = job;
    if stands(tx.connection, job)? || deltas::find(tx.connection, repository, base, target)?.is_some() {
        return Ok(true);
    }
    let id = repositories::find(tx.connection, repository)?.unwrap_or(0);
    for layer in [base, target] {
        if !blobs::is_linked(tx.connection, id, layer)? {
            return Ok(false);
        }
    }
    let (standing, last): (i64, Option<i64>) = tx
        .connection
        .prepare_cached("SELECT count(*), max(asked) FROM delta_job WHERE waited = ?1")?
        .query_row([waited], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if usize::try_from(standing).is_ok_and(|standing| standing >= most) {
        return Ok(false);
    }
    tx.connection
        .prepare_cached(
            "INSERT INTO delta_job (repository, base, target, waited, asked) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET waited = excluded.waited, asked = excluded.asked",
        )?
        .execute(params![id, base.to_string(), target.to_string(), waited, past::behind(last, tx.now)])?;
    Ok(true)
}

/// Takes up the next job: those that somebody waits for first, then the longest asked for. Jobs beyond `limits` are
/// struck from the list on the way.
pub(crate) fn claim(tx: &Tx<'_>, limits: ClaimLimits) -> Result<Option<DeltaJob>> {
    loop {
        let next = tx
            .connection
            .prepare_cached(
                "SELECT delta_job.id, name, base, target, waited, attempts FROM delta_job
                 JOIN repository ON repository.id = repository
                 WHERE claimed IS NULL ORDER BY waited DESC, asked, delta_job.id LIMIT 1",
            )?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, read(row)?, row.get::<_, u32>(5)?)))
            .optional()?;
        let Some((id, job, attempts)) = next else { return Ok(None) };
        let coming = claimed_to(tx.connection, &job)?;
        let kept = deltas::kept(tx.connection, &job.repository, &job.target)?;
        if attempts < limits.attempts && kept + coming < limits.kept {
            tx.connection
                .prepare_cached("UPDATE delta_job SET claimed = ?2, attempts = attempts + 1 WHERE id = ?1")?
                .execute([id, tx.now])?;
            return Ok(Some(job));
        }
        let DeltaJob { repository, base, target, .. } = &job;
        tracing::debug!(%repository, %base, %target, attempts, kept, coming, "a delta is not made");
        tx.connection.prepare_cached("DELETE FROM delta_job WHERE id = ?1")?.execute([id])?;
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<DeltaJob> {
    Ok(DeltaJob {
        repository: column(row, 1)?,
        base: column(row, 2)?,
        target: column(row, 3)?,
        waited: row.get(4)?,
    })
}

/// How many deltas to the same layer are being made.
fn claimed_to(connection: &Connection, job: &DeltaJob) -> Result<usize> {
    let count: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM delta_job
             WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND target = ?2
                 AND claimed IS NOT NULL",
        )?
        .query_row(params![job.repository.as_str(), job.target.to_string()], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Gives a job back that could not be done now.
pub(crate) fn release(tx: &Tx<'_>, job: &DeltaJob) -> Result<()> {
    tx.connection
        .prepare_cached(
            "UPDATE delta_job SET claimed = NULL
             WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND base = ?2 AND target = ?3",
        )?
        .execute(params![job.repository.as_str(), job.base.to_string(), job.target.to_string()])?;
    Ok(())
}

/// Strikes a job from the list: it is done, or will never be.
pub(crate) fn end(tx: &Tx<'_>, repository: &RepositoryName, base: &Digest, target: &Digest) -> Result<()> {
    tx.connection
        .prepare_cached(
            "DELETE FROM delta_job
             WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND base = ?2 AND target = ?3",
        )?
        .execute(params![repository.as_str(), base.to_string(), target.to_string()])?;
    Ok(())
}

/// Gives every claim back: those who held them are gone, since a store is open in one process only.
pub(crate) fn release_all(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE delta_job SET claimed = NULL WHERE claimed IS NOT NULL", [])?;
    Ok(())
}
