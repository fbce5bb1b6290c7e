//! The block that is being collected: its symbols, where it ends, and how it is written.
//!
//! A block is stored, or written with the fixed codes, or with codes of its own, whichever is estimated to be shortest.
//! Estimate and order of preference are those of `trees.c` (zlib, zlib licence). GNU gzip may also end a block before it
//! is full; only the facts are taken from there.

use super::bits::BitWriter;
use super::tree::{Code, LITLEN_SYMBOLS, MAX_BITS, TreeBuilder, number_by_lengths};

/// The symbol that ends a block.
pub(super) const END: usize = 256;

/// The length symbols, with those for distances below.
const LENGTH_SYMBOLS: usize = 29;
pub(super) const DISTANCE_SYMBOLS: usize = 30;

/// Symbols of the code in which the lengths of the other two are written.
pub(super) const STEP_SYMBOLS: usize = 19;
const MAX_STEP_BITS: usize = 7;

/// The order in which the lengths of that code are written.
pub(super) const STEP_ORDER: [usize; STEP_SYMBOLS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The shortest copy.
pub(super) const MIN_COPY: usize = 3;

/// The longest copy.
pub(super) const MAX_COPY: usize = 258;

/// The most bytes that one stored block holds.
pub(super) const MAX_STORED: usize = 0xffff;

/// Two codes, one for literals and lengths, one for distances.
#[derive(Debug)]
struct Codes {
    litlen: [Code; LITLEN_SYMBOLS],
    distance: [Code; DISTANCE_SYMBOLS],
}

/// How a block can be written.
const STORED: u32 = 0;
const FIXED: u32 = 1;
const DYNAMIC: u32 = 2;

/// A block that is being collected.
#[derive(Debug)]
pub(super) struct Block {
    /// `distance << 16 | length - MIN_COPY`, or a literal with distance 0.
    symbols: Box<[u32]>,
    count: usize,
    /// The number of symbols at which the block is full.
    limit: usize,
    ends_early: bool,
    litlen: [u16; LITLEN_SYMBOLS],
    distance: [u16; DISTANCE_SYMBOLS],
    builder: TreeBuilder,
    codes: Codes,
    fixed: Codes,
}

/// A copy, with its length above [`MIN_COPY`] and its distance minus one, as [`Block`] keeps it.
#[inline(always)]
pub(super) fn copy_symbol(excess: u8, minus_one: u16) -> u32 {
    (u32::from(minus_one) + 1) << 16 | u32::from(excess)
}

/// [`Block::ends_early`] is asked each time this many symbols were added.
const ASK_EVERY: usize = 0x1000;

impl Block {
    /// A block that is full after `limit` symbols, or, if `ends_early`, when it seems to compress so well that it would
    /// not get better.
    pub(super) fn new(limit: usize, ends_early: bool) -> Self {
        let none = || Codes {
            litlen: [Code::default(); LITLEN_SYMBOLS],
            distance: [Code::default(); DISTANCE_SYMBOLS],
        };
        let mut block = Self {
            symbols: vec![0; limit].into_boxed_slice(),
            count: 0,
            limit,
            ends_early,
            litlen: [0; LITLEN_SYMBOLS],
            distance: [0; DISTANCE_SYMBOLS],
            builder: TreeBuilder::new(),
            codes: none(),
            fixed: fixed_codes(),
        };
        block.clear();
        block
    }

    /// Forgets all symbols.
    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.litlen.fill(0);
        self.distance.fill(0);
        self.litlen[END] = 1;
    }

    /// What was added since the block began.
    pub(super) fn symbols(&self) -> &[u32] {
        &self.symbols[..self.count]
    }

    /// Adds a literal and says whether the block is full; `taken` are the bytes of content since its start.
    #[inline(always)]
    pub(super) fn literal(&mut self, byte: u8, taken: isize) -> bool {
        self.litlen[usize::from(byte)] += 1;
        self.push(u32::from(byte), taken)
    }

    /// Adds a copy of [`MIN_COPY`] to [`MAX_COPY`] bytes and says whether the block is full.
    #[inline(always)]
    pub(super) fn copy(&mut self, len: usize, distance: usize, taken: isize) -> bool {
        let excess = (len - MIN_COPY) as u8;
        self.litlen[END + 1 + usize::from(SYMBOL_OF_LENGTH[usize::from(excess)])] += 1;
        let minus_one = distance as u16 - 1;
        self.distance[symbol_of_distance(minus_one)] += 1;
        self.push(copy_symbol(excess, minus_one), taken)
    }

    #[inline(always)]
    fn push(&mut self, symbol: u32, taken: isize) -> bool {
        self.symbols[self.count] = symbol;
        self.count += 1;
        self.count == self.limit
            || self.ends_early && self.count.is_multiple_of(ASK_EVERY) && self.is_good(taken)
    }

    /// Whether less than half of the symbols are copies and an upper bound of the compressed size is still below half
    /// of the content.
    #[cold]
    fn is_good(&self, taken: isize) -> bool {
        let (mut bits, mut copies) = (8 * self.count, 0);
        for (range, &count) in DISTANCES.iter().zip(&self.distance) {
            bits += usize::from(count) * (5 + usize::from(range.extra_bits));
            copies += usize::from(count);
        }
        copies < self.count / 2 && ((bits / 8) as isize) < taken / 2
    }

    /// Writes the block and begins the next one. `content` is what it stands for, as long as it is still in the window.
    pub(super) fn flush(
        &mut self,
        content: Option<&[u8]>,
        last: bool,
        bits: &mut BitWriter,
        out: &mut Vec<u8>,
    ) {
        let litlen = self.builder.build(&self.litlen, MAX_BITS, &mut self.codes.litlen);
        let distance = self.builder.build(&self.distance, MAX_BITS, &mut self.codes.distance);
        let table =
            Table::new(&mut self.builder, &self.codes.litlen[..litlen], &self.codes.distance[..distance]);

        // Both in bytes, with the three bits of the block's type.
        let dynamic = (self.cost(&self.codes) + table.cost() + 3).div_ceil(8);
        let fixed = (self.cost(&self.fixed) + 3).div_ceil(8);
        let best = dynamic.min(fixed);
        let header = |kind: u32| kind << 1 | u32::from(last);
        match content.filter(|content| content.len() + 4 <= best) {
            Some(content) => store(content, last, bits, out),
            None if fixed <= dynamic => {
                bits.put(header(FIXED), 3, out);
                write(self.symbols(), &self.fixed, bits, out);
            }
            None => {
                bits.put(header(DYNAMIC), 3, out);
                table.write(litlen, distance, bits, out);
                write(self.symbols(), &self.codes, bits, out);
            }
        }
        if last {
            bits.align(out);
        }
        self.clear();
    }

    /// How many bits the symbols take, end included.
    fn cost(&self, codes: &Codes) -> usize {
        let plain = cost(&self.litlen, &codes.litlen) + cost(&self.distance, &codes.distance);
        let extra = |counts: &[u16], ranges: &[Range]| -> usize {
            counts
                .iter()
                .zip(ranges)
                .map(|(&count, range)| usize::from(count) * usize::from(range.extra_bits))
                .sum()
        };
        plain + extra(&self.litlen[END + 1..], &LENGTHS) + extra(&self.distance, &DISTANCES)
    }
}

