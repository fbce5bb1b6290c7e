//! What a blob of many compressed members is beside its content: where one member ends and the next begins, and what is
//! content of none.
//!
//! eStargz has a gzip member for every file, zstd:chunked a zstd frame for every file and every chunk of a large one, and
//! its table of contents in frames that decoders skip. The outline of a target is written as what changed since the
//! outlines of its bases, with the matcher and the entropy stage that serve content: most members are as long as they
//! were, and most of a table of contents says what it said.

mod open;
mod section;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use open::{Opened, open_gzip, open_zstd};
pub(crate) use section::{Outlines, read, write};

use crate::format::MAX_TABLE;
use crate::recipe::Zstd;

/// How many parts an outline may have; as many files as a very large layer has.
pub(crate) const MAX_PARTS: usize = 1 << 18;
/// How large what an outline carries may be, in bytes, and how large all outlines of the bases may be when written.
pub(crate) const MAX_OUTLINE: usize = MAX_TABLE as usize;
/// How many skippable frames of an outline may be packed. Each takes an encoder.
pub(crate) const MAX_PACKED: usize = 16;

/// What a blob is made of, in order; no parts when there are more than [`MAX_PARTS`] or more than [`MAX_OUTLINE`] is in
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    parts: Vec<Part>,
    /// How many bytes its parts carry.
    carried: usize,
    packed: usize,
}

/// A part of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A gzip member or a zstd frame.
    Member {
        /// How much of the content it has, in bytes.
        len: u64,
        /// The header of a gzip member, when it is not the usual one.
        header: Option<Box<[u8]>>,
    },
    /// Bytes that are carried as they are.
    Carried {
        /// How much of the content they stand for.
        len: u64,
        bytes: Box<[u8]>,
    },
    /// A skippable frame of zstd which has a zstd frame in it.
    Packed {
        /// The lowest four bits of its magic number.
        magic: u8,
        /// What writes the frame inside. Not known of a base.
        encoder: Option<Zstd>,
        /// What the frame inside contains.
        content: Box<[u8]>,
    },
}

impl Outline {
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(crate) fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    /// How many more bytes it may carry.
    fn room(&self) -> usize {
        MAX_OUTLINE - self.carried
    }

    /// Whether one member is all that there is.
    pub(crate) fn is_single(&self) -> bool {
        matches!(self.parts[..], [Part::Member { header: None, .. }])
    }

    /// Appends a part; `false` when it is too much.
    pub(crate) fn push(&mut self, part: Part) -> bool {
        let carried = match &part {
            Part::Member { header, .. } => header.as_ref().map_or(0, |header| header.len()),
            Part::Carried { bytes, .. } => bytes.len(),
            Part::Packed { content, .. } => content.len(),
        };
        let packed = usize::from(matches!(part, Part::Packed { .. }));
        if self.parts.len() == MAX_PARTS || carried > self.room() || self.packed + packed > MAX_PACKED {
            return false;
        }
        self.parts.push(part);
        self.carried += carried;
        self.packed += packed;
        true
    }
}
