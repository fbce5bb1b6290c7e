//! Level 3: one table of two positions each by 5 bytes (4 up to v1.15.10).

use std::marker::PhantomData;

use super::super::symbols::WINDOW;
use super::super::tokens::Tokens;
use super::hash::Hash;
use super::{Found, MARGIN, Matcher, Pair, Stamp, Text, table};

const BITS: u32 = 16;

/// The largest distance, four below that of deflate; some checks even leave this one out.
const FARTHEST: usize = WINDOW - 4;

/// How fast the matcher goes forward.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// A search goes forward by one byte, and by one more for every `2^skip_log` that had no match.
    skip_log: u32,
    /// Every so many places inside of a match are remembered.
    step: usize,
    /// How near to the end of a block a match may no longer start.
    margin: usize,
}

impl Pace {
    /// That of places remembered by 4 bytes.
    pub(super) const OF_FOUR: Self = Self { skip_log: 6, step: 5, margin: 7 };

    /// That of places remembered by 5 bytes.
    pub(super) const OF_FIVE: Self = Self { skip_log: 7, step: 6, margin: MARGIN };
}

#[derive(Debug)]
pub(super) struct Level3<H> {
    hash: PhantomData<H>,
    pace: Pace,
    table: Box<[Pair; 1 << BITS]>,
}

impl<H: Hash> Level3<H> {
    pub(super) fn new(pace: Pace) -> Self {
        Self { hash: PhantomData, pace, table: table() }
    }

    fn limit(&self, text: &Text<'_>) -> usize {
        text.bytes.len() - self.pace.margin
    }

    #[inline(always)]
    fn insert(&mut self, bytes: u64, stamp: Stamp) -> Pair {
        let entry = &mut self.table[H::of::<BITS>(bytes)];
        let before = *entry;
        entry.push(stamp);
        before
    }

    /// The next match from `place` on, and where the search would have gone on.
    #[inline(always)]
    fn search(&mut self, text: &Text<'_>, mut place: usize, literals: usize) -> Option<(Found, usize)> {
        loop {
            let next = place + 1 + ((place - literals) >> self.pace.skip_log);
            if next > self.limit(text) {
                return None;
            }
            let bytes = H::load(text, place);
            let seen = self.insert(bytes, text.stamp(place));
            if let Some(from) = either(text, seen, place, bytes as u32) {
                return Some((Found::at(text, place, from), next));
            }
            place = next;
        }
    }
}

/// The one of two places that has the longer match.
#[inline(always)]
fn either(text: &Text<'_>, seen: Pair, place: usize, word: u32) -> Option<usize> {
    let last = text.reach_up_to(seen.last, place, FARTHEST)?;
    let before = |most| text.reach_up_to(seen.before, place, most).filter(|from| text.load32(*from) == word);
    if text.load32(last) != word {
        return before(FARTHEST - 1);
    }
    let Some(before) = before(FARTHEST) else {
        return Some(last);
    };
    let longer = text.common(place + 4, before + 4) > text.common(place + 4, last + 4);
    Some(if longer { before } else { last })
}

/// The first of two places that has a match.
#[inline(always)]
fn first(text: &Text<'_>, seen: Pair, place: usize, word: u32) -> Option<usize> {
    let last = text.reach_up_to(seen.last, place, FARTHEST - 1)?;
    if text.load32(last) == word {
        return Some(last);
    }
    text.reach_up_to(seen.before, place, FARTHEST - 1).filter(|from| text.load32(*from) == word)
}

impl<H: Hash> Matcher for Level3<H> {
    fn tokenize(&mut self, text: &Text<'_>, tokens: &mut Tokens) {
        let mut literals = text.start;
        let mut place = text.start;
        'block: while let Some((mut found, next)) = self.search(text, place, literals) {
            loop {
                let pushed = found.push(text, literals, tokens);
                literals = pushed.end();
                place = literals.max(next + 1);
                if place >= self.limit(text) {
                    // Not the end of the match, but of what it copies.
                    let place = pushed.from + pushed.length;
                    if place + H::BYTES < text.bytes.len() {
                        self.insert(H::load(text, place), text.stamp(place));
                    }
                    break 'block;
                }
                for inside in (place - pushed.length + 2..place.saturating_sub(5)).step_by(self.pace.step) {
                    self.insert(H::load(text, inside), text.stamp(inside));
                }
                self.insert(H::load(text, place - 2), text.stamp(place - 2));
                self.insert(H::load(text, place - 1), text.stamp(place - 1));
                let bytes = H::load(text, place);
                let seen = self.insert(bytes, text.stamp(place));
                match first(text, seen, place, bytes as u32) {
                    Some(from) => found = Found::at(text, place, from),
                    None => break,
                }
            }
            place += 1;
        }
        text.push_rest(literals, tokens);
    }

    fn age(&mut self, by: Stamp) {
        self.table.iter_mut().for_each(|pair| pair.age(by));
    }
}
