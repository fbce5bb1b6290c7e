//! Huffman trees as deflate's first encoder builds them.
//!
//! Optimal code lengths are not unique. Which of them come out depends on the order in which a heap gives back symbols
//! of the same frequency, and, when a code would get too long, on how the lengths are spread anew. The algorithm is that
//! of Jean-loup Gailly's `trees.c` (zlib, zlib licence), which all encoders of this module share.

/// The most symbols that any code has: literals, the end of a block, and lengths.
pub(super) const LITLEN_SYMBOLS: usize = 286;

/// Leaves and inner nodes.
const NODES: usize = 2 * LITLEN_SYMBOLS;

/// The longest code of literals, lengths and distances.
pub(super) const MAX_BITS: usize = 15;

/// The number of each symbol's code, first bit lowest, and its length in bits, which is 0 when there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Code {
    pub(super) bits: u16,
    pub(super) len: u8,
}

/// Builds code lengths; kept between blocks for its memory.
#[derive(Debug)]
pub(super) struct TreeBuilder {
    frequency: [u32; NODES],
    parent: [u16; NODES],
    /// How far a node is above its deepest leaf.
    height: [u8; NODES],
    /// A binary heap that begins at 1, the rarest node first.
    heap: [u16; NODES + 1],
    heap_len: usize,
    /// Nodes as they left the heap: rarest first, and every node before its parent.
    order: Vec<u16>,
}

impl TreeBuilder {
    pub(super) fn new() -> Self {
        Self {
            frequency: [0; NODES],
            parent: [0; NODES],
            height: [0; NODES],
            heap: [0; NODES + 1],
            heap_len: 0,
            order: Vec::with_capacity(NODES),
        }
    }

    /// Sets the length of every symbol's code, none above `max_len`, and says how many symbols there are up to the last
    /// that has one.
    ///
    /// At least two symbols get a code, whether they occur or not: the first decoders needed that.
    pub(super) fn build(&mut self, frequencies: &[u16], max_len: usize, codes: &mut [Code]) -> usize {
        codes.fill(Code::default());
        let used = self.plant(frequencies);
        self.join(frequencies.len());
        let counts = self.measure(frequencies.len(), max_len, codes);
        number(&counts, &mut codes[..used]);
        used
    }

    /// Fills the heap with the symbols that occur.
    fn plant(&mut self, frequencies: &[u16]) -> usize {
        self.heap_len = 0;
        let mut used = 0;
        for (symbol, &frequency) in frequencies.iter().enumerate().filter(|(_, frequency)| **frequency != 0) {
            self.push_leaf(symbol, u32::from(frequency));
            used = symbol + 1;
        }
        while self.heap_len < 2 {
            // The symbol behind the only one, as long as that is 0 or 1, else 0.
            let symbol = if used < 3 { used } else { 0 };
            used = used.max(symbol + 1);
            self.push_leaf(symbol, 1);
        }
        for place in (1..=self.heap_len / 2).rev() {
            self.sink(place);
        }
        used
    }

    fn push_leaf(&mut self, symbol: usize, frequency: u32) {
        self.frequency[symbol] = frequency;
        self.height[symbol] = 0;
        self.heap_len += 1;
        self.heap[self.heap_len] = symbol as u16;
    }

    /// Joins the two rarest nodes until one is left; the inner nodes are numbered from `node` on.
    fn join(&mut self, mut node: usize) {
        self.order.clear();
        while self.heap_len >= 2 {
            let rarest = usize::from(self.heap[1]);
            self.heap[1] = self.heap[self.heap_len];
            self.heap_len -= 1;
            self.sink(1);
            let next = usize::from(self.heap[1]);
            self.order.extend([rarest as u16, next as u16]);

            self.frequency[node] = self.frequency[rarest] + self.frequency[next];
            self.height[node] = self.height[rarest].max(self.height[next]) + 1;
            self.parent[rarest] = node as u16;
            self.parent[next] = node as u16;
            self.heap[1] = node as u16;
            self.sink(1);
            node += 1;
        }
        self.order.push(self.heap[1]);
    }

    /// Restores the order of the heap below `place`.
    fn sink(&mut self, mut place: usize) {
        let moved = self.heap[place];
        let rank = self.rank(moved);
        loop {
            let mut child = 2 * place;
            if child > self.heap_len {
                break;
            }
            let mut child_rank = self.rank(self.heap[child]);
            if child < self.heap_len {
                let right = self.rank(self.heap[child + 1]);
                if right <= child_rank {
                    child += 1;
                    child_rank = right;
                }
            }
            if rank <= child_rank {
                break;
            }
            self.heap[place] = self.heap[child];
            place = child;
        }
        self.heap[place] = moved;
    }

    /// What the heap is ordered by: rare before frequent, then low before high.
    #[inline(always)]
    fn rank(&self, node: u16) -> u32 {
        self.frequency[usize::from(node)] << 8 | u32::from(self.height[usize::from(node)])
    }

