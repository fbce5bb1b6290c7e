//! The database that names are in, as the functions beside this module see it: statements, what they are given, and
//! the rows that come back.
//!
//! # How to write a statement
//!
//! The text of a statement is the same for every engine, so it says only what all of them understand:
//!
//! - Parameters are numbered (`?1`, `?2`) and given as [`values!`]; what stands for a name of the registry (a digest, a
//!   tag) is given as it is. The same number may occur several times, and means one type.
//! - `ON CONFLICT` names the columns that conflict, and columns of the row that is there are qualified
//!   (`cached.used`), like those that are `excluded`.
//! - Truth values are numbers, 0 or 1, where they are stored; what a comparison or `EXISTS` says may be read
//!   ([`Row::get`] as `bool`), but not stored or compared with a number: `CASE WHEN EXISTS (...) THEN 1 ELSE 0 END`.
//! - `sum` is cast to `bigint`. There is no `max(a, b)` of two values, no negative `LIMIT`, and no `CROSS JOIN ... ON`.
//! - A parameter from which a recursive query starts is compared by bytes: `VALUES (?1 COLLATE BINARY)`.
//! - Where there is no common text, both are written ([`Connection::either`]).
//! - An identifier that the database gives comes back by `RETURNING`.
//! - Tables, indexes and triggers are in [`super::schema`].
//!
//! A function of an open transaction ([`super::Tx`]) may run more than once, so it has no effect but on rows.

pub(crate) mod postgres;
mod row;
mod value;

use std::borrow::Cow;
use std::ops::ControlFlow;

use rusqlite::{OptionalExtension as _, params_from_iter};

use crate::error::Result;

pub(crate) use postgres::{Session, Trouble};
pub(crate) use row::{Column, Row, unreadable};
pub(crate) use value::{Parameter, Value};

/// What a statement is given, in the order of the parameters: `values![repository, digest, tx.now]`.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        &[$($crate::names::sql::Parameter::value(&$value)),*]
    };
}
pub(crate) use values;

/// A connection to the database.
#[derive(Debug)]
pub(crate) enum Connection {
    /// The embedded one.
    Sqlite(rusqlite::Connection),
    /// A session with a shared one.
    Postgres(Session),
}

impl Connection {
    /// Every row that a statement yields. Statements are prepared once.
    pub(crate) fn query<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(params_from_iter(values))?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(read(&Row::Sqlite(row))?);
                }
                Ok(found)
            }
            Self::Postgres(session) => {
                session.query(sql, values)?.iter().map(|row| read(&Row::Postgres(row))).collect()
            }
        }
    }

    /// Shows `visit` one row after the other, until there are no more or it has seen enough.
    pub(crate) fn each(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut visit: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(params_from_iter(values))?;
                while let Some(row) = rows.next()? {
                    if visit(&Row::Sqlite(row))?.is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Self::Postgres(session) => session.each(sql, values, |row| visit(&Row::Postgres(row))),
        }
    }

    /// The first row, if there is one.
    pub(crate) fn optional<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let found = statement
                    .query_row(params_from_iter(values), |row| Ok(read(&Row::Sqlite(row))))
                    .optional();
                found?.transpose()
            }
            Self::Postgres(session) => {
                session.query(sql, values)?.first().map(|row| read(&Row::Postgres(row))).transpose()
            }
        }
    }

    /// The row of a statement that always yields one.
    pub(crate) fn one<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        let found = self.optional(sql, values, read)?;
        found.ok_or_else(|| std::io::Error::other("a statement yielded no row").into())
    }

    /// The rows of a statement that always yields one, for each of several lots of values.
    pub(crate) fn one_each<'a, T, const N: usize>(
        &self,
        sql: &str,
        lots: impl Iterator<Item = [Value<'a>; N]>,
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                lots.map(|values| {
                    statement.query_row(params_from_iter(&values), |row| Ok(read(&Row::Sqlite(row))))?
                })
                .collect()
            }
            Self::Postgres(session) => {
                let rows = session.first_each(sql, &lots.collect::<Vec<_>>())?;
                rows.iter().map(|row| read(&Row::Postgres(row))).collect()
            }
        }
    }

    /// Whether a statement yields a row.
    pub(crate) fn exists(&self, sql: &str, values: &[Value<'_>]) -> Result<bool> {
        match self {
            Self::Sqlite(connection) => {
                Ok(connection.prepare_cached(sql)?.exists(params_from_iter(values))?)
            }
            Self::Postgres(session) => Ok(!session.query(sql, values)?.is_empty()),
        }
    }

    /// Changes rows; how many.
    pub(crate) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<usize> {
        match self {
            Self::Sqlite(connection) => {
                Ok(connection.prepare_cached(sql)?.execute(params_from_iter(values))?)
            }
            Self::Postgres(session) => session.execute(sql, values),
        }
    }

    /// Changes rows with each of several lots of values.
    pub(crate) fn execute_each<'a, const N: usize>(
        &self,
        sql: &str,
        lots: impl Iterator<Item = [Value<'a>; N]>,
    ) -> Result<()> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                for values in lots {
                    statement.execute(params_from_iter(&values))?;
                }
                Ok(())
            }
            Self::Postgres(session) => session.execute_each(sql, &lots.collect::<Vec<_>>()),
        }
    }

    /// Runs statements that are given nothing and whose rows nobody wants.
    pub(crate) fn batch(&self, sql: &str) -> Result<()> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Self::Postgres(session) => session.batch(sql),
        }
    }

    /// What the database makes of a text: one of them has no room for one character, which no name has, but which somebody
    /// may write into a manifest.
    pub(crate) fn kept<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self {
            Self::Sqlite(_) => Cow::Borrowed(text),
            Self::Postgres(_) => postgres::kept(text),
        }
    }

    /// The text of a statement for which the engines have no common one.
    pub(crate) fn either<'a>(&self, sqlite: &'a str, postgres: &'a str) -> &'a str {
        match self {
            Self::Sqlite(_) => sqlite,
            Self::Postgres(_) => postgres,
        }
    }

    /// Whether a transaction is open that was begun on purpose. Only the embedded engine ends one by itself.
    pub(crate) fn in_transaction(&self) -> bool {
        matches!(self, Self::Sqlite(connection) if !connection.is_autocommit())
    }

    /// Ends the connection; fails when what it has written is not where it should be.
    pub(crate) fn close(self) -> Result<()> {
        match self {
            Self::Sqlite(connection) => Ok(connection.close().map_err(|(_, error)| error)?),
            Self::Postgres(_) => Ok(()),
        }
    }
}
