//! Whether directories and files that settings name can be used, before anything is made of them: what would otherwise be
//! an error of the system somewhere on the way is a sentence about a path.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::{ByteStore, NamesOptions, Options};

/// What every file begins with that SQLite has made.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Fails with [`Error::Unusable`] unless bytes can be kept in `directory`, which need not be there yet. Makes nothing.
pub fn check_directory(directory: &Path) -> Result<()> {
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => writable(directory),
        Ok(_) => unusable(directory, "it is a file, and a directory is needed"),
        Err(error) if is_missing(&error) => can_be_made(directory),
        Err(error) => unusable(directory, &error.to_string()),
    }
}

/// Fails with [`Error::Unusable`] unless names can be kept in `file`, which need not be there yet. Makes nothing, and does
/// not look at the tables.
pub fn check_file(file: &Path) -> Result<()> {
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => {
            unusable(file, "it is a directory, and a file is needed, such as names.db in it")
        }
        Ok(metadata) if !metadata.is_file() => unusable(file, "it is no ordinary file"),
        Ok(_) => {
            let begins = OpenOptions::new().read(true).write(true).open(file).and_then(beginning);
            match begins {
                Ok(begins) if begins.is_empty() || begins == SQLITE => {}
                Ok(_) => return unusable(file, "it is a file of something else, and no database of SQLite"),
                Err(error) => return unusable(file, &format!("it cannot be written to: {error}")),
            }
            // A write-ahead log comes and goes beside it.
            writable(directory_of(file))
        }
        Err(error) if is_missing(&error) => can_be_made(file),
        Err(error) => unusable(file, &error.to_string()),
    }
}

/// Fails with [`Error::Unusable`] when the places of `options` cannot be used, or not beside one another.
pub(crate) fn check(options: &Options, layout: &Layout) -> Result<()> {
    if let ByteStore::Elsewhere(directory) = &options.bytes {
        check_directory(directory)?;
    }
    let NamesOptions::File(file) = &options.names else { return Ok(()) };
    check_file(file)?;
    // What lies there is removed, or moved, without asking what it is.
    let taken = layout.directories().into_iter().find(|directory| file.starts_with(directory));
    match taken {
        Some(directory) => unusable(file, &format!("{} is for bytes alone", directory.display())),
        None if file == layout.bytes() || file == layout.root() => {
            unusable(file, "it is to be a directory and a file at once")
        }
        None => Ok(()),
    }
}

fn beginning(file: File) -> io::Result<Vec<u8>> {
    let mut begins = Vec::new();
    file.take(SQLITE.len() as u64).read_to_end(&mut begins)?;
    Ok(begins)
}

/// Fails unless files can be made in a directory that is there. One without a name is made, as permissions alone do not
/// tell: the file system may be mounted for reading, or be full.
fn writable(directory: &Path) -> Result<()> {
    match tempfile::tempfile_in(directory) {
        Ok(_) => Ok(()),
        Err(error) => unusable(directory, &format!("it cannot be written to: {}", reason(&error))),
    }
}

/// Fails unless `path`, which is not there, can be made, with the directories above it.
fn can_be_made(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return unusable(path, "it is a symbolic link that leads nowhere");
    }
    let mut above = directory_of(path);
    loop {
        match fs::metadata(above) {
            Ok(metadata) if metadata.is_dir() => break,
            Ok(_) => {
                return unusable(path, &format!("it cannot be made, as {} is a file", above.display()));
            }
            Err(error) if is_missing(&error) && above != directory_of(above) => {
                above = directory_of(above);
            }
            Err(error) => return unusable(path, &format!("it cannot be made: {}: {error}", above.display())),
        }
    }
    match tempfile::tempfile_in(above) {
        Ok(_) => Ok(()),
        Err(error) => unusable(
            path,
            &format!("it cannot be made, as {} cannot be written to: {}", above.display(), reason(&error)),
        ),
    }
}

/// Whether there is nothing at a path, be it because what is above it is a file.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The directory that `path` is in.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// What the system said, without the name of a file that nobody knows.
fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.kind().to_string(), |_| error.to_string())
}

fn unusable(path: &Path, why: &str) -> Result<()> {
    Err(Error::Unusable(format!("{}: {why}", path.display())))
}
