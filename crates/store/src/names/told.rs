//! Rows of what one replica does and another may be asked about. They are in PostgreSQL alone: of names in a directory, the
//! process that is asked is the one that does it.

use std::time::Duration;

use super::sql::{Connection, values};
use super::{Names, Tx};
use crate::error::Result;

/// How long it is told what was done: longer than anybody waits for it.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What another replica has said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Under which number.
    pub number: u64,
    /// What.
    pub text: String,
    /// How long ago, by the clock of the database.
    pub age: Duration,
}

fn put(tx: &Tx<'_>, topic: &str, number: i64, text: &str) -> Result<()> {
    tx.connection.execute(
        "INSERT INTO told (topic, number, text, at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (topic, number) DO UPDATE SET text = excluded.text, at = excluded.at",
        values![topic, number, text, tx.now],
    )?;
    let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    tx.connection.execute("DELETE FROM told WHERE at < ?1", values![tx.now.saturating_sub(kept)])?;
    Ok(())
}

fn find(connection: &Connection, topic: &str, number: Option<i64>) -> Result<Option<Told>> {
    connection.optional(
        "SELECT number, text, now_in_milliseconds() - at FROM told
         WHERE topic = ?1 AND number = coalesce(CAST(?2 AS bigint), number) ORDER BY at DESC LIMIT 1",
        values![topic, number],
        |row| {
            let age = row.get::<i64>(2)?.max(0).unsigned_abs();
            Ok(Told { number: row.get(0)?, text: row.get(1)?, age: Duration::from_millis(age) })
        },
    )
}

impl Names {
    /// Says to other replicas how far something is; those that are told of it by another name need not know. Does nothing
    /// where there are none.
    pub async fn tell(&self, topic: &str, number: u64, text: String) -> Result<()> {
        if self.core().database.shared().is_none() {
            return Ok(());
        }
        let (topic, number) = (topic.to_owned(), number.cast_signed());
        self.core().database.change(move |tx| put(tx, &topic, number, &text)).await
    }

    /// What was said last about a topic, or under a number of it; `None` where nobody else could have said anything.
    pub async fn told(&self, topic: &str, number: Option<u64>) -> Result<Option<Told>> {
        if self.core().database.shared().is_none() {
            return Ok(None);
        }
        let (topic, number) = (topic.to_owned(), number.map(u64::cast_signed));
        self.core().database.read(move |names| find(names, &topic, number)).await
    }
}
