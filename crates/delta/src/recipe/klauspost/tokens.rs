//! Literals and copies on their way from a matcher to a block.

use super::symbols::{
    DISTANCE_SYMBOLS, END_OF_BLOCK, FIRST_LENGTH, LENGTH_EXTRA_BITS, LENGTH_SYMBOL, LITLEN_SYMBOLS, MAX_COPY,
    MIN_COPY, distance_extra_bits, distance_symbol,
};

/// A literal, or a copy.
///
/// A literal is its value. A copy has the highest bit set, and from the lowest bit on: the distance minus one (15
/// bits), the length minus 3 (8 bits), the distance symbol (5 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(u32);

impl Token {
    const COPY: u32 = 1 << 31;

    /// The value of a literal, `None` for a copy.
    #[inline(always)]
    pub(super) fn literal(self) -> Option<u8> {
        (self.0 & Self::COPY == 0).then_some(self.0 as u8)
    }

    /// The length of a copy minus [`MIN_COPY`].
    #[inline(always)]
    pub(super) fn length(self) -> u8 {
        (self.0 >> 15) as u8
    }

    /// The distance of a copy minus one.
    #[inline(always)]
    pub(super) fn distance(self) -> u32 {
        self.0 & 0x7fff
    }

    /// The symbol of the distance.
    #[inline(always)]
    pub(super) fn distance_symbol(self) -> usize {
        (self.0 >> 23 & 31) as usize
    }
}

/// How a match that is too long for one copy is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    /// Into the longest copies, as long as what remains is one.
    Longest,
    /// Into copies of 255 bytes, as long as what remains is too long.
    Of255,
}

/// The tokens of a block, and how often each symbol occurs in them.
#[derive(Debug)]
pub(super) struct Tokens {
    pieces: Pieces,
    list: Vec<Token>,
    litlen: [u32; LITLEN_SYMBOLS],
    distance: [u32; DISTANCE_SYMBOLS],
}

impl Tokens {
    /// No tokens yet, and room for `most`.
    pub(super) fn new(pieces: Pieces, most: usize) -> Self {
        Self {
            pieces,
            list: Vec::with_capacity(most),
            litlen: [0; LITLEN_SYMBOLS],
            distance: [0; DISTANCE_SYMBOLS],
        }
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.litlen.fill(0);
        self.distance.fill(0);
    }

    pub(super) fn list(&self) -> &[Token] {
        &self.list
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How often each literal and length symbol occurs.
    pub(super) fn litlen(&self) -> &[u32; LITLEN_SYMBOLS] {
        &self.litlen
    }

    /// How often each distance symbol occurs.
    pub(super) fn distance(&self) -> &[u32; DISTANCE_SYMBOLS] {
        &self.distance
    }

    #[inline(always)]
    pub(super) fn literal(&mut self, byte: u8) {
        self.litlen[usize::from(byte)] += 1;
        self.list.push(Token(byte.into()));
    }

    #[inline(always)]
    pub(super) fn literals(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.litlen[usize::from(byte)] += 1;
        }
        self.list.extend(bytes.iter().map(|byte| Token((*byte).into())));
    }

    /// Adds one copy of at most [`MAX_COPY`] bytes.
    #[inline(always)]
    pub(super) fn copy(&mut self, length: usize, distance: usize) {
        let (length, distance) = ((length - MIN_COPY) as u32 & 255, (distance - 1) as u32 & 0x7fff);
        let symbol = distance_symbol(distance);
        self.litlen[FIRST_LENGTH + usize::from(LENGTH_SYMBOL[length as usize])] += 1;
        self.distance[symbol] += 1;
        self.list.push(Token(Token::COPY | (symbol as u32) << 23 | length << 15 | distance));
    }

    /// Adds a copy of any length in pieces, the last of which is not too short.
    #[inline(always)]
    pub(super) fn long_copy(&mut self, mut length: usize, distance: usize) {
        while length > MAX_COPY {
            let longest = self.pieces == Pieces::Longest && length > MAX_COPY + MIN_COPY;
            let piece = if longest { MAX_COPY } else { MAX_COPY - MIN_COPY };
            self.copy(piece, distance);
            length -= piece;
        }
        if length > 0 {
            self.copy(length, distance);
        }
    }

    /// Roughly how many bits these tokens would take with a code made for them, and `ends` more symbols at their end.
    ///
    /// The estimate decides between two blocks or one, so it is made of the same single-precision steps, in the same
    /// order, as in the original.
    pub(super) fn estimated_bits(&self, ends: usize) -> usize {
        /// What the end of a block is taken to cost.
        const END: f32 = 15.0;
        let total = self.list.len() + ends;
        if total == 0 {
            return 0;
        }
        let mut entropy = 0.0_f32;
        let share = 1.0 / total as f32;
        for &count in self.litlen[..END_OF_BLOCK].iter().filter(|count| **count > 0) {
            entropy += bits_of_share(count, share);
        }
        entropy += END;
        let mut extra = 0;
        let mut copies = 0_u32;
        for (&count, &bits) in self.litlen[FIRST_LENGTH..].iter().zip(&LENGTH_EXTRA_BITS) {
            if count > 0 {
                entropy += bits_of_share(count, share);
                extra += count as usize * usize::from(bits);
                copies += count;
            }
        }
        if copies > 0 {
            let share = 1.0 / copies as f32;
            for (symbol, &count) in self.distance.iter().enumerate().filter(|(_, count)| **count > 0) {
                entropy += bits_of_share(count, share);
                extra += count as usize * distance_extra_bits(symbol) as usize;
            }
        }
        entropy as usize + extra
    }

    /// How many bits are in these tokens besides the codes of their symbols.
    pub(super) fn extra_bits(&self) -> usize {
        let lengths = self.litlen[FIRST_LENGTH..].iter().zip(&LENGTH_EXTRA_BITS);
        let distances = self.distance.iter().enumerate();
        lengths.map(|(count, bits)| *count as usize * usize::from(*bits)).sum::<usize>()
            + distances
                .map(|(symbol, count)| *count as usize * distance_extra_bits(symbol) as usize)
                .sum::<usize>()
    }
}

/// The entropy of `count` symbols that are `count * share` of all, with each between 1 and 15 bits.
fn bits_of_share(count: u32, share: f32) -> f32 {
    let count = count as f32;
    (-fast_log2(count * share)).clamp(1.0, 15.0) * count
}

/// An approximate binary logarithm: the exponent, and a parabola through the mantissa.
///
/// Source: klauspost/compress (BSD-3-Clause), which has it from an answer on Stack Overflow (28730362).
fn fast_log2(value: f32) -> f32 {
    let bits = value.to_bits();
    let exponent = ((bits >> 23 & 255) as i32 - 128) as f32;
    let mantissa = f32::from_bits((bits & 0x807f_ffff) + (127 << 23));
    exponent + ((-0.344_848_43 * mantissa + 2.024_665_8) * mantissa - 0.674_877_6)
}
