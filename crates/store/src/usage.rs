//! What takes the room: per repository, and beside them. Reads the database and the directories and changes nothing, so
//! that it may run beside the process that serves them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use deltaport_oci::RepositoryName;
use serde::Serialize;

use crate::error::Result;
use crate::layout::{Layout, companion};
use crate::names::shared::Shared;
use crate::names::sql::{Connection, values};
use crate::names::{cached, database, schema};
use crate::{ByteStore, NamesOptions};

/// How deep directories lie in the data directory.
const MAX_DEPTH: usize = 8;

/// What takes the room. Sizes are those of files in bytes, without what a file system adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Every repository, in byte order.
    pub repositories: Vec<Held>,
    /// Bytes of blobs that one repository holds; the sum of what each has alone.
    pub alone: u64,
    /// Bytes of blobs that several repositories hold, each blob once.
    pub shared: u64,
    /// Bytes of blobs that no repository holds, and that wait for the collector.
    pub unheld: u64,
    /// Bytes of all blobs: what one, several and no repositories hold.
    pub blobs: u64,
    /// Those of them that are here only because they came from upstreams, which are what a cap counts.
    pub cached: u64,
    /// What else there is.
    pub places: Places,
}

/// What a repository holds, its manifests included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The repository.
    pub repository: RepositoryName,
    /// How many blobs it holds.
    pub blobs: u64,
    /// Bytes of those that no other repository holds: what the disk would have more without it.
    pub alone: u64,
    /// Bytes of those that others hold, too.
    pub shared: u64,
}

/// Bytes in the other places of the data directory, and of the directory with the bytes if that is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Places {
    /// The database, and the journal.
    pub names: u64,
    /// Uploads in progress, and what is staged.
    pub uploads: u64,
    /// Beginnings of blobs from upstreams.
    pub partial: u64,
    /// What fsck put aside.
    pub quarantine: u64,
}

/// What takes the room of the store in the data directory `root`, with bytes and names where they live, as of the last
/// commit. Blocks.
///
/// Fails with [`crate::Error::Unusable`] when there are no data, or of another version than this program's.
pub fn usage(root: &Path, bytes: &ByteStore, names: &NamesOptions) -> Result<Usage> {
    let layout = Layout::of(root, bytes, names);
    let mut usage = match names {
        NamesOptions::Directory | NamesOptions::File(_) => {
            if !layout.database().is_file() {
                return Err(database::nothing_there(&layout));
            }
            let connection = database::read_only(layout.database())?;
            schema::check(&connection)?;
            read(&connection)
        }
        NamesOptions::Postgres(options) => Shared::with(options, read),
    }?;
    let sizes = |paths: &[PathBuf]| -> Result<u64> {
        let mut sum = 0;
        for path in paths {
            sum += size(path, 0)?;
        }
        Ok(sum)
    };
    let database = ["", "-wal", "-shm"].map(|suffix| companion(layout.database(), suffix));
    usage.places = Places {
        names: sizes(&database)? + sizes(&[layout.journal(), layout.new_journal()])?,
        uploads: sizes(&[layout.uploads(), layout.staging()])?,
        partial: sizes(&[layout.partials()])?,
        quarantine: sizes(&layout.quarantines())?,
    };
    Ok(usage)
}

fn read(connection: &Connection) -> Result<Usage> {
    const HELD: &str = "WITH held AS (
             SELECT repository, digest FROM repository_blob UNION SELECT repository, digest FROM manifest),
         holders AS (SELECT digest, count(*) AS count FROM held GROUP BY digest)";
    let each = format!(
        "{HELD} SELECT name, count(*),
             CAST(coalesce(sum(size) FILTER (WHERE count = 1), 0) AS bigint),
             CAST(coalesce(sum(size) FILTER (WHERE count > 1), 0) AS bigint)
         FROM held JOIN holders USING (digest) JOIN blob USING (digest) JOIN repository ON id = repository
         GROUP BY id ORDER BY name"
    );
    // One statement after another would see different states.
    connection.batch(connection.either("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"))?;
    let repositories = connection.query(&each, values![], |row| {
        Ok(Held { repository: row.get(0)?, blobs: row.get(1)?, alone: row.get(2)?, shared: row.get(3)? })
    })?;
    let all = format!(
        "{HELD} SELECT CAST(coalesce(sum(size), 0) AS bigint),
             CAST(coalesce(sum(size) FILTER (WHERE count = 1), 0) AS bigint),
             CAST(coalesce(sum(size) FILTER (WHERE count > 1), 0) AS bigint)
         FROM blob LEFT JOIN holders USING (digest)"
    );
    let (blobs, alone, shared): (u64, u64, u64) =
        connection.one(&all, values![], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let cached = cached::bytes(connection)?;
    connection.batch("ROLLBACK")?;
    let (unheld, places) = (blobs - alone - shared, Places::default());
    Ok(Usage { repositories, alone, shared, unheld, blobs, cached, places })
}

/// The sizes of the files below `path`; what goes meanwhile, or is not there, takes no room.
fn size(path: &Path, depth: usize) -> Result<u64> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if gone(&error) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    if !metadata.is_dir() || depth >= MAX_DEPTH {
        return Ok(if metadata.is_file() { metadata.len() } else { 0 });
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut sum = 0;
    for entry in entries {
        sum += size(&entry?.path(), depth + 1)?;
    }
    Ok(sum)
}
