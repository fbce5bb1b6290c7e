//! The literals of a block, compressed with one Huffman code.
//!
//! The algorithm is klauspost/compress's `huff0` (BSD-3-Clause), which follows Yann Collet's; the form is RFC 8878's,
//! section 4.2.

use super::bits::Bits;
use super::fse;

/// The longest code that a decoder takes.
const MAX_BITS: u32 = 11;
const MIN_BITS: u32 = 5;

/// What became of the literals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// They would not get smaller by a sixteenth.
    Incompressible,
    /// They are one byte, repeated.
    Repeated,
    /// They are in [`Coder::packed`], after the description of their code.
    Packed,
    /// They are in [`Coder::packed`], in the code of earlier ones.
    PackedAsBefore,
}

/// Compresses literals, block after block.
#[derive(Debug)]
pub(super) struct Coder {
    previous: Option<Box<Code>>,
    /// Whether the decoder knows `previous`.
    known: bool,
    packed: Vec<u8>,
}

/// The words of a code for bytes.
#[derive(Clone, Debug)]
struct Code {
    words: [Word; 256],
    /// The length of the longest word in bits.
    longest: u32,
    /// One more than the largest byte that has a word.
    symbols: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Word {
    bits: u16,
    len: u8,
}

/// How often each byte occurs.
struct Counts {
    counts: [u32; 256],
    /// One more than the largest byte that occurs.
    symbols: usize,
    most: u32,
}

impl Coder {
    pub(super) fn new() -> Self {
        Self { previous: None, known: false, packed: Vec::new() }
    }

    /// The last compressed literals.
    pub(super) fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// Takes note that the decoder has seen the last code, so that it can be used again.
    pub(super) fn written(&mut self) {
        self.known = true;
    }

    /// Takes note that the decoder knows no code.
    pub(super) fn forget(&mut self) {
        self.known = false;
    }

    /// Compresses literals, more than one, as one stream or as four.
    pub(super) fn compress(&mut self, literals: &[u8], streams: usize) -> Outcome {
        if !self.known {
            self.previous = None;
        }
        self.packed.clear();
        let counts = Counts::of(literals);
        if counts.most as usize == literals.len() {
            return Outcome::Repeated;
        }
        if counts.most == 1 || (counts.most as usize) < literals.len() >> 7 {
            return Outcome::Incompressible;
        }
        let wanted = literals.len() - (literals.len() >> 4);
        let code = Code::new(&counts, literals.len());
        let previous = self.previous.as_deref().filter(|previous| previous.covers(&counts));
        let cheap = |previous: &&Code| previous.cost(&counts) <= code.cost(&counts) || wanted <= 12;
        if let Some(previous) = previous.filter(cheap) {
            previous.encode(literals, streams, &mut self.packed);
            let small = self.packed.len() < wanted;
            return if small { Outcome::PackedAsBefore } else { Outcome::Incompressible };
        }
        if !code.describe(&mut self.packed) {
            return Outcome::Incompressible;
        }
        code.encode(literals, streams, &mut self.packed);
        if self.packed.len() >= wanted {
            return Outcome::Incompressible;
        }
        self.previous = Some(Box::new(code));
        Outcome::Packed
    }
}

impl Counts {
    fn of(literals: &[u8]) -> Self {
        // Four counters, so that equal neighbours do not wait for each other.
        let mut lanes = [[0_u32; 256]; 4];
        let (fours, rest) = literals.as_chunks::<4>();
        for four in fours {
            for (lane, byte) in lanes.iter_mut().zip(four) {
                lane[usize::from(*byte)] += 1;
            }
        }
        for byte in rest {
            lanes[0][usize::from(*byte)] += 1;
        }
        let counts: [u32; 256] = std::array::from_fn(|byte| lanes.iter().map(|lane| lane[byte]).sum());
        let symbols = counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        let most = counts.iter().copied().max().unwrap_or(0);
        Self { counts, symbols, most }
    }

    fn used(&self) -> &[u32] {
        &self.counts[..self.symbols]
    }
}

impl Code {
    /// The code for two or more different bytes, `total` in all.
    fn new(counts: &Counts, total: usize) -> Self {
        let mut leaves: Vec<Leaf> = (0_u8..=255)
            .zip(counts.used())
            .filter(|(_, count)| **count > 0)
            .map(|(byte, count)| Leaf { byte, count: *count, len: 0 })
            .collect();
        leaves.sort_by_key(|leaf| std::cmp::Reverse(leaf.count));
        set_depths(&mut leaves);
        let longest = limit_depths(&mut leaves, longest_word(total as u32, counts.symbols as u32 - 1));
        let mut code = Self { words: [Word::default(); 256], longest, symbols: counts.symbols };
        code.assign(&leaves);
        code
    }

