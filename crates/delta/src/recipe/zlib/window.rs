//! The sliding window, and the chains of places in it that begin with the same three bytes.
//!
//! Places are counted from the start of the window and moved with it, as in `deflate.c` (zlib, zlib licence), because
//! the output depends on it: place 0 means "none", so the string that happens to stand there is never found.

use super::block::{MAX_COPY, MIN_COPY};

/// How far back a copy can reach at most, and by how much the window slides.
pub(super) const HALF: usize = 1 << 15;

/// The bytes that the window holds.
pub(super) const WINDOW: usize = 2 * HALF;

/// The lookahead that a search should have, except at the end of the content: a copy, and one more string to insert.
pub(super) const MIN_AHEAD: usize = MAX_COPY + MIN_COPY + 1;

/// The largest distance: less than half a window, so that the string ahead never overwrites what it is compared to.
pub(super) const MAX_DISTANCE: usize = HALF - MIN_AHEAD;

/// Eight bytes can be loaded from any place in the window.
const SLACK: usize = 8;

/// The bytes around the place of work.
///
/// What lies behind the end of the content stays there from earlier: GNU gzip compares it.
#[derive(Debug)]
pub(super) struct Window {
    bytes: Box<[u8; WINDOW + SLACK]>,
    /// Everything behind this place is still zero.
    touched: usize,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { bytes: Box::new([0; WINDOW + SLACK]), touched: 0 }
    }

    /// Makes everything zero.
    pub(super) fn clear(&mut self) {
        self.bytes[..self.touched].fill(0);
        self.touched = 0;
    }

    /// Puts bytes at a place.
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.touched = self.touched.max(at + bytes.len());
    }

    /// Moves the upper half down, and leaves it where it was too.
    pub(super) fn slide(&mut self) {
        self.bytes.copy_within(HALF..WINDOW, 0);
    }

    /// Moves bytes to place 0.
    pub(super) fn move_to_start(&mut self, from: usize, to: usize) {
        self.bytes.copy_within(from..to, 0);
    }

    pub(super) fn slice(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[from..to]
    }

    // Masks instead of checks: every place is below WINDOW, but the compiler cannot know that.

    #[inline(always)]
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.bytes[at & (WINDOW - 1)]
    }

    #[inline(always)]
    fn pair(&self, at: usize) -> u16 {
        let at = at & (WINDOW - 1);
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    #[inline(always)]
    fn eight(&self, at: usize) -> u64 {
        let at = at & (WINDOW - 1);
        let bytes = &self.bytes[at..at + 8];
        u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
    }

    /// How many bytes are the same from two places on, up to [`MAX_COPY`].
    #[inline(always)]
    fn common(&self, a: usize, b: usize) -> usize {
        let mut len = 0;
        while len < MAX_COPY {
            let difference = self.eight(a + len) ^ self.eight(b + len);
            if difference != 0 {
                return MAX_COPY.min(len + (difference.trailing_zeros() / 8) as usize);
            }
            len += 8;
        }
        MAX_COPY
    }
}

/// For each place, the one before it that has the same hash.
#[derive(Debug)]
pub(super) struct Chains {
    /// The last place with a hash; 0 if there is none.
    heads: Box<[u16; 1 << 16]>,
    /// The place before, by place modulo [`HALF`].
    links: Box<[u16; HALF]>,
    bits: u32,
}

/// What bounds a search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Only longer copies are of interest.
    pub(super) longer_than: usize,
    /// A copy of this length ends the search.
    pub(super) enough: usize,
    /// How many places are looked at.
    pub(super) places: usize,
}

impl Chains {
    /// Chains by a hash of `bits` bits, at most 16.
    pub(super) fn new(bits: u32) -> Self {
        Self { heads: Box::new([0; 1 << 16]), links: Box::new([0; HALF]), bits }
    }

    /// Forgets all places.
    pub(super) fn clear(&mut self) {
        // Links are followed from heads only, so they need no clearing.
        self.heads[..1 << self.bits].fill(0);
    }

    /// Follows a slide of the window.
    pub(super) fn slide(&mut self) {
        let places = self.heads[..1 << self.bits].iter_mut().chain(self.links.iter_mut());
        places.for_each(|place| *place = place.saturating_sub(HALF as u16));
    }

    /// Enters a place, and gives the last one before with the same hash, or 0. The hashed bytes are `at..at + 3`.
    #[inline(always)]
    pub(super) fn insert(&mut self, window: &Window, at: usize) -> usize {
        let [a, b, c] = [0, 1, 2].map(|offset| u32::from(window.byte(at + offset)));
        let shift = self.bits.div_ceil(3);
        let hash = (a << (2 * shift) ^ b << shift ^ c) & ((1 << self.bits) - 1);
        let before = std::mem::replace(&mut self.heads[hash as usize & 0xffff], at as u16);
        self.links[at & (HALF - 1)] = before;
        usize::from(before)
    }

    /// The longest copy for the string at `at` in the chain that begins with `candidate`, the nearest if several are as
    /// long: its length and its place. `None` if none is longer than wished.
    #[inline(always)]
    pub(super) fn search(
        &self,
        window: &Window,
        at: usize,
        mut candidate: usize,
        effort: Effort,
    ) -> Option<(usize, usize)> {
        let limit = at.saturating_sub(MAX_DISTANCE);
        let start = window.pair(at);
        let mut best = None;
        let mut longest = effort.longer_than;
        let mut end = window.pair(at + longest - 1);
        let mut places = effort.places;
        loop {
            if window.pair(candidate + longest - 1) == end && window.pair(candidate) == start {
                let len = window.common(at, candidate);
                if len > longest {
                    best = Some((len, candidate));
                    if len >= effort.enough {
                        break;
                    }
                    longest = len;
                    end = window.pair(at + longest - 1);
                }
            }
            candidate = usize::from(self.links[candidate & (HALF - 1)]);
            places -= 1;
            if candidate <= limit || places == 0 {
                break;
            }
        }
        best
    }
}
