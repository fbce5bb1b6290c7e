//! The matches of SpeedFastest: one table, which is asked at two positions at a time.
//!
//! The algorithm is klauspost/compress's (BSD-3-Clause), which follows zstd's "fast".

use super::block::Block;
use super::history::{History, Seen, Table, common, common_before, hash, load32, load64};

/// What is read behind a position.
const MARGIN: usize = 8;
/// Blocks below this are literals.
const MIN_BLOCK: usize = 10;
/// After how many literals the search begins to skip, as a power of two.
const SKIP: u32 = 5;

#[derive(Debug)]
pub(super) struct Fastest {
    table: Table<Seen, 15>,
}

impl Fastest {
    pub(super) fn new() -> Self {
        Self { table: Table::new() }
    }

    /// Parses the next block. One that is `alone` has no history and is the last, and is parsed in a slightly
    /// different way.
    pub(super) fn parse(&mut self, history: &mut History, content: &[u8], alone: bool, block: &mut Block) {
        let (start, lowered) = history.push(content);
        if let Some(by) = lowered {
            self.table.lower(by);
        }
        if content.len() < MIN_BLOCK {
            block.literals.extend_from_slice(content);
            return;
        }
        let (src, base, window) = (history.bytes(), history.base(), history.window());
        let mut table = self.table.entries();
        let hash = hash::<6, 15>;
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
                let (here, next) = (base + s as u32, word >> 8);
                let (hash0, hash1) = (hash(word), hash(next));
                let (seen0, seen1) = (table.at(hash0), table.at(hash1));
                table.put(hash0, entry(s, word));
                table.put(hash1, entry(s + 1, next));
                if repeats && load32(src, s + 2 - last) == (word >> 16) as u32 {
                    let (at, t) = (s + 2, s + 2 - last);
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
                let distance = here.wrapping_sub(seen0.at) as usize;
                if distance < window && seen0.bytes == word as u32 {
                    break s - distance;
                }
                let distance = (here + 1).wrapping_sub(seen1.at) as usize;
                if distance < window && seen1.bytes == next as u32 {
                    s += 1;
                    break s - distance;
                }
                s += 2 + ((s - done) >> SKIP);
                if s >= end {
                    break 'block;
                }
                word = load64(src, s);
            };
            (last, last_but_one) = (s - t, last);
            let ahead = 4 + common(src, s + 4, t + 4);
            let behind = common_before(src, (s, done), (t, s.saturating_sub(window)));
            block.push(&src[done..s - behind], ahead + behind, last as u32 + 3);
            s += ahead;
            done = s;
            if s >= end {
                break;
            }
            word = load64(src, s);
            let repeats = if alone { block.knows_repeats() } else { repeats };
            if repeats && load32(src, s - last_but_one) == word as u32 {
                let ahead = 4 + common(src, s + 4, s - last_but_one + 4);
                table.put(hash(word), entry(s, word));
                // Without literals, 1 is the last but one.
                block.push(&[], ahead, 1);
                s += ahead;
                done = s;
                // The one before it is not needed before the next match sets it.
                last = last_but_one;
                if s >= end {
                    break;
                }
                word = load64(src, s);
            }
        }
        block.literals.extend_from_slice(&src[done..]);
    }
}
