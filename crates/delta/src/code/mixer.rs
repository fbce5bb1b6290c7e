//! One probability from many: logistic mixing, and the correction of what comes out.
//!
//! The gated linear mixing of the PAQ family (Matt Mahoney): the opinions of all models, as logits, are added with
//! weights that are learned online; small contexts select which weights. Several sets of weights give several answers,
//! which a last small set mixes again.

use super::history::{learn, probability};
use super::logistic::squash;

/// Bits behind the point of a weight while it learns.
const WEIGHT_BITS: u32 = 20;

/// Bits that are left out of a weight when it is used: what remains fits 16 bits, and eight products an instruction.
const UNUSED_BITS: u32 = 8;

/// The largest weight.
const HEAVIEST: i32 = (8 << WEIGHT_BITS) - 1;

/// The opinions of `N` models: logits in 1/256. `N` is a multiple of eight; unused ones are 0.
pub(super) type Inputs<const N: usize> = [i16; N];

/// How fast the last set learns.
const LAST_RATE: i32 = 4;

/// Sets of weights for `N` inputs, of which a context selects one.
#[derive(Debug)]
struct Layer<const N: usize> {
    weights: Vec<[i32; N]>,
    chosen: usize,
    /// What the chosen weights said, in 1/65536.
    said: u16,
}

impl<const N: usize> Layer<N> {
    fn new(contexts: usize, weight: i32) -> Self {
        Self { weights: vec![[weight; N]; contexts], chosen: 0, said: 1 << 15 }
    }

    /// The weighted sum. With the heaviest weights it may wrap around, at both ends alike.
    #[inline]
    fn mix(&mut self, inputs: &Inputs<N>, context: usize) -> i32 {
        self.chosen = context;
        let mut sum = 0_i32;
        for (x, w) in inputs.iter().zip(&self.weights[context]) {
            let weight = (*w >> UNUSED_BITS) as i16;
            sum = sum.wrapping_add(i32::from(*x) * i32::from(weight));
        }
        let logit = sum >> (WEIGHT_BITS - UNUSED_BITS);
        self.said = squash(logit);
        logit
    }

    #[inline]
    fn learn(&mut self, inputs: &Inputs<N>, bit: bool, rate: i32) {
        let error = (((i32::from(bit) << 16) - i32::from(self.said)) * rate) >> 6;
        let error = error.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        for (w, x) in self.weights[self.chosen].iter_mut().zip(inputs) {
            let step = (i32::from(*x) * i32::from(error) + (1 << 9)) >> 10;
            *w = (*w + step).clamp(-HEAVIEST, HEAVIEST);
        }
    }
}

/// Mixes `N` inputs with `S` sets of weights at once.
#[derive(Debug)]
pub(super) struct Mixer<const N: usize, const S: usize> {
    layers: [Layer<N>; S],
    last: Layer<8>,
    answers: Inputs<8>,
    /// How many decisions were learned: the first ones teach more.
    learned: u32,
    rate: i32,
}

impl<const N: usize, const S: usize> Mixer<N, S> {
    /// `contexts`: how many each set is selected by; `last`: by how many the last set is; `rate`: how fast it learns.
    pub(super) fn new(contexts: [usize; S], last: usize, rate: i32) -> Self {
        let even = (1 << WEIGHT_BITS) / 4;
        Self {
            layers: contexts.map(|contexts| Layer::new(contexts, even)),
            last: Layer::new(last, (1 << WEIGHT_BITS) / S as i32),
            answers: [0; 8],
            learned: 0,
            rate,
        }
    }

    /// The logit of a yes.
    #[inline]
    pub(super) fn mix(&mut self, inputs: &Inputs<N>, contexts: [usize; S], last: usize) -> i32 {
        for ((answer, layer), context) in self.answers.iter_mut().zip(&mut self.layers).zip(contexts) {
            *answer = layer.mix(inputs, context).clamp(-2047, 2047) as i16;
        }
        self.last.mix(&self.answers, last)
    }

    /// Learns what the decision was; `inputs` are those of the last [`Mixer::mix`].
    #[inline]
    pub(super) fn learn(&mut self, inputs: &Inputs<N>, bit: bool) {
        let rate = self.rate + self.rate * 3 * 256 / (256 + self.learned as i32);
        self.learned += u32::from(self.learned < 1 << 20);
        for layer in &mut self.layers {
            layer.learn(inputs, bit, rate);
        }
        self.last.learn(&self.answers, bit, LAST_RATE);
    }
}

/// Secondary estimation: corrects a probability by what became of it in a small context.
#[derive(Debug)]
pub(super) struct Correction {
    /// Interpolated between 33 logits per context; a probability in 22 bits above a count in 10.
    cells: Vec<u32>,
    at: usize,
}

/// The distance of two logits in [`Correction`].
const STRIDE: i32 = 128;
/// The logits per context: -16 * 128 .. 16 * 128.
const LOGITS: usize = 33;

impl Correction {
    pub(super) fn new(contexts: usize) -> Self {
        let one = |at: usize| u32::from(squash((at as i32 - 16) * STRIDE)) << 16 | 12;
        Self { cells: (0..contexts * LOGITS).map(|cell| one(cell % LOGITS)).collect(), at: 0 }
    }

    /// The corrected probability, in 1/65536.
    #[inline]
    pub(super) fn refine(&mut self, logit: i32, context: usize) -> u16 {
        let place = (logit.clamp(-2047, 2047) + 16 * STRIDE) as usize;
        let (low, part) = (place / STRIDE as usize, (place % STRIDE as usize) as u32);
        let at = context * LOGITS + low;
        self.at = at + usize::from(part >= STRIDE as u32 / 2);
        let (one, two) = (u32::from(probability(self.cells[at])), u32::from(probability(self.cells[at + 1])));
        ((one * (STRIDE as u32 - part) + two * part) / STRIDE as u32).max(1) as u16
    }

    #[inline]
    pub(super) fn learn(&mut self, bit: bool) {
        learn(&mut self.cells[self.at], bit, 255);
    }
}
