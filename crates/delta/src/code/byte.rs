//! Bytes, predicted bit by bit from hashed contexts and from bytes that are expected.
//!
//! The shape of a context-mixing compressor such as lpaq (Matt Mahoney): every context finds, once per nibble, a slot
//! with the histories of the fifteen decisions in that nibble.

use super::arith::Coder;
use super::decision::hash;
use super::history::{History, Outcomes, States, learn, probability};
use super::logistic::{squash, stretch};
use super::mixer::{Correction, Mixer};

/// The histories of the decisions of one nibble in one context; the first byte tells contexts apart.
type Slot = [History; 16];

/// The distance of a probability from one half, as an opinion beside its logit: it counts less where that is large.
#[inline]
fn lean(one: u16) -> i16 {
    ((i32::from(one) - (1 << 15)) >> 5) as i16
}

/// A byte that is expected, and a small context that says how much it was right lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) byte: u8,
    /// Below [`TRUSTS`].
    pub(super) trust: usize,
}

/// How many kinds of trust there are.
pub(super) const TRUSTS: usize = 256;

/// What selects the weights beside the bits that are known: below this.
pub(super) const SELECTORS: usize = 256;

/// Predicts bytes from `N` contexts and `M` expected bytes; `I`, a multiple of eight, is at least
/// `2 * N + 2 * M + 1`, the number of opinions.
#[derive(Debug)]
pub(super) struct Bytes<const N: usize, const M: usize, const I: usize> {
    states: &'static States,
    slots: Vec<Slot>,
    outcomes: [Outcomes; N],
    /// For each expected byte, trust and bit: how likely the bit is right. 22 bits above a count.
    right: Vec<u32>,
    mixer: Mixer<I, 3>,
    corrections: [Correction; 2],
}

/// The contexts of one byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contexts<const N: usize, const M: usize> {
    pub(super) hashes: [u32; N],
    pub(super) expected: [Expected; M],
    /// Below [`SELECTORS`].
    pub(super) selector: usize,
    /// Values that the byte is known not to have.
    pub(super) excluded: Option<[u8; 2]>,
}

impl<const N: usize, const M: usize> Contexts<N, M> {
    /// The last bit of a byte, if the other value of it is excluded.
    #[inline]
    fn implied(&self, known: usize, position: usize) -> Option<bool> {
        let excluded = self.excluded.filter(|_| position == 7)?;
        let other = excluded.into_iter().find(|other| usize::from(other >> 1) == known & 127)?;
        Some(other & 1 == 0)
    }
}

impl<const N: usize, const M: usize, const I: usize> Bytes<N, M, I> {
    /// `bits`: of the number of slots.
    pub(super) fn new(bits: u32) -> Self {
        const { assert!(I > 2 * (N + M) && I.is_multiple_of(8)) };
        Self {
            states: States::shared(),
            slots: vec![[0; 16]; 1 << bits],
            outcomes: std::array::from_fn(|_| Outcomes::new()),
            right: vec![(3 << 20) << 10; M * TRUSTS * 8],
            mixer: Mixer::new([256, 8 << M, SELECTORS], 256, 6),
            corrections: [Correction::new(256), Correction::new(1 << 12)],
        }
    }

    /// The slot of a context: the one that has it, or the one of three neighbours that has seen least.
    #[inline]
    fn find(&mut self, hash: u32) -> usize {
        let check = ((hash >> 24) as u8).max(1);
        let home = (hash as usize) & (self.slots.len() - 1);
        let mut least = home;
        for place in [home, home ^ 1, home ^ 2] {
            if self.slots[place][0] == check {
                return place;
            }
            if self.slots[place][1] < self.slots[least][1] {
                least = place;
            }
        }
        self.slots[least] = [0; 16];
        self.slots[least][0] = check;
        least
    }

    /// Codes a byte.
    pub(super) fn code(&mut self, coder: &mut impl Coder, byte: u8, contexts: &Contexts<N, M>) -> u8 {
        // The bits that are known, below a leading one.
        let mut known = 1_usize;
        let mut slots = [0; N];
        for position in 0..8_usize {
            if position % 4 == 0 {
                let nibble = if position == 0 { 0 } else { known as u32 };
                let hashes = contexts.hashes.map(|context| hash(&[context, nibble]));
                // All slots are fetched before the first is looked at, so that the memory is waited for once.
                let mask = self.slots.len() - 1;
                let fetched = hashes.map(|hash| self.slots[hash as usize & mask][0]);
                std::hint::black_box(fetched);
                slots = hashes.map(|hash| self.find(hash));
            }
            let bit = byte >> (7 - position) & 1 == 1;
            let bit = match contexts.implied(known, position) {
                Some(implied) => implied,
                None => self.decide(coder, bit, known, position, &slots, contexts),
            };
            known = known << 1 | usize::from(bit);
        }
        known as u8
    }

    /// Codes one bit of a byte.
    #[inline]
    fn decide(
        &mut self,
        coder: &mut impl Coder,
        bit: bool,
        known: usize,
        position: usize,
        slots: &[usize; N],
        contexts: &Contexts<N, M>,
    ) -> bool {
        // Inside a nibble the decisions are numbered 1..15 in the way of a heap.
        let node =
            if position < 4 { known } else { 1 << (position - 4) | known & ((1 << (position - 4)) - 1) };
        let mut inputs = [0_i16; I];
        for n in 0..N {
            let history = self.slots[slots[n]][node];
            if history != 0 {
                let one = self.outcomes[n].probability(history);
                inputs[2 * n] = stretch(one) as i16;
                inputs[2 * n + 1] = lean(one);
            }
        }
        let mut agreeing = 0;
        for (m, expected) in contexts.expected.iter().enumerate() {
            if (usize::from(expected.byte) | 256) >> (8 - position) == known {
                agreeing |= 1 << m;
                let right = probability(self.right[(m * TRUSTS + expected.trust) * 8 + position]);
                let sign = if expected.byte >> (7 - position) & 1 == 1 { 1 } else { -1 };
                inputs[2 * (N + m)] = sign * stretch(right) as i16;
                inputs[2 * (N + m) + 1] = sign * lean(right);
            }
        }
        inputs[I - 1] = 256;
        let logit = self.mixer.mix(&inputs, [known, agreeing << 3 | position, contexts.selector], known);
        let plain = u32::from(squash(logit));
        let one = u32::from(self.corrections[0].refine(logit, known));
        let likely = contexts.expected.first().map_or(0, |expected| u32::from(expected.byte));
        let mixed = hash(&[known as u32, likely, (agreeing & 1) as u32]) as usize & 0xfff;
        let two = u32::from(self.corrections[1].refine(logit, mixed));
        let bit = coder.code(bit, ((plain * 2 + one + two) / 4).max(1) as u16);

        self.mixer.learn(&inputs, bit);
        self.corrections[0].learn(bit);
        self.corrections[1].learn(bit);
        for (slot, outcomes) in slots.iter().zip(&mut self.outcomes) {
            let history = &mut self.slots[*slot][node];
            outcomes.learn(*history, bit);
            *history = self.states.after(*history, bit);
        }
        for (m, expected) in contexts.expected.iter().enumerate() {
            if agreeing >> m & 1 == 1 {
                let right = bit == (expected.byte >> (7 - position) & 1 == 1);
                learn(&mut self.right[(m * TRUSTS + expected.trust) * 8 + position], right, 255);
            }
        }
        bit
    }
}
