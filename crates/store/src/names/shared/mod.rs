//! Names in a PostgreSQL that replicas share.
//!
//! A change runs in a transaction of its own at `SERIALIZABLE`, and again when PostgreSQL finds that it cannot be ordered
//! with the others. Who has had to run it several times stands in line for the next attempts, so that a row which many
//! want to change goes from one to the next and nobody is left behind.
//!
//! When a connection breaks, what was not committed is undone by the server, and the change is run again on another. Only
//! when it breaks during the commit nobody knows: then the row of `outcome` that every change writes is asked for, in a way
//! that also keeps the change from being made later.

mod check;
mod options;
mod pool;
mod tls;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::cache::Cache;
use super::schema::postgres as schema;
use super::sql::postgres::{away, sentence};
use super::sql::{Connection, Session, Trouble, values};
use super::writer::Tx;
use super::{from_milliseconds, held};
use crate::error::{Error, Result};
use crate::faults::{self, Faults};
use pool::Pool;

pub use check::check_database;
pub use options::PostgresOptions;

/// How often a change is run before it is given up.
const ATTEMPTS: u32 = 60;
/// After how long no further attempt is begun.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often it is run before it stands in line with others that had no luck either.
const FREE_ATTEMPTS: u32 = 4;
/// How often a change is begun anew because its connection broke.
const BREAKS: u32 = 4;
/// How long one waits at most before the next attempt; the first wait is a hundredth of it.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// How long one tries to learn what became of a commit.
const INQUIRY: Duration = Duration::from_secs(20);
/// For how long it is known what became of a commit: much longer than anybody asks.
const OUTCOMES_KEPT: Duration = Duration::from_secs(3600);
/// The advisory lock that is the line: "deltaliN" in ASCII.
const LINE: i64 = 0x6465_6c74_616c_694e;

const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";
/// The time is asked for with it; it is negative when no changes are taken ([`super::held`]): neither while what is here is
/// held, nor, from who is not excused, before what is moved here is whole.
const MARK: &str = "INSERT INTO outcome (id, at, made) VALUES (?1, now_in_milliseconds(), 1)
    RETURNING CASE WHEN EXISTS (SELECT 1 FROM setting
            WHERE name = 'held-until' AND value > now_in_milliseconds() OR name = 'migrating' AND ?2 = 0)
        THEN -1 ELSE at END";

/// The way to the names that replicas share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared {
    pool: Arc<Pool>,
    cache: Arc<Cache>,
    faults: Faults,
    runtime: Handle,
    tasks: TaskTracker,
    /// Whether changes are made here even before what is moved here is whole.
    excused: Arc<AtomicBool>,
    /// Held until it is closed.
    keep: Arc<Mutex<Option<Box<dyn Send>>>>,
}

/// How an attempt at a change ended.
enum Attempt<T> {
    /// The change was made, or has failed for a reason of its own.
    Over(Result<T>),
    /// It was not made, and may be run again.
    Again(Trouble, Error),
    /// Nobody knows whether it was made.
    Unknown(T, i64, Error),
}

impl Shared {
    /// Connects, and makes the tables or brings them up to date. `keep` is held until it is closed. Blocks.
    pub(crate) fn open(
        options: &PostgresOptions,
        cache: Arc<Cache>,
        faults: Faults,
        runtime: Handle,
        keep: impl Send + 'static,
    ) -> Result<Self> {
        let shared = Self {
            keep: Arc::new(Mutex::new(Some(Box::new(keep)))),
            ..Self::new(options, cache, faults, runtime)?
        };
        shared.pool.create_schema()?;
        // Not to be used again: it may wait for long.
        schema::migrate(&shared.pool.connect()?)?;
        Ok(shared)
    }

    /// Has no changes be taken until then, in milliseconds since 1970. When it returns, none is under way that was begun
    /// before.
    pub(crate) async fn hold(&self, until: i64) -> Result<()> {
        self.read(move |names| {
            // Every change has looked into this table, and keeps it from being locked until it has ended.
            names.batch("BEGIN; LOCK TABLE setting IN ACCESS EXCLUSIVE MODE")?;
            match held::set(names, until) {
                Ok(()) => names.batch("COMMIT"),
                Err(error) => {
                    names.batch("ROLLBACK")?;
                    Err(error)
                }
            }
        })
        .await
    }

