//! The order in which the new content is coded, and by which model.
//!
//! Both ends walk the matches and the gaps between them in *pieces* of bounded length, so that neither needs to hold
//! more of the content than one piece.

use super::Reference;
use super::arith::Coder;
use super::copy::{BEFORE, BEHIND, Copies, Stretch};
use super::literal::{Literals, Sides};
use super::matches::validate;
use super::pace::Pace;
use crate::error::Error;
use crate::matching::Match;

/// The longest piece, in bytes.
pub(super) const PIECE: usize = 128 << 10;

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

/// A part of the new content that is coded at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) len: usize,
    pub(super) place: Place,
}

/// What carries decisions, and bytes that are not worth deciding about.
pub(super) trait Channel: Coder {
    /// Carries the bytes of a gap in bulk.
    fn bulk(&mut self, bytes: &mut [u8]) -> Result<(), Error>;
}

/// All models, and where in the new content they are.
#[derive(Debug)]
pub(super) struct Stage<M, F> {
    matches: M,
    reference: F,
    new_len: u64,
    /// Gaps of at least so many bytes are carried in bulk.
    bulk_from: u64,
    /// The match that is next or that is being coded.
    next: usize,
    at: u64,
    copies: Copies,
    literals: Literals,
    buffers: [Vec<u8>; 2],
    tail: Vec<u8>,
}

impl<M: AsRef<[Match]>, F: Reference> Stage<M, F> {
    /// Fails unless the matches are sorted, do not overlap and lie within the contents.
    pub(super) fn new(
        matches: M,
        reference: F,
        new_len: u64,
        bulk_from: u64,
        pace: &'static Pace,
    ) -> Result<Self, Error> {
        validate(matches.as_ref(), reference.old_len(), new_len)?;
        Ok(Self {
            matches,
            reference,
            new_len,
            bulk_from,
            next: 0,
            at: 0,
            copies: Copies::new(pace),
            literals: Literals::new(pace),
            buffers: [Vec::new(), Vec::new()],
            tail: Vec::new(),
        })
    }

    /// The next piece, or `None` at the end of the new content.
    pub(super) fn piece(&self) -> Option<Piece> {
        let behind = self.matches.as_ref().get(self.next).copied();
        if let Some(found) = behind.filter(|found| found.new <= self.at) {
            let done = self.at - found.new;
            let len = (found.len - done).min(PIECE as u64) as usize;
            return Some(Piece { len, place: Place::Match(found, done) });
        }
        let before = self.next.checked_sub(1).and_then(|last| self.matches.as_ref().get(last).copied());
        let start = before.map_or(0, |found| found.new + found.len);
        let end = behind.map_or(self.new_len, |found| found.new);
        let len = (end - self.at).min(PIECE as u64) as usize;
        let gap = Gap { before, behind, start, end, at: self.at };
        (len > 0).then_some(Piece { len, place: Place::Gap(gap) })
    }

    /// Codes the piece that is next.
    pub(super) fn code(
        &mut self,
        channel: &mut impl Channel,
        piece: Piece,
        bytes: &mut [u8],
    ) -> Result<(), Error> {
        match piece.place {
            Place::Match(found, done) => {
                self.code_match(channel, found, done, bytes)?;
                if done + bytes.len() as u64 == found.len {
                    self.next += 1;
                }
            }
            Place::Gap(gap) if self.in_bulk(gap) => {
                channel.bulk(bytes)?;
                self.keep_tail(bytes);
            }
            Place::Gap(gap) => self.code_gap(channel, gap, bytes)?,
        }
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Whether a gap is carried in bulk.
    pub(super) fn in_bulk(&self, gap: Gap) -> bool {
        gap.end - gap.start >= self.bulk_from
    }

    fn code_match(
        &mut self,
        channel: &mut impl Channel,
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
        if done == 0 {
            self.copies.begin(self.tail.iter().fold(0, |last, byte| last << 8 | u64::from(*byte)));
        }
        self.copies.code(channel, Stretch { new, old, expected }, bytes);
        self.keep_tail(bytes);
        Ok(())
    }

    fn code_gap(&mut self, channel: &mut impl Channel, gap: Gap, bytes: &mut [u8]) -> Result<(), Error> {
        if gap.at == gap.start {
            self.literals.begin(&self.tail);
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
        self.literals.code(channel, Sides { forward, backward }, bytes);
        self.keep_tail(bytes);
        Ok(())
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        self.tail.clear();
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
    }
}
