//! The bytes between matches: text, code and tables that the old content does not have, or has elsewhere.
//!
//! Contexts are the bytes before, of several lengths and forms; expected bytes are what followed the last bytes
//! where they were seen before, and the old content on both sides of the gap: what follows the match before it, and
//! what precedes the match behind it.

use super::arith::Coder;
use super::byte::{Bytes, Contexts, Expected};
use super::decision::hash;
use super::pace::Pace;

/// How much of the output is remembered for repetitions: 4 MiB.
const WINDOW: usize = 4 << 20;
/// How many bytes must repeat before more of the repetition is expected.
const REPEAT: usize = 5;
/// The number of places that are remembered by their last bytes, as a power of two: 1 MiB.
const PLACE_BITS: u32 = 18;

/// The model of the bytes between matches.
#[derive(Debug)]
pub(super) struct Literals {
    bytes: Bytes<12, 3, 32>,
    /// Recent output, not all of it; a ring.
    window: Vec<u8>,
    /// How many bytes went into the window.
    written: usize,
    /// By a hash of [`REPEAT`] bytes: where in the window they were last, plus one.
    places: Vec<u32>,
    /// Where the repetition goes on that is followed, and how long it is; 0 when there is none.
    repeat: usize,
    repeated: u32,
    /// The last bytes, latest in the low byte.
    last: u64,
    /// A hash of the letters since the last byte that is none.
    word: u32,
    /// How often the bytes from before and from behind the gap were right lately, as bits.
    hits: [u32; 2],
}

/// What the old content has at both sides of a gap; shorter than the gap where the old content ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sides<'a> {
    /// The bytes that would be here if the match before went on.
    pub(super) forward: &'a [u8],
    /// The bytes that would be here if the match behind began earlier.
    pub(super) backward: &'a [u8],
}

impl Literals {
    pub(super) fn new(pace: &Pace) -> Self {
        Self {
            bytes: Bytes::new(pace.literal_bits),
            window: vec![0; WINDOW],
            written: 0,
            places: vec![0; 1 << PLACE_BITS],
            repeat: 0,
            repeated: 0,
            last: 0,
            word: 0,
            hits: [0; 2],
        }
    }

    /// Begins a gap: `bytes` is the end of what is before it.
    pub(super) fn begin(&mut self, bytes: &[u8]) {
        self.repeated = 0;
        for byte in bytes {
            self.remember(*byte);
        }
        self.find();
        self.hits = [0xff, 0xff];
    }

    /// Codes the bytes of a part of a gap.
    pub(super) fn code(&mut self, coder: &mut impl Coder, sides: Sides<'_>, bytes: &mut [u8]) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            let sides = [sides.forward.get(at).copied(), sides.backward.get(at).copied()];
            let contexts = self.contexts(sides);
            *byte = self.bytes.code(coder, *byte, &contexts);
            for (hits, side) in self.hits.iter_mut().zip(sides) {
                *hits = *hits << 1 | u32::from(side == Some(*byte));
            }
            self.follow(*byte);
        }
    }

    fn contexts(&self, sides: [Option<u8>; 2]) -> Contexts<12, 3> {
        let last = self.last;
        let repeat = if self.repeated > 0 { self.window[self.repeat % WINDOW] } else { 0 };
        let repeated = self.repeated;
        let side = |n: usize| Expected {
            byte: sides[n].unwrap_or(0),
            trust: if sides[n].is_some() { 128 | (self.hits[n] & 127) as usize } else { 0 },
        };
        let known = |n: usize| u32::from(sides[n].unwrap_or(0)) | u32::from(sides[n].is_some()) << 8;
        let order = |bytes: u32| (last & ((1 << (8 * bytes)) - 1)) as u32;
        let lasting = |n: u32| (last >> (8 * n) & 0xff) as u32;
        Contexts {
            hashes: [
                0,
                hash(&[1, order(1)]),
                hash(&[2, order(2)]),
                hash(&[3, order(3)]),
                hash(&[4, last as u32]),
                hash(&[5, lasting(2) << 8 | lasting(3)]),
                hash(&[7, self.word, lasting(0)]),
                hash(&[8, lasting(1) << 8 | lasting(2)]),
                hash(&[9, lasting(3), lasting(7)]),
                hash(&[10, known(0), lasting(0)]),
                hash(&[11, known(1), lasting(0)]),
                hash(&[13, repeated.min(15), u32::from(repeat)]),
            ],
            expected: [
                Expected {
                    byte: repeat,
                    trust: if repeated == 0 { 0 } else { 32 + repeated.min(63) as usize },
                },
                side(0),
                side(1),
            ],
            selector: (repeated.min(3) << 6 | (self.hits[0] & 7) << 3 | self.hits[1] & 7) as usize,
            excluded: None,
        }
    }

    /// Takes note of a byte and of the repetition that it continues or ends.
    fn follow(&mut self, byte: u8) {
        if self.repeated > 0 && self.window[self.repeat % WINDOW] == byte {
            self.repeated = (self.repeated + 1).min(1 << 16);
            self.repeat += 1;
        } else {
            self.repeated = 0;
        }
        self.remember(byte);
        if self.repeated == 0 {
            self.find();
        }
    }

    /// The place for the last bytes.
    fn place(&self) -> usize {
        let bytes = self.last & ((1 << (8 * REPEAT)) - 1);
        (bytes.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACE_BITS)) as usize
    }

    /// Puts a byte into the window.
    fn remember(&mut self, byte: u8) {
        self.window[self.written % WINDOW] = byte;
        self.written += 1;
        self.last = self.last << 8 | u64::from(byte);
        let letter = byte.is_ascii_alphanumeric() || byte >= 128 || byte == b'_';
        self.word = if letter { hash(&[self.word, u32::from(byte)]) } else { 0 };
    }

    /// Looks for an earlier place with the last bytes, and remembers this one.
    fn find(&mut self) {
        let place = self.place();
        let found = self.places[place] as usize;
        if found > 0 && self.written - (found - 1) < WINDOW {
            let mut same = 0;
            while same < 32 && found - 1 > same && {
                let (one, two) = (
                    self.window[(found - 2 - same) % WINDOW],
                    self.window[(self.written - 1 - same) % WINDOW],
                );
                one == two
            } {
                same += 1;
            }
            if same >= REPEAT {
                self.repeat = found - 1;
                self.repeated = same as u32;
            }
        }
        self.places[place] = (self.written as u32).wrapping_add(1);
    }
}
