//! The bytes of a token stream; `docs/delta-format.md` describes them.
//!
//! Everything is whole bytes, and nothing depends on what came before it: the same tokens are the same bytes wherever
//! they stand, which is what lets a matcher find them again.

use std::io::{Read, Write};

use super::deflate::{DYNAMIC, MIN_COPY};
use super::tables::{CodeLengths, Counts, Step};
use crate::error::Error;
use crate::stream::{BUFFER, read_some};

/// What begins at the top of a stream.
const END: u8 = 0;
const MEMBER: u8 = 1;
const TAIL: u8 = 2;

/// The first byte of a token. Below [`LONG_RUN`]: that many literals follow. From [`COPY`] on: a copy, whose distance
/// fills the other 15 bits of two bytes.
const ESCAPE: u8 = 0;
const LONG_RUN: u8 = 0x7f;
const COPY: u8 = 0x80;

/// What follows an escape.
const END_OF_BLOCK: u8 = 0;
const LONGEST_AS_ALMOST: u8 = 1;

/// The longest run of literals, tail piece, stored block and gzip header: what two bytes can count.
pub(super) const MAX_RUN: usize = 0xffff;

/// How many bytes a writer gathers before it passes them on.
const FLUSH_AT: usize = BUFFER;

/// What a [`TokenWriter`] may write between two looks at how full it is: a run and its tokens on both sides.
const SLACK: usize = MAX_RUN + 16;

/// The type of a block, and whether it is the last of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) last: bool,
    /// Stored, fixed or dynamic.
    pub(super) kind: u8,
}

/// Writes a token stream of at most a given size.
#[derive(Debug)]
pub(super) struct TokenWriter<W> {
    sink: W,
    buffer: Box<[u8]>,
    at: usize,
    /// Where the count of the open run of literals will stand; meaningful inside a block only.
    run: usize,
    written: u64,
    limit: u64,
}

impl<W: Write> TokenWriter<W> {
    pub(super) fn new(sink: W, limit: u64) -> Self {
        let buffer = vec![0; FLUSH_AT + SLACK].into_boxed_slice();
        Self { sink, buffer, at: 0, run: 0, written: 0, limit }
    }

    /// Begins a member with its whole gzip header, at most [`MAX_RUN`] bytes.
    pub(super) fn member(&mut self, header: &[u8]) -> Result<(), Error> {
        self.counted(MEMBER, header)
    }

    /// Writes a piece of what follows the last member, at most [`MAX_RUN`] bytes.
    pub(super) fn tail(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.counted(TAIL, piece)
    }

    /// Ends the stream and says how long it is.
    pub(super) fn finish(mut self) -> Result<u64, Error> {
        self.raw(&[END])?;
        self.write_out()?;
        self.sink.flush()?;
        Ok(self.written)
    }

    pub(super) fn block(&mut self, block: Block) -> Result<(), Error> {
        self.raw(&[u8::from(block.last) | block.kind << 1])
    }

    /// Writes the counts of a dynamic block and the lengths of its length code; the steps follow.
    pub(super) fn tables(&mut self, counts: Counts, length_code: &[u8]) -> Result<(), Error> {
        self.raw(&[counts.litlen, counts.distance, counts.order])?;
        self.raw(length_code)
    }

    pub(super) fn step(&mut self, step: Step) -> Result<(), Error> {
        self.raw(&[step.to_byte()])
    }

    /// Begins a stored block; its content follows as bytes.
    pub(super) fn stored(&mut self, padding: u8, len: u16) -> Result<(), Error> {
        self.raw(&[padding])?;
        self.raw(&len.to_be_bytes())
    }

