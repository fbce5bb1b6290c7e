//! Tokens, and the symbols that RFC 1951 (section 3.2.5) has for them.

/// Literals, the end of a block, and lengths; the last two only complete the code of fixed blocks.
pub(super) const LITLEN_SYMBOLS: usize = 288;

/// The symbol that ends a block; literals are below it, lengths above.
pub(super) const END_OF_BLOCK: usize = 256;

/// Distance symbols.
pub(super) const DISTANCE_SYMBOLS: usize = 30;

/// The place behind the distance symbols that tokens without a distance, the literals, are counted at.
pub(super) const NO_DISTANCE: usize = DISTANCE_SYMBOLS;

/// Symbols of the code in which the code lengths of a dynamic block are written.
pub(super) const LENGTH_CODE_SYMBOLS: usize = 19;

/// The order in which the lengths of that code are written.
pub(super) const LENGTH_CODE_ORDER: [usize; LENGTH_CODE_SYMBOLS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The shortest match that deflate can say.
pub(super) const SHORTEST_MATCH: usize = 3;

/// The longest match.
pub(super) const LONGEST_MATCH: usize = 258;

/// The longest distance.
pub(super) const LONGEST_DISTANCE: usize = 1 << 15;

/// The longest content of a stored block in bytes.
pub(super) const LONGEST_STORED: usize = 65535;

/// A literal or a match.
///
/// The lowest nine bits are the *kind*: a literal's byte, or 256 and above it the length of a match minus 3. The
/// highest sixteen bits are the distance, 0 for literals. So both go through the same tables without a branch, which no
/// processor could predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(u32);

impl Token {
    /// How many kinds there are.
    pub(super) const KINDS: usize = 512;

    #[inline(always)]
    pub(super) fn literal(byte: u8) -> Self {
        Self(u32::from(byte))
    }

    /// A match of 3 to 258 bytes at a distance of 1 to 32768.
    #[inline(always)]
    pub(super) fn copy(length: usize, distance: usize) -> Self {
        debug_assert!((SHORTEST_MATCH..=LONGEST_MATCH).contains(&length), "{length}");
        debug_assert!((1..=LONGEST_DISTANCE).contains(&distance), "{distance}");
        Self(((distance as u32) << 16) + 256 + length as u32 - SHORTEST_MATCH as u32)
    }

    #[inline(always)]
    pub(super) fn kind(self) -> usize {
        self.0 as usize % Self::KINDS
    }

    /// The distance, 0 for a literal.
    #[inline(always)]
    pub(super) fn distance(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The symbol of the distance, [`NO_DISTANCE`] for a literal.
    #[inline(always)]
    pub(super) fn distance_symbol(self) -> usize {
        let distance = usize::from(self.distance());
        // Symbols change at multiples of 128 only, from the distance 257 on.
        let place = if distance <= 256 { distance } else { 255 + (distance - 1) / 128 };
        usize::from(SYMBOL_OF_DISTANCE[place])
    }
}

/// A symbol that stands for a range of values: the first of them, and how many extra bits choose one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) extra_bits: u8,
}

/// The lengths behind the symbols 257 to 285.
pub(super) const LENGTHS: [Range; 29] = {
    let mut ranges = ranges::<29>(SHORTEST_MATCH as u16, 4);
    // 258 is so frequent that it has a symbol of its own.
    ranges[28] = Range { first: LONGEST_MATCH as u16, extra_bits: 0 };
    ranges
};

/// The distances behind the symbols 0 to 29, and a last one for tokens that have none.
pub(super) const DISTANCES: [Range; DISTANCE_SYMBOLS + 1] = {
    let mut ranges = ranges::<{ DISTANCE_SYMBOLS + 1 }>(1, 2);
    ranges[NO_DISTANCE] = Range { first: 0, extra_bits: 0 };
    ranges
};

/// The symbol of every kind of token.
pub(super) const SYMBOL_OF_KIND: [u16; Token::KINDS] = {
    let mut symbols = [0; Token::KINDS];
    let mut kind = 0;
    while kind < 256 {
        symbols[kind] = kind as u16;
        kind += 1;
    }
    let mut symbol = 0;
    while kind < Token::KINDS {
        if symbol + 1 < LENGTHS.len() && LENGTHS[symbol + 1].first as usize <= kind - 256 + SHORTEST_MATCH {
            symbol += 1;
        }
        symbols[kind] = (END_OF_BLOCK + 1 + symbol) as u16;
        kind += 1;
    }
    symbols
};

/// The symbols of the distances 0 to 256, then of 257 to 384, 385 to 512 and so on in steps of 128. It has a place for
/// every `u16`, so that no look-up is checked.
const SYMBOL_OF_DISTANCE: [u8; 256 + 511] = {
    let mut symbols = [NO_DISTANCE as u8; 256 + 511];
    let (mut place, mut symbol) = (1, 0);
    while place < symbols.len() {
        let distance = if place <= 256 { place } else { (place - 255) * 128 + 1 };
        if symbol + 1 < DISTANCE_SYMBOLS && DISTANCES[symbol + 1].first as usize <= distance {
            symbol += 1;
        }
        symbols[place] = symbol as u8;
        place += 1;
    }
    symbols
};

/// Ranges as deflate cuts them: `group` of one value, then always so many of each size that two groups double it.
const fn ranges<const N: usize>(first: u16, group: usize) -> [Range; N] {
    let mut ranges = [Range { first, extra_bits: 0 }; N];
    let mut symbol = 1;
    let mut next = first as u32;
    while symbol < N {
        next += 1 << ranges[symbol - 1].extra_bits;
        let extra_bits = (symbol / group).saturating_sub(1) as u8;
        ranges[symbol] = Range { first: next as u16, extra_bits };
        symbol += 1;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length and distance is within the range of its symbol, and the last symbols are those of the RFC.
    #[test]
    fn every_value_has_the_symbol_that_reaches_it() {
        let reaches = |range: Range, value: usize| {
            let first = usize::from(range.first);
            (first..first + (1 << range.extra_bits)).contains(&value)
        };
        for length in SHORTEST_MATCH..=LONGEST_MATCH {
            let symbol = usize::from(SYMBOL_OF_KIND[Token::copy(length, 1).kind()]) - END_OF_BLOCK - 1;
            assert!(reaches(LENGTHS[symbol], length), "{length}: {symbol}");
            assert_eq!(symbol == 28, length == 258, "{length}: {symbol}");
        }
        for distance in 1..=LONGEST_DISTANCE {
            let symbol = Token::copy(3, distance).distance_symbol();
            assert!(
                symbol < DISTANCE_SYMBOLS && reaches(DISTANCES[symbol], distance),
                "{distance}: {symbol}"
            );
        }
        assert_eq!((LENGTHS[27].first, LENGTHS[27].extra_bits), (227, 5));
        assert_eq!((DISTANCES[29].first, DISTANCES[29].extra_bits), (24577, 13));
    }

    #[test]
    fn a_literal_has_no_distance() {
        for byte in 0..=255 {
            let token = Token::literal(byte);
            assert_eq!(usize::from(SYMBOL_OF_KIND[token.kind()]), usize::from(byte));
            assert_eq!((token.distance(), token.distance_symbol()), (0, NO_DISTANCE));
        }
    }
}
