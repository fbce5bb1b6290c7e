//! Rows that say which manifests came from an upstream, and when each was last used: what room may be made of.
//!
//! A manifest without such a row was pushed, and only its owner deletes it. Where a manifest came from is a name as any
//! other and stands in the journal; when it was used is not, and after a rebuild everything was used when it came.

use std::collections::BTreeSet;

use deltaport_oci::{Digest, RepositoryName, Tag};

use super::sql::{Connection, values};
use super::{Tx, manifests, repositories};
use crate::error::Result;
use crate::journal::Change;

/// How many manifests one image may consist of, with what is about it, to be evicted.
const MAX_MEMBERS: usize = 1024;
/// How many of its blobs that are not here are named.
const MAX_MISSING: usize = 4096;

/// Where a manifest comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Somebody pushed it.
    Pushed,
    /// It was fetched from an upstream.
    Fetched,
}

/// An image from an upstream that could be evicted: a manifest that nothing here refers to, with all that goes with it.
#[derive(Clone, Debug)]
pub struct Cached {
    /// Its repository.
    pub repository: RepositoryName,
    /// Its digest.
    pub digest: Digest,
    /// The tags on it.
    pub tags: Vec<Tag>,
    /// It, the manifests below it and those about them, as far as they came from an upstream; `None` when those are too
    /// many (1024) to be looked at.
    pub manifests: Option<Vec<Digest>>,
    /// Blobs that these manifests refer to and that are not here; no more than 4096 are named.
    pub missing: Vec<Digest>,
    /// When it was last used, in milliseconds since 1970.
    used: i64,
    /// The row of the repository.
    row: i64,
}

/// What was evicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// The manifests that are gone.
    pub manifests: Vec<Digest>,
    /// How many tags went with them.
    pub tags: u64,
    /// How many bytes nobody holds any more; the next run of the collector takes them off the disk.
    pub bytes: u64,
}

/// Whether a manifest came from an upstream.
pub(crate) fn is_fetched(connection: &Connection, repository: i64, digest: &Digest) -> Result<bool> {
    connection
        .exists("SELECT 1 FROM cached WHERE repository = ?1 AND digest = ?2", values![repository, digest])
}

/// Writes down that a manifest came from an upstream and was used at `tx.now`.
pub(crate) fn put(tx: &mut Tx<'_>, repository: &RepositoryName, id: i64, digest: &Digest) -> Result<()> {
    tx.connection.execute(
        "INSERT INTO cached (repository, digest, used) VALUES (?1, ?2, ?3)
         ON CONFLICT (repository, digest) DO UPDATE SET used = excluded.used
         WHERE cached.used < excluded.used",
        values![id, digest, tx.now],
    )?;
    tx.log(&Change::Fetched { repository: repository.clone(), digest: *digest })
}

/// Writes down that a manifest was pushed, whatever it was before.
pub(crate) fn forget(tx: &Tx<'_>, repository: i64, digest: &Digest) -> Result<()> {
    tx.connection
        .execute("DELETE FROM cached WHERE repository = ?1 AND digest = ?2", values![repository, digest])?;
    Ok(())
}

/// Writes down when a manifest was used, and with it the indexes that refer to it.
pub(crate) fn note_use(tx: &Tx<'_>, repository: &RepositoryName, digest: &Digest, at: i64) -> Result<()> {
    tx.connection.execute(
        "WITH RECURSIVE above (digest) AS (
             VALUES (?2 COLLATE BINARY)
             UNION
             SELECT manifest.digest FROM above
             JOIN reference ON reference.repository = (SELECT id FROM repository WHERE name = ?1)
                 AND reference.digest = above.digest AND kind = 'manifest'
             JOIN manifest ON manifest.id = reference.manifest)
         UPDATE cached SET used = ?3
         WHERE repository = (SELECT id FROM repository WHERE name = ?1)
             AND digest IN (SELECT digest FROM above) AND used < ?3",
        values![repository, digest, at],
    )?;
    Ok(())
}

/// Images from upstreams that were last used before `before`, the least recently used first, behind `last`.
pub(crate) fn oldest(
    connection: &Connection,
    before: i64,
    last: Option<&Cached>,
    limit: usize,
) -> Result<Vec<Cached>> {
    let (used, row, digest) =
        last.map_or((i64::MIN, 0, String::new()), |last| (last.used, last.row, last.digest.to_string()));
    let mut found = connection.query(
        "SELECT name, cached.digest, used, cached.repository FROM cached JOIN repository ON id = cached.repository
         WHERE used < ?1 AND (used, cached.repository, cached.digest) > (?2, ?3, ?4)
             AND NOT EXISTS (SELECT 1 FROM reference WHERE reference.repository = cached.repository
                 AND reference.digest = cached.digest AND kind = 'manifest')
             AND NOT EXISTS (SELECT 1 FROM manifest JOIN reference ON reference.manifest = manifest.id
                 WHERE manifest.repository = cached.repository AND manifest.digest = cached.digest
                     AND kind = 'subject' AND present = 1)
         ORDER BY used, cached.repository, cached.digest LIMIT ?5",
        values![before, used, row, digest, limit],
        |row| {
            Ok(Cached {
                repository: row.get(0)?,
                digest: row.get(1)?,
                tags: Vec::new(),
                manifests: None,
                missing: Vec::new(),
                used: row.get(2)?,
                row: row.get(3)?,
            })
        },
    )?;
    for cached in &mut found {
        complete(connection, cached)?;
    }
    Ok(found)
}

