//! What statements are given.

use std::borrow::Cow;

use deltaport_oci::{Digest, RepositoryName, Tag};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

/// What a parameter of a statement stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Nothing.
    Null,
    /// A number, a size, a time, or a truth value.
    Number(i64),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// A place in a list.
    pub(crate) fn count(count: usize) -> Self {
        Self::Number(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Number(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// What can be given to a statement.
pub(crate) trait Parameter {
    /// What the database is given for it.
    fn value(&self) -> Value<'_>;
}

impl<T: Parameter + ?Sized> Parameter for &T {
    fn value(&self) -> Value<'_> {
        (**self).value()
    }
}

impl<T: Parameter> Parameter for Option<T> {
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, Parameter::value)
    }
}

impl Parameter for i64 {
    fn value(&self) -> Value<'_> {
        Value::Number(*self)
    }
}

/// A size or a count. Those of files fit; what somebody only says in a manifest may not.
impl Parameter for u64 {
    fn value(&self) -> Value<'_> {
        Value::Number(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl Parameter for usize {
    fn value(&self) -> Value<'_> {
        Value::count(*self)
    }
}

impl Parameter for bool {
    fn value(&self) -> Value<'_> {
        Value::Number(i64::from(*self))
    }
}

impl Parameter for str {
    fn value(&self) -> Value<'_> {
        Value::Text(Cow::Borrowed(self))
    }
}

impl Parameter for String {
    fn value(&self) -> Value<'_> {
        self.as_str().value()
    }
}

impl Parameter for [u8] {
    fn value(&self) -> Value<'_> {
        Value::Bytes(self)
    }
}

impl Parameter for Digest {
    fn value(&self) -> Value<'_> {
        Value::Text(Cow::Owned(self.to_string()))
    }
}

impl Parameter for RepositoryName {
    fn value(&self) -> Value<'_> {
        self.as_str().value()
    }
}

impl Parameter for Tag {
    fn value(&self) -> Value<'_> {
        self.as_str().value()
    }
}
