//! Level 5, the default: a table by 4 bytes, and one of two positions each by 7 bytes.

use super::super::symbols::MAX_COPY;
use super::super::tokens::Tokens;
use super::{Found, Matcher, Pair, Stamp, Text, hash4, hash7, table};

const BITS: u32 = 15;

/// A search goes forward by one byte, and by one more for every 64 that had no match.
const SKIP_LOG: u32 = 6;

/// A match of this length is not compared with one at its end.
const GOOD_LENGTH: usize = 30;

/// How many bytes at the start of a match need not match when it is found by its end.
const MAY_DIFFER: usize = 2;

#[derive(Debug)]
pub(super) struct Level5 {
    short: Box<[Stamp; 1 << BITS]>,
    long: Box<[Pair; 1 << BITS]>,
}

impl Level5 {
    pub(super) fn new() -> Self {
        Self { short: table(), long: table() }
    }

    #[inline(always)]
    fn insert(&mut self, bytes: u64, stamp: Stamp) {
        self.short[hash4::<BITS>(bytes)] = stamp;
        self.long[hash7::<BITS>(bytes)].push(stamp);
    }

    /// The next match from `place` on, and where the search would have gone on. `literals` is where the bytes begin
    /// that no match covers.
    #[inline(always)]
    fn search(&mut self, text: &Text<'_>, mut place: usize, literals: usize) -> Option<(Found, usize)> {
        let limit = text.limit();
        let mut bytes = text.load64(place);
        loop {
            let next = place + 1 + ((place - literals) >> SKIP_LOG);
            if next > limit {
                return None;
            }
            let short = std::mem::replace(&mut self.short[hash4::<BITS>(bytes)], text.stamp(place));
            let entry = &mut self.long[hash7::<BITS>(bytes)];
            let long = *entry;
            entry.push(text.stamp(place));

            let next_bytes = text.load64(next);
            if let Some((from, length)) = long_match(text, long, place, bytes as u32) {
                self.insert(next_bytes, text.stamp(next));
                return Some((Found { place, from, length }, next));
            }
            if let Some(from) = text.candidate(short, place, bytes as u32) {
                let next_long = self.long[hash7::<BITS>(next_bytes)];
                self.insert(next_bytes, text.stamp(next));
                let found = Found { place, from, length: at_least_4(text, place, from) };
                return Some((better_next(text, next_long, next, next_bytes as u32, found), next));
            }
            place = next;
            bytes = next_bytes;
        }
    }

    /// Takes another match with the same end that begins up to two bytes later, if it goes on for longer.
    #[inline(always)]
    fn better_at_end(&self, text: &Text<'_>, found: Found) -> Found {
        let end = found.place + found.length;
        if found.length >= GOOD_LENGTH || end >= text.limit() {
            return found;
        }
        let stamp = self.long[hash7::<BITS>(text.load64(end))].last;
        let place = found.place + MAY_DIFFER;
        let from = text.reach(stamp, end).map(|there| end - there).filter(|distance| *distance > 0);
        let Some(from) = from.and_then(|distance| place.checked_sub(distance)) else {
            return found;
        };
        let length = text.common(place, from);
        if length > found.length { Found { place, from, length } } else { found }
    }

    /// Remembers every third place of a match that ends at `end`.
    #[inline(always)]
    fn insert_inside(&mut self, text: &Text<'_>, start: usize, end: usize) {
        let mut place = start + 1;
        if place + 1 >= end {
            return;
        }
        let bytes = text.load64(place);
        self.insert(bytes, text.stamp(place));
        self.long[hash7::<BITS>(bytes >> 8)].push(text.stamp(place + 1));
        self.short[hash4::<BITS>(bytes >> 16)] = text.stamp(place + 2);
        place += 4;
        while place + 1 < end {
            let bytes = text.load64(place);
            self.long[hash7::<BITS>(bytes)].push(text.stamp(place));
            self.short[hash4::<BITS>(bytes >> 8)] = text.stamp(place + 1);
            place += 3;
        }
    }
}

impl Matcher for Level5 {
    fn tokenize(&mut self, text: &Text<'_>, tokens: &mut Tokens) {
        let mut literals = text.start;
        let mut place = text.start;
        while let Some((found, next)) = self.search(text, place, literals) {
            let mut found = self.better_at_end(text, extended(text, found));
            let before = text.common_before(found.place, found.from, literals);
            found.place -= before;
            found.length += before;
            tokens.literals(&text.bytes[literals..found.place]);
            // A match that was extended backwards still has the same distance.
            tokens.long_copy(found.length, found.place + before - found.from);

            literals = found.place + found.length;
            place = literals.max(next + 1);
            if place >= text.limit() {
                break;
            }
            self.insert_inside(text, place - found.length, place);
            self.insert(text.load64(place - 1), text.stamp(place - 1));
        }
        if !tokens.is_empty() {
            tokens.literals(&text.bytes[literals..]);
        }
    }

    fn age(&mut self, by: Stamp) {
        self.short.iter_mut().for_each(|stamp| *stamp = stamp.saturating_sub(by));
        self.long.iter_mut().for_each(|pair| pair.age(by));
    }
}

/// A match by the long table, with its length where it was needed for the choice, and 0 where not.
#[inline(always)]
fn long_match(text: &Text<'_>, long: Pair, place: usize, word: u32) -> Option<(usize, usize)> {
    let last = text.reach(long.last, place)?;
    let before = text.candidate(long.before, place, word);
    if text.load32(last) != word {
        return before.map(|from| (from, 0));
    }
    let Some(before) = before else {
        return Some((last, 0));
    };
    let (length, other) = (at_least_4(text, place, last), at_least_4(text, place, before));
    Some(if other > length { (before, other) } else { (last, length) })
}

/// The length of a match whose first 4 bytes are known to be the same, up to the longest copy.
#[inline(always)]
fn at_least_4(text: &Text<'_>, place: usize, from: usize) -> usize {
    4 + text.common_up_to(place + 4, from + 4, MAX_COPY - 4)
}

/// Takes a match at `next` by the long table instead of a short one, if it is longer.
#[inline(always)]
fn better_next(text: &Text<'_>, long: Pair, next: usize, word: u32, found: Found) -> Found {
    let Some(last) = text.reach(long.last, next) else {
        return found;
    };
    let last = (text.load32(last) == word).then_some(last);
    let before = text.candidate(long.before, next, word);
    for from in [last, before].into_iter().flatten() {
        let length = at_least_4(text, next, from);
        if length > found.length {
            return Found { place: next, from, length };
        }
    }
    found
}

/// Gives a match its full length, where the search had no need of it.
#[inline(always)]
fn extended(text: &Text<'_>, mut found: Found) -> Found {
    if found.length == 0 {
        found.length = 4 + text.common(found.place + 4, found.from + 4);
    } else if found.length == MAX_COPY {
        found.length += text.common(found.place + MAX_COPY, found.from + MAX_COPY);
    }
    found
}
