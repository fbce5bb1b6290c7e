//! Layers that a delta to another layer may start from.

use std::collections::HashSet;
use std::ops::ControlFlow;

use deltaport_oci::{Digest, RepositoryName};

use super::repositories;
use super::sql::{Connection, Row, Value, values};
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
    let looks = limit.saturating_mul(LOOKS_PER_LAYER);
    let mut found = Distinct::new(target, limit);
    found.take(
        connection,
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
        values![id, target, looks],
    )?;
    // A cross join, so that the embedded engine goes through the manifests in the order that is wanted.
    found.take(
        connection,
        "SELECT reference.digest, reference.size
         FROM manifest CROSS JOIN reference
         WHERE reference.manifest = manifest.id
             AND manifest.repository = ?1 AND kind = 'layer' AND present = 1
         ORDER BY pushed DESC, manifest.id DESC LIMIT ?2",
        values![id, looks],
    )?;
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
    connection.query(
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
        values![id, target, limit],
        |row| Ok((row.get(2)?, layer(row)?)),
    )
}

/// The images of a repository that have a blob, the most recently stored first.
pub(crate) fn images_with(
    connection: &Connection,
    repository: &RepositoryName,
    blob: &Digest,
    limit: usize,
) -> Result<Vec<Digest>> {
    connection.query(
        "SELECT manifest.digest FROM reference JOIN manifest ON manifest.id = reference.manifest
         WHERE reference.repository = (SELECT id FROM repository WHERE name = ?1) AND reference.digest = ?2
             AND kind IN ('config', 'layer')
         ORDER BY pushed DESC, manifest.id DESC LIMIT ?3",
        values![repository, blob, limit],
        |row| row.get(0),
    )
}

fn layer(row: &Row<'_>) -> Result<Layer> {
    Ok(Layer { digest: row.get(0)?, size: row.get(1)? })
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

    fn take(&mut self, connection: &Connection, sql: &str, values: &[Value<'_>]) -> Result<()> {
        if self.layers.len() >= self.limit {
            return Ok(());
        }
        connection.each(sql, values, |row| {
            let layer = layer(row)?;
            if self.seen.insert(layer.digest) {
                self.layers.push(layer);
            }
            Ok(if self.layers.len() < self.limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })
    }
}
