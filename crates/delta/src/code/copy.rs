//! The bytes inside matches: which differ from those that are expected, and by how much.
//!
//! Most differences inside a match are addresses that moved: little-endian fields of four bytes (or the low half of
//! eight) that grew by the same amount as others before them, or that point where others point which moved already.
//! So the model follows *fields*, which begin at a byte that differs, and keeps the amounts that it expects for each.

use super::arith::Coder;
use super::byte::{Bytes, Contexts, Expected};
use super::decision::{Decisions, hash};
use super::number::Numbers;

/// How many bytes in a row must be as expected before the rest of a run is one number.
const STREAK: u32 = 32;
/// Runs are counted in blocks of this many bytes; the last part is coded byte by byte, where contexts know more.
const BLOCK: usize = 16;

/// Bytes of the expected content that must stand before a piece (as contexts).
pub(super) const BEFORE: usize = 8;
/// Bytes of the expected content that must stand behind a piece.
pub(super) const BEHIND: usize = 4;

/// The amounts that are kept because they were the last ones.
const RECENT: usize = 4;
/// All amounts that may be expected of a field: by exact target, by near target, by its own value, and recent ones.
const GUESSES: usize = 3 + RECENT;

/// How long a field is.
const FIELD: u32 = 4;

/// The sizes of the tables, as powers of two: 4 MiB, 8 MiB, and two tables of 512 KiB.
const FLAG_BITS: u32 = 20;
const BYTE_BITS: u32 = 19;
const TARGET_BITS: u32 = 16;

/// Amounts by a key, with a check; forgets what another key needs the place of.
#[derive(Debug)]
struct Amounts {
    cells: Vec<(u32, u32)>,
}

impl Amounts {
    fn new() -> Self {
        Self { cells: vec![(0, 0); 1 << TARGET_BITS] }
    }

    #[inline]
    fn place(key: u32) -> (usize, u32) {
        let spread = key.wrapping_mul(0x9e37_79b1);
        ((spread >> (32 - TARGET_BITS)) as usize, key.wrapping_add(1).max(1))
    }

    #[inline]
    fn find(&self, key: u32) -> Option<u32> {
        let (place, check) = Self::place(key);
        let (found, amount) = self.cells[place];
        (found == check).then_some(amount)
    }

    fn put(&mut self, key: u32, amount: u32) {
        let (place, check) = Self::place(key);
        self.cells[place] = (check, amount);
    }
}

/// How far targets may lie from each other to be near, as a shift.
const NEAR: u32 = 8;

/// A field and what is expected of it.
#[derive(Clone, Copy, Debug, Default)]
struct Field {
    /// Bytes since its first one; from [`FIELD`] on it is over.
    age: u32,
    /// Its expected value.
    old: u32,
    /// What is known of its value.
    new: u32,
    /// The place that it points to if it is relative to itself, in the old content.
    target: u32,
    /// Old position minus new position.
    displacement: u32,
    /// Its values if it grew by the amounts that are expected; those without an opinion repeat the old value.
    guesses: [u32; GUESSES],
    /// Which of the guesses are opinions.
    known: u32,
}

/// The model of everything inside matches.
#[derive(Debug)]
pub(super) struct Copies {
    flags: Decisions<12, 25>,
    whole: Decisions<3, 7>,
    runs: Numbers<3, 7>,
    bytes: Bytes<12, 7, 39>,
    /// The last flags, 1 where a byte differed.
    history: u64,
    /// Bytes as expected, in a row.
    streak: u32,
    field: Field,
    recent: [u32; RECENT],
    exact: Amounts,
    near: Amounts,
    own: Amounts,
    /// How often each guess was right lately, as bits.
    hits: [u32; GUESSES],
    /// Bytes between the beginnings of the last fields.
    distance: u32,
    distances: [u32; 2],
    /// The last differences, latest in the low byte.
    differences: u32,
    /// The last bytes of the new content, latest in the low byte.
    last: u64,
    /// The last runs, as magnitudes, and whether pieces were whole.
    run: u32,
    wholes: u32,
}

