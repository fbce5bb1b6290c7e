//! From content to symbols: which copies are looked for, and which of them are taken.
//!
//! The two strategies and their limits are those of `deflate.c` (zlib, zlib licence): the fast levels take the first
//! copy that they find, the others look one byte further for a longer one. GNU gzip only differs at the end of the content,
//! see [`Tail`]; nothing but these facts is taken from there.

use super::bits::BitWriter;
use super::block::{Block, MIN_COPY};
use super::window::{Chains, Effort, HALF, MAX_DISTANCE, MIN_AHEAD, WINDOW, Window};

/// The limits of a level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// With a copy of this length at hand, only a quarter of the places is looked at.
    good: usize,
    /// Lazy: a copy of this length is taken at once. Greedy: the strings inside a longer copy are not entered.
    lazy: usize,
    /// A copy of this length is long enough.
    nice: usize,
    /// How many places are looked at for one copy.
    places: usize,
}

/// The last of the levels that take the first copy they find.
const LAST_GREEDY: u8 = 3;

impl Limits {
    /// The limits of the levels 1 to 9.
    fn of(level: u8) -> Self {
        let [good, lazy, nice, places] = match level {
            ..=1 => [4, 4, 8, 4],
            2 => [4, 5, 16, 8],
            3 => [4, 6, 32, 32],
            4 => [4, 4, 16, 16],
            5 => [8, 16, 32, 32],
            6 => [8, 16, 128, 128],
            7 => [8, 32, 128, 256],
            8 => [32, 128, 258, 1024],
            9.. => [32, 258, 258, 4096],
        };
        Self { good, lazy, nice, places }
    }
}

/// A copy of only [`MIN_COPY`] bytes from further away is not worth it.
const TOO_FAR: usize = 4096;

/// What is done differently at the end of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// zlib: nothing behind the end is looked at, and the window goes on sliding.
    Guarded,
    /// GNU gzip: copies are looked for as if the content went on behind its end, with two zeros and then what was left
    /// in the window, and cut afterwards; once the end is known the window does not slide, and without enough room
    /// behind a string no copy is looked for.
    Open,
}

/// The state between two calls.
#[derive(Debug)]
pub(super) struct Searcher {
    window: Window,
    chains: Chains,
    block: Block,
    limits: Limits,
    greedy: bool,
    tail: Tail,
    /// The place of work.
    at: usize,
    /// The end of the content in the window.
    end: usize,
    /// Where the block began; negative when that has left the window.
    block_at: isize,
    /// Lazy only: the byte before `at` is not written yet.
    pending: bool,
    /// Lazy only: the copy found for the string that begins with that byte.
    held: Copy,
    /// How many of the strings before `at` are not entered yet.
    late: usize,
}

/// A copy from `distance` bytes before; none if it is shorter than [`MIN_COPY`].
#[derive(Clone, Copy, Debug)]
struct Copy {
    len: usize,
    distance: usize,
}

const NO_COPY: Copy = Copy { len: MIN_COPY - 1, distance: 0 };

impl Searcher {
    /// A search with the limits of `level`, chains by a hash of `hash_bits` bits.
    pub(super) fn new(level: u8, hash_bits: u32, block: Block, tail: Tail) -> Self {
        Self {
            window: Window::new(),
            chains: Chains::new(hash_bits),
            block,
            limits: Limits::of(level),
            greedy: level <= LAST_GREEDY,
            tail,
            at: 0,
            end: 0,
            block_at: 0,
            pending: false,
            held: NO_COPY,
            late: 0,
        }
    }

    /// Makes ready for other content.
    pub(super) fn reset(&mut self) {
        self.window.clear();
        self.chains.clear();
        self.block.clear();
        self.at = 0;
        self.end = 0;
        self.block_at = 0;
        self.pending = false;
        self.held = NO_COPY;
        self.late = 0;
    }

    /// Takes content. Work is done only when the window is full, which is what happens when all content is at hand.
    pub(super) fn write(&mut self, mut content: &[u8], bits: &mut BitWriter, out: &mut Vec<u8>) {
        while !content.is_empty() {
            let (now, later) = content.split_at(content.len().min(WINDOW - self.end));
            self.window.put(self.end, now);
            self.end += now.len();
            content = later;
            if self.end == WINDOW {
                self.run(MIN_AHEAD, usize::MAX, bits, out);
                self.slide();
            }
        }
    }

    /// Works up to the end of what was written, and ends the block: the last one, or one that may be left out when it is
    /// empty.
    pub(super) fn finish(&mut self, last: bool, bits: &mut BitWriter, out: &mut Vec<u8>) {
        self.run(MIN_AHEAD, usize::MAX, bits, out);
        match self.tail {
            Tail::Guarded => {
                self.run(1, HALF + MAX_DISTANCE, bits, out);
                if self.at >= HALF + MAX_DISTANCE {
                    self.slide();
                }
            }
            Tail::Open => {
                if self.at >= HALF + MAX_DISTANCE {
                    self.slide();
                }
                self.window.put(self.end, &[0; MIN_COPY - 1]);
            }
        }
        self.run(1, usize::MAX, bits, out);
        if self.pending {
            self.block.literal(self.window.byte(self.at - 1), self.taken());
        }
        if last || !self.block.symbols().is_empty() {
            self.flush(self.at, last, bits, out);
        }
        self.pending = false;
        self.held = NO_COPY;
        // Their third byte was missing until now.
        self.late = self.at.min(MIN_COPY - 1);
    }

