//! What a registry knows and nobody else may: with names in a directory, private files beside them; with names that
//! replicas share, rows beside those, so that each replica knows what another does.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::names::private;
use crate::names::shared::{PostgresOptions, Shared};
use crate::private::{MAX_PRIVATE_LEN, PrivateFile, Stamp};

/// Where secrets are. Cheap to clone.
#[derive(Clone)]
pub struct Secrets(Place);

#[derive(Clone)]
enum Place {
    Directory(Box<Path>),
    Shared(Shared),
}

impl Secrets {
    /// Those in private files of the data directory `root`. Nothing is opened or made.
    pub fn in_directory(root: &Path) -> Self {
        Self(Place::Directory(root.into()))
    }

    /// Those beside names in PostgreSQL, for a command: the tables must be there. `runtime` has to go on for as long as
    /// this is used. Blocks, so it must not be called by a task of a runtime.
    pub fn in_postgres(options: &PostgresOptions, runtime: Handle) -> Result<Self> {
        Ok(Self(Place::Shared(Shared::attach(options, runtime)?)))
    }

    /// Those beside the names of an open store.
    pub(crate) fn shared(shared: Shared) -> Self {
        Self(Place::Shared(shared))
    }

    /// The secret `name`, which is one of our own, without slashes.
    pub fn secret(&self, name: &'static str) -> Secret {
        Secret(match &self.0 {
            Place::Directory(root) => Kept::File(PrivateFile::new(root, name)),
            Place::Shared(shared) => Kept::Row(shared.clone(), name),
        })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Directory(root) => f.debug_tuple("Secrets").field(root).finish(),
            Place::Shared(_) => f.write_str("Secrets(PostgreSQL)"),
        }
    }
}

/// One secret. All methods block; of one in a database, none may be called by a task of a runtime.
#[derive(Clone)]
pub struct Secret(Kept);

#[derive(Clone)]
enum Kept {
    File(PrivateFile),
    Row(Shared, &'static str),
}

impl Secret {
    /// Whether other replicas may change it meanwhile.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Kept::Row(..))
    }

    /// What tells that it may have changed.
    pub fn stamp(&self) -> io::Result<Stamp> {
        match &self.0 {
            Kept::File(file) => Ok(file.stamp()),
            Kept::Row(shared, name) => {
                let stamp =
                    shared.read_blocking(|names| private::stamp(names, name)).map_err(io::Error::other)?;
                Ok(stamp.map(|(changed, length)| {
                    let changed = Duration::from_millis(changed.unsigned_abs());
                    (SystemTime::UNIX_EPOCH + changed, length, 0)
                }))
            }
        }
    }

    /// The content; `None` when it is not there.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match &self.0 {
            Kept::File(file) => file.read(),
            Kept::Row(shared, name) => {
                shared.read_blocking(|names| private::find(names, name)).map_err(io::Error::other)
            }
        }
    }

    /// Changes the content: `change` is given what is there, and says what takes the place of it, if anything does.
    /// Others who change it wait meanwhile, or `change` is called again with what they have made of it.
    pub fn update<T, E: From<io::Error>>(
        &self,
        change: impl Fn(Option<Vec<u8>>) -> Result<(Option<Vec<u8>>, T), E>,
    ) -> Result<T, E> {
        match &self.0 {
            Kept::File(file) => {
                let mut result = None;
                file.update(|old| {
                    let (new, made) = change(old)?;
                    result = Some(made);
                    Ok::<_, E>(new)
                })?;
                result.ok_or_else(|| io::Error::other("it was not changed").into())
            }
            Kept::Row(shared, name) => {
                let changed = shared.change_blocking(|tx| {
                    let (new, made) = match change(private::find(tx.connection, name)?) {
                        Ok(changed) => changed,
                        Err(error) => return Ok(Err(error)),
                    };
                    if let Some(new) = new {
                        if new.len() as u64 > MAX_PRIVATE_LEN {
                            return Err(Error::Unusable(format!("it has more than {MAX_PRIVATE_LEN} bytes")));
                        }
                        private::put(tx, name, &new)?;
                    }
                    Ok(Ok(made))
                });
                changed.map_err(io::Error::other)?
            }
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kept::File(file) => file.path().display().fmt(f),
            Kept::Row(_, name) => write!(f, "{name} in PostgreSQL"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({self})")
    }
}
