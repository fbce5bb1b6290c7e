//! The matches of SpeedDefault: one table for long matches, one for short ones, and the last but one distance.
//!
//! The algorithm is klauspost/compress's (BSD-3-Clause), which follows zstd's "dfast".

use super::block::Block;
use super::history::{History, Seen, Table, common, common_before, hash, load32, load64};

/// What is read behind a position: a word, two bytes further on.
const MARGIN: usize = 8 + 2;
/// Blocks below this are literals.
const MIN_BLOCK: usize = 16;
/// After how many literals the search begins to skip, as a power of two.
const SKIP: u32 = 7;

#[derive(Debug)]
pub(super) struct Default {
    long: Table<Seen, 17>,
    short: Table<Seen, 15>,
}

impl Default {
    pub(super) fn new() -> Self {
        Self { long: Table::new(), short: Table::new() }
    }

    /// Parses the next block. One that is `alone` has no history and is the last, and is parsed in a slightly
    /// different way.
    pub(super) fn parse(&mut self, history: &mut History, content: &[u8], alone: bool, block: &mut Block) {
        let (start, lowered) = history.push(content);
        if let Some(by) = lowered {
            self.long.lower(by);
            self.short.lower(by);
        }
        if content.len() < MIN_BLOCK {
            block.literals.extend_from_slice(content);
            return;
        }
        let (src, base, window) = (history.bytes(), history.base(), history.window());
        let (mut long, mut short) = (self.long.entries(), self.short.entries());
        let long_hash = hash::<8, 17>;
        let short_hash = hash::<5, 15>;
        let entry = |s: usize, word: u64| Seen { bytes: word as u32, at: base + s as u32 };
        let end = src.len() - MARGIN;
        let mut s = start;
        // Everything before this is in the block.
        let mut done = start;
        // Both are set by matches before they are used.
        let mut last = 0;
        let mut last_but_one;
        let mut word = load64(src, s);
        'block: loop {
            let repeats = block.knows_repeats();
            let t = loop {
                let here = base + s as u32;
                let far = long.put(long_hash(word), entry(s, word));
                let near = short.put(short_hash(word), entry(s, word));
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
                    word = load64(src, s);
                    continue;
                }
                let distance = here.wrapping_sub(far.at) as usize;
                if distance < window && far.bytes == word as u32 {
                    break s - distance;
                }
                let distance = here.wrapping_sub(near.at) as usize;
                if distance < window && near.bytes == word as u32 {
                    // A long match one byte later is better.
                    let next = load64(src, s + 1);
                    let far = long.put(long_hash(next), entry(s + 1, next));
                    let next_distance = (here + 1).wrapping_sub(far.at) as usize;
                    if next_distance < window && far.bytes == next as u32 {
                        s += 1;
                        break s - next_distance;
                    }
                    break s - distance;
                }
                s += 1 + ((s - done) >> SKIP);
                if s >= end {
                    break 'block;
                }
                word = load64(src, s);
            };
            (last, last_but_one) = (s - t, last);
            let ahead = 4 + common(src, s + 4, t + 4);
            let behind = common_before(src, (s, done), (t, s.saturating_sub(window)));
            block.push(&src[done..s - behind], ahead + behind, last as u32 + 3);
            let matched = s - behind;
            s += ahead;
            done = s;
            if s >= end {
                break;
            }
            for index in [matched + 1, s - 2] {
                let word = load64(src, index);
                long.put(long_hash(word), entry(index, word));
                short.put(short_hash(word >> 8), entry(index + 1, word >> 8));
            }
            word = load64(src, s);
            if !(if alone { block.knows_repeats() } else { repeats }) {
                continue;
            }
            // Alone, all of the following are stored where the first belongs.
            let first_hash = short_hash(word);
            while load32(src, s - last_but_one) == word as u32 {
                let ahead = 4 + common(src, s + 4, s - last_but_one + 4);
                long.put(long_hash(word), entry(s, word));
                short.put(if alone { first_hash } else { short_hash(word) }, entry(s, word));
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
