//! The sequences of a block: how many literals, then how long a match, and how far back.
//!
//! The choice of tables is klauspost/compress's (BSD-3-Clause); the form is RFC 8878's, section 3.1.1.3.2.

use std::sync::LazyLock;

use super::bits::Bits;
use super::fse::{MAX_LOG, MAX_SYMBOLS, State, Table, table_log};

/// The shortest match that the format knows.
pub(super) const MIN_MATCH: usize = 3;

/// Literals that are followed by a match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    /// How many literals.
    pub(super) literals: u32,
    /// The length of the match, less [`MIN_MATCH`].
    pub(super) length: u32,
    /// The distance plus 3, or 1 to 3 for one of the last three distances.
    pub(super) offset: u32,
}

/// The extra bits of each code of literal lengths, and of match lengths.
const LITERAL_BITS: [u8; 36] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13,
    14, 15, 16,
];
const MATCH_BITS: [u8; 53] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1,
    1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
];
const LITERAL_CODES: [u8; 64] = codes(&LITERAL_BITS);
const MATCH_CODES: [u8; 128] = codes(&MATCH_BITS);

/// The code of each small value.
const fn codes<const N: usize>(bits: &[u8]) -> [u8; N] {
    let mut codes = [0; N];
    let (mut code, mut next, mut value) = (0, 1 << bits[0], 0);
    while value < N {
        if value == next {
            code += 1;
            next += 1 << bits[code];
        }
        codes[value] = code as u8;
        value += 1;
    }
    codes
}

fn literal_code(literals: u32) -> u8 {
    LITERAL_CODES.get(literals as usize).copied().unwrap_or_else(|| literals.ilog2() as u8 + 19)
}

fn match_code(length: u32) -> u8 {
    MATCH_CODES.get(length as usize).copied().unwrap_or_else(|| length.ilog2() as u8 + 36)
}

/// About how many bits a match takes with the tables that every decoder knows.
pub(super) fn match_cost(offset: u32, length: u32) -> u32 {
    let (offset, length) = (offset.ilog2() as u8, match_code(length));
    let [_, offsets, matches] = &*PREDEFINED;
    let extra = u32::from(offset) + u32::from(MATCH_BITS[usize::from(length)]);
    extra + offsets.least_bits(offset) + matches.least_bits(length)
}

/// The tables that every decoder knows, by [`Kind`].
static PREDEFINED: LazyLock<[Table; 3]> = LazyLock::new(|| {
    let literals = [
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1,
        -1, -1, -1,
    ];
    let offsets =
        [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1];
    let mut matches = [1; 53];
    matches[1..9].copy_from_slice(&[4, 3, 2, 2, 2, 2, 2, 2]);
    matches[46..].fill(-1);
    [Table::new(&literals, 6), Table::new(&offsets, 5), Table::new(&matches, 6)]
});

/// What a table is for, in the order in which tables are written.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Literals = 0,
    Offsets = 1,
    Matches = 2,
}

const KINDS: [Kind; 3] = [Kind::Literals, Kind::Offsets, Kind::Matches];

/// The codes of a sequence, by [`Kind`].
type Codes = [u8; 3];

/// Writes the sequences of block after block.
#[derive(Debug)]
pub(super) struct Coder {
    /// The tables of the last block, if the next may use them again.
    previous: [Option<Box<Table>>; 3],
    codes: Vec<Codes>,
}

/// The table that a block uses, and how the decoder gets it.
enum Choice {
    Predefined,
    /// Of the one symbol that occurs.
    Constant(Box<Table>),
    New(Box<Table>),
    Previous,
}

/// The tables that a block used: what [`Coder::keep`] takes.
pub(super) struct Used([Choice; 3]);

impl Coder {
    pub(super) fn new() -> Self {
        Self { previous: [const { None }; 3], codes: Vec::new() }
    }

    /// Appends the section of sequences, of which there are some. The tables are kept only when [`Coder::keep`] is
    /// called. `None` when the encoder fails.
    pub(super) fn write(&mut self, sequences: &[Sequence], out: &mut Vec<u8>) -> Option<Used> {
        write_count(sequences.len(), out);
        let mut counts = [[0_u32; MAX_SYMBOLS]; 3];
        self.codes.clear();
        self.codes.extend(sequences.iter().map(|sequence| {
            let codes =
                [literal_code(sequence.literals), sequence.offset.ilog2() as u8, match_code(sequence.length)];
            counts.iter_mut().zip(codes).for_each(|(counts, code)| counts[usize::from(code)] += 1);
            codes
        }));
        let choices = KINDS.map(|kind| self.choose(kind, &counts[kind as usize]));
        let [Some(literals), Some(offsets), Some(matches)] = choices else { return None };
        let used = Used([literals, offsets, matches]);
        let modes = used.0.iter().fold(0, |modes, choice| modes << 2 | choice.mode());
        out.push(modes << 2);
        for (kind, choice) in KINDS.iter().zip(&used.0) {
            match choice {
                Choice::Constant(_) => out.push(self.codes[0][*kind as usize]),
                Choice::New(table) => table.write_shares(out),
                Choice::Predefined | Choice::Previous => {}
            }
        }
        self.write_bits(sequences, &used, out)?;
        Some(used)
    }

