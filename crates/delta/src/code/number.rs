//! Numbers of any size, as an Exp-Golomb code of which every decision is predicted.
//!
//! A number is the length of its binary form, in unary, then the bits below the leading one. The first of those are
//! predicted with all bits above them as context, the last ones by their place alone.

use super::arith::Coder;
use super::decision::{Decisions, hash};

/// How many bits below the leading one are predicted with all above them.
const DETAIL: u32 = 12;

/// Predicts numbers from `N` contexts; `I` is as for [`Decisions`].
#[derive(Debug)]
pub(super) struct Numbers<const N: usize, const I: usize> {
    decisions: Decisions<N, I>,
}

impl<const N: usize, const I: usize> Numbers<N, I> {
    /// `bits`: of the number of slots; `columns`: how many kinds of numbers there are.
    pub(super) fn new(bits: u32, columns: usize) -> Self {
        Self { decisions: Decisions::new(bits, columns * 128, columns) }
    }

    /// Codes a number of at most `most`, so that a decoder never gives a larger one.
    ///
    /// `contexts` are hashes; `column` is below what the model was made for.
    pub(super) fn code(
        &mut self,
        coder: &mut impl Coder,
        value: u64,
        most: u64,
        contexts: &[u32; N],
        column: usize,
    ) -> u64 {
        // One more, so that there is a leading one; `most` is far below 2^64 wherever this is used.
        let (value, most) = (value.min(most).saturating_add(1), most.saturating_add(1));
        let mut decide = |bit, node: u32, spot: usize| {
            let contexts = contexts.map(|context| hash(&[context, node, column as u32]));
            self.decisions.code(coder, bit, &contexts, column * 128 + spot, column)
        };
        let longest = most.ilog2();
        let mut length = 0;
        while length < longest && decide(length < value.ilog2(), length, length as usize) {
            length += 1;
        }
        let mut known = 1_u64;
        for done in 0..length {
            let node = if done < DETAIL { known as u32 } else { done << 16 };
            let bit = value >> (length - 1 - done) & 1 == 1;
            let bit = decide(bit, (length + 1) << 24 | node, 64 + (done.min(63)) as usize);
            known = known << 1 | u64::from(bit);
        }
        known.min(most) - 1
    }
}
