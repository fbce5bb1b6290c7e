//! Which stretches of the new content are like which stretches of the old.
//!
//! From the certain and cheap to the vague: files that are the same, headers of the same path, files that are likely
//! versions of one another ([`pair`]) aligned byte by byte ([`align`]), and at last blocks of what nothing was found
//! for, wherever they may come from ([`blocks`]). What one step has found, the next does not look at.

mod align;
mod blocks;
mod exact;
mod index;
mod layout;
mod pair;
mod similar;
#[cfg(test)]
mod tests;
mod tidy;
mod work;

pub(crate) use self::layout::{Part, Segment};

use crate::content::Content;
use crate::error::Error;

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

impl Match {
    /// Where it ends in the new content.
    pub(crate) fn new_end(&self) -> u64 {
        self.new + self.len
    }

    /// Where it ends in the old content.
    pub(crate) fn old_end(&self) -> u64 {
        self.old + self.len
    }

    /// Whether `next` goes on in the old content where this one would be by then.
    fn aligned_with(&self, next: &Self) -> bool {
        self.new.wrapping_sub(self.old) == next.new.wrapping_sub(next.old)
    }
}

/// How many matches there may be. Above it, those that save least are dropped.
pub(crate) const MAX_MATCHES: usize = 1 << 20;

/// How hard to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// While somebody waits.
    Fast,
    /// Once, for many downloads.
    Best,
}

/// What looking for matches may cost. The matches depend on the profile and the memory, not on the threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) profile: Profile,
    /// The most memory for contents and indexes, in bytes. Less than [`MIN_MEMORY`] counts as that. What is
    /// proportional to the layouts and to the matches comes on top.
    pub(crate) memory: u64,
    /// How many threads may work; one at least.
    pub(crate) threads: usize,
}

/// What little memory the matcher can work with, in bytes.
pub(crate) const MIN_MEMORY: u64 = 8 << 20;

/// Returns matches in the order of the new content, which do not overlap there; at most [`MAX_MATCHES`].
///
/// The layouts say where in the contents files are. The old content may be several archives after each other; of
/// files with the same name the last is preferred. A layout that does not tile its content is ignored. Fails only when
/// reading fails.
pub(crate) fn find(
    old: &mut impl Content,
    old_layout: &[Segment],
    new: &mut impl Content,
    new_layout: &[Segment],
    options: Options,
) -> Result<Vec<Match>, Error> {
    let (old_whole, new_whole) = (Segment::whole(old.len()), Segment::whole(new.len()));
    let old_layout = if tiles(old_layout, old.len()) { old_layout } else { &old_whole };
    let new_layout = if tiles(new_layout, new.len()) { new_layout } else { &new_whole };
    let names = pair::Names::new(old_layout);

    let same = exact::find(old, old_layout, new, new_layout, &names)?;
    let mut matches = pair::headers(old_layout, new_layout, &names, &same);
    let pairs = pair::files(old, old_layout, new, new_layout, &names, &same)?;
    for (segment, same) in new_layout.iter().zip(&same) {
        matches.extend(same.map(|old| Match {
            new: segment.start,
            old: old_layout[old].start,
            len: segment.len,
        }));
    }
    work::align_pairs(old, old_layout, new, new_layout, &pairs, options, &mut matches)?;
    let mut matches = tidy::limit(matches);
    matches.sort_unstable_by_key(|found| found.new);
    let mut matches = tidy::extend(old, new, &matches)?;
    let gaps = tidy::gaps(&matches, new.len());
    matches.append(&mut blocks::find(old, new, &gaps, options)?);
    matches.sort_unstable_by_key(|found| found.new);
    Ok(tidy::limit(tidy::join(&matches)))
}

/// Whether the segments follow each other from the start to the end.
fn tiles(layout: &[Segment], len: u64) -> bool {
    let end = layout.iter().try_fold(0_u64, |at, segment| {
        (segment.start == at && segment.len > 0).then(|| at.checked_add(segment.len))?
    });
    end == Some(len)
}