/// A stretch of a match: where it is, and what is expected there with [`BEFORE`] and [`BEHIND`] bytes around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch<'a> {
    pub(super) new: u64,
    pub(super) old: u64,
    pub(super) expected: &'a [u8],
}

impl Copies {
    pub(super) fn new() -> Self {
        Self {
            flags: Decisions::new(FLAG_BITS, 1024, 256),
            whole: Decisions::new(10, 4, 1),
            runs: Numbers::new(14, 1),
            bytes: Bytes::new(BYTE_BITS),
            history: 0,
            streak: 0,
            field: Field { age: FIELD, ..Field::default() },
            recent: [0; RECENT],
            exact: Amounts::new(),
            near: Amounts::new(),
            own: Amounts::new(),
            hits: [0; GUESSES],
            distance: 0,
            distances: [0; 2],
            differences: 0,
            last: 0,
            run: 0,
            wholes: 0,
        }
    }

    /// Forgets what only holds inside one match.
    pub(super) fn begin(&mut self, last: u64) {
        self.field.age = FIELD;
        self.streak = 0;
        self.last = last;
    }

    /// The last eight bytes of the new content, latest in the low byte.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Codes the bytes of a stretch.
    pub(super) fn code(&mut self, coder: &mut impl Coder, stretch: Stretch<'_>, bytes: &mut [u8]) {
        let mut at = 0;
        // Where a difference is known to come at the latest.
        let mut latest = usize::MAX;
        while at < bytes.len() {
            if self.streak >= STREAK && latest == usize::MAX && bytes.len() - at >= BLOCK {
                let run = self.run(coder, &stretch.expected[BEFORE + at..], &mut bytes[at..]);
                at += run;
                self.skip(&bytes[..at], run);
                latest = (at + BLOCK).min(bytes.len()) - 1;
                continue;
            }
            let differs = self.byte(coder, &stretch, at, at == latest, &mut bytes[at]);
            if differs {
                latest = usize::MAX;
            }
            at += 1;
        }
    }

    /// Codes how many bytes are as expected: all, or a number of blocks.
    fn run(&mut self, coder: &mut impl Coder, expected: &[u8], bytes: &mut [u8]) -> usize {
        let expected = &expected[..bytes.len()];
        let same = if bytes == expected {
            bytes.len()
        } else {
            bytes.iter().zip(expected).take_while(|(one, two)| one == two).count()
        };
        let size = bytes.len().ilog2();
        let contexts =
            [hash(&[1, self.wholes & 15]), hash(&[2, size, self.wholes & 1]), hash(&[3, self.run, size])];
        let whole = self.whole.code(coder, same == bytes.len(), &contexts, self.wholes as usize & 3, 0);
        self.wholes = self.wholes << 1 | u32::from(whole);
        let run = if whole {
            bytes.len()
        } else {
            // The last block is known to have a difference, unless a part of a block follows that may have it.
            let most = (bytes.len() - 1) / BLOCK;
            let contexts = [0, hash(&[1, self.run]), hash(&[2, size])];
            let blocks = self.runs.code(coder, (same / BLOCK) as u64, most as u64, &contexts, 0);
            self.run = (blocks + 1).ilog2();
            blocks as usize * BLOCK
        };
        bytes[..run].copy_from_slice(&expected[..run]);
        run
    }

    /// Passes over a run at the end of `bytes`.
    fn skip(&mut self, bytes: &[u8], run: usize) {
        if run > 0 {
            self.history = self.history.checked_shl(run as u32).unwrap_or(0);
            self.distance = self.distance.saturating_add(run as u32);
            self.streak = self.streak.saturating_add(run as u32);
            for byte in &bytes[bytes.len().saturating_sub(8)..] {
                self.last = self.last << 8 | u64::from(*byte);
            }
        }
    }

