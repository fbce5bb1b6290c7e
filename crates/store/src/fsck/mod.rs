//! Checking a store that is not open: every byte, every name, and that they agree.
//!
//! A finding has a stable code, so that scripts and alarms can rely on it. Repairing puts files aside and never deletes
//! them; it takes names away only when what they mean is lost, and says so.

mod bytes;
mod journal;
mod names;
mod objects;
mod partials;
mod repair;

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::disk::{self, ProcessLock};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::names::database;
use crate::names::shared::Shared;
use crate::names::sql::{Connection, values};
use crate::rebuild::no_bytes;
use crate::{ByteStore, NamesOptions, pair};

use objects::Remote;

pub use bytes::Progress;

/// How many findings a report names one by one.
const NAMED_FINDINGS: usize = 10_000;

/// What to check, and whether to mend it.
#[derive(Clone, Debug)]
pub struct FsckOptions {
    /// The data directory.
    pub root: PathBuf,
    /// Where names live. In a shared database, no replica may be at work while something is mended.
    pub names: NamesOptions,
    /// Where the bytes of blobs are.
    pub bytes: ByteStore,
    /// Whether to read the objects of a bucket, all of them. Files are always read.
    pub rehash: bool,
    /// Whether to mend what was found: damaged files go to quarantine, rows are made to say what is true.
    pub repair: bool,
}

/// What was checked and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files of blobs read, those of manifests included.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests, counted once for each repository that holds them.
    pub manifests: u64,
    /// Things that manifests refer to.
    pub references: u64,
    /// Tags.
    pub tags: u64,
    /// Links from repositories to blobs.
    pub links: u64,
    /// What is not as it should be, in the order in which it was found.
    pub findings: Vec<Finding>,
    /// How many findings there are beyond those ten thousand that are named.
    pub unnamed: u64,
}

impl Report {
    /// Whether there is nothing to worry about: no finding above [`Severity::Note`].
    pub fn is_clean(&self) -> bool {
        self.unnamed == 0 && self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }

    /// Whether everything to worry about was mended.
    pub fn is_mended(&self) -> bool {
        let settled = |finding: &Finding| finding.severity == Severity::Note || finding.repaired;
        self.unnamed == 0 && self.findings.iter().all(settled)
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a digest, `repository@digest`, `repository:tag`, a file.
    pub subject: String,
    /// What is wrong with it and what was, or can be, done.
    pub detail: String,
    /// Whether it was mended.
    pub repaired: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Ordinary after a crash; the next start sees to it.
    Note,
    /// Nothing is lost, but something is wrong or takes space.
    Warning,
    /// Something that was acknowledged is lost or would be served wrong.
    Error,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $severity:ident;)+) => {
        /// What kind of thing a finding is. The texts are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The stable text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)+ }
            }
        }
    };
}

