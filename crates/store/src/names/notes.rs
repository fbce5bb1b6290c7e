//! Rows about what was found out at some cost and may be forgotten: each holds until a time. They are no names, so the
//! journal does not have them, and after a rebuild it is found out again.

use std::time::Duration;

use super::Tx;
use super::sql::{Connection, values};
use crate::error::Result;

/// What is noted under a topic and a key, if that still holds.
pub(crate) fn find(connection: &Connection, topic: &str, key: &str) -> Result<Option<i64>> {
    let now = connection.either("CAST(unixepoch('subsec') * 1000 AS INTEGER)", "now_in_milliseconds()");
    connection.optional(
        &format!("SELECT value FROM note WHERE topic = ?1 AND key = ?2 AND until > {now}"),
        values![topic, key],
        |row| row.get(0),
    )
}

/// Notes a value for `life`, in place of an earlier one.
pub(crate) fn put(tx: &Tx<'_>, topic: &str, key: &str, value: i64, life: Duration) -> Result<()> {
    let until = tx.now.saturating_add(i64::try_from(life.as_millis()).unwrap_or(i64::MAX));
    tx.connection.execute(
        "INSERT INTO note (topic, key, value, until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (topic, key) DO UPDATE SET value = excluded.value, until = excluded.until",
        values![topic, key, value, until],
    )?;
    Ok(())
}

/// Forgets what does not hold any more, and of the rest of a topic all but the `limit` that hold longest.
pub(crate) fn trim(tx: &Tx<'_>, topic: &str, limit: usize) -> Result<()> {
    tx.connection.execute("DELETE FROM note WHERE until <= ?1", values![tx.now])?;
    tx.connection.execute(
        "DELETE FROM note WHERE topic = ?1 AND key IN
             (SELECT key FROM note WHERE topic = ?1 ORDER BY until DESC LIMIT ?3 OFFSET ?2)",
        values![topic, limit, i64::MAX],
    )?;
    Ok(())
}
