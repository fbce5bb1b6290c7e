//! Huffman codes from frequencies, chosen among the optimal ones as Go's compress/flate chooses.
//!
//! The algorithm is package-merge (Larmore and Hirschberg, "A fast algorithm for optimal length-limited Huffman
//! codes", 1990). The optimum has ties, and what makes the output bit-exact is how they are broken: of a leaf and a
//! package of equal weight the package comes first, and of equally frequent symbols the lower one is the rarer.

use super::symbols::LITLEN_SYMBOLS;

/// The longest code of a block's symbols.
pub(super) const MAX_LEN: usize = 15;

/// The longest code among those that the code lengths are written in.
pub(super) const MAX_LENGTH_CODE_LEN: usize = 7;

/// The bits of a code in the order in which they are sent, first bit lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) bits: u16,
    /// 0 when the symbol has no code.
    pub(super) len: u8,
}

/// How many bits it takes to write every symbol as often as `frequencies` says; symbols without a code count nothing.
pub(super) fn cost(codes: &[Code], frequencies: &[u32]) -> usize {
    codes.iter().zip(frequencies).map(|(code, count)| *count as usize * usize::from(code.len)).sum()
}

/// Whether every symbol that occurs has a code.
pub(super) fn covers(codes: &[Code], frequencies: &[u32]) -> bool {
    codes.iter().zip(frequencies).all(|(code, count)| *count == 0 || code.len > 0)
}

/// Gives each symbol that occurs a code of at most `limit` bits, and the others none.
///
/// There are at most [`LITLEN_SYMBOLS`] symbols, with counts below 2^23 each.
pub(super) fn assign(frequencies: &[u32], limit: usize, codes: &mut [Code]) {
    codes.fill(Code::default());
    // A frequency and a symbol in one number sort as needed: by frequency, then by symbol.
    let mut ranked = [0_u32; LITLEN_SYMBOLS];
    let mut used = 0;
    for (symbol, &count) in frequencies.iter().enumerate().filter(|(_, count)| **count > 0) {
        ranked[used] = count << SYMBOL_BITS | symbol as u32;
        used += 1;
    }
    let ranked = &mut ranked[..used];
    if used <= 2 {
        // One bit each, although a code of one symbol could do with none.
        for (bits, &entry) in ranked.iter().enumerate() {
            codes[symbol(entry)] = Code { bits: bits as u16, len: 1 };
        }
        return;
    }
    ranked.sort_unstable();
    // The rarest symbols get the longest codes.
    let mut rarest_first = ranked.iter();
    for (len, count) in lengths(ranked, limit.min(used - 1)).into_iter().enumerate().rev() {
        for &entry in rarest_first.by_ref().take(count) {
            codes[symbol(entry)].len = len as u8;
        }
    }
    number(codes);
}

/// The bits that hold a symbol below its frequency.
const SYMBOL_BITS: u32 = 9;

fn symbol(entry: u32) -> usize {
    (entry & ((1 << SYMBOL_BITS) - 1)) as usize
}

/// How many symbols get a code of each length, by package-merge over the leaves `ranked`, rarest first, at least 3.
fn lengths(ranked: &[u32], limit: usize) -> [usize; MAX_LEN + 1] {
    /// No more items of a list are ever looked at.
    const ITEMS: usize = 2 * LITLEN_SYMBOLS - 2;
    let wanted = 2 * ranked.len() - 2;
    let leaf = |index: usize| ranked.get(index).map_or(u32::MAX, |entry| entry >> SYMBOL_BITS);

    // leaves[depth][n] tells how many of the first n items of a list are leaves; the list of depth 0 has no packages.
    let mut leaves = [[0_u16; ITEMS + 1]; MAX_LEN];
    let mut weights = [0_u32; ITEMS];
    let mut below = [0_u32; ITEMS];
    let mut items = 0;
    for counts in &mut leaves[..limit] {
        std::mem::swap(&mut weights, &mut below);
        let packages = items / 2;
        items = (ranked.len() + packages).min(wanted);
        let (mut taken, mut packed) = (0, 0);
        let mut next_leaf = leaf(0);
        for (item, weight) in weights[..items].iter_mut().enumerate() {
            let package =
                if packed < packages { below[2 * packed] + below[2 * packed + 1] } else { u32::MAX };
            if next_leaf < package {
                *weight = next_leaf;
                taken += 1;
                next_leaf = leaf(taken);
            } else {
                *weight = package;
                packed += 1;
            }
            counts[item + 1] = taken as u16;
        }
    }

    // A leaf that is taken in a list makes its code one bit longer.
    let mut counts = [0; MAX_LEN + 1];
    let (mut wanted, mut shorter) = (wanted, 0);
    for (bits, list) in leaves[..limit].iter().rev().enumerate() {
        let taken = usize::from(list[wanted]);
        if bits > 0 {
            counts[bits] = shorter - taken;
        }
        shorter = taken;
        wanted = 2 * (wanted - taken);
    }
    counts[limit] = shorter;
    counts
}

/// Numbers the codes from their lengths (RFC 1951, section 3.2.2).
fn number(codes: &mut [Code]) {
    let mut counts = [0_u16; MAX_LEN + 1];
    for code in &*codes {
        counts[usize::from(code.len)] += 1;
    }
    counts[0] = 0;
    let mut next = [0_u16; MAX_LEN + 1];
    for len in 1..=MAX_LEN {
        next[len] = (next[len - 1] + counts[len - 1]) << 1;
    }
    for code in codes.iter_mut().filter(|code| code.len > 0) {
        let forward = &mut next[usize::from(code.len)];
        code.bits = forward.reverse_bits() >> (16 - u32::from(code.len));
        *forward = forward.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(frequencies: &[u32], limit: usize) -> Vec<u8> {
        let mut codes = vec![Code::default(); frequencies.len()];
        assign(frequencies, limit, &mut codes);
        codes.iter().map(|code| code.len).collect()
    }

    #[test]
    fn few_symbols_get_one_bit() {
        assert_eq!(assigned(&[0, 0, 0], 15), [0, 0, 0]);
        assert_eq!(assigned(&[0, 9, 0], 15), [0, 1, 0]);
        assert_eq!(assigned(&[1, 0, 900], 15), [1, 0, 1]);
    }

    #[test]
    fn a_limit_flattens_the_code() {
        let fibonacci = [1, 1, 2, 3, 5, 8, 13, 21];
        assert_eq!(assigned(&fibonacci, 15), [7, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(assigned(&fibonacci, 4), [4, 4, 4, 4, 3, 3, 2, 2]);
    }

    /// A complete code: the shares of the bit patterns add up to one.
    #[test]
    fn codes_leave_no_pattern_unused() {
        let frequencies: Vec<u32> = (0..286_u32).map(|n| (n * 7919 % 1013) * (n * 31 % 7)).collect();
        for limit in [9, 11, 15] {
            let share: u32 =
                assigned(&frequencies, limit).iter().filter(|len| **len > 0).map(|len| 1 << (15 - len)).sum();
            assert_eq!(share, 1 << 15, "{limit}");
        }
    }
}
