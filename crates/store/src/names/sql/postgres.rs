//! A session with PostgreSQL that is waited for on the blocking thread on which the functions of names run.
//!
//! A session remembers what went wrong with it ([`Session::trouble`]): whoever runs a transaction has to know whether it
//! may be run again, and a function in between may have made another error of it.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use futures_util::TryStreamExt as _;
use futures_util::future::{join, join_all};
use lru::LruCache;
use tokio::runtime::Handle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Row, Statement};

use super::Value;
use crate::error::{Error, Result};

/// How many prepared statements a session keeps; there are about 150.
const STATEMENTS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// How many statements are on their way to the server before the answer of the first is awaited.
const PIPELINE: usize = 256;
/// How long the server works on one statement before it gives up.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer is awaited: longer than the server takes, so that only a dead connection is given up here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// The same for work on the tables themselves.
const LONG_ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);

type Foreign = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The transaction cannot be ordered with the others; it may be run again.
    Conflict,
    /// The connection is of no use any more, and nobody knows what became of what was said last.
    Broken,
    /// The statement failed.
    Failed,
}

/// A session with PostgreSQL.
pub(crate) struct Session {
    client: Client,
    runtime: Handle,
    statements: RefCell<LruCache<Box<str>, Statement>>,
    trouble: Cell<Option<Trouble>>,
    patience: Cell<Duration>,
    /// How many statements were sent, over all sessions.
    sent: Arc<AtomicU64>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("trouble", &self.trouble).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(client: Client, runtime: Handle, sent: Arc<AtomicU64>) -> Self {
        let statements = RefCell::new(LruCache::new(STATEMENTS));
        let (trouble, patience) = (Cell::new(None), Cell::new(ANSWER_TIMEOUT));
        Self { client, runtime, statements, trouble, patience, sent }
    }

    /// Lets statements take as long as work on the tables themselves may take.
    pub(crate) fn take_time(&self) -> Result<()> {
        self.patience.set(LONG_ANSWER_TIMEOUT);
        self.batch("SET statement_timeout = 0")
    }

    /// Sees to it that the session is not used again.
    pub(crate) fn abandon(&self) {
        self.trouble.set(Some(Trouble::Broken));
    }

