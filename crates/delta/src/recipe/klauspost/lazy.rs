//! The matcher of levels 7 to 9: hash chains, and a match is only taken when the next byte has no better one.
//!
//! Source of the algorithm: klauspost/compress, `flate` (BSD-3-Clause), which has it from Go and that from zlib.

use super::block::BlockWriter;
use super::code::{self, Code, MAX_LEN};
use super::symbols::{
    LENGTH_EXTRA_BITS, LENGTH_SYMBOL, MAX_COPY, MIN_COPY, WINDOW, distance_extra_bits, distance_symbol,
};
use super::tokens::{Pieces, Tokens};
use crate::common::common_prefix;

/// The shortest match that is looked for.
const MIN_MATCH: usize = 4;

/// What stands for no match.
const NO_MATCH: usize = MIN_MATCH - 1;

/// How much must lie ahead for the search to go on, unless all that there is must be written.
const LOOKAHEAD: usize = MIN_MATCH + MAX_COPY;

/// The tokens of a block.
const MAX_TOKENS: usize = 1 << 15;

/// The bits of a hash.
const HASH_BITS: u32 = 17;

/// Positions above this are moved back before the window slides again.
const MAX_BASE: u32 = 1 << 28;

/// How hard a level tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    /// A match of this length is taken without looking at the next byte.
    pub(super) lazy: usize,
    /// A match of this length ends the search.
    pub(super) nice: usize,
    /// How many places of a chain are looked at.
    pub(super) chain: usize,
    /// How the end of a match is compared with others.
    pub(super) end: EndCheck,
    /// By what matches are compared when it is not just their length.
    pub(super) gain: Option<Gain>,
}

/// How a match is compared with others that have the same end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndCheck {
    /// With the last one that has the same two bytes at its end, and the two behind.
    Around,
    /// With the last one that has the same four bytes behind it, whatever the first two bytes are.
    Behind,
}

/// What a match must save against literals, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gain {
    /// What the match itself is taken to cost, besides its extra bits.
    pub(super) cost: i64,
    /// What it must gain at least.
    pub(super) least: i64,
    /// How the bytes that are ahead are counted, for the costs of literals.
    pub(super) census: Census,
}

/// How often each byte is taken to occur ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Census {
    /// Everything ahead, in 16 bits: 65,536 times the same byte are none.
    Overflowing,
    /// The next 32 KiB.
    First32K,
}

/// The window, its chains and the match on the way.
#[derive(Debug)]
pub(super) struct Lazy {
    effort: Effort,
    /// Two windows: what matches can reach, and what is ahead.
    window: Vec<u8>,
    /// How much of the window is filled.
    end: usize,
    /// The next place to look at.
    index: usize,
    /// Where the tokens begin, unless it has left the window.
    block_start: Option<usize>,
    /// What is added to a place to make the number that the chains hold; they hold 0 for nothing.
    base: u32,
    /// The last place of each hash.
    head: Box<[u32; 1 << HASH_BITS]>,
    /// The place before with the same hash, for the last places.
    previous: Box<[u32; WINDOW]>,
    /// What was in `head` for the last place that was hashed.
    chain: u32,
    /// No place from here on has the bytes for a hash.
    unhashed: usize,
    /// The match at the place before `index`.
    length: usize,
    distance: usize,
    /// Whether the byte before `index` is not in the tokens yet.
    waiting: bool,
    /// Literals since the last match. It overflows.
    literals: u16,
    /// The costs of literals.
    costs: [Code; 256],
    tokens: Tokens,
}

/// Where blocks go.
struct Sink<'a> {
    blocks: &'a mut BlockWriter,
    flush: bool,
    out: &'a mut Vec<u8>,
}

impl Lazy {
    pub(super) fn new(effort: Effort) -> Self {
        Self {
            effort,
            window: vec![0; 2 * WINDOW],
            end: 0,
            index: 0,
            block_start: Some(0),
            base: 1,
            head: super::quick::table(),
            previous: super::quick::table(),
            chain: 0,
            unhashed: 0,
            length: NO_MATCH,
            distance: 0,
            waiting: false,
            literals: 0,
            costs: [Code::default(); 256],
            tokens: Tokens::new(Pieces::Longest, MAX_TOKENS),
        }
    }

