//! The two codes of a block, what they cost, and how a dynamic block says them (RFC 1951, section 3.2.7).

use super::bits::{BitWriter, Bits};
use super::huffman::{LONGEST_CODE, code_lengths, codes};
use super::symbols::{
    DISTANCE_SYMBOLS, DISTANCES, END_OF_BLOCK, LENGTH_CODE_ORDER, LENGTH_CODE_SYMBOLS, LENGTHS,
    LITLEN_SYMBOLS, NO_DISTANCE, SYMBOL_OF_KIND, Token,
};

/// The longest code in the header of a dynamic block.
const LONGEST_LENGTH_CODE: usize = 7;

/// How often each symbol occurs in a block.
#[derive(Debug)]
pub(super) struct Counts {
    litlen: [u32; LITLEN_SYMBOLS],
    distance: [u32; DISTANCE_SYMBOLS],
}

impl Counts {
    /// Counts the symbols of tokens, and the end of their block.
    pub(super) fn of(tokens: &[Token]) -> Self {
        let mut kinds = [0; Token::KINDS];
        let mut distances = [0; DISTANCE_SYMBOLS + 1];
        for token in tokens {
            kinds[token.kind()] += 1;
            distances[token.distance_symbol()] += 1;
        }
        let mut litlen = [0; LITLEN_SYMBOLS];
        for (&symbol, count) in SYMBOL_OF_KIND.iter().zip(kinds) {
            litlen[usize::from(symbol)] += count;
        }
        let mut distance = [0; DISTANCE_SYMBOLS];
        distance.copy_from_slice(&distances[..NO_DISTANCE]);
        Self::with_end(litlen, distance)
    }

    /// Counts bytes as literals, and the end of their block.
    pub(super) fn of_literals(raw: &[u8]) -> Self {
        // Four tables, because runs of one byte would wait for their own counter.
        let mut bytes = [[0; 256]; 4];
        let (fours, rest) = raw.as_chunks::<4>();
        for four in fours {
            for (counts, &byte) in bytes.iter_mut().zip(four) {
                counts[usize::from(byte)] += 1;
            }
        }
        for &byte in rest {
            bytes[0][usize::from(byte)] += 1;
        }
        let mut litlen = [0; LITLEN_SYMBOLS];
        for counts in bytes {
            litlen.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        Self::with_end(litlen, [0; DISTANCE_SYMBOLS])
    }

    fn with_end(mut litlen: [u32; LITLEN_SYMBOLS], mut distance: [u32; DISTANCE_SYMBOLS]) -> Self {
        litlen[END_OF_BLOCK] = 1;
        if distance.iter().all(|count| *count == 0) {
            // A block has a distance code even if nothing uses it. Go makes one up for that, and counts its bits.
            distance[0] = 1;
        }
        Self { litlen, distance }
    }

    /// The bits that the symbols take in a code, without extra bits.
    pub(super) fn bits(&self, code: &Code) -> u64 {
        let sum = |counts: &[u32], lengths: &[u8]| {
            counts.iter().zip(lengths).map(|(&count, &len)| u64::from(count * u32::from(len))).sum::<u64>()
        };
        sum(&self.litlen, &code.litlen) + sum(&self.distance, &code.distance)
    }

    /// The extra bits of all lengths and distances; the same in any code.
    pub(super) fn extra_bits(&self) -> u64 {
        let lengths = self.litlen[END_OF_BLOCK + 1..].iter().zip(&LENGTHS);
        let distances = self.distance.iter().zip(&DISTANCES);
        lengths.chain(distances).map(|(&count, range)| u64::from(count * u32::from(range.extra_bits))).sum()
    }
}

/// The lengths of the two codes of a block; 0 for symbols that have no code.
#[derive(Debug)]
pub(super) struct Code {
    litlen: [u8; LITLEN_SYMBOLS],
    /// With a last one, of no length, for tokens that have no distance.
    distance: [u8; DISTANCE_SYMBOLS + 1],
}

impl Code {
    /// The code of fixed blocks (RFC 1951, section 3.2.6).
    pub(super) const FIXED: Self = {
        let mut litlen = [8; LITLEN_SYMBOLS];
        let mut symbol = 144;
        while symbol < 280 {
            litlen[symbol] = if symbol < END_OF_BLOCK { 9 } else { 7 };
            symbol += 1;
        }
        let mut distance = [5; DISTANCE_SYMBOLS + 1];
        distance[NO_DISTANCE] = 0;
        Self { litlen, distance }
    };

    fn new(counts: &Counts) -> Self {
        let mut code = Self { litlen: [0; LITLEN_SYMBOLS], distance: [0; DISTANCE_SYMBOLS + 1] };
        code_lengths(&counts.litlen, LONGEST_CODE, &mut code.litlen);
        code_lengths(&counts.distance, LONGEST_CODE, &mut code.distance[..DISTANCE_SYMBOLS]);
        code
    }

    pub(super) fn litlen_bits(&self) -> [Bits; LITLEN_SYMBOLS] {
        bits_of(&self.litlen)
    }