fn cost(counts: &[u16], codes: &[Code]) -> usize {
    counts.iter().zip(codes).map(|(&count, code)| usize::from(count) * usize::from(code.len)).sum()
}

/// Writes one stored block of at most [`MAX_STORED`] bytes.
pub(super) fn store(content: &[u8], last: bool, bits: &mut BitWriter, out: &mut Vec<u8>) {
    debug_assert!(content.len() <= MAX_STORED, "a stored block has a length of 16 bits");
    bits.put(STORED << 1 | u32::from(last), 3, out);
    bits.align(out);
    let len = content.len() as u16;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&(!len).to_le_bytes());
    out.extend_from_slice(content);
}

/// Writes symbols and the end of the block.
fn write(symbols: &[u32], codes: &Codes, bits: &mut BitWriter, out: &mut Vec<u8>) {
    for &symbol in symbols {
        let (distance, value) = (symbol >> 16, symbol as usize & 0xff);
        if distance == 0 {
            let code = codes.litlen[value];
            bits.put(u32::from(code.bits), u32::from(code.len), out);
            continue;
        }
        let length = usize::from(SYMBOL_OF_LENGTH[value]);
        LENGTHS[length].put(codes.litlen[END + 1 + length], value as u16, bits, out);
        let minus_one = (distance - 1) as u16;
        let distance = symbol_of_distance(minus_one);
        DISTANCES[distance].put(codes.distance[distance], minus_one, bits, out);
    }
    let end = codes.litlen[END];
    bits.put(u32::from(end.bits), u32::from(end.len), out);
}