    /// Writes bytes as they are: content of a stored block, and what ends a member.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for piece in bytes.chunks(MAX_RUN) {
            self.make_room()?;
            self.buffer[self.at..][..piece.len()].copy_from_slice(piece);
            self.at += piece.len();
        }
        Ok(())
    }

    /// Goes from the head of a compressed block to its tokens.
    pub(super) fn open_run(&mut self) -> Result<(), Error> {
        self.make_room()?;
        self.run = self.at;
        self.at += 1;
        Ok(())
    }

    #[inline(always)]
    pub(super) fn literal(&mut self, byte: u8) -> Result<(), Error> {
        if self.at - self.run > MAX_RUN {
            self.close_run();
            self.open_run()?;
        }
        self.buffer[self.at] = byte;
        self.at += 1;
        Ok(())
    }

    /// Writes a copy of `length` plus [`MIN_COPY`] bytes from `distance` plus one bytes back.
    #[inline(always)]
    pub(super) fn copy(&mut self, length: u8, distance: u16) -> Result<(), Error> {
        self.close_run();
        let [high, low] = distance.to_be_bytes();
        self.buffer[self.at..][..3].copy_from_slice(&[COPY | high, low, length]);
        self.at += 3;
        self.open_run()
    }

    /// Writes a copy of 258 bytes that was coded with the symbol below the one for 258.
    pub(super) fn longest_as_almost(&mut self, distance: u16) -> Result<(), Error> {
        self.close_run();
        self.raw(&[ESCAPE, LONGEST_AS_ALMOST])?;
        self.raw(&distance.to_be_bytes())?;
        self.open_run()
    }

    pub(super) fn end_of_block(&mut self) -> Result<(), Error> {
        self.close_run();
        self.raw(&[ESCAPE, END_OF_BLOCK])
    }

    /// Fills in the count of the open run, or takes its place back when it is empty.
    #[inline(always)]
    fn close_run(&mut self) {
        let count = self.at - self.run - 1;
        if count == 0 {
            self.at = self.run;
        } else if count < usize::from(LONG_RUN) {
            self.buffer[self.run] = count as u8;
        } else {
            self.close_long_run(count);
        }
    }

    #[cold]
    fn close_long_run(&mut self, count: usize) {
        // The run was begun with one byte for its count, but needs three.
        let first = self.run + 1;
        self.buffer.copy_within(first..self.at, first + 2);
        self.at += 2;
        let [high, low] = (count as u16).to_be_bytes();
        self.buffer[self.run..][..3].copy_from_slice(&[LONG_RUN, high, low]);
    }

    fn counted(&mut self, what: u8, bytes: &[u8]) -> Result<(), Error> {
        debug_assert!(bytes.len() <= MAX_RUN, "a count has two bytes");
        self.raw(&[what])?;
        self.raw(&(bytes.len() as u16).to_be_bytes())?;
        self.raw(bytes)
    }

    #[inline(always)]
    fn make_room(&mut self) -> Result<(), Error> {
        if self.at >= FLUSH_AT { self.write_out() } else { Ok(()) }
    }

    #[cold]
    fn write_out(&mut self) -> Result<(), Error> {
        self.written += self.at as u64;
        if self.written > self.limit {
            return Err(Error::Limit { what: "the token stream", limit: self.limit });
        }
        self.sink.write_all(&self.buffer[..self.at])?;
        self.at = 0;
        Ok(())
    }
}

/// What stands at the top of a token stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The stream ends.
    End,
    /// A member begins with a header of that many bytes.
    Member(usize),
    /// That many bytes follow the last member.
    Tail(usize),
}

/// A token of a compressed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A copy of `length` plus [`MIN_COPY`] bytes from `distance` plus one bytes back.
    Copy { length: u8, distance: u16 },
    /// The block ends.
    EndOfBlock,
    /// That many literals follow as bytes.
    Literals(usize),
    /// A copy of 258 bytes in the longer of its two spellings.
    LongestAsAlmost { distance: u16 },
}

/// Reads a token stream.
#[derive(Debug)]
pub(super) struct TokenReader<R> {
    source: R,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
}

