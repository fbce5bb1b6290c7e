//! Buffers that are used again and again for reading blobs.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// How many bytes are read at a time. From here on larger reads are no faster, and smaller ones are slower.
pub(crate) const CHUNK: usize = 256 << 10;

/// How many buffers that nobody uses are kept; 8 MiB.
const IDLE: usize = 32;

/// Buffers of [`CHUNK`] bytes that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Box<[u8]>>>);

impl Pool {
    /// A buffer; its content is what somebody left there.
    pub(crate) fn take(self: &Arc<Self>) -> Buffer {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = idle.unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice());
        Buffer { bytes, pool: Arc::clone(self) }
    }
}

/// A buffer that goes back to its pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    pool: Arc<Pool>,
}

impl Buffer {
    /// All of it, to be written to.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Its first `len` bytes, without a copy; the buffer goes back when the last clone of them is dropped.
    pub(crate) fn freeze(self, len: usize) -> Bytes {
        Bytes::from_owner(Filled { buffer: self, len })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut idle = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(bytes);
        }
    }
}

struct Filled {
    buffer: Buffer,
    len: usize,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_the_last_clone_of_its_bytes() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take();
        buffer.bytes()[..3].copy_from_slice(b"abc");
        let bytes = buffer.freeze(3);
        let clone = bytes.slice(1..);
        drop(bytes);
        assert_eq!(pool.0.lock().unwrap().len(), 0);
        assert_eq!(&clone[..], b"bc");
        drop(clone);
        assert_eq!(pool.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn only_so_many_idle_buffers_are_kept() {
        let pool = Arc::new(Pool::default());
        drop((0..2 * IDLE).map(|_| pool.take()).collect::<Vec<_>>());
        assert_eq!(pool.0.lock().unwrap().len(), IDLE);
    }
}
