//! The bit order of deflate over `std::io`: the first bit of a byte is its lowest.

use std::io::{Read, Write};

use crate::error::Error;
use crate::stream::{BUFFER, read_some};

/// How many bytes in front of the place of reading stay in the buffer, so that [`BitReader::align`] can step back over
/// what was already taken into the bit window.
const KEPT: usize = 8;

/// Reads bits, and between them whole bytes.
///
/// Bits wait in a 64-bit window. The window is filled eight bytes at once and may hold more of the input above its
/// `ready` bits than counted; filling it again ORs the same bits to the same places (variant 4 of Fabian Giesen's
/// "Reading bits in far too many ways").
#[derive(Debug)]
pub(super) struct BitReader<R> {
    source: R,
    buffer: Box<[u8]>,
    /// The bytes of the buffer that are not in the window yet.
    at: usize,
    end: usize,
    window: u64,
    ready: u32,
}

impl<R: Read> BitReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            buffer: vec![0; KEPT + BUFFER].into_boxed_slice(),
            at: KEPT,
            end: KEPT,
            window: 0,
            ready: 0,
        }
    }

    /// Makes sure that the window has at least 56 bits, or all that the input still has.
    #[inline(always)]
    pub(super) fn refill(&mut self) -> Result<(), Error> {
        let ahead = &self.buffer[self.at..self.end];
        let Some(bytes) = ahead.first_chunk() else {
            return self.refill_slowly();
        };
        self.window |= u64::from_le_bytes(*bytes) << self.ready;
        self.at += (63 - self.ready as usize) >> 3;
        self.ready |= 56;
        Ok(())
    }

    #[cold]
    fn refill_slowly(&mut self) -> Result<(), Error> {
        while self.ready < 56 && (self.at < self.end || self.read_more()?) {
            self.window |= u64::from(self.buffer[self.at]) << self.ready;
            self.at += 1;
            self.ready += 8;
        }
        Ok(())
    }

    /// Gets more bytes into an empty buffer; false at the end of the input.
    fn read_more(&mut self) -> Result<bool, Error> {
        self.buffer.copy_within(self.end - KEPT..self.end, 0);
        self.at = KEPT;
        self.end = KEPT;
        self.end += read_some(&mut self.source, &mut self.buffer[KEPT..])?;
        Ok(self.at < self.end)
    }

    /// The next bits, first lowest; those above [`ready`](Self::ready) have no meaning.
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        self.window
    }

    /// How many bits can be consumed before the next refill.
    #[inline(always)]
    pub(super) fn ready(&self) -> u32 {
        self.ready
    }

    /// Consumes bits that [`peek`](Self::peek) showed.
    #[inline(always)]
    pub(super) fn consume(&mut self, count: u32) -> Result<(), Error> {
        self.ready = self.ready.checked_sub(count).ok_or(TRUNCATED)?;
        self.window >>= count;
        Ok(())
    }

    /// Takes `count` bits, at most 16, that a refill has made ready.
    #[inline(always)]
    pub(super) fn take_ready(&mut self, count: u32) -> Result<u16, Error> {
        let bits = self.window & ((1 << count) - 1);
        self.consume(count)?;
        Ok(bits as u16)
    }

    /// Takes `count` bits, at most 16.
    pub(super) fn take(&mut self, count: u32) -> Result<u16, Error> {
        self.refill()?;
        self.take_ready(count)
    }

    /// Goes to the next byte boundary and says which bits were skipped.
    pub(super) fn align(&mut self) -> Result<u8, Error> {
        let padding = self.take_ready(self.ready % 8)?;
        // Whole bytes go back to the buffer, where `bytes` takes them from.
        self.at -= self.ready as usize / 8;
        self.ready = 0;
        self.window = 0;
        Ok(padding as u8)
    }

    /// The bytes that come next, at least one unless the input has ended and at most `most`; only on a byte boundary.
    pub(super) fn bytes(&mut self, most: usize) -> Result<&[u8], Error> {
        debug_assert_eq!(self.ready, 0, "bytes are taken on a boundary only");
        if self.at == self.end && !self.read_more()? {
            return Ok(&[]);
        }
        let start = self.at;
        self.at = self.end.min(start.saturating_add(most));
        Ok(&self.buffer[start..self.at])
    }

    /// The next byte, `None` at the end of the input; only on a byte boundary.
    pub(super) fn byte(&mut self) -> Result<Option<u8>, Error> {
        Ok(self.bytes(1)?.first().copied())
    }
}

