//! The matchers of levels 1 to 6: hash tables without chains, over blocks of 64 KiB.
//!
//! Source of the algorithms: klauspost/compress, `flate` (BSD-3-Clause), which has them from Snappy.

pub(super) mod hash;
mod level1;
mod level2;
mod level3;
mod level4;
mod level5;
mod level6;
mod long;

pub(super) use level4::SecondLook;

use super::symbols::WINDOW;
use super::tokens::Tokens;
use crate::common::{common_prefix, common_suffix};

/// The bytes of the history: four blocks and what a fifth has room for, then the older ones are dropped.
///
/// It is part of the algorithm, since no match goes back beyond the first byte that is kept.
const HISTORY: usize = 5 * super::block::MAX_STORED;

/// How near to the end of a block a match may no longer start, in bytes.
const MARGIN: usize = 11;

/// A block below this size has no matches, and its tokens are not made.
const TOO_SHORT: usize = MARGIN + 2;

/// Positions above this are moved back before the next block, so that they stay below 2^31.
const MAX_BASE: u32 = 1 << 30;

/// What a table holds for a position: its distance from the start of the content, more or less. 0 is nowhere.
type Stamp = u32;

/// Which matcher, and what releases changed about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Level1(Key),
    Level2(Key),
    Level3(Key),
    Level4(SecondLook),
    Level5(MayDiffer),
    Level6(MayDiffer),
}

/// By how many bytes places are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Five,
    Four,
}

/// How many bytes at the start of a match need not match when it is found by its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MayDiffer(pub(super) usize);

/// The tables of a level.
trait Matcher: Send + std::fmt::Debug {
    /// Makes tokens of the block at the end of `text`, and none at all when there is not a single match in it.
    fn tokenize(&mut self, text: &Text<'_>, tokens: &mut Tokens);

    /// Makes every position smaller by `by`, and those that are smaller than it 0.
    fn age(&mut self, by: Stamp);
}

/// A matcher and the history that it matches in.
#[derive(Debug)]
pub(super) struct Quick {
    history: Vec<u8>,
    /// The stamp of the first byte of the history, at least [`WINDOW`].
    base: Stamp,
    matcher: Box<dyn Matcher>,
}

impl Quick {
    pub(super) fn new(kind: Kind) -> Self {
        let matcher: Box<dyn Matcher> = match kind {
            Kind::Level1(Key::Four) => Box::new(level1::Level1::<hash::FourOfSnappy>::new()),
            Kind::Level1(Key::Five) => Box::new(level1::Level1::<hash::Five>::new()),
            Kind::Level2(Key::Four) => Box::new(level2::Level2::<hash::Four>::new()),
            Kind::Level2(Key::Five) => Box::new(level2::Level2::<hash::Five>::new()),
            Kind::Level3(Key::Four) => Box::new(level3::Level3::<hash::Four>::new(level3::Pace::OF_FOUR)),
            Kind::Level3(Key::Five) => Box::new(level3::Level3::<hash::Five>::new(level3::Pace::OF_FIVE)),
            Kind::Level4(look) => Box::new(level4::Level4::new(look)),
            Kind::Level5(may_differ) => Box::new(level5::Level5::new(may_differ)),
            Kind::Level6(may_differ) => Box::new(level6::Level6::new(may_differ)),
        };
        Self { history: Vec::with_capacity(HISTORY), base: WINDOW as Stamp, matcher }
    }

    /// Adds `block` to the history and makes tokens of it; none when it has no match.
    pub(super) fn tokenize(&mut self, block: &[u8], tokens: &mut Tokens) {
        if self.base > MAX_BASE {
            // What gets 0 by this is out of reach of everything that comes.
            self.matcher.age(self.base - WINDOW as Stamp);
            self.base = WINDOW as Stamp;
        }
        if self.history.len() + block.len() > HISTORY {
            let dropped = self.history.len() - WINDOW;
            self.history.drain(..dropped);
            self.base += dropped as Stamp;
        }
        let start = self.history.len();
        self.history.extend_from_slice(block);
        if block.len() >= TOO_SHORT {
            self.matcher.tokenize(&Text { bytes: &self.history, start, base: self.base }, tokens);
        }
    }

    /// Forgets the history.
    pub(super) fn forget(&mut self) {
        // The tables keep their stamps: all are now out of reach.
        self.base += (self.history.len() + WINDOW) as Stamp;
        self.history.clear();
    }
}

/// The history with the block at its end.
#[derive(Clone, Copy, Debug)]
struct Text<'a> {
    bytes: &'a [u8],
    /// Where the block begins.
    start: usize,
    base: Stamp,
}

