//! Whether a registry takes changes: not for the last moments in which it is moved elsewhere, nor after that, and not before
//! what is moved into it is whole. Kept among the settings of its database, so that whoever serves it hears of it.

use super::sql::{Connection, values};
use crate::error::{Error, Result};

/// Until when no changes are taken, in milliseconds since 1970. The engine that replicas share knows it by name.
const HELD: &str = "held-until";
/// That what is here is not whole yet. The engine that replicas share knows it by name, too.
const UNFINISHED: &str = "migrating";

/// Has nothing be changed until then; 0 ends it.
pub(crate) fn set(connection: &Connection, until: i64) -> Result<()> {
    put(connection, HELD, until)
}

/// Whether changes are to be refused at `now`.
pub(crate) fn is_held(connection: &Connection, now: i64) -> Result<bool> {
    connection.exists("SELECT 1 FROM setting WHERE name = ?1 AND value > ?2", values![HELD, now])
}

/// What a change fails with meanwhile.
pub(crate) fn refusal() -> Error {
    Error::Unavailable { what: "the registry", why: "it is being moved and takes no changes now".to_owned() }
}

/// Writes down that what is here is not whole.
pub(crate) fn begin(connection: &Connection) -> Result<()> {
    put(connection, UNFINISHED, 1)
}

/// Writes down that it is.
pub(crate) fn finish(connection: &Connection) -> Result<()> {
    connection.execute("DELETE FROM setting WHERE name = ?1", values![UNFINISHED])?;
    Ok(())
}

/// Whether a migration to here was begun and has not ended.
pub(crate) fn is_unfinished(connection: &Connection) -> Result<bool> {
    connection.exists("SELECT 1 FROM setting WHERE name = ?1", values![UNFINISHED])
}

/// Writes a setting down.
pub(crate) fn put(connection: &Connection, name: &str, value: i64) -> Result<()> {
    connection.execute(
        "INSERT INTO setting (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        values![name, value],
    )?;
    Ok(())
}
