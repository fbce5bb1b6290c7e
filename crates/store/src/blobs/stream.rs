//! Reading a blob as a stream of chunks.

use std::fs::File;
use std::future::Future as _;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use deltaport_oci::wire::ByteRange;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::pool::{CHUNK, Pool};
use crate::bucket::read::ObjectStream;

/// After the disk had to be waited for: how many chunks are read on a blocking thread before memory is tried again.
const COLD_CHUNKS: u32 = 16;

/// The chunks of a [`Blob::read`](super::Blob::read); a stream of `io::Result<Bytes>`, `Send` and `Unpin`.
///
/// Ends after the last byte of the range or after the first error. Holds one chunk at most, besides those that its
/// consumer holds.
#[derive(Debug)]
pub struct BlobStream(Kind);

#[derive(Debug)]
enum Kind {
    File(FileStream),
    Object(ObjectStream),
    Memory(Option<io::Result<Bytes>>),
}

impl BlobStream {
    pub(super) fn file(file: Arc<File>, pool: Arc<Pool>, runtime: Handle, range: ByteRange) -> Self {
        let can_try = cfg!(target_os = "linux");
        Self(Kind::File(FileStream { file, pool, runtime, rest: range, ahead: None, cold: 0, can_try }))
    }

    pub(super) fn object(stream: ObjectStream) -> Self {
        Self(Kind::Object(stream))
    }

    pub(super) fn memory(bytes: &Bytes, range: ByteRange) -> Self {
        let ends = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let part = ends.filter(|(start, end)| start <= end && *end <= bytes.len());
        Self(Kind::Memory(Some(part.map(|(start, end)| bytes.slice(start..end)).ok_or_else(ended_early))))
    }
}

impl futures_util::Stream for BlobStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Kind::File(stream) => stream.poll_next(cx),
            Kind::Object(stream) => stream.poll_next(cx),
            Kind::Memory(bytes) => Poll::Ready(bytes.take()),
        }
    }
}

/// The chunks of a file.
#[derive(Debug)]
struct FileStream {
    file: Arc<File>,
    pool: Arc<Pool>,
    runtime: Handle,
    /// What is not yet read or being read.
    rest: ByteRange,
    /// A chunk that is being read on a blocking thread.
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
    /// Chunks to read on a blocking thread before memory is tried again.
    cold: u32,
    /// Whether the system can say at once that something is not in memory.
    can_try: bool,
}

impl FileStream {
    /// Reads the next bytes if they are in memory.
    fn try_now(&mut self) -> Option<io::Result<Bytes>> {
        if !self.can_try || self.cold > 0 {
            return None;
        }
        let mut buffer = self.pool.take();
        let want = self.next_len();
        match read_from_memory(&self.file, &mut buffer.bytes()[..want], self.rest.start) {
            Ok(Some(0)) => Some(Err(ended_early())),
            Ok(Some(count)) => {
                self.rest.start += count as u64;
                Some(Ok(buffer.freeze(count)))
            }
            Ok(None) => {
                self.cold = COLD_CHUNKS;
                None
            }
            // Not every file system can; the blocking read tells of real errors.
            Err(_) => {
                self.can_try = false;
                None
            }
        }
    }

    /// Begins to read the next chunk on a blocking thread.
    fn read_ahead(&mut self) {
        let (file, mut buffer) = (Arc::clone(&self.file), self.pool.take());
        let (want, offset) = (self.next_len(), self.rest.start);
        self.rest.start += want as u64;
        self.cold = self.cold.saturating_sub(1);
        self.ahead = Some(self.runtime.spawn_blocking(move || {
            file.read_exact_at(&mut buffer.bytes()[..want], offset)?;
            Ok(buffer.freeze(want))
        }));
    }

    fn next_len(&self) -> usize {
        usize::try_from(self.rest.end - self.rest.start).map_or(CHUNK, |rest| rest.min(CHUNK))
    }

    fn is_read(&self) -> bool {
        self.rest.start >= self.rest.end
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.ahead.is_none() {
            if self.is_read() {
                return Poll::Ready(None);
            }
            if let Some(chunk) = self.try_now() {
                if chunk.is_err() {
                    self.rest.start = self.rest.end;
                }
                return Poll::Ready(Some(chunk));
            }
            self.read_ahead();
        }
        let Some(ahead) = &mut self.ahead else { return Poll::Ready(None) };
        let chunk = ready!(Pin::new(ahead).poll(cx)).unwrap_or_else(|error| Err(io::Error::other(error)));
        self.ahead = None;
        if chunk.is_err() {
            self.rest.start = self.rest.end;
        } else if self.cold > 0 && !self.is_read() {
            self.read_ahead();
        }
        Poll::Ready(Some(chunk))
    }
}

fn ended_early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the blob's file is shorter than it was")
}

/// Reads what is in the page cache; `None` when nothing is.
#[cfg(target_os = "linux")]
fn read_from_memory(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
    use rustix::io::{Errno, ReadWriteFlags};
    let mut buffers = [io::IoSliceMut::new(buffer)];
    match rustix::io::preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn read_from_memory(_: &File, _: &mut [u8], _: u64) -> io::Result<Option<usize>> {
    Err(io::ErrorKind::Unsupported.into())
}
