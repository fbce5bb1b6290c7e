//! The lengths of Huffman codes that may not be longer than a limit.
//!
//! Several sets of lengths can be equally good, and an encoder is known by which of them it takes. Go takes the one of
//! the package-merge algorithm (Larmore and Hirschberg, 1990) in which, of two equal weights, the package comes before
//! the single symbol. Go computes it lazily, in the manner of Katajainen, Moffat and Turpin (1995); here the lists are
//! built outright, which gives the same.

use super::symbols::LITLEN_SYMBOLS;

/// The longest code that deflate allows.
pub(super) const LONGEST_CODE: usize = 15;

/// The items of a list: every symbol, and fewer packages than symbols.
const ITEMS: usize = 2 * LITLEN_SYMBOLS;

/// A symbol in the lowest bits, how often it occurs above them: the order in which symbols are merged.
type Leaf = u32;

/// The bits of a leaf that say which symbol it is.
const SYMBOL_BITS: u32 = 9;

/// The most often that a symbol may occur in a block. Weights of all packages stay below `u32::MAX` with it.
const MOST: u32 = 1 << 17;

/// Gives each symbol that occurs the length of its code, at most `limit`, and 0 to the others.
///
/// `frequencies` and `lengths` are equally long, at most [`LITLEN_SYMBOLS`] and at most `1 << limit`; `limit` is at most
/// [`LONGEST_CODE`]. Up to two symbols have codes of one bit: Go gives even a lone symbol one.
pub(super) fn code_lengths(frequencies: &[u32], limit: usize, lengths: &mut [u8]) {
    debug_assert!(limit <= LONGEST_CODE && frequencies.len() <= 1 << limit);
    let mut sorted = [0; LITLEN_SYMBOLS];
    let mut count = 0;
    for (symbol, &frequency) in frequencies.iter().enumerate().filter(|(_, frequency)| **frequency > 0) {
        debug_assert!(frequency <= MOST, "{symbol} occurs {frequency} times");
        sorted[count] = frequency << SYMBOL_BITS | symbol as Leaf;
        count += 1;
    }
    lengths.fill(0);
    let leaves = &mut sorted[..count];
    let symbol_of = |leaf: Leaf| (leaf & ((1 << SYMBOL_BITS) - 1)) as usize;
    if count <= 2 {
        leaves.iter().for_each(|&leaf| lengths[symbol_of(leaf)] = 1);
        return;
    }
    leaves.sort_unstable();
    for used in leaves_used(leaves, limit.min(count - 1)) {
        // The lightest symbols, those that this list has used, have codes that are longer by one.
        leaves[..used].iter().for_each(|&leaf| lengths[symbol_of(leaf)] += 1);
    }
}

/// For each of `levels` lists of the algorithm, the number of symbols that are used from it.
fn leaves_used(leaves: &[Leaf], levels: usize) -> impl Iterator<Item = usize> {
    // How many of the first items of each list are symbols, by the number of the list.
    let mut leaves_before = [[0_u16; ITEMS + 1]; LONGEST_CODE];
    let mut below = [0_u32; ITEMS];
    let mut below_len = 0;
    for before in &mut leaves_before[..levels] {
        let mut packages = below[..below_len].chunks_exact(2).map(|pair| pair[0] + pair[1]).peekable();
        let mut singles = leaves.iter().map(|leaf| leaf >> SYMBOL_BITS).peekable();
        let mut merged = [0; ITEMS];
        let (mut len, mut taken) = (0, 0);
        loop {
            let package_is_next = match (packages.peek(), singles.peek()) {
                (None, None) => break,
                (package, None) => package.is_some(),
                (None, Some(_)) => false,
                (Some(package), Some(single)) => package <= single,
            };
            let next = if package_is_next { packages.next() } else { singles.next() };
            taken += u16::from(!package_is_next);
            merged[len] = next.unwrap_or_default();
            len += 1;
            before[len] = taken;
        }
        (below, below_len) = (merged, len);
    }
    // A code of n symbols takes 2n - 2 items of the last list; each package among them takes two of the one before.
    let mut wanted = 2 * leaves.len() - 2;
    (0..levels).rev().map(move |level| {
        let used = usize::from(leaves_before[level][wanted]);
        wanted = 2 * (wanted - used);
        used
    })
}

/// The code of each symbol as it is sent, first bit lowest, from the lengths of a code that is not over-subscribed
/// (RFC 1951, section 3.2.2).
pub(super) fn codes<const N: usize>(lengths: &[u8; N]) -> [u16; N] {
    let mut next = [0_u32; LONGEST_CODE + 2];
    for &length in lengths.iter().filter(|length| **length > 0) {
        next[usize::from(length) + 1] += 1;
    }
    for length in 1..next.len() {
        // So far the entry counts the codes that are shorter by one; now it is the first code of this length.
        next[length] = (next[length] + next[length - 1]) << 1;
    }
    let mut codes = [0; N];
    for (code, &length) in codes.iter_mut().zip(lengths).filter(|(_, length)| **length > 0) {
        let forward = &mut next[usize::from(length)];
        *code = (*forward as u16).reverse_bits() >> (16 - u32::from(length));
        *forward += 1;
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths_of(frequencies: &[u32], limit: usize) -> Vec<u8> {
        let mut lengths = vec![0; frequencies.len()];
        code_lengths(frequencies, limit, &mut lengths);
        lengths
    }

    #[test]
    fn few_symbols_have_one_bit() {
        assert_eq!(lengths_of(&[0, 0, 0], 15), [0, 0, 0]);
        assert_eq!(lengths_of(&[0, 9, 0], 15), [0, 1, 0]);
        assert_eq!(lengths_of(&[5, 0, 100_000], 15), [1, 0, 1]);
    }

    #[test]
    fn a_limit_shortens_the_longest() {
        let fibonacci = [1, 1, 2, 3, 5, 8, 13, 21];
        assert_eq!(lengths_of(&fibonacci, 15), [7, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(lengths_of(&fibonacci, 4), [4, 4, 4, 4, 3, 3, 2, 2]);
    }

    /// The example of RFC 1951, section 3.2.2.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let lengths = [3, 3, 3, 3, 3, 2, 4, 4];
        let mut codes = codes(&lengths);
        for (code, length) in codes.iter_mut().zip(lengths) {
            *code = code.reverse_bits() >> (16 - u32::from(length));
        }
        assert_eq!(codes, [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]);
    }
}