    /// Gives the words of each length out in the order of the bytes.
    fn assign(&mut self, leaves: &[Leaf]) {
        let mut of_len = [0_u16; 16];
        for leaf in leaves {
            self.words[usize::from(leaf.byte)].len = leaf.len as u8;
            of_len[leaf.len as usize & 15] += 1;
        }
        let mut next = [0_u16; 16];
        let mut first = 0;
        for len in (1..=self.longest as usize).rev() {
            next[len] = first;
            first = (first + of_len[len]) >> 1;
        }
        for word in self.words.iter_mut().filter(|word| word.len > 0) {
            let next = &mut next[usize::from(word.len & 15)];
            word.bits = *next;
            *next += 1;
        }
    }

    fn covers(&self, counts: &Counts) -> bool {
        counts.used().iter().zip(&self.words).all(|(count, word)| *count == 0 || word.len > 0)
    }

    /// How many bytes the code takes for a distribution.
    fn cost(&self, counts: &Counts) -> u32 {
        let bits = counts.used().iter().zip(&self.words).map(|(count, word)| count * u32::from(word.len));
        (bits.sum::<u32>() + 7) >> 3
    }

    /// Appends the description of the code; false when it has no short one.
    fn describe(&self, out: &mut Vec<u8>) -> bool {
        let last = self.symbols - 1;
        // The last weight is what is missing to a power of two.
        let weights: Vec<u8> = self.words[..last].iter().map(|word| self.weight(*word)).collect();
        if let Some(packed) = pack_weights(&weights).filter(|packed| packed.len() < self.symbols / 2) {
            out.push(packed.len() as u8);
            out.extend_from_slice(&packed);
            return true;
        }
        if last > 128 {
            return false;
        }
        out.push(127 + last as u8);
        out.extend(weights.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)));
        true
    }

    fn weight(&self, word: Word) -> u8 {
        if word.len == 0 { 0 } else { self.longest as u8 + 1 - word.len }
    }

    fn encode(&self, literals: &[u8], streams: usize, out: &mut Vec<u8>) {
        if streams == 1 {
            return self.encode_stream(literals, out);
        }
        let jumps = out.len();
        out.extend_from_slice(&[0; 6]);
        for (stream, piece) in literals.chunks(literals.len().div_ceil(streams)).enumerate() {
            let start = out.len();
            self.encode_stream(piece, out);
            let len = (out.len() - start) as u16;
            // The length of the last stream goes without saying.
            if let Some(jump) = out.get_mut(jumps + 2 * stream..jumps + 2 * stream + 2).filter(|_| stream < 3)
            {
                jump.copy_from_slice(&len.to_le_bytes());
            }
        }
    }

    /// Writes the last literal first, as the decoder reads from the end.
    fn encode_stream(&self, literals: &[u8], out: &mut Vec<u8>) {
        let mut bits = Bits::new(out);
        let mut put = |pair: &[u8]| {
            for byte in pair.iter().rev() {
                let word = self.words[usize::from(*byte)];
                bits.put(u64::from(word.bits), u32::from(word.len));
            }
            bits.spill();
        };
        let (rest, pairs) = literals.as_rchunks::<2>();
        pairs.iter().rev().for_each(|pair| put(pair));
        put(rest);
        bits.close();
    }
}

/// The longest word that the encoder allows for `total` bytes up to `largest`.
fn longest_word(total: u32, largest: u32) -> u32 {
    let least = (total.ilog2() + 1).min(largest.checked_ilog2().map_or(1, |log| log + 2));
    let enough = (total - 1).checked_ilog2().and_then(|log| log.checked_sub(1)).unwrap_or(MAX_BITS);
    enough.min(MAX_BITS).max(least).clamp(MIN_BITS, MAX_BITS)
}

/// Compresses the weights of a code; `None` when that is not possible or does not pay.
fn pack_weights(weights: &[u8]) -> Option<Vec<u8>> {
    const MAX_LOG: u32 = 6;
    if weights.len() <= 2 {
        return None;
    }
    let mut counts = [0_u32; MAX_BITS as usize + 2];
    weights.iter().for_each(|weight| counts[usize::from(*weight)] += 1);
    let most = counts.iter().copied().max()?;
    let largest = counts.iter().rposition(|count| *count > 0)?;
    if most as usize == weights.len() || most == 1 {
        return None;
    }
    let total = weights.len() as u32;
    let log = fse::table_log(total, (total - 1).ilog2() + 1, largest as u32, MAX_LOG);
    let table = fse::Table::of_counts(&counts[..=largest], total, log)?;
    let mut out = Vec::new();
    table.write_shares(&mut out);
    let mut bits = Bits::new(&mut out);
    // Two states take turns; the one that says the first weight is written last.
    let mut states = [None; 2];
    for (index, weight) in weights.iter().enumerate().rev() {
        let state = states[index & 1].get_or_insert_with(|| fse::State::new(&table, *weight));
        if index + 2 < weights.len() {
            state.step(&table, *weight, &mut bits);
            bits.spill();
        }
    }
    for state in states.iter().rev().flatten() {
        state.finish(&table, &mut bits);
    }
    bits.close();
    Some(out).filter(|out| out.len() < weights.len())
}

