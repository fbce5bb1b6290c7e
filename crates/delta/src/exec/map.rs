//! Where the addresses of an old executable are in the new one: what the matches say.

use std::ops::Range;

use super::elf::{Elf, Kind, Load};
use crate::matching::Match;

/// A stretch of old addresses that all move by the same amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Where it begins, counted from the lowest address.
    start: u32,
    len: u32,
    /// New address minus old address.
    shift: i32,
}

/// A map from old to new addresses, constant from piece to piece.
#[derive(Clone, Debug)]
pub(super) struct Map {
    /// The lowest address.
    base: u64,
    /// Sorted by start, not overlapping.
    pieces: Vec<Piece>,
    /// For each 2^[`PAGE`] addresses, the first piece that ends behind their start.
    pages: Vec<u32>,
}

/// How many pieces a map may have. Each match is one, or a few where it goes on from one load into the next.
const MAX_PIECES: usize = 1 << 20;
/// How many addresses have an entry in the index of pieces, as a power of two.
const PAGE: u32 = 12;

/// The layout of a new executable, as far as addresses need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// As many as the old file has, each where the same one of the old file went.
    pub(super) loads: Vec<Load>,
    /// By how much each section of zeros moved.
    pub(super) zeros: Vec<i64>,
}

impl Layout {
    /// The address of a byte of the file.
    pub(super) fn address(&self, offset: u64) -> Option<u64> {
        let load = self.loads.iter().find(|load| load.in_file().contains(&offset))?;
        Some(load.address.wrapping_add(offset - load.offset))
    }
}

/// The sections of zeros that [`Layout::zeros`] is about.
pub(super) fn zeros(elf: &Elf) -> impl Iterator<Item = Range<u64>> {
    let moved = |section: &&super::elf::Section| {
        section.kind == Kind::Zeros && section.mapped && !section.per_thread && section.len > 0
    };
    elf.sections.iter().filter(moved).map(|section| section.in_memory())
}

impl Map {
    /// The map of `elf`, whose file begins at `old`, to a file that begins at `new` and is laid out as `layout`.
    pub(super) fn new(elf: &Elf, layout: &Layout, old: u64, new: Range<u64>, matches: &[Match]) -> Self {
        let base = elf.loads.first().map_or(0, |load| load.address);
        let mut pieces = Vec::new();
        let mut add = |address: u64, len: u64, shift: i64| {
            let start = address.checked_sub(base).and_then(|start| u32::try_from(start).ok());
            if let (Some(start), Ok(len), Ok(shift)) = (start, u32::try_from(len), i32::try_from(shift))
                && pieces.len() < MAX_PIECES
            {
                pieces.push(Piece { start, len, shift });
            }
        };
        for found in matches {
            for (from, to) in elf.loads.iter().zip(&layout.loads) {
                let Some(part) = part(found, &from.in_file(), old, &to.in_file(), &new) else { continue };
                let (was, is) = (part.old - old - from.offset, part.new - new.start - to.offset);
                let (was, is) = (from.address.wrapping_add(was), to.address.wrapping_add(is));
                add(was, part.len, is.wrapping_sub(was) as i64);
            }
        }
        for (section, shift) in zeros(elf).zip(&layout.zeros) {
            add(section.start, section.end - section.start, *shift);
        }
        Self::index(base, untangle(pieces))
    }

    fn index(base: u64, pieces: Vec<Piece>) -> Self {
        let end = pieces.last().map_or(0, |last| u64::from(last.start) + u64::from(last.len));
        let mut next = 0;
        let pages = (0..=end >> PAGE).map(|page| {
            let ends = |piece: &Piece| u64::from(piece.start) + u64::from(piece.len);
            while pieces.get(next).is_some_and(|piece| ends(piece) <= page << PAGE) {
                next += 1;
            }
            next as u32
        });
        let pages = pages.collect();
        Self { base, pieces, pages }
    }

    /// By how much an address moves; where nothing is known, as much as the nearest that is.
    pub(super) fn shift(&self, address: u64) -> i64 {
        let at = address.saturating_sub(self.base).min(u32::MAX.into()) as u32;
        let page = (at >> PAGE) as usize;
        let mut next = self.pages.get(page).map_or(self.pieces.len(), |first| *first as usize);
        // Few pieces begin in one page, or many: then the search is worth its steps.
        let last = self.pages.get(page + 1).map_or(self.pieces.len(), |last| *last as usize + 1);
        let candidates = self.pieces.get(next..last.min(self.pieces.len())).unwrap_or_default();
        next += candidates.partition_point(|piece| piece.start.saturating_add(piece.len) <= at);
        let behind = self.pieces.get(next);
        if let Some(piece) = behind.filter(|piece| piece.start <= at) {
            return piece.shift.into();
        }
        let before = next.checked_sub(1).and_then(|before| self.pieces.get(before));
        let nearest = match (before, behind) {
            (Some(before), Some(behind)) if at - before.start - before.len < behind.start - at => before,
            (Some(before), None) => before,
            (_, Some(behind)) => behind,
            (None, None) => return 0,
        };
        nearest.shift.into()
    }
}

/// The part of a match that goes from one range to another, both relative to their file.
pub(super) fn part(
    found: &Match,
    from: &Range<u64>,
    old: u64,
    to: &Range<u64>,
    new: &Range<u64>,
) -> Option<Match> {
    let cut = (old + from.start).saturating_sub(found.old);
    let cut = cut.max((new.start + to.start).saturating_sub(found.new));
    let end = (old + from.end).checked_sub(found.old)?;
    let end = end.min(new.start.saturating_add(to.end).min(new.end).checked_sub(found.new)?).min(found.len);
    (cut < end).then(|| Match { new: found.new + cut, old: found.old + cut, len: end - cut })
}

/// Sorts pieces and lets each address be in one only: where two overlap, the longer one has it.
fn untangle(mut pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.sort_unstable_by_key(|piece| (piece.start, std::cmp::Reverse(piece.len), piece.shift));
    let mut kept: Vec<Piece> = Vec::with_capacity(pieces.len());
    for mut piece in pieces {
        if let Some(last) = kept.last_mut() {
            let end = last.start + last.len;
            if piece.start < end {
                if piece.len > last.len && piece.start > last.start {
                    last.len = piece.start - last.start;
                } else if piece.start + piece.len <= end {
                    continue;
                } else {
                    piece.len -= end - piece.start;
                    piece.start = end;
                }
            }
            if last.shift == piece.shift && last.start + last.len == piece.start {
                last.len += piece.len;
                continue;
            }
        }
        kept.push(piece);
    }
    kept
}
