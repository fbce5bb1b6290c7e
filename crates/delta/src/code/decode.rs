//! Reading the content section: the new content, sequentially.

use std::io::{self, Read};

use super::Reference;
use super::arith::{self, Coder};
use super::bulk::{Decompressor, MAX_PART};
use super::encode::{EXPONENT_BITS, LEAST_BULK, NO_BULK};
use super::pace::Pace;
use super::piece::{Channel, PIECE, Stage};
use crate::error::Error;
use crate::matching::Match;

/// Reads what is coded from a source.
#[derive(Debug)]
struct Reading<R> {
    coder: arith::Decoder<R>,
    /// Whether a stretch of decisions was begun.
    stretch: bool,
    decompressor: Option<Decompressor>,
    part: Vec<u8>,
}

impl<R: Read> Coder for Reading<R> {
    #[inline]
    fn code(&mut self, bit: bool, one: u16) -> bool {
        if !self.stretch {
            self.stretch = true;
            self.coder.start();
        }
        self.coder.code(bit, one)
    }
}

impl<R: Read> Channel for Reading<R> {
    fn bulk(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.stretch = false;
        let mut len = [0; 4];
        self.coder.read_plain(&mut len)?;
        let len = u32::from_be_bytes(len) as usize;
        if len > MAX_PART {
            return Err(Error::Format("a part in bulk is too long"));
        }
        self.part.resize(len, 0);
        self.coder.read_plain(&mut self.part)?;
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new()?),
        };
        decompressor.fill(&self.part, bytes)
    }
}

/// The new content, read from a content section.
///
/// Resident are at most 80 MiB with [`super::MAX_MATCHES`] matches, besides what the reference holds. Damage in the
/// section gives [`Error::Format`] (inside an [`io::Error`]) or wrong bytes, of which there are never more than
/// `new_len`; after an error the rest cannot be read.
#[derive(Debug)]
pub(crate) struct Decoder<R, F, M> {
    reading: Reading<R>,
    stage: Stage<M, F>,
    buffer: Vec<u8>,
    /// What of the buffer was not read yet.
    at: usize,
    ended: bool,
}

impl<R: Read, F: Reference, M: AsRef<[Match]>> Decoder<R, F, M> {
    /// Reads the new content, of `new_len` bytes, from `source`, which ends with the section.
    ///
    /// The matches are those that the section was made with, or the bytes are wrong. Fails when they do not fit the
    /// contents, or the section is of another version.
    pub(crate) fn new(matches: M, mut source: R, reference: F, new_len: u64) -> Result<Self, Error> {
        let mut head = [0];
        match source.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Error::Format("no content section"));
            }
            other => other?,
        }
        let [head] = head;
        let exponent = head & ((1 << EXPONENT_BITS) - 1);
        let pace = Pace::from_code(head >> EXPONENT_BITS);
        let Some(pace) = pace.filter(|_| (LEAST_BULK..=NO_BULK).contains(&exponent)) else {
            return Err(Error::Format("a content section of another version"));
        };
        let coder = arith::Decoder::new(source);
        Ok(Self {
            reading: Reading { coder, stretch: false, decompressor: None, part: Vec::new() },
            stage: Stage::new(matches, reference, new_len, 1 << exponent, pace)?,
            buffer: Vec::with_capacity(PIECE),
            at: 0,
            ended: false,
        })
    }

    /// Decodes the next piece into the buffer; leaves it empty at the end.
    fn advance(&mut self) -> Result<(), Error> {
        self.buffer.clear();
        self.at = 0;
        let Some(piece) = self.stage.piece() else {
            if !self.ended && !self.reading.coder.at_end()? {
                return Err(Error::Format("bytes behind the content"));
            }
            self.ended = true;
            return Ok(());
        };
        self.buffer.resize(piece.len, 0);
        let coded = self.stage.code(&mut self.reading, piece, &mut self.buffer);
        let coded = coded.and_then(|()| self.reading.coder.check());
        coded.inspect_err(|_| self.buffer.clear())
    }
}

impl<R: Read, F: Reference, M: AsRef<[Match]>> Read for Decoder<R, F, M> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() && !buffer.is_empty() {
            self.advance()?;
        }
        let len = buffer.len().min(self.buffer.len() - self.at);
        buffer[..len].copy_from_slice(&self.buffer[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}
