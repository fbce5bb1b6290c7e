//! What levels 5 and 6 have in common: a table by 4 bytes, and one of two positions each by 7 bytes.

use super::super::symbols::MAX_COPY;
use super::hash::{hash4, hash7};
use super::{Found, Pair, Stamp, Text, age, table};

const BITS: u32 = 15;

#[derive(Debug)]
pub(super) struct Tables {
    short: Box<[Stamp; 1 << BITS]>,
    long: Box<[Pair; 1 << BITS]>,
}

impl Tables {
    pub(super) fn new() -> Self {
        Self { short: table(), long: table() }
    }

    /// Remembers a place by the bytes that are there, and says what was remembered by them before.
    #[inline(always)]
    pub(super) fn insert(&mut self, bytes: u64, stamp: Stamp) -> (Stamp, Pair) {
        let short = std::mem::replace(&mut self.short[hash4::<BITS>(bytes)], stamp);
        let entry = &mut self.long[hash7::<BITS>(bytes)];
        let long = *entry;
        entry.push(stamp);
        (short, long)
    }

    #[inline(always)]
    pub(super) fn insert_short(&mut self, bytes: u64, stamp: Stamp) {
        self.short[hash4::<BITS>(bytes)] = stamp;
    }

    #[inline(always)]
    pub(super) fn insert_long(&mut self, bytes: u64, stamp: Stamp) {
        self.long[hash7::<BITS>(bytes)].push(stamp);
    }

    /// The two positions remembered by 7 bytes.
    #[inline(always)]
    pub(super) fn long(&self, bytes: u64) -> Pair {
        self.long[hash7::<BITS>(bytes)]
    }

    pub(super) fn age(&mut self, by: Stamp) {
        age(&mut *self.short, by);
        self.long.iter_mut().for_each(|pair| pair.age(by));
    }
}

/// A match on the way: its length is 0 where the search had no need of it, and that of the longest copy at most.
#[inline(always)]
pub(super) fn find(text: &Text<'_>, long: Pair, place: usize, word: u32) -> Option<Found> {
    let last = text.reach(long.last, place)?;
    let before = text.candidate(long.before, place, word);
    if text.load32(last) != word {
        return before.map(|from| Found { place, from, length: 0 });
    }
    let Some(before) = before else {
        return Some(Found { place, from: last, length: 0 });
    };
    let (last, before) = (measured(text, place, last), measured(text, place, before));
    Some(if before.length > last.length { before } else { last })
}

/// A match whose first 4 bytes are known to be the same, with its length up to the longest copy.
#[inline(always)]
pub(super) fn measured(text: &Text<'_>, place: usize, from: usize) -> Found {
    Found { place, from, length: 4 + text.common_up_to(place + 4, from + 4, MAX_COPY - 4) }
}

/// Gives a match its full length, where the search had no need of it.
#[inline(always)]
pub(super) fn extended(text: &Text<'_>, mut found: Found) -> Found {
    if found.length == 0 {
        return Found::at(text, found.place, found.from);
    }
    if found.length == MAX_COPY {
        found.length += text.common(found.place + MAX_COPY, found.from + MAX_COPY);
    }
    found
}
