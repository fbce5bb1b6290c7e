//! The constants of deflate (RFC 1951, section 3.2).

/// Literal or length symbols, the two that never occur included.
pub(super) const LITLEN_SYMBOLS: usize = 288;

/// Distance symbols, the two that never occur included.
pub(super) const DISTANCE_SYMBOLS: usize = 32;

/// Symbols of the code in which the other two codes are written.
pub(super) const LENGTH_CODE_SYMBOLS: usize = 19;

/// The longest code of all.
pub(super) const MAX_CODE_LEN: usize = 15;

/// The symbol that ends a block; literals are below it, lengths above.
pub(super) const END_OF_BLOCK: usize = 256;

/// The length symbol whose largest extra value would mean 258, which has a symbol of its own. An encoder may use it
/// all the same, so a token stream must be able to tell them apart.
pub(super) const ALMOST_LONGEST: u8 = 27;

/// The shortest copy.
pub(super) const MIN_COPY: u16 = 3;

/// The types of a block.
pub(super) const STORED: u8 = 0;
pub(super) const FIXED: u8 = 1;
pub(super) const DYNAMIC: u8 = 2;

/// A symbol that stands for a range of values: the first of them, and how many extra bits choose one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) extra_bits: u8,
}

/// The lengths behind the symbols 257 to 285.
pub(super) const LENGTHS: [Range; 29] = lengths();

/// The distances, minus one, behind the symbols 0 to 29.
pub(super) const DISTANCES: [Range; 30] = distances();

/// The order in which the lengths of the length code are written.
pub(super) const LENGTH_CODE_ORDER: [u8; LENGTH_CODE_SYMBOLS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The length symbol, counted from 257, for every copy length minus [`MIN_COPY`].
pub(super) const SYMBOL_OF_LENGTH: [u8; 256] = symbol_of_length();

/// The literal and length code of fixed blocks.
pub(super) const FIXED_LITLEN: [u8; LITLEN_SYMBOLS] = fixed_litlen();

/// The distance code of fixed blocks.
pub(super) const FIXED_DISTANCE: [u8; DISTANCE_SYMBOLS] = [5; DISTANCE_SYMBOLS];

/// The distance symbol of a distance minus one.
///
/// Above the first four, every power of two is cut into two halves with a symbol each.
#[inline(always)]
pub(super) fn symbol_of_distance(minus_one: u16) -> usize {
    if minus_one < 4 {
        return usize::from(minus_one);
    }
    let power = minus_one.ilog2();
    let half = minus_one >> (power - 1) & 1;
    2 * power as usize + usize::from(half)
}

const fn lengths() -> [Range; 29] {
    let mut ranges = [Range { first: 0, extra_bits: 0 }; 29];
    let mut first = MIN_COPY;
    let mut symbol = 0;
    while symbol < 28 {
        let extra_bits = if symbol < 8 { 0 } else { (symbol as u8 - 4) / 4 };
        ranges[symbol] = Range { first, extra_bits };
        first += 1 << extra_bits;
        symbol += 1;
    }
    ranges[28] = Range { first: 258, extra_bits: 0 };
    ranges
}

const fn distances() -> [Range; 30] {
    let mut ranges = [Range { first: 0, extra_bits: 0 }; 30];
    let mut first = 0;
    let mut symbol = 0;
    while symbol < 30 {
        let extra_bits = if symbol < 4 { 0 } else { symbol as u8 / 2 - 1 };
        ranges[symbol] = Range { first, extra_bits };
        first += 1 << extra_bits;
        symbol += 1;
    }
    ranges
}

const fn symbol_of_length() -> [u8; 256] {
    let mut symbols = [0; 256];
    let mut symbol = 0;
    while symbol < 28 {
        let start = LENGTHS[symbol].first - MIN_COPY;
        let mut offset = 0;
        while offset < 1 << LENGTHS[symbol].extra_bits {
            symbols[(start + offset) as usize] = symbol as u8;
            offset += 1;
        }
        symbol += 1;
    }
    symbols[255] = 28;
    symbols
}

const fn fixed_litlen() -> [u8; LITLEN_SYMBOLS] {
    let mut lengths = [8; LITLEN_SYMBOLS];
    let mut symbol = 144;
    while symbol < 280 {
        lengths[symbol] = if symbol < 256 { 9 } else { 7 };
        symbol += 1;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the tables in RFC 1951, section 3.2.5.
    #[test]
    fn the_tables_are_those_of_the_rfc() {
        for (symbol, extra_bits, first) in [
            (257, 0, 3),
            (264, 0, 10),
            (265, 1, 11),
            (269, 2, 19),
            (273, 3, 35),
            (280, 4, 115),
            (281, 5, 131),
            (284, 5, 227),
            (285, 0, 258),
        ] {
            let range = LENGTHS[symbol - 257];
            assert_eq!((range.extra_bits, range.first), (extra_bits, first), "length symbol {symbol}");
        }
        for (symbol, extra_bits, first) in
            [(0, 0, 1), (3, 0, 4), (4, 1, 5), (6, 2, 9), (16, 7, 257), (28, 13, 16385), (29, 13, 24577)]
        {
            let range = DISTANCES[symbol];
            assert_eq!((range.extra_bits, range.first + 1), (extra_bits, first), "distance symbol {symbol}");
        }
    }

    #[test]
    fn every_length_and_distance_has_the_symbol_whose_range_holds_it() {
        let holds = |range: Range, value: u16| (value - range.first) >> range.extra_bits == 0;
        for length in 3..=258_u16 {
            let range = LENGTHS[usize::from(SYMBOL_OF_LENGTH[usize::from(length - 3)])];
            assert!(range.first <= length && holds(range, length), "{length}");
        }
        for distance in 0..=0x7fff_u16 {
            let range = DISTANCES[symbol_of_distance(distance)];
            assert!(range.first <= distance && holds(range, distance), "{distance}");
        }
    }
}
