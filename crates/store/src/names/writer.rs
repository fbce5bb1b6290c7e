//! The one thread that changes names. Whatever waits while it works is done together next: one transaction, one sync of
//! the database, one append to the journal, and then everybody hears of it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::cache::{Cache, Stale};
use super::held;
use super::sql::{Connection, values};
use crate::error::{Error, Result};
use crate::faults::{self, Faults};
use crate::journal::{self, Change, Journal};

/// How many changes may wait for the writer; who comes then waits to be let in.
const QUEUE: usize = 256;
/// How many changes share one commit at most.
const GROUP: usize = 128;
/// How many changes of names may wait for a journal that cannot be written before no more are taken.
const BACKLOG: usize = 100_000;

/// Now, in milliseconds since 1970.
pub(crate) fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What a change works on: the open transaction, and what must happen once it is committed.
pub(crate) struct Tx<'a> {
    pub(crate) connection: &'a Connection,
    /// When, in milliseconds since 1970.
    pub(crate) now: i64,
    lines: Vec<(u64, i64, Box<RawValue>)>,
    stale: Vec<Stale>,
    logged: bool,
}

impl<'a> Tx<'a> {
    fn new(connection: &'a Connection) -> Self {
        let now = milliseconds(SystemTime::now());
        // Names that are shared have no journal.
        let logged = matches!(connection, Connection::Sqlite(_));
        Self { connection, now, lines: Vec::new(), stale: Vec::new(), logged }
    }

    /// Work on a database that nobody else has open, as of now; its lines stay in the outbox.
    pub(crate) fn offline(connection: &'a Connection) -> Self {
        Self::new(connection)
    }

    /// Work that repeats what the journal says already, as of `at`.
    pub(crate) fn unlogged(connection: &'a Connection, at: i64) -> Self {
        Self { now: at, logged: false, ..Self::new(connection) }
    }

    /// Work on names that are shared, which have no journal, as of `at` by the clock of the database.
    pub(crate) fn shared(connection: &'a Connection, at: i64) -> Self {
        Self::unlogged(connection, at)
    }

    /// What must be forgotten once it is committed.
    pub(crate) fn into_stale(self) -> Vec<Stale> {
        self.stale
    }

    /// Says that names change; goes to the journal with the commit.
    pub(crate) fn log(&mut self, change: &Change) -> Result<()> {
        if !self.logged {
            return Ok(());
        }
        let change = journal::encode(change)?;
        let insert = "INSERT INTO outbox (at, change) VALUES (?1, ?2) RETURNING seq";
        let seq = self.connection.one(insert, values![self.now, change.get()], |row| row.get(0))?;
        self.lines.push((seq, self.now, change));
        Ok(())
    }

    /// Says that a remembered answer will be wrong.
    pub(crate) fn stale(&mut self, key: Stale) {
        self.stale.push(key);
    }
}

/// A change that waits, with whoever waits for it.
trait Job: Send {
    /// Does it; whether it worked.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Tells what became of it.
    fn finish(self: Box<Self>, outcome: Result<()>);
}

struct Typed<T, F> {
    work: F,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Typed<T, F>
where
    T: Send,
    F: Fn(&mut Tx<'_>) -> Result<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        self.result.insert((self.work)(tx)).is_ok()
    }

    fn finish(self: Box<Self>, outcome: Result<()>) {
        let result = match (outcome, self.result) {
            (Err(error), Some(Ok(_)) | None) => Err(error),
            (_, Some(result)) => result,
            (Ok(()), None) => Err(Error::closed()),
        };
        // Nobody may wait any more; the change stands all the same.
        let _ = self.reply.send(result);
    }
}

enum Command {
    Change(Box<dyn Job>),
    /// Work on the journal, between two groups.
    Journal(Box<dyn FnOnce(&mut Journal) + Send>),
}

/// The way to the writer's thread, which ends when this is dropped.
pub(crate) struct Writer {
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread. `keep` is held until it ends.
    pub(crate) fn start(
        connection: Connection,
        journal: Journal,
        cache: Arc<Cache>,
        faults: Faults,
        keep: impl Send + 'static,
    ) -> Result<Self> {
        let (commands, receiver) = mpsc::channel(QUEUE);
        let mut state = State { connection, journal, cache, faults, pending: VecDeque::new(), delivered: 0 };
        state.reload_pending()?;
        state.flush_journal()?;
        let thread = std::thread::Builder::new().name("names-writer".to_owned()).spawn(move || {
            state.serve(receiver);
            drop(keep);
        })?;
        Ok(Self { commands: Mutex::new(Some(commands)), thread: Mutex::new(Some(thread)) })
    }

