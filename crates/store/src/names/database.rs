//! The database: how it is opened, read beside the writer, and closed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rusqlite::OpenFlags;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::cache::Cache;
use super::schema;
use super::shared::{PostgresOptions, Shared};
use super::sql::{Connection, unreadable, values};
use super::writer::{Tx, Writer};
use crate::disk;
use crate::error::{Error, Result};
use crate::faults::Faults;
use crate::journal::{self, Journal};
use crate::layout::Layout;

/// How many connections read at a time.
const READERS: usize = 4;

/// The open database.
pub(crate) struct Database {
    engine: Engine,
    pub(crate) cache: Arc<Cache>,
}

enum Engine {
    /// `names.db`, with one thread that writes.
    Embedded { writer: Writer, readers: Arc<Readers> },
    /// A PostgreSQL that replicas share.
    Shared(Shared),
}

struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Database {
    /// Opens `names.db` and the journal, and brings the journal up to date. Blocks. `prepare` works on the database
    /// before anybody else does; `keep` is held until the last change is written.
    pub(crate) fn open(
        layout: &Layout,
        faults: &Faults,
        manifest_cache: usize,
        prepare: impl FnOnce(&Connection) -> Result<()>,
        keep: impl Send + 'static,
    ) -> Result<Self> {
        let connection = connect(layout)?;
        let journal = join_journal(layout, &connection, faults)?;
        prepare(&connection)?;
        let idle = (0..READERS).map(|_| read_only(layout.database())).collect::<Result<_>>()?;
        let readers =
            Arc::new(Readers { idle: Mutex::new(idle), permits: Arc::new(Semaphore::new(READERS)) });
        let cache = Arc::new(Cache::new(manifest_cache));
        let writer = Writer::start(connection, journal, Arc::clone(&cache), faults.clone(), keep)?;
        Ok(Self { engine: Engine::Embedded { writer, readers }, cache })
    }

    /// Opens names that replicas share, and works on them with `prepare` before this replica does anything else. Blocks.
    pub(crate) fn open_shared(
        options: &PostgresOptions,
        faults: &Faults,
        manifest_cache: usize,
        runtime: Handle,
        prepare: impl FnOnce(&Shared) -> Result<()>,
        keep: impl Send + 'static,
    ) -> Result<Self> {
        let cache = Arc::new(Cache::new(manifest_cache));
        let shared = Shared::open(options, Arc::clone(&cache), faults.clone(), runtime, keep)?;
        prepare(&shared)?;
        Ok(Self { engine: Engine::Shared(shared), cache })
    }

    /// The names, if replicas share them: then what is remembered may be wrong, and there is no journal.
    pub(crate) fn shared(&self) -> Option<&Shared> {
        match &self.engine {
            Engine::Embedded { .. } => None,
            Engine::Shared(shared) => Some(shared),
        }
    }

    /// What `time`, by the clock of this process, is by that of the database, which rows have their times from.
    pub(crate) async fn by_its_clock(&self, time: SystemTime) -> Result<SystemTime> {
        match &self.engine {
            Engine::Embedded { .. } => Ok(time),
            Engine::Shared(shared) => shared.by_its_clock(time).await,
        }
    }

    /// Asks the database, on a blocking thread, as of the last commit. `work` may be done twice.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T> + Send + 'static,
    {
        let readers = match &self.engine {
            Engine::Embedded { readers, .. } => Arc::clone(readers),
            Engine::Shared(shared) => return shared.read(work).await,
        };
        let permit = Arc::clone(&readers.permits).acquire_owned().await.map_err(|_| Error::closed())?;
        tokio::task::spawn_blocking(move || {
            let connection = lock(&readers.idle).pop().ok_or_else(Error::closed)?;
            let result = work(&connection);
            lock(&readers.idle).push(connection);
            drop(permit);
            result
        })
        .await?
    }

    /// Does `work` in a transaction and returns when it is durable. When the caller goes away after the change was
    /// queued, it is done all the same. `work` may be done more than once, so it changes nothing but rows.
    pub(crate) async fn change<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        match &self.engine {
            Engine::Embedded { writer, .. } => writer.change(work).await,
            Engine::Shared(shared) => shared.change(work).await,
        }
    }

    /// Works on the journal; see [`Writer::journal`]. `None` when there is none.
    pub(crate) async fn journal<T, F>(&self, work: F) -> Result<Option<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Journal) -> T + Send + 'static,
    {
        match &self.engine {
            Engine::Embedded { writer, .. } => writer.journal(work).await.map(Some),
            Engine::Shared(_) => Ok(None),
        }
    }

    /// Finishes the changes that wait and closes every connection. Blocks.
    pub(crate) fn close(&self) {
        match &self.engine {
            Engine::Embedded { writer, readers } => {
                writer.stop();
                readers.permits.close();
                lock(&readers.idle).clear();
            }
            Engine::Shared(shared) => shared.close(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the writing connection, with the current schema. Refuses to make an empty database where there are names to
/// be lost.
pub(crate) fn connect(layout: &Layout) -> Result<Connection> {
    let path = layout.database();
    let existed = path.exists();
    if !existed && disk::size_if_there(&layout.journal())?.is_some_and(|size| size > 0) {
        return Err(Error::Unusable(format!(
            "{} is missing although there is a journal in {}; give the configuration if it says that it is elsewhere, or \
             run `deltaport rebuild` to make it again",
            path.display(),
            layout.root().display(),
        )));
    }
    let connection = rusqlite::Connection::open(path)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Error::Unusable(format!("names.db cannot use a write-ahead log here, only {mode:?}")));
    }
    schema::configure(&connection)?;
    schema::migrate(&connection)?;
    if !existed {
        disk::sync_parent(path)?;
    }
    Ok(Connection::Sqlite(connection))
}

/// Opens a connection that only reads.
pub(crate) fn read_only(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(path, flags)?;
    schema::configure(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(Connection::Sqlite(connection))
}

/// Opens the database of a data directory that another process may have open, to read it, or to write a setting.
pub(crate) fn beside(layout: &Layout, writing: bool) -> Result<Connection> {
    let path = layout.database();
    if !path.is_file() {
        return Err(nothing_there(layout));
    }
    let connection = read_only(path)?;
    schema::check(&connection)?;
    if let (Connection::Sqlite(connection), true) = (&connection, writing) {
        connection.pragma_update(None, "query_only", false)?;
    }
    Ok(connection)
}

/// What is said where the database is missing that somebody wants to look into.
pub(crate) fn nothing_there(layout: &Layout) -> Error {
    Error::Unusable(format!(
        "there are no data in {}: {} is missing",
        layout.root().display(),
        layout.database().display()
    ))
}

/// Number of the last change that was ever logged.
pub(crate) fn last_change(connection: &Connection) -> Result<u64> {
    let last = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'";
    Ok(connection.optional(last, values![], |row| row.get(0))?.unwrap_or(0))
}

/// What the outbox holds behind `last`.
pub(crate) fn undelivered(connection: &Connection, last: u64) -> Result<Vec<(u64, i64, Box<RawValue>)>> {
    let behind = "SELECT seq, at, change FROM outbox WHERE seq > ?1 ORDER BY seq";
    connection.query(behind, values![last], |row| {
        let change = RawValue::from_string(row.get(2)?).map_err(|error| unreadable(2, error))?;
        Ok((row.get(0)?, row.get(1)?, change))
    })
}

/// Opens the journal and makes sure that it and the outbox together hold every change.
fn join_journal(layout: &Layout, connection: &Connection, faults: &Faults) -> Result<Journal> {
    let journal = Journal::open(layout, faults.clone())?;
    let last = last_change(connection)?;
    if journal.last() > last {
        return Err(Error::Unusable(format!(
            "names.db is older than the journal ({last} changes against {}); run `deltaport rebuild`",
            journal.last()
        )));
    }
    let waiting = undelivered(connection, journal.last())?;
    if waiting.len() as u64 == last - journal.last() {
        return Ok(journal);
    }
    // The database is whole, so it is the truth; the journal has lost lines that nobody has any more.
    tracing::error!("the journal lacks changes that are in names.db; it is set aside and written again");
    drop(journal);
    set_aside(layout, &layout.journal())?;
    rewrite_journal(layout, connection)?;
    Journal::open(layout, faults.clone())
}

/// Writes a journal that holds everything in the database and nothing else.
pub(crate) fn rewrite_journal(layout: &Layout, connection: &Connection) -> Result<()> {
    let last = last_change(connection)?;
    let file = snapshot(layout, connection, last)?;
    file.sync_all()?;
    fs::rename(layout.new_journal(), layout.journal())?;
    disk::sync_directory(layout.root())?;
    Ok(())
}

/// Writes what is in the database into `journal.new`, as of change `last`.
pub(crate) fn snapshot(layout: &Layout, connection: &Connection, last: u64) -> Result<fs::File> {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(layout.new_journal())?;
    let mut out = io::BufWriter::with_capacity(1 << 20, &file);
    super::snapshot::each(connection, |at, change| {
        journal::write_line(&mut out, last, at, &journal::encode(&change)?)?;
        Ok(())
    })?;
    io::Write::flush(&mut out)?;
    drop(out);
    Ok(file)
}

/// Moves a file into quarantine under a name of its own and returns that name; nothing when it is not there.
pub(crate) fn set_aside(layout: &Layout, path: &Path) -> Result<Option<String>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let name = format!("{name}.{}", disk::random_name()?);
    let quarantine = layout.quarantine_of(path);
    disk::make_directory(&quarantine)?;
    match fs::rename(path, quarantine.join(&name)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    disk::sync_directory(&quarantine)?;
    disk::sync_parent(path)?;
    Ok(Some(name))
}

/// How large the journal was when it was last compacted, in bytes.
pub(crate) fn journal_base(connection: &Connection) -> Result<u64> {
    let base = "SELECT value FROM setting WHERE name = 'journal-base'";
    Ok(connection.optional(base, values![], |row| row.get(0))?.unwrap_or(0))
}

/// Remembers that size.
pub(crate) fn set_journal_base(connection: &Connection, bytes: u64) -> Result<()> {
    connection.execute(
        "INSERT INTO setting (name, value) VALUES ('journal-base', ?1)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        values![bytes],
    )?;
    Ok(())
}