    /// What is expected of a field that would begin here.
    fn expect(&self, old: u32, position: u32, displacement: u32) -> Field {
        let target = position.wrapping_add(old);
        let mut field =
            Field { age: 0, old, new: 0, target, displacement, guesses: [old; GUESSES], known: 0 };
        let shifts = [self.exact.find(target), self.near.find(target >> NEAR)];
        let amounts = [
            shifts[0].map(|shift| shift.wrapping_add(displacement)),
            shifts[1].map(|shift| shift.wrapping_add(displacement)),
            self.own.find(old),
        ];
        for (n, amount) in amounts.into_iter().enumerate() {
            if let Some(amount) = amount {
                field.guesses[n] = old.wrapping_add(amount);
                field.known |= 1 << n;
            }
        }
        for (n, amount) in self.recent.iter().enumerate() {
            field.guesses[3 + n] = old.wrapping_add(*amount);
        }
        field
    }

    /// Ends a field: its amount will be expected again.
    fn end_field(&mut self) {
        let field = self.field;
        let amount = field.new.wrapping_sub(field.old);
        for (hits, guess) in self.hits.iter_mut().zip(field.guesses) {
            *hits = *hits << 1 | u32::from(guess == field.new);
        }
        if amount == 0 {
            return;
        }
        let place = self.recent.iter().position(|recent| *recent == amount).unwrap_or(RECENT - 1);
        self.recent[..=place].rotate_right(1);
        self.recent[0] = amount;
        let shift = amount.wrapping_sub(field.displacement);
        self.exact.put(field.target, shift);
        self.near.put(field.target >> NEAR, shift);
        self.own.put(field.old, amount);
    }

    /// Codes one byte and says whether it differs; `must`: it is known to.
    fn byte(
        &mut self,
        coder: &mut impl Coder,
        stretch: &Stretch<'_>,
        at: usize,
        must: bool,
        byte: &mut u8,
    ) -> bool {
        let around = &stretch.expected[at..at + BEFORE + 1 + BEHIND];
        let old = around[BEFORE];
        let open = self.field.age < FIELD;
        let position = stretch.old.wrapping_add(at as u64) as u32;
        let field = if open {
            self.field
        } else {
            let ahead = u32::from_le_bytes([old, around[BEFORE + 1], around[BEFORE + 2], around[BEFORE + 3]]);
            self.expect(ahead, position, stretch.old.wrapping_sub(stretch.new) as u32)
        };
        let shift = 8 * field.age;
        let guesses = field.guesses.map(|guess| (guess >> shift) as u8);
        // Which guesses agree with what is known of the field, and which of them say that this byte differs.
        let below = (1_u32 << shift) - 1;
        let (mut agree, mut differ) = (0_u32, 0_u32);
        for (n, guess) in guesses.iter().enumerate() {
            agree |= u32::from((field.guesses[n] ^ field.new) & below == 0) << n;
            differ |= u32::from(*guess != old) << n;
        }
        let phase = if open { field.age } else { 0 };
        let position = (stretch.new.wrapping_add(at as u64)) as u32;
        let differs = must || {
            let contexts = self.flag_contexts(around, &field, agree, differ, phase, position);
            let first =
                (phase as usize) << 8 | (self.history as usize & 7) << 5 | (differ & agree & 31) as usize;
            let second = (position as usize & 7) << 3 | (self.streak.min(31) as usize) >> 2;
            self.flags.code(coder, *byte != old, &contexts, first, second)
        };
        if differs {
            let contexts = self.byte_contexts(around, &field, &guesses, agree, phase, position);
            let difference = self.bytes.code(coder, byte.wrapping_sub(old), &contexts);
            *byte = old.wrapping_add(difference);
            self.differences = self.differences << 8 | u32::from(difference);
        } else {
            *byte = old;
        }
        self.follow(field, open, differs, *byte);
        differs
    }

