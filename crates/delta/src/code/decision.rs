//! Single decisions, predicted from several contexts at once.

use super::arith::Coder;
use super::history::{History, Outcomes, States};
use super::logistic::{squash, stretch};
use super::mixer::{Correction, Mixer};

/// Spreads a context over all bits of a hash.
#[inline]
pub(super) fn hash(parts: &[u32]) -> u32 {
    let mut hash = 0x9e37_79b9_u32;
    for part in parts {
        hash = (hash ^ part).wrapping_mul(0x2c1b_3c6d);
        hash = (hash ^ hash >> 15).wrapping_mul(0x297a_2d39);
    }
    hash ^ hash >> 14
}

/// What one context knows of one decision: 16 bits for a probability, 8 that tell apart the contexts that share the
/// place, 8 for a history. An empty one is 0, so that a large table costs nothing before it is used.
#[derive(Clone, Copy, Debug)]
struct Slot(u32);

impl Slot {
    #[inline]
    fn new(one: u16, check: u8, history: History) -> Self {
        Self(u32::from(one ^ 1 << 15) | u32::from(check) << 16 | u32::from(history) << 24)
    }

    /// The probability of a yes, in 1/65536.
    #[inline]
    fn one(self) -> u16 {
        self.0 as u16 ^ 1 << 15
    }

    #[inline]
    fn check(self) -> u8 {
        (self.0 >> 16) as u8
    }

    #[inline]
    fn history(self) -> History {
        (self.0 >> 24) as u8
    }
}

/// Predicts decisions from `N` contexts; `I`, a multiple of eight, is at least `2 * N + 1`,
/// the number of opinions that are mixed.
#[derive(Debug)]
pub(super) struct Decisions<const N: usize, const I: usize> {
    states: &'static States,
    /// As numbers: for them alone a vector of zeros is memory that was not touched yet.
    slots: Vec<u32>,
    outcomes: [Outcomes; N],
    mixer: Mixer<I, 2>,
    correction: Correction,
}

impl<const N: usize, const I: usize> Decisions<N, I> {
    /// `bits`: of the number of slots; `first`, `second`: how many contexts select the weights.
    pub(super) fn new(bits: u32, first: usize, second: usize) -> Self {
        const { assert!(I > 2 * N && I.is_multiple_of(8)) };
        Self {
            states: States::shared(),
            slots: vec![0; 1 << bits],
            outcomes: std::array::from_fn(|_| Outcomes::new()),
            mixer: Mixer::new([first, second], 1, 6),
            correction: Correction::new(first),
        }
    }

    /// Codes a decision; `first` and `second` select the weights.
    #[inline]
    pub(super) fn code(
        &mut self,
        coder: &mut impl Coder,
        bit: bool,
        contexts: &[u32; N],
        first: usize,
        second: usize,
    ) -> bool {
        let mask = self.slots.len() - 1;
        let mut inputs = [0_i16; I];
        // All slots are fetched before the first is looked at, so that the memory is waited for once.
        let places = contexts.map(|context| context as usize & mask);
        let mut slots = places.map(|place| Slot(self.slots[place]));
        for (n, slot) in slots.iter_mut().enumerate() {
            let check = (contexts[n] >> 24) as u8;
            if slot.check() != check {
                *slot = Slot::new(1 << 15, check, 0);
            }
            let history = slot.history();
            inputs[2 * n] = if history == 0 { 0 } else { stretch(slot.one()) as i16 };
            inputs[2 * n + 1] = self.outcomes[n].logit(history) as i16;
        }
        inputs[2 * N] = 256;
        let logit = self.mixer.mix(&inputs, [first, second], 0);
        let refined = self.correction.refine(logit, first);
        let one = (u32::from(squash(logit)) + u32::from(refined)) / 2;
        let bit = coder.code(bit, one.max(1) as u16);

        self.mixer.learn(&inputs, bit);
        self.correction.learn(bit);
        for ((place, slot), outcomes) in places.into_iter().zip(slots).zip(&mut self.outcomes) {
            let (one, history) = (i64::from(slot.one()), slot.history());
            outcomes.learn(history, bit);
            let target = if bit { 65535 } else { 0 };
            let step = (target - one) * i64::from(self.states.weight(history));
            let one = (one + (step >> 16)) as u16;
            self.slots[place] = Slot::new(one, slot.check(), self.states.after(history, bit)).0;
        }
        bit
    }
}
