//! The bytes inside matches: which differ from those that are expected, and how.

use super::arith::Coder;
use super::byte::{Bytes, Contexts, Expected};
use super::decision::{Decisions, hash};
use super::field::{Field, Fields, GUESSES, Opinions};
use super::history::{learn, probability};
use super::logistic::stretch;
use super::number::Numbers;
use super::pace::Pace;
use crate::common::common_prefix;

/// Bytes of the expected content that must stand before a stretch (as contexts).
pub(super) const BEFORE: usize = 8;
/// Bytes of the expected content that must stand behind a stretch.
pub(super) const BEHIND: usize = 4;

/// How long the small table averages that decides alone where a difference is unlikely.
const PLACID_LIMIT: u32 = 1000;

/// The sizes of the tables that are the same at each pace, as powers of two: 1 MiB and 256 KiB.
const PLACID_BITS: u32 = 18;
const RIGHT_BITS: u32 = 16;

/// The model of everything inside matches.
#[derive(Debug)]
pub(super) struct Copies {
    pace: &'static Pace,
    /// Is the rest of the stretch as expected? If not, how many blocks are?
    whole: Decisions<3, 8>,
    runs: Numbers<3, 8>,
    /// How likely a byte differs, by a few bytes and flags before it.
    placid: Vec<u32>,
    /// Does a byte differ? Is it as the best guess says? If not, what is it?
    flags: Decisions<12, 32>,
    right: Decisions<11, 24>,
    bytes: Bytes<12, GUESSES, 40>,
    fields: Fields,
    field: Field,
    /// The last bytes, latest in the lowest bit: whether they differed.
    differed: u64,
    /// The last guesses, likewise: whether they were right.
    rights: u32,
    /// Bytes as expected, in a row.
    streak: u32,
    /// Bytes since the last field began, and between the last two.
    distance: u32,
    distances: [u32; 2],
    /// The last differences, latest in the low byte.
    differences: u32,
    /// The last bytes of the new content, latest in the low byte.
    last: u64,
    /// The magnitude of the last run, and which stretches ran to their end.
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

/// One byte of a stretch, and all that its contexts are made of.
#[derive(Clone, Copy, Debug)]
struct Spot<'a> {
    /// What is expected, with [`BEFORE`] and [`BEHIND`] bytes around it.
    around: &'a [u8],
    /// The place in the new content.
    position: u32,
    field: &'a Field,
    opinions: Opinions,
    /// How many bytes of a field are known, which is 0 outside of fields.
    phase: u32,
}

impl Spot<'_> {
    /// The byte that is expected `at` bytes further on.
    #[inline]
    fn old(&self, at: isize) -> u32 {
        u32::from(self.around[(BEFORE as isize + at) as usize])
    }

    /// The two bytes before it.
    #[inline]
    fn before(&self) -> u32 {
        self.old(-1) << 8 | self.old(-2)
    }

    /// The difference that a guess says, and whether it agrees with what is known.
    #[inline]
    fn guess(&self, n: usize) -> u32 {
        u32::from(self.opinions.bytes[n].wrapping_sub(self.around[BEFORE]))
            | (self.opinions.agree >> n & 1) << 8
    }
}

impl Copies {
    pub(super) fn new(pace: &'static Pace) -> Self {
        Self {
            pace,
            whole: Decisions::new(10, 4, 1),
            runs: Numbers::new(14, 1),
            placid: vec![1 << 31; 1 << PLACID_BITS],
            flags: Decisions::new(pace.flag_bits, 1024, 256),
            right: Decisions::new(RIGHT_BITS, 512, 64),
            bytes: Bytes::new(pace.byte_bits),
            fields: Fields::new(),
            field: Field::over(),
            differed: 0,
            rights: 0,
            streak: 0,
            distance: 0,
            distances: [0; 2],
            differences: 0,
            last: 0,
            run: 0,
            wholes: 0,
        }
    }

    /// Begins a match; `last` are the bytes before it.
    pub(super) fn begin(&mut self, last: u64) {
        self.field = Field::over();
        self.streak = self.pace.streak - self.pace.first_streak;
        self.last = last;
    }

    /// Codes the bytes of a stretch.
    pub(super) fn code(&mut self, coder: &mut impl Coder, stretch: Stretch<'_>, bytes: &mut [u8]) {
        let block = self.pace.block;
        let mut at = 0;
        // Where a difference is known to come at the latest.
        let mut latest = None;
        while at < bytes.len() {
            if self.streak >= self.pace.streak && latest.is_none() && bytes.len() - at >= block {
                let run = self.run(coder, &stretch.expected[BEFORE + at..], &mut bytes[at..]);
                at += run;
                self.pass(&bytes[..at], run);
                latest = Some((at + block).min(bytes.len()) - 1);
                continue;
            }
            if self.byte(coder, &stretch, at, latest == Some(at), &mut bytes[at]) {
                latest = None;
            }
            at += 1;
        }
    }

