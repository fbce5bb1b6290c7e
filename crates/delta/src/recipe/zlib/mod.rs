//! zlib, GNU gzip and pigz: raw deflate bodies as the family of Jean-loup Gailly's encoder writes them.
//!
//! All of them look for copies in the same way and build the same trees. They differ in a few numbers, in where a block
//! ends and in what happens at the end of the content.
//!
//! The body is all there is here: gzip's header and trailer are the caller's.

mod bits;
mod block;
mod search;
mod tree;
mod window;

#[cfg(test)]
mod tests;

use self::bits::BitWriter;
use self::block::Block;
use self::search::{Searcher, Tail};
use super::Encode;

/// An encoder of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Variant {
    /// GNU gzip 1.4 and later, levels 1 to 9.
    Gzip,
    /// zlib 1.2.5 and later, levels 0 to 9. `mem_level` is the parameter of `deflateInit2`, 1 to 9; nearly everyone
    /// takes 8.
    Zlib {
        /// How much memory the hash and the symbols of a block may take.
        mem_level: u8,
    },
}

/// Writes what an encoder of the family writes when it has all of the content at hand.
#[derive(Debug)]
pub(crate) struct Encoder {
    searcher: Searcher,
    bits: BitWriter,
}

impl Encoder {
    /// An encoder, or `None` if the real one has no such level.
    pub(crate) fn new(variant: Variant, level: u8) -> Option<Self> {
        let searcher = match (variant, level) {
            (Variant::Gzip, 1..=9) => {
                // Level 3 is the first that guesses when to end a block.
                Searcher::new(level, 15, Block::new(0x7fff, level > 2), Tail::Open)
            }
            (Variant::Zlib { mem_level: mem_level @ 1..=9 }, 1..=9) => {
                let symbols = (1 << (mem_level + 6)) - 1;
                Searcher::new(level, u32::from(mem_level) + 7, Block::new(symbols, false), Tail::Guarded)
            }
            _ => return None,
        };
        Some(Self { searcher, bits: BitWriter::default() })
    }

    /// Makes ready for other content, faster than a new encoder.
    pub(crate) fn reset(&mut self) {
        self.searcher.reset();
        self.bits = BitWriter::default();
    }
}

impl Encode for Encoder {
    fn write(&mut self, content: &[u8], out: &mut Vec<u8>) {
        self.searcher.write(content, &mut self.bits, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.searcher.finish(&mut self.bits, out);
    }
}
