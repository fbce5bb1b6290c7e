//! The matches of SpeedBetterCompression: a table of pairs for long matches, one for short ones, and a look at what
//! follows the match.
//!
//! The algorithm is klauspost/compress's (BSD-3-Clause).

use super::Release;
use super::block::Block;
use super::history::{Entries, History, Pair, Seen, Table, common, common_before, hash, load32, load64};

/// What is read behind a position: a word, two bytes further on.
const MARGIN: usize = 8 + 2;
/// Blocks below this are literals.
const MIN_BLOCK: usize = 16;
/// After how many literals the search begins to skip, as a power of two.
const SKIP: u32 = 8;

#[derive(Debug)]
pub(super) struct Better {
    release: Release,
    long: Table<Pair, 19>,
    short: Table<Seen, 13>,
}

/// The tables during a search.
struct Index<'a> {
    src: &'a [u8],
    base: u32,
    long: Entries<'a, Pair>,
    short: Entries<'a, Seen>,
}

impl Better {
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
        let (src, base, window) = (history.bytes(), history.base(), history.window());
        let mut index = Index { src, base, long: self.long.entries(), short: self.short.entries() };
        let reaches = |s: usize, t: i64| s as i64 - t < window as i64;
        let end = src.len() - MARGIN;
        // How many bytes at the start of a match may differ when the bytes at its end say where it may be.
        let skipped = if self.release < Release::V1_15_10 { 0 } else { 3 };
        let mut s = start;
        // Everything before this is in the block.
        let mut done = start;
        // Both are set by matches before they are used.
        let mut last = 0;
        let mut last_but_one;
        let mut word = load64(src, s);
        'block: loop {
            let repeats = block.knows_repeats();
            let mut indexed;
            let (mut t, mut ahead) = loop {
                let (far, near) = index.put(s, word);
                indexed = s + 1;
                if repeats && load32(src, s + 1 - last) == (word >> 8) as u32 {
                    let (at, t) = (s + 1, s + 1 - last);
                    let ahead = 4 + common(src, at + 4, t + 4);
                    // A literal is always left: without one, the codes of distances mean others.
                    let behind = common_before(src, (at, done + 1), (t, s.saturating_sub(window)));
                    block.push(&src[done..at - behind], ahead + behind, 1);
                    s = at + ahead;
                    done = s;
                    if s >= end {
                        break 'block;
                    }
                    index.fill(at, s);
                    word = load64(src, s);
                    continue;
                }
                let long = |s: usize, word: u64, at: u32| {
                    let t = index.place(at);
                    (reaches(s, t) && word == load64(src, t as usize)).then_some(t as usize)
                };
                let first = long(s, word, far.at).map(|t| (t, 8 + common(src, s + 8, t + 8)));
                let second = long(s, word, far.before).map(|t| (t, 8 + common(src, s + 8, t + 8)));
                match (first, second) {
                    (Some(first), Some(second)) => break if second.1 > first.1 { second } else { first },
                    (Some(only), None) | (None, Some(only)) => break only,
                    (None, None) => {}
                }
                let t = index.place(near.at);
                if reaches(s, t) && near.bytes == word as u32 {
                    let t = t as usize;
                    let ahead = 4 + common(src, s + 4, t + 4);
                    // A long match one byte later is better, if it is longer. Its distance is taken from here.
                    let next = load64(src, s + 1);
                    let far = index.long.chain(hash::<8, 19>(next), base + s as u32 + 1);
                    let later = [far.at, far.before].into_iter().find_map(|at| {
                        let t = index.place(at);
                        let t = (reaches(s, t) && next == load64(src, t as usize)).then_some(t as usize)?;
                        Some((t, 8 + common(src, s + 9, t + 8))).filter(|found| found.1 > ahead)
                    });
                    if let Some(found) = later {
                        s += 1;
                        break found;
                    }
                    break (t, ahead);
                }
                s += 1 + ((s - done) >> SKIP);
                if s >= end {
                    break 'block;
                }
                word = load64(src, s);
            };
            if s + ahead < end {
                // Where the bytes behind the match were seen before, there may have been a longer one.
                let far = index.long.at(hash::<8, 19>(load64(src, s + ahead)));
                let later = s + skipped;
                let bytes = load32(src, later);
                for at in [far.at, far.before] {
                    let from = index.place(at) - ahead as i64 + skipped as i64;
                    if from < 0 || from >= later as i64 || !reaches(later, from) {
                        continue;
                    }
                    let from = from as usize;
                    if bytes == load32(src, from) {
                        let found = 4 + common(src, later + 4, from + 4);
                        if found > ahead {
                            (s, t, ahead) = (later, from, found);
                        }
                    }
                }
            }
            (last, last_but_one) = (s - t, last);
            let behind = common_before(src, (s, done), (t, s.saturating_sub(window)));
            block.push(&src[done..s - behind], ahead + behind, last as u32 + 3);
            if self.release < Release::V1_17_3 {
                indexed = s - behind + 1;
            }
            s += ahead;
            done = s;
            if s >= end {
                break;
            }
            index.fill(indexed, s);
            word = load64(src, s);
            if !repeats {
                continue;
            }
            while load32(src, s - last_but_one) == word as u32 {
                let ahead = 4 + common(src, s + 4, s - last_but_one + 4);
                index.put(s, word);
                // Without literals, 1 is the last but one.
                block.push(&[], ahead, 1);
                s += ahead;
                done = s;
                (last, last_but_one) = (last_but_one, last);
                if s >= end {
                    break 'block;
                }
                word = load64(src, s);
            }
        }
        block.literals.extend_from_slice(&src[done..]);
    }
}

impl Index<'_> {
    /// The index of a place, which is negative when it is out of reach.
    fn place(&self, at: u32) -> i64 {
        i64::from(at) - i64::from(self.base)
    }

    /// Puts a position into both tables, and gives what was there.
    #[inline(always)]
    fn put(&mut self, s: usize, word: u64) -> (Pair, Seen) {
        let at = self.base + s as u32;
        let near = Seen { bytes: word as u32, at };
        (self.long.chain(hash::<8, 19>(word), at), self.short.put(hash::<5, 13>(word), near))
    }

    /// Puts what was passed into the tables: every other position into one, the others into the other.
    fn fill(&mut self, from: usize, s: usize) {
        for position in (from..s.saturating_sub(1)).step_by(2) {
            let word = load64(self.src, position);
            let at = self.base + position as u32;
            self.long.chain(hash::<8, 19>(word), at);
            let next = word >> 8;
            self.short.put(hash::<5, 13>(next), Seen { bytes: next as u32, at: at + 1 });
        }
    }
}
