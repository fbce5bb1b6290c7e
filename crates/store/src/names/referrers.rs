//! Lists of the manifests that say something about another one.

use std::collections::BTreeMap;

use deltaport_oci::{Descriptor, Digest, RepositoryName};
use rusqlite::{Connection, Row, params};

use super::{Page, column, page, repositories, size_column};
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
    let subject = subject.to_string();
    let last = last.map(ToString::to_string).unwrap_or_default();
    let limit_row = super::one_more(limit);
    match artifact_type {
        None => {
            let mut statement = connection.prepare_cached(
                "SELECT digest, media_type, artifact_type, annotations, size FROM manifest
                 WHERE repository = ?1 AND subject = ?2 AND digest > ?3 ORDER BY digest LIMIT ?4",
            )?;
            page(statement.query_map(params![id, subject, last, limit_row], descriptor)?, limit)
        }
        Some(wanted) => {
            let mut statement = connection.prepare_cached(
                "SELECT digest, media_type, artifact_type, annotations, size FROM manifest
                 WHERE repository = ?1 AND subject = ?2 AND artifact_type = ?3 AND digest > ?4
                 ORDER BY digest LIMIT ?5",
            )?;
            page(statement.query_map(params![id, subject, wanted, last, limit_row], descriptor)?, limit)
        }
    }
}

fn descriptor(row: &Row<'_>) -> rusqlite::Result<Descriptor> {
    let annotations: BTreeMap<String, String> = match row.get::<_, Option<String>>(3)? {
        Some(json) => serde_json::from_str(&json).map_err(|error| super::conversion(3, error))?,
        None => BTreeMap::new(),
    };
    Ok(Descriptor {
        media_type: row.get(1)?,
        digest: column(row, 0)?,
        size: size_column(row, 4)?,
        urls: Vec::new(),
        artifact_type: row.get(2)?,
        platform: None,
        annotations,
    })
}
