//! Levels 2 to 9: hash chains over a window of 64 KiB that slides by half of it.
//!
//! How far a match reaches depends on where the window happens to be: up to 32768 bytes, but never to what has slid
//! out. Nor can a block be stored whose beginning has slid out. So the window here slides where Go's does.
//!
//! In Go that depends, in one rare case, on how the content is cut into calls of `Write`: when a match ends exactly
//! [`AHEAD`] bytes before the end of the window, a call has ended within those bytes, and the next match is one that the
//! slide would put out of reach. Here it is as if there had been one call. (Writing tar archives as Go's archive/tar
//! does, a header, a piece of a file or its padding at a time, made no difference in half a gigabyte.)

use super::block::BlockWriter;
use super::search::{HASH_FACTOR, SLACK, bytes_at, common};
use super::symbols::{LONGEST_DISTANCE, LONGEST_MATCH, Token};

/// By how much the window slides, and how far a match can reach.
const HALF: usize = LONGEST_DISTANCE;

/// The window in bytes. Places in it begin with 1, so that they fit into 16 bits and 0 means none.
const WINDOW: usize = 2 * HALF;

/// The shortest match that is looked for. Its bytes are hashed.
const SHORTEST_MATCH: usize = 4;

/// Matches of [`SHORTEST_MATCH`] reach no farther than this: a long distance costs more than four literals.
const SHORTEST_MATCH_REACH: usize = 4096;

/// While more content may come, no search begins with less than this ahead.
const AHEAD: usize = LONGEST_MATCH + SHORTEST_MATCH;

/// The tokens of a block.
const BLOCK_TOKENS: usize = 1 << 14;

const HASH_BITS: u32 = 17;

/// The bytes that are allocated for the window: the one of place 0, and those behind that a search may read.
const BUFFER: usize = 1 + WINDOW + LONGEST_MATCH + SLACK;

/// What a level decides.
#[derive(Clone, Copy, Debug)]
struct Level {
    strategy: Strategy,
    /// Ends a search: a match of this length is good enough.
    nice: usize,
    /// How many candidates a search tries.
    depth: usize,
}

#[derive(Clone, Copy, Debug)]
enum Strategy {
    /// Takes a match where it finds one.
    Greedy {
        /// The longest match inside of which every place is noted.
        noted: usize,
    },
    /// Looks for a longer match at the next place before it takes one.
    Lazy {
        /// A match of this length or longer is taken without looking.
        enough: usize,
    },
}

impl Level {
    /// What Go's table of levels says. It has one more column, for which matches the chains are cut short; but the
    /// length it is compared with is always that of no match.
    fn new(level: i32) -> Option<Self> {
        use Strategy::{Greedy, Lazy};
        let (strategy, nice, depth) = match level {
            2 => (Greedy { noted: 5 }, 16, 8),
            3 => (Greedy { noted: 6 }, 32, 32),
            4 => (Lazy { enough: 4 }, 16, 16),
            5 => (Lazy { enough: 16 }, 32, 32),
            6 => (Lazy { enough: 16 }, 128, 128),
            7 => (Lazy { enough: 32 }, 128, 256),
            8 => (Lazy { enough: 128 }, 258, 1024),
            9 => (Lazy { enough: 258 }, 258, 4096),
            _ => return None,
        };
        Some(Self { strategy, nice, depth })
    }
}

/// A match as a search finds it.
#[derive(Clone, Copy, Debug)]
struct Match {
    /// [`Match::NONE`] has one less than [`SHORTEST_MATCH`].
    length: usize,
    distance: usize,
}

impl Match {
    const NONE: Self = Self { length: SHORTEST_MATCH - 1, distance: 0 };

    fn is_some(self) -> bool {
        self.length >= SHORTEST_MATCH
    }
}

/// Compresses with hash chains.
#[derive(Debug)]
pub(super) struct Chain {
    level: Level,
    window: Window,
    /// The next place to search at.
    at: usize,
    /// Lazy: what the place before has, which is not sent yet; `None` if all before is sent.
    waiting: Option<Match>,
    tokens: Vec<Token>,
    /// Where the content of the tokens begins; `None` if that has slid out of the window.
    block: Option<usize>,
}

/// The window, and the places in it by the hash of the bytes there.
#[derive(Debug)]
struct Window {
    bytes: Box<[u8; BUFFER]>,
    /// The place behind the content.
    end: usize,
    /// The last place with each hash.
    heads: Box<[u16; 1 << HASH_BITS]>,
    /// For each place, modulo its length, the place before with the same hash.
    before: Box<[u16; HALF]>,
}

impl Chain {
    /// The levels are 2 to 9.
    pub(super) fn new(level: i32) -> Option<Self> {
        Some(Self {
            level: Level::new(level)?,
            window: Window::new(),
            at: 1,
            waiting: None,
            tokens: Vec::with_capacity(BLOCK_TOKENS),
            block: Some(1),
        })
    }

    pub(super) fn write(&mut self, mut content: &[u8], blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        while !content.is_empty() {
            if self.window.is_full() {
                self.slide();
            }
            content = self.window.fill(content);
            self.compress(AHEAD, blocks, out);
        }
    }

    pub(super) fn finish(&mut self, blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        self.compress(1, blocks, out);
        if self.waiting.take().is_some() {
            self.tokens.push(Token::literal(self.window.bytes[self.at - 1]));
        }
        if !self.tokens.is_empty() {
            self.write_block(self.at, blocks, out);
        }
    }

    fn slide(&mut self) {
        self.window.slide();
        self.at -= HALF;
        // Place 0 is none.
        self.block = self.block.and_then(|start| start.checked_sub(HALF)).filter(|start| *start > 0);
    }

