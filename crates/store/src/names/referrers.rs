//! Lists of the manifests that say something about another one.

use std::collections::BTreeMap;

use deltaport_oci::{Descriptor, Digest, RepositoryName};

use super::sql::{Connection, Row, unreadable, values};
use super::{Page, page, repositories};
use crate::error::Result;

/// The manifests whose subject is `subject`, by digest, behind `last`.
pub(crate) fn list(
    connection: &Connection,
    repository: &RepositoryName,
    subject: &Digest,
    artifact_type: Option<&str>,
    last: Option<&Digest>,
    limit: usize,
) -> Result<Page<Descriptor>> {
    let Some(id) = repositories::find(connection, repository)? else {
        return Ok(Page { items: Vec::new(), more: false });
    };
    let last = last.map(ToString::to_string).unwrap_or_default();
    let found = match artifact_type {
        None => connection.query(
            "SELECT digest, media_type, artifact_type, annotations, size FROM manifest
             WHERE repository = ?1 AND subject = ?2 AND digest > ?3 ORDER BY digest LIMIT ?4",
            values![id, subject, last, super::one_more(limit)],
            descriptor,
        ),
        Some(wanted) => connection.query(
            "SELECT digest, media_type, artifact_type, annotations, size FROM manifest
             WHERE repository = ?1 AND subject = ?2 AND artifact_type = ?3 AND digest > ?4
             ORDER BY digest LIMIT ?5",
            values![id, subject, wanted, last, super::one_more(limit)],
            descriptor,
        ),
    };
    Ok(page(found?, limit))
}

fn descriptor(row: &Row<'_>) -> Result<Descriptor> {
    let annotations: BTreeMap<String, String> = match row.get::<Option<String>>(3)? {
        Some(json) => serde_json::from_str(&json).map_err(|error| unreadable(3, error))?,
        None => BTreeMap::new(),
    };
    Ok(Descriptor {
        media_type: row.get(1)?,
        digest: row.get(0)?,
        size: row.get(4)?,
        urls: Vec::new(),
        artifact_type: row.get(2)?,
        platform: None,
        annotations,
    })
}