    /// Forgets which strings were entered, and enters all that can still be reached; only after [`finish`](Self::finish).
    pub(super) fn enter_again(&mut self) {
        let kept = self.end.min(HALF);
        self.window.move_to_start(self.end - kept, self.end);
        self.chains.clear();
        self.at = kept;
        self.end = kept;
        self.block_at = kept as isize;
        self.enter_all(0, kept);
    }

    /// The first symbols of content that begins with `start`, which the window holds and whose symbols one block holds.
    /// Nothing is written; afterwards comes a [`reset`](Self::reset).
    pub(super) fn first_symbols(&mut self, start: &[u8]) -> &[u32] {
        self.window.put(0, start);
        self.end = start.len();
        let stop = (self.end + 1).saturating_sub(MIN_AHEAD);
        let _full = if self.greedy { self.greedy_block(stop) } else { self.lazy_block(stop) };
        self.block.symbols()
    }

    fn slide(&mut self) {
        self.window.slide();
        self.chains.slide();
        self.at -= HALF;
        self.end -= HALF;
        self.block_at -= HALF as isize;
    }

    /// How many bytes there are from the start of the block to the place of work.
    #[inline(always)]
    fn taken(&self) -> isize {
        self.at as isize - self.block_at
    }

    /// Writes the block, which ends at `end`.
    fn flush(&mut self, end: usize, last: bool, bits: &mut BitWriter, out: &mut Vec<u8>) {
        let content = usize::try_from(self.block_at).ok().map(|from| self.window.slice(from, end));
        self.block.flush(content, last, bits, out);
        self.block_at = end as isize;
    }

    /// Works as long as at least `ahead` bytes are left and the place of work is before `stop`.
    fn run(&mut self, ahead: usize, stop: usize, bits: &mut BitWriter, out: &mut Vec<u8>) {
        let late = std::mem::take(&mut self.late);
        self.enter_all(self.at - late, self.at);
        let stop = stop.min((self.end + 1).saturating_sub(ahead));
        while self.at < stop {
            let full = if self.greedy { self.greedy_block(stop) } else { self.lazy_block(stop) };
            if let Some(end) = full {
                self.flush(end, false, bits, out);
            }
        }
    }

    /// Takes the first copy that is found. Works up to `stop`, or says where the block ended when it is full.
    fn greedy_block(&mut self, stop: usize) -> Option<usize> {
        while self.at < stop {
            let at = self.at;
            let candidate = self.enter(at);
            let copy = self.find(candidate, NO_COPY);
            let full = if copy.len < MIN_COPY {
                self.at = at + 1;
                self.block.literal(self.window.byte(at), at as isize - self.block_at)
            } else {
                self.at = at + copy.len;
                if copy.len <= self.limits.lazy && self.end - self.at >= MIN_COPY {
                    self.enter_all(at + 1, self.at);
                }
                self.block.copy(copy.len, copy.distance, at as isize - self.block_at)
            };
            if full {
                return Some(self.at);
            }
        }
        None
    }

    /// Takes a copy only if none that begins a byte later is longer. Works up to `stop`, or says where the block ended
    /// when it is full.
    fn lazy_block(&mut self, stop: usize) -> Option<usize> {
        while self.at < stop {
            let at = self.at;
            let before = self.held;
            let candidate = self.enter(at);
            self.held = NO_COPY;
            if before.len < self.limits.lazy {
                self.held = self.find(candidate, before);
                if self.held.len == MIN_COPY && self.held.distance > TOO_FAR {
                    self.held = NO_COPY;
                }
            }
            if before.len >= MIN_COPY && self.held.len <= before.len {
                let full = self.block.copy(before.len, before.distance, self.taken());
                self.at = at - 1 + before.len;
                self.enter_all(at + 1, self.at);
                self.pending = false;
                self.held = NO_COPY;
                if full {
                    return Some(self.at);
                }
            } else {
                let full = self.pending && self.block.literal(self.window.byte(at - 1), self.taken());
                self.pending = true;
                self.at = at + 1;
                if full {
                    return Some(at);
                }
            }
        }
        None
    }

    /// Enters the string at `at` into its chain and gives the one before, 0 if there is none.
    #[inline(always)]
    fn enter(&mut self, at: usize) -> usize {
        if self.end - at >= MIN_COPY { self.chains.insert(&self.window, at) } else { 0 }
    }

    /// Enters the strings from `from` on, without `to`.
    #[inline(always)]
    fn enter_all(&mut self, from: usize, to: usize) {
        for at in from..to.min((self.end + 1).saturating_sub(MIN_COPY)) {
            self.chains.insert(&self.window, at);
        }
    }

    /// The best copy for the place of work that is longer than `known`.
    #[inline(always)]
    fn find(&self, candidate: usize, known: Copy) -> Copy {
        let at = self.at;
        if candidate == 0 || at - candidate > MAX_DISTANCE || at > WINDOW - MIN_AHEAD {
            return NO_COPY;
        }
        let ahead = self.end - at;
        let Limits { good, nice, places, .. } = self.limits;
        let effort = Effort {
            longer_than: known.len,
            enough: if self.tail == Tail::Guarded { nice.min(ahead) } else { nice },
            places: if known.len >= good { places / 4 } else { places },
        };
        match self.chains.search(&self.window, at, candidate, effort) {
            Some((len, from)) => Copy { len: len.min(ahead), distance: at - from },
            None => NO_COPY,
        }
    }
}
