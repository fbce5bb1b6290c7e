//! Bits, written from the lowest bit of the first byte on.

/// Appends bits to bytes. [`Bits::spill`] must be called often enough: see [`Bits::put`].
#[derive(Debug)]
pub(super) struct Bits<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    /// How many bits of `pending` count.
    len: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, pending: 0, len: 0 }
    }

    /// Appends the lowest `len` bits of `value`, which has no others. After a [`Bits::spill`] there is room for 32.
    #[inline(always)]
    pub(super) fn put(&mut self, value: u64, len: u32) {
        debug_assert!(self.len + len <= 64 && (len == 64 || value >> len == 0));
        self.pending |= value << self.len;
        self.len += len;
    }

    /// Passes on what is complete.
    #[inline(always)]
    pub(super) fn spill(&mut self) {
        if self.len >= 32 {
            self.out.extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.len -= 32;
        }
    }

    /// Writes the bit that ends a stream, and fills up the last byte.
    pub(super) fn close(mut self) {
        self.spill();
        self.put(1, 1);
        let bytes = self.len.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.pending.to_le_bytes()[..bytes]);
    }
}