    /// Begins anew, with at most a window of bytes that were there before.
    pub(super) fn restart(&mut self, dictionary: &[u8]) {
        self.head.fill(0);
        self.previous.fill(0);
        self.base = 1;
        self.chain = 0;
        self.block_start = Some(0);
        self.length = NO_MATCH;
        self.distance = 0;
        self.waiting = false;
        self.literals = 0;
        self.tokens.clear();
        let dictionary = &dictionary[dictionary.len().saturating_sub(WINDOW)..];
        self.window[..dictionary.len()].copy_from_slice(dictionary);
        self.end = dictionary.len();
        self.index = dictionary.len();
        for place in 0..(self.end + 1).saturating_sub(MIN_MATCH) {
            self.insert(place);
        }
    }

    pub(super) fn write(&mut self, mut content: &[u8], blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        while !content.is_empty() {
            if self.end == self.window.len() {
                self.search(&mut Sink { blocks: &mut *blocks, flush: false, out: &mut *out });
            }
            if self.index >= 2 * WINDOW - LOOKAHEAD {
                self.slide();
            }
            let (now, later) = content.split_at(content.len().min(self.window.len() - self.end));
            self.window[self.end..self.end + now.len()].copy_from_slice(now);
            self.end += now.len();
            content = later;
        }
    }

    pub(super) fn flush(&mut self, blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        self.search(&mut Sink { blocks, flush: true, out });
    }

    fn slide(&mut self) {
        self.window.copy_within(WINDOW.., 0);
        self.index -= WINDOW;
        self.end -= WINDOW;
        self.block_start = self.block_start.and_then(|start| start.checked_sub(WINDOW));
        self.base += WINDOW as u32;
        if self.base > MAX_BASE {
            let by = self.base - 1;
            self.head
                .iter_mut()
                .chain(&mut *self.previous)
                .for_each(|place| *place = place.saturating_sub(by));
            self.chain = self.chain.saturating_sub(by);
            self.base = 1;
        }
    }

    /// Makes tokens as far as enough lies ahead, or of everything.
    fn search(&mut self, sink: &mut Sink<'_>) {
        if self.end - self.index < LOOKAHEAD && !sink.flush {
            return;
        }
        if let Some(gain) = self.effort.gain.filter(|_| self.end != self.index) {
            self.count_ahead(gain.census);
        }
        self.unhashed = self.end.saturating_sub(MIN_MATCH - 1);
        loop {
            let ahead = self.end - self.index;
            if ahead < LOOKAHEAD && !sink.flush {
                return;
            }
            if ahead == 0 {
                return self.end_search(sink);
            }
            self.hash();
            let before = (self.length, self.distance);
            (self.length, self.distance) = (NO_MATCH, 0);
            if let Some(first) =
                self.start_of_chain().filter(|_| ahead > before.0 && before.0 < self.effort.lazy)
            {
                self.find(first, ahead);
            }
            if before.0 >= MIN_MATCH && self.length <= before.0 {
                self.take_match(before, ahead, sink);
            } else {
                self.take_literal(sink);
            }
        }
    }

    fn end_search(&mut self, sink: &mut Sink<'_>) {
        if self.waiting {
            self.tokens.literal(self.window[self.index - 1]);
            self.waiting = false;
        }
        if !self.tokens.is_empty() {
            self.write_block(sink);
        }
    }

    fn write_block(&mut self, sink: &mut Sink<'_>) {
        let input = self.block_start.and_then(|start| self.window.get(start..self.index));
        self.block_start = Some(self.index);
        sink.blocks.tokens(&self.tokens, input, sink.flush, sink.out);
        self.tokens.clear();
    }

    fn write_full_block(&mut self, sink: &mut Sink<'_>) {
        if self.tokens.len() == MAX_TOKENS {
            self.write_block(sink);
        }
    }

    fn literal(&mut self, place: usize, sink: &mut Sink<'_>) {
        self.tokens.literal(self.window[place]);
        self.write_full_block(sink);
    }

