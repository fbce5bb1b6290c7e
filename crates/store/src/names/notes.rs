//! Rows about what was found out at some cost and may be forgotten: each holds until a time. They are no names, so the
//! journal does not have them, and after a rebuild it is found out again.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::Tx;
use crate::error::Result;

/// What is noted under a topic and a key, if that still holds at `now`, in milliseconds since 1970.
pub(crate) fn find(connection: &Connection, topic: &str, key: &str, now: i64) -> Result<Option<i64>> {
    let mut statement =
        connection.prepare_cached("SELECT value FROM note WHERE topic = ?1 AND key = ?2 AND until > ?3")?;
    Ok(statement.query_row(params![topic, key, now], |row| row.get(0)).optional()?)
}

/// Notes a value, in place of an earlier one.
pub(crate) fn put(tx: &Tx<'_>, topic: &str, key: &str, value: i64, until: i64) -> Result<()> {
    tx.connection
        .prepare_cached(
            "INSERT INTO note (topic, key, value, until) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET value = excluded.value, until = excluded.until",
        )?
        .execute(params![topic, key, value, until])?;
    Ok(())
}

/// Forgets what does not hold any more, and of the rest of a topic all but the `limit` that hold longest.
pub(crate) fn trim(tx: &Tx<'_>, topic: &str, limit: usize, now: i64) -> Result<()> {
    tx.connection.prepare_cached("DELETE FROM note WHERE until <= ?1")?.execute([now])?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    tx.connection
        .prepare_cached(
            "DELETE FROM note WHERE topic = ?1 AND key IN
                 (SELECT key FROM note WHERE topic = ?1 ORDER BY until DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![topic, limit])?;
    Ok(())
}