/// What a blob is that ends too early.
pub(super) const TRUNCATED: Error = Error::Unrepresentable("it ends inside a gzip member");

/// Writes bits, and between them whole bytes.
#[derive(Debug)]
pub(super) struct BitWriter<W> {
    sink: W,
    buffer: Box<[u8]>,
    at: usize,
    window: u64,
    /// Bits in the window; below 8 between calls.
    waiting: u32,
}

impl<W: Write> BitWriter<W> {
    pub(super) fn new(sink: W) -> Self {
        Self { sink, buffer: vec![0; BUFFER].into_boxed_slice(), at: 0, window: 0, waiting: 0 }
    }

    /// Writes the lowest `count` bits of `bits`, at most 56; the bits above must be 0.
    #[inline(always)]
    pub(super) fn put(&mut self, bits: u64, count: u32) -> Result<(), Error> {
        debug_assert!(count <= 56 && bits >> count == 0, "{bits:#x} does not have {count} bits");
        self.window |= bits << self.waiting;
        self.waiting += count;
        if self.buffer.len() - self.at < 8 {
            self.write_out()?;
        }
        self.buffer[self.at..][..8].copy_from_slice(&self.window.to_le_bytes());
        self.at += (self.waiting >> 3) as usize;
        // At most 7 + 56 bits wait, so this shifts by 56 at most.
        self.window >>= self.waiting & !7;
        self.waiting &= 7;
        Ok(())
    }

    /// Goes to the next byte boundary over bits with the value `padding`; fails when it does not fit.
    pub(super) fn align(&mut self, padding: u8) -> Result<(), Error> {
        let count = (8 - self.waiting) % 8;
        if u32::from(padding) >> count != 0 {
            return Err(Error::Format("padding that does not fit"));
        }
        self.put(u64::from(padding), count)
    }

    /// Writes whole bytes; only on a byte boundary.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        debug_assert_eq!(self.waiting, 0, "bytes are written on a boundary only");
        if bytes.len() > self.buffer.len() - self.at {
            self.write_out()?;
        }
        match self.buffer[self.at..].get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.at += bytes.len();
            }
            None => self.sink.write_all(bytes)?,
        }
        Ok(())
    }

    /// Writes what waits; only on a byte boundary.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        debug_assert_eq!(self.waiting, 0, "a blob ends on a boundary");
        self.write_out()?;
        Ok(self.sink.flush()?)
    }

    #[cold]
    fn write_out(&mut self) -> Result<(), Error> {
        self.sink.write_all(&self.buffer[..self.at])?;
        self.at = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that gives one byte at a time and is interrupted between them.
    struct Drip<'a>(&'a [u8], bool);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let count = self.0.len().min(buffer.len()).min(1);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes);
        for value in 0..60_000_u64 {
            writer.put(value & 0x1fff, 13).unwrap();
        }
        writer.put(1, 3).unwrap();
        writer.align(0b10101).unwrap();
        writer.bytes(&[7; 100_000]).unwrap();
        writer.put(1, 1).unwrap();
        assert!(matches!(writer.align(0x80), Err(Error::Format(_))));
        writer.align(0).unwrap();
        writer.finish().unwrap();

        let mut reader = BitReader::new(Drip(&bytes, false));
        for value in 0..60_000_u64 {
            assert_eq!(u64::from(reader.take(13).unwrap()), value & 0x1fff);
        }
        assert_eq!((reader.take(3).unwrap(), reader.align().unwrap()), (1, 0b10101));
        for _ in 0..100_000 {
            assert_eq!(reader.byte().unwrap(), Some(7));
        }
        assert_eq!((reader.take(1).unwrap(), reader.align().unwrap()), (1, 0));
        assert_eq!(reader.byte().unwrap(), None);
        assert!(matches!(reader.take(1), Err(Error::Unrepresentable(_))));
    }
}
