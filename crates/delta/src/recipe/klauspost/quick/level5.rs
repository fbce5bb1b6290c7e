//! Level 5, the default.

use super::super::tokens::Tokens;
use super::long::{Tables, extended, find, measured};
use super::{Found, Matcher, MayDiffer, Pair, Stamp, Text};

/// A search goes forward by one byte, and by one more for every 64 that had no match.
const SKIP_LOG: u32 = 6;

/// A match of this length is not compared with one at its end.
const GOOD_LENGTH: usize = 30;

#[derive(Debug)]
pub(super) struct Level5 {
    tables: Tables,
    may_differ: MayDiffer,
}

impl Level5 {
    pub(super) fn new(may_differ: MayDiffer) -> Self {
        Self { tables: Tables::new(), may_differ }
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
            let (short, long) = self.tables.insert(bytes, text.stamp(place));
            let next_bytes = text.load64(next);
            if let Some(found) = find(text, long, place, bytes as u32) {
                self.tables.insert(next_bytes, text.stamp(next));
                return Some((found, next));
            }
            if let Some(from) = text.candidate(short, place, bytes as u32) {
                let (_, next_long) = self.tables.insert(next_bytes, text.stamp(next));
                let found = measured(text, place, from);
                return Some((better_next(text, next_long, next, next_bytes as u32, found), next));
            }
            place = next;
            bytes = next_bytes;
        }
    }

    /// Takes another match with the same end that may begin a little later, if it goes on for longer.
    #[inline(always)]
    fn better_at_end(&self, text: &Text<'_>, found: Found) -> Found {
        let end = found.end();
        if found.length >= GOOD_LENGTH || end >= text.limit() {
            return found;
        }
        let stamp = self.tables.long(text.load64(end)).last;
        let place = found.place + self.may_differ.0;
        let from = text.reach(stamp, end).map(|there| end - there).filter(|distance| *distance > 0);
        let Some(from) = from.and_then(|distance| place.checked_sub(distance)) else {
            return found;
        };
        let length = text.common(place, from);
        if length > found.length { Found { place, from, length } } else { found }
    }

    /// Remembers every third place of a match.
    #[inline(always)]
    fn insert_inside(&mut self, text: &Text<'_>, start: usize, end: usize) {
        let place = start + 1;
        if place + 1 >= end {
            return;
        }
        let bytes = text.load64(place);
        self.tables.insert(bytes, text.stamp(place));
        self.tables.insert_long(bytes >> 8, text.stamp(place + 1));
        self.tables.insert_short(bytes >> 16, text.stamp(place + 2));
        for place in (place + 4..end - 1).step_by(3) {
            let bytes = text.load64(place);
            self.tables.insert_long(bytes, text.stamp(place));
            self.tables.insert_short(bytes >> 8, text.stamp(place + 1));
        }
    }
}

impl Matcher for Level5 {
    fn tokenize(&mut self, text: &Text<'_>, tokens: &mut Tokens) {
        let mut literals = text.start;
        let mut place = text.start;
        while let Some((found, next)) = self.search(text, place, literals) {
            let found = self.better_at_end(text, extended(text, found)).push(text, literals, tokens);
            literals = found.end();
            place = literals.max(next + 1);
            if place >= text.limit() {
                break;
            }
            self.insert_inside(text, place - found.length, place);
            self.tables.insert(text.load64(place - 1), text.stamp(place - 1));
        }
        text.push_rest(literals, tokens);
    }

    fn age(&mut self, by: Stamp) {
        self.tables.age(by);
    }
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
        let other = measured(text, next, from);
        if other.length > found.length {
            return other;
        }
    }
    found
}
