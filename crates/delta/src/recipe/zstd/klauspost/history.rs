//! The content that matches may reach back to, and tables of where what was seen in it.

use crate::common::common_prefix;

/// The last bytes of the content.
///
/// Tables hold places as `base` plus the index into the bytes, so that they stay true when the bytes move.
#[derive(Debug)]
pub(super) struct History {
    bytes: Vec<u8>,
    base: u32,
    /// How far back a match may reach.
    window: usize,
}

/// Places above this are brought down, so that they never overflow.
const REBASE: u32 = 1 << 30;

impl History {
    pub(super) fn new(window: usize) -> Self {
        // A place of 0, as in a new table, is too far back for every match.
        Self { bytes: Vec::new(), base: window as u32, window }
    }

    /// A history whose first place is `base`, which is above the window.
    #[cfg(test)]
    pub(super) fn new_at(window: usize, base: u32) -> Self {
        Self { base, ..Self::new(window) }
    }

    /// Forgets everything: the next block is the first. Places in tables are out of reach from then on.
    pub(super) fn clear(&mut self) {
        // Places move on only by what `push` will notice when they become too high.
        if !self.bytes.is_empty() {
            self.base += (self.window + self.bytes.len()) as u32;
            self.bytes.clear();
        }
    }

    /// Appends a block and gives its index. If it gives an amount as well, all places are now lower by that amount.
    pub(super) fn push(&mut self, block: &[u8]) -> (usize, Option<u32>) {
        if self.bytes.len() + block.len() > 2 * self.window {
            let moved = self.bytes.len() - self.window;
            self.bytes.copy_within(moved.., 0);
            self.bytes.truncate(self.window);
            self.base += moved as u32;
        }
        let lowered = (self.base > REBASE).then(|| self.base - self.window as u32);
        self.base -= lowered.unwrap_or(0);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(block);
        (start, lowered)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn base(&self) -> u32 {
        self.base
    }

    pub(super) fn window(&self) -> usize {
        self.window
    }
}

/// An entry of a [`Table`].
pub(super) trait Entry: Copy + Default + std::fmt::Debug {
    /// Lowers the places in the entry, or forgets them when they are lower than that.
    fn lower(&mut self, by: u32);
}

/// The four bytes at a place, and the place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) bytes: u32,
    pub(super) at: u32,
}

impl Entry for Seen {
    fn lower(&mut self, by: u32) {
        self.at = self.at.saturating_sub(by);
    }
}

/// The last place and the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pair {
    pub(super) at: u32,
    pub(super) before: u32,
}

impl Entry for Pair {
    fn lower(&mut self, by: u32) {
        self.at = self.at.saturating_sub(by);
        self.before = self.before.saturating_sub(by);
    }
}

/// Entries by the hash of what is there: `1 << BITS` of them.
#[derive(Debug)]
pub(super) struct Table<E, const BITS: u32>(Vec<E>);

impl<E: Entry, const BITS: u32> Table<E, BITS> {
    pub(super) fn new() -> Self {
        Self(vec![E::default(); 1 << BITS])
    }

    pub(super) fn lower(&mut self, by: u32) {
        self.0.iter_mut().for_each(|entry| entry.lower(by));
    }

    pub(super) fn entries(&mut self) -> Entries<'_, E> {
        Entries(&mut self.0)
    }
}

/// The entries of a table, for the time of a search.
#[derive(Debug)]
pub(super) struct Entries<'a, E>(&'a mut [E]);

impl<E: Entry> Entries<'_, E> {
    #[inline(always)]
    pub(super) fn at(&self, hash: usize) -> E {
        self.0[hash]
    }

    #[inline(always)]
    pub(super) fn put(&mut self, hash: usize, entry: E) -> E {
        std::mem::replace(&mut self.0[hash], entry)
    }
}

impl Entries<'_, Pair> {
    /// Puts a place before the one that is there, and gives what was there.
    #[inline(always)]
    pub(super) fn chain(&mut self, hash: usize, at: u32) -> Pair {
        let slot = &mut self.0[hash];
        let old = *slot;
        *slot = Pair { at, before: old.at };
        old
    }
}

/// The hash of the lowest `BYTES` bytes of a word, in `BITS` bits.
#[inline(always)]
pub(super) fn hash<const BYTES: u32, const BITS: u32>(word: u64) -> usize {
    let factor = match BYTES {
        4 => return ((word as u32).wrapping_mul(2_654_435_761) >> (32 - BITS)) as usize,
        5 => 889_523_592_379,
        6 => 227_718_039_650_203,
        _ => 0xcf1b_bcdc_b7a5_6463,
    };
    ((word << (64 - 8 * BYTES)).wrapping_mul(factor) >> (64 - BITS)) as usize
}

/// The four bytes at `index`; they must be there.
#[inline(always)]
pub(super) fn load32(bytes: &[u8], index: usize) -> u32 {
    bytes.get(index..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_le_bytes(*word))
}

/// The eight bytes at `index`; they must be there.
#[inline(always)]
pub(super) fn load64(bytes: &[u8], index: usize) -> u64 {
    bytes.get(index..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word))
}

/// How many bytes from `later` on are the same as those from `earlier` on.
#[inline(always)]
pub(super) fn common(bytes: &[u8], later: usize, earlier: usize) -> usize {
    let (Some(a), Some(b)) = (bytes.get(later..), bytes.get(earlier..)) else { return 0 };
    common_prefix(a, b)
}

/// How many bytes before `later` are the same as those before `earlier`, down to where either may go.
#[inline(always)]
pub(super) fn common_before(
    bytes: &[u8],
    (later, later_end): (usize, usize),
    (earlier, earlier_end): (usize, usize),
) -> usize {
    let most = later.saturating_sub(later_end).min(earlier.saturating_sub(earlier_end));
    let mut same = 0;
    while same < most && bytes[later - 1 - same] == bytes[earlier - 1 - same] {
        same += 1;
    }
    same
}
