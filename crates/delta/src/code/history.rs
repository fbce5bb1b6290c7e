//! What a context has seen so far, in one byte, and what that has turned out to mean.
//!
//! Indirect modelling as in the PAQ family (Matt Mahoney): a context does not remember a probability but how often it
//! saw a no and a yes and which came last, and a second table learns how likely a yes is after each such history. The
//! state machine is our own: it is enumerated from the bounds below.

use std::sync::LazyLock;

use super::logistic::stretch;

/// The largest count of one kind when the other kind was seen 0, 1, 2 ... times.
const BOUNDS: [u8; 5] = [40, 26, 12, 6, 5];

/// A history: an index into the tables of [`States`]. 0 is "nothing seen".
pub(super) type History = u8;

/// The state machine.
#[derive(Debug)]
pub(super) struct States {
    /// The history after another no or yes.
    next: [[History; 2]; 256],
    /// How often a no and a yes were seen.
    counts: [(u8, u8); 256],
    /// How much the next decision weighs for a context with this history, in 1/65536.
    weights: [u32; 256],
}

static STATES: LazyLock<States> = LazyLock::new(States::enumerate);

/// Whether a pair of counts has a state.
fn bounded(no: u8, yes: u8) -> bool {
    BOUNDS.get(usize::from(no.min(yes))).is_some_and(|most| no.max(yes) <= *most)
}

/// What is left of a count when the opposite is seen: old evidence loses weight.
fn discount(count: u8) -> u8 {
    if count <= 2 { count } else { 2 + (count - 2) / 4 }
}

/// The counts after another decision.
fn advance((no, yes): (u8, u8), bit: bool) -> (u8, u8) {
    let (mut same, mut other) = if bit { (yes + 1, discount(no)) } else { (no + 1, discount(yes)) };
    let pair = |same, other| if bit { (other, same) } else { (same, other) };
    while !bounded(same, other) {
        // Along the border: rather forget one of the larger count than what is seldom.
        if same > other { same -= 1 } else { other -= 1 }
    }
    pair(same, other)
}

impl States {
    pub(super) fn shared() -> &'static Self {
        &STATES
    }

    #[inline]
    pub(super) fn after(&self, history: History, bit: bool) -> History {
        self.next[usize::from(history)][usize::from(bit)]
    }

    /// How much the next decision weighs for a context with this history, in 1/65536.
    #[inline]
    pub(super) fn weight(&self, history: History) -> u32 {
        self.weights[usize::from(history)]
    }

    /// Walks all histories that can be reached from the empty one.
    fn enumerate() -> Self {
        // The last decision only matters when both kinds were seen.
        let key = |counts: (u8, u8), bit| (counts, counts.0 > 0 && counts.1 > 0 && bit);
        let mut known = vec![((0, 0), false)];
        let mut states = Self { next: [[0; 2]; 256], counts: [(0, 0); 256], weights: [0; 256] };
        let mut at = 0;
        while at < known.len() {
            let (counts, _) = known[at];
            states.counts[at] = counts;
            states.weights[at] = WEIGHTS[usize::from(counts.0 + counts.1)];
            for bit in [false, true] {
                let target = key(advance(counts, bit), bit);
                let found = known.iter().position(|state| *state == target).unwrap_or_else(|| {
                    known.push(target);
                    known.len() - 1
                });
                states.next[at][usize::from(bit)] = found as History;
            }
            at += 1;
        }
        assert!(known.len() <= 256, "the bounds give {} states, a byte holds 256", known.len());
        states
    }
}

/// How likely a yes is after each history, learned for one kind of context.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// The probability in 22 bits above a count in 10 bits.
    cells: [u32; 256],
}

/// How many observations a cell averages over before it only follows.
const LIMIT: u32 = 255;

/// 65536 / (n + 1.5): the weight of an observation after n others.
static WEIGHTS: [u32; 1024] = {
    let mut table = [0; 1024];
    let mut n = 0;
    while n < 1024 {
        table[n] = (65536 * 2) / (2 * n as u32 + 3);
        n += 1;
    }
    table
};

/// Moves a cell (a probability in 22 bits, a count in 10) towards what was seen; the count stops at `limit` < 1024.
#[inline]
pub(super) fn learn(cell: &mut u32, bit: bool, limit: u32) {
    let (p, count) = (*cell >> 10, *cell & 1023);
    let target = if bit { (1 << 22) - 1 } else { 0 };
    let moved = i64::from(p) + (((target - i64::from(p)) * i64::from(WEIGHTS[count as usize])) >> 16);
    *cell = (moved as u32) << 10 | if count < limit { count + 1 } else { count };
}

/// The probability of a cell, in 1/65536.
#[inline]
pub(super) fn probability(cell: u32) -> u16 {
    (cell >> 16).max(1) as u16
}

impl Outcomes {
    pub(super) fn new() -> Self {
        let mut cells = [0; 256];
        for (cell, (no, yes)) in cells.iter_mut().zip(States::shared().counts) {
            let (no, yes) = (u32::from(no), u32::from(yes));
            // Seen only one kind: it is likelier to go on than its count alone would say.
            let (no, yes) = (no * if yes == 0 { 3 } else { 2 } + 1, yes * if no == 0 { 3 } else { 2 } + 1);
            *cell = ((yes << 22) / (no + yes) - 1) << 10 | 6;
        }
        Self { cells }
    }

    /// The logit of a yes.
    #[inline]
    pub(super) fn logit(&self, history: History) -> i32 {
        stretch(self.probability(history))
    }

    /// The probability of a yes, in 1/65536.
    #[inline]
    pub(super) fn probability(&self, history: History) -> u16 {
        probability(self.cells[usize::from(history)])
    }

    #[inline]
    pub(super) fn learn(&mut self, history: History, bit: bool) {
        learn(&mut self.cells[usize::from(history)], bit, LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_count_and_fit_a_byte() {
        let states = States::shared();
        let run = (0..30).fold(0, |history, _| states.after(history, true));
        assert_eq!(states.counts[usize::from(run)], (0, 30));
        let broken = states.after(run, false);
        assert_eq!(states.counts[usize::from(broken)], (1, 9));
        let forever = (0..1000).fold(0, |history, _| states.after(history, false));
        assert_eq!(states.counts[usize::from(forever)], (40, 0));
        assert_ne!(forever, 0);
    }

    #[test]
    fn outcomes_learn() {
        let mut outcomes = Outcomes::new();
        assert!(outcomes.logit(0).abs() <= 2);
        for _ in 0..300 {
            outcomes.learn(0, true);
        }
        assert!(outcomes.logit(0) > 1000);
    }
}
