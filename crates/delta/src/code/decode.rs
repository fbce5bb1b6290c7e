//! Reading the content section: the new content, sequentially.

use std::io::{self, Read};

use super::Reference;
use super::arith::{self, Coder};
use super::bulk::{Decompressor, MAX_PART};
use super::pace::Pace;
use super::piece::{Channel, Lane, REGION, Stage};
use crate::error::Error;
use crate::format::codec::read_varint;
use crate::matching::Match;

/// Reads what is coded from a source.
#[derive(Debug)]
struct Reading<R> {
    coder: arith::Decoder<R>,
    /// By lane.
    decompressors: [Option<Decompressor>; 2],
    part: Vec<u8>,
}

impl<R: Read> Reading<R> {
    /// Reads a number that is not coded.
    fn number(&mut self) -> Result<u64, Error> {
        read_varint(&mut self.coder.plain())
    }
}

impl<R: Read> Coder for Reading<R> {
    #[inline]
    fn code(&mut self, bit: bool, one: u16) -> bool {
        self.coder.code(bit, one)
    }
}

impl<R: Read> Channel for Reading<R> {
    fn bulk(&mut self, lane: Lane, bytes: &mut [u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let len = usize::try_from(self.number()?).ok().filter(|len| *len <= MAX_PART);
        self.part.resize(len.ok_or(Error::Format("a part in bulk is too long"))?, 0);
        self.coder.plain().read_exact(&mut self.part)?;
        let decompressor = match &mut self.decompressors[lane as usize] {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new(lane)?),
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
    /// Whether this run of regions is in bulk, and how many are left of it.
    in_bulk: bool,
    left: u64,
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
        let [code] = head;
        let pace = Pace::from_code(code).ok_or(Error::Format("a content section of another version"))?;
        let coder = arith::Decoder::new(source);
        Ok(Self {
            reading: Reading { coder, decompressors: [None, None], part: Vec::new() },
            stage: Stage::new(matches, reference, new_len, pace)?,
            // Before the first run, which is not.
            in_bulk: true,
            left: 0,
            buffer: Vec::with_capacity(REGION),
            at: 0,
            ended: false,
        })
    }

    /// Decodes the next region into the buffer; leaves it empty at the end.
    fn advance(&mut self) -> Result<(), Error> {
        self.buffer.clear();
        self.at = 0;
        let len = self.stage.region();
        if len == 0 {
            if !self.ended && !self.reading.coder.at_end()? {
                return Err(Error::Format("bytes behind the content"));
            }
            self.ended = true;
            return Ok(());
        }
        if self.left == 0 {
            self.begin_run()?;
        }
        self.left -= 1;
        self.buffer.resize(len, 0);
        let coded = if self.in_bulk {
            self.stage.bulk(&mut self.reading, &mut self.buffer)
        } else {
            self.stage.model(&mut self.reading, &mut self.buffer)
        };
        let coded = coded.and_then(|()| self.reading.coder.check());
        coded.inspect_err(|_| self.buffer.clear())
    }

    /// Reads how long the next run is. Only the very first may be empty.
    fn begin_run(&mut self) -> Result<(), Error> {
        let regions = self.stage.regions();
        for may_be_empty in [regions.done == 0, false] {
            self.in_bulk = !self.in_bulk;
            self.left = self.reading.number()?;
            if self.left > regions.left || self.left == 0 && !may_be_empty {
                break;
            }
            if self.left > 0 {
                if !self.in_bulk {
                    self.reading.coder.start();
                }
                return Ok(());
            }
        }
        Err(Error::Format("a run of regions that cannot be"))
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