    /// Takes note that the decoder has seen the tables.
    pub(super) fn keep(&mut self, used: Used) {
        for (previous, choice) in self.previous.iter_mut().zip(used.0) {
            match choice {
                Choice::New(table) => *previous = Some(table),
                Choice::Previous => {}
                Choice::Constant(_) | Choice::Predefined => *previous = None,
            }
        }
    }

    fn choose(&self, kind: Kind, counts: &[u32; MAX_SYMBOLS]) -> Option<Choice> {
        let total = self.codes.len() as u32;
        let largest = counts.iter().rposition(|count| *count > 0)?;
        if counts[largest] == total {
            return Some(Choice::Constant(Box::new(Table::constant())));
        }
        let counts = &counts[..=largest];
        let log = table_log(total, total.ilog2() + 1, largest as u32, MAX_LOG);
        let table = Table::of_counts(counts, total, log)?;
        let new = table.cost(counts).wrapping_add(table.header_cost());
        let new = new.wrapping_add(new.wrapping_add(256) >> 4);
        let predefined = PREDEFINED[kind as usize].cost(counts);
        let previous = self.previous[kind as usize].as_ref().map_or(u32::MAX, |table| table.cost(counts));
        Some(if predefined <= previous && predefined <= new {
            Choice::Predefined
        } else if previous <= new {
            Choice::Previous
        } else {
            Choice::New(Box::new(table))
        })
    }

    /// Writes the last sequence first, as the decoder reads from the end.
    fn write_bits(&self, sequences: &[Sequence], used: &Used, out: &mut Vec<u8>) -> Option<()> {
        let table = |kind: Kind| match &used.0[kind as usize] {
            Choice::Constant(table) | Choice::New(table) => Some(&**table),
            Choice::Predefined => Some(&PREDEFINED[kind as usize]),
            Choice::Previous => self.previous[kind as usize].as_deref(),
        };
        let (literals, offsets, matches) =
            (table(Kind::Literals)?, table(Kind::Offsets)?, table(Kind::Matches)?);
        let mut all = sequences.iter().zip(&self.codes).rev();
        let (sequence, [literal, offset, length]) = all.next()?;
        let mut bits = Bits::new(out);
        let mut literal_state = State::new(literals, *literal);
        let mut offset_state = State::new(offsets, *offset);
        let mut match_state = State::new(matches, *length);
        put_extra(sequence, &[*literal, *offset, *length], &mut bits);
        for (sequence, codes) in all {
            bits.spill();
            let [literal, offset, length] = *codes;
            offset_state.step(offsets, offset, &mut bits);
            match_state.step(matches, length, &mut bits);
            literal_state.step(literals, literal, &mut bits);
            bits.spill();
            put_extra(sequence, codes, &mut bits);
        }
        bits.spill();
        match_state.finish(matches, &mut bits);
        offset_state.finish(offsets, &mut bits);
        literal_state.finish(literals, &mut bits);
        bits.close();
        Some(())
    }
}

impl Choice {
    fn mode(&self) -> u8 {
        match self {
            Self::Predefined => 0,
            Self::Constant(_) => 1,
            Self::New(_) => 2,
            Self::Previous => 3,
        }
    }
}

/// Writes the bits that the codes leave open: at most 16, 16 and 27.
#[inline(always)]
fn put_extra(sequence: &Sequence, codes: &Codes, bits: &mut Bits<'_>) {
    let [literal, offset, length] = *codes;
    let put = |bits: &mut Bits<'_>, value: u32, len: u8| {
        bits.put(u64::from(value & ((1 << len) - 1)), u32::from(len));
    };
    put(bits, sequence.literals, LITERAL_BITS[usize::from(literal)]);
    put(bits, sequence.length, MATCH_BITS[usize::from(length)]);
    bits.spill();
    put(bits, sequence.offset, offset);
}

fn write_count(count: usize, out: &mut Vec<u8>) {
    const LONG: usize = 0x7f00;
    match count {
        0..128 => out.push(count as u8),
        128..LONG => out.extend_from_slice(&[128 + (count >> 8) as u8, count as u8]),
        _ => {
            out.push(255);
            out.extend_from_slice(&((count - LONG) as u16).to_le_bytes());
        }
    }
}
