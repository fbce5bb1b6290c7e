//! Reading every file under `blobs/`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use deltaport_oci::Digest;

use super::{Check, Code, Report, add};
use crate::disk;
use crate::error::Result;
use crate::layout::Layout;
use crate::names;
use crate::names::sql::values;
use crate::open::files;

/// How many files are read at a time.
const READERS: usize = 2;

/// How far the reading of files has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files read to their end.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How many files there should be, as far as names say.
    pub expected_blobs: u64,
    /// How many bytes there should be, as far as names say.
    pub expected_bytes: u64,
}

/// What was seen under `blobs/`.
enum Seen {
    Good { digest: Digest, size: u64 },
    Corrupt { digest: Digest, size: u64, actual: Digest },
    Unreadable { digest: Digest, error: io::Error },
    Stray(PathBuf),
}

impl Check<'_> {
    /// Checks every file, and that names know it.
    pub(super) fn bytes(&mut self, progress: &(dyn Fn(Progress) + Sync)) -> Result<()> {
        let expected = self.expected()?;
        // A crash may have left these without a row; the next start gives them to the collector.
        let marked: HashSet<Digest> =
            files(self.layout.staging())?.iter().filter_map(|path| Layout::marked(path)).collect();
        scan(&self.layout.clone(), expected, progress, |seen| self.seen(seen, &marked))
    }

    /// What there should be, as far as names say.
    pub(super) fn expected(&self) -> Result<Progress> {
        self.connection.one(
            "SELECT count(*), CAST(coalesce(sum(size), 0) AS bigint) FROM blob",
            values![],
            |row| {
                let (expected_blobs, expected_bytes) = (row.get(0)?, row.get(1)?);
                Ok(Progress { expected_blobs, expected_bytes, ..Progress::default() })
            },
        )
    }

    fn seen(&mut self, seen: Seen, marked: &HashSet<Digest>) -> Result<()> {
        match seen {
            Seen::Good { digest, size } => {
                self.report.blobs += 1;
                self.report.bytes += size;
                match names::blobs::size_of(self.connection, &digest)? {
                    Some(found) if found == size => {}
                    Some(found) => {
                        let repaired = self.mend(|mend| mend.resize(&digest, size))?;
                        let detail = format!("the file has {size} bytes, the row says {found}");
                        self.find(Code::BlobSize, digest, detail, repaired);
                    }
                    None if marked.contains(&digest) || self.is_queued(&digest)? => {}
                    None => {
                        let repaired = self.mend(|mend| mend.adopt(&digest, size))?;
                        let detail =
                            format!("{size} bytes that nothing knows of; repaired, they are collected");
                        self.find(Code::BlobOrphan, digest, detail, repaired);
                    }
                }
            }
            Seen::Corrupt { digest, size, actual } => {
                let detail = format!("{size} bytes that hash to {actual}, {}", self.held_by(&digest)?);
                let repaired = self.mend(|mend| mend.replace(&digest))?;
                self.find(Code::BlobCorrupt, digest, detail, repaired);
            }
            Seen::Unreadable { digest, error } => {
                let detail = format!("{error}, {}", self.held_by(&digest)?);
                self.find(Code::BlobUnreadable, digest, detail, false);
            }
            Seen::Stray(path) => {
                let repaired = self.mend(|mend| mend.quarantine(&path))?;
                self.find(Code::StrayFile, path.display(), "not the name of a blob", repaired);
            }
        }
        Ok(())
    }

    /// Whether the collector has a digest's bytes in its queue.
    fn is_queued(&self, digest: &Digest) -> Result<bool> {
        self.connection.exists("SELECT 1 FROM review WHERE repository = 0 AND digest = ?1", values![digest])
    }

    /// Which repositories a loss concerns, in words.
    pub(super) fn held_by(&self, digest: &Digest) -> Result<String> {
        const NAMED: usize = 5;
        let mut holders = names::blobs::holders(self.connection, digest, NAMED + 1)?
            .into_iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>();
        let more = if holders.len() > NAMED { " and others" } else { "" };
        holders.truncate(NAMED);
        Ok(match &holders[..] {
            [] => "held by no repository as a blob".to_owned(),
            holders => format!("held by {}{more}", holders.join(", ")),
        })
    }
}

