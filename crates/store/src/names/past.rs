//! Rows of what tags pointed at before.

use deltaport_oci::{Digest, RepositoryName, Tag};

use super::Tx;
use super::sql::{Connection, values};
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
    tx.connection.execute(
        "DELETE FROM tag_past WHERE repository = ?1 AND tag = ?2 AND digest = ?3",
        values![repository, tag, after],
    )?;
    let last: Option<i64> = tx.connection.one(
        "SELECT max(until) FROM tag_past WHERE repository = ?1 AND tag = ?2",
        values![repository, tag],
        |row| row.get(0),
    )?;
    insert(tx, repository, tag, before, behind(last, tx.now))?;
    tx.connection.execute(
        "DELETE FROM tag_past WHERE repository = ?1 AND tag = ?2 AND until <= (
             SELECT until FROM tag_past WHERE repository = ?1 AND tag = ?2
             ORDER BY until DESC LIMIT 1 OFFSET ?3)",
        values![repository, tag, MAX_PAST],
    )?;
    Ok(())
}

/// Writes a row that is known to be right.
pub(crate) fn insert(tx: &Tx<'_>, repository: i64, tag: &Tag, digest: &Digest, until: i64) -> Result<()> {
    tx.connection.execute(
        "INSERT INTO tag_past (repository, tag, digest, until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (repository, tag, digest) DO UPDATE SET until = excluded.until",
        values![repository, tag, digest, until],
    )?;
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
    connection.query(
        "SELECT manifest.digest FROM tag_past
         JOIN manifest ON manifest.repository = tag_past.repository AND manifest.digest = tag_past.digest
         WHERE tag_past.repository = (SELECT id FROM repository WHERE name = ?1) AND tag = ?2
         ORDER BY until DESC LIMIT ?3",
        values![repository, tag, limit],
        |row| row.get(0),
    )
}