impl<R: Read> TokenReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: vec![0; BUFFER].into_boxed_slice(), at: 0, end: 0 }
    }

    pub(super) fn part(&mut self) -> Result<Part, Error> {
        match self.byte()? {
            END => Ok(Part::End),
            MEMBER => Ok(Part::Member(self.count()?)),
            TAIL => Ok(Part::Tail(self.count()?)),
            _ => Err(Error::Format("a token stream has an unknown part")),
        }
    }

    /// Fails unless the stream has ended.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        if self.at == self.end && !self.read_more()? {
            return Ok(());
        }
        Err(Error::Format("a token stream goes on behind its end"))
    }

    pub(super) fn block(&mut self) -> Result<Block, Error> {
        let byte = self.byte()?;
        let block = Block { last: byte & 1 != 0, kind: byte >> 1 };
        if block.kind > DYNAMIC { Err(Error::Format("an unknown type of block")) } else { Ok(block) }
    }

    pub(super) fn counts(&mut self) -> Result<Counts, Error> {
        let counts = Counts { litlen: self.byte()?, distance: self.byte()?, order: self.byte()? };
        for (count, bits) in [counts.litlen, counts.distance, counts.order].into_iter().zip(Counts::BITS) {
            if count >> bits != 0 {
                return Err(Error::Format("a count that has too many bits"));
            }
        }
        Ok(counts)
    }

    /// Reads the steps that build the code lengths of a block and passes each on.
    pub(super) fn steps(
        &mut self,
        counts: Counts,
        mut each: impl FnMut(Step) -> Result<(), Error>,
    ) -> Result<CodeLengths, Error> {
        let mut lengths = CodeLengths::new(counts);
        while !lengths.complete() {
            let step = Step::from_byte(self.byte()?).map_err(Error::Format)?;
            lengths.push(step).map_err(Error::Format)?;
            each(step)?;
        }
        Ok(lengths)
    }

    #[inline(always)]
    pub(super) fn token(&mut self) -> Result<Token, Error> {
        match self.byte()? {
            ESCAPE => self.escaped(),
            LONG_RUN => Ok(Token::Literals(self.count()?)),
            high @ COPY.. => {
                let distance = u16::from_be_bytes([high & !COPY, self.byte()?]);
                Ok(Token::Copy { length: self.byte()?, distance })
            }
            count => Ok(Token::Literals(usize::from(count))),
        }
    }

    fn escaped(&mut self) -> Result<Token, Error> {
        match self.byte()? {
            END_OF_BLOCK => Ok(Token::EndOfBlock),
            LONGEST_AS_ALMOST => {
                let distance = u16::from_be_bytes([self.byte()?, self.byte()?]);
                if distance >> 15 != 0 {
                    return Err(Error::Format("a distance that is too far"));
                }
                Ok(Token::LongestAsAlmost { distance })
            }
            _ => Err(Error::Format("an unknown token")),
        }
    }

    /// The bytes that come next, at least one and at most `most`.
    pub(super) fn bytes(&mut self, most: usize) -> Result<&[u8], Error> {
        if self.at == self.end && !self.read_more()? {
            return Err(Error::Format("a token stream ends too early"));
        }
        let start = self.at;
        self.at = self.end.min(start.saturating_add(most));
        Ok(&self.buffer[start..self.at])
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        if self.at < self.end {
            let byte = self.buffer[self.at];
            self.at += 1;
            return Ok(byte);
        }
        Ok(self.bytes(1)?[0])
    }

    /// Reads a count of two bytes.
    pub(super) fn count(&mut self) -> Result<usize, Error> {
        Ok(usize::from(u16::from_be_bytes([self.byte()?, self.byte()?])))
    }

    #[cold]
    fn read_more(&mut self) -> Result<bool, Error> {
        self.at = 0;
        self.end = 0;
        self.end = read_some(&mut self.source, &mut self.buffer)?;
        Ok(self.end > 0)
    }
}

// A copy's length minus the shortest one fits a byte.
const _: () = assert!(258 - MIN_COPY == 0xff);
