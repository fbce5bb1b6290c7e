//! Level 1: matches as Snappy looks for them, with one candidate for each hash and larger and larger steps where
//! nothing is found. Whole blocks of content are compressed at once, and reach back into the block before.

use super::block::BlockWriter;
use super::search::{HASH_FACTOR, SLACK, bytes_at, common};
use super::symbols::{LONGEST_DISTANCE, LONGEST_MATCH, LONGEST_STORED, Token};

/// The content of a block in bytes.
const BLOCK: usize = LONGEST_STORED;

/// What stays in front of a block in the buffer: all that a match can reach.
const HISTORY: usize = LONGEST_DISTANCE;

const HASH_BITS: u32 = 14;

/// The first bytes of a match, which are hashed.
const HASHED: usize = 4;

/// So close to the end of a block no match begins.
const MARGIN: usize = 15;

/// A last block below this is not searched for matches.
const SHORTEST_SEARCHED: usize = 128;

/// A last block up to this is stored.
const LONGEST_TINY: usize = 16;

/// Where positions are counted down again; it only has to be far below `u32::MAX`.
const REBASE: u32 = 1 << 24;

/// The last place where four bytes with some hash were seen.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    bytes: u32,
    position: u32,
}

type Table = [Place; 1 << HASH_BITS];

#[derive(Debug)]
pub(super) struct Speed {
    /// [`HISTORY`], then the block, then [`SLACK`].
    buffer: Box<[u8]>,
    /// How much of the block is there.
    len: usize,
    table: Box<Table>,
    /// The position of the start of the block. So large in the beginning that an empty place is out of reach.
    base: u32,
    tokens: Vec<Token>,
}

impl Speed {
    pub(super) fn new() -> Self {
        let table = vec![Place::default(); 1 << HASH_BITS].into_boxed_slice();
        Self {
            buffer: vec![0; HISTORY + BLOCK + SLACK].into_boxed_slice(),
            len: 0,
            table: table.try_into().expect("it was made with this length"),
            base: BLOCK as u32,
            tokens: Vec::with_capacity(BLOCK),
        }
    }

    pub(super) fn write(&mut self, mut content: &[u8], blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        while !content.is_empty() {
            if self.len == BLOCK {
                self.compress(blocks, out);
            }
            let (now, later) = content.split_at(content.len().min(BLOCK - self.len));
            self.buffer[HISTORY + self.len..][..now.len()].copy_from_slice(now);
            self.len += now.len();
            content = later;
        }
    }

    pub(super) fn finish(&mut self, blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        if self.len >= SHORTEST_SEARCHED {
            return self.compress(blocks, out);
        }
        let block = &self.buffer[HISTORY..][..self.len];
        if block.len() > LONGEST_TINY {
            blocks.literals_or_stored(block, out);
        } else if !block.is_empty() {
            blocks.stored(block, out);
        }
    }

    /// Writes the block, and makes room for the next.
    fn compress(&mut self, blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        self.search();
        let block = &self.buffer[HISTORY..][..self.len];
        // Matches that leave more than fifteen sixteenths of the tokens are not worth their codes.
        if self.tokens.len() > self.len - self.len / 16 {
            blocks.literals_or_stored(block, out);
        } else {
            blocks.dynamic_or_stored(&self.tokens, block, out);
        }
        self.tokens.clear();
        self.buffer.copy_within(self.len..self.len + HISTORY, 0);
        self.base += self.len as u32;
        self.len = 0;
        if self.base > REBASE {
            self.rebase();
        }
    }

    /// Counts positions from a smaller base again. Places out of reach stay out of reach.
    fn rebase(&mut self) {
        let down = self.base - BLOCK as u32;
        self.table.iter_mut().for_each(|place| place.position = place.position.saturating_sub(down));
        self.base -= down;
    }

    /// Makes tokens of the block.
    fn search(&mut self) {
        let end = HISTORY + self.len;
        let bytes = &self.buffer[..end + SLACK];
        let (table, tokens) = (&mut *self.table, &mut self.tokens);
        // From here on places are in the buffer; this is what makes positions of them.
        let shift = self.base.wrapping_sub(HISTORY as u32);
        let limit = end - MARGIN;

        let mut unsent = HISTORY;
        let mut next = HISTORY;
        'block: loop {
            // Look for a match. The step grows by one with each 32 bytes.
            let mut step = 32;
            let (mut at, mut distance);
            loop {
                at = next;
                next = at + step / 32;
                step += step / 32;
                if next > limit {
                    break 'block;
                }
                distance = distance_at(table, bytes, at, shift);
                if distance <= LONGEST_DISTANCE {
                    break;
                }
            }
            tokens.extend(bytes[unsent..at].iter().map(|&byte| Token::literal(byte)));
            // Take it, and any that begins where it ends.
            loop {
                let most = LONGEST_MATCH.min(end - at);
                let length = HASHED + common(bytes, at + HASHED, at + HASHED - distance, most - HASHED);
                tokens.push(Token::copy(length, distance));
                at += length;
                unsent = at;
                if at >= limit {
                    break 'block;
                }
                note(table, bytes, at - 1, shift);
                distance = distance_at(table, bytes, at, shift);
                if distance > LONGEST_DISTANCE {
                    break;
                }
            }
            next = at + 1;
        }
        tokens.extend(bytes[unsent..end].iter().map(|&byte| Token::literal(byte)));
    }
}

/// How far back the last place with the same four bytes as here is; more than [`LONGEST_DISTANCE`] if there is none. From
/// now on the last place is here.
#[inline(always)]
fn distance_at(table: &mut Table, bytes: &[u8], at: usize, shift: u32) -> usize {
    let here = place(bytes, at, shift);
    let last = std::mem::replace(&mut table[hash(here.bytes)], here);
    if last.bytes == here.bytes { (here.position - last.position) as usize } else { usize::MAX }
}

/// Notes a place without looking at the last one.
#[inline(always)]
fn note(table: &mut Table, bytes: &[u8], at: usize, shift: u32) {
    let here = place(bytes, at, shift);
    table[hash(here.bytes)] = here;
}

#[inline(always)]
fn place(bytes: &[u8], at: usize, shift: u32) -> Place {
    Place { bytes: u32::from_le_bytes(bytes_at(bytes, at)), position: shift.wrapping_add(at as u32) }
}

#[inline(always)]
fn hash(bytes: u32) -> usize {
    (bytes.wrapping_mul(HASH_FACTOR) >> (u32::BITS - HASH_BITS)) as usize
}
