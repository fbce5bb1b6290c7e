//! Rows that say what the policy decided about a manifest: under which name, by which policy, when, and why.
//!
//! What stands in a verdict is not looked at here; it is kept with the manifest, and goes with it.

use std::time::SystemTime;

use deltaport_oci::{Digest, RepositoryName, Tag};

use super::sql::{Connection, Row, values};
use super::{Tx, from_milliseconds, manifests, repositories};
use crate::error::Result;
use crate::journal::Change;

/// The longest text of a verdict, in bytes: with everything else, and escaped, it fits into a line of the journal.
pub const MAX_VERDICT_LEN: usize = 16 << 10;
/// Under how many names a manifest has verdicts. A manifest with more tags is judged again for each of the others.
const MAX_NAMES: usize = 64;

/// What was decided about a manifest under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Under this tag; `None` is by its digest.
    pub tag: Option<Tag>,
    /// The digest of the policy.
    pub policy: Digest,
    /// When.
    pub at: SystemTime,
    /// Whether it may be served.
    pub accepted: bool,
    /// Why, as JSON, of at most [`MAX_VERDICT_LEN`] bytes.
    pub text: String,
}

/// Writes down a verdict in place of the one before; `false` when the manifest is not here, has verdicts under too many
/// names, or the text is too long.
pub(crate) fn put(
    tx: &mut Tx<'_>,
    repository: &RepositoryName,
    digest: &Digest,
    verdict: &Verdict,
) -> Result<bool> {
    let Some(id) = repositories::find(tx.connection, repository)? else { return Ok(false) };
    if verdict.text.len() > MAX_VERDICT_LEN || !manifests::exists(tx.connection, id, digest)? {
        return Ok(false);
    }
    let tag = verdict.tag.as_ref().map_or("", Tag::as_str);
    let others: usize = tx.connection.one(
        "SELECT count(*) FROM verdict WHERE repository = ?1 AND digest = ?2 AND tag <> ?3",
        values![id, digest, tag],
        |row| row.get(0),
    )?;
    if others >= MAX_NAMES {
        return Ok(false);
    }
    tx.connection.execute(
        "INSERT INTO verdict (repository, digest, tag, policy, at, accepted, text)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (repository, digest, tag) DO UPDATE SET policy = excluded.policy, at = excluded.at,
             accepted = excluded.accepted, text = excluded.text",
        values![id, digest, tag, verdict.policy, tx.now, verdict.accepted, verdict.text],
    )?;
    tx.log(&Change::Verdict {
        repository: repository.clone(),
        digest: *digest,
        tag: verdict.tag.clone(),
        policy: verdict.policy,
        accepted: verdict.accepted,
        text: verdict.text.clone(),
    })?;
    Ok(true)
}

/// The verdicts on a manifest, the one by digest first, then by tag.
pub(crate) fn list(
    connection: &Connection,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Vec<Verdict>> {
    connection.query(
        "SELECT nullif(tag, ''), policy, at, accepted, text FROM verdict
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2 ORDER BY tag",
        values![repository, digest],
        read,
    )
}

fn read(row: &Row<'_>) -> Result<Verdict> {
    Ok(Verdict {
        tag: row.get(0)?,
        policy: row.get(1)?,
        at: from_milliseconds(row.get(2)?),
        accepted: row.get(3)?,
        text: row.get(4)?,
    })
}

/// How many manifests a policy has refused under some name, and accepted under none.
pub(crate) fn refused(connection: &Connection, policy: &Digest) -> Result<u64> {
    connection.one(
        "SELECT count(DISTINCT repository || ' ' || digest) FROM verdict AS one
         WHERE accepted = 0 AND policy = ?1
             AND NOT EXISTS (SELECT 1 FROM verdict AS other
                 WHERE other.repository = one.repository AND other.digest = one.digest
                     AND other.policy = ?1 AND other.accepted = 1)",
        values![policy],
        |row| row.get(0),
    )
}
