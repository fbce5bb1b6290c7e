//! Bits into bytes, in the order of deflate: the first bit of a byte is its lowest.

/// The bits that do not fill a byte yet; whole bytes go to the `out` that the caller hands in.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    window: u64,
    /// Bits in the window; below 32 between calls.
    waiting: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits of `bits`, at most 32; the bits above must be 0.
    #[inline(always)]
    pub(super) fn put(&mut self, bits: u32, count: u32, out: &mut Vec<u8>) {
        debug_assert!(count <= 32 && u64::from(bits) >> count == 0, "{bits:#x} does not have {count} bits");
        self.window |= u64::from(bits) << self.waiting;
        self.waiting += count;
        if self.waiting >= 32 {
            out.extend_from_slice(&(self.window as u32).to_le_bytes());
            self.window >>= 32;
            self.waiting -= 32;
        }
    }

    /// Goes to the next byte boundary over zeros, and leaves nothing waiting.
    pub(super) fn align(&mut self, out: &mut Vec<u8>) {
        let bytes = self.waiting.div_ceil(8) as usize;
        out.extend_from_slice(&self.window.to_le_bytes()[..bytes]);
        *self = Self::default();
    }

    /// How many bits the last, incomplete byte has.
    pub(super) fn loose_bits(&self) -> u32 {
        self.waiting % 8
    }
}
