//! The symbols of deflate (RFC 1951, section 3.2.5).

/// Literals, the end of a block, and lengths; the two that never occur are not counted.
pub(super) const LITLEN_SYMBOLS: usize = 286;

/// Distances; the two that never occur are not counted.
pub(super) const DISTANCE_SYMBOLS: usize = 30;

/// The symbols that code lengths are written in.
pub(super) const LENGTH_CODE_SYMBOLS: usize = 19;

/// The order in which the lengths of the length code are written.
pub(super) const LENGTH_CODE_ORDER: [u8; LENGTH_CODE_SYMBOLS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The symbol that ends a block; literals are below it, lengths above.
pub(super) const END_OF_BLOCK: usize = 256;

/// The first length symbol.
pub(super) const FIRST_LENGTH: usize = 257;

/// The shortest copy.
pub(super) const MIN_COPY: usize = 3;

/// The longest copy.
pub(super) const MAX_COPY: usize = 258;

/// How many bytes back a copy can reach.
pub(super) const WINDOW: usize = 1 << 15;

/// The length symbol, counted from [`FIRST_LENGTH`], of every copy length minus [`MIN_COPY`].
pub(super) const LENGTH_SYMBOL: [u8; 256] = length_symbols();

/// The extra bits of the length symbols.
///
/// They are the lowest bits of the length minus [`MIN_COPY`], which holds for distances minus one as well.
pub(super) const LENGTH_EXTRA_BITS: [u8; 29] = length_extra_bits();

/// The extra bits of a distance symbol.
#[inline(always)]
pub(super) fn distance_extra_bits(symbol: usize) -> u32 {
    (symbol as u32 / 2).saturating_sub(1)
}

/// The symbol of a distance minus one: above the first four, every power of two has two halves with a symbol each.
#[inline(always)]
pub(super) fn distance_symbol(minus_one: u32) -> usize {
    if minus_one < 4 {
        return minus_one as usize;
    }
    let power = minus_one.ilog2();
    (2 * power + (minus_one >> (power - 1) & 1)) as usize
}

const fn length_extra_bits() -> [u8; 29] {
    let mut bits = [0; 29];
    let mut symbol = 8;
    while symbol < 28 {
        bits[symbol] = (symbol as u8 - 4) / 4;
        symbol += 1;
    }
    bits
}

const fn length_symbols() -> [u8; 256] {
    let mut symbols = [0; 256];
    let (mut symbol, mut length) = (0, 0);
    while symbol < 28 {
        let mut left = 1 << LENGTH_EXTRA_BITS[symbol];
        while left > 0 && length < 255 {
            symbols[length] = symbol as u8;
            length += 1;
            left -= 1;
        }
        symbol += 1;
    }
    // The longest copy has a symbol of its own.
    symbols[255] = 28;
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_those_of_the_rfc() {
        for (length, symbol) in [(3, 257), (10, 264), (11, 265), (12, 265), (13, 266), (114, 279), (115, 280)]
            .into_iter()
            .chain([(130, 280), (131, 281), (227, 284), (257, 284), (258, 285)])
        {
            assert_eq!(FIRST_LENGTH + usize::from(LENGTH_SYMBOL[length - MIN_COPY]), symbol, "{length}");
        }
        for (distance, symbol, bits) in [(1, 0, 0), (4, 3, 0), (5, 4, 1), (7, 5, 1), (8, 5, 1), (9, 6, 2)]
            .into_iter()
            .chain([(24_576, 28, 13), (24_577, 29, 13), (32_768, 29, 13)])
        {
            assert_eq!(distance_symbol(distance - 1), symbol, "{distance}");
            assert_eq!(distance_extra_bits(symbol), bits, "{distance}");
        }
    }
}