/// A byte, its count and the length of its word.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    byte: u8,
    count: u32,
    len: u32,
}

/// Sets the lengths of an optimal code. The leaves, two or more, are in falling order of their counts, and then the
/// lengths are in rising order.
fn set_depths(leaves: &mut [Leaf]) {
    let count = leaves.len();
    // Nodes come into being in rising order of their counts; each names its parent, like each leaf.
    let mut nodes: Vec<(u32, usize)> = Vec::with_capacity(count);
    let mut leaf_parents = vec![0; count];
    let (mut leaves_left, mut next_node) = (count, 0);
    for parent in 0..count - 1 {
        let mut sum = 0;
        for _ in 0..2 {
            let node = nodes.get(next_node).map(|node| node.0);
            let leaf = leaves_left.checked_sub(1).map(|last| leaves[last].count);
            // Of equals, the node is taken.
            if let Some(leaf) = leaf.filter(|leaf| node.is_none_or(|node| *leaf < node)) {
                leaves_left -= 1;
                leaf_parents[leaves_left] = parent;
                sum += leaf;
            } else if let Some(node) = node {
                nodes[next_node].1 = parent;
                next_node += 1;
                sum += node;
            }
        }
        nodes.push((sum, 0));
    }
    let mut depths = vec![0; nodes.len()];
    for node in (0..nodes.len().saturating_sub(1)).rev() {
        depths[node] = depths[nodes[node].1] + 1;
    }
    for (leaf, parent) in leaves.iter_mut().zip(leaf_parents) {
        leaf.len = depths[parent] + 1;
    }
}

/// Shortens all words to at most `limit` bits and makes others longer to pay for it, and gives the longest that is left.
fn limit_depths(leaves: &mut [Leaf], limit: u32) -> u32 {
    let longest = leaves.last().map_or(0, |leaf| leaf.len);
    if longest <= limit {
        return longest;
    }
    // What the words that were shortened take too much, in units of a word of `limit` bits.
    let mut debt = 0_i32;
    let mut last = leaves.len() - 1;
    while leaves[last].len > limit {
        debt += (1 << (longest - limit)) - (1 << (longest - leaves[last].len));
        leaves[last].len = limit;
        last -= 1;
    }
    while leaves[last].len == limit {
        last -= 1;
    }
    debt >>= longest - limit;
    let mut ranks = Ranks::new(leaves, last, limit);
    while debt > 0 {
        let Some(gain) = ranks.lengthen(leaves, debt) else { break };
        debt -= gain;
    }
    while debt < 0 {
        ranks.shorten(leaves);
        debt += 1;
    }
    limit
}

/// Where the words of each length end, while their lengths are changed.
struct Ranks {
    limit: u32,
    /// The last leaf that is shorter than the limit by the index. Of rank 0 it is kept in `start`.
    last: [Option<usize>; MAX_BITS as usize + 2],
    /// No leaf after this is shorter than the limit.
    start: usize,
}

impl Ranks {
    fn new(leaves: &[Leaf], start: usize, limit: u32) -> Self {
        let mut last = [None; MAX_BITS as usize + 2];
        let mut seen = limit;
        for (index, leaf) in leaves[..=start].iter().enumerate().rev() {
            if leaf.len < seen {
                seen = leaf.len;
                last[(limit - seen) as usize] = Some(index);
            }
        }
        Self { limit, last, start }
    }

    /// Makes the word longer that pays most for the least loss, and gives how much it pays.
    fn lengthen(&mut self, leaves: &mut [Leaf], debt: i32) -> Option<i32> {
        let mut rank = (debt.ilog2() as usize + 1).min(self.last.len() - 1);
        while rank > 1 {
            if let Some(high) = self.last[rank] {
                match self.last[rank - 1] {
                    None => break,
                    Some(low) if leaves[high].count <= 2 * leaves[low].count => break,
                    Some(_) => {}
                }
            }
            rank -= 1;
        }
        rank += self.last[rank..].iter().position(Option::is_some)?;
        let index = self.last[rank]?;
        if self.last[rank - 1].is_none() {
            self.last[rank - 1] = Some(index);
        }
        leaves[index].len += 1;
        let before = index.checked_sub(1);
        self.last[rank] = before.filter(|before| leaves[*before].len == self.limit - rank as u32);
        Some(1 << (rank - 1))
    }

    /// Makes a word of the full length one bit shorter.
    fn shorten(&mut self, leaves: &mut [Leaf]) {
        let index = if let Some(last) = self.last[1] {
            last + 1
        } else {
            while self.start > 0 && leaves[self.start].len == self.limit {
                self.start -= 1;
            }
            self.start + 1
        };
        if let Some(leaf) = leaves.get_mut(index) {
            leaf.len -= 1;
        }
        self.last[1] = Some(index);
    }
}
