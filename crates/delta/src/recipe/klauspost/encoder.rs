//! How content is cut into blocks.

use super::block::{BlockWriter, MAX_STORED};
use super::lazy::Lazy;
use super::quick::Quick;
use super::tokens::Tokens;
use super::{Behaviour, Group, Level, Method};
use crate::recipe::Encode;

/// What is left at a flush and not longer than this is not searched for matches, in bytes.
const TOO_SHORT_TO_MATCH: usize = 127;

/// What is left at a flush and not longer than this is stored, in bytes.
const TOO_SHORT_FOR_CODES: usize = 32;

/// How much is coded at once without matches, in bytes.
const HUFFMAN_ONLY_BLOCK: usize = 32 << 10;

/// Writes a raw deflate stream, as the writers of `flate` and `gzip` do.
#[derive(Debug)]
pub(crate) struct Encoder {
    blocks: BlockWriter,
    state: State,
}

#[derive(Debug)]
enum State {
    Stored(Pending),
    HuffmanOnly(Pending),
    Lazy(Box<Lazy>),
    Quick { quick: Quick, tokens: Box<Tokens>, pending: Pending },
}

impl Encoder {
    pub(crate) fn new(group: Group, level: Level) -> Self {
        let behaviour = Behaviour::of(group, level);
        let (state, penalty) = match behaviour.method {
            // No block of codes is ever written.
            Method::Stored => (State::Stored(Pending::new(MAX_STORED)), 0),
            Method::HuffmanOnly => (State::HuffmanOnly(Pending::new(HUFFMAN_ONLY_BLOCK)), 10),
            Method::Quick(kind, pieces) => {
                let (quick, tokens) = (Quick::new(kind), Box::new(Tokens::new(pieces, MAX_STORED)));
                (State::Quick { quick, tokens, pending: Pending::new(MAX_STORED) }, 7)
            }
            Method::Lazy(effort) => (State::Lazy(Box::new(Lazy::new(effort))), 8),
        };
        Self { blocks: BlockWriter::new(behaviour.listing, penalty), state }
    }

    /// Begins another stream, whose first matches may be found in `dictionary`.
    pub(super) fn restart(&mut self, dictionary: &[u8]) {
        self.blocks.restart();
        match &mut self.state {
            State::Stored(pending) | State::HuffmanOnly(pending) => pending.bytes.clear(),
            State::Lazy(lazy) => lazy.restart(dictionary),
            State::Quick { quick, tokens, pending } => {
                pending.bytes.clear();
                quick.forget();
                quick.tokenize(dictionary, tokens);
                tokens.clear();
            }
        }
    }

    /// Writes all that was taken so far, up to a sync marker.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        self.write_rest(out);
        self.blocks.sync_marker(out);
    }

    fn write_rest(&mut self, out: &mut Vec<u8>) {
        let blocks = &mut self.blocks;
        match &mut self.state {
            State::Stored(pending) => {
                if !pending.bytes.is_empty() {
                    blocks.stored(&pending.bytes, out);
                }
                pending.bytes.clear();
            }
            State::HuffmanOnly(pending) => {
                if !pending.bytes.is_empty() {
                    blocks.literals(&pending.bytes, true, out);
                }
                pending.bytes.clear();
            }
            State::Lazy(lazy) => lazy.flush(blocks, out),
            State::Quick { quick, tokens, pending } => {
                let block = &pending.bytes[..];
                if block.len() > TOO_SHORT_TO_MATCH {
                    quick_block(quick, tokens, blocks, block, true, out);
                } else if !block.is_empty() {
                    if block.len() > TOO_SHORT_FOR_CODES {
                        blocks.literals(block, true, out);
                    } else {
                        blocks.stored(block, out);
                    }
                    quick.forget();
                }
                pending.bytes.clear();
            }
        }
    }
}

impl Encode for Encoder {
    fn write(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let blocks = &mut self.blocks;
        match &mut self.state {
            State::Stored(pending) => pending.push(content, |block| blocks.stored(block, out)),
            State::HuffmanOnly(pending) => pending.push(content, |block| blocks.literals(block, false, out)),
            State::Lazy(lazy) => lazy.write(content, blocks, out),
            State::Quick { quick, tokens, pending } => {
                pending.push(content, |block| quick_block(quick, tokens, blocks, block, false, out));
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.write_rest(out);
        self.blocks.end(out);
    }
}

/// Writes a block by a quick matcher. One that has few matches is not worth their codes.
fn quick_block(
    quick: &mut Quick,
    tokens: &mut Tokens,
    blocks: &mut BlockWriter,
    block: &[u8],
    flush: bool,
    out: &mut Vec<u8>,
) {
    quick.tokenize(block, tokens);
    if tokens.is_empty() {
        blocks.stored(block, out);
    } else if tokens.len() > block.len() - block.len() / 16 {
        blocks.literals(block, flush, out);
    } else {
        blocks.tokens(tokens, Some(block), flush, out);
    }
    tokens.clear();
}

/// Collects content until there is a whole block of it and more, since the last block is flushed even if it is whole.
#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    size: usize,
}

impl Pending {
    fn new(size: usize) -> Self {
        Self { bytes: Vec::with_capacity(size), size }
    }

    /// Adds `content` and gives every block that is known not to be the last one to `write`.
    fn push(&mut self, mut content: &[u8], mut write: impl FnMut(&[u8])) {
        while !content.is_empty() {
            if self.bytes.len() == self.size {
                write(&self.bytes);
                self.bytes.clear();
            }
            let (now, later) = content.split_at(content.len().min(self.size - self.bytes.len()));
            self.bytes.extend_from_slice(now);
            content = later;
        }
    }
}
