//! Level 1: one table by 5 bytes (4 up to v1.15.10), and a search that looks at two places in a row, then skips one.

use std::marker::PhantomData;

use super::super::symbols::WINDOW;
use super::super::tokens::Tokens;
use super::hash::Hash;
use super::{Found, Matcher, Stamp, Text, age, table};

const BITS: u32 = 15;

/// A search skips one more byte for every 32 that had no match.
const SKIP_LOG: u32 = 5;

#[derive(Debug)]
pub(super) struct Level1<H> {
    hash: PhantomData<H>,
    table: Box<[Stamp; 1 << BITS]>,
}

impl<H: Hash> Level1<H> {
    pub(super) fn new() -> Self {
        Self { hash: PhantomData, table: table() }
    }

    #[inline(always)]
    fn insert(&mut self, bytes: u64, stamp: Stamp) -> Stamp {
        std::mem::replace(&mut self.table[H::of::<BITS>(bytes)], stamp)
    }

    /// The next match from `place` on, and where the search would have gone on.
    #[inline(always)]
    fn search(&mut self, text: &Text<'_>, mut place: usize, literals: usize) -> Option<(Found, usize)> {
        loop {
            let next = place + 2 + ((place - literals) >> SKIP_LOG);
            if next > text.limit() {
                return None;
            }
            let (bytes, next_bytes) = (text.load64(place), text.load64(next));
            let stamp = self.insert(bytes, text.stamp(place));
            if let Some(from) = text.candidate(stamp, place, bytes as u32) {
                self.insert(next_bytes, text.stamp(next));
                return Some((Found::at(text, place, from), next));
            }
            let stamp = self.insert(next_bytes, text.stamp(next));
            if let Some(from) = text.candidate(stamp, next, next_bytes as u32) {
                // Not the place that these bytes are at, but the one behind it.
                self.insert(next_bytes, text.stamp(next + 1));
                return Some((Found::at(text, next, from), next + 1));
            }
            place = next + 1;
        }
    }
}

impl<H: Hash> Matcher for Level1<H> {
    fn tokenize(&mut self, text: &Text<'_>, tokens: &mut Tokens) {
        let mut literals = text.start;
        let mut place = text.start;
        'block: while let Some((mut found, next)) = self.search(text, place, literals) {
            loop {
                let pushed = found.push(text, literals, tokens);
                literals = pushed.end();
                place = literals.max(next + 1);
                if place >= text.limit() {
                    if place + pushed.length + H::BYTES < text.bytes.len() {
                        self.insert(H::load(text, place), text.stamp(place));
                    }
                    break 'block;
                }
                self.insert(text.load64(place - 2), text.stamp(place - 2));
                let bytes = text.load64(place);
                let stamp = self.insert(bytes, text.stamp(place));
                let from = text.reach_up_to(stamp, place, WINDOW);
                match from.filter(|from| text.load32(*from) == bytes as u32) {
                    Some(from) => found = Found::at(text, place, from),
                    None => break,
                }
            }
            place += 1;
        }
        text.push_rest(literals, tokens);
    }

    fn age(&mut self, by: Stamp) {
        age(&mut *self.table, by);
    }
}