impl Text<'_> {
    /// The last place of the block where a search may go on.
    fn limit(&self) -> usize {
        self.bytes.len() - MARGIN
    }

    #[inline(always)]
    fn stamp(&self, place: usize) -> Stamp {
        self.base + place as Stamp
    }

    /// The place that `stamp` means, when a match of `place` may go back to it.
    #[inline(always)]
    fn reach(&self, stamp: Stamp, place: usize) -> Option<usize> {
        self.reach_up_to(stamp, place, WINDOW - 1)
    }

    /// The same, but with another largest distance.
    #[inline(always)]
    fn reach_up_to(&self, stamp: Stamp, place: usize, most: usize) -> Option<usize> {
        let distance = self.stamp(place).wrapping_sub(stamp) as usize;
        if distance <= most { place.checked_sub(distance) } else { None }
    }

    /// The 8 bytes at a place, 0 beyond the end.
    #[inline(always)]
    fn load64(&self, place: usize) -> u64 {
        self.bytes
            .get(place..place + 8)
            .map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap_or([0; 8])))
    }

    /// The 4 bytes at a place, 0 beyond the end.
    #[inline(always)]
    fn load32(&self, place: usize) -> u32 {
        self.bytes
            .get(place..place + 4)
            .map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap_or([0; 4])))
    }

    /// Where `stamp` leads, if a match of `place` may go there and the 4 bytes there are `word`.
    #[inline(always)]
    fn candidate(&self, stamp: Stamp, place: usize, word: u32) -> Option<usize> {
        self.reach(stamp, place).filter(|there| self.load32(*there) == word)
    }

    /// Adds what no match covers at the end of the block as literals, if there was any match.
    fn push_rest(&self, literals: usize, tokens: &mut Tokens) {
        if !tokens.is_empty() {
            tokens.literals(&self.bytes[literals..]);
        }
    }

    /// How many bytes at `here` are those at `there`, which is before it.
    #[inline(always)]
    fn common(&self, here: usize, there: usize) -> usize {
        common_prefix(&self.bytes[here..], &self.bytes[there..])
    }

    /// The same, but `most` at most.
    #[inline(always)]
    fn common_up_to(&self, here: usize, there: usize, most: usize) -> usize {
        let ahead = &self.bytes[here..];
        common_prefix(&ahead[..ahead.len().min(most)], &self.bytes[there..])
    }

    /// How many bytes in front of `here` and `there` are the same, going back to `first` and to the start of
    /// the history at most.
    #[inline(always)]
    fn common_before(&self, here: usize, there: usize, first: usize) -> usize {
        let most = (here - first).min(there);
        let (here, there) = (&self.bytes[here - most..here], &self.bytes[there - most..there]);
        common_suffix(here, there)
    }
}

/// A match.
#[derive(Clone, Copy, Debug)]
struct Found {
    place: usize,
    /// What it copies, in front of it.
    from: usize,
    length: usize,
}

impl Found {
    /// A match whose first 4 bytes are known to be the same, with all of its length.
    #[inline(always)]
    fn at(text: &Text<'_>, place: usize, from: usize) -> Self {
        Self { place, from, length: 4 + text.common(place + 4, from + 4) }
    }

    /// Where its bytes end.
    #[inline(always)]
    fn end(self) -> usize {
        self.place + self.length
    }

    /// Extends the match backwards as far as no other covers the bytes, which is to `literals`, and adds it to the
    /// tokens after the literals that remain.
    #[inline(always)]
    fn push(mut self, text: &Text<'_>, literals: usize, tokens: &mut Tokens) -> Self {
        let before = text.common_before(self.place, self.from, literals);
        self.place -= before;
        self.from -= before;
        self.length += before;
        tokens.literals(&text.bytes[literals..self.place]);
        tokens.long_copy(self.length, self.place - self.from);
        self
    }
}

/// Makes all stamps of a table smaller.
fn age(table: &mut [Stamp], by: Stamp) {
    table.iter_mut().for_each(|stamp| *stamp = stamp.saturating_sub(by));
}

/// A table of nothing.
pub(super) fn table<T: Copy + Default + std::fmt::Debug, const N: usize>() -> Box<[T; N]> {
    vec![T::default(); N].into_boxed_slice().try_into().expect("the slice is as long as the array")
}

/// The two positions that were last seen with a hash.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    last: Stamp,
    before: Stamp,
}

impl Pair {
    #[inline(always)]
    fn push(&mut self, stamp: Stamp) {
        self.before = self.last;
        self.last = stamp;
    }

    fn age(&mut self, by: Stamp) {
        self.last = self.last.saturating_sub(by);
        self.before = self.before.saturating_sub(by);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokens::Pieces;
    use super::*;

    /// Positions are moved back about every GiB of content; no token may show it.
    #[test]
    fn positions_that_are_moved_back_give_the_same_tokens() {
        let text: Vec<u8> =
            (0..200_000_u32).flat_map(|n| [n as u8, (n / 7) as u8, (n / 3000) as u8]).collect();
        let keys = [Key::Four, Key::Five];
        let kinds =
            [Kind::Level4(SecondLook::Length), Kind::Level5(MayDiffer(2)), Kind::Level6(MayDiffer(2))];
        let kinds = kinds.into_iter().chain(keys.map(Kind::Level1)).chain(keys.map(Kind::Level2));
        for kind in kinds.chain(keys.map(Kind::Level3)) {
            let tokens_from = |base| {
                let mut quick = Quick { base, ..Quick::new(kind) };
                let mut tokens = Tokens::new(Pieces::Longest, text.len());
                for block in text.chunks(65_535) {
                    quick.tokenize(block, &mut tokens);
                }
                (tokens.list().to_vec(), quick.base)
            };
            let (plain, _) = tokens_from(WINDOW as Stamp);
            // The history slides, which lifts its base above the limit.
            let (moved, base) = tokens_from(MAX_BASE);
            assert!(base < MAX_BASE / 2, "{kind:?}: not moved");
            assert!(moved == plain, "{kind:?}");
        }
    }
}
