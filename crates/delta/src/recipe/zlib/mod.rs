//! zlib, GNU gzip, Info-ZIP and pigz: raw deflate bodies as the family of Jean-loup Gailly's encoder writes them.
//!
//! All of them look for copies in the same way and build the same trees. They differ in a few numbers, in where a block
//! ends and in what happens at the end of the content.
//!
//! The body is all there is here: gzip's header and trailer are the caller's.

mod bits;
mod block;
mod detect;
mod prefix;
mod search;
mod tree;
mod window;

#[cfg(test)]
mod tests;

use self::bits::BitWriter;
pub(crate) use self::detect::Detector;

use self::block::{Block, MAX_STORED, store};
use self::search::{Searcher, Tail};
use super::Encode;

/// An encoder of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Variant {
    /// GNU gzip, levels 1 to 9; checked against 1.12.
    Gzip,
    /// Info-ZIP's zip 3.0, levels 1 to 9: GNU gzip's blocks, but zlib's way to the end of the content.
    InfoZip,
    /// zlib, levels 0 to 9, with the default strategy; checked against 1.2.13. `mem_level` is the parameter of
    /// `deflateInit2`, 1 to 9; nearly everyone takes 8.
    Zlib {
        /// How much memory the hash and the symbols of a block may take.
        mem_level: u8,
    },
    /// pigz with blocks of 128 KiB, levels 1 to 9; checked against 2.6. From level 4 on, no difference between one
    /// thread and several was ever seen.
    Pigz {
        /// Whether there was more than one thread.
        parallel: bool,
    },
}

/// Writes what an encoder of the family writes when it has all of the content at hand.
///
/// zlib is told of the content piece by piece, and the pieces can shift where it slides its window, by one byte, and so
/// lose a copy that reaches back exactly as far as copies may. At level 0 they decide where blocks end. What is written
/// here is what one call with all content and room for all output gives.
///
/// GNU gzip looks behind the end of a file, where it may see what is left of an earlier file of the same call. Here there
/// is never an earlier file. None of 23,800 files from Debian packages, which are compressed many in one call, needed one.
#[derive(Debug)]
pub(crate) struct Encoder {
    method: Method,
    bits: BitWriter,
}

#[derive(Debug)]
enum Method {
    /// No compression; the bytes of the block that is not written yet.
    Store(Vec<u8>),
    /// One stream from start to end.
    Deflate(Searcher),
    /// Blocks that each end on a byte boundary.
    Blocks {
        searcher: Searcher,
        parallel: bool,
        /// How many bytes the current block can still take.
        room: usize,
    },
}

/// What pigz compresses at once.
const PIGZ_BLOCK: usize = 128 << 10;

/// The default of zlib, and the only memory level of pigz.
const MEM_LEVEL: u8 = 8;

impl Encoder {
    /// An encoder, or `None` if the real one has no such level.
    pub(crate) fn new(variant: Variant, level: u8) -> Option<Self> {
        let method = match (variant, level) {
            (Variant::Zlib { mem_level: 1..=9 }, 0) => Method::Store(Vec::with_capacity(MAX_STORED)),
            (Variant::Gzip, 1..=9) => Method::Deflate(gzip(level, Tail::Open)),
            (Variant::InfoZip, 1..=9) => Method::Deflate(gzip(level, Tail::Guarded)),
            (Variant::Zlib { mem_level: mem_level @ 1..=9 }, 1..=9) => {
                Method::Deflate(zlib(mem_level, level))
            }
            (Variant::Pigz { parallel }, 1..=9) => {
                Method::Blocks { searcher: zlib(MEM_LEVEL, level), parallel, room: PIGZ_BLOCK }
            }
            _ => return None,
        };
        Some(Self { method, bits: BitWriter::default() })
    }

    /// Makes ready for other content, faster than a new encoder.
    pub(crate) fn reset(&mut self) {
        self.bits = BitWriter::default();
        match &mut self.method {
            Method::Store(block) => block.clear(),
            Method::Deflate(searcher) => searcher.reset(),
            Method::Blocks { searcher, room, .. } => {
                searcher.reset();
                *room = PIGZ_BLOCK;
            }
        }
    }
}

fn gzip(level: u8, tail: Tail) -> Searcher {
    // Level 3 is the first that guesses when a block should end.
    Searcher::new(level, 15, Block::new(0x7fff, level > 2), tail)
}

fn zlib(mem_level: u8, level: u8) -> Searcher {
    let symbols = (1 << (mem_level + 6)) - 1;
    Searcher::new(level, u32::from(mem_level) + 7, Block::new(symbols, false), Tail::Guarded)
}

impl Encode for Encoder {
    fn write(&mut self, mut content: &[u8], out: &mut Vec<u8>) {
        match &mut self.method {
            Method::Store(block) => {
                while !content.is_empty() {
                    if block.len() == MAX_STORED {
                        store(block, false, &mut self.bits, out);
                        block.clear();
                    }
                    let (now, later) = content.split_at(content.len().min(MAX_STORED - block.len()));
                    block.extend_from_slice(now);
                    content = later;
                }
            }
            Method::Deflate(searcher) => searcher.write(content, &mut self.bits, out),
            Method::Blocks { searcher, parallel, room } => {
                while !content.is_empty() {
                    if *room == 0 {
                        searcher.finish(false, &mut self.bits, out);
                        pad(&mut self.bits, out);
                        // Threads know nothing of each other but the content.
                        if *parallel {
                            searcher.enter_again();
                        }
                        *room = PIGZ_BLOCK;
                    }
                    let (now, later) = content.split_at(content.len().min(*room));
                    searcher.write(now, &mut self.bits, out);
                    *room -= now.len();
                    content = later;
                }
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        match &mut self.method {
            Method::Store(block) => store(block, true, &mut self.bits, out),
            Method::Deflate(searcher) | Method::Blocks { searcher, .. } => {
                searcher.finish(true, &mut self.bits, out)
            }
        }
    }
}

/// Goes to a byte boundary as pigz does: with empty fixed blocks of ten bits, or an empty stored block if those cannot
/// get there.
fn pad(bits: &mut BitWriter, out: &mut Vec<u8>) {
    const EMPTY_FIXED: (u32, u32) = (0b10, 10);
    if bits.loose_bits() % 2 == 1 {
        store(&[], false, bits, out);
    }
    while bits.loose_bits() > 0 {
        bits.put(EMPTY_FIXED.0, EMPTY_FIXED.1, out);
    }
}
