//! Layers that a delta to another layer may start from.

use std::collections::HashSet;

use deltaport_oci::{Digest, RepositoryName};
use rusqlite::{Connection, Row, params};

use super::{column, repositories, size_column};
use crate::error::Result;

/// How many rows are looked at for each layer that is wanted: versions of an image share most of their layers.
const LOOKS_PER_LAYER: usize = 64;

/// A layer that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its digest.
    pub digest: Digest,
    /// In bytes, as a manifest says.
    pub size: u64,
}

/// The layers that a repository holds, those first that the target most likely replaces: of the manifests at which tags
/// pointed before that now point at an image with the target, the most recent first, then of the most recently stored
/// manifests. Each once, the target not among them.
pub(crate) fn of_repository(
    connection: &Connection,
    repository: &RepositoryName,
    target: &Digest,
    limit: usize,
) -> Result<Vec<Layer>> {
    let Some(id) = repositories::find(connection, repository)? else { return Ok(Vec::new()) };
    let looks = i64::try_from(limit.saturating_mul(LOOKS_PER_LAYER)).unwrap_or(i64::MAX);
    let mut found = Distinct::new(target, limit);
    let mut replaced = connection.prepare_cached(
        "WITH image AS (
             SELECT manifest.digest FROM reference JOIN manifest ON manifest.id = reference.manifest
             WHERE reference.repository = ?1 AND reference.digest = ?2 AND kind = 'layer'),
         tagged AS (
             SELECT digest FROM image
             UNION SELECT manifest.digest FROM reference JOIN manifest ON manifest.id = reference.manifest
             WHERE reference.repository = ?1 AND kind = 'manifest' AND reference.digest IN (SELECT digest FROM image)),
         past AS (
             SELECT tag_past.digest, max(until) AS until FROM tag
             JOIN tag_past ON tag_past.repository = tag.repository AND tag_past.tag = tag.name
             WHERE tag.repository = ?1 AND tag.digest IN (SELECT digest FROM tagged) GROUP BY tag_past.digest),
         old AS (
             SELECT manifest.id, until FROM past
             JOIN manifest ON manifest.repository = ?1 AND manifest.digest = past.digest
             UNION SELECT child.id, until FROM past
             JOIN manifest ON manifest.repository = ?1 AND manifest.digest = past.digest
             JOIN reference ON reference.manifest = manifest.id AND kind = 'manifest'
             JOIN manifest AS child ON child.repository = ?1 AND child.digest = reference.digest)
         SELECT reference.digest, reference.size FROM old
         JOIN reference ON reference.manifest = old.id AND kind = 'layer' AND present = 1
         ORDER BY until DESC, reference.position LIMIT ?3",
    )?;
    found.take(replaced.query(params![id, target.to_string(), looks])?)?;
    let mut recent = connection.prepare_cached(
        "SELECT reference.digest, reference.size
         FROM manifest CROSS JOIN reference ON reference.manifest = manifest.id
         WHERE manifest.repository = ?1 AND kind = 'layer' AND present = 1
         ORDER BY pushed DESC, manifest.id DESC LIMIT ?2",
    )?;
    found.take(recent.query(params![id, looks])?)?;
    Ok(found.layers)
}

/// Layers of images in other repositories that have a layer in common with an image of this one that has the target, with
/// the repository that each is in.
pub(crate) fn of_kin(
    connection: &Connection,
    repository: &RepositoryName,
    target: &Digest,
    limit: usize,
) -> Result<Vec<(RepositoryName, Layer)>> {
    let Some(id) = repositories::find(connection, repository)? else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "WITH image AS (
             SELECT manifest FROM reference WHERE repository = ?1 AND digest = ?2 AND kind = 'layer'),
         shared AS (
             SELECT DISTINCT digest FROM reference
             WHERE manifest IN (SELECT manifest FROM image) AND kind = 'layer' AND digest <> ?2),
         kin AS (
             SELECT DISTINCT manifest FROM reference
             WHERE digest IN (SELECT digest FROM shared) AND kind = 'layer' AND repository <> ?1)
         SELECT reference.digest, reference.size, name FROM kin
         JOIN reference ON reference.manifest = kin.manifest AND kind = 'layer' AND present = 1
         JOIN repository ON repository.id = reference.repository
         WHERE reference.digest NOT IN (SELECT digest FROM shared) AND reference.digest <> ?2
         ORDER BY kin.manifest DESC LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = |row: &Row<'_>| Ok((column(row, 2)?, layer(row)?));
    let rows = statement.query_map(params![id, target.to_string(), limit], read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The images of a repository that have a blob, the most recently stored first.
pub(crate) fn images_with(
    connection: &Connection,
    repository: &RepositoryName,
    blob: &Digest,
    limit: usize,
) -> Result<Vec<Digest>> {
    let mut statement = connection.prepare_cached(
        "SELECT manifest.digest FROM reference JOIN manifest ON manifest.id = reference.manifest
         WHERE reference.repository = (SELECT id FROM repository WHERE name = ?1) AND reference.digest = ?2
             AND kind IN ('config', 'layer')
         ORDER BY pushed DESC, manifest.id DESC LIMIT ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows =
        statement.query_map(params![repository.as_str(), blob.to_string(), limit], |row| column(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn layer(row: &Row<'_>) -> rusqlite::Result<Layer> {
    Ok(Layer { digest: column(row, 0)?, size: size_column(row, 1)? })
}

/// Layers, each once, up to a limit.
struct Distinct {
    seen: HashSet<Digest>,
    layers: Vec<Layer>,
    limit: usize,
}

impl Distinct {
    fn new(target: &Digest, limit: usize) -> Self {
        Self { seen: HashSet::from([*target]), layers: Vec::new(), limit }
    }

    fn take(&mut self, mut rows: rusqlite::Rows<'_>) -> Result<()> {
        while self.layers.len() < self.limit {
            let Some(row) = rows.next()? else { break };
            let layer = layer(row)?;
            if self.seen.insert(layer.digest) {
                self.layers.push(layer);
            }
        }
        Ok(())
    }
}
