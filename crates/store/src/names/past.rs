//! Rows of what tags pointed at before.

use deltaport_oci::{Digest, RepositoryName, Tag};
use rusqlite::{Connection, params};

use super::{Tx, column};
use crate::error::Result;

/// How many manifests are remembered of one tag; the oldest is forgotten for a new one.
pub(crate) const MAX_PAST: usize = 16;

/// Remembers that a tag, which now points at `after`, pointed at `before` until now.
pub(crate) fn remember(
    tx: &Tx<'_>,
    repository: i64,
    tag: &Tag,
    before: &Digest,
    after: &Digest,
) -> Result<()> {
    tx.connection
        .prepare_cached("DELETE FROM tag_past WHERE repository = ?1 AND tag = ?2 AND digest = ?3")?
        .execute(params![repository, tag.as_str(), after.to_string()])?;
    let last: Option<i64> = tx
        .connection
        .prepare_cached("SELECT max(until) FROM tag_past WHERE repository = ?1 AND tag = ?2")?
        .query_row(params![repository, tag.as_str()], |row| row.get(0))?;
    insert(tx, repository, tag, before, behind(last, tx.now))?;
    tx.connection
        .prepare_cached(
            "DELETE FROM tag_past WHERE repository = ?1 AND tag = ?2 AND until <= (
                 SELECT until FROM tag_past WHERE repository = ?1 AND tag = ?2
                 ORDER BY until DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute(params![repository, tag.as_str(), MAX_PAST as i64])?;
    Ok(())
}

/// Writes a row that is known to be right.
pub(crate) fn insert(tx: &Tx<'_>, repository: i64, tag: &Tag, digest: &Digest, until: i64) -> Result<()> {
    tx.connection
        .prepare_cached(
            "INSERT INTO tag_past (repository, tag, digest, until) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET until = excluded.until",
        )?
        .execute(params![repository, tag.as_str(), digest.to_string(), until])?;
    Ok(())
}

/// The time that is written down for `now`, behind `last`: the order in which a tag moved survives a clock that stands
/// still or goes back.
pub(crate) fn behind(last: Option<i64>, now: i64) -> i64 {
    last.map_or(now, |last| now.max(last.saturating_add(1)))
}

/// The manifests that a tag pointed at before and that are still here, the most recent first.
pub(crate) fn list(
    connection: &Connection,
    repository: &RepositoryName,
    tag: &Tag,
    limit: usize,
) -> Result<Vec<Digest>> {
    let mut statement = connection.prepare_cached(
        "SELECT manifest.digest FROM tag_past
         JOIN manifest ON manifest.repository = tag_past.repository AND manifest.digest = tag_past.digest
         WHERE tag_past.repository = (SELECT id FROM repository WHERE name = ?1) AND tag = ?2
         ORDER BY until DESC LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows =
        statement.query_map(params![repository.as_str(), tag.as_str(), limit], |row| column(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
