//! The collector's queue: what may have become unreferenced, and the decision whether it has.
//!
//! Triggers fill the queue (see [`super::schema`]); an entry that is looked at and found referenced leaves it, because
//! whatever removes that reference later puts it back.

use deltaport_oci::{Digest, RepositoryName};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Tx, column, size_column};
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
    let mut statement = connection.prepare_cached(
        "SELECT repository, digest, since FROM review
         WHERE since <= ?1 AND (since, repository, digest) > (?2, ?3, ?4) AND (repository = 0) = ?5
         ORDER BY since, repository, digest LIMIT ?6",
    )?;
    let (since, repository, digest) = match last {
        Some(last) => (last.since, last.repository, last.digest.to_string()),
        None => (i64::MIN, 0, String::new()),
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement
        .query_map(params![until, since, repository, digest, kind == Kind::Bytes, limit], |row| {
            Ok(Entry { repository: row.get(0)?, digest: column(row, 1)?, since: row.get(2)? })
        })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Decides about a link: removes it when nothing in its repository refers to it. Whether it was removed.
pub(crate) fn decide_link(tx: &mut Tx<'_>, entry: &Entry) -> Result<bool> {
    if !settle(tx, entry)? {
        return Ok(false);
    }
    if is_needed(tx.connection, entry.repository, &entry.digest)? {
        return Ok(false);
    }
    let name: Option<RepositoryName> = tx
        .connection
        .prepare_cached("SELECT name FROM repository WHERE id = ?1")?
        .query_row([entry.repository], |row| column(row, 0))
        .optional()?;
    match name {
        Some(name) => super::blobs::unlink(tx, &name, &entry.digest),
        None => Ok(false),
    }
}

/// Whether anything in a repository refers to a blob.
pub(crate) fn is_needed(connection: &Connection, repository: i64, digest: &Digest) -> Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM reference
             WHERE repository = ?1 AND digest = ?2 AND kind IN ('config', 'layer'))
             OR EXISTS (SELECT 1 FROM layer_delta WHERE repository = ?1 AND digest = ?2)",
    )?;
    Ok(statement.query_row(params![repository, digest.to_string()], |row| row.get(0))?)
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
    let digest = entry.digest.to_string();
    let held: bool = tx
        .connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM repository_blob WHERE digest = ?1)
                 OR EXISTS (SELECT 1 FROM manifest WHERE digest = ?1)",
        )?
        .query_row([&digest], |row| row.get(0))?;
    if held {
        settle(tx, entry)?;
        return Ok(Verdict::Keep);
    }
    let size = tx
        .connection
        .prepare_cached("DELETE FROM blob WHERE digest = ?1 RETURNING size")?
        .query_row([&digest], |row| size_column(row, 0))
        .optional()?;
    Ok(Verdict::Remove(size))
}

/// Takes an entry out of the queue; `false` when it has left it or was queued anew.
pub(crate) fn settle(tx: &Tx<'_>, entry: &Entry) -> Result<bool> {
    let mut statement = tx
        .connection
        .prepare_cached("DELETE FROM review WHERE repository = ?1 AND digest = ?2 AND since = ?3")?;
    Ok(statement.execute(params![entry.repository, entry.digest.to_string(), entry.since])? > 0)
}

fn stands(connection: &Connection, entry: &Entry) -> Result<bool> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM review WHERE repository = ?1 AND digest = ?2 AND since = ?3")?;
    Ok(statement.exists(params![entry.repository, entry.digest.to_string(), entry.since])?)
}

/// Queues bytes for review, as of `now`.
pub(crate) fn queue_bytes(connection: &Connection, digest: &Digest, now: i64) -> Result<()> {
    queue(connection, 0, digest, now)
}

/// Queues a link, or with repository 0 bytes, for review, as of `now`.
pub(crate) fn queue(connection: &Connection, repository: i64, digest: &Digest, now: i64) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO review (repository, digest, since) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET since = excluded.since",
        )?
        .execute(params![repository, digest.to_string(), now])?;
    Ok(())
}
