//! Blocks: which form each gets, and whether it goes on with the codes of the block before.
//!
//! Source of the algorithm: klauspost/compress, `flate` (BSD-3-Clause). A block whose symbols all have codes already
//! may be appended to the open block when that looks cheaper than a header of its own. All the sizes compared here
//! are those of the original, its estimates and its off-by-a-few included, since each decides between two outputs.

use super::bits::BitSink;
use super::code::{self, Code, MAX_LEN};
use super::header::Header;
use super::symbols::{
    DISTANCE_SYMBOLS, END_OF_BLOCK, FIRST_LENGTH, LENGTH_EXTRA_BITS, LENGTH_SYMBOL, LITLEN_SYMBOLS,
    distance_extra_bits,
};
use super::tokens::{Token, Tokens};

/// The most bytes of a stored block.
pub(super) const MAX_STORED: usize = 65_535;

/// Only a block of fewer tokens may take the fixed codes.
const FIXED_BELOW: usize = 250;

/// What a header is taken to cost where no block has shown it yet, in bits.
const GUESSED_HEADER: usize = 70 * 8;

/// A block of literals up to this size is not asked whether its bytes are spread like noise.
const TOO_SHORT_FOR_NOISE: usize = 1024;

/// How the header of a block lists its codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// All symbols, used or not, unless the block is flushed; and the end of a block is left out of the estimates.
    Full,
    /// Up to the last symbol that is used; and the end of a block is part of the estimates.
    Trimmed,
}

/// The codes of the block that could be continued.
#[derive(Debug)]
struct Open {
    /// The size of its header in bits.
    header: usize,
    /// Whether only literals and the end of the block have codes.
    literals_only: bool,
}

/// Writes blocks, one after the other.
#[derive(Debug)]
pub(super) struct BlockWriter {
    listing: Listing,
    /// A new block must save more than its estimated size shifted right by this.
    penalty: u32,
    bits: BitSink,
    litlen: [Code; LITLEN_SYMBOLS],
    distance: [Code; DISTANCE_SYMBOLS],
    open: Option<Open>,
}

impl BlockWriter {
    pub(super) fn new(listing: Listing, penalty: u32) -> Self {
        Self {
            listing,
            penalty,
            bits: BitSink::default(),
            litlen: [Code::default(); LITLEN_SYMBOLS],
            distance: [Code::default(); DISTANCE_SYMBOLS],
            open: None,
        }
    }

    /// Goes back to the start of an output.
    pub(super) fn restart(&mut self) {
        self.bits = BitSink::default();
        self.open = None;
    }

    /// Writes an empty stored block, after which the output is on a byte boundary.
    pub(super) fn sync_marker(&mut self, out: &mut Vec<u8>) {
        self.stored(&[], out);
    }

