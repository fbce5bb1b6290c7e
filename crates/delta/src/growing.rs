//! Content that is read while it is still being written, so that opening the old layer, making the new content and
//! compressing it go on at the same time.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::stream::Scratch;

/// A scratch file that one thread fills, from its start to its end, and another reads.
pub(crate) struct Growing<'a> {
    state: Mutex<State<'a>>,
    /// Told when there is more, or when there will be no more.
    grown: Condvar,
    /// How long it will be.
    len: u64,
}

struct State<'a> {
    file: &'a mut dyn Scratch,
    written: u64,
    /// Whether the writer is gone.
    ended: bool,
    /// Whether nobody reads any more.
    abandoned: bool,
}

impl<'a> Growing<'a> {
    /// An empty `file` that will have `len` bytes.
    pub(crate) fn new(file: &'a mut dyn Scratch, len: u64) -> Self {
        let state = State { file, written: 0, ended: false, abandoned: false };
        Self { state: Mutex::new(state), grown: Condvar::new(), len }
    }

    /// The end that fills it. When this is dropped, what is not there will not come.
    pub(crate) fn writer(&self) -> Writer<'_, 'a> {
        Writer(self)
    }

    /// The end that reads it, and waits for what is not there yet.
    pub(crate) fn reader(&self) -> Result<Reader<'_, 'a>, Error> {
        Ok(Reader { growing: self, at: 0 })
    }

    /// Lets the writer fail from now on, with [`io::ErrorKind::BrokenPipe`].
    pub(crate) fn abandon(&self) {
        self.lock().abandoned = true;
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        // A thread that panicked has ended the writer, too.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Growing::writer`].
pub(crate) struct Writer<'g, 'a>(&'g Growing<'a>);

impl Write for Writer<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.abandoned {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let at = state.written;
        state.file.seek(SeekFrom::Start(at))?;
        let written = state.file.write(bytes)?;
        state.written += written as u64;
        drop(state);
        self.0.grown.notify_all();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().file.flush()
    }
}

impl Drop for Writer<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.grown.notify_all();
    }
}

/// See [`Growing::reader`].
pub(crate) struct Reader<'g, 'a> {
    growing: &'g Growing<'a>,
    at: u64,
}

impl Read for Reader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.growing.len.saturating_sub(self.at);
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let mut state = self.growing.lock();
        while state.written <= self.at {
            if state.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            state = self.growing.grown.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let there = usize::try_from(state.written - self.at).unwrap_or(usize::MAX).min(buffer.len());
        state.file.seek(SeekFrom::Start(self.at))?;
        let read = state.file.read(&mut buffer[..there])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Reader<'_, '_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.growing.len, by),
            SeekFrom::Current(by) => (self.at, by),
        };
        self.at = from.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| ((n * 31) >> 3) as u8).collect()
    }

    #[test]
    fn what_is_not_there_yet_is_waited_for() {
        let (expected, mut file) = (bytes(300_000), io::Cursor::new(Vec::new()));
        let growing = Growing::new(&mut file, expected.len() as u64);
        std::thread::scope(|scope| {
            let mut writer = growing.writer();
            let content = &expected;
            scope.spawn(move || {
                for part in content.chunks(70_000) {
                    writer.write_all(part).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            let mut reader = growing.reader().unwrap();
            assert_eq!(reader.seek(SeekFrom::End(0)).unwrap(), 300_000);
            for at in [299_990, 0, 150_000, 69_995] {
                let mut read = [0; 10];
                reader.seek(SeekFrom::Start(at)).unwrap();
                reader.read_exact(&mut read).unwrap();
                assert_eq!(read, expected[at as usize..][..10]);
            }
            reader.seek(SeekFrom::Start(300_000)).unwrap();
            assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        });
    }

    #[test]
    fn a_writer_that_ends_early_is_an_error_for_the_reader() {
        let mut file = io::Cursor::new(Vec::new());
        let growing = Growing::new(&mut file, 10);
        growing.writer().write_all(&[1; 4]).unwrap();
        let mut reader = growing.reader().unwrap();
        let mut read = [0; 4];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, [1; 4]);
        assert_eq!(reader.read(&mut read).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
