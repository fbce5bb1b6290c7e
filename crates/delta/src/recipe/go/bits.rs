//! The bit order of deflate, appended to a vector: the first bit of a byte is its lowest.

/// Bits to send together, the first of them lowest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bits {
    pub(super) bits: u64,
    /// How many there are; those above are 0.
    pub(super) len: u32,
}

impl Bits {
    #[inline(always)]
    pub(super) fn new(bits: impl Into<u64>, len: u32) -> Self {
        Self { bits: bits.into(), len }
    }

    /// These bits, and then others.
    #[inline(always)]
    pub(super) fn then(self, other: Self) -> Self {
        Self { bits: self.bits | other.bits << self.len, len: self.len + other.len }
    }
}

/// The most bits that can be put at once; with them and those that wait, the window is full.
const MOST_AT_ONCE: u32 = 56;

/// Appends bits to a vector that is handed in for each call.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    window: u64,
    /// Bits in the window; below 8 between calls.
    waiting: u32,
}

impl BitWriter {
    pub(super) fn put(&mut self, bits: Bits, out: &mut Vec<u8>) {
        self.put_all(std::iter::once(bits), u64::from(bits.len), out);
    }

    /// Puts many, `total` bits together, or fewer.
    #[inline]
    pub(super) fn put_all(&mut self, all: impl Iterator<Item = Bits>, total: u64, out: &mut Vec<u8>) {
        // Every step stores the whole window, so the last ones store past the end of what is sent.
        let start = out.len();
        out.resize(start + (total / 8) as usize + 2 * size_of::<u64>(), 0);
        let room = &mut out[start..];
        let (mut window, mut waiting, mut at) = (self.window, self.waiting, 0);
        for Bits { bits, len } in all {
            debug_assert!(len <= MOST_AT_ONCE && bits >> len == 0, "{bits:#x} does not have {len} bits");
            window |= bits << waiting;
            waiting += len;
            room[at..at + 8].copy_from_slice(&window.to_le_bytes());
            at += (waiting / 8) as usize;
            window >>= waiting & !7;
            waiting &= 7;
        }
        out.truncate(start + at);
        (self.window, self.waiting) = (window, waiting);
    }

    /// Goes to the next byte boundary over bits that are 0.
    pub(super) fn align(&mut self, out: &mut Vec<u8>) {
        self.put(Bits::new(0_u64, (8 - self.waiting) % 8), out);
    }
}
