//! Where deflate is inside a file: gzip files (RFC 1952) and zip archives (APPNOTE 4.3).
//!
//! What is found here are candidates: whoever unfolds one inflates it first. So nothing is checked that does not help
//! to find the place.

use crate::gzip;
use crate::recipe::Hint;

/// A stretch of deflate in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Where its first byte is in the file.
    pub(super) start: usize,
    /// How many bytes it has.
    pub(super) len: usize,
    /// What its container says about its encoder; nothing in a zip archive.
    pub(super) hint: Option<Hint>,
    /// Its name inside the file; nothing for a gzip file.
    pub(super) name: Vec<u8>,
}

/// How large a file may be to be looked into: the whole of it is in memory.
pub(super) const MAX_FILE: u64 = 256 << 20;

/// Whether a file that begins like this may have members.
pub(super) fn may_have_any(head: &[u8]) -> bool {
    head.starts_with(&gzip::MAGIC) || head.starts_with(&ZIP_LOCAL)
}

/// The stretches of deflate in `file`, in order, not overlapping.
pub(super) fn members(file: &[u8]) -> Vec<Member> {
    if file.starts_with(&gzip::MAGIC) {
        gzip_member(file).into_iter().collect()
    } else {
        zip_members(file).unwrap_or_default()
    }
}

/// The only member of a gzip file.
fn gzip_member(file: &[u8]) -> Option<Member> {
    let start = gzip::header_len(file)?;
    let len = file.len().checked_sub(start + gzip::TRAILER)?;
    (len > 0).then(|| Member { start, len, hint: gzip::hint(file), name: Vec::new() })
}

const ZIP_LOCAL: [u8; 4] = *b"PK\x03\x04";
const ZIP_CENTRAL: [u8; 4] = *b"PK\x01\x02";
const ZIP_END: [u8; 4] = *b"PK\x05\x06";
/// The method of a member that is deflate.
const DEFLATED: u16 = 8;
/// The length of the record at the end, without its comment, and the longest comment.
const END_LEN: usize = 22;
const MAX_COMMENT: usize = u16::MAX as usize;

/// The members of a zip archive, as its central directory lists them. Archives above 4 GiB (zip64) have none here.
fn zip_members(file: &[u8]) -> Option<Vec<Member>> {
    let searched = file.len().saturating_sub(END_LEN + MAX_COMMENT);
    let end = searched + file[searched..].windows(4).rposition(|bytes| bytes == ZIP_END)?;
    let count = u16_at(file, end + 10)?;
    let mut at = u32_at(file, end + 16)? as usize;
    let mut members = Vec::with_capacity(count.into());
    for _ in 0..count {
        let entry = file.get(at..).filter(|entry| entry.starts_with(&ZIP_CENTRAL))?;
        members.extend(zip_member(file, entry));
        let rest = [u16_at(entry, 28)?, u16_at(entry, 30)?, u16_at(entry, 32)?];
        at += 46 + rest.into_iter().map(usize::from).sum::<usize>();
    }
    members.sort_by_key(|member| member.start);
    let mut end = 0;
    members.retain(|member| {
        let fits = member.start >= end;
        end = if fits { member.start + member.len } else { end };
        fits
    });
    Some(members)
}

/// The member of this entry of the central directory, when it is deflate.
fn zip_member(file: &[u8], entry: &[u8]) -> Option<Member> {
    let (method, len) = (u16_at(entry, 10)?, u32_at(entry, 20)? as usize);
    let name = entry.get(46..46 + usize::from(u16_at(entry, 28)?))?;
    let local = u32_at(entry, 42)? as usize;
    let header = file.get(local..).filter(|header| header.starts_with(&ZIP_LOCAL))?;
    let start = local + 30 + usize::from(u16_at(header, 26)?) + usize::from(u16_at(header, 28)?);
    let inside = start.checked_add(len).is_some_and(|end| end <= file.len());
    let found = method == DEFLATED && len > 0 && inside;
    found.then(|| Member { start, len, hint: None, name: name.to_vec() })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let found = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(found.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let found = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(found.try_into().ok()?))
}
