//! Files that are read again when they change: certificates, keys, passwords.
//!
//! They are looked at every few seconds instead of being watched by the kernel, which misses what network and overlay
//! file systems do, and files that are replaced through a chain of links.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// No file that is read here may be larger, in bytes.
const MAX_LEN: u64 = 8 << 20;

/// A file that is younger than this may change again without a sign: time stamps are coarse.
const RACY: Duration = Duration::from_secs(3);

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {reason}", path.display())]
pub struct ReloadError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl ReloadError {
    pub(crate) fn new(path: &Path, reason: impl ToString) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// A file and what is known of its last reading.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    modified: SystemTime,
    len: u64,
    racy: bool,
}

impl Watched {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file may have changed since it was last read.
    pub(crate) fn may_have_changed(&self) -> bool {
        let Some(seen) = &self.seen else { return true };
        match fs::metadata(&self.path) {
            Ok(now) => seen.racy || now.len() != seen.len || now.modified().ok() != Some(seen.modified),
            Err(_) => true,
        }
    }

    /// Reads the file.
    pub(crate) fn read(&mut self) -> Result<Vec<u8>, ReloadError> {
        let refuse = |path: &Path, error: io::Error| ReloadError::new(path, error);
        let file = fs::File::open(&self.path).map_err(|error| refuse(&self.path, error))?;
        let meta = file.metadata().map_err(|error| refuse(&self.path, error))?;
        let mut content = Vec::new();
        file.take(MAX_LEN + 1).read_to_end(&mut content).map_err(|error| refuse(&self.path, error))?;
        if content.len() as u64 > MAX_LEN {
            return Err(ReloadError::new(&self.path, format!("it has more than {MAX_LEN} bytes")));
        }
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let racy = SystemTime::now().duration_since(modified).map_or(true, |age| age < RACY);
        self.seen = Some(Seen { modified, len: meta.len(), racy });
        Ok(content)
    }

    /// Forgets the last reading, so that the file is read again at the next look.
    pub(crate) fn forget(&mut self) {
        self.seen = None;
    }
}