    /// Writes the last block, which is empty, and the bits that are left.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        // The last one, of fixed codes, whose end is seven zeros.
        self.bits.put(0b011, 3 + 7, out);
        self.bits.align(out);
    }

    /// Writes at most [`MAX_STORED`] bytes as they are.
    pub(super) fn stored(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.close(out);
        self.bits.put(0b000, 3, out);
        self.bits.align(out);
        let len = bytes.len() as u16;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(bytes);
    }

    /// Writes the end that is owed when a block is open.
    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            self.bits.code(self.litlen[END_OF_BLOCK], out);
        }
    }

    /// Writes `bytes` as literals, or stored. `flush` ends the block.
    pub(super) fn literals(&mut self, bytes: &[u8], flush: bool, out: &mut Vec<u8>) {
        let mut frequencies = [0_u32; END_OF_BLOCK + 1];
        for &byte in bytes {
            frequencies[usize::from(byte)] += 1;
        }
        if looks_like_noise(bytes.len(), &frequencies) {
            return self.stored(bytes, out);
        }
        frequencies[END_OF_BLOCK] = 1;
        let mut codes = [Code::default(); END_OF_BLOCK + 1];
        code::assign(&frequencies, MAX_LEN, &mut codes);
        let header = self.open.as_ref().map_or(GUESSED_HEADER, |open| open.header);
        let fresh = code::cost(&codes, &frequencies) + header;
        let fresh = fresh + (fresh >> self.penalty);
        if stored_size(bytes).is_some_and(|stored| stored <= fresh) {
            return self.stored(bytes, out);
        }

        let only_bytes = &frequencies[..END_OF_BLOCK];
        let reusable = self.open.is_some() && code::covers(&self.litlen, only_bytes);
        if !reusable || fresh < code::cost(&self.litlen, only_bytes) {
            self.close(out);
            // A distance code is needed for form's sake: one symbol of one bit.
            let header = Header::new(&codes, &[Code { bits: 0, len: 1 }]);
            header.write(&mut self.bits, out);
            self.litlen[..codes.len()].copy_from_slice(&codes);
            self.open = Some(Open { header: header.size(), literals_only: true });
        }
        let mut burst = self.bits.burst();
        for group in bytes.chunks(3) {
            for &byte in group {
                let code = self.litlen[usize::from(byte)];
                burst.put(code.bits.into(), code.len.into());
            }
            burst.settle(out);
        }
        burst.end(out);
        if flush {
            self.close(out);
        }
    }

    /// Writes a block of tokens, which is not empty. `input` is what they stand for, if it is still known; it may be
    /// stored instead. `flush` ends the block.
    pub(super) fn tokens(&mut self, tokens: &Tokens, input: Option<&[u8]>, flush: bool, out: &mut Vec<u8>) {
        if self.open.as_ref().is_some_and(|open| open.literals_only || !self.covers(tokens)) {
            self.close(out);
        }
        let mut counts = Counts::new(tokens, flush, self.listing);
        let stored = input.and_then(|bytes| Some((bytes, stored_size(bytes)?)));
        let few = tokens.len() + usize::from(flush) < FIXED_BELOW;

        if let Some(open) = &self.open {
            let fresh = open.header + tokens.estimated_bits(usize::from(flush));
            let fresh = fresh + usize::from(self.litlen[END_OF_BLOCK].len) + (fresh >> self.penalty);
            let reused = counts.cost(&self.litlen, &self.distance);
            if fresh < reused {
                self.close(out);
            }
            let size = fresh.min(reused);
            let fixed = few.then(|| counts.fixed_size() + 7).filter(|fixed| *fixed < size);
            if let Some((bytes, _)) = stored.filter(|(_, stored)| *stored <= size) {
                return self.stored(bytes, out);
            }
            if fixed.is_some() {
                return self.fixed(tokens, out);
            }
        }
        if self.open.is_none() {
            counts.litlen[END_OF_BLOCK] = 1;
            code::assign(&counts.litlen, MAX_LEN, &mut self.litlen);
            code::assign(&counts.distance, MAX_LEN, &mut self.distance);
            let header =
                Header::new(&self.litlen[..counts.listed_litlen], &self.distance[..counts.listed_distance]);
            let size = header.size() + counts.cost(&self.litlen, &self.distance);
            let fixed = few.then(|| counts.fixed_size()).filter(|fixed| *fixed <= size);
            if let Some((bytes, _)) = stored.filter(|(_, stored)| *stored <= fixed.unwrap_or(size)) {
                return self.stored(bytes, out);
            }
            if fixed.is_some() {
                return self.fixed(tokens, out);
            }
            header.write(&mut self.bits, out);
            self.open = Some(Open { header: header.size(), literals_only: false });
        }
        write_tokens(tokens.list(), &self.litlen, &self.distance, &mut self.bits, out);
        if flush {
            self.close(out);
        }
    }

    fn fixed(&mut self, tokens: &Tokens, out: &mut Vec<u8>) {
        self.close(out);
        self.bits.put(0b010, 3, out);
        write_tokens(tokens.list(), &FIXED_LITLEN, &FIXED_DISTANCE, &mut self.bits, out);
        self.bits.code(FIXED_LITLEN[END_OF_BLOCK], out);
    }

    /// Whether the open block has codes for all of this. It always has one for its end.
    fn covers(&self, tokens: &Tokens) -> bool {
        code::covers(&self.litlen, tokens.litlen()) && code::covers(&self.distance, tokens.distance())
    }
}

/// How often each symbol of a block occurs, as its header and the estimates see it.
struct Counts {
    litlen: [u32; LITLEN_SYMBOLS],
    distance: [u32; DISTANCE_SYMBOLS],
    /// How many symbols of each kind a header lists.
    listed_litlen: usize,
    listed_distance: usize,
    /// The bits besides the codes.
    extra: usize,
}

impl Counts {
    fn new(tokens: &Tokens, flush: bool, listing: Listing) -> Self {
        let mut counts = Self {
            litlen: *tokens.litlen(),
            distance: *tokens.distance(),
            listed_litlen: LITLEN_SYMBOLS,
            listed_distance: DISTANCE_SYMBOLS,
            extra: tokens.extra_bits(),
        };
        if flush || listing == Listing::Trimmed {
            counts.litlen[END_OF_BLOCK] = 1;
            counts.listed_litlen = used(&counts.litlen);
            counts.listed_distance = used(&counts.distance);
            if counts.listed_distance == 0 {
                // A distance code without any symbol is not to everybody's taste.
                counts.distance[0] = 1;
                counts.listed_distance = 1;
            }
        }
        counts
    }