    /// Takes note of a byte that is now known.
    fn follow(&mut self, field: Field, open: bool, differs: bool, byte: u8) {
        self.history = self.history << 1 | u64::from(differs);
        self.last = self.last << 8 | u64::from(byte);
        self.streak = if differs { 0 } else { self.streak + 1 };
        self.distance = self.distance.saturating_add(1);
        if differs && !open {
            self.field = field;
            self.distances = [self.distance, self.distances[0]];
            self.distance = 0;
        }
        if open || differs {
            self.field.new |= u32::from(byte) << (8 * self.field.age);
            self.field.age += 1;
            if self.field.age == FIELD {
                self.end_field();
            }
        }
    }

    #[inline]
    fn flag_contexts(
        &self,
        around: &[u8],
        field: &Field,
        agree: u32,
        differ: u32,
        phase: u32,
        position: u32,
    ) -> [u32; 12] {
        let history = self.history as u32;
        let old = |at: isize| u32::from(around[(BEFORE as isize + at) as usize]);
        let before = old(-1) << 8 | old(-2);
        let columns = (self.history >> 7 & 1
            | self.history >> 14 & 2
            | self.history >> 21 & 4
            | self.history >> 28 & 8
            | self.history >> 19 & 16
            | self.history >> 9 & 32) as u32;
        let distance = self.distance.min(255);
        [
            hash(&[1, history & 0xffff]),
            hash(&[2, before << 8 | old(0), phase]),
            hash(&[3, old(-1) << 8 | old(0), history & 0xff]),
            hash(&[4, before << 8 | old(-3), phase]),
            hash(&[5, agree, differ, phase]),
            hash(&[6, position & 7, columns, history & 3]),
            hash(&[7, distance, self.distances[0].min(255), history & 1]),
            hash(&[8, old(1) << 16 | old(2) << 8 | old(3), phase]),
            hash(&[9, field.known & 7, differ & agree & 15, phase, old(-1)]),
            hash(&[10, old(0), phase, differ & agree, self.differences & 255]),
            hash(&[11, before << 8 | old(-3), old(0) << 8 | old(-4), phase]),
            hash(&[12, (self.last & 0xff_ffff) as u32, phase, old(0)]),
        ]
    }

    #[inline]
    fn byte_contexts(
        &self,
        around: &[u8],
        field: &Field,
        guesses: &[u8; GUESSES],
        agree: u32,
        phase: u32,
        position: u32,
    ) -> Contexts<12, 7> {
        let old = |at: isize| u32::from(around[(BEFORE as isize + at) as usize]);
        let expected = std::array::from_fn(|n| Expected {
            byte: guesses[n].wrapping_sub(around[BEFORE]),
            trust: ((agree >> n & 1) << 7 | (field.known >> n & 1) << 6 | phase << 4 | self.hits[n] & 15)
                as usize,
        });
        let guess = |n: usize| u32::from(expected[n].byte);
        let agreeing = |n: usize| (agree >> n & 1) << 8 | guess(n);
        let difference = self.differences & 255;
        let latest = self.last as u32;
        Contexts {
            hashes: [
                hash(&[1, phase]),
                hash(&[2, difference, phase]),
                hash(&[3, old(0), phase]),
                hash(&[4, old(0), old(-1), phase]),
                hash(&[5, old(0), latest & 0xff, phase]),
                hash(&[6, old(0), latest & 0xffff]),
                hash(&[7, agreeing(3), agreeing(4), phase]),
                hash(&[8, agreeing(0), agreeing(1), agreeing(2), phase]),
                hash(&[9, self.differences & 0xffff, phase, old(-1)]),
                hash(&[10, old(0), old(1), difference]),
                hash(&[11, old(-1) << 8 | old(-2), position & 7, phase]),
                hash(&[12, agreeing(3), agreeing(0), old(-1), phase]),
            ],
            expected,
            selector: (phase << 6 | (self.history as u32 & 7) << 3 | position & 7) as usize,
            excluded: Some(0),
        }
    }
}
