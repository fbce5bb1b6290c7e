//! That the bytes in a directory and the names in a database belong together.
//!
//! A number drawn by lot stands in a file beside the bytes and in a row beside the names. Without it, a disk that is not
//! mounted is an empty directory in which everything seems to be lost, and two processes with one PostgreSQL and a
//! directory each would serve names whose bytes only the other has. Where only one of them has the number, the bytes
//! themselves tell: a copy that was restored, or a store of before there were such numbers, has some that names know of.

use std::fs;
use std::io;
use std::path::Path;

use deltaport_oci::Digest;

use crate::disk;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::names::held;
use crate::names::shared::Shared;
use crate::names::sql::{Connection, values};
use crate::open::files;

/// The row with the number.
const PAIR: &str = "pair";
/// How many of the blobs that came last are looked for. One that is there is enough.
const LOOKED_FOR: usize = 16;

/// What is said besides where names may be those of another process.
const ALONE: &str = ". Several processes with one database cannot have a directory each: they share a bucket";

/// Sees to it that the bytes of `layout` and names that nobody else has open belong together.
///
/// Fails with [`Error::Unusable`] when they do not.
pub(crate) fn join(layout: &Layout, names: &Connection) -> Result<()> {
    let (here, there) = (read(&layout.pair())?, find(names)?);
    if here.is_some() && here == there {
        return Ok(());
    }
    let number = agree(layout, names, here, there, false)?;
    write(layout, here, number)?;
    held::put(names, PAIR, number)
}

/// The same for names that other processes may have open.
pub(crate) fn join_shared(layout: &Layout, names: &Shared) -> Result<()> {
    let here = read(&layout.pair())?;
    let there = names.read_blocking(find)?;
    if here.is_some() && here == there {
        return Ok(());
    }
    let number = names.read_blocking(|names| agree(layout, names, here, there, true))?;
    write(layout, here, number)?;
    // Another process may come first, with another directory.
    let stands = names.change_blocking(|tx| match find(tx.connection)? {
        Some(stands) => Ok(stands),
        None => held::put(tx.connection, PAIR, number).map(|()| number),
    })?;
    if stands == number { Ok(()) } else { Err(others(layout)) }
}

/// Gives bytes the number of the names that were made to say what is here; nothing when they have one.
///
/// Fails with [`Error::Unusable`] when it is another.
pub(crate) fn mend(layout: &Layout, names: &Connection, repair: bool) -> Result<()> {
    match (read(&layout.pair())?, find(names)?) {
        (Some(here), Some(there)) if here != there => Err(others(layout)),
        (None, Some(there)) if repair => write(layout, None, there),
        _ => Ok(()),
    }
}

/// The number that both are to have, of which at least one has none or another.
fn agree(
    layout: &Layout,
    names: &Connection,
    here: Option<i64>,
    there: Option<i64>,
    shared: bool,
) -> Result<i64> {
    let newest: Vec<Digest> = names.query(
        "SELECT digest FROM blob ORDER BY created DESC, digest LIMIT ?1",
        values![LOOKED_FOR],
        |row| row.get(0),
    )?;
    let found = newest.iter().any(|digest| layout.blob(digest).is_file());
    match (here, there) {
        (Some(_), Some(_)) => Err(others(layout)),
        _ if !newest.is_empty() && !found => Err(Error::Unusable(format!(
            "none of the bytes that names tell of are in {}: is its disk mounted, and storage.blobs right? `deltaport \
             migrate` moves bytes to another directory. If they are lost, make an empty directory blobs in it: then \
             `deltaport fsck --repair` takes away their names{}",
            layout.bytes().display(),
            if shared { ALONE } else { "" },
        ))),
        // Whoever wrote that number has a directory, and has pushed nothing yet.
        (None, Some(_)) if shared && newest.is_empty() => Err(others(layout)),
        (Some(_), None) if newest.is_empty() && has_blobs(layout)? => Err(Error::Unusable(format!(
            "there are blobs in {} already, and the database has no names of them: correct storage.blobs or \
             storage.metadata; if a file with their names is lost, `deltaport rebuild` makes it again",
            layout.bytes().display()
        ))),
        (Some(number), None) | (None, Some(number)) => Ok(number),
        (None, None) => draw(),
    }
}

fn others(layout: &Layout) -> Error {
    Error::Unusable(format!(
        "the bytes in {} and the names do not belong together: each has others. Correct storage.blobs or storage.metadata; \
         `deltaport migrate` moves a registry to an empty directory{ALONE}",
        layout.bytes().display()
    ))
}

/// Whether there is any blob.
fn has_blobs(layout: &Layout) -> Result<bool> {
    if !layout.blobs().is_dir() {
        return Ok(false);
    }
    for algorithm in files(layout.blobs())?.into_iter().filter(|path| path.is_dir()) {
        for directory in files(algorithm)?.into_iter().filter(|path| path.is_dir()) {
            if !files(directory)?.is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn find(names: &Connection) -> Result<Option<i64>> {
    names.optional("SELECT value FROM setting WHERE name = ?1", values![PAIR], |row| row.get(0))
}

fn read(file: &Path) -> Result<Option<i64>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match i64::from_str_radix(text.trim(), 16) {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Error::Unusable(format!(
            "{} is damaged: it should have a number in hexadecimal. Without it, the bytes themselves tell whether they \
             belong to the names: remove it",
            file.display()
        ))),
    }
}

fn write(layout: &Layout, here: Option<i64>, number: i64) -> Result<()> {
    if here != Some(number) {
        disk::replace(&layout.pair(), &layout.new_pair(), format!("{number:016x}\n").as_bytes())?;
    }
    Ok(())
}

/// A number that nobody else has, above zero.
fn draw() -> Result<i64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok((i64::from_ne_bytes(bytes) & i64::MAX).max(1))
}
