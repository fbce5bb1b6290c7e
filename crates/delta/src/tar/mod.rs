//! Where the members of a tar archive are: offsets only, nothing is extracted.
//!
//! Knows ustar, pax (POSIX.1-2017, "pax Interchange Format") and GNU tar's extensions (its manual, "Basic Tar Format"
//! and "Storing Sparse Files"). An archive is somebody else's bytes, and a delta needs no archive to be well-formed:
//! what is odd is content of no known kind, never an error.

mod header;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use self::header::{BLOCK, Block, Records, Type, cut_at_nul};
use crate::content::Content;
use crate::matching::{Part, Segment};

/// How many segments a layout may have. What comes after them in the archive is one segment more.
pub(crate) const MAX_SEGMENTS: usize = 1 << 20;
/// How many bytes the names of a layout may have together, in bytes. Members after that have no names.
const MAX_NAMES: usize = 64 << 20;
/// How large the data of an extended header may be, in bytes, if it is to be read. GNU tar and Go allow 1 MiB too.
const MAX_EXTENSION: u64 = 1 << 20;
/// How large all headers of a member may be together, in bytes, if they are to be taken for headers.
const MAX_HEADERS: u64 = 4 << 20;
/// The longest name that is kept, in bytes: Linux's limit for a path.
const MAX_NAME: usize = 4096;

/// Returns the segments of `content`, read as a tar archive. They follow each other from its start to its end, and are
/// no more than `most`, nor than [`MAX_SEGMENTS`].
///
/// Content that is no archive is a single segment. Fails only when reading fails.
pub(crate) fn walk(content: &mut impl Content, most: usize) -> io::Result<Vec<Segment>> {
    let mut walk =
        Walk { len: content.len(), content, segments: Vec::new(), names: 0, global: Records::default() };
    let mut at = 0;
    while at < walk.len && walk.segments.len() + 3 < most.min(MAX_SEGMENTS) {
        at = match walk.member(at)? {
            Ok(member) => walk.push_member(at, member),
            Err(next) => {
                let next = next.min(walk.len);
                walk.push(at, next, Part::Other, None);
                next
            }
        };
    }
    walk.push(at, walk.len, Part::Other, None);
    Ok(walk.segments)
}

/// A member of an archive.
struct Member {
    /// Where its content starts, and its headers end.
    content: u64,
    /// How many bytes its content has.
    len: u64,
    /// Its path as the archive says it.
    name: Vec<u8>,
}

/// An archive while it is read.
struct Walk<'a, C> {
    content: &'a mut C,
    len: u64,
    segments: Vec<Segment>,
    /// How many bytes the names of the segments have.
    names: usize,
    /// What global extended headers said of all members that follow.
    global: Records,
}

impl<C: Content> Walk<'_, C> {
    /// Reads the header block at `at`, if there is one.
    fn block(&mut self, at: u64) -> io::Result<Option<Block>> {
        if at.checked_add(BLOCK).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let mut bytes = [0; BLOCK as usize];
        self.content.read_at(at, &mut bytes)?;
        Ok(Block::new(bytes))
    }

    /// Reads the member whose first header is at `start`. If this is no member that fits into the content, gives the
    /// next place to look: after all that was read, so that each block is looked at once, whatever it claims to be.
    fn member(&mut self, start: u64) -> io::Result<Result<Member, u64>> {
        let mut at = start;
        let mut local = Records::default();
        let mut long_name = None;
        loop {
            let block = self.block(at)?.and_then(|block| Some((block.size()?, block)));
            let Some((size, block)) = block else { return Ok(Err(at.max(start + BLOCK))) };
            at += BLOCK;
            let kind = block.kind();
            if !matches!(kind, Type::Local | Type::Global | Type::LongName | Type::LongLink) {
                let name = local.name().map(<[u8]>::to_vec).or(long_name);
                let name =
                    name.or_else(|| self.global.name().map(<[u8]>::to_vec)).unwrap_or_else(|| block.name());
                let content = self.after_sparse_maps(&block, at)?;
                let len = match kind {
                    Type::Bodiless => 0,
                    Type::Link if self.block(content)?.is_some() => 0,
                    _ => local.size.or(self.global.size).unwrap_or(size),
                };
                let fits = content.checked_add(len).is_some_and(|end| end <= self.len);
                return Ok(if fits { Ok(Member { content, len, name }) } else { Err(content) });
            }
            let fits = |next: &u64| *next <= self.len && *next - start <= MAX_HEADERS;
            let Some(next) = padded(at, size).filter(fits) else { return Ok(Err(at)) };
            if size <= MAX_EXTENSION {
                let mut data = vec![0; size as usize];
                self.content.read_at(at, &mut data)?;
                match kind {
                    Type::Local => local.read(&data),
                    Type::Global => self.global.read(&data),
                    Type::LongName => long_name = Some(cut_at_nul(&data).to_vec()),
                    _ => {}
                }
            }
            at = next;
        }
    }

    /// Returns where the blocks end that continue the map of an old GNU sparse file whose header ended at `at`.
    fn after_sparse_maps(&mut self, block: &Block, mut at: u64) -> io::Result<u64> {
        let mut more = block.sparse_map_continues();
        while more && self.len - at >= BLOCK {
            let mut map = [0; BLOCK as usize];
            self.content.read_at(at, &mut map)?;
            more = header::sparse_map_continues(&map);
            at += BLOCK;
        }
        Ok(at)
    }

    /// Adds the segments of a member whose headers start at `start`. Returns where they end.
    fn push_member(&mut self, start: u64, member: Member) -> u64 {
        let name = self.keep(&member.name);
        let end = member.content + member.len;
        self.push(start, member.content, Part::Header, name.as_ref());
        self.push(member.content, end, Part::File, name.as_ref());
        let padded = padded(member.content, member.len).unwrap_or(self.len).min(self.len);
        self.push(end, padded, Part::Other, None);
        padded
    }

    /// Keeps a name, unless it is too long or there are too many already.
    fn keep(&mut self, name: &[u8]) -> Option<Arc<[u8]>> {
        let name = normal(name);
        if name.is_empty() || name.len() > MAX_NAME || self.names + name.len() > MAX_NAMES {
            return None;
        }
        self.names += name.len();
        Some(Arc::from(name))
    }

    /// Adds a segment unless it is empty. Stretches of no known kind that follow each other become one.
    fn push(&mut self, start: u64, end: u64, part: Part, name: Option<&Arc<[u8]>>) {
        if start == end {
            return;
        }
        if let Some(last) = self.segments.last_mut()
            && (last.part, part) == (Part::Other, Part::Other)
        {
            last.len = end - last.start;
            return;
        }
        self.segments.push(Segment {
            start,
            len: end - start,
            part,
            name: name.map(Arc::clone),
            nested: false,
        });
    }
}

/// Where data of `len` bytes from `at` on ends, with its padding.
fn padded(at: u64, len: u64) -> Option<u64> {
    at.checked_add(len.checked_next_multiple_of(BLOCK)?)
}

/// The name without what writers put in front of it: `./usr/bin` and `/usr/bin` are `usr/bin`.
fn normal(mut name: &[u8]) -> &[u8] {
    while let Some(rest) = name.strip_prefix(b"./").or_else(|| name.strip_prefix(b"/")) {
        name = rest;
    }
    name
}
