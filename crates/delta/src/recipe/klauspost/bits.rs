//! Bits in the order of deflate, the first bit of a byte lowest, over a growing output.

use super::code::Code;

/// Collects bits, and hands over what makes whole bytes.
///
/// The output is an argument of every call and not a field, because the caller of the encoder owns it.
#[derive(Debug, Default)]
pub(super) struct BitSink {
    window: u64,
    /// Bits in the window; below 8 between calls.
    waiting: u32,
}

impl BitSink {
    /// Writes the lowest `count` bits of `bits`, at most 56; the bits above must be 0.
    #[inline]
    pub(super) fn put(&mut self, bits: u64, count: u32, out: &mut Vec<u8>) {
        debug_assert!(count <= 56 && bits >> count == 0, "{bits:#x} does not have {count} bits");
        self.window |= bits << self.waiting;
        self.waiting += count;
        let whole = (self.waiting >> 3) as usize;
        out.extend_from_slice(&self.window.to_le_bytes()[..whole]);
        self.window = self.window.checked_shr(self.waiting & !7).unwrap_or(0);
        self.waiting &= 7;
    }

    /// Writes the code of a symbol.
    pub(super) fn code(&mut self, code: Code, out: &mut Vec<u8>) {
        self.put(code.bits.into(), code.len.into(), out);
    }

    /// Goes to the next byte boundary over zeros.
    pub(super) fn align(&mut self, out: &mut Vec<u8>) {
        self.put(0, (8 - self.waiting) % 8, out);
    }

    /// Takes the bits over for many small writes in a row, until [`Burst::end`].
    #[inline(always)]
    pub(super) fn burst(&mut self) -> Burst<'_> {
        let (window, waiting) = (self.window, self.waiting);
        Burst { sink: self, buffer: [0; BURST], at: 0, window, waiting }
    }
}

/// The bytes that a burst collects before they go to the output.
const BURST: usize = 1024;

/// A sink whose state is in registers and whose bytes go through a small buffer.
#[derive(Debug)]
pub(super) struct Burst<'a> {
    sink: &'a mut BitSink,
    buffer: [u8; BURST],
    at: usize,
    window: u64,
    waiting: u32,
}

impl Burst<'_> {
    // At most 56 bits may be put between two calls of `settle`.

    /// Adds the lowest `count` bits of `bits` to the window; the bits above must be 0.
    #[inline(always)]
    pub(super) fn put(&mut self, bits: u64, count: u32) {
        self.window |= bits << (self.waiting & 63);
        self.waiting += count;
    }

    /// Moves whole bytes out of the window, after which it has [`ROOM`](Self::ROOM) again.
    #[inline(always)]
    pub(super) fn settle(&mut self, out: &mut Vec<u8>) {
        if self.at > BURST - 8 {
            out.extend_from_slice(&self.buffer[..self.at]);
            self.at = 0;
        }
        self.buffer[self.at..self.at + 8].copy_from_slice(&self.window.to_le_bytes());
        self.at += (self.waiting >> 3) as usize;
        // The window holds 63 bits at most, so this shifts by 56 at most.
        self.window >>= self.waiting & 56;
        self.waiting &= 7;
    }

    /// Writes what was collected, and gives the bits back.
    pub(super) fn end(mut self, out: &mut Vec<u8>) {
        self.settle(out);
        out.extend_from_slice(&self.buffer[..self.at]);
        self.sink.window = self.window;
        self.sink.waiting = self.waiting;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However bits are cut into calls, the bytes are the same.
    #[test]
    fn a_burst_writes_what_single_calls_write() {
        let values: Vec<(u64, u32)> =
            (0..5000_u64).map(|n| ((n * 0x9e37) & ((1 << (n % 14)) - 1), (n % 14) as u32)).collect();
        let (mut singly, mut burst) = (Vec::new(), Vec::new());
        let mut sink = BitSink::default();
        values.iter().for_each(|(bits, count)| sink.put(*bits, *count, &mut singly));
        sink.align(&mut singly);

        let mut sink = BitSink::default();
        sink.put(values[0].0, values[0].1, &mut burst);
        let mut fast = sink.burst();
        for pair in values[1..].chunks(4) {
            pair.iter().for_each(|(bits, count)| fast.put(*bits, *count));
            fast.settle(&mut burst);
        }
        fast.end(&mut burst);
        sink.align(&mut burst);
        assert_eq!(burst, singly);
    }
}