    /// Sets the lengths, and counts how many codes there are of each.
    fn measure(&self, leaves: usize, max_len: usize, codes: &mut [Code]) -> [u16; MAX_BITS + 1] {
        let mut counts = [0_u16; MAX_BITS + 1];
        let mut depth = [0_u8; NODES];
        let mut too_deep = 0;
        for node in self.order.iter().rev().skip(1).map(|&node| usize::from(node)) {
            let mut len = usize::from(depth[usize::from(self.parent[node])]) + 1;
            if len > max_len {
                len = max_len;
                too_deep += 1;
            }
            depth[node] = len as u8;
            if node < leaves {
                counts[len] += 1;
                codes[node].len = len as u8;
            }
        }
        if too_deep > 0 {
            flatten(too_deep, max_len, &mut counts);
            self.deal(leaves, max_len, &counts, codes);
        }
        counts
    }

    /// Gives the longest codes to the rarest symbols.
    fn deal(&self, leaves: usize, max_len: usize, counts: &[u16; MAX_BITS + 1], codes: &mut [Code]) {
        let lengths = (1..=max_len).rev().flat_map(|len| (0..counts[len]).map(move |_| len as u8));
        let symbols = self.order.iter().map(|&node| usize::from(node)).filter(|&node| node < leaves);
        for (symbol, len) in symbols.zip(lengths) {
            codes[symbol].len = len;
        }
    }
}

/// Makes room for `too_deep` nodes that were cut off at `max_len`: each time, one leaf goes a step down and takes two
/// of them as its brothers.
fn flatten(too_deep: usize, max_len: usize, counts: &mut [u16; MAX_BITS + 1]) {
    for _ in 0..too_deep.div_ceil(2) {
        let len = (1..max_len)
            .rev()
            .find(|&len| counts[len] > 0)
            .expect("a tree has a leaf above its deepest ones");
        counts[len] -= 1;
        counts[len + 1] += 2;
        counts[max_len] -= 1;
    }
}

/// Sets the bits of canonical codes (RFC 1951, section 3.2.2).
fn number(counts: &[u16; MAX_BITS + 1], codes: &mut [Code]) {
    let mut next = [0_u16; MAX_BITS + 1];
    for len in 1..MAX_BITS {
        next[len + 1] = (next[len] + counts[len]) << 1;
    }
    for code in codes.iter_mut().filter(|code| code.len > 0) {
        let forward = &mut next[usize::from(code.len)];
        code.bits = forward.reverse_bits() >> (16 - u32::from(code.len));
        *forward = forward.wrapping_add(1);
    }
}

/// Sets the bits of codes whose lengths are set.
pub(super) fn number_by_lengths(codes: &mut [Code]) {
    let mut counts = [0; MAX_BITS + 1];
    for code in codes.iter().filter(|code| code.len > 0) {
        counts[usize::from(code.len)] += 1;
    }
    number(&counts, codes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(frequencies: &[u16], max_len: usize) -> (usize, Vec<u8>) {
        let mut codes = vec![Code::default(); frequencies.len()];
        let used = TreeBuilder::new().build(frequencies, max_len, &mut codes);
        (used, codes.iter().map(|code| code.len).collect())
    }

    #[test]
    fn there_are_always_two_codes() {
        assert_eq!(lengths(&[0, 0, 0, 0, 0], 15), (2, vec![1, 1, 0, 0, 0]));
        assert_eq!(lengths(&[9, 0, 0, 0, 0], 15), (2, vec![1, 1, 0, 0, 0]));
        assert_eq!(lengths(&[0, 9, 0, 0, 0], 15), (3, vec![0, 1, 1, 0, 0]));
        assert_eq!(lengths(&[0, 0, 9, 0, 0], 15), (3, vec![1, 0, 1, 0, 0]));
        assert_eq!(lengths(&[0, 0, 0, 0, 9], 15), (5, vec![1, 0, 0, 0, 1]));
    }

    /// Frequencies like these want the longest code that is possible.
    #[test]
    fn no_code_is_longer_than_allowed() {
        let mut frequencies = vec![1_u16, 1];
        while frequencies.len() < 22 {
            frequencies.push(frequencies.iter().rev().take(2).sum());
        }
        for max_len in [5, 7, 15] {
            let (used, lengths) = lengths(&frequencies, max_len);
            assert_eq!(used, frequencies.len());
            assert_eq!(lengths.iter().max(), Some(&(max_len as u8)));
            assert!(lengths.is_sorted_by(|rare, frequent| rare >= frequent));
            // Every pattern is used.
            assert_eq!(
                lengths.iter().map(|len| 1 << (max_len - usize::from(*len))).sum::<usize>(),
                1 << max_len
            );
        }
    }
}
