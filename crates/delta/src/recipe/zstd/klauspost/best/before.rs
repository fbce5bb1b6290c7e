//! SpeedBestCompression before v1.16.4: matches are extended backwards only when they are taken, and the last but one
//! distance is tried after each match.

use super::super::Release;
use super::super::block::Block;
use super::Pair;
use super::{Match, SKIP, SKIPPED, Search};
use super::{common, common_before, hash, load32, load64};

/// No better match is looked for.
const LONG: usize = 100;

impl Search<'_> {
    /// The match of `s` and `t`, if there is one.
    fn match_at(&self, s: usize, t: i64, bytes: u32, repeat: i32) -> Option<Match> {
        if !self.fits(s, t, bytes) {
            return None;
        }
        let t = t as usize;
        Some(self.weigh(s, t, 4 + common(self.src, s + 4, t + 4), repeat))
    }

    /// Chooses among `best` and what was found at a position. Where releases played a knockout, `first` is how many
    /// of the found were in the half of `best`.
    fn choose<const N: usize>(
        &self,
        best: Match,
        s: usize,
        found: [Option<Match>; N],
        first: usize,
    ) -> Match {
        if self.release >= Release::V1_16_1 {
            let mut best = best;
            found.into_iter().flatten().for_each(|found| self.improve(&mut best, found));
            return best;
        }
        // What is not found takes part as well, and can win.
        let found = found.map(|found| found.unwrap_or(Match { s, ..self.none() }));
        let all = |best: Match, found: &[Match]| found.iter().fold(best, |a, b| self.better(a, *b));
        if self.release < Release::V1_15_13 || first == N {
            return all(best, &found);
        }
        let (first, second) = found.split_at(first);
        self.better(all(best, first), all(second[0], &second[1..]))
    }

    fn better(&self, a: Match, b: Match) -> Match {
        let later = |a: &Match, b: &Match| ((a.s as i32 - b.s as i32) * self.byte_cost) >> 10;
        let first = if self.release < Release::V1_15_13 {
            a.cost + later(&a, &b) < b.cost + later(&b, &a)
        } else {
            a.cost - b.cost + later(&a, &b) < 0
        };
        if first { a } else { b }
    }

    /// Finds the best match at the position or right after it, and puts the position into the tables.
    fn find_before(&mut self, repeats: bool) -> Match {
        let s = self.s;
        let word = load64(self.src, s);
        let (long_hash, short_hash) = (hash::<8, 22>(word), hash::<4, 18>(word));
        let (far, near) = (self.long.at(long_hash), self.short.at(short_hash));
        let found = [far.at, far.before, near.at, near.before]
            .map(|at| self.match_at(s, self.place(at), word as u32, -1));
        let mut best = if self.release >= Release::V1_16_1 {
            self.choose(self.none(), s, found, 0)
        } else {
            let [first, rest @ ..] = found;
            self.choose(first.unwrap_or(self.none()), s, rest, 1)
        };
        if repeats && best.len < LONG {
            best = self.choose_repeat(best, s + 1, (word >> 8) as u32);
            if best.len > 0 {
                best = self.choose_repeat(best, s + 3, (word >> 24) as u32);
            }
        }
        self.long.put(long_hash, Pair { at: self.base + s as u32, before: far.at });
        self.short.put(short_hash, Pair { at: self.base + s as u32, before: near.at });
        if best.len < LONG && best.len >= 4 {
            best = self.choose_later(best, word);
        }
        best
    }

    fn choose_repeat(&self, best: Match, s: usize, bytes: u32) -> Match {
        let mut repeat = 0;
        let found = self.last.map(|distance| {
            repeat += 1;
            self.match_at(s, s as i64 - distance as i64, bytes, repeat)
        });
        self.choose(best, s, found, 1)
    }

    /// Looks at the next two positions, and at what is known of the end of the match.
    fn choose_later(&self, best: Match, word: u64) -> Match {
        let s = self.s + 1;
        let near = self.short.at(hash::<4, 18>(word >> 8));
        let (next, after) = (load64(self.src, s), load64(self.src, s + 1));
        let far = self.long.at(hash::<8, 22>(next));
        let farther = self.long.at(hash::<8, 22>(after));
        let at = |s: usize, word: u64, at: u32| {
            let found = self.match_at(s, self.place(at), word as u32, -1);
            // The loser's position counts as well.
            if self.release < Release::V1_16_1 { found.or(Some(Match { s, ..self.none() })) } else { found }
        };
        let found = [
            at(s, next, near.at),
            at(s, next, far.at),
            at(s, next, far.before),
            at(s + 1, after, farther.at),
            at(s + 1, after, farther.before),
        ];
        let mut best = self.choose(best, s, found, 2);
        let end = best.s + best.len;
        if end < self.end {
            let skipped = if self.release < Release::V1_15_13 { 0 } else { SKIPPED };
            let seen = self.long.at(hash::<8, 22>(load64(self.src, end)));
            let first = best;
            for at in [seen.at, seen.before] {
                let from = if self.release < Release::V1_16_1 { first } else { best };
                let t = self.place(at) - from.len as i64 + skipped;
                if t < 0 {
                    break;
                }
                let s = from.s + skipped as usize;
                best = self.choose(best, s, [self.match_at(s, t, load32(self.src, s), -1)], 1);
            }
        }
        best
    }

    pub(super) fn parse_before(&mut self, block: &mut Block) {
        loop {
            let repeats = block.knows_repeats();
            let start = self.s;
            let mut best = self.find_before(repeats);
            if best.len < 4 {
                self.s += 1 + ((start - self.done) >> SKIP);
                if self.s >= self.end {
                    return;
                }
                continue;
            }
            let found = best.s;
            let repeat = best.repeat > 0;
            let lowest = best.s.saturating_sub(self.window as usize);
            // A repeat leaves a literal: without one, the codes of distances mean others.
            let behind = common_before(self.src, (best.s, self.done + usize::from(repeat)), (best.t, lowest));
            best = Match { s: best.s - behind, t: best.t - behind, len: best.len + behind, ..best };
            self.take(&best, block);
            if self.s >= self.end {
                return;
            }
            let from = if repeat { found } else { best.s + 1 };
            self.fill(from, self.s - 1);
            if !repeat && repeats && self.repeat_last_but_one(block) {
                return;
            }
        }
    }

    /// Takes matches at the last but one distance; true when that was the end of the block.
    fn repeat_last_but_one(&mut self, block: &mut Block) -> bool {
        loop {
            let (s, word) = (self.s, load64(self.src, self.s));
            let t = s - self.last[1];
            if load32(self.src, t) != word as u32 {
                return false;
            }
            let ahead = 4 + common(self.src, s + 4, t + 4);
            self.put(s, word);
            // Without literals, 1 is the last but one.
            block.push(&[], ahead, 1);
            self.last.swap(0, 1);
            self.s += ahead;
            self.done = self.s;
            if self.s >= self.end {
                return true;
            }
        }
    }
}
