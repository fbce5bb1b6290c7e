//! How a dynamic block says its codes (RFC 1951, section 3.2.7).

use super::bits::BitSink;
use super::code::{self, Code, MAX_LENGTH_CODE_LEN};
use super::symbols::{FIRST_LENGTH, LENGTH_CODE_ORDER, LENGTH_CODE_SYMBOLS};

/// The symbol that repeats the length before 3 to 6 times.
const REPEAT: u8 = 16;

/// The symbol of 3 to 10 lengths of 0.
const ZEROS: u8 = 17;

/// The symbol of 11 to 138 lengths of 0.
const MANY_ZEROS: u8 = 18;

/// The header of a dynamic block that is not the last one.
#[derive(Debug)]
pub(super) struct Header {
    litlen: usize,
    distance: usize,
    /// How many lengths of the length code are sent.
    order: usize,
    steps: Vec<Step>,
    codes: [Code; LENGTH_CODE_SYMBOLS],
    size: usize,
}

/// A symbol of the length code, and its extra bits.
#[derive(Clone, Copy, Debug)]
struct Step {
    symbol: u8,
    extra: u8,
}

impl Step {
    fn extra_bits(self) -> u32 {
        match self.symbol {
            REPEAT => 2,
            ZEROS => 3,
            MANY_ZEROS => 7,
            _ => 0,
        }
    }
}

impl Header {
    /// Lists these codes: at least 257 for literals and lengths, at least one for distances.
    pub(super) fn new(litlen: &[Code], distance: &[Code]) -> Self {
        let steps = steps(litlen.iter().chain(distance).map(|code| code.len));
        let mut frequencies = [0_u32; LENGTH_CODE_SYMBOLS];
        for step in &steps {
            frequencies[usize::from(step.symbol)] += 1;
        }
        let mut codes = [Code::default(); LENGTH_CODE_SYMBOLS];
        code::assign(&frequencies, MAX_LENGTH_CODE_LEN, &mut codes);
        let last = LENGTH_CODE_ORDER.iter().rposition(|symbol| frequencies[usize::from(*symbol)] > 0);
        let order = last.map_or(4, |last| (last + 1).max(4));
        let extra: u32 = steps.iter().map(|step| step.extra_bits()).sum();
        let size = 3 + 5 + 5 + 4 + 3 * order + code::cost(&codes, &frequencies) + extra as usize;
        Self { litlen: litlen.len(), distance: distance.len(), order, steps, codes, size }
    }

    /// The size in bits.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn write(&self, bits: &mut BitSink, out: &mut Vec<u8>) {
        bits.put(0b100, 3, out);
        bits.put((self.litlen - FIRST_LENGTH) as u64, 5, out);
        bits.put((self.distance - 1) as u64, 5, out);
        bits.put((self.order - 4) as u64, 4, out);
        for &symbol in &LENGTH_CODE_ORDER[..self.order] {
            bits.put(self.codes[usize::from(symbol)].len.into(), 3, out);
        }
        for step in &self.steps {
            bits.code(self.codes[usize::from(step.symbol)], out);
            bits.put(step.extra.into(), step.extra_bits(), out);
        }
    }
}

/// Runs of equal lengths as steps; a run may go from the literals on to the distances.
fn steps(lengths: impl Iterator<Item = u8>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lengths = lengths.peekable();
    while let Some(length) = lengths.next() {
        let mut count = 1;
        while lengths.next_if_eq(&length).is_some() {
            count += 1;
        }
        push_run(length, count, &mut steps);
    }
    steps
}

fn push_run(length: u8, mut count: usize, steps: &mut Vec<Step>) {
    let plain = Step { symbol: length, extra: 0 };
    if length == 0 {
        while count >= 11 {
            let run = count.min(138);
            steps.push(Step { symbol: MANY_ZEROS, extra: (run - 11) as u8 });
            count -= run;
        }
        if count >= 3 {
            steps.push(Step { symbol: ZEROS, extra: (count - 3) as u8 });
            count = 0;
        }
    } else {
        steps.push(plain);
        count -= 1;
        while count >= 3 {
            let run = count.min(6);
            steps.push(Step { symbol: REPEAT, extra: (run - 3) as u8 });
            count -= run;
        }
    }
    steps.extend(std::iter::repeat_n(plain, count));
}