/// The codes of a block, as they are written before it (RFC 1951, section 3.2.7).
struct Table {
    steps: Vec<Step>,
    codes: [Code; STEP_SYMBOLS],
    counts: [u16; STEP_SYMBOLS],
}

/// A length, or one of three ways to repeat one.
struct Step {
    symbol: usize,
    extra: u32,
    extra_bits: u32,
}

pub(super) const REPEAT: usize = 16;
pub(super) const FEW_ZEROS: usize = 17;
pub(super) const MANY_ZEROS: usize = 18;

impl Table {
    fn new(builder: &mut TreeBuilder, litlen: &[Code], distance: &[Code]) -> Self {
        let mut steps = Vec::with_capacity(litlen.len() + distance.len());
        for codes in [litlen, distance] {
            // A run does not go on from one code into the other, though it could.
            for run in codes.chunk_by(|a, b| a.len == b.len) {
                push_run(usize::from(run[0].len), run.len(), &mut steps);
            }
        }
        let mut counts = [0; STEP_SYMBOLS];
        steps.iter().for_each(|step: &Step| counts[step.symbol] += 1);
        let mut codes = [Code::default(); STEP_SYMBOLS];
        builder.build(&counts, MAX_STEP_BITS, &mut codes);
        Self { steps, codes, counts }
    }

    /// How many lengths of the code of steps are written.
    fn order(&self) -> usize {
        let last = STEP_ORDER.iter().rposition(|&symbol| self.codes[symbol].len > 0);
        last.map_or(0, |last| last + 1).max(4)
    }

    fn cost(&self) -> usize {
        let extra: u32 = self.steps.iter().map(|step| step.extra_bits).sum();
        5 + 5 + 4 + 3 * self.order() + cost(&self.counts, &self.codes) + extra as usize
    }

    fn write(&self, litlen: usize, distance: usize, bits: &mut BitWriter, out: &mut Vec<u8>) {
        bits.put((litlen - 257) as u32, 5, out);
        bits.put((distance - 1) as u32, 5, out);
        bits.put((self.order() - 4) as u32, 4, out);
        for &symbol in &STEP_ORDER[..self.order()] {
            bits.put(u32::from(self.codes[symbol].len), 3, out);
        }
        for step in &self.steps {
            let code = self.codes[step.symbol];
            bits.put(
                u32::from(code.bits) | step.extra << code.len,
                u32::from(code.len) + step.extra_bits,
                out,
            );
        }
    }
}

/// Says `count` times `length`.
fn push_run(length: usize, mut count: usize, steps: &mut Vec<Step>) {
    let plain = |symbol| Step { symbol, extra: 0, extra_bits: 0 };
    if length == 0 {
        while count >= 3 {
            let part = count.min(138);
            let few = part <= 10;
            steps.push(match few {
                true => Step { symbol: FEW_ZEROS, extra: part as u32 - 3, extra_bits: 3 },
                false => Step { symbol: MANY_ZEROS, extra: part as u32 - 11, extra_bits: 7 },
            });
            count -= part;
        }
    } else if count > 3 {
        steps.push(plain(length));
        count -= 1;
        while count >= 3 {
            let part = count.min(6);
            steps.push(Step { symbol: REPEAT, extra: part as u32 - 3, extra_bits: 2 });
            count -= part;
        }
    }
    steps.extend((0..count).map(|_| plain(length)));
}

