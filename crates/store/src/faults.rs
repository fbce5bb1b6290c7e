//! The seam through which tests make things fail, or stop the process, at every step that durability depends on.

use std::fmt;
use std::io;
use std::sync::Arc;

/// A seam for tests: called with the name of each step that durability depends on. An error from it is that step's.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Hook>>);

type Hook = dyn Fn(&'static str) -> io::Result<()> + Send + Sync;

impl Faults {
    /// Every name that a hook is called with, in the order in which a push or a fill comes past them.
    pub const POINTS: &[&str] = &[
        STAGE_CREATE,
        STAGE_WRITE,
        UPLOAD_SYNC,
        PARTIAL_SYNC,
        PARTIAL_RECORD,
        BLOB_SYNC,
        BLOB_MARK,
        BLOB_RENAME,
        BLOB_RENAMED,
        DIR_SYNCED,
        BEFORE_COMMIT,
        AFTER_COMMIT,
        JOURNAL_APPEND,
        JOURNAL_SYNCED,
        BLOB_UNMARK,
        COLLECT_UNLINK,
        COLLECT_UNLINKED,
        JOURNAL_REPLACE,
        JOURNAL_REPLACED,
    ];

    /// Nothing fails on purpose.
    pub fn none() -> Self {
        Self(None)
    }

    /// Every step asks `at` first.
    pub fn new(at: impl Fn(&'static str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(at)))
    }

    /// Called at the step `name`, one of [`Faults::POINTS`].
    pub(crate) fn at(&self, name: &'static str) -> io::Result<()> {
        match &self.0 {
            Some(hook) => hook(name),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(hook)" } else { "Faults(none)" })
    }
}

/// Before a staging or upload file is made.
pub(crate) const STAGE_CREATE: &str = "stage-create";
/// Before received bytes are written to their file.
pub(crate) const STAGE_WRITE: &str = "stage-write";
/// Before an upload's file is synced so that its offset can be recorded.
pub(crate) const UPLOAD_SYNC: &str = "upload-sync";
/// Before the bytes of a partial are synced so that their number can be recorded.
pub(crate) const PARTIAL_SYNC: &str = "partial-sync";
/// Before that record is written.
pub(crate) const PARTIAL_RECORD: &str = "partial-record";
/// Before the file of a proven blob is synced.
pub(crate) const BLOB_SYNC: &str = "blob-sync";
/// Before the marker is made that lets the next start find a blob without a name.
pub(crate) const BLOB_MARK: &str = "blob-mark";
/// Before the file of a proven blob gets its final name.
pub(crate) const BLOB_RENAME: &str = "blob-rename";
/// After that.
pub(crate) const BLOB_RENAMED: &str = "blob-renamed";
/// After its directory was synced.
pub(crate) const DIR_SYNCED: &str = "dir-synced";
/// Before a group of changes to names is committed.
pub(crate) const BEFORE_COMMIT: &str = "before-commit";
/// After that.
pub(crate) const AFTER_COMMIT: &str = "after-commit";
/// Before the changes are appended to the journal.
pub(crate) const JOURNAL_APPEND: &str = "journal-append";
/// After the journal was synced.
pub(crate) const JOURNAL_SYNCED: &str = "journal-synced";
/// Before the marker is removed.
pub(crate) const BLOB_UNMARK: &str = "blob-unmark";
/// Before the collector removes the file of a blob whose row is gone.
pub(crate) const COLLECT_UNLINK: &str = "collect-unlink";
/// After that.
pub(crate) const COLLECT_UNLINKED: &str = "collect-unlinked";
/// Before the compacted journal takes the place of the old one.
pub(crate) const JOURNAL_REPLACE: &str = "journal-replace";
/// After that.
pub(crate) const JOURNAL_REPLACED: &str = "journal-replaced";
