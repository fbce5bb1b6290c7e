//! Writes tokens as deflate blocks, and chooses the type of each.

use super::bits::{BitWriter, Bits};
use super::codes::{Code, Counts, Dynamic};
use super::symbols::{
    DISTANCES, END_OF_BLOCK, LENGTHS, LONGEST_STORED, SHORTEST_MATCH, SYMBOL_OF_KIND, Token,
};

/// The types of a block as they are sent, with the bit in front that says whether it is the last.
const STORED: u64 = 0b000;
const STORED_AND_LAST: u64 = 0b001;
const FIXED: u64 = 0b010;
const DYNAMIC: u64 = 0b100;

/// The bits of a type.
const TYPE_BITS: u32 = 3;

/// The bits that a stored block takes besides its content, as Go counts them.
const STORED_HEADER_BITS: u64 = 5 * 8;

/// Writes blocks one behind the other. The last is an empty one, as Go's `Close` has it.
#[derive(Debug, Default)]
pub(super) struct BlockWriter {
    bits: BitWriter,
}

impl BlockWriter {
    /// Writes the smallest of a fixed, a dynamic and, if `raw` is there, a stored block. `raw` is the content of the
    /// tokens, if it is still known.
    pub(super) fn smallest(&mut self, tokens: &[Token], raw: Option<&[u8]>, out: &mut Vec<u8>) {
        let counts = Counts::of(tokens);
        let dynamic = Dynamic::new(&counts);
        let dynamic_bits = dynamic.header_bits() + counts.bits(&dynamic.code);
        let fixed_bits = u64::from(TYPE_BITS) + counts.bits(&Code::FIXED);
        let is_dynamic = dynamic_bits < fixed_bits;
        let bits = dynamic_bits.min(fixed_bits) + counts.extra_bits();
        match raw {
            Some(raw) if raw.len() <= LONGEST_STORED && stored_bits(raw) < bits => self.stored(raw, out),
            _ if is_dynamic => self.dynamic(&dynamic, tokens, bits, out),
            _ => {
                self.bits.put(Bits::new(FIXED, TYPE_BITS), out);
                self.coded(&Code::FIXED, tokens, bits, out);
            }
        }
    }

    /// Writes a dynamic block, or a stored one if the dynamic one would hardly be smaller. `raw` is the content of the
    /// tokens, at most [`LONGEST_STORED`] bytes.
    pub(super) fn dynamic_or_stored(&mut self, tokens: &[Token], raw: &[u8], out: &mut Vec<u8>) {
        let counts = Counts::of(tokens);
        let dynamic = Dynamic::new(&counts);
        // Go leaves the extra bits out here, though they are sent.
        let bits = dynamic.header_bits() + counts.bits(&dynamic.code);
        if hardly_smaller(bits, raw) {
            self.stored(raw, out);
        } else {
            self.dynamic(&dynamic, tokens, bits + counts.extra_bits(), out);
        }
    }

    /// Writes a dynamic block without matches, or a stored one if the dynamic one would hardly be smaller. `raw` is at
    /// most [`LONGEST_STORED`] bytes.
    pub(super) fn literals_or_stored(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let counts = Counts::of_literals(raw);
        let dynamic = Dynamic::new(&counts);
        let bits = dynamic.header_bits() + counts.bits(&dynamic.code);
        if hardly_smaller(bits, raw) {
            return self.stored(raw, out);
        }
        self.bits.put(Bits::new(DYNAMIC, TYPE_BITS), out);
        dynamic.write(&mut self.bits, out);
        let codes = dynamic.code.litlen_bits();
        let literals = raw.iter().map(|&byte| codes[usize::from(byte)]);
        self.bits.put_all(literals.chain([codes[END_OF_BLOCK]]), bits, out);
    }

    /// Writes a stored block of at most [`LONGEST_STORED`] bytes.
    pub(super) fn stored(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        self.stored_block(STORED, raw, out);
    }

    /// Writes the block that ends the stream.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        self.stored_block(STORED_AND_LAST, &[], out);
    }

    fn stored_block(&mut self, block_type: u64, raw: &[u8], out: &mut Vec<u8>) {
        debug_assert!(raw.len() <= LONGEST_STORED, "{} bytes do not fit", raw.len());
        self.bits.put(Bits::new(block_type, TYPE_BITS), out);
        self.bits.align(out);
        let len = raw.len() as u16;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(raw);
    }

    fn dynamic(&mut self, dynamic: &Dynamic, tokens: &[Token], bits: u64, out: &mut Vec<u8>) {
        self.bits.put(Bits::new(DYNAMIC, TYPE_BITS), out);
        dynamic.write(&mut self.bits, out);
        self.coded(&dynamic.code, tokens, bits, out);
    }

    /// Writes tokens and the end of their block, at most `bits` together.
    fn coded(&mut self, code: &Code, tokens: &[Token], bits: u64, out: &mut Vec<u8>) {
        let litlen = code.litlen_bits();
        let kinds: [Bits; Token::KINDS] = std::array::from_fn(|kind| {
            let symbol = usize::from(SYMBOL_OF_KIND[kind]);
            match LENGTHS.get(symbol.wrapping_sub(END_OF_BLOCK + 1)) {
                None => litlen[symbol],
                Some(range) => {
                    let extra = kind - 256 + SHORTEST_MATCH - usize::from(range.first);
                    litlen[symbol].then(Bits::new(extra as u64, range.extra_bits.into()))
                }
            }
        });
        let distances = code.distance_bits();
        let all = tokens.iter().map(|token| {
            let symbol = token.distance_symbol();
            let extra = u64::from(token.distance() - DISTANCES[symbol].first);
            let distance = distances[symbol].then(Bits::new(extra, DISTANCES[symbol].extra_bits.into()));
            kinds[token.kind()].then(distance)
        });
        self.bits.put_all(all.chain([litlen[END_OF_BLOCK]]), bits, out);
    }
}

fn stored_bits(raw: &[u8]) -> u64 {
    raw.len() as u64 * 8 + STORED_HEADER_BITS
}

/// Whether a stored block is chosen over a coded one of so many bits: it must be smaller than that and a sixteenth.
fn hardly_smaller(bits: u64, raw: &[u8]) -> bool {
    stored_bits(raw) < bits + bits / 16
}
