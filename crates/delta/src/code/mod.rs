//! The entropy stage: matches, differences and literals as few bits.
//!
//! Given the old content, the matches and the new content, [`encode_matches`] and [`encode_content`] write two
//! sections; [`decode_matches`] and [`Decoder`] give the new content back, sequentially and in bounded memory. The
//! matches come first because everything after them, [`Reference`] too, is predicted with all of them in view.
//!
//! What is coded are binary decisions, each with a probability that several models predict together (context mixing,
//! as in the PAQ family of compressors). Inside a match the decisions are whether the next byte is as expected, and
//! if not, which; between matches they are the bits of the bytes. Where too much has changed for that to end in time,
//! differences and bytes are compressed by zstd instead. Everything is integer arithmetic of fixed width, so both ends compute the
//! same on every platform.

mod arith;
mod bulk;
mod byte;
mod copy;
mod decision;
mod decode;
mod encode;
mod field;
mod history;
mod literal;
mod logistic;
mod matches;
mod mixer;
mod number;
mod pace;
mod piece;
mod plan;
#[cfg(test)]
mod tests;

pub(crate) use decode::Decoder;
pub(crate) use encode::{Effort, encode_content, encode_content_within};
pub(crate) use matches::{decode_matches, encode_matches};

use std::io;

use crate::content::Content;

/// The bytes that are expected in the new content.
pub(crate) trait Reference {
    /// The length of the old content.
    fn old_len(&self) -> u64;

    /// Fills `buffer` with what is expected at `new` of the new content, given that `old` of the old content is aligned
    /// there. The bytes lie within the old content, but not always within one match.
    fn read(&mut self, new: u64, old: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Expects the old bytes as they are.
#[derive(Debug)]
pub(crate) struct Unchanged<C>(pub(crate) C);

impl<C: Content> Reference for Unchanged<C> {
    fn old_len(&self) -> u64 {
        self.0.len()
    }

    fn read(&mut self, _: u64, old: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(old, buffer)
    }
}