    /// Does `work` with a connection to what is there, for a command that ends soon. Makes no tables. Blocks.
    pub(crate) fn with<T: Send>(
        options: &PostgresOptions,
        work: impl FnOnce(&Connection) -> Result<T> + Send,
    ) -> Result<T> {
        Self::with_server(options, |connection| {
            schema::check(connection)?;
            // It looks at everything, and may take its time.
            session(connection)?.take_time()?;
            connection.batch("SET enable_seqscan = on")?;
            work(connection)
        })
    }

    /// The same with a connection to whatever is there. Blocks.
    fn with_server<T: Send>(
        options: &PostgresOptions,
        work: impl FnOnce(&Connection) -> Result<T> + Send,
    ) -> Result<T> {
        let working = || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let shared =
                Self::new(options, Arc::new(Cache::new(0)), Faults::none(), runtime.handle().clone())?;
            work(&shared.pool.connect()?)
        };
        // On a thread of its own, because the caller's may belong to a runtime, and then may not wait for another.
        std::thread::scope(|scope| scope.spawn(working).join()).unwrap_or_else(|_| Err(Error::closed()))
    }

    /// Connects to what is there, for a command. Makes no tables. Blocks, and so does what is asked of it.
    pub(crate) fn attach(options: &PostgresOptions, runtime: Handle) -> Result<Self> {
        let shared = Self::new(options, Arc::new(Cache::new(0)), Faults::none(), runtime)?;
        let connection = shared.pool.connect()?;
        schema::check(&connection)?;
        shared.put_back(connection)?;
        Ok(shared)
    }

    fn new(options: &PostgresOptions, cache: Arc<Cache>, faults: Faults, runtime: Handle) -> Result<Self> {
        let pool = Arc::new(Pool::new(options, runtime.clone())?);
        let excused = Arc::new(AtomicBool::new(true));
        Ok(Self { pool, cache, faults, runtime, tasks: TaskTracker::new(), excused, keep: Arc::default() })
    }

    /// Makes no changes from here on while a registry is moved here. Who does not say this is who moves it.
    pub(crate) fn respect_migration(&self) {
        self.excused.store(false, Ordering::Release);
    }

    /// How many statements were sent to the database.
    pub(crate) fn sent(&self) -> u64 {
        self.pool.sent()
    }

    /// Asks the database; once more on a new connection when the first turns out to be broken.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T> + Send + 'static,
    {
        let permit = self.pool.permit().await?;
        let shared = self.clone();
        let reading = move || {
            let result = shared.read_blocking(work);
            drop(permit);
            result
        };
        self.tasks.spawn_blocking_on(reading, &self.runtime).await?
    }

    /// The same on the thread of the caller.
    pub(crate) fn read_blocking<T>(&self, work: impl Fn(&Connection) -> Result<T>) -> Result<T> {
        let connection = self.pool.take()?;
        let result = work(&connection);
        match session(&connection)?.trouble() {
            Some(Trouble::Broken) => {
                drop(connection);
                self.pool.drain();
                let connection = self.pool.connect()?;
                let result = work(&connection);
                self.put_back(connection)?;
                result
            }
            _ => {
                self.pool.give(connection);
                result
            }
        }
    }

    /// Changes names. When the caller goes away, the change is made all the same, or not.
    pub(crate) async fn change<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let permit = self.pool.permit_to_change().await?;
        let shared = self.clone();
        let changing = move || {
            let result = shared.change_blocking(work);
            drop(permit);
            result
        };
        self.tasks.spawn_blocking_on(changing, &self.runtime).await?
    }

    /// The same on the thread of the caller.
    pub(crate) fn change_blocking<T>(&self, work: impl Fn(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        let (begun, mut breaks, mut last) = (Instant::now(), 0, Error::closed());
        for attempt in 0..ATTEMPTS {
            if begun.elapsed() > PATIENCE || breaks > BREAKS {
                break;
            }
            let connection = self.pool.take()?;
            let queued = attempt >= FREE_ATTEMPTS;
            let ended = match queued {
                true => Self::in_line(&connection, |connection| self.attempt(connection, &work)),
                false => self.attempt(&connection, &work),
            };
            match ended {
                Attempt::Over(result) => {
                    self.put_back(connection)?;
                    return result;
                }
                Attempt::Unknown(value, id, error) => {
                    drop(connection);
                    self.pool.drain();
                    if self.was_made(id, error)? {
                        return Ok(value);
                    }
                }
                Attempt::Again(Trouble::Broken, error) => {
                    drop(connection);
                    self.pool.drain();
                    breaks += 1;
                    last = error;
                    pause(breaks)?;
                }
                Attempt::Again(_, error) => {
                    self.put_back(connection)?;
                    last = error;
                    pause(attempt)?;
                }
            }
        }
        tracing::warn!(error = %last, "a change was tried again and again and is given up");
        Err(match last {
            Error::Unavailable { .. } => last,
            error => away(format!("a change cannot be ordered with those of others: {error}")),
        })
    }

    /// Runs a change once.
    fn attempt<T>(&self, connection: &Connection, work: impl Fn(&mut Tx<'_>) -> Result<T>) -> Attempt<T> {
        let session = match session(connection) {
            Ok(session) => session,
            Err(error) => return Attempt::Over(Err(error)),
        };
        let failed = |error| match session.trouble() {
            None | Some(Trouble::Failed) => Attempt::Over(Err(error)),
            Some(trouble) => Attempt::Again(trouble, error),
        };
        let id = match getrandom::u64() {
            Ok(id) => id.cast_signed(),
            Err(error) => return Attempt::Over(Err(Error::Io(std::io::Error::other(error)))),
        };
        let excused = i64::from(self.excused.load(Ordering::Acquire));
        let now = match session.batch_then_number(BEGIN, MARK, values![id, excused]) {
            Ok(now) => now,
            Err(error) => return rolled_back(session, failed(error)),
        };
        if now < 0 {
            return rolled_back(session, Attempt::Over(Err(held::refusal())));
        }
        let mut tx = Tx::shared(connection, now);
        let done = work(&mut tx).and_then(|value| {
            self.faults.at(faults::BEFORE_COMMIT)?;
            Ok(value)
        });
        let stale = tx.into_stale();
        let value = match (done, session.trouble()) {
            (Ok(value), None) => value,
            (Ok(_), Some(trouble)) => {
                let error = away("a statement failed".to_owned());
                return rolled_back(session, Attempt::Again(trouble, error));
            }
            (Err(error), None | Some(Trouble::Failed)) => {
                return rolled_back(session, Attempt::Over(Err(error)));
            }
            (Err(error), Some(trouble)) => return rolled_back(session, Attempt::Again(trouble, error)),
        };
        let committed = session.batch("COMMIT");
        self.cache.invalidate(&stale);
        match (committed, session.trouble()) {
            (Ok(()), _) => match self.faults.at(faults::AFTER_COMMIT) {
                Ok(()) => Attempt::Over(Ok(value)),
                Err(error) => Attempt::Over(Err(error.into())),
            },
            (Err(error), Some(Trouble::Broken)) => Attempt::Unknown(value, id, error),
            (Err(error), Some(Trouble::Conflict)) => Attempt::Again(Trouble::Conflict, error),
            (Err(error), _) => rolled_back(session, Attempt::Over(Err(error))),
        }
    }

    /// Does `work` while nobody else does who stands in line, on whichever replica.
    fn in_line<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Attempt<T>) -> Attempt<T> {
        let wait = connection.optional("SELECT pg_advisory_lock(?1)", values![LINE], |_| Ok(()));
        if let Err(error) = wait {
            let trouble = session(connection).ok().and_then(Session::trouble);
            return Attempt::Again(trouble.unwrap_or(Trouble::Failed), error);
        }
        let ended = work(connection);
        // Should it fail, the lock goes with the connection.
        let left = connection.optional("SELECT pg_advisory_unlock(?1)", values![LINE], |_| Ok(()));
        if left.is_err()
            && let Ok(session) = session(connection)
        {
            session.abandon();
        }
        ended
    }

    /// Whether a change was made whose commit was not answered. If it was not, it never will be.
    fn was_made(&self, id: i64, broken: Error) -> Result<bool> {
        let begun = Instant::now();
        let mut last = broken;
        while begun.elapsed() < INQUIRY {
            match self.inquire(id) {
                Ok(made) => {
                    tracing::info!(made, "a connection broke during a commit; what became of it is known");
                    return Ok(made);
                }
                Err(error) => last = error,
            }
            std::thread::sleep(LONGEST_PAUSE);
        }
        tracing::error!(error = %last, "a connection broke during a commit, and nobody knows what became of it");
        Err(away("a connection broke during a commit, and what became of it is not known".to_owned()))
    }

    fn inquire(&self, id: i64) -> Result<bool> {
        let connection = self.pool.take()?;
        // Waits for a transaction that is still at work, and keeps one from committing later.
        let made = connection
            .execute(
                "INSERT INTO outcome (id, at, made) VALUES (?1, now_in_milliseconds(), 0)
                 ON CONFLICT (id) DO NOTHING",
                values![id],
            )
            .and_then(|_| {
                connection.one("SELECT made FROM outcome WHERE id = ?1", values![id], |row| row.get(0))
            });
        self.put_back(connection)?;
        made
    }

    /// What `time`, by the clock of this process, is by that of the database: earlier by as long as its answer took, and never
    /// later, so that nobody takes for old what is not.
    pub(crate) async fn by_its_clock(&self, time: SystemTime) -> Result<SystemTime> {
        let there: i64 =
            self.read(|names| names.one("SELECT now_in_milliseconds()", values![], |row| row.get(0))).await?;
        let (here, there) = (SystemTime::now(), from_milliseconds(there));
        Ok(match there.duration_since(here) {
            Ok(ahead) => time + ahead,
            Err(behind) => time - behind.duration(),
        })
    }

    /// Forgets outcomes that nobody asks for any more.
    pub(crate) async fn forget_outcomes(&self) -> Result<()> {
        let kept = i64::try_from(OUTCOMES_KEPT.as_millis()).unwrap_or(i64::MAX);
        let forget = "DELETE FROM outcome WHERE at < now_in_milliseconds() - ?1";
        self.read(move |names| names.execute(forget, values![kept]).map(|_| ())).await
    }

    /// Gives a connection back unless something is wrong with it.
    fn put_back(&self, connection: Connection) -> Result<()> {
        if session(&connection)?.trouble() == Some(Trouble::Broken) {
            self.pool.drain();
        } else {
            self.pool.give(connection);
        }
        Ok(())
    }

    /// Ends what is under way and every connection. Blocks.
    pub(crate) fn close(&self) {
        self.pool.close();
        self.tasks.close();
        self.runtime.block_on(self.tasks.wait());
        self.pool.drain();
        drop(self.keep.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Ends an open transaction without effect.
fn rolled_back<T>(session: &Session, ended: Attempt<T>) -> Attempt<T> {
    match session.batch("ROLLBACK") {
        Ok(()) => ended,
        // The connection is to be dropped, whatever came of the change.
        Err(error) => match ended {
            Attempt::Over(Err(error)) => Attempt::Over(Err(error)),
            _ => Attempt::Again(Trouble::Broken, error),
        },
    }
}

fn session(connection: &Connection) -> Result<&Session> {
    match connection {
        Connection::Postgres(session) => Ok(session),
        Connection::Sqlite(_) => Err(Error::closed()),
    }
}

/// Waits before the next attempt: longer each time, and not as long as others do.
fn pause(attempt: u32) -> Result<()> {
    let longest = LONGEST_PAUSE.min(LONGEST_PAUSE / 100 * 2u32.saturating_pow(attempt.min(10)));
    let random = getrandom::u32().map_err(std::io::Error::other)?;
    std::thread::sleep(longest.mul_f64(f64::from(random) / f64::from(u32::MAX)));
    Ok(())
}
