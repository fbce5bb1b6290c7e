//! Go's compress/flate up to 1.26: what docker, BuildKit, containerd, ko and crane write.
//!
//! [`Encoder`] writes the deflate body that one `Writer` of Go 1.19 to 1.26 writes for one stream: `Write` as often as
//! wanted, then `Close`. The gzip header and trailer around it are the caller's.
//!
//! The decisions are those of the Go Authors' compress/flate (BSD-3-Clause); the code is our own. There are four ways
//! to compress in it:
//!
//! | level | module | how |
//! |---|---|---|
//! | 0 | `whole` | stored blocks of 65535 bytes |
//! | -2 | `whole` | the same blocks without matches |
//! | 1 | `speed` | one candidate for each hash, in the manner of Snappy, over the same blocks |
//! | 2 to 9 | `chain` | hash chains over a sliding window; from 4 on with lazy matching |
//!
//! All of them hand their tokens to `block`, which chooses the type of each block and writes it. The Huffman codes of a
//! block are in `codes`, and how long they are is `huffman`'s. The constants of RFC 1951 are in `symbols`.

use super::Encode;
use block::BlockWriter;
use chain::Chain;
use speed::Speed;
use whole::Whole;

mod bits;
mod block;
mod chain;
mod codes;
mod huffman;
mod search;
mod speed;
mod symbols;
#[cfg(test)]
mod tests;
mod whole;

/// Writes what a `flate.Writer` of Go 1.19 to 1.26 writes for a stream that it is given in one call of `Write`; more calls
/// make a difference in Go only as `chain` says.
#[derive(Debug)]
pub(crate) struct Encoder {
    method: Method,
    blocks: BlockWriter,
}

#[derive(Debug)]
enum Method {
    Whole(Whole),
    Speed(Speed),
    Chain(Chain),
}

impl Encoder {
    /// An encoder at a level as Go counts them: -2 (`HuffmanOnly`), -1 (the default, which is 6) and 0 to 9; `None` for
    /// any other.
    pub(crate) fn new(level: i32) -> Option<Self> {
        let method = match level {
            -2 => Method::Whole(Whole::literals()),
            0 => Method::Whole(Whole::stored()),
            1 => Method::Speed(Speed::new()),
            -1 => Method::Chain(Chain::new(6)?),
            level => Method::Chain(Chain::new(level)?),
        };
        Some(Self { method, blocks: BlockWriter::default() })
    }
}

impl Encode for Encoder {
    fn write(&mut self, content: &[u8], out: &mut Vec<u8>) {
        match &mut self.method {
            Method::Whole(whole) => whole.write(content, &mut self.blocks, out),
            Method::Speed(speed) => speed.write(content, &mut self.blocks, out),
            Method::Chain(chain) => chain.write(content, &mut self.blocks, out),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        match &mut self.method {
            Method::Whole(whole) => whole.finish(&mut self.blocks, out),
            Method::Speed(speed) => speed.finish(&mut self.blocks, out),
            Method::Chain(chain) => chain.finish(&mut self.blocks, out),
        }
        self.blocks.end(out);
    }
}