/// Checks the files when there is no database to ask.
pub(super) fn check_alone(
    layout: &Layout,
    report: &mut Report,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<()> {
    scan(layout, Progress::default(), progress, |seen| {
        match seen {
            Seen::Good { size, .. } => {
                report.blobs += 1;
                report.bytes += size;
            }
            Seen::Corrupt { digest, size, actual } => {
                let detail = format!("{size} bytes that hash to {actual}");
                add(report, Code::BlobCorrupt, digest, detail, false);
            }
            Seen::Unreadable { digest, error } => {
                add(report, Code::BlobUnreadable, digest, error.to_string(), false);
            }
            Seen::Stray(path) => {
                add(report, Code::StrayFile, path.display(), "not the name of a blob", false);
            }
        }
        Ok(())
    })
}

/// Reads every file under `blobs/` and hands what it saw to `visit`, in no order.
fn scan(
    layout: &Layout,
    expected: Progress,
    progress: &(dyn Fn(Progress) + Sync),
    mut visit: impl FnMut(Seen) -> Result<()>,
) -> Result<()> {
    let mut directories = Vec::new();
    for algorithm in files(layout.blobs())? {
        if algorithm.is_dir() {
            directories.extend(files(algorithm)?);
        } else {
            visit(Seen::Stray(algorithm))?;
        }
    }
    let directories = Mutex::new(directories.into_iter());
    let (blobs, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let tell = |more: u64| {
        let bytes = bytes.fetch_add(more, Ordering::Relaxed) + more;
        progress(Progress { blobs: blobs.load(Ordering::Relaxed), bytes, ..expected });
    };
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::sync_channel::<Result<Seen>>(2 * READERS);
        for _ in 0..READERS {
            let (sender, directories, blobs, tell) = (sender.clone(), &directories, &blobs, &tell);
            scope.spawn(move || {
                loop {
                    let next = directories.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(directory) = next else { return };
                    let read = read_directory(layout, &directory, tell, |seen| {
                        blobs.fetch_add(1, Ordering::Relaxed);
                        sender.send(Ok(seen)).is_ok()
                    });
                    match read {
                        Ok(true) => {}
                        // Whoever receives has given up.
                        Ok(false) => return,
                        Err(error) => {
                            let _ = sender.send(Err(error));
                            return;
                        }
                    }
                }
            });
        }
        drop(sender);
        results.into_iter().try_for_each(|seen| visit(seen?))
    })
}

/// Reads the files of one directory; stops when `visit` says so.
fn read_directory(
    layout: &Layout,
    directory: &Path,
    tell: &impl Fn(u64),
    mut visit: impl FnMut(Seen) -> bool,
) -> Result<bool> {
    if !directory.is_dir() {
        return Ok(visit(Seen::Stray(directory.to_owned())));
    }
    for path in files(directory.to_owned())? {
        let seen = match layout.digest_of(&path) {
            Some(digest) => read_file(&path, digest, tell),
            None => Seen::Stray(path),
        };
        if !visit(seen) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_file(path: &Path, digest: Digest, tell: impl Fn(u64)) -> Seen {
    let regular = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    if !regular {
        return Seen::Stray(path.to_owned());
    }
    let hashed = File::open(path).and_then(|file| disk::hash_file(file, digest.algorithm(), u64::MAX, &tell));
    match hashed {
        Ok((hasher, size)) => match hasher.finish() {
            actual if actual == digest => Seen::Good { digest, size },
            actual => Seen::Corrupt { digest, size, actual },
        },
        Err(error) => Seen::Unreadable { digest, error },
    }
}