    /// Adds the match of the place before, or a better one with its end.
    fn take_match(&mut self, (mut length, mut distance): (usize, usize), ahead: usize, sink: &mut Sink<'_>) {
        match self.effort.end {
            EndCheck::Around => self.better_around_end(&mut length, &mut distance, ahead),
            EndCheck::Behind => self.better_behind_end(&mut length, &mut distance, ahead, sink),
        }
        self.tokens.copy(length, distance);
        // The match begins one place before the index; both are in the chains.
        let end = self.index + length - 1;
        for place in (self.index + 1).min(self.unhashed)..end.min(self.unhashed) {
            self.insert(place);
        }
        self.index = end;
        self.waiting = false;
        self.length = NO_MATCH;
        self.write_full_block(sink);
        self.literals = 0;
    }

    fn better_around_end(&self, length: &mut usize, distance: &mut usize, ahead: usize) {
        let start = self.index - 1;
        let probe = start + *length - 2;
        if probe + 4 >= self.unhashed {
            return;
        }
        let other =
            self.place(self.head[self.hash_of(probe)]).and_then(|place| (place + 2).checked_sub(*length));
        if let Some(other) = other.filter(|other| *other > self.first_reached()) {
            let longer = self.common(start, other, ahead.min(MAX_COPY));
            if longer > *length {
                (*length, *distance) = (longer, start - other);
            }
        }
    }

    fn better_behind_end(
        &mut self,
        length: &mut usize,
        distance: &mut usize,
        ahead: usize,
        sink: &mut Sink<'_>,
    ) {
        /// How many bytes at the start need not match.
        const MAY_DIFFER: usize = 2;
        let start = self.index - 1;
        if *length >= MAX_COPY - MAY_DIFFER || start + *length >= self.unhashed {
            return;
        }
        let other =
            self.place(self.head[self.hash_of(start + *length)]).and_then(|place| place.checked_sub(*length));
        let Some(other) = other.filter(|other| *other > self.first_reached() + MAY_DIFFER) else {
            return;
        };
        if start - other == *distance {
            return;
        }
        let longer = self.common(
            start + MAY_DIFFER,
            other + MAY_DIFFER,
            ahead.min(MAX_COPY + MAY_DIFFER) - MAY_DIFFER,
        );
        if longer <= *length {
            return;
        }
        (*length, *distance) = (longer, start - other);
        for skipped in (0..MAY_DIFFER).rev() {
            if *length >= MAX_COPY || self.window[start + skipped] != self.window[other + skipped] {
                // The match begins later now, and the bytes before it are literals.
                for place in start..=start + skipped {
                    self.literal(place, sink);
                    self.index += 1;
                    self.hash();
                }
                break;
            }
            *length += 1;
        }
    }

    /// Takes note of a byte without a match, and of some more after a long time without one.
    fn take_literal(&mut self, sink: &mut Sink<'_>) {
        if self.length >= MIN_MATCH {
            self.literals = 0;
        }
        if !self.waiting {
            self.index += 1;
            self.waiting = true;
            return;
        }
        self.literals = self.literals.wrapping_add(1);
        self.literal(self.index - 1, sink);
        self.index += 1;
        let patience = self.effort.chain;
        let Some(tired) = usize::from(self.literals).checked_sub(patience + 1) else {
            return;
        };
        for _ in 0..1 + ((tired + 1) >> 6) {
            if self.index + 1 >= self.end {
                break;
            }
            self.literal(self.index - 1, sink);
            self.hash();
            self.index += 1;
        }
        self.tokens.literal(self.window[self.index - 1]);
        self.waiting = false;
        self.write_full_block(sink);
    }

    /// Looks for the best match at the index.
    fn find(&mut self, first: usize, ahead: usize) {
        let here = self.index;
        let most = ahead.min(MAX_COPY);
        let nice = most.min(self.effort.nice);
        let first_reached = self.first_reached();
        let mut gained = self.effort.gain.map_or(0, |gain| gain.least);
        let mut length = NO_MATCH;
        let mut place = first;
        for _ in 0..self.effort.chain {
            if self.window[place + length] == self.window[here + length] {
                let common = self.common(here, place, most);
                let gain = self
                    .effort
                    .gain
                    .filter(|_| common > length)
                    .map_or(0, |gain| self.gain(gain, here, common, here - place));
                if common > length && (self.effort.gain.is_none() || gain > gained) {
                    gained = gain;
                    length = common;
                    (self.length, self.distance) = (length, here - place);
                    if length >= nice {
                        break;
                    }
                }
            }
            if place <= first_reached {
                break;
            }
            match self.place(self.previous[place % WINDOW]) {
                Some(next) if next >= first_reached => place = next,
                _ => break,
            }
        }
    }