    /// Codes how many bytes are as expected: all, or a number of blocks.
    fn run(&mut self, coder: &mut impl Coder, expected: &[u8], bytes: &mut [u8]) -> usize {
        let expected = &expected[..bytes.len()];
        let same = common_prefix(bytes, expected);
        let size = bytes.len().ilog2();
        let contexts =
            [hash(&[1, self.wholes & 15]), hash(&[2, size, self.wholes & 1]), hash(&[3, self.run, size])];
        let whole = self.whole.code(coder, same == bytes.len(), &contexts, self.wholes as usize & 3, 0);
        self.wholes = self.wholes << 1 | u32::from(whole);
        let run = if whole {
            bytes.len()
        } else {
            // At least one byte is left, for the difference.
            let block = self.pace.block;
            let most = (bytes.len() - 1) / block;
            let contexts = [0, hash(&[1, self.run]), hash(&[2, size])];
            let blocks = self.runs.code(coder, (same / block) as u64, most as u64, &contexts, 0);
            self.run = (blocks + 1).ilog2();
            blocks as usize * block
        };
        bytes[..run].copy_from_slice(&expected[..run]);
        run
    }

    /// Takes note of a run at the end of `bytes`.
    fn pass(&mut self, bytes: &[u8], run: usize) {
        if run > 0 {
            self.differed = self.differed.checked_shl(run as u32).unwrap_or(0);
            self.distance = self.distance.saturating_add(run as u32);
            self.streak = self.streak.saturating_add(run as u32);
            for byte in &bytes[bytes.len().saturating_sub(8)..] {
                self.last = self.last << 8 | u64::from(*byte);
            }
        }
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
        let open = self.field.is_open();
        let placid = usize::from(around[BEFORE - 1]) | usize::from(around[BEFORE - 2]) << 8;
        let placid = hash(&[(placid << 8 | usize::from(old)) as u32, self.differed as u32 & 0xff]);
        let placid = placid as usize & (self.placid.len() - 1);
        let unlikely = probability(self.placid[placid]);
        let mut known = must.then_some(true);
        if !open && !must && unlikely < self.pace.placid {
            let differs = coder.code(*byte != old, unlikely);
            learn(&mut self.placid[placid], differs, PLACID_LIMIT);
            if !differs {
                *byte = old;
                self.follow(self.field, false, old);
                return false;
            }
            known = Some(true);
        }

        let field = if open {
            self.field
        } else {
            let value = u32::from_le_bytes([old, around[BEFORE + 1], around[BEFORE + 2], around[BEFORE + 3]]);
            let position = stretch.old.wrapping_add(at as u64) as u32;
            self.fields.expect(value, position, stretch.old.wrapping_sub(stretch.new) as u32)
        };
        let spot = Spot {
            around,
            position: stretch.new.wrapping_add(at as u64) as u32,
            field: &field,
            opinions: field.opinions(old),
            phase: if open { field.age } else { 0 },
        };
        let differs = known.unwrap_or_else(|| {
            let differs = self.flag(coder, &spot, *byte != old);
            if !open {
                learn(&mut self.placid[placid], differs, PLACID_LIMIT);
            }
            differs
        });
        *byte = if differs { self.changed(coder, &spot, *byte) } else { old };
        self.follow(field, differs, *byte);
        differs
    }

    /// Takes note of a byte that is now known.
    fn follow(&mut self, field: Field, differs: bool, byte: u8) {
        self.differed = self.differed << 1 | u64::from(differs);
        self.last = self.last << 8 | u64::from(byte);
        self.streak = if differs { 0 } else { self.streak + 1 };
        self.distance = self.distance.saturating_add(1);
        let open = self.field.is_open();
        if differs && !open {
            self.field = field;
            self.distances = [self.distance, self.distances[0]];
            self.distance = 0;
        }
        if differs || open {
            self.fields.extend(&mut self.field, byte);
        }
    }

    /// Codes whether a byte differs.
    fn flag(&mut self, coder: &mut impl Coder, spot: &Spot<'_>, differs: bool) -> bool {
        let (old, phase, before) = (spot.old(0), spot.phase, spot.before());
        let Opinions { agree, differ, .. } = spot.opinions;
        let differed = self.differed as u32;
        let column = |bytes: u32| (self.differed >> (bytes - 1) & 1) as u32;
        let columns = column(8) | column(16) << 1 | column(24) << 2 | column(4) << 3 | column(12) << 4;
        let contexts = [
            hash(&[1, differed & 0xffff]),
            hash(&[2, before << 8 | old, phase]),
            hash(&[3, spot.old(-1) << 8 | old, differed & 0xff]),
            hash(&[4, before << 8 | spot.old(-3), phase]),
            hash(&[5, agree, differ, phase]),
            hash(&[6, spot.position & 7, columns, differed & 3]),
            hash(&[7, self.distance.min(255), self.distances[0].min(255), differed & 1]),
            hash(&[8, spot.old(1) << 16 | spot.old(2) << 8 | spot.old(3), phase]),
            hash(&[9, spot.field.known, differ & agree & 15, phase, spot.old(-1)]),
            hash(&[10, old, phase, differ & agree, self.differences & 255]),
            hash(&[11, before << 8 | spot.old(-3), old << 8 | spot.old(-4), phase]),
            hash(&[12, (self.last & 0xff_ffff) as u32, phase, old]),
        ];
        let first = phase << 8 | (differed & 7) << 5 | differ & agree & 31;
        let second = (spot.position & 7) << 3 | self.streak.min(31) >> 2;
        self.flags.code(coder, differs, &contexts, first as usize, second as usize)
    }

