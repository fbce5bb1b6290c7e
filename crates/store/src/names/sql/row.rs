//! What statements yield.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use deltaport_oci::{Digest, RepositoryName, Tag};

use super::postgres;
use crate::error::{Error, Result};

/// A row that a statement yields.
pub(crate) enum Row<'a> {
    /// Of the embedded engine.
    Sqlite(&'a rusqlite::Row<'a>),
    /// Of PostgreSQL.
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    /// The value of a column, counted from 0. One that cannot be such a value means a damaged database.
    pub(crate) fn get<T: Column>(&self, index: usize) -> Result<T> {
        T::read(self, index)
    }

    fn is_null(&self, index: usize) -> Result<bool> {
        match self {
            Self::Sqlite(row) => Ok(matches!(row.get_ref(index)?, rusqlite::types::ValueRef::Null)),
            Self::Postgres(row) => postgres::is_null(row, index),
        }
    }

    fn number(&self, index: usize) -> Result<i64> {
        match self {
            Self::Sqlite(row) => Ok(row.get(index)?),
            Self::Postgres(row) => postgres::number(row, index),
        }
    }

    fn text(&self, index: usize) -> Result<&str> {
        match self {
            Self::Sqlite(row) => row.get_ref(index)?.as_str().map_err(|error| unreadable(index, error)),
            Self::Postgres(row) => postgres::text(row, index),
        }
    }

    fn bytes(&self, index: usize) -> Result<&[u8]> {
        match self {
            Self::Sqlite(row) => row.get_ref(index)?.as_blob().map_err(|error| unreadable(index, error)),
            Self::Postgres(row) => postgres::bytes(row, index),
        }
    }

    fn parsed<T: FromStr<Err: Display>>(&self, index: usize) -> Result<T> {
        self.text(index)?.parse().map_err(|error| unreadable(index, error))
    }
}

/// What a value in a column that nobody here has written is told as.
pub(crate) fn unreadable(index: usize, error: impl Display) -> Error {
    Error::Corrupt(format!("names: column {index} of a row does not read: {error}"))
}

/// What the value of a column can be read as.
pub(crate) trait Column: Sized {
    /// Reads it from a row.
    fn read(row: &Row<'_>, index: usize) -> Result<Self>;
}

impl<T: Column> Column for Option<T> {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        if row.is_null(index)? { Ok(None) } else { T::read(row, index).map(Some) }
    }
}

impl Column for i64 {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        row.number(index)
    }
}

/// A size or a count, of which none is negative.
impl Column for u64 {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        row.number(index).map(i64::unsigned_abs)
    }
}

impl Column for usize {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        Ok(Self::try_from(row.number(index)?).unwrap_or(Self::MAX))
    }
}

impl Column for u32 {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        Self::try_from(row.number(index)?).map_err(|error| unreadable(index, error))
    }
}

impl Column for bool {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        row.number(index).map(|number| number != 0)
    }
}

impl Column for String {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        row.text(index).map(str::to_owned)
    }
}

impl Column for Arc<str> {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        row.text(index).map(Self::from)
    }
}

impl Column for Vec<u8> {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        row.bytes(index).map(<[u8]>::to_vec)
    }
}

impl Column for Bytes {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        row.bytes(index).map(Self::copy_from_slice)
    }
}

impl Column for Digest {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        row.parsed(index)
    }
}

impl Column for RepositoryName {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        row.parsed(index)
    }
}

impl Column for Tag {
    fn read(row: &Row<'_>, index: usize) -> Result<Self> {
        row.parsed(index)
    }
}
