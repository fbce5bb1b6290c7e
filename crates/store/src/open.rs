//! Opening a store: the lock, the directories, and what a crash left half-done.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use deltaport_oci::Digest;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blobs::pool::Pool;
use crate::blobs::recent::Recent;
use crate::bucket::Bucket;
use crate::check;
use crate::core::{Core, DigestLocks};
use crate::disk::{self, ProcessLock, Space};
use crate::error::Result;
use crate::layout::{Layout, is_upload_id};
use crate::names::database::Database;
use crate::names::shared::Shared;
use crate::names::sql::Connection;
use crate::names::{jobs, leases, milliseconds, places, review, sessions};
use crate::{ByteStore, NamesOptions, Options, pair, partial};

/// Opens the store of `options`. Blocks.
pub(crate) fn open(options: Options, runtime: Handle) -> Result<Arc<Core>> {
    let layout = Layout::of(&options.root, &options.bytes, &options.names);
    check::check(&options, &layout)?;
    let bucket = match options.bytes {
        ByteStore::Directory | ByteStore::Elsewhere(_) => None,
        ByteStore::Bucket(options) => Some(Arc::new(Bucket::new(*options)?)),
    };
    disk::make_directory(layout.root())?;
    disk::make_directory(layout.bytes())?;
    disk::make_parent(layout.database())?;
    let lock = ProcessLock::take(&layout)?;
    let embedded = !matches!(options.names, NamesOptions::Postgres(_));
    if embedded && layout.database().parent() == Some(layout.bytes()) {
        // Where the names are, there is no other disk to be missing, and a process that dies here leaves a whole store.
        make_directories(&layout, bucket.is_some())?;
    }
    let cache = options.manifest_cache;
    let database = match &options.names {
        NamesOptions::Directory | NamesOptions::File(_) => {
            let prepare = |connection: &Connection| {
                places::check(connection, bucket.is_some())?;
                if bucket.is_none() {
                    pair::join(&layout, connection)?;
                }
                make_directories(&layout, bucket.is_some())?;
                recover(&layout, connection)
            };
            // The thread that writes outlives this value by a moment, and nobody else may open the store before it ends.
            Database::open(&layout, &options.faults, cache, prepare, lock)?
        }
        NamesOptions::Postgres(postgres) => {
            let prepare = |shared: &Shared| {
                shared.read_blocking(|names| places::check(names, bucket.is_some()))?;
                if bucket.is_none() {
                    pair::join_shared(&layout, shared)?;
                }
                make_directories(&layout, bucket.is_some())?;
                recover_shared(&layout, shared)
            };
            Database::open_shared(postgres, &options.faults, cache, runtime.clone(), prepare, lock)?
        }
    };
    Ok(Arc::new(Core {
        space: Space::new(layout.bytes().to_owned(), options.keep_free),
        bucket,
        layout,
        faults: options.faults,
        grace: options.grace,
        upload_expiry: options.upload_expiry,
        partial_expiry: options.partial_expiry,
        database,
        locks: DigestLocks::new(),
        pool: Arc::new(Pool::default()),
        recent: Recent::new(),
        busy: Mutex::default(),
        collecting: tokio::sync::Mutex::default(),
        closing: CancellationToken::new(),
        tasks: TaskTracker::new(),
        runtime,
    }))
}

/// Makes every directory that a store has. Not before it is clear that the bytes are where they should be: on the mount
/// point of a disk that is away, they would look like a store that has lost everything.
fn make_directories(layout: &Layout, with_copies: bool) -> Result<()> {
    for directory in layout.directories() {
        disk::make_directory(&directory)?;
    }
    if with_copies { remove_copies(layout) } else { Ok(()) }
}

/// Makes an empty directory for local copies of objects.
fn remove_copies(layout: &Layout) -> Result<()> {
    disk::make_directory(&layout.copies())?;
    for path in files(layout.copies())? {
        disk::remove_if_there(&path)?;
    }
    Ok(())
}

/// Finishes or discards what a crash left. Jobs that were being worked on are free again.
fn recover(layout: &Layout, connection: &Connection) -> Result<()> {
    let queue = |marked: &[Digest]| {
        let now = milliseconds(SystemTime::now());
        connection.batch("BEGIN IMMEDIATE")?;
        for digest in marked {
            review::queue_bytes(connection, digest, now)?;
        }
        connection.batch("COMMIT")
    };
    recover_files(layout, queue, |upload| sessions::exists(connection, upload))?;
    leases::release_all(connection)?;
    jobs::release_all(connection)
}

/// The same where other replicas are at work meanwhile.
fn recover_shared(layout: &Layout, shared: &Shared) -> Result<()> {
    let queue = |marked: &[Digest]| {
        shared.change_blocking(|tx| {
            marked.iter().try_for_each(|digest| review::queue_bytes(tx.connection, digest, tx.now))
        })
    };
    recover_files(layout, queue, |upload| shared.read_blocking(|names| sessions::exists(names, upload)))
}

/// Removes bytes that were never proven, and those of uploads that are not `known`; has blobs that may have no row
/// put into the collector's `queue`.
fn recover_files(
    layout: &Layout,
    queue: impl FnOnce(&[Digest]) -> Result<()>,
    known: impl Fn(&str) -> Result<bool>,
) -> Result<()> {
    let (markers, staged): (Vec<_>, Vec<_>) = files(layout.staging())?
        .into_iter()
        .map(|path| (Layout::marked(&path), path))
        .partition(|(digest, _)| digest.is_some());
    for (_, path) in staged {
        disk::remove_if_there(&path)?;
    }
    let marked: Vec<Digest> = markers.iter().filter_map(|(digest, _)| *digest).collect();
    if !marked.is_empty() {
        queue(&marked)?;
        for (_, path) in markers {
            disk::remove_if_there(&path)?;
        }
    }
    for path in files(layout.uploads())? {
        let id = path.file_name().and_then(|name| name.to_str()).filter(|name| is_upload_id(name));
        if let Some(id) = id
            && !known(id)?
        {
            disk::remove_if_there(&path)?;
        }
    }
    partial::remove_leftovers(layout)?;
    disk::remove_if_there(&layout.new_journal())?;
    Ok(())
}

/// The entries of a directory.
pub(crate) fn files(directory: PathBuf) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        paths.push(entry?.path());
    }
    Ok(paths)
}