codes! {
    /// It is remembered why something is absent that is not, or that no index refers to.
    AbsenceDangling = "absence-dangling", Warning;
    /// A file does not hold what it is named after.
    BlobCorrupt = "blob-corrupt", Error;
    /// Names say that bytes are here, or in the bucket, and they are not.
    BlobMissing = "blob-missing", Error;
    /// No row and no queue of the collector knows a file or an object.
    BlobOrphan = "blob-orphan", Warning;
    /// A row has another size than its file, whose digest is right.
    BlobSize = "blob-size", Error;
    /// A file cannot be read.
    BlobUnreadable = "blob-unreadable", Error;
    /// The database itself is damaged; `deltaport rebuild` makes it again.
    DatabaseDamaged = "database-damaged", Error;
    /// A delta is remembered between layers that are not both there.
    DeltaDangling = "delta-dangling", Warning;
    /// A delta is to be made between layers that are not both there.
    DeltaJobDangling = "delta-job-dangling", Warning;
    /// The journal has lines that do not read.
    JournalDamaged = "journal-damaged", Warning;
    /// The journal does not say what the database says.
    JournalMismatch = "journal-mismatch", Warning;
    /// A repository is linked to bytes that have no row.
    LinkDangling = "link-dangling", Error;
    /// The bytes in a manifest's row are not those of its digest.
    ManifestCorrupt = "manifest-corrupt", Error;
    /// It is remembered where a tag pointed that is gone.
    PastDangling = "past-dangling", Warning;
    /// The rows of what a manifest refers to are not what its bytes say.
    ReferencesWrong = "references-wrong", Warning;
    /// A row says of something that a manifest refers to that it is here when it is not, or the other way round.
    PresenceWrong = "presence-wrong", Warning;
    /// The beginning of a blob is not what its record says.
    PartialDamaged = "partial-damaged", Warning;
    /// A part of a partial without the other; the next start removes it.
    PartialOrphan = "partial-orphan", Note;
    /// A repository holds nothing.
    RepositoryEmpty = "repository-empty", Warning;
    /// Something unreferenced would never be collected.
    ReviewMissing = "review-missing", Warning;
    /// A file lies where only blobs should be.
    StrayFile = "stray-file", Warning;
    /// A tag points at a manifest that is not there.
    TagDangling = "tag-dangling", Error;
    /// An upload has fewer bytes than were acknowledged.
    UploadDamaged = "upload-damaged", Error;
    /// A file of an upload that has no row; the next start removes it.
    UploadOrphan = "upload-orphan", Note;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Checks the store of `options`; calls `progress` now and then, from several threads. Blocks, and needs the store to
/// be open nowhere.
///
/// Fails only when the check itself cannot be done; what it finds is in the report.
pub fn fsck(options: &FsckOptions, progress: &(dyn Fn(Progress) + Sync)) -> Result<Report> {
    let remote = match &options.bytes {
        ByteStore::Directory | ByteStore::Elsewhere(_) => None,
        ByteStore::Bucket(bucket) => Some(Remote::new(bucket, options.rehash)?),
    };
    let remote = remote.as_ref();
    match &options.names {
        NamesOptions::Directory | NamesOptions::File(_) => fsck_embedded(options, remote, progress),
        NamesOptions::Postgres(postgres) => {
            Shared::with(postgres, |connection| fsck_shared(options, connection, remote, progress))
        }
    }
}

/// Checks names in PostgreSQL, and the bytes wherever they are. With those in a bucket, a data directory that is not there
/// is as good as an empty one: no replica has in its own what must be kept.
fn fsck_shared(
    options: &FsckOptions,
    connection: &Connection,
    remote: Option<&Remote>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report> {
    let empty = match remote.is_some() && !options.root.is_dir() {
        true => Some(tempfile::tempdir()?),
        false => None,
    };
    let root = empty.as_ref().map_or(&*options.root, |directory| directory.path());
    let layout = Layout::of(root, &options.bytes, &options.names);
    if remote.is_none() && !layout.blobs().is_dir() {
        return Err(no_bytes(&layout));
    }
    if empty.is_some() {
        for directory in layout.directories() {
            disk::make_directory(&directory)?;
        }
    }
    let _lock = ProcessLock::take(&layout)?;
    make_missing(&layout, options.repair)?;
    let report = Report::default();
    let mut check = Check { layout: &layout, connection, remote, repair: options.repair, report };
    check.contents(progress)?;
    check.rows()?;
    check.uploads()?;
    check.partials()?;
    Ok(check.report)
}

fn fsck_embedded(
    options: &FsckOptions,
    remote: Option<&Remote>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report> {
    let layout = Layout::of(&options.root, &options.bytes, &options.names);
    if !layout.blobs().is_dir() {
        return Err(no_bytes(&layout));
    }
    let _lock = ProcessLock::take(&layout)?;
    make_missing(&layout, options.repair)?;
    let mut report = Report::default();
    let connection = match open_database(&layout) {
        Ok(connection) => connection,
        Err(Error::Corrupt(text)) => {
            let detail = format!("{text}; run `deltaport rebuild` to make it again");
            add(&mut report, Code::DatabaseDamaged, "names.db", detail, false);
            bytes::check_alone(&layout, &mut report, progress)?;
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let mut check =
        Check { layout: &layout, connection: &connection, remote, repair: options.repair, report };
    check.contents(progress)?;
    check.rows()?;
    check.uploads()?;
    check.partials()?;
    check.journal()?;
    Ok(check.report)
}

/// Makes the directories that are missing, where the store is to be mended: all that is needed to say that bytes are lost
/// is an empty `blobs/`.
fn make_missing(layout: &Layout, repair: bool) -> Result<()> {
    if repair {
        for directory in layout.directories() {
            disk::make_directory(&directory)?;
        }
    }
    Ok(())
}

/// A check under way.
struct Check<'a> {
    layout: &'a Layout,
    connection: &'a Connection,
    /// The bucket that the bytes of blobs are in.
    remote: Option<&'a Remote>,
    repair: bool,
    report: Report,
}

impl Check<'_> {
    /// Checks the bytes of blobs, wherever they are.
    fn contents(&mut self, progress: &(dyn Fn(Progress) + Sync)) -> Result<()> {
        match self.remote {
            Some(remote) => self.objects(remote, progress),
            None => {
                pair::mend(self.layout, self.connection, self.repair)?;
                self.bytes(progress)
            }
        }
    }

    fn find(&mut self, code: Code, subject: impl fmt::Display, detail: impl Into<String>, repaired: bool) {
        add(&mut self.report, code, subject, detail, repaired);
    }
}

fn add(
    report: &mut Report,
    code: Code,
    subject: impl fmt::Display,
    detail: impl Into<String>,
    repaired: bool,
) {
    if report.findings.len() >= NAMED_FINDINGS {
        report.unnamed += 1;
        return;
    }
    let (subject, detail) = (subject.to_string(), detail.into());
    report.findings.push(Finding { code, severity: code.severity(), subject, detail, repaired });
}

/// Opens the database and has SQLite check it, every page and index.
fn open_database(layout: &Layout) -> Result<Connection> {
    let connection = database::connect(layout)?;
    let complaints: Vec<String> =
        connection.query("PRAGMA integrity_check(10)", values![], |row| row.get(0))?;
    if complaints != ["ok"] {
        return Err(Error::Corrupt(format!("names.db: {}", complaints.join("; "))));
    }
    Ok(connection)
}
