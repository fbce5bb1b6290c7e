//! The order in which the new content is coded, and by which model.
//!
//! Both ends walk the new content in *regions* of fixed length, so that neither needs to hold more of it than one, and in
//! each region the matches and the gaps between them in *pieces*.

use super::Reference;
use super::arith::Coder;
use super::copy::{BEFORE, BEHIND, Copies, Stretch};
use super::literal::{Literals, Sides};
use super::matches::validate;
use super::pace::Pace;
use crate::error::Error;
use crate::matching::Match;

/// The length of a region, in bytes; only the last one may be shorter.
pub(super) const REGION: usize = 128 << 10;

/// How much of a match is remembered, in bytes, when a gap follows it.
const TAIL: usize = 64;

/// Where a piece is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// In a match, so many bytes from its beginning.
    Match(Match, u64),
    /// In a gap.
    Gap(Gap),
}

/// A gap between matches, and where a piece begins in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    before: Option<Match>,
    behind: Option<Match>,
    start: u64,
    end: u64,
    at: u64,
}

/// A part of the new content that is in one region, and in one match or one gap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) len: usize,
    pub(super) place: Place,
}

/// Where a walk along the new content is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walk {
    pub(super) at: u64,
    /// The match that is next or that is being walked.
    next: usize,
}

impl Walk {
    /// Where the region ends that begins here.
    pub(super) fn region_end(&self, new_len: u64) -> u64 {
        new_len.min(self.at.saturating_add(REGION as u64))
    }

    /// Goes on to the next piece, which ends at `end` at the latest; `None` when that is here.
    pub(super) fn piece(&mut self, matches: &[Match], end: u64, new_len: u64) -> Option<Piece> {
        let at = self.at;
        let most = end.checked_sub(at).filter(|left| *left > 0)?;
        let behind = matches.get(self.next).copied();
        if let Some(found) = behind.filter(|found| found.new <= at) {
            let done = at - found.new;
            let len = (found.len - done).min(most);
            self.next += usize::from(done + len == found.len);
            self.at += len;
            return Some(Piece { len: len as usize, place: Place::Match(found, done) });
        }
        let before = self.next.checked_sub(1).and_then(|last| matches.get(last).copied());
        let start = before.map_or(0, |found| found.new + found.len);
        let end = behind.map_or(new_len, |found| found.new);
        let len = (end - at).min(most);
        self.at += len;
        Some(Piece { len: len as usize, place: Place::Gap(Gap { before, behind, start, end, at }) })
    }
}

/// What is carried in bulk, each with a window of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// By how much the bytes of matches differ from what is expected.
    Differences,
    /// The bytes of gaps.
    Gaps,
}

/// What carries decisions, and bytes that there is no time to decide about.
pub(super) trait Channel: Coder {
    /// Carries bytes in bulk.
    fn bulk(&mut self, lane: Lane, bytes: &mut [u8]) -> Result<(), Error>;
}

/// Regions before and behind a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Regions {
    pub(super) done: u64,
    pub(super) left: u64,
}

/// All models, and where in the new content they are.
#[derive(Debug)]
pub(super) struct Stage<M, F> {
    matches: M,
    reference: F,
    new_len: u64,
    pace: &'static Pace,
    walk: Walk,
    /// The models, which are large, from where they are needed on.
    copies: Option<Box<Copies>>,
    literals: Option<Box<Literals>>,
    /// Whether what came before went past the models.
    fresh: bool,
    buffers: [Vec<u8>; 2],
    tail: Vec<u8>,
}

impl<M: AsRef<[Match]>, F: Reference> Stage<M, F> {
    /// Fails unless the matches are sorted, do not overlap and lie within the contents.
    pub(super) fn new(matches: M, reference: F, new_len: u64, pace: &'static Pace) -> Result<Self, Error> {
        validate(matches.as_ref(), reference.old_len(), new_len)?;
        Ok(Self {
            matches,
            reference,
            new_len,
            pace,
            walk: Walk::default(),
            copies: None,
            literals: None,
            fresh: false,
            buffers: [Vec::new(), Vec::new()],
            tail: Vec::new(),
        })
    }

    /// How many bytes the next region has; 0 at the end of the new content.
    pub(super) fn region(&self) -> usize {
        (self.walk.region_end(self.new_len) - self.walk.at) as usize
    }

    /// How many regions there were, and how many there are still.
    pub(super) fn regions(&self) -> Regions {
        let (at, region) = (self.walk.at, REGION as u64);
        Regions { done: at.div_ceil(region), left: (self.new_len - at).div_ceil(region) }
    }

    /// Codes the next region with the models.
    pub(super) fn model(&mut self, coder: &mut impl Coder, bytes: &mut [u8]) -> Result<(), Error> {
        let (start, end) = (self.walk.at, self.walk.region_end(self.new_len));
        loop {
            let from = (self.walk.at - start) as usize;
            let Some(piece) = self.walk.piece(self.matches.as_ref(), end, self.new_len) else {
                return Ok(());
            };
            let bytes = &mut bytes[from..from + piece.len];
            match piece.place {
                Place::Match(found, done) => self.code_match(coder, found, done, bytes)?,
                Place::Gap(gap) => self.code_gap(coder, gap, bytes)?,
            }
            self.keep_tail(bytes);
            self.fresh = false;
        }
    }