    /// Does `work` in a transaction and returns when it is durable, the journal included. When the caller goes away
    /// after the change was queued, it is done all the same.
    pub(crate) async fn change<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Typed { work, result: None, reply };
        self.send(Command::Change(Box::new(job))).await?;
        answer.await.map_err(|_| Error::closed())?
    }

    /// Does `work` on the journal, between two commits.
    pub(crate) async fn journal<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Journal) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work = move |journal: &mut Journal| {
            let _ = reply.send(work(journal));
        };
        self.send(Command::Journal(Box::new(work))).await?;
        answer.await.map_err(|_| Error::closed())
    }

    async fn send(&self, command: Command) -> Result<()> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let commands = commands.ok_or_else(Error::closed)?;
        commands.send(command).await.map_err(|_| Error::closed())
    }

    /// Takes no more changes, finishes those that wait, and ends the thread. Blocks.
    pub(crate) fn stop(&self) {
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes names panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread owns.
struct State {
    connection: Connection,
    journal: Journal,
    cache: Arc<Cache>,
    faults: Faults,
    /// Committed lines that are not yet in the journal.
    pending: VecDeque<(u64, i64, Box<RawValue>)>,
    /// Up to which number the outbox has been emptied.
    delivered: u64,
}

/// A change that was done in the open transaction, with whether it has lines for the journal.
struct Done {
    job: Box<dyn Job>,
    logged: bool,
}

impl State {
    fn serve(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut next = commands.blocking_recv();
        while let Some(command) = next.take() {
            match command {
                Command::Journal(work) => work(&mut self.journal),
                Command::Change(first) => {
                    let mut group = vec![first];
                    while group.len() < GROUP {
                        match commands.try_recv() {
                            Ok(Command::Change(job)) => group.push(job),
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.commit(group);
                }
            }
            if next.is_none() {
                next = commands.blocking_recv();
            }
        }
        if let Err(error) = self.flush_journal() {
            tracing::error!(%error, "the journal lacks changes; they are added when the store opens");
        }
    }

    /// Does a group of changes and tells everybody what became of theirs.
    fn commit(&mut self, group: Vec<Box<dyn Job>>) {
        let mut done = Vec::with_capacity(group.len());
        let mut lines = Vec::new();
        let mut stale = Vec::new();
        let committed = self.run_group(group, &mut done, &mut lines, &mut stale);
        if let Err(error) = committed {
            // A statement may have ended the transaction already; then there is nothing to roll back.
            if self.connection.in_transaction() {
                let _ = self.connection.batch("ROLLBACK");
            }
            // A commit that failed may still have happened: ask the outbox, and trust no remembered answer.
            self.cache.invalidate(&stale);
            if let Err(error) = self.reload_pending() {
                tracing::error!(%error, "cannot read the outbox");
            }
            for Done { job, .. } in done {
                job.finish(Err(error.share()));
            }
            return;
        }
        self.cache.invalidate(&stale);
        self.pending.extend(lines);
        let after = self.faults.at(faults::AFTER_COMMIT).map_err(Error::from);
        let journal = self.flush_journal();
        for Done { job, logged } in done {
            job.finish(match (&after, &journal) {
                (Err(error), _) => Err(error.share()),
                (_, Err(error)) if logged => Err(error.share()),
                _ => Ok(()),
            });
        }
    }

    /// Runs the changes in one transaction, each in its own savepoint, and commits. Those that fail are told at once;
    /// `done` gets the others, whether or not the commit works.
    fn run_group(
        &mut self,
        group: Vec<Box<dyn Job>>,
        done: &mut Vec<Done>,
        lines: &mut Vec<(u64, i64, Box<RawValue>)>,
        stale: &mut Vec<Stale>,
    ) -> Result<()> {
        let mut group = group.into_iter();
        let mut outcome = self.begin();
        while outcome.is_ok() {
            let Some(job) = group.next() else { break };
            outcome = self.run_one(job, done, lines, stale);
        }
        if outcome.is_ok() {
            outcome = self.faults.at(faults::BEFORE_COMMIT).map_err(Error::from);
        }
        if outcome.is_ok() {
            outcome = self.connection.batch("COMMIT");
        }
        done.extend(group.map(|job| Done { job, logged: false }));
        outcome
    }

    fn begin(&mut self) -> Result<()> {
        if self.pending.len() > BACKLOG {
            self.flush_journal()?;
        }
        self.connection.batch("BEGIN IMMEDIATE")?;
        if held::is_held(&self.connection, milliseconds(SystemTime::now()))? {
            return Err(held::refusal());
        }
        let last = self.journal.last();
        if last > self.delivered {
            self.connection.execute("DELETE FROM outbox WHERE seq <= ?1", values![last])?;
            self.delivered = last;
        }
        Ok(())
    }

    /// Runs one change. An error from here ends the whole transaction.
    fn run_one(
        &self,
        mut job: Box<dyn Job>,
        done: &mut Vec<Done>,
        lines: &mut Vec<(u64, i64, Box<RawValue>)>,
        stale: &mut Vec<Stale>,
    ) -> Result<()> {
        let connection = &self.connection;
        let mut tx = Tx::new(connection);
        let ran = self.savepoint("SAVEPOINT change").map(|()| job.run(&mut tx));
        let Tx { lines: new_lines, stale: new_stale, .. } = tx;
        match ran {
            Ok(true) => {
                done.push(Done { job, logged: !new_lines.is_empty() });
                lines.extend(new_lines);
                stale.extend(new_stale);
                self.savepoint("RELEASE change")
            }
            Ok(false) if !connection.in_transaction() => {
                // The engine gave the whole transaction up, for instance because the disk is full.
                job.finish(Err(Error::closed()));
                Err(Error::Io(io::Error::other("the transaction was rolled back")))
            }
            Ok(false) => {
                job.finish(Ok(()));
                self.savepoint("ROLLBACK TO change")?;
                self.savepoint("RELEASE change")
            }
            Err(error) => {
                done.push(Done { job, logged: false });
                Err(error)
            }
        }
    }

    /// Takes from the outbox what is not yet in the journal.
    fn reload_pending(&mut self) -> Result<()> {
        self.pending = super::database::undelivered(&self.connection, self.journal.last())?.into();
        Ok(())
    }

    fn savepoint(&self, sql: &str) -> Result<()> {
        self.connection.execute(sql, values![]).map(|_| ())
    }

    /// Brings the journal up to the last commit.
    fn flush_journal(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.journal.append(self.pending.iter())?;
        self.pending.clear();
        Ok(())
    }
}
