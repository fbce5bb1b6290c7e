//! Trying out a database: whether names can be kept there, and what is wrong, in a sentence.

use super::{PostgresOptions, Shared};
use crate::error::Result;
use crate::names::schema::postgres as schema;

/// Logs in to a database and looks whether the tables of names are there or may be made. Changes nothing. Blocks.
///
/// Fails with [`Error::Unusable`](crate::Error::Unusable), or with [`Error::Unavailable`](crate::Error::Unavailable) when
/// it cannot be reached; the sentence says what is wrong.
pub fn check_database(options: &PostgresOptions) -> Result<()> {
    Shared::with_server(options, schema::check_before)
}
