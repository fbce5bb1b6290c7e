//! The matchers of levels 1 to 6: hash tables without chains, over blocks of 64 KiB.
//!
//! Source of the algorithms: klauspost/compress, `flate` (BSD-3-Clause), which has them from Snappy.

mod level5;

use super::symbols::WINDOW;
use super::tokens::Tokens;

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

/// Which matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Level5,
}

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
            Kind::Level5 => Box::new(level5::Level5::new()),
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
        let distance = self.stamp(place).wrapping_sub(stamp) as usize;
        if distance < WINDOW { place.checked_sub(distance) } else { None }
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
        here.iter().rev().zip(there.iter().rev()).take_while(|(a, b)| a == b).count()
    }
}

/// How many bytes at the start of both are the same.
#[inline(always)]
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    let mut count = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or([0; 8]));
        let difference = word(a) ^ word(b);
        if difference != 0 {
            return count + (difference.trailing_zeros() / 8) as usize;
        }
        count += 8;
    }
    count + a[count..].iter().zip(&b[count..]).take_while(|(a, b)| a == b).count()
}

/// A match.
#[derive(Clone, Copy, Debug)]
struct Found {
    place: usize,
    /// What it copies, in front of it.
    from: usize,
    length: usize,
}

/// A hash of the lowest 4 bytes, as an index of a table of `2^BITS` entries.
#[inline(always)]
fn hash4<const BITS: u32>(bytes: u64) -> usize {
    ((bytes as u32).wrapping_mul(2_654_435_761) >> (32 - BITS)) as usize
}

/// The same of the lowest 7 bytes.
#[inline(always)]
fn hash7<const BITS: u32>(bytes: u64) -> usize {
    ((bytes << 8).wrapping_mul(58_295_818_150_454_627) >> (64 - BITS)) as usize
}

/// A table of nothing.
fn table<T: Copy + Default + std::fmt::Debug, const N: usize>() -> Box<[T; N]> {
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
