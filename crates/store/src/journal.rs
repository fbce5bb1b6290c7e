//! The journal: an append-only log of every change of names, from which, with the blobs, the database can be made again.
//!
//! One JSON object per line. `sum` is over the sequence number, the time and the exact bytes of `change`:
//!
//! ```text
//! {"seq":7,"at":1790000000000,"sum":"0123456789abcdef","change":{"op":"tag","repository":"a/b","tag":"v1","digest":"sha256:…"}}
//! ```
//!
//! Each change sets or removes one key, so replaying lines that a later snapshot already contains does no harm. A
//! compacted journal begins with a `snapshot` line; the lines of the snapshot all carry its sequence number, the lines
//! behind it count on from there.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use deltaport_oci::{Digest, RepositoryName, Tag};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::faults::{self, Faults};
use crate::layout::Layout;
use crate::{Result, disk};

/// The longest line that is read, in bytes. A line holds one name, one tag, three digests and a media type,
/// or a verdict ([`MAX_VERDICT_LEN`](crate::names::MAX_VERDICT_LEN), escaped).
const MAX_LINE: u64 = 64 << 10;

/// One change of names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Change {
    /// A repository holds a blob.
    Link { repository: RepositoryName, digest: Digest },
    /// It no longer does.
    Unlink { repository: RepositoryName, digest: Digest },
    /// A repository holds a manifest.
    Manifest { repository: RepositoryName, digest: Digest, media_type: String },
    /// It no longer does.
    ManifestDeleted { repository: RepositoryName, digest: Digest },
    /// A manifest, which its repository holds, came from an upstream; those of which this is not said were pushed.
    Fetched { repository: RepositoryName, digest: Digest },
    /// A tag points at a manifest.
    Tag { repository: RepositoryName, tag: Tag, digest: Digest },
    /// The tag is gone.
    TagDeleted { repository: RepositoryName, tag: Tag },
    /// What a policy decided about a manifest, which its repository holds, under a tag or by its digest.
    Verdict {
        repository: RepositoryName,
        digest: Digest,
        tag: Option<Tag>,
        policy: Digest,
        accepted: bool,
        text: String,
    },
    /// What is known about a delta between two layers; no digest when it is not worth its bytes.
    Delta { repository: RepositoryName, base: Digest, target: Digest, digest: Option<Digest> },
    /// That is forgotten.
    DeltaDeleted { repository: RepositoryName, base: Digest, target: Digest },
    /// What follows with the same sequence number is everything there was at this time.
    Snapshot {},
}

/// A change with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Counts changes, from 1.
    pub(crate) seq: u64,
    /// When, in milliseconds since 1970.
    pub(crate) at: i64,
    pub(crate) change: Change,
}

#[derive(Deserialize, Serialize)]
struct Line<'a> {
    seq: u64,
    at: i64,
    sum: String,
    #[serde(borrow)]
    change: &'a RawValue,
}

/// A change as JSON, as the outbox keeps it.
pub(crate) fn encode(change: &Change) -> Result<Box<RawValue>> {
    Ok(serde_json::value::to_raw_value(change).map_err(io::Error::other)?)
}

/// Appends one line to `out`.
pub(crate) fn write_line(out: &mut impl Write, seq: u64, at: i64, change: &RawValue) -> io::Result<()> {
    let line = Line { seq, at, sum: checksum(seq, at, change), change };
    serde_json::to_writer(&mut *out, &line).map_err(io::Error::other)?;
    out.write_all(b"\n")
}

/// Reads one line, without its end; `None` when it is damaged.
fn read_line(line: &[u8]) -> Option<Entry> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    if checksum(line.seq, line.at, line.change) != line.sum {
        return None;
    }
    let change = serde_json::from_str(line.change.get()).ok()?;
    Some(Entry { seq: line.seq, at: line.at, change })
}

/// 64 bits of SHA-256, which is enough against decay; nobody is kept from forging a line.
fn checksum(seq: u64, at: i64, change: &RawValue) -> String {
    let text = format!("{seq} {at} {}", change.get());
    Digest::sha256(text.as_bytes()).hash()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What reading a journal finds.
pub(crate) enum Item<'a> {
    /// A good line.
    Entry(&'a Entry),
    /// A line that does not read or does not continue the count; what is wrong with it.
    Damage(String),
}

/// Reads a journal from its start. A journal that is not there is empty. What follows the last good line is not
/// reported as damage: a crash leaves a torn line. Returns the last good line's number, 0 when there is none.
pub(crate) fn read(path: &Path, mut visit: impl FnMut(Item<'_>) -> Result<()>) -> Result<u64> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut last = 0;
    let mut snapshot = None;
    let mut suspect: Option<String> = None;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let count = io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut line)?;
        if count == 0 {
            break;
        }
        let entry = line.strip_suffix(b"\n").and_then(read_line);
        let Some(entry) = entry else {
            suspect.get_or_insert_with(|| format!("line {number} does not read"));
            continue;
        };
        if let Some(text) = suspect.take() {
            visit(Item::Damage(text))?;
        } else if last != 0 && entry.seq != last + 1 && snapshot != Some(entry.seq) {
            visit(Item::Damage(format!("line {number} has number {} behind {}", entry.seq, last)))?;
        }
        if entry.change == (Change::Snapshot {}) {
            snapshot = Some(entry.seq);
        }
        last = entry.seq;
        visit(Item::Entry(&entry))?;
    }
    Ok(last)
}