    /// Codes a byte that is known to differ.
    fn changed(&mut self, coder: &mut impl Coder, spot: &Spot<'_>, byte: u8) -> u8 {
        let old = spot.around[BEFORE];
        let best = self.fields.best(spot.field, &spot.opinions);
        let guessed = best.map(|(guess, likely)| {
            let said = spot.opinions.bytes[guess];
            (said, self.is_right(coder, spot, guess, likely, byte == said))
        });
        let byte = match guessed {
            Some((said, true)) => said,
            _ => {
                // It is not the old byte, nor the guess that was wrong.
                let wrong = guessed.map_or(0, |(said, _)| said.wrapping_sub(old));
                let contexts = self.byte_contexts(spot, wrong);
                old.wrapping_add(self.bytes.code(coder, byte.wrapping_sub(old), &contexts))
            }
        };
        self.fields.learn(spot.field, &spot.opinions, byte);
        self.differences = self.differences << 8 | u32::from(byte.wrapping_sub(old));
        byte
    }

    /// Codes whether a guess is right, which has been so with the probability `likely`, in 1/65536.
    fn is_right(
        &mut self,
        coder: &mut impl Coder,
        spot: &Spot<'_>,
        guess: usize,
        likely: u16,
        right: bool,
    ) -> bool {
        let said = spot.opinions.bytes[guess];
        let same = spot.opinions.saying(said);
        let (phase, best, level) = (spot.phase, guess as u32, (stretch(likely) >> 6) as u32);
        let difference = spot.guess(guess) & 255;
        let hits = self.fields.hits(guess);
        let contexts = [
            hash(&[1, level, phase]),
            hash(&[2, same, phase, spot.opinions.eligible()]),
            hash(&[3, best, hits & 255, phase, spot.position & 7]),
            hash(&[4, spot.before(), phase, same]),
            hash(&[5, difference, phase, best]),
            hash(&[6, spot.old(0), difference, phase]),
            hash(&[7, self.rights & 255, phase]),
            hash(&[8, spot.guess(0), spot.guess(1) << 9 | spot.guess(2), difference | phase << 8]),
            hash(&[9, spot.guess(3) << 9 | spot.guess(4), difference | phase << 8, spot.old(-1)]),
            hash(&[10, spot.field.known, same, self.rights & 7, phase]),
            hash(&[11, self.differences & 255, difference, phase]),
        ];
        let first = phase << 7 | same;
        let second = best << 3 | self.rights & 7;
        let right = self.right.code(coder, right, &contexts, first as usize, second as usize);
        self.rights = self.rights << 1 | u32::from(right);
        right
    }

    fn byte_contexts(&self, spot: &Spot<'_>, wrong: u8) -> Contexts<12, GUESSES> {
        let (old, phase) = (spot.old(0), spot.phase);
        let (agree, known) = (spot.opinions.agree, spot.field.known);
        let difference = self.differences & 255;
        let latest = self.last as u32;
        Contexts {
            hashes: [
                hash(&[1, phase]),
                hash(&[2, difference, phase]),
                hash(&[3, old, phase]),
                hash(&[4, old, spot.old(-1), phase]),
                hash(&[5, old, latest & 0xff, phase]),
                hash(&[6, old, latest & 0xffff]),
                hash(&[7, spot.guess(3), spot.guess(4), phase]),
                hash(&[8, spot.guess(0), spot.guess(1), spot.guess(2), phase]),
                hash(&[9, self.differences & 0xffff, phase, spot.old(-1)]),
                hash(&[10, old, spot.old(1), difference]),
                hash(&[11, spot.before(), spot.position & 7, phase]),
                hash(&[12, spot.guess(3), spot.guess(0), spot.old(-1), phase]),
            ],
            expected: std::array::from_fn(|n| {
                let trust =
                    (agree >> n & 1) << 7 | (known >> n & 1) << 6 | phase << 4 | self.fields.hits(n) & 15;
                Expected { byte: spot.guess(n) as u8, trust: trust as usize }
            }),
            selector: (phase << 6 | (self.differed as u32 & 7) << 3 | spot.position & 7) as usize,
            excluded: Some([0, wrong]),
        }
    }
}
