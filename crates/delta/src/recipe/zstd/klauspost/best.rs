//! The matches of SpeedBestCompression: two tables of pairs, and every candidate is weighed by what it costs.
//!
//! The algorithm is klauspost/compress's (BSD-3-Clause). It was rewritten in v1.16.4: [`Search`] has what both share,
//! `before` the older.

mod before;
mod entropy;

use super::Release;
use super::block::Block;
use super::history::{Entries, History, Pair, Table, common, common_before, hash, load32, load64};
use super::sequences::{self, MIN_MATCH};

/// What is read behind a position: a word, four bytes further on.
const MARGIN: usize = 8 + 4;
/// Blocks below this are literals.
const MIN_BLOCK: usize = 16;
/// After how many literals the search begins to skip, as a power of two.
const SKIP: u32 = 9;
/// How many bytes at the start of a match may differ when the bytes at its end say where it may be.
const SKIPPED: i64 = 2;

#[derive(Debug)]
pub(super) struct Best {
    release: Release,
    long: Table<Pair, 22>,
    short: Table<Pair, 18>,
}

impl Best {
    pub(super) fn new(release: Release) -> Self {
        Self { release, long: Table::new(), short: Table::new() }
    }

    /// Parses the next block.
    pub(super) fn parse(&mut self, history: &mut History, content: &[u8], block: &mut Block) {
        let (start, lowered) = history.push(content);
        if let Some(by) = lowered {
            self.long.lower(by);
            self.short.lower(by);
        }
        if self.release >= Release::V1_17_8 && block.push_repetition(content) {
            return;
        }
        if content.len() < MIN_BLOCK {
            block.literals.extend_from_slice(content);
            return;
        }
        let src = history.bytes();
        let mut search = Search {
            release: self.release,
            src,
            base: history.base(),
            window: history.window() as i64,
            end: src.len() - MARGIN,
            byte_cost: (entropy::bits(content) * 1024 / content.len()).max(1024) as i32,
            long: self.long.entries(),
            short: self.short.entries(),
            s: start,
            done: start,
            last: [1, 4, 8],
        };
        if self.release < Release::V1_16_4 {
            search.parse_before(block);
        } else {
            search.parse(block);
        }
        block.literals.extend_from_slice(&src[search.done..]);
    }
}

/// A match that may be taken.
#[derive(Clone, Copy, Debug)]
struct Match {
    s: usize,
    t: usize,
    /// 0 for none.
    len: usize,
    /// Which of the last distances it uses; -1 for none, 0 when there is no match at all.
    repeat: i32,
    /// What it costs in bits, less what its bytes would cost as literals.
    cost: i32,
}

/// A bit in [`Match::repeat`] for matches without literals before them, where the distances have other numbers.
const NO_LITERALS: i32 = 4;

/// The search through one block.
struct Search<'a> {
    release: Release,
    src: &'a [u8],
    base: u32,
    window: i64,
    /// No match starts here or later.
    end: usize,
    /// What a literal costs in bits, times 1024.
    byte_cost: i32,
    long: Entries<'a, Pair>,
    short: Entries<'a, Pair>,
    /// The position of the search.
    s: usize,
    /// Everything before this is in the block.
    done: usize,
    /// The last three distances.
    last: [usize; 3],
}

