//! Opening what is compressed inside content.

use std::io::{self, Write};

use flate2::{Decompress, FlushDecompress, Status};

use super::Packed;
use crate::error::Error;

/// How much is inflated at once.
const BUFFER: usize = 64 << 10;

/// A writer of content that passes on the content unfolded.
pub(crate) struct Unfolder<'a, W> {
    inner: W,
    /// What is still to come; the first may have been begun.
    packed: &'a [Packed],
    /// How many bytes were taken.
    at: u64,
    inflate: Decompress,
    /// Whether the deflate stream that was begun has ended.
    ended: bool,
    /// How many of the next bytes go away.
    skip: u64,
    buffer: Vec<u8>,
}

const NOT_DEFLATE: Error = Error::Format("a base is not compressed where it is said to be");

impl<'a, W: Write> Unfolder<'a, W> {
    /// Inflates the stretches of `packed`, which are in order and do not overlap.
    pub(crate) fn new(inner: W, packed: &'a [Packed]) -> Self {
        Self {
            inner,
            packed,
            at: 0,
            inflate: Decompress::new(false),
            ended: false,
            skip: 0,
            buffer: vec![0; BUFFER],
        }
    }

    /// Fails unless all stretches were there.
    pub(crate) fn finish(self) -> Result<W, Error> {
        if !self.packed.is_empty() {
            return Err(Error::Format("a base ends before something that is compressed in it"));
        }
        Ok(self.inner)
    }

    /// Takes some of `bytes`, which begin inside `packed`, the first stretch, and says how many.
    fn unfold(&mut self, packed: Packed, bytes: &[u8]) -> Result<usize, Error> {
        let left = packed.start + packed.len - self.at;
        let bytes = &bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        let mut taken = 0;
        while taken < bytes.len() {
            if self.ended {
                return Err(NOT_DEFLATE);
            }
            taken += self.step(&bytes[taken..])?;
        }
        self.at += taken as u64;
        if taken as u64 == left {
            self.end()?;
        }
        Ok(taken)
    }

    /// Inflates some of `bytes` and says how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(bytes, &mut self.buffer, FlushDecompress::None);
        let status = status.map_err(|_| NOT_DEFLATE)?;
        let taken = (self.inflate.total_in() - before.0) as usize;
        let made = (self.inflate.total_out() - before.1) as usize;
        self.inner.write_all(&self.buffer[..made])?;
        self.ended = status == Status::StreamEnd;
        if taken == 0 && made == 0 && !self.ended {
            return Err(NOT_DEFLATE);
        }
        Ok(taken)
    }

    /// All bytes of the first stretch were taken; writes what is left of its content.
    fn end(&mut self) -> Result<(), Error> {
        while !self.ended {
            self.step(&[])?;
        }
        self.inflate.reset(false);
        self.ended = false;
        self.skip = self.packed[0].tail;
        self.packed = &self.packed[1..];
        Ok(())
    }
}

impl<W: Write> Write for Unfolder<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.skip > 0 {
            let len = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= len as u64;
            self.at += len as u64;
            return Ok(len);
        }
        let Some(packed) = self.packed.first().copied() else {
            self.at += bytes.len() as u64;
            self.inner.write_all(bytes)?;
            return Ok(bytes.len());
        };
        if self.at >= packed.start {
            return Ok(self.unfold(packed, bytes)?);
        }
        let len = bytes.len().min(usize::try_from(packed.start - self.at).unwrap_or(usize::MAX));
        self.inner.write_all(&bytes[..len])?;
        self.at += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
