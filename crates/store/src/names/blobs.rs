//! Rows of blobs and of the repositories that hold them.

use deltaport_oci::{Digest, RepositoryName};

use super::sql::{Connection, values};
use super::{Stale, Tx, repositories};
use crate::error::Result;
use crate::journal::Change;

/// The size of a blob, if the repository holds it.
pub(crate) fn size(
    connection: &Connection,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<u64>> {
    connection.optional(
        "SELECT size FROM repository_blob JOIN blob USING (digest)
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2",
        values![repository, digest],
        |row| row.get(0),
    )
}

/// What a manifest says about a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Referenced {
    /// Its size in bytes.
    pub size: u64,
    /// Whether it is a layer, and not a configuration.
    pub layer: bool,
}

/// What the manifests of a repository say about a blob; should they disagree, that it is a layer wins.
pub(crate) fn referenced(
    connection: &Connection,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Referenced>> {
    connection.optional(
        "SELECT size, kind = 'layer' FROM reference
         WHERE repository = (SELECT id FROM repository WHERE name = ?1) AND digest = ?2
             AND kind IN ('config', 'layer')
         ORDER BY kind DESC LIMIT 1",
        values![repository, digest],
        |row| Ok(Referenced { size: row.get(0)?, layer: row.get(1)? }),
    )
}

/// Repositories that hold a blob, in the order in which they came into being.
pub(crate) fn holders(connection: &Connection, digest: &Digest, limit: usize) -> Result<Vec<RepositoryName>> {
    connection.query(
        "SELECT name FROM repository_blob JOIN repository ON id = repository
         WHERE digest = ?1 ORDER BY repository LIMIT ?2",
        values![digest, limit],
        |row| row.get(0),
    )
}

/// Writes down that the bytes of `digest` are here, which they must be, durably.
pub(crate) fn ensure(tx: &Tx<'_>, digest: &Digest, size: u64) -> Result<()> {
    tx.connection.execute(
        "INSERT INTO blob (digest, size, created) VALUES (?1, ?2, ?3) ON CONFLICT (digest) DO NOTHING",
        values![digest, size, tx.now],
    )?;
    Ok(())
}

/// Links a blob whose bytes are here into a repository; a link that is there becomes younger, so that the collector
/// leaves it to whoever is pushing.
pub(crate) fn link(tx: &mut Tx<'_>, repository: &RepositoryName, digest: &Digest) -> Result<()> {
    let repository_id = repositories::ensure(tx, repository)?;
    let known = is_linked(tx.connection, repository_id, digest)?;
    tx.connection.execute(
        "INSERT INTO repository_blob (repository, digest, linked) VALUES (?1, ?2, ?3)
         ON CONFLICT (repository, digest) DO UPDATE SET linked = excluded.linked",
        values![repository_id, digest, tx.now],
    )?;
    if !known {
        tx.log(&Change::Link { repository: repository.clone(), digest: *digest })?;
    }
    Ok(())
}

/// Whether a repository holds a blob.
pub(crate) fn is_linked(connection: &Connection, repository: i64, digest: &Digest) -> Result<bool> {
    connection.exists(
        "SELECT 1 FROM repository_blob WHERE repository = ?1 AND digest = ?2",
        values![repository, digest],
    )
}

/// How many bytes a blob has that some repository holds, or that the collector has not looked at yet.
pub(crate) fn size_of(connection: &Connection, digest: &Digest) -> Result<Option<u64>> {
    connection.optional("SELECT size FROM blob WHERE digest = ?1", values![digest], |row| row.get(0))
}

/// Whether the bytes of `digest` are here.
pub(crate) fn is_here(connection: &Connection, digest: &Digest) -> Result<bool> {
    connection.exists("SELECT 1 FROM blob WHERE digest = ?1", values![digest])
}

/// Whether any repository holds a blob.
pub(crate) fn is_held(connection: &Connection, digest: &Digest) -> Result<bool> {
    connection.exists("SELECT 1 FROM repository_blob WHERE digest = ?1", values![digest])
}

/// Removes a link and what was known about deltas from, to and in the blob; `false` when there was none.
pub(crate) fn unlink(tx: &mut Tx<'_>, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
    let Some(repository_id) = repositories::find(tx.connection, repository)? else { return Ok(false) };
    let deleted = tx.connection.execute(
        "DELETE FROM repository_blob WHERE repository = ?1 AND digest = ?2",
        values![repository_id, digest],
    )?;
    if deleted == 0 {
        return Ok(false);
    }
    tx.log(&Change::Unlink { repository: repository.clone(), digest: *digest })?;
    tx.stale(Stale::Blob(repository.clone(), *digest));
    super::deltas::forget(tx, repository, repository_id, digest)?;
    repositories::drop_if_empty(tx, repository_id)?;
    Ok(true)
}
