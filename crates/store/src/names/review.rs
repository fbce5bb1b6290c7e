//! The collector's queue: what may have become unreferenced, and the decision whether it has.
//!
//! Triggers fill the queue (see [`super::schema`]); an entry that is looked at and found referenced leaves it, because
//! whatever removes that reference later puts it back.

use deltaport_oci::{Digest, RepositoryName};

use super::Tx;
use super::sql::{Connection, values};
use crate::error::Result;

/// One entry of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The repository whose link is in question; 0 when it is the bytes.
    pub(crate) repository: i64,
    pub(crate) digest: Digest,
    /// When it was queued. An entry that has been queued again since is not the same one.
    pub(crate) since: i64,
}

/// Which entries a step of the collector looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Links,
    Bytes,
}

/// Entries queued at `until` or before, oldest first, behind `last`.
pub(crate) fn due(
    connection: &Connection,
    kind: Kind,
    until: i64,
    last: Option<Entry>,
    limit: usize,
) -> Result<Vec<Entry>> {
    let (since, repository, digest) = match last {
        Some(last) => (last.since, last.repository, last.digest.to_string()),
        None => (i64::MIN, 0, String::new()),
    };
    connection.query(
        "SELECT repository, digest, since FROM review
         WHERE since <= ?1 AND (since, repository, digest) > (?2, ?3, ?4)
             AND CASE WHEN repository = 0 THEN 1 ELSE 0 END = ?5
         ORDER BY since, repository, digest LIMIT ?6",
        values![until, since, repository, digest, kind == Kind::Bytes, limit],
        |row| Ok(Entry { repository: row.get(0)?, digest: row.get(1)?, since: row.get(2)? }),
    )
}

/// Decides about a link: removes it when nothing in its repository refers to it. Whether it was removed.
pub(crate) fn decide_link(tx: &mut Tx<'_>, entry: &Entry) -> Result<bool> {
    if !settle(tx, entry)? {
        return Ok(false);
    }
    if is_needed(tx.connection, entry.repository, &entry.digest)? {
        return Ok(false);
    }
    let name: Option<RepositoryName> = tx.connection.optional(
        "SELECT name FROM repository WHERE id = ?1",
        values![entry.repository],
        |row| row.get(0),
    )?;
    match name {
        Some(name) => super::blobs::unlink(tx, &name, &entry.digest),
        None => Ok(false),
    }
}

/// Whether anything in a repository refers to a blob.
pub(crate) fn is_needed(connection: &Connection, repository: i64, digest: &Digest) -> Result<bool> {
    connection.one(
        "SELECT EXISTS (SELECT 1 FROM reference
             WHERE repository = ?1 AND digest = ?2 AND kind IN ('config', 'layer'))
             OR EXISTS (SELECT 1 FROM layer_delta WHERE repository = ?1 AND digest = ?2)",
        values![repository, digest],
        |row| row.get(0),
    )
}

/// What is to be done about bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Something refers to them, or they have been queued anew.
    Keep,
    /// Their row is gone: the file is to be removed, and then the entry with [`settle`]. The size as far as known.
    Remove(Option<u64>),
}

/// Decides about bytes: forgets them when no repository holds them and no manifest is them. The entry stays in the
/// queue until the file is gone, so that a crash in between leaves no file that nobody knows of.
pub(crate) fn decide_bytes(tx: &Tx<'_>, entry: &Entry) -> Result<Verdict> {
    if !stands(tx.connection, entry)? {
        return Ok(Verdict::Keep);
    }
    let held: bool = tx.connection.one(
        "SELECT EXISTS (SELECT 1 FROM repository_blob WHERE digest = ?1)
             OR EXISTS (SELECT 1 FROM manifest WHERE digest = ?1)",
        values![entry.digest],
        |row| row.get(0),
    )?;
    if held {
        settle(tx, entry)?;
        return Ok(Verdict::Keep);
    }
    super::places::doom(tx, &entry.digest)?;
    let size = tx.connection.optional(
        "DELETE FROM blob WHERE digest = ?1 RETURNING size",
        values![entry.digest],
        |row| row.get(0),
    )?;
    Ok(Verdict::Remove(size))
}

/// Takes an entry out of the queue; `false` when it has left it or was queued anew.
pub(crate) fn settle(tx: &Tx<'_>, entry: &Entry) -> Result<bool> {
    let settled = tx.connection.execute(
        "DELETE FROM review WHERE repository = ?1 AND digest = ?2 AND since = ?3",
        values![entry.repository, entry.digest, entry.since],
    )?;
    Ok(settled > 0)
}

fn stands(connection: &Connection, entry: &Entry) -> Result<bool> {
    connection.exists(
        "SELECT 1 FROM review WHERE repository = ?1 AND digest = ?2 AND since = ?3",
        values![entry.repository, entry.digest, entry.since],
    )
}

/// Queues bytes for review, as of `now`.
pub(crate) fn queue_bytes(connection: &Connection, digest: &Digest, now: i64) -> Result<()> {
    queue(connection, 0, digest, now)
}

/// Queues a link, or with repository 0 bytes, for review, as of `now`.
pub(crate) fn queue(connection: &Connection, repository: i64, digest: &Digest, now: i64) -> Result<()> {
    connection.execute(
        "INSERT INTO review (repository, digest, since) VALUES (?1, ?2, ?3)
         ON CONFLICT (repository, digest) DO UPDATE SET since = excluded.since",
        values![repository, digest, now],
    )?;
    Ok(())
}