    /// What a match saves against literals, in bits.
    fn gain(&self, gain: Gain, here: usize, length: usize, distance: usize) -> i64 {
        let literals: i64 = self.window[here..here + length]
            .iter()
            .map(|byte| i64::from(self.costs[usize::from(*byte)].len))
            .sum();
        let symbol = usize::from(LENGTH_SYMBOL[length - MIN_COPY]);
        let extra = u32::from(LENGTH_EXTRA_BITS[symbol]) + assumed_extra_bits(distance);
        literals - i64::from(extra) - gain.cost
    }

    /// Makes a code for the bytes ahead.
    fn count_ahead(&mut self, census: Census) {
        let ahead = &self.window[self.index..self.end];
        let mut counts = [0_u32; 256];
        match census {
            Census::Overflowing => ahead.iter().for_each(|byte| counts[usize::from(*byte)] += 1),
            Census::First32K => {
                ahead.iter().take(1 << 15).for_each(|byte| counts[usize::from(*byte)] += 1);
            }
        }
        counts.iter_mut().for_each(|count| *count &= 0xffff);
        code::assign(&counts, MAX_LEN, &mut self.costs);
    }

    /// The first place that the index can reach.
    fn first_reached(&self) -> usize {
        self.index.saturating_sub(WINDOW)
    }

    /// The place where the search begins, if it is within reach.
    fn start_of_chain(&self) -> Option<usize> {
        self.place(self.chain).filter(|place| *place >= self.first_reached())
    }

    /// The place in the window that a chain's number means.
    #[inline(always)]
    fn place(&self, number: u32) -> Option<usize> {
        number.checked_sub(self.base).map(|place| place as usize)
    }

    #[inline(always)]
    fn hash_of(&self, place: usize) -> usize {
        let word = self
            .window
            .get(place..place + 4)
            .map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap_or([0; 4])));
        super::quick::hash::hash4::<HASH_BITS>(word.into())
    }

    /// Puts the index into its chain, if there are bytes for a hash.
    #[inline(always)]
    fn hash(&mut self) {
        if self.index < self.unhashed {
            self.chain = self.insert(self.index);
        }
    }

    /// Puts a place into its chain, and says which was the last one there.
    #[inline(always)]
    fn insert(&mut self, place: usize) -> u32 {
        let before = std::mem::replace(&mut self.head[self.hash_of(place)], self.base + place as u32);
        self.previous[place % WINDOW] = before;
        before
    }

    /// How many bytes at two places are the same, `most` at most.
    #[inline(always)]
    fn common(&self, here: usize, there: usize, most: usize) -> usize {
        common_prefix(&self.window[here..here + most], &self.window[there..])
    }
}

/// The extra bits that a distance is taken to have where matches are compared: those of the next larger one, and those
/// of symbol 14 where there is no larger one.
fn assumed_extra_bits(distance: usize) -> u32 {
    let symbol = if distance < WINDOW { distance_symbol(distance as u32) } else { 14 };
    distance_extra_bits(symbol)
}

#[cfg(test)]
mod tests {
    use super::super::block::Listing;
    use super::*;

    /// Positions are moved back about every 256 MiB of content; no byte may show it.
    #[test]
    fn positions_that_are_moved_back_give_the_same_bytes() {
        let text: Vec<u8> =
            (0..100_000_u32).flat_map(|n| [n as u8, (n / 7) as u8, (n / 3000) as u8]).collect();
        let effort = Effort { lazy: 30, nice: 40, chain: 64, end: EndCheck::Behind, gain: None };
        let written_from = |base| {
            let mut lazy = Lazy { base, ..Lazy::new(effort) };
            let (mut blocks, mut out) = (BlockWriter::new(Listing::Trimmed, 8), Vec::new());
            lazy.write(&text, &mut blocks, &mut out);
            lazy.flush(&mut blocks, &mut out);
            (out, lazy.base)
        };
        let (moved, base) = written_from(MAX_BASE - WINDOW as u32);
        assert!(base < MAX_BASE / 2, "not moved");
        assert!(moved == written_from(1).0);
    }
}