/// Adds what goes with an image.
fn complete(connection: &Connection, cached: &mut Cached) -> Result<()> {
    cached.tags = tags_of(connection, cached.row, &cached.digest)?;
    let members = members(connection, cached.row, &cached.digest)?;
    if members.len() > MAX_MEMBERS {
        return Ok(());
    }
    for member in &members {
        let room = MAX_MISSING - cached.missing.len();
        cached.missing.extend(connection.query(
            "SELECT reference.digest FROM manifest JOIN reference ON reference.manifest = manifest.id
             WHERE manifest.repository = ?1 AND manifest.digest = ?2 AND kind IN ('config', 'layer')
                 AND present = 0
             LIMIT ?3",
            values![cached.row, member, room],
            |row| row.get::<Digest>(0),
        )?);
    }
    cached.manifests = Some(members);
    Ok(())
}

/// An image, the manifests below it and those about them; one more than are allowed at most.
fn members(connection: &Connection, repository: i64, root: &Digest) -> Result<Vec<Digest>> {
    // PostgreSQL takes a recursive query with one recursive part only.
    let below = connection.either(
        "WITH RECURSIVE below (digest) AS (
             VALUES (?2)
             UNION
             SELECT reference.digest FROM below
             JOIN manifest ON manifest.repository = ?1 AND manifest.digest = below.digest
             JOIN reference ON reference.manifest = manifest.id AND kind = 'manifest' AND present = 1
             UNION
             SELECT manifest.digest FROM below
             JOIN reference ON reference.repository = ?1 AND reference.digest = below.digest AND kind = 'subject'
             JOIN manifest ON manifest.id = reference.manifest)
         SELECT below.digest FROM below
         JOIN cached ON cached.repository = ?1 AND cached.digest = below.digest LIMIT ?3",
        "WITH RECURSIVE below (digest) AS (
             VALUES (?2 COLLATE BINARY)
             UNION
             SELECT beside.digest FROM below CROSS JOIN LATERAL (
                 SELECT reference.digest FROM manifest
                 JOIN reference ON reference.manifest = manifest.id AND kind = 'manifest' AND present = 1
                 WHERE manifest.repository = ?1 AND manifest.digest = below.digest
                 UNION ALL
                 SELECT manifest.digest FROM reference JOIN manifest ON manifest.id = reference.manifest
                 WHERE reference.repository = ?1 AND reference.digest = below.digest AND kind = 'subject')
                 AS beside)
         SELECT below.digest FROM below
         JOIN cached ON cached.repository = ?1 AND cached.digest = below.digest LIMIT ?3",
    );
    connection.query(below, values![repository, root, super::one_more(MAX_MEMBERS)], |row| row.get(0))
}

pub(super) fn tags_of(connection: &Connection, repository: i64, digest: &Digest) -> Result<Vec<Tag>> {
    connection.query(
        "SELECT name FROM tag WHERE repository = ?1 AND digest = ?2 ORDER BY name",
        values![repository, digest],
        |row| row.get(0),
    )
}

/// Removes an image as it was found: with its tags, and with those manifests that go with it, have no tag, and that
/// nothing else here refers to. `None` when it has been used, tagged, or taken into an index since.
///
/// What only they referred to is unlinked in the same transaction, and its bytes need not wait for the collector's grace:
/// nobody pushes here, and who still pulls is sent what is fetched again.
pub(crate) fn evict(tx: &mut Tx<'_>, cached: &Cached) -> Result<Option<Evicted>> {
    let Some(members) = &cached.manifests else { return Ok(None) };
    let Some(id) = repositories::find(tx.connection, &cached.repository)? else { return Ok(None) };
    let tags = tags_of(tx.connection, id, &cached.digest)?;
    let used = last_use(tx.connection, id, &cached.digest)?;
    let changed = used != Some(cached.used) || tags.iter().any(|tag| !cached.tags.contains(tag));
    if changed || is_child(tx.connection, id, &cached.digest)? {
        return Ok(None);
    }
    let mut evicted = Evicted { tags: tags.len() as u64, ..Evicted::default() };
    let (mut left, mut blobs) = (vec![cached.digest], BTreeSet::new());
    while let Some(digest) = left.pop() {
        let goes = digest == cached.digest
            || members.contains(&digest)
                && is_fetched(tx.connection, id, &digest)?
                && tags_of(tx.connection, id, &digest)?.is_empty()
                && !is_child(tx.connection, id, &digest)?;
        if !goes || evicted.manifests.contains(&digest) {
            continue;
        }
        left.extend(beside(tx.connection, id, &digest)?);
        blobs.extend(blobs_of(tx.connection, id, &digest)?);
        manifests::delete(tx, &cached.repository, &digest)?;
        evicted.manifests.push(digest);
    }
    let mut gone = unlink(tx, &cached.repository, id, blobs)?;
    gone.extend(&evicted.manifests);
    for digest in gone {
        evicted.bytes += give_up(tx.connection, &digest)?;
    }
    Ok(Some(evicted))
}

