//! Huffman codes made of code lengths (RFC 1951, section 3.2.2), for reading and for writing.
//!
//! A code may leave bit patterns unused. RFC 1951 only speaks of one such case, but any of them can be carried exactly,
//! as long as no unused pattern turns up.

use super::deflate::MAX_CODE_LEN;

/// How many codes there are of each length.
struct Counts([u16; MAX_CODE_LEN + 1]);

impl Counts {
    /// Counts `lengths`, each at most [`MAX_CODE_LEN`]; fails when there are more codes than bit patterns.
    fn of(lengths: &[u8]) -> Result<Self, &'static str> {
        let mut counts = [0_u16; MAX_CODE_LEN + 1];
        for &length in lengths {
            counts[usize::from(length)] += 1;
        }
        // Length 0 means that the symbol has no code.
        counts[0] = 0;
        let mut free = 1_i32;
        for &count in &counts[1..] {
            free = 2 * free - i32::from(count);
            if free < 0 {
                return Err("an over-subscribed Huffman code");
            }
        }
        Ok(Self(counts))
    }

    /// The first code of each length.
    fn first_codes(&self) -> [u16; MAX_CODE_LEN + 1] {
        let mut codes = [0_u16; MAX_CODE_LEN + 1];
        for length in 1..=MAX_CODE_LEN {
            // Cannot overflow: a code that is not over-subscribed has its first code below 1 << length.
            codes[length] = codes[length - 1].wrapping_add(self.0[length - 1]) << 1;
        }
        codes
    }
}

/// A symbol and its code in the order in which deflate sends it, first bit lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) bits: u16,
    /// 0 when the symbol has no code.
    pub(super) len: u8,
}

/// The code of every symbol.
pub(super) fn codes<const N: usize>(lengths: &[u8]) -> Result<[Code; N], &'static str> {
    let mut next = Counts::of(lengths)?.first_codes();
    let mut codes = [Code::default(); N];
    for (code, &len) in codes.iter_mut().zip(lengths) {
        if len > 0 {
            let forward = &mut next[usize::from(len)];
            *code = Code { bits: forward.reverse_bits() >> (16 - u32::from(len)), len };
            *forward = forward.wrapping_add(1);
        }
    }
    Ok(codes)
}

/// Finds the symbol that a bit pattern begins with.
///
/// Codes up to log2(`SIZE`) bits are found in a table of `SIZE` entries; the few that are longer are found by counting
/// up through the lengths, which needs no second table to be filled for every block.
#[derive(Debug)]
pub(super) struct Decoder<const SIZE: usize> {
    /// `symbol << 4 | code length`, by the next bits of the input; 0 where the code is longer or there is none.
    table: [u16; SIZE],
    counts: [u16; MAX_CODE_LEN + 1],
    /// Symbols in the order of their codes.
    symbols: [u16; super::deflate::LITLEN_SYMBOLS],
}

impl<const SIZE: usize> Decoder<SIZE> {
    /// An empty decoder, which finds nothing.
    pub(super) fn new() -> Self {
        Self { table: [0; SIZE], counts: [0; MAX_CODE_LEN + 1], symbols: [0; super::deflate::LITLEN_SYMBOLS] }
    }

    /// Takes another code; `lengths` has at most as many symbols as the largest code of deflate.
    pub(super) fn set(&mut self, lengths: &[u8]) -> Result<(), &'static str> {
        let counts = Counts::of(lengths)?;
        let mut next_code = counts.first_codes();
        let mut next_place = places(&counts.0);
        self.table.fill(0);
        for (symbol, &len) in lengths.iter().enumerate().filter(|(_, len)| **len > 0) {
            let length = usize::from(len);
            self.symbols[usize::from(next_place[length])] = symbol as u16;
            next_place[length] += 1;
            if 1 << length <= SIZE {
                let reversed = next_code[length].reverse_bits() >> (16 - u32::from(len));
                let entry = (symbol as u16) << 4 | u16::from(len);
                self.table[usize::from(reversed)..].iter_mut().step_by(1 << length).for_each(|e| *e = entry);
            }
            next_code[length] = next_code[length].wrapping_add(1);
        }
        self.counts = counts.0;
        Ok(())
    }

    /// The symbol at the start of `bits`, and how many bits it took; `None` when no code begins like that.
    #[inline(always)]
    pub(super) fn find(&self, bits: u64) -> Option<(usize, u32)> {
        let entry = self.table[bits as usize & (SIZE - 1)];
        if entry != 0 {
            return Some((usize::from(entry >> 4), u32::from(entry & 15)));
        }
        self.find_long(bits)
    }

    #[cold]
    fn find_long(&self, bits: u64) -> Option<(usize, u32)> {
        let (mut code, mut first, mut place) = (0_u32, 0_u32, 0_u32);
        for length in 1..=MAX_CODE_LEN {
            code |= (bits >> (length - 1)) as u32 & 1;
            let count = u32::from(self.counts[length]);
            if code < first + count {
                let symbol = *self.symbols.get((place + code - first) as usize)?;
                return Some((usize::from(symbol), length as u32));
            }
            place += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// Where the symbols of each length begin when all are sorted by their codes.
fn places(counts: &[u16; MAX_CODE_LEN + 1]) -> [u16; MAX_CODE_LEN + 1] {
    let mut places = [0; MAX_CODE_LEN + 1];
    for length in 1..MAX_CODE_LEN {
        places[length + 1] = places[length] + counts[length];
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1951, section 3.2.2: lengths (3, 3, 3, 3, 3, 2, 4, 4).
    #[test]
    fn codes_are_those_of_the_rfc() {
        let codes: [Code; 8] = codes(&[3, 3, 3, 3, 3, 2, 4, 4]).unwrap();
        let forward: Vec<u16> =
            codes.iter().map(|code| code.bits.reverse_bits() >> (16 - u32::from(code.len))).collect();
        assert_eq!(forward, [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]);
    }

    /// Every symbol is found from its own code, in the table and behind it, whatever follows.
    #[test]
    fn a_decoder_finds_what_codes_made() {
        let skewed: Vec<u8> = (1..=15).chain([15]).collect();
        let incomplete = [0, 3, 0, 9, 15, 2];
        for lengths in [&skewed[..], &incomplete, &super::super::deflate::FIXED_LITLEN, &[1]] {
            let codes: [Code; 288] = codes(lengths).unwrap();
            let mut decoder = Decoder::<16>::new();
            decoder.set(lengths).unwrap();
            for (symbol, code) in codes.iter().enumerate().filter(|(_, code)| code.len > 0) {
                for behind in [0, u64::MAX] {
                    let bits = behind << code.len | u64::from(code.bits);
                    assert_eq!(decoder.find(bits), Some((symbol, u32::from(code.len))), "{lengths:?}");
                }
            }
        }
    }

    #[test]
    fn unused_patterns_find_nothing_and_too_many_codes_are_refused() {
        let mut decoder = Decoder::<16>::new();
        decoder.set(&[1]).unwrap();
        assert_eq!(decoder.find(1), None);
        decoder.set(&[]).unwrap();
        assert_eq!(decoder.find(0), None);
        assert!(decoder.set(&[1, 1, 1]).is_err());
        assert!(codes::<8>(&[1, 2, 2, 2]).is_err());
    }
}
