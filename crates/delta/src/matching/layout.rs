//! What the stretches of a content are: the matcher looks at files, not at bytes that happen to follow each other.

use std::sync::Arc;

/// What a stretch of content holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Part {
    /// All header blocks of one archive member: extended headers, their data, and the header itself, which is last.
    Header,
    /// The content of one file.
    File,
    /// Padding, the end of an archive, and whatever is not understood.
    Other,
}

/// A stretch of content. The segments of a layout follow each other without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it starts, in bytes from the start of the content.
    pub(crate) start: u64,
    /// How many bytes it has; at least one.
    pub(crate) len: u64,
    /// What it holds.
    pub(crate) part: Part,
    /// The path of the file that it belongs to, without `./` in front, where there is one.
    pub(crate) name: Option<Arc<[u8]>>,
    /// Whether it was compressed inside the file of that name. It is compared with others of its kind only.
    pub(crate) nested: bool,
}

impl Segment {
    /// The layout of content of which nothing is known: one stretch, or none if it is empty.
    pub(crate) fn whole(len: u64) -> Vec<Self> {
        match len {
            0 => Vec::new(),
            len => vec![Self { start: 0, len, part: Part::File, name: None, nested: false }],
        }
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}