/// A symbol that stands for a range of values: the first of them, and how many extra bits choose one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) extra_bits: u8,
}

impl Range {
    /// Writes the code of the symbol and the bits that choose `value`.
    #[inline(always)]
    fn put(self, code: Code, value: u16, bits: &mut BitWriter, out: &mut Vec<u8>) {
        let extra = u32::from(value - self.first);
        bits.put(
            u32::from(code.bits) | extra << code.len,
            u32::from(code.len) + u32::from(self.extra_bits),
            out,
        );
    }
}

/// The lengths, minus [`MIN_COPY`], behind the symbols from 257 on.
pub(super) const LENGTHS: [Range; LENGTH_SYMBOLS] = lengths();

/// The distances, minus one.
pub(super) const DISTANCES: [Range; DISTANCE_SYMBOLS] = distances();

/// The length symbol, counted from 257, for every length minus [`MIN_COPY`].
static SYMBOL_OF_LENGTH: [u8; 256] = symbol_of_length();

/// The distance symbol of a distance minus one: each power of two is cut into two halves with a symbol each.
#[inline(always)]
fn symbol_of_distance(minus_one: u16) -> usize {
    if minus_one < 4 {
        return usize::from(minus_one);
    }
    let power = minus_one.ilog2();
    2 * power as usize + usize::from(minus_one >> (power - 1) & 1)
}

const fn lengths() -> [Range; LENGTH_SYMBOLS] {
    let mut ranges = [Range { first: 255, extra_bits: 0 }; LENGTH_SYMBOLS];
    let mut first = 0;
    let mut symbol = 0;
    while symbol < LENGTH_SYMBOLS - 1 {
        let extra_bits = if symbol < 8 { 0 } else { symbol as u8 / 4 - 1 };
        ranges[symbol] = Range { first, extra_bits };
        first += 1 << extra_bits;
        symbol += 1;
    }
    ranges
}

const fn distances() -> [Range; DISTANCE_SYMBOLS] {
    let mut ranges = [Range { first: 0, extra_bits: 0 }; DISTANCE_SYMBOLS];
    let mut first = 0;
    let mut symbol = 0;
    while symbol < DISTANCE_SYMBOLS {
        let extra_bits = if symbol < 4 { 0 } else { symbol as u8 / 2 - 1 };
        ranges[symbol] = Range { first, extra_bits };
        first += 1 << extra_bits;
        symbol += 1;
    }
    ranges
}

const fn symbol_of_length() -> [u8; 256] {
    let mut symbols = [0; 256];
    let mut symbol = 0;
    while symbol < LENGTH_SYMBOLS {
        let mut value = LENGTHS[symbol].first as usize;
        while value < 256 {
            symbols[value] = symbol as u8;
            value += 1;
        }
        symbol += 1;
    }
    symbols
}

/// The length of a literal's or a length's code in fixed blocks.
pub(super) fn fixed_len(symbol: usize) -> u8 {
    match symbol {
        144..=255 => 9,
        256..=279 => 7,
        _ => 8,
    }
}

/// The codes of fixed blocks (RFC 1951, section 3.2.6).
fn fixed_codes() -> Codes {
    // Two length symbols that never occur have codes too, and they are the last of theirs.
    let mut litlen = [Code::default(); LITLEN_SYMBOLS + 2];
    for (symbol, code) in litlen.iter_mut().enumerate() {
        code.len = fixed_len(symbol);
    }
    number_by_lengths(&mut litlen);
    let mut distance = [Code { bits: 0, len: 5 }; DISTANCE_SYMBOLS];
    number_by_lengths(&mut distance);
    let mut codes = Codes { litlen: [Code::default(); LITLEN_SYMBOLS], distance };
    codes.litlen.copy_from_slice(&litlen[..LITLEN_SYMBOLS]);
    codes
}