    /// Carries the next region in bulk.
    pub(super) fn bulk(&mut self, channel: &mut impl Channel, bytes: &mut [u8]) -> Result<(), Error> {
        let (first, end) = (self.walk, self.walk.region_end(self.new_len));
        let mut expected = std::mem::take(&mut self.buffers[0]);
        expected.clear();
        expected.resize(bytes.len(), 0);
        let mut gaps = std::mem::take(&mut self.buffers[1]);
        gaps.clear();
        // Where the gaps are: what is expected there is nothing, so that the bytes themselves are the difference.
        let mut matched = 0;
        while let Some(piece) = self.walk.piece(self.matches.as_ref(), end, self.new_len) {
            let from = (self.walk.at - first.at) as usize - piece.len;
            match piece.place {
                Place::Match(found, done) => {
                    let (new, old) = (found.new + done, found.old + done);
                    self.reference.read(new, old, &mut expected[matched..matched + piece.len])?;
                    bytes.copy_within(from..from + piece.len, matched);
                    matched += piece.len;
                }
                Place::Gap(_) => gaps.extend_from_slice(&bytes[from..from + piece.len]),
            }
        }
        let differences = &mut bytes[..matched];
        differences
            .iter_mut()
            .zip(&expected)
            .for_each(|(byte, expected)| *byte = byte.wrapping_sub(*expected));
        channel.bulk(Lane::Differences, differences)?;
        channel.bulk(Lane::Gaps, &mut gaps)?;
        expected[..matched].iter_mut().zip(differences).for_each(|(byte, by)| *byte = byte.wrapping_add(*by));
        let (mut walk, mut changed, mut between) = (first, &expected[..], &gaps[..]);
        while let Some(piece) = walk.piece(self.matches.as_ref(), end, self.new_len) {
            let from = (walk.at - first.at) as usize - piece.len;
            let source = if matches!(piece.place, Place::Match(..)) { &mut changed } else { &mut between };
            let (now, rest) = source.split_at(piece.len);
            bytes[from..from + piece.len].copy_from_slice(now);
            *source = rest;
        }
        self.buffers = [expected, gaps];
        self.keep_tail(bytes);
        self.fresh = true;
        Ok(())
    }

    fn code_match(
        &mut self,
        coder: &mut impl Coder,
        found: Match,
        done: u64,
        bytes: &mut [u8],
    ) -> Result<(), Error> {
        let (new, old) = (found.new + done, found.old + done);
        let before = (BEFORE as u64).min(new).min(old) as usize;
        let behind = (BEHIND as u64).min(self.reference.old_len() - old - bytes.len() as u64) as usize;
        let expected = &mut self.buffers[0];
        expected.clear();
        expected.resize(BEFORE + bytes.len() + BEHIND, 0);
        let wanted = &mut expected[BEFORE - before..BEFORE + bytes.len() + behind];
        self.reference.read(new - before as u64, old - before as u64, wanted)?;
        let copies = self.copies.get_or_insert_with(|| Box::new(Copies::new(self.pace)));
        if done == 0 || self.fresh {
            copies.begin(self.tail.iter().fold(0, |last, byte| last << 8 | u64::from(*byte)));
        }
        copies.code(coder, Stretch { new, old, expected }, bytes);
        Ok(())
    }

    fn code_gap(&mut self, coder: &mut impl Coder, gap: Gap, bytes: &mut [u8]) -> Result<(), Error> {
        let literals = self.literals.get_or_insert_with(|| Box::new(Literals::new(self.pace)));
        if gap.at == gap.start || self.fresh {
            literals.begin(&self.tail);
        }
        let old_len = self.reference.old_len();
        let [forward, backward] = &mut self.buffers;
        forward.clear();
        if let Some(before) = gap.before {
            let from = (before.old + before.len).saturating_add(gap.at - gap.start);
            forward.resize((bytes.len() as u64).min(old_len.saturating_sub(from)) as usize, 0);
            if !forward.is_empty() {
                self.reference.read(gap.at, from, forward)?;
            }
        }
        backward.clear();
        if let Some(behind) = gap.behind {
            // Where the old content begins too late for all of the gap, the first bytes stay 0.
            let missing = (gap.end - gap.at).saturating_sub(behind.old).min(bytes.len() as u64);
            backward.resize(bytes.len(), 0);
            if missing < bytes.len() as u64 {
                let from = behind.old + missing - (gap.end - gap.at).min(behind.old + missing);
                self.reference.read(gap.at + missing, from, &mut backward[missing as usize..])?;
            }
        }
        literals.code(coder, Sides { forward, backward }, bytes);
        Ok(())
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        self.tail.clear();
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
    }
}
