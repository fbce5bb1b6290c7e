//! Between the delta engine, which reads and writes as `std::io` does, and the store, which does not.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// How many bytes are read from a file at once.
const READ: usize = 256 << 10;
/// How many bytes travel at once from the thread that makes them to the one that stores them.
const WRITE: usize = 256 << 10;

/// A file read from its start, at a position of its own: handles of one file share theirs.
pub(crate) fn reader(file: File) -> BufReader<impl Read + Seek> {
    BufReader::with_capacity(READ, Positioned { file, at: 0 })
}

struct Positioned {
    file: File,
    at: u64,
}

impl Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Positioned {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// Hands what a blocking thread writes to an async task. Fails once nobody takes it any more.
pub(crate) struct Chunks {
    sender: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Chunks {
    pub(crate) fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { sender, buffer: BytesMut::with_capacity(WRITE) }
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(WRITE)).freeze();
        self.sender.blocking_send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(WRITE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() >= WRITE {
            self.send()?;
        }
        Ok(count)
    }

    /// Sends what is left; to be called at the end.
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_readers_of_one_file_do_not_disturb_each_other() {
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(b"0123456789").unwrap();
        let mut first = reader(file.try_clone().unwrap());
        let mut second = reader(file);
        let mut text = String::new();
        first.seek(SeekFrom::End(-3)).unwrap();
        first.read_to_string(&mut text).unwrap();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "7890123456789");
        assert!(first.seek(SeekFrom::Start(0)).is_ok() && first.seek(SeekFrom::Current(-1)).is_err());
    }

    #[test]
    fn chunks_arrive_in_order_and_writing_fails_when_nobody_listens() {
        let (sender, mut receiver) = mpsc::channel(100);
        let mut chunks = Chunks::new(sender);
        let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        chunks.write_all(&content[..10]).unwrap();
        chunks.write_all(&content[10..]).unwrap();
        chunks.flush().unwrap();
        let mut received = Vec::new();
        while let Ok(chunk) = receiver.try_recv() {
            assert!(chunk.len() <= WRITE);
            received.extend_from_slice(&chunk);
        }
        assert_eq!(received, content);
        drop(receiver);
        assert!(chunks.write_all(&content).is_err());
    }
}