    pub(super) fn distance_bits(&self) -> [Bits; DISTANCE_SYMBOLS + 1] {
        bits_of(&self.distance)
    }
}

fn bits_of<const N: usize>(lengths: &[u8; N]) -> [Bits; N] {
    let codes = codes(lengths);
    std::array::from_fn(|symbol| Bits::new(codes[symbol], lengths[symbol].into()))
}

/// One symbol of the length code, with its extra bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    symbol: u8,
    extra: u8,
}

impl Step {
    /// Repeats the length before, 3 to 6 times.
    const AGAIN: u8 = 16;
    /// Repeats the length 0, 3 to 10 times.
    const ZEROS: u8 = 17;
    /// Repeats the length 0, 11 to 138 times.
    const MANY_ZEROS: u8 = 18;

    fn extra_bits(self) -> u32 {
        match self.symbol {
            Self::AGAIN => 2,
            Self::ZEROS => 3,
            Self::MANY_ZEROS => 7,
            _ => 0,
        }
    }
}

/// The codes of a dynamic block, and its header.
#[derive(Debug)]
pub(super) struct Dynamic {
    pub(super) code: Code,
    litlen_len: usize,
    distance_len: usize,
    /// The code in which the steps are written.
    length_code: [u8; LENGTH_CODE_SYMBOLS],
    /// How many lengths of that code are sent.
    length_code_len: usize,
    steps: Vec<Step>,
}

impl Dynamic {
    /// The counts in front of the header: HLIT, HDIST and HCLEN.
    const COUNT_BITS: [u32; 3] = [5, 5, 4];

    /// The bits of a length of the length code.
    const LENGTH_BITS: u32 = 3;

    pub(super) fn new(counts: &Counts) -> Self {
        let code = Code::new(counts);
        let litlen_len = used(&code.litlen);
        let distance_len = used(&code.distance);
        let all: Vec<u8> = [&code.litlen[..litlen_len], &code.distance[..distance_len]].concat();
        let steps = steps(&all);
        let mut frequencies = [0; LENGTH_CODE_SYMBOLS];
        for step in &steps {
            frequencies[usize::from(step.symbol)] += 1;
        }
        let mut length_code = [0; LENGTH_CODE_SYMBOLS];
        code_lengths(&frequencies, LONGEST_LENGTH_CODE, &mut length_code);
        let length_code_len = used(&LENGTH_CODE_ORDER.map(|symbol| length_code[symbol])).max(4);
        Self { code, litlen_len, distance_len, length_code, length_code_len, steps }
    }

    /// The bits of the header, with the type of the block.
    pub(super) fn header_bits(&self) -> u64 {
        let counts: u32 = 3 + Self::COUNT_BITS.iter().sum::<u32>();
        let steps = self
            .steps
            .iter()
            .map(|step| u64::from(self.length_code[usize::from(step.symbol)]) + u64::from(step.extra_bits()));
        u64::from(counts) + self.length_code_len as u64 * u64::from(Self::LENGTH_BITS) + steps.sum::<u64>()
    }

    /// Writes the header, without the type of the block.
    pub(super) fn write(&self, bits: &mut BitWriter, out: &mut Vec<u8>) {
        let counts = [self.litlen_len - 257, self.distance_len - 1, self.length_code_len - 4];
        let counts = counts.iter().zip(Self::COUNT_BITS).map(|(&count, len)| Bits::new(count as u64, len));
        let sent = &LENGTH_CODE_ORDER[..self.length_code_len];
        let lengths = sent.iter().map(|&symbol| Bits::new(self.length_code[symbol], Self::LENGTH_BITS));
        let codes = bits_of(&self.length_code);
        let steps = self
            .steps
            .iter()
            .map(|step| codes[usize::from(step.symbol)].then(Bits::new(step.extra, step.extra_bits())));
        bits.put_all(counts.chain(lengths).chain(steps), self.header_bits(), out);
    }
}

/// How many lengths are left when those at the end are dropped that are 0.
fn used(lengths: &[u8]) -> usize {
    lengths.iter().rposition(|length| *length > 0).map_or(0, |last| last + 1)
}

/// The steps in which Go says the lengths of both codes, which are taken as one sequence.
fn steps(lengths: &[u8]) -> Vec<Step> {
    let mut steps = Vec::with_capacity(lengths.len());
    for run in lengths.chunk_by(|one, next| one == next) {
        let (symbol, mut left) = (run[0], run.len());
        if symbol == 0 {
            while left >= 11 {
                let count = left.min(138);
                steps.push(Step { symbol: Step::MANY_ZEROS, extra: (count - 11) as u8 });
                left -= count;
            }
            if left >= 3 {
                steps.push(Step { symbol: Step::ZEROS, extra: (left - 3) as u8 });
                left = 0;
            }
        } else {
            steps.push(Step { symbol, extra: 0 });
            left -= 1;
            while left >= 3 {
                let count = left.min(6);
                steps.push(Step { symbol: Step::AGAIN, extra: (count - 3) as u8 });
                left -= count;
            }
        }
        steps.extend(std::iter::repeat_n(Step { symbol, extra: 0 }, left));
    }
    steps
}
