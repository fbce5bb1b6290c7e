//! Level 6: as level 5, but with more candidates, the distance of the match before among them.

use super::super::symbols::WINDOW;
use super::super::tokens::Tokens;
use super::long::{Tables, extended, find, measured};
use super::{Found, Matcher, MayDiffer, Pair, Stamp, Text};

/// A search goes forward by one byte, and by one more for every 128 that had no match.
const SKIP_LOG: u32 = 7;

#[derive(Debug)]
pub(super) struct Level6 {
    tables: Tables,
    may_differ: MayDiffer,
}

impl Level6 {
    pub(super) fn new(may_differ: MayDiffer) -> Self {
        Self { tables: Tables::new(), may_differ }
    }

    /// The next match from `place` on, and where the search would have gone on. `repeat` is the distance of the match
    /// before.
    #[inline(always)]
    fn search(
        &mut self,
        text: &Text<'_>,
        mut place: usize,
        literals: usize,
        repeat: usize,
    ) -> Option<(Found, usize)> {
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
                let better = repeated(text, place + 1, repeat, (bytes >> 8) as u32, found)
                    .unwrap_or_else(|| better_next(text, next_long, next, next_bytes as u32, found));
                return Some((better, next));
            }
            place = next;
            bytes = next_bytes;
        }
    }

    /// Takes another match with the same end that may begin a little later, if it goes on for longer.
    #[inline(always)]
    fn better_at_end(&self, text: &Text<'_>, mut found: Found) -> Found {
        let end = found.end();
        if end >= text.limit() {
            return found;
        }
        let seen = self.tables.long(text.load64(end));
        let (start, place) = (found.place, found.place + self.may_differ.0);
        let distance = |stamp: Stamp, end: usize| text.stamp(end) as i32 - stamp as i32;
        if distance(seen.last, end) >= WINDOW as i32 {
            return found;
        }
        for stamp in [seen.last, seen.before] {
            // The second one is tried at the end of the first, if that was better.
            let distance = distance(stamp, start + found.length);
            if distance <= 0 || distance >= WINDOW as i32 {
                continue;
            }
            if let Some(from) = place.checked_sub(distance as usize) {
                let length = text.common(place, from);
                if length > found.length {
                    found = Found { place, from, length };
                }
            }
        }
        found
    }
}

impl Matcher for Level6 {
    fn tokenize(&mut self, text: &Text<'_>, tokens: &mut Tokens) {
        let mut literals = text.start;
        let mut place = text.start;
        let mut repeat = 1;
        while let Some((found, next)) = self.search(text, place, literals, repeat) {
            let found = self.better_at_end(text, extended(text, found)).push(text, literals, tokens);
            repeat = found.place - found.from;
            literals = found.end();
            place = literals.max(next + 1);
            if place >= text.limit() {
                for behind in (next + 1..text.bytes.len() - 8).step_by(2) {
                    self.tables.insert(text.load64(behind), text.stamp(behind));
                }
                break;
            }
            for inside in (next + 1..place - 1).step_by(2) {
                let bytes = text.load64(inside);
                self.tables.insert(bytes, text.stamp(inside));
                self.tables.insert_long(bytes >> 8, text.stamp(inside + 1));
            }
        }
        text.push_rest(literals, tokens);
    }

    fn age(&mut self, by: Stamp) {
        self.tables.age(by);
    }
}

/// Takes a match with the distance of the one before, if it is longer.
#[inline(always)]
fn repeated(text: &Text<'_>, place: usize, repeat: usize, word: u32, found: Found) -> Option<Found> {
    let from = place.checked_sub(repeat).filter(|from| text.load32(*from) == word)?;
    Some(measured(text, place, from)).filter(|other| other.length > found.length)
}

/// Takes the longest of a short match and two at `next` by the long table.
#[inline(always)]
fn better_next(text: &Text<'_>, long: Pair, next: usize, word: u32, mut found: Found) -> Found {
    let Some(last) = text.reach(long.last, next) else {
        return found;
    };
    let last = (text.load32(last) == word).then_some(last);
    let before = text.candidate(long.before, next, word);
    for from in [last, before].into_iter().flatten() {
        let other = measured(text, next, from);
        if other.length > found.length {
            found = other;
        }
    }
    found
}
