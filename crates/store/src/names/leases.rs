//! Rows of what only one may do at a time, and of what is done again and again.
//!
//! A lease ends by itself unless its holder renews it, so who dies is replaced. Times are those of the database, and the
//! clocks of those who hold leases need not agree. None of it is a name: the journal does not have it, and after a rebuild
//! nobody holds anything.

use super::Tx;
use super::sql::{Connection, values};
use crate::error::Result;

/// When something that is done again and again was done last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The time for which it was begun last, in milliseconds since 1970, as who began it had it.
    pub due: i64,
    /// When that was over, in milliseconds since 1970 by the clock of the database; `None` when it was not.
    pub done: Option<i64>,
}

/// Gives a lease to `holder` for `life` milliseconds, if nobody else has it.
pub(crate) fn take(tx: &Tx<'_>, name: &str, holder: &str, life: i64) -> Result<bool> {
    let taken = tx.connection.execute(
        "INSERT INTO lease (name, holder, until) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
             WHERE lease.until <= ?4",
        values![name, holder, tx.now.saturating_add(life), tx.now],
    )?;
    Ok(taken > 0)
}

/// Makes a lease last for `life` milliseconds from now; `false` when somebody else has it.
pub(crate) fn renew(tx: &Tx<'_>, name: &str, holder: &str, life: i64) -> Result<bool> {
    let until = tx.now.saturating_add(life);
    let renewed = tx.connection.execute(
        "UPDATE lease SET until = ?3 WHERE name = ?1 AND holder = ?2",
        values![name, holder, until],
    )?;
    Ok(renewed > 0)
}

/// Gives a lease back; one that somebody else has stays.
pub(crate) fn release(tx: &Tx<'_>, name: &str, holder: &str) -> Result<()> {
    tx.connection.execute("DELETE FROM lease WHERE name = ?1 AND holder = ?2", values![name, holder])?;
    Ok(())
}

/// Gives every lease back, and forgets what was done when: for a database that nobody else has open, so that who held and
/// did it is gone, and a process that is started again begins anew.
pub(crate) fn release_all(connection: &Connection) -> Result<()> {
    connection.execute("DELETE FROM lease", values![])?;
    connection.execute("DELETE FROM slot", values![])?;
    Ok(())
}

/// When something was done last.
pub(crate) fn slot(connection: &Connection, name: &str) -> Result<Option<Slot>> {
    connection.optional("SELECT due, done FROM slot WHERE name = ?1", values![name], |row| {
        Ok(Slot { due: row.get(0)?, done: row.get(1)? })
    })
}

/// Begins what is due at a time, or takes it up again; `false` when it was done for that time, or for a later one.
pub(crate) fn begin_slot(tx: &Tx<'_>, name: &str, due: i64) -> Result<bool> {
    let begun = tx.connection.execute(
        "INSERT INTO slot (name, due, done) VALUES (?1, ?2, NULL)
         ON CONFLICT (name) DO UPDATE SET due = excluded.due, done = NULL
             WHERE slot.due < excluded.due OR slot.due = excluded.due AND slot.done IS NULL",
        values![name, due],
    )?;
    Ok(begun > 0)
}

/// Says that what was due at a time is over, unless somebody has said so.
pub(crate) fn end_slot(tx: &Tx<'_>, name: &str, due: i64) -> Result<()> {
    tx.connection.execute(
        "UPDATE slot SET done = ?3 WHERE name = ?1 AND due = ?2 AND done IS NULL",
        values![name, due, tx.now],
    )?;
    Ok(())
}