    /// Compresses as long as `ahead` bytes are there.
    fn compress(&mut self, ahead: usize, blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        match self.level.strategy {
            Strategy::Greedy { noted } => self.greedy(noted, ahead, blocks, out),
            Strategy::Lazy { enough } => self.lazy(enough, ahead, blocks, out),
        }
    }

    fn greedy(&mut self, noted: usize, ahead: usize, blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        while self.window.end - self.at >= ahead {
            let at = self.at;
            let found = self.window.search_and_note(at, self.level, true);
            if found.is_some() {
                self.tokens.push(Token::copy(found.length, found.distance));
                self.at += found.length;
                if found.length <= noted {
                    self.window.note(at + 1..self.at);
                }
            } else {
                self.tokens.push(Token::literal(self.window.bytes[at]));
                self.at += 1;
            }
            if self.tokens.len() == BLOCK_TOKENS {
                self.write_block(self.at, blocks, out);
            }
        }
    }

    fn lazy(&mut self, enough: usize, ahead: usize, blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        while self.window.end - self.at >= ahead {
            let at = self.at;
            let last = self.waiting.unwrap_or(Match::NONE);
            let found = self.window.search_and_note(at, self.level, last.length < enough);
            let sent = if last.is_some() && found.length <= last.length {
                self.tokens.push(Token::copy(last.length, last.distance));
                // The match began one place before.
                self.at = at - 1 + last.length;
                self.window.note(at + 1..self.at);
                self.waiting = None;
                self.at
            } else {
                if self.waiting.is_some() {
                    self.tokens.push(Token::literal(self.window.bytes[at - 1]));
                }
                self.waiting = Some(found);
                self.at += 1;
                at
            };
            if self.tokens.len() == BLOCK_TOKENS {
                self.write_block(sent, blocks, out);
            }
        }
    }

    /// Writes the tokens, whose content ends at `end`.
    fn write_block(&mut self, end: usize, blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        let raw = self.block.map(|start| &self.window.bytes[start..end]);
        blocks.smallest(&self.tokens, raw, out);
        self.tokens.clear();
        self.block = Some(end);
    }
}

impl Window {
    fn new() -> Self {
        Self { bytes: zeroed(), end: 1, heads: zeroed(), before: zeroed() }
    }

    fn is_full(&self) -> bool {
        self.end == 1 + WINDOW
    }

    /// Takes what fits of the content, and gives back the rest.
    fn fill<'a>(&mut self, content: &'a [u8]) -> &'a [u8] {
        let (now, later) = content.split_at(content.len().min(1 + WINDOW - self.end));
        self.bytes[self.end..][..now.len()].copy_from_slice(now);
        self.end += now.len();
        later
    }

    /// Forgets the first half of a full window.
    fn slide(&mut self) {
        self.bytes.copy_within(1 + HALF..1 + WINDOW, 1);
        self.end -= HALF;
        for places in [&mut self.heads[..], &mut self.before[..]] {
            places.iter_mut().for_each(|place| *place = place.saturating_sub(HALF as u16));
        }
    }

    /// Looks for a match at a place if `promising`, and notes the place.
    #[inline(always)]
    fn search_and_note(&mut self, at: usize, level: Level, promising: bool) -> Match {
        let head = &mut self.heads[hash(u32::from_be_bytes(bytes_at(&*self.bytes, at)))];
        let candidate = std::mem::replace(head, at as u16);
        let reachable = usize::from(candidate) >= at.saturating_sub(HALF).max(1);
        let found = if promising && reachable { self.search(at, candidate, level) } else { Match::NONE };
        // Only now: this overwrites the chain of the place that is just within reach.
        self.before[at % HALF] = candidate;
        found
    }

    /// Looks for a match, from a candidate that is within reach on back through its chain.
    #[inline(always)]
    fn search(&self, at: usize, mut candidate: u16, level: Level) -> Match {
        let most = LONGEST_MATCH.min(self.end - at);
        let nice = level.nice.min(most);
        let reach = at.saturating_sub(HALF).max(1);
        let mut best = Match::NONE;
        if most <= best.length {
            return best;
        }
        // A longer match has these four bytes too, the last of which is the first that the best does not have.
        let tail = |best: Match| best.length + 1 - size_of::<u32>();
        let mut wanted: [u8; 4] = bytes_at(&*self.bytes, at + tail(best));
        for _ in 0..level.depth {
            let from = usize::from(candidate);
            if bytes_at::<4>(&*self.bytes, from + tail(best)) == wanted {
                let length = common(&*self.bytes, at, from, most);
                let distance = at - from;
                if length > best.length && (length > SHORTEST_MATCH || distance <= SHORTEST_MATCH_REACH) {
                    best = Match { length, distance };
                    if length >= nice {
                        break;
                    }
                    wanted = bytes_at(&*self.bytes, at + tail(best));
                }
            }
            candidate = self.before[from % HALF];
            if usize::from(candidate) < reach {
                break;
            }
        }
        best
    }

    /// Notes places in which no search begins. Those at the end of the content are noted with bytes that are not of it;
    /// no search comes after them.
    #[inline(always)]
    fn note(&mut self, places: std::ops::Range<usize>) {
        for at in places {
            let head = &mut self.heads[hash(u32::from_be_bytes(bytes_at(&*self.bytes, at)))];
            self.before[at % HALF] = std::mem::replace(head, at as u16);
        }
    }
}

/// A large array of zeros that is never on the stack.
fn zeroed<T: Clone + Default + std::fmt::Debug, const N: usize>() -> Box<[T; N]> {
    vec![T::default(); N].into_boxed_slice().try_into().expect("it was made with this length")
}

#[inline(always)]
fn hash(bytes: u32) -> usize {
    (bytes.wrapping_mul(HASH_FACTOR) >> (u32::BITS - HASH_BITS)) as usize
}
