//! Small steps on directories and files that the rest is made of: durable directories, locks, free space, names that
//! cannot be guessed.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use deltaport_oci::{Algorithm, Digest, Hasher};

use crate::error::{Error, Result};
use crate::layout::Layout;

/// Buffer for reading a whole file to hash it, in bytes.
const HASH_BUFFER: usize = 1 << 20;

/// Makes entries of `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes the entry of `path` in its directory durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes `directory` and those above it, each durable in its parent.
pub(crate) fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directory(parent)?;
    }
    match fs::create_dir(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    match directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_directory(parent),
        None => sync_directory(Path::new(".")),
    }
}

/// Makes the directory that `path` is in, likewise.
pub(crate) fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), make_directory)
}

/// Removes a file; it is no error that it is not there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The size of a file; `None` when it is not there.
pub(crate) fn size_if_there(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts `content` in the place of a small file, by way of `new`. Durable when it returns.
pub(crate) fn replace(path: &Path, new: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(new)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(new, path)?;
    sync_parent(path)
}

/// 128 random bits in hexadecimal.
pub(crate) fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Hashes the first `limit` bytes of a file, or all of it; calls `seen` with the size of each piece.
pub(crate) fn hash_file(
    file: File,
    algorithm: Algorithm,
    limit: u64,
    mut seen: impl FnMut(u64),
) -> io::Result<(Hasher, u64)> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; HASH_BUFFER];
    let mut rest = file.take(limit);
    let mut size = 0;
    loop {
        let count = match rest.read(&mut buffer) {
            Ok(0) => return Ok((hasher, size)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..count]);
        size += count as u64;
        seen(count as u64);
    }
}

/// The digest of a whole file under `algorithm`.
pub(crate) fn digest_file(path: &Path, algorithm: Algorithm) -> io::Result<Digest> {
    let (hasher, _) = hash_file(File::open(path)?, algorithm, u64::MAX, |_| {})?;
    Ok(hasher.finish())
}

/// The right to be the one process that works on a store: on its data directory, and on the directory with its bytes and
/// its database where they are elsewhere. Held while the value lives.
#[derive(Debug)]
pub(crate) struct ProcessLock(Vec<File>);

impl ProcessLock {
    /// Fails with [`Error::InUse`] when another process, or another store of this one, has any of them.
    pub(crate) fn take(layout: &Layout) -> Result<Self> {
        let mut taken = Self(Vec::new());
        for (what, lock) in layout.locks() {
            taken.add(what, &lock)?;
        }
        Ok(taken)
    }

    fn add(&mut self, what: &Path, lock: &Path) -> Result<()> {
        let opened = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Unusable(format!("{} is not there", what.display())));
            }
            Err(error) => return Err(error.into()),
        };
        let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        let this = identity(&file)?;
        for held in &self.0 {
            if identity(held)? == this {
                return Ok(());
            }
        }
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut owner = String::new();
                let _ = (&mut file).take(20).read_to_string(&mut owner);
                return Err(Error::InUse { path: what.to_owned(), owner: owner.trim().to_owned() });
            }
            Err(error) => return Err(error.into()),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        self.0.push(file);
        Ok(())
    }
}

/// How much is written between two looks at the free space, in bytes.
const SPACE_STEP: u64 = 8 << 20;

/// Guards the free space that writes must leave.
#[derive(Debug)]
pub(crate) struct Space {
    root: PathBuf,
    keep_free: u64,
    /// Bytes that may be written before the disk is asked again.
    credit: Mutex<u64>,
}

impl Space {
    pub(crate) fn new(root: PathBuf, keep_free: u64) -> Self {
        Self { root, keep_free, credit: Mutex::new(0) }
    }

    /// Allows `bytes` to be written, or fails with [`Error::NoSpace`]. Asks the disk every 8 MiB.
    pub(crate) fn take(&self, bytes: u64) -> Result<()> {
        let mut credit = self.credit.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *credit > 0
            && let Some(rest) = credit.checked_sub(bytes)
        {
            *credit = rest;
            return Ok(());
        }
        *credit = 0;
        let spare = self.free()?.checked_sub(self.keep_free).ok_or(Error::NoSpace)?;
        let rest = spare.checked_sub(bytes).ok_or(Error::NoSpace)?;
        *credit = rest.min(SPACE_STEP);
        Ok(())
    }

    /// Asks the disk whether anything may be written; fails with [`Error::NoSpace`] when not.
    pub(crate) fn check(&self) -> Result<()> {
        if self.free()? < self.keep_free { Err(Error::NoSpace) } else { Ok(()) }
    }

    /// Bytes that an ordinary user may still write.
    pub(crate) fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