impl Search<'_> {
    /// What a match that is no gain costs.
    fn no_gain(&self) -> i32 {
        if self.release < Release::V1_16_4 { 25_000 } else { 131_074 * 8 }
    }

    /// The index of a place, which is negative when it is out of reach.
    fn place(&self, at: u32) -> i64 {
        i64::from(at) - i64::from(self.base)
    }

    /// Whether there may be a match: `bytes` are at `t`, before `s` and not too far.
    fn fits(&self, s: usize, t: i64, bytes: u32) -> bool {
        let distance = s as i64 - t;
        distance > 0 && distance < self.window && load32(self.src, t as usize) == bytes
    }

    fn none(&self) -> Match {
        Match { s: self.s, t: 0, len: 0, repeat: 0, cost: self.no_gain() }
    }

    /// Reckons what a match costs.
    fn weigh(&self, s: usize, t: usize, len: usize, repeat: i32) -> Match {
        let code = if repeat < 0 {
            (s - t) as u32 + 3
        } else if self.release < Release::V1_17_3 {
            repeat as u32
        } else {
            repeat as u32 & 3
        };
        let cost = sequences::match_cost(code, (len - MIN_MATCH) as u32) as i32
            - ((len as i32 * self.byte_cost) >> 10);
        if cost > 0 {
            return Match { s, t, len: 0, repeat, cost: self.no_gain() };
        }
        Match { s, t, len, repeat, cost }
    }

    /// Takes the match instead of `best` if it is better.
    fn improve(&self, best: &mut Match, found: Match) {
        let later = (found.s as i32 - best.s as i32) * self.byte_cost;
        if best.cost >= self.no_gain() || found.cost - best.cost + (later >> 10) < 0 {
            *best = found;
        }
    }

    /// Takes a match of `s` and `t` instead of `best` if there is one and it is better.
    #[inline(always)]
    fn try_match(&self, best: &mut Match, s: usize, t: i64, bytes: u32, repeat: i32) {
        if !self.fits(s, t, bytes) || !self.may_be_longer(best, s, t as usize) {
            return;
        }
        let t = t as usize;
        let ahead = 4 + common(self.src, s + 4, t + 4);
        let extends = match self.release {
            release if release < Release::V1_17_3 => repeat < 0,
            release if release < Release::V1_17_6 => true,
            _ => best.repeat <= 0,
        };
        let lowest = s.saturating_sub(self.window as usize);
        let behind = if extends { common_before(self.src, (s, self.done), (t, lowest)) } else { 0 };
        self.improve(best, self.weigh(s - behind, t - behind, ahead + behind, repeat));
    }

    /// A quick look at the bytes where a long match ends.
    fn may_be_longer(&self, best: &Match, s: usize, t: usize) -> bool {
        if best.len <= 16 {
            return true;
        }
        let left = self.src.len() as i64 - (best.s + best.len) as i64;
        let check = best.len as i64 - (s as i64 - best.s as i64) - 8;
        left > 0
            && (left <= 2
                || check <= 4
                || load32(self.src, t + check as usize) == load32(self.src, s + check as usize))
    }

    /// Finds the best match at the position or right after it, and puts the position into the tables.
    fn find(&mut self, repeats: bool) -> Match {
        /// No better match is looked for.
        const LONG: usize = 250;
        let s = self.s;
        let word = load64(self.src, s);
        let (long_hash, short_hash) = (hash::<8, 22>(word), hash::<4, 18>(word));
        let (far, near) = (self.long.at(long_hash), self.short.at(short_hash));
        let mut best = self.none();
        for at in [far.at, far.before, near.at, near.before] {
            self.try_match(&mut best, s, self.place(at), word as u32, -1);
        }
        if repeats && best.len < LONG {
            self.try_repeats(&mut best, word);
        }
        self.long.put(long_hash, Pair { at: self.base + s as u32, before: far.at });
        self.short.put(short_hash, Pair { at: self.base + s as u32, before: near.at });
        if best.len < LONG && best.len >= 4 {
            self.try_later(&mut best, word);
        }
        best
    }

    fn try_repeats(&self, best: &mut Match, word: u64) {
        let (s, [a, b, c]) = (self.s, self.last);
        let at = |s: usize, distance: usize| s as i64 - distance as i64;
        if s == self.done {
            self.try_match(best, s, at(s, b), word as u32, 1 | NO_LITERALS);
            self.try_match(best, s, at(s, c), word as u32, 2 | NO_LITERALS);
            if a > 1 {
                self.try_match(best, s, at(s, a - 1), word as u32, 3 | NO_LITERALS);
            }
        }
        if best.repeat > 0 {
            return;
        }
        for (repeat, distance) in (1..).zip([a, b, c]) {
            self.try_match(best, s + 1, at(s + 1, distance), (word >> 8) as u32, repeat);
        }
        if best.repeat < 0 {
            for (repeat, distance) in (1..).zip([a, b, c]) {
                self.try_match(best, s + 3, at(s + 3, distance), (word >> 24) as u32, repeat);
            }
        }
    }

    /// Looks at the next two positions, and at what is known of the end of the match.
    fn try_later(&self, best: &mut Match, word: u64) {
        let s = self.s;
        let near = self.short.at(hash::<4, 18>(word >> 8));
        let (next, after) = (load64(self.src, s + 1), load64(self.src, s + 2));
        let far = self.long.at(hash::<8, 22>(next));
        let farther = self.long.at(hash::<8, 22>(after));
        for at in [near.at, far.at, far.before] {
            self.try_match(best, s + 1, self.place(at), next as u32, -1);
        }
        for at in [farther.at, farther.before] {
            self.try_match(best, s + 2, self.place(at), after as u32, -1);
        }
        if best.s as i64 <= s as i64 - SKIPPED {
            return;
        }
        let end = best.s + best.len;
        if end < self.end {
            let seen = self.long.at(hash::<8, 22>(load64(self.src, end)));
            for at in [seen.at, seen.before] {
                let t = self.place(at) - best.len as i64 + SKIPPED;
                if t < 0 {
                    break;
                }
                let s = best.s + SKIPPED as usize;
                self.try_match(best, s, t, load32(self.src, s), -1);
            }
        }
    }

    fn parse(&mut self, block: &mut Block) {
        loop {
            let start = self.s;
            let best = self.find(block.knows_repeats());
            if best.len < 4 {
                self.s += 1 + ((start - self.done) >> SKIP);
                if self.s >= self.end {
                    return;
                }
                continue;
            }
            self.take(&best, block);
            // The older releases do not store what nothing will look for.
            let ended = self.s >= self.end;
            if ended && self.release < Release::V1_17_3 {
                return;
            }
            let most = match self.release {
                release if release < Release::V1_17_3 => self.s,
                _ if best.repeat > 0 => self.s.min(self.end + 4),
                _ => self.s.min(self.end.saturating_sub(4)),
            };
            self.fill(start + 1, most);
            if ended {
                return;
            }
        }
    }

    /// Appends a match to the block, and goes on behind it.
    fn take(&mut self, best: &Match, block: &mut Block) {
        let [a, b, c] = self.last;
        let (offset, last) = match best.repeat {
            1 => (1, [a, b, c]),
            2 => (2, [b, a, c]),
            3 => (3, [c, a, b]),
            5 => (1, [b, a, c]),
            6 => (2, [c, a, b]),
            7 => (3, [a - 1, a, b]),
            _ => ((best.s - best.t) as u32 + 3, [best.s - best.t, a, b]),
        };
        block.push(&self.src[self.done..best.s], best.len, offset);
        self.last = last;
        self.s = best.s + best.len;
        self.done = self.s;
    }

    /// Puts what was passed into the tables.
    fn fill(&mut self, from: usize, to: usize) {
        for position in from..to {
            self.put(position, load64(self.src, position));
        }
    }

    fn put(&mut self, position: usize, word: u64) {
        let at = self.base + position as u32;
        self.long.chain(hash::<8, 22>(word), at);
        self.short.chain(hash::<4, 18>(word), at);
    }
}
