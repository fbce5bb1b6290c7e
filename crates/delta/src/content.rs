//! Content that is read at any place, wherever it is kept.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

/// Bytes that can be read at any place.
pub(crate) trait Content {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Fills `buffer` with the bytes from `at` on; [`io::ErrorKind::UnexpectedEof`] when there are not so many.
    fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Content for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl<C: Content + ?Sized> Content for &mut C {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(at, buffer)
    }
}

/// A part of some content, as content of its own.
#[derive(Debug)]
pub(crate) struct Part<C> {
    inner: C,
    range: Range<u64>,
}

impl<C: Content> Part<C> {
    /// The bytes of `inner` in `range`, which lies in it.
    pub(crate) fn new(inner: C, range: Range<u64>) -> Self {
        Self { inner, range }
    }
}

impl<C: Content> Content for Part<C> {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = self.range.start.checked_add(at).ok_or(io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len() as u64).filter(|end| *end <= self.range.end);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.inner.read_at(start, buffer)
    }
}

impl<C: Content> Read for Part<C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(usize::try_from(self.len()).unwrap_or(usize::MAX));
        self.inner.read_at(self.range.start, &mut buffer[..len])?;
        self.range.start += len as u64;
        Ok(len)
    }
}

/// Content in something that can seek, through a few buffers that serve reads near each other.
#[derive(Debug)]
pub(crate) struct Seekable<S> {
    inner: S,
    len: u64,
    /// By the place of what they hold, of which each place has one only.
    buffers: Vec<Buffer>,
}

/// What was read at one place.
#[derive(Debug, Default)]
struct Buffer {
    start: u64,
    bytes: Vec<u8>,
}

/// How much is read at once.
const BLOCK: usize = 16 << 10;

/// How many buffers there are: 4 MiB in all.
const BUFFERS: usize = 256;

impl<S: Read + Seek> Seekable<S> {
    pub(crate) fn new(mut inner: S) -> io::Result<Self> {
        let len = inner.seek(SeekFrom::End(0))?;
        Ok(Self { inner, len, buffers: (0..BUFFERS).map(|_| Buffer::default()).collect() })
    }

    /// Copies what is in the block of `at`, from there on, and says how much that was.
    fn copy(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let block = at / BLOCK as u64;
        let buffer = &mut self.buffers[(block % BUFFERS as u64) as usize];
        let start = block * BLOCK as u64;
        if buffer.start != start || buffer.bytes.is_empty() {
            buffer.bytes.resize((self.len - start).min(BLOCK as u64) as usize, 0);
            buffer.start = start;
            let read = self.inner.seek(SeekFrom::Start(start));
            let read = read.and_then(|_| self.inner.read_exact(&mut buffer.bytes));
            read.inspect_err(|_| buffer.bytes.clear())?;
        }
        let held = &buffer.bytes[(at - start) as usize..];
        let len = held.len().min(bytes.len());
        bytes[..len].copy_from_slice(&held[..len]);
        Ok(len)
    }
}

impl<S: Read + Seek> Content for Seekable<S> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, mut at: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        if at.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if buffer.len() > BLOCK {
            self.inner.seek(SeekFrom::Start(at))?;
            return self.inner.read_exact(buffer);
        }
        while !buffer.is_empty() {
            let len = self.copy(at, buffer)?;
            at += len as u64;
            buffer = &mut buffer[len..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_read_the_same(reads in proptest::collection::vec((0..300_000_u64, 0..100_000_usize), 1..20)) {
            let bytes: Vec<u8> = (0..250_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let mut seekable = Seekable::new(io::Cursor::new(&bytes)).unwrap();
            let mut slice = &bytes[..];
            prop_assert_eq!(Content::len(&slice), seekable.len());
            for (at, len) in reads {
                let (mut one, mut two) = (vec![0; len], vec![0; len]);
                let ends = [slice.read_at(at, &mut one), seekable.read_at(at, &mut two)];
                prop_assert_eq!(ends[0].is_ok(), ends[1].is_ok());
                prop_assert_eq!(ends[0].is_ok(), at + len as u64 <= 250_000);
                if ends[0].is_ok() {
                    prop_assert_eq!(one, two);
                }
            }
        }
    }
}
