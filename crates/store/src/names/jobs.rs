//! Rows of deltas that are to be made.
//!
//! Whoever makes them claims one job after the other, for a while: who dies of a job, or with it, is followed by another.

use deltaport_oci::{Digest, RepositoryName};

use super::sql::{Connection, Row, values};
use super::{Tx, blobs, deltas, past, repositories};
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
    let DeltaJob { repository, base, target, waited } = job;
    connection.exists(
        "SELECT 1 FROM delta_job
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND base = ?2 AND target = ?3
             AND (claimed IS NOT NULL OR waited >= ?4)",
        values![repository, base, target, waited],
    )
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
    let (standing, last): (usize, Option<i64>) = tx.connection.one(
        "SELECT count(*), max(asked) FROM delta_job WHERE waited = ?1",
        values![waited],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if standing >= most {
        return Ok(false);
    }
    tx.connection.execute(
        "INSERT INTO delta_job (repository, base, target, waited, asked) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (repository, base, target) DO UPDATE SET waited = excluded.waited, asked = excluded.asked",
        values![id, base, target, waited, past::behind(last, tx.now)],
    )?;
    Ok(true)
}

/// Takes up the next job for `life` milliseconds: those that somebody waits for first, then the longest asked for. Jobs
/// beyond `limits` are struck from the list on the way.
pub(crate) fn claim(tx: &Tx<'_>, limits: ClaimLimits, holder: &str, life: i64) -> Result<Option<DeltaJob>> {
    tx.connection.execute(
        "UPDATE delta_job SET claimed = NULL, holder = NULL, until = NULL
         WHERE claimed IS NOT NULL AND until <= ?1",
        values![tx.now],
    )?;
    // Who claims at the same time takes the next one instead of waiting for this one.
    let next = tx.connection.either(
        "SELECT delta_job.id, name, base, target, waited, attempts FROM delta_job
         JOIN repository ON repository.id = repository
         WHERE claimed IS NULL ORDER BY waited DESC, asked, delta_job.id LIMIT 1",
        "SELECT delta_job.id, name, base, target, waited, attempts FROM delta_job
         JOIN repository ON repository.id = repository
         WHERE claimed IS NULL ORDER BY waited DESC, asked, delta_job.id LIMIT 1
         FOR UPDATE OF delta_job SKIP LOCKED",
    );
    loop {
        let next: Option<(i64, DeltaJob, u32)> =
            tx.connection.optional(next, values![], |row| Ok((row.get(0)?, read(row)?, row.get(5)?)))?;
        let Some((id, job, attempts)) = next else { return Ok(None) };
        let coming = claimed_to(tx.connection, &job)?;
        let kept = deltas::kept(tx.connection, &job.repository, &job.target)?;
        if attempts < limits.attempts && kept + coming < limits.kept {
            tx.connection.execute(
                "UPDATE delta_job SET claimed = ?2, holder = ?3, until = ?4, attempts = attempts + 1 WHERE id = ?1",
                values![id, tx.now, holder, tx.now.saturating_add(life)],
            )?;
            return Ok(Some(job));
        }
        let DeltaJob { repository, base, target, .. } = &job;
        if attempts < limits.attempts {
            tracing::debug!(%repository, %base, %target, kept, coming, "a delta is not made: there are enough");
        } else {
            tracing::warn!(%repository, %base, %target, attempts, "a delta is given up: each time, who made it died");
        }
        tx.connection.execute("DELETE FROM delta_job WHERE id = ?1", values![id])?;
    }
}

fn read(row: &Row<'_>) -> Result<DeltaJob> {
    Ok(DeltaJob { repository: row.get(1)?, base: row.get(2)?, target: row.get(3)?, waited: row.get(4)? })
}

/// How many deltas to the same layer are being made.
fn claimed_to(connection: &Connection, job: &DeltaJob) -> Result<usize> {
    connection.one(
        "SELECT count(*) FROM delta_job
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND target = ?2
             AND claimed IS NOT NULL",
        values![job.repository, job.target],
        |row| row.get(0),
    )
}

/// Whether there are any.
pub(crate) fn any(connection: &Connection) -> Result<bool> {
    connection.exists("SELECT 1 FROM delta_job LIMIT 1", values![])
}

/// Makes a claim last for `life` milliseconds from now; `false` when the job is over, or somebody else's.
pub(crate) fn renew(tx: &Tx<'_>, job: &DeltaJob, holder: &str, life: i64) -> Result<bool> {
    let until = tx.now.saturating_add(life);
    let renewed = tx.connection.execute(
        "UPDATE delta_job SET until = ?5
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND base = ?2 AND target = ?3 AND holder = ?4",
        values![job.repository, job.base, job.target, holder, until],
    )?;
    Ok(renewed > 0)
}

/// Whether a job is on the list, and this holder's.
pub(crate) fn is_held(connection: &Connection, job: &DeltaJob, holder: &str) -> Result<bool> {
    connection.exists(
        "SELECT 1 FROM delta_job
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND base = ?2 AND target = ?3 AND holder = ?4",
        values![job.repository, job.base, job.target, holder],
    )
}

/// Gives a job back that could not be done now; one that is somebody else's stays.
pub(crate) fn release(tx: &Tx<'_>, job: &DeltaJob, holder: &str) -> Result<()> {
    tx.connection.execute(
        "UPDATE delta_job SET claimed = NULL, holder = NULL, until = NULL
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND base = ?2 AND target = ?3 AND holder = ?4",
        values![job.repository, job.base, job.target, holder],
    )?;
    Ok(())
}

/// Strikes a job from the list: it is done, or will never be.
pub(crate) fn end(tx: &Tx<'_>, repository: &RepositoryName, base: &Digest, target: &Digest) -> Result<()> {
    tx.connection.execute(
        "DELETE FROM delta_job
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND base = ?2 AND target = ?3",
        values![repository, base, target],
    )?;
    Ok(())
}

/// Gives every claim back: for a database that nobody else has open, so that who held them is gone.
pub(crate) fn release_all(connection: &Connection) -> Result<()> {
    connection.execute(
        "UPDATE delta_job SET claimed = NULL, holder = NULL, until = NULL WHERE claimed IS NOT NULL",
        values![],
    )?;
    Ok(())
}
