//! Where everything is stored, for one run or for several.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::ledger::Ledger;

/// A directory for both nodes and for the ledger.
#[derive(Debug)]
pub(crate) enum Home {
    /// Gone after this run.
    Passing(TempDir),
    /// Named by `DELTAPORT_SOAK_HOME`: stays for the next run.
    Lasting(PathBuf),
}

impl Home {
    pub(crate) fn from_environment() -> Self {
        match env::var_os("DELTAPORT_SOAK_HOME") {
            Some(path) => Self::Lasting(path.into()),
            None => Self::Passing(tempfile::tempdir().expect("there is room for a directory")),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Passing(directory) => directory.path(),
            Self::Lasting(path) => path,
        }
    }

    /// The data of the upstream.
    pub(crate) fn hub(&self) -> PathBuf {
        self.path().join("hub")
    }

    /// The data of the site.
    pub(crate) fn site(&self) -> PathBuf {
        self.path().join("site")
    }

    fn ledger_file(&self) -> PathBuf {
        self.path().join("ledger.json")
    }

    /// What has to hold of what is stored: nothing, if nothing is.
    pub(crate) fn ledger(&self) -> Ledger {
        if let Some(ledger) = Ledger::taken_from(&self.ledger_file()) {
            return ledger;
        }
        for node in [self.hub(), self.site()] {
            assert!(!node.exists(), "a run that used {} did not come to its end", node.display());
            fs::create_dir_all(&node).expect("there is room for a directory");
        }
        Ledger::default()
    }

    /// Keeps everything for the next run, after one of so many seconds. What this one finds at its end can then be looked
    /// at again.
    pub(crate) fn keep(&self, ledger: &Ledger, seconds: u64) {
        if let Self::Lasting(_) = self {
            ledger.keep_in(&self.ledger_file(), seconds);
        }
    }
}
