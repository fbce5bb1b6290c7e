//! Readers and writers that hash and measure what passes through them.

use std::io::{self, Read, Seek, Write};

use deltaport_oci::{Algorithm, Digest, Hasher};

use crate::error::Error;
use crate::format::Blob;

/// What blobs are read from.
pub(crate) trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

/// What content is kept on.
pub(crate) trait Scratch: Read + Write + Seek + Send {}

impl<T: Read + Write + Seek + Send> Scratch for T {}

/// How much is read or copied at once.
pub(crate) const BUFFER: usize = 64 << 10;

/// Digest and size of what has passed.
#[derive(Debug)]
struct Tally {
    hasher: Hasher,
    size: u64,
}

impl Tally {
    fn new(algorithm: Algorithm) -> Self {
        Self { hasher: Hasher::new(algorithm), size: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn finish(self) -> Blob {
        Blob { digest: self.hasher.finish(), size: self.size }
    }
}

/// A reader that hashes what is read through it.
#[derive(Debug)]
pub(crate) struct Hashing<R> {
    inner: R,
    tally: Tally,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R, algorithm: Algorithm) -> Self {
        Self { inner, tally: Tally::new(algorithm) }
    }

    /// Reads what is left and says what the whole was.
    pub(crate) fn finish(mut self) -> Result<Blob, Error> {
        copy(&mut self, &mut io::sink())?;
        Ok(self.tally.finish())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        // A reader that claims more than it was asked for is broken, but must not bring this crate down.
        let bytes = buffer.get(..read).ok_or(io::ErrorKind::InvalidData)?;
        self.tally.take(bytes);
        Ok(read)
    }
}

/// A writer that expects one blob: it hashes what it passes on and refuses the first byte too many.
#[derive(Debug)]
pub(crate) struct Expecting<W> {
    inner: W,
    tally: Tally,
    expected: Blob,
}

impl<W: Write> Expecting<W> {
    pub(crate) fn new(inner: W, expected: Blob) -> Self {
        Self { inner, tally: Tally::new(expected.digest.algorithm()), expected }
    }

    /// Flushes, and fails unless exactly the expected blob was written.
    pub(crate) fn finish(mut self) -> Result<(Digest, u64), Error> {
        self.inner.flush()?;
        let written = self.tally.finish();
        if written.size != self.expected.size {
            return Err(Error::OutputMismatch("it is shorter than its target"));
        }
        if written.digest != self.expected.digest {
            return Err(Error::OutputMismatch("its digest is another"));
        }
        Ok((written.digest, written.size))
    }
}

impl<W: Write> Write for Expecting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.expected.size - self.tally.size {
            return Err(Error::OutputMismatch("it is longer than its target").into());
        }
        // Everything or nothing: the hasher must never be behind or ahead of the inner writer.
        self.inner.write_all(bytes)?;
        self.tally.take(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A writer that refuses the first byte above a limit.
#[derive(Debug)]
pub(crate) struct Limited<W> {
    inner: W,
    limit: u64,
    left: u64,
}

impl<W: Write> Limited<W> {
    pub(crate) fn new(inner: W, limit: u64) -> Self {
        Self { inner, limit, left: limit }
    }

    /// The inner writer, and how many bytes could still have been written.
    pub(crate) fn finish(self) -> (W, u64) {
        (self.inner, self.left)
    }
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(Error::Limit { what: "opened content", limit: self.limit }.into());
        }
        self.inner.write_all(bytes)?;
        self.left -= bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads into `buffer`, again when a signal interrupts.
pub(crate) fn read_some(source: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    loop {
        match source.read(buffer) {
            Ok(read) if read <= buffer.len() => return Ok(read),
            Ok(_) => return Err(Error::Io(io::ErrorKind::InvalidData.into())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Copies everything and says how much it was.
pub(crate) fn copy(source: &mut impl Read, sink: &mut impl Write) -> Result<u64, Error> {
    let mut buffer = vec![0; BUFFER];
    let mut copied = 0;
    loop {
        let read = read_some(source, &mut buffer)?;
        if read == 0 {
            return Ok(copied);
        }
        sink.write_all(&buffer[..read])?;
        copied += read as u64;
    }
}
