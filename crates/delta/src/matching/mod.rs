//! Which stretches of the new content are like which stretches of the old.

/// A stretch of the new content that is like a stretch of the old content, byte by byte; some bytes may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Where it is in the new content.
    pub(crate) new: u64,
    /// Where it is in the old content.
    pub(crate) old: u64,
    /// How many bytes it has, in both.
    pub(crate) len: u64,
}