/// The end of the journal, where the writer appends.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    faults: Faults,
    /// Where the next line begins; what lies behind is not valid.
    len: u64,
    /// Sequence number of the last durable line.
    last: u64,
}

impl Journal {
    /// Opens the journal, or makes an empty one, and cuts off what a crash left behind the last good line. Damage
    /// further up is for a check to find: only the end is read.
    pub(crate) fn open(layout: &Layout, faults: Faults) -> Result<Self> {
        let path = layout.journal();
        let existed = path.exists();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        if !existed {
            file.sync_all()?;
            disk::sync_parent(&path)?;
        }
        let size = file.metadata()?.len();
        let (last, len) = find_end(&file, size)?;
        if size > len {
            tracing::warn!(bytes = size - len, "cut a torn end off the journal");
            file.set_len(len)?;
            file.sync_all()?;
        }
        Ok(Self { file, faults, len, last })
    }

    /// Sequence number of the last durable line.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Appends lines and makes them durable. When it fails nothing counts as appended, and the next attempt writes over
    /// what this one may have left.
    pub(crate) fn append<'a>(
        &mut self,
        lines: impl Iterator<Item = &'a (u64, i64, Box<RawValue>)>,
    ) -> io::Result<()> {
        let mut text = Vec::new();
        let mut last = self.last;
        for (seq, at, change) in lines {
            write_line(&mut text, *seq, *at, change)?;
            last = *seq;
        }
        self.faults.at(faults::JOURNAL_APPEND)?;
        self.file.write_all_at(&text, self.len)?;
        self.file.sync_data()?;
        self.faults.at(faults::JOURNAL_SYNCED)?;
        self.len += text.len() as u64;
        self.last = last;
        Ok(())
    }

    /// Lets a compacted journal take the place of this one: `snapshot` is a synced file that holds everything up to
    /// `mark` (a number and the place behind its line), and gets the lines behind.
    pub(crate) fn replace(&mut self, layout: &Layout, snapshot: File, mark: Mark) -> Result<()> {
        let mut len = snapshot.metadata()?.len();
        let mut buffer = vec![0; 1 << 20];
        let mut from = mark.len;
        while from < self.len {
            let count = buffer.len().min(usize::try_from(self.len - from).unwrap_or(usize::MAX));
            self.file.read_exact_at(&mut buffer[..count], from)?;
            snapshot.write_all_at(&buffer[..count], len)?;
            from += count as u64;
            len += count as u64;
        }
        snapshot.sync_all()?;
        self.faults.at(faults::JOURNAL_REPLACE)?;
        std::fs::rename(layout.new_journal(), layout.journal())?;
        // From here on the new file is the journal, whatever fails: appending to the old one would lose lines.
        self.file = snapshot;
        self.len = len;
        self.last = self.last.max(mark.last);
        disk::sync_directory(layout.root())?;
        self.faults.at(faults::JOURNAL_REPLACED)?;
        Ok(())
    }

    /// Where the journal ends now.
    pub(crate) fn mark(&self) -> Mark {
        Mark { last: self.last, len: self.len }
    }
}

/// Finds the last good line of a journal of `size` bytes: its sequence number and where it ends, or zeros.
pub(crate) fn find_end(file: &File, size: u64) -> Result<(u64, u64)> {
    let mut window = (4 * MAX_LINE).min(size);
    loop {
        let start = size - window;
        let mut text = vec![0; usize::try_from(window).map_err(io::Error::other)?];
        file.read_exact_at(&mut text, start)?;
        let mut found = None;
        let mut at = 0;
        for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            at += line.len();
            // The first line of a window that begins inside the file is a part of one.
            let whole = number > 0 || start == 0;
            if let Some(entry) = line.strip_suffix(b"\n").filter(|_| whole).and_then(read_line) {
                found = Some((entry.seq, start + at as u64));
            }
        }
        match found {
            Some(found) => return Ok(found),
            None if start == 0 => return Ok((0, 0)),
            None => window = (2 * window).min(size),
        }
    }
}

/// A place in the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// Sequence number of the line in front of it.
    pub(crate) last: u64,
    /// Offset in bytes.
    pub(crate) len: u64,
}

#[cfg(test)]
mod tests;
