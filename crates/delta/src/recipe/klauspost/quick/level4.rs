//! Level 4: a table by 4 bytes and one by 7 bytes.

use super::super::tokens::Tokens;
use super::hash::{hash4, hash7};
use super::{Found, Matcher, Stamp, Text, age, table};

const BITS: u32 = 15;

/// A search goes forward by one byte, and by one more for every 64 that had no match.
const SKIP_LOG: u32 = 6;

/// How a short match is compared with a long one at the next place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum SecondLook {
    /// By their lengths.
    Length,
    /// The long one by what would be its length if its place were its distance: an oversight of v1.18.0 that stayed.
    PlaceForDistance,
}

#[derive(Debug)]
pub(super) struct Level4 {
    short: Box<[Stamp; 1 << BITS]>,
    long: Box<[Stamp; 1 << BITS]>,
    look: SecondLook,
}

impl Level4 {
    pub(super) fn new(look: SecondLook) -> Self {
        Self { short: table(), long: table(), look }
    }

    #[inline(always)]
    fn insert(&mut self, bytes: u64, stamp: Stamp) -> (Stamp, Stamp) {
        let short = std::mem::replace(&mut self.short[hash4::<BITS>(bytes)], stamp);
        let long = std::mem::replace(&mut self.long[hash7::<BITS>(bytes)], stamp);
        (short, long)
    }

    /// The next match from `place` on, and where the search would have gone on.
    #[inline(always)]
    fn search(&mut self, text: &Text<'_>, mut place: usize, literals: usize) -> Option<(Found, usize)> {
        loop {
            let next = place + 1 + ((place - literals) >> SKIP_LOG);
            if next > text.limit() {
                return None;
            }
            let bytes = text.load64(place);
            let (short, long) = self.insert(bytes, text.stamp(place));
            if let Some(from) = text.candidate(long, place, bytes as u32) {
                return Some((Found::at(text, place, from), next));
            }
            if let Some(from) = text.candidate(short, place, bytes as u32) {
                return Some((self.better_next(text, next, Found::at(text, place, from)), next));
            }
            place = next;
        }
    }

    /// Takes a match at `next` by the long table instead, if it is longer.
    #[inline(always)]
    fn better_next(&self, text: &Text<'_>, next: usize, found: Found) -> Found {
        let bytes = text.load64(next);
        let Some(from) = text.candidate(self.long[hash7::<BITS>(bytes)], next, bytes as u32) else {
            return found;
        };
        let compared = match self.look {
            SecondLook::Length => from,
            SecondLook::PlaceForDistance => next - from,
        };
        let longer = text.common(next + 4, compared + 4) > found.length - 4;
        if longer { Found::at(text, next, from) } else { found }
    }
}

impl Matcher for Level4 {
    fn tokenize(&mut self, text: &Text<'_>, tokens: &mut Tokens) {
        let mut literals = text.start;
        let mut place = text.start;
        while let Some((found, next)) = self.search(text, place, literals) {
            literals = found.push(text, literals, tokens).end();
            place = literals.max(next + 1);
            if place >= text.limit() {
                if place + 8 < text.bytes.len() {
                    self.insert(text.load64(place), text.stamp(place));
                }
                break;
            }
            for inside in (next..place - 1).step_by(3) {
                let bytes = text.load64(inside);
                self.long[hash7::<BITS>(bytes)] = text.stamp(inside);
                self.insert(bytes >> 8, text.stamp(inside + 1));
            }
            self.insert(text.load64(place - 1), text.stamp(place - 1));
        }
        text.push_rest(literals, tokens);
    }

    fn age(&mut self, by: Stamp) {
        age(&mut *self.short, by);
        age(&mut *self.long, by);
    }
}