fn last_use(connection: &Connection, repository: i64, digest: &Digest) -> Result<Option<i64>> {
    connection.optional(
        "SELECT used FROM cached WHERE repository = ?1 AND digest = ?2",
        values![repository, digest],
        |row| row.get(0),
    )
}

/// Whether an index that is here refers to it.
pub(super) fn is_child(connection: &Connection, repository: i64, digest: &Digest) -> Result<bool> {
    connection.exists(
        "SELECT 1 FROM reference WHERE repository = ?1 AND digest = ?2 AND kind = 'manifest'",
        values![repository, digest],
    )
}

/// The manifests right below one, and those about it.
pub(super) fn beside(connection: &Connection, repository: i64, digest: &Digest) -> Result<Vec<Digest>> {
    connection.query(
        "SELECT reference.digest FROM manifest JOIN reference ON reference.manifest = manifest.id
         WHERE manifest.repository = ?1 AND manifest.digest = ?2 AND kind = 'manifest' AND present = 1
         UNION
         SELECT manifest.digest FROM reference JOIN manifest ON manifest.id = reference.manifest
         WHERE reference.repository = ?1 AND reference.digest = ?2 AND kind = 'subject'",
        values![repository, digest],
        |row| row.get(0),
    )
}

/// What an image refers to and is here, with the deltas from and to it.
pub(super) fn blobs_of(connection: &Connection, repository: i64, digest: &Digest) -> Result<Vec<Digest>> {
    connection.query(
        "WITH part (digest) AS (
             SELECT reference.digest FROM manifest JOIN reference ON reference.manifest = manifest.id
             WHERE manifest.repository = ?1 AND manifest.digest = ?2 AND kind IN ('config', 'layer') AND present = 1)
         SELECT digest FROM part
         UNION
         SELECT layer_delta.digest FROM part JOIN layer_delta ON layer_delta.repository = ?1
             AND (base = part.digest OR target = part.digest) AND layer_delta.digest IS NOT NULL",
        values![repository, digest],
        |row| row.get(0),
    )
}

/// Removes the links to those of `blobs` that nothing in the repository refers to; returns them. Layers go before the
/// deltas between them, since a delta is needed as long as both are.
pub(super) fn unlink(
    tx: &mut Tx<'_>,
    repository: &RepositoryName,
    id: i64,
    blobs: BTreeSet<Digest>,
) -> Result<Vec<Digest>> {
    let mut gone = Vec::new();
    let mut left: Vec<Digest> = blobs.into_iter().collect();
    loop {
        let before = gone.len();
        let mut kept = Vec::new();
        for digest in left {
            if super::review::is_needed(tx.connection, id, &digest)? {
                kept.push(digest);
            } else if super::blobs::unlink(tx, repository, &digest)? {
                gone.push(digest);
            }
        }
        if gone.len() == before {
            return Ok(gone);
        }
        left = kept;
    }
}

/// Hands bytes that nobody holds to the next run of the collector, whatever its grace; how many they are.
fn give_up(connection: &Connection, digest: &Digest) -> Result<u64> {
    let size: Option<u64> = connection.optional(
        "SELECT size FROM blob WHERE digest = ?1
             AND NOT EXISTS (SELECT 1 FROM repository_blob WHERE digest = ?1)
             AND NOT EXISTS (SELECT 1 FROM manifest WHERE digest = ?1)",
        values![digest],
        |row| row.get(0),
    )?;
    if size.is_some() {
        super::review::queue_bytes(connection, digest, 0)?;
    }
    Ok(size.unwrap_or(0))
}

/// How many bytes are here only because they came from upstreams: those of which no repository without anything from an
/// upstream, and no manifest that was pushed, has need.
pub(crate) fn bytes(connection: &Connection) -> Result<u64> {
    connection.one(
        "WITH held AS (SELECT repository, digest FROM repository_blob UNION SELECT repository, digest FROM manifest),
         pushed AS (
             SELECT id, manifest.repository, manifest.digest FROM manifest
             LEFT JOIN cached USING (repository, digest) WHERE cached.used IS NULL),
         needed AS (
             SELECT digest FROM held WHERE repository NOT IN (SELECT repository FROM cached)
             UNION SELECT digest FROM pushed
             UNION SELECT reference.digest FROM pushed JOIN reference ON reference.manifest = pushed.id
                 WHERE kind IN ('config', 'layer'))
         SELECT CAST(coalesce(sum(size), 0) AS bigint) FROM blob
         WHERE digest IN (SELECT digest FROM held) AND digest NOT IN (SELECT digest FROM needed)",
        values![],
        |row| row.get(0),
    )
}