    /// Whether the connection is known to be gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// What went wrong since the last call.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.trouble.take()
    }

    /// Shows `visit` the rows of a statement.
    pub(super) fn each(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut visit: impl FnMut(&Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let statement = self.statement(sql)?;
        let rows = self.wait(1, self.client.query_raw(&statement, values))?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = self.wait(0, rows.try_next())? {
            if visit(&row)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The rows of a statement.
    pub(super) fn query(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let statement = self.statement(sql)?;
        self.wait(1, self.ask(&statement, values))
    }

    /// The first row of a statement with each of several lots of values.
    pub(super) fn first_each<const N: usize>(&self, sql: &str, lots: &[[Value<'_>; N]]) -> Result<Vec<Row>> {
        let statement = self.statement(sql)?;
        let mut rows = Vec::with_capacity(lots.len());
        for lots in lots.chunks(PIPELINE) {
            let answers = lots.iter().map(|values| self.ask(&statement, values));
            let answers = self.wait(lots.len(), in_order(answers))?;
            rows.extend(answers.into_iter().filter_map(|rows| rows.into_iter().next()));
        }
        Ok(rows)
    }

    /// Runs a statement with each of several lots of values; how many rows it has changed.
    pub(super) fn execute_each<const N: usize>(&self, sql: &str, lots: &[[Value<'_>; N]]) -> Result<()> {
        let statement = self.statement(sql)?;
        for lots in lots.chunks(PIPELINE) {
            let done = lots.iter().map(|values| self.client.execute_raw(&statement, values));
            self.wait(lots.len(), in_order(done))?;
        }
        Ok(())
    }

    /// Runs a statement; how many rows it has changed.
    pub(super) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<usize> {
        let statement = self.statement(sql)?;
        let changed = self.wait(1, self.client.execute_raw(&statement, values))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    /// Runs statements that are given nothing, as they stand.
    pub(crate) fn batch(&self, sql: &str) -> Result<()> {
        self.wait(1, self.client.batch_execute(sql))
    }

    /// Runs `begin`, and a statement that yields a number behind it, in one trip to the server.
    pub(crate) fn batch_then_number(&self, begin: &str, sql: &str, values: &[Value<'_>]) -> Result<i64> {
        let statement = self.statement(sql)?;
        let answers = async {
            let begun = self.client.batch_execute(begin);
            let (begun, rows) = join(begun, self.ask(&statement, values)).await;
            begun.and(rows)
        };
        let rows = self.wait(2, answers)?;
        let row = rows.first().ok_or_else(|| std::io::Error::other("a statement yielded no row"))?;
        number(row, 0)
    }

    async fn ask(
        &self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.client.query_raw(statement, values).await?.try_collect().await
    }

    fn statement(&self, sql: &str) -> Result<Statement> {
        if let Some(statement) = self.statements.borrow_mut().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.wait(0, self.client.prepare(&translated(sql)))?;
        self.statements.borrow_mut().put(sql.into(), statement.clone());
        Ok(statement)
    }

    /// Waits for what the server answers to `statements` statements, and remembers what goes wrong.
    fn wait<T>(
        &self,
        statements: usize,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        self.sent.fetch_add(statements as u64, Ordering::Relaxed);
        // Made within, since a timeout needs the runtime.
        let answer = self.runtime.block_on(async { tokio::time::timeout(self.patience.get(), answer).await });
        let (trouble, error) = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => (trouble(&error), failure(&error)),
            Err(_) => (Trouble::Broken, away("it does not answer".to_owned())),
        };
        // What comes after the first trouble only follows from it.
        if self.trouble.get().is_none_or(|earlier| earlier == Trouble::Failed) {
            self.trouble.set(Some(trouble));
        }
        Err(error)
    }
}

/// Waits for all of several answers that were asked for at once. Of errors it is the first that counts: those behind it
/// only say that there was one, and may be noticed earlier.
async fn in_order<T>(
    answers: impl Iterator<Item = impl Future<Output = Result<T, tokio_postgres::Error>>>,
) -> Result<Vec<T>, tokio_postgres::Error> {
    join_all(answers).await.into_iter().collect()
}

/// The text of a statement as PostgreSQL has it.
fn translated(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len() + 8);
    let mut quoted = false;
    let mut characters = sql.chars().peekable();
    while let Some(character) = characters.next() {
        quoted ^= character == '\'';
        let parameter = !quoted && character == '?' && characters.peek().is_some_and(char::is_ascii_digit);
        text.push(if parameter { '$' } else { character });
    }
    text.replace("COLLATE BINARY", "COLLATE \"C\"")
}

/// What may be done after an error.
fn trouble(error: &tokio_postgres::Error) -> Trouble {
    let Some(code) = error.code() else {
        return if error.is_closed() || is_io(error) { Trouble::Broken } else { Trouble::Failed };
    };
    let conflicts = [
        &SqlState::T_R_SERIALIZATION_FAILURE,
        &SqlState::T_R_DEADLOCK_DETECTED,
        // Two made the same at once: whoever looks again sees what the other has made.
        &SqlState::UNIQUE_VIOLATION,
        &SqlState::FOREIGN_KEY_VIOLATION,
    ];
    if conflicts.contains(&code) {
        return Trouble::Conflict;
    }
    // A plan whose tables a newer program has altered is good for nothing, nor are its neighbours.
    if is_away(code) || *code == SqlState::FEATURE_NOT_SUPPORTED { Trouble::Broken } else { Trouble::Failed }
}

/// Whether the server ends, starts, or is one that must not be written to.
fn is_away(code: &SqlState) -> bool {
    let ends = [
        &SqlState::ADMIN_SHUTDOWN,
        &SqlState::CRASH_SHUTDOWN,
        &SqlState::CANNOT_CONNECT_NOW,
        &SqlState::TOO_MANY_CONNECTIONS,
        &SqlState::READ_ONLY_SQL_TRANSACTION,
        &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    code.code().starts_with("08") || ends.contains(&code)
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error of PostgreSQL as one of the store.
pub(crate) fn failure(error: &tokio_postgres::Error) -> Error {
    let text = sentence(error);
    match error.code() {
        None if error.is_closed() || is_io(error) => away(text),
        None => Error::Io(std::io::Error::other(format!("PostgreSQL: {text}"))),
        Some(code) if is_away(code) => away(text),
        // A conflict is told as such only when it has been met too often.
        Some(code) if code.code().starts_with("40") => away(text),
        Some(&SqlState::QUERY_CANCELED | &SqlState::OUT_OF_MEMORY) => away(text),
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Error::Unusable(format!("PostgreSQL: {text}")),
        Some(&SqlState::DISK_FULL) => Error::NoSpace,
        Some(&SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED) => {
            Error::Corrupt(format!("PostgreSQL: {text}"))
        }
        Some(code) => Error::Io(std::io::Error::other(format!("PostgreSQL: {text} ({})", code.code()))),
    }
}

/// What is said while the database is away.
pub(crate) fn away(reason: String) -> Error {
    Error::unavailable("PostgreSQL", reason)
}

/// What an error of PostgreSQL says, with its causes.
pub(crate) fn sentence(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return error.message().to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl ToSql for Value<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Foreign> {
        match self {
            Value::Null => return Ok(IsNull::Yes),
            Value::Number(number) => match *kind {
                Type::INT8 => out.put_i64(*number),
                Type::INT4 => out.put_i32((*number).try_into()?),
                Type::BOOL => out.put_u8(u8::from(*number != 0)),
                _ => return Err(format!("a number is given for {kind}").into()),
            },
            Value::Text(text) if *kind == Type::TEXT => out.put_slice(kept(text).as_bytes()),
            Value::Text(_) => return Err(format!("text is given for {kind}").into()),
            Value::Bytes(bytes) if *kind == Type::BYTEA => out.put_slice(bytes),
            Value::Bytes(_) => return Err(format!("bytes are given for {kind}").into()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A text without the one character that PostgreSQL has no room for.
pub(super) fn kept(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// A value as the server sent it.
struct Sent<'a>(Option<(Type, &'a [u8])>);

impl<'a> FromSql<'a> for Sent<'a> {
    fn from_sql(kind: &Type, bytes: &'a [u8]) -> Result<Self, Foreign> {
        Ok(Self(Some((kind.clone(), bytes))))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Foreign> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn sent(row: &Row, index: usize) -> Result<Option<(Type, &[u8])>> {
    let Sent(sent) = row.try_get(index).map_err(|error| super::unreadable(index, error))?;
    Ok(sent)
}

/// Whether there is no value in a column.
pub(super) fn is_null(row: &Row, index: usize) -> Result<bool> {
    Ok(sent(row, index)?.is_none())
}

/// The number in a column, 0 or 1 for a truth value.
pub(super) fn number(row: &Row, index: usize) -> Result<i64> {
    let read = match sent(row, index)? {
        Some((Type::INT8, bytes)) => bytes.try_into().ok().map(i64::from_be_bytes),
        Some((Type::INT4, bytes)) => bytes.try_into().ok().map(|bytes| i32::from_be_bytes(bytes).into()),
        Some((Type::BOOL, [byte])) => Some((*byte).into()),
        _ => None,
    };
    read.ok_or_else(|| super::unreadable(index, "not a number"))
}

/// The text in a column.
pub(super) fn text(row: &Row, index: usize) -> Result<&str> {
    match sent(row, index)? {
        Some((Type::TEXT, bytes)) => {
            std::str::from_utf8(bytes).map_err(|error| super::unreadable(index, error))
        }
        _ => Err(super::unreadable(index, "not text")),
    }
}

/// The bytes in a column.
pub(super) fn bytes(row: &Row, index: usize) -> Result<&[u8]> {
    match sent(row, index)? {
        Some((Type::BYTEA, bytes)) => Ok(bytes),
        _ => Err(super::unreadable(index, "not bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_are_translated() {
        assert_eq!(
            translated("SELECT ?1, ?12 WHERE a = '?1' AND b = ?"),
            "SELECT $1, $12 WHERE a = '?1' AND b = ?"
        );
        assert_eq!(translated("VALUES (?3 COLLATE BINARY)"), "VALUES ($3 COLLATE \"C\")");
    }
}
