//! Everything that names say, as changes that would make it so: what a compacted journal holds.

use std::ops::ControlFlow;

use super::sql::{Connection, Row, values};
use crate::error::Result;
use crate::journal::Change;

/// Calls `visit` with the time and the change of each name, in an order in which they can be replayed.
pub(crate) fn each(connection: &Connection, mut visit: impl FnMut(i64, Change) -> Result<()>) -> Result<()> {
    visit(super::milliseconds(std::time::SystemTime::now()), Change::Snapshot {})?;
    let mut part = |sql: &str, read: fn(&Row<'_>) -> Result<Change>| {
        connection.each(sql, values![], |row| {
            visit(row.get(0)?, read(row)?)?;
            Ok(ControlFlow::Continue(()))
        })
    };
    part("SELECT linked, name, digest FROM repository_blob JOIN repository ON id = repository", |row| {
        Ok(Change::Link { repository: row.get(1)?, digest: row.get(2)? })
    })?;
    part(
        "SELECT pushed, name, digest, media_type FROM manifest JOIN repository ON repository.id = repository
         ORDER BY pushed, manifest.id",
        |row| Ok(Change::Manifest { repository: row.get(1)?, digest: row.get(2)?, media_type: row.get(3)? }),
    )?;
    part("SELECT used, name, digest FROM cached JOIN repository ON id = repository", |row| {
        Ok(Change::Fetched { repository: row.get(1)?, digest: row.get(2)? })
    })?;
    // A tag is led along its past to its present. The time of a line is until when the one before it was right.
    part(
        "SELECT lag(until, 1, until) OVER (PARTITION BY repository, tag ORDER BY until),
             repository.name, tag, tag_past.digest
         FROM tag_past JOIN repository ON id = repository ORDER BY repository, tag, until",
        |row| Ok(Change::Tag { repository: row.get(1)?, tag: row.get(2)?, digest: row.get(3)? }),
    )?;
    part(
        "SELECT updated, repository.name, tag.name, digest FROM tag JOIN repository ON id = repository",
        |row| Ok(Change::Tag { repository: row.get(1)?, tag: row.get(2)?, digest: row.get(3)? }),
    )?;
    part(
        "SELECT at, name, digest, nullif(tag, ''), policy, accepted, text
         FROM verdict JOIN repository ON id = repository",
        |row| {
            Ok(Change::Verdict {
                repository: row.get(1)?,
                digest: row.get(2)?,
                tag: row.get(3)?,
                policy: row.get(4)?,
                accepted: row.get(5)?,
                text: row.get(6)?,
            })
        },
    )?;
    part(
        "SELECT made, name, base, target, digest FROM layer_delta JOIN repository ON id = repository",
        |row| {
            Ok(Change::Delta {
                repository: row.get(1)?,
                base: row.get(2)?,
                target: row.get(3)?,
                digest: row.get(4)?,
            })
        },
    )
}