    fn cost(&self, litlen: &[Code], distance: &[Code]) -> usize {
        code::cost(litlen, &self.litlen) + code::cost(distance, &self.distance) + self.extra
    }

    fn fixed_size(&self) -> usize {
        3 + self.cost(&FIXED_LITLEN, &FIXED_DISTANCE)
    }
}

/// The number of symbols up to the last that occurs.
fn used(frequencies: &[u32]) -> usize {
    frequencies.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1)
}

/// The size of a stored block in bits, its header taken as 5 bytes; `None` when it would not fit in one.
fn stored_size(bytes: &[u8]) -> Option<usize> {
    (bytes.len() <= MAX_STORED).then_some((bytes.len() + 5) * 8)
}

/// Whether byte values are so evenly spread that no code could gain anything: their variance is below 2/256 of the
/// length. In integers, where the original has floats, but exactly the same.
fn looks_like_noise(len: usize, frequencies: &[u32]) -> bool {
    if len <= TOO_SHORT_FOR_NOISE {
        return false;
    }
    let spread: u64 = frequencies[..END_OF_BLOCK]
        .iter()
        .map(|count| (u64::from(*count) * 256).abs_diff(len as u64).pow(2))
        .sum();
    spread < len as u64 * 2 * 256 * 256
}

/// Writes tokens, without the end of the block.
fn write_tokens(
    tokens: &[Token],
    litlen: &[Code; LITLEN_SYMBOLS],
    distance: &[Code; DISTANCE_SYMBOLS],
    bits: &mut BitSink,
    out: &mut Vec<u8>,
) {
    // The code of every length together with its extra bits: 20 bits at most.
    let mut lengths = [(0_u32, 0_u8); 256];
    for (length, entry) in lengths.iter_mut().enumerate() {
        let symbol = usize::from(LENGTH_SYMBOL[length]);
        let code = litlen[FIRST_LENGTH + symbol];
        let extra_bits = LENGTH_EXTRA_BITS[symbol];
        let extra = length as u32 & ((1 << extra_bits) - 1);
        *entry = (u32::from(code.bits) | extra << code.len, code.len + extra_bits);
    }
    let mut burst = bits.burst();
    for &token in tokens {
        if let Some(byte) = token.literal() {
            let code = litlen[usize::from(byte)];
            burst.put(code.bits.into(), code.len.into());
        } else {
            let (bits, count) = lengths[usize::from(token.length())];
            burst.put(bits.into(), count.into());
            let symbol = token.distance_symbol();
            let code = distance.get(symbol).copied().unwrap_or_default();
            let extra_bits = distance_extra_bits(symbol);
            let extra = token.distance() & ((1 << extra_bits) - 1);
            burst.put(u64::from(u32::from(code.bits) | extra << code.len), u32::from(code.len) + extra_bits);
        }
        burst.settle(out);
    }
    burst.end(out);
}

/// The codes of fixed blocks (RFC 1951, section 3.2.6).
const FIXED_LITLEN: [Code; LITLEN_SYMBOLS] = fixed_litlen();
const FIXED_DISTANCE: [Code; DISTANCE_SYMBOLS] = fixed_distance();

const fn fixed_litlen() -> [Code; LITLEN_SYMBOLS] {
    let mut codes = [Code { bits: 0, len: 0 }; LITLEN_SYMBOLS];
    let mut symbol = 0;
    while symbol < LITLEN_SYMBOLS {
        let (forward, len) = match symbol {
            0..144 => (0b0011_0000 + symbol, 8),
            144..256 => (0b1_1001_0000 + symbol - 144, 9),
            256..280 => (symbol - 256, 7),
            _ => (0b1100_0000 + symbol - 280, 8),
        };
        codes[symbol] = Code { bits: (forward as u16).reverse_bits() >> (16 - len), len: len as u8 };
        symbol += 1;
    }
    codes
}

const fn fixed_distance() -> [Code; DISTANCE_SYMBOLS] {
    let mut codes = [Code { bits: 0, len: 0 }; DISTANCE_SYMBOLS];
    let mut symbol = 0;
    while symbol < DISTANCE_SYMBOLS {
        codes[symbol] = Code { bits: (symbol as u16).reverse_bits() >> 11, len: 5 };
        symbol += 1;
    }
    codes
}
