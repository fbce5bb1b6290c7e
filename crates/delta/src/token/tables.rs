//! How a dynamic block says its Huffman codes (RFC 1951, section 3.2.7), kept word for word.
//!
//! The same code lengths can be written in many ways, so what is kept is not the lengths but the steps that build them.

use super::deflate::{
    DISTANCE_SYMBOLS, END_OF_BLOCK, LENGTH_CODE_ORDER, LENGTH_CODE_SYMBOLS, LITLEN_SYMBOLS,
};

/// The steps that a dynamic block can need at most: one for every symbol of both codes.
pub(super) const MAX_STEPS: usize = LITLEN_SYMBOLS + DISTANCE_SYMBOLS;

/// The three counts at the start of a dynamic block, as they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// HLIT: literal and length codes above 257.
    pub(super) litlen: u8,
    /// HDIST: distance codes above 1.
    pub(super) distance: u8,
    /// HCLEN: lengths of the length code above 4.
    pub(super) order: u8,
}

impl Counts {
    /// The bits that each count takes, in the order of the fields.
    pub(super) const BITS: [u32; 3] = [5, 5, 4];

    pub(super) fn litlen(self) -> usize {
        usize::from(self.litlen) + 257
    }

    pub(super) fn distance(self) -> usize {
        usize::from(self.distance) + 1
    }

    pub(super) fn order(self) -> usize {
        usize::from(self.order) + 4
    }
}

/// The lengths of the length code, 3 bits each, in the order in which they are sent.
pub(super) const LENGTH_CODE_BITS: u32 = 3;

/// Puts the lengths of the length code where their symbols are.
pub(super) fn length_code(sent: &[u8]) -> [u8; LENGTH_CODE_SYMBOLS] {
    let mut lengths = [0; LENGTH_CODE_SYMBOLS];
    for (&symbol, &length) in LENGTH_CODE_ORDER.iter().zip(sent) {
        lengths[usize::from(symbol)] = length;
    }
    lengths
}

/// One symbol of the length code, with its extra bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) symbol: u8,
    pub(super) extra: u8,
}

impl Step {
    /// How many extra bits a symbol of the length code has.
    pub(super) fn extra_bits(symbol: u8) -> u32 {
        match symbol {
            16 => 2,
            17 => 3,
            18 => 7,
            _ => 0,
        }
    }

    /// The step as one byte of a token stream: a length as itself, the three repeats with a marking above.
    pub(super) fn to_byte(self) -> u8 {
        match self.symbol {
            16 => 0x10 | self.extra,
            17 => 0x20 | self.extra,
            18 => 0x80 | self.extra,
            length => length,
        }
    }

    /// The step that a byte of a token stream means.
    pub(super) fn from_byte(byte: u8) -> Result<Self, &'static str> {
        match byte {
            0..=15 => Ok(Self { symbol: byte, extra: 0 }),
            0x10..=0x13 => Ok(Self { symbol: 16, extra: byte & 3 }),
            0x20..=0x27 => Ok(Self { symbol: 17, extra: byte & 7 }),
            0x80..=0xff => Ok(Self { symbol: 18, extra: byte & 0x7f }),
            _ => Err("an unknown table step"),
        }
    }
}

/// The code lengths of a block, built step by step.
#[derive(Debug)]
pub(super) struct CodeLengths {
    lengths: [u8; MAX_STEPS],
    built: usize,
    litlen: usize,
    wanted: usize,
}

impl CodeLengths {
    pub(super) fn new(counts: Counts) -> Self {
        let litlen = counts.litlen();
        Self { lengths: [0; MAX_STEPS], built: 0, litlen, wanted: litlen + counts.distance() }
    }

    /// Whether all lengths are there.
    pub(super) fn complete(&self) -> bool {
        self.built == self.wanted
    }

    /// Takes a step; fails when it repeats nothing or goes past the end.
    pub(super) fn push(&mut self, step: Step) -> Result<(), &'static str> {
        let extra = usize::from(step.extra);
        let (length, count) = match step.symbol {
            16 => (self.last()?, 3 + extra),
            17 => (0, 3 + extra),
            18 => (0, 11 + extra),
            length => (length, 1),
        };
        let room = &mut self.lengths[self.built..self.wanted];
        room.get_mut(..count).ok_or("more code lengths than announced")?.fill(length);
        self.built += count;
        Ok(())
    }

    fn last(&self) -> Result<u8, &'static str> {
        let place = self.built.checked_sub(1).ok_or("the first code length repeats the one before")?;
        Ok(self.lengths[place])
    }

    /// The literal and length code; fails when a block of it could not end.
    pub(super) fn litlen(&self) -> Result<&[u8], &'static str> {
        if self.lengths[END_OF_BLOCK] == 0 {
            return Err("a block that cannot end");
        }
        Ok(&self.lengths[..self.litlen])
    }

    /// The distance code.
    pub(super) fn distance(&self) -> &[u8] {
        &self.lengths[self.litlen..self.wanted]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_one_byte() {
        for byte in 0..=255 {
            if let Ok(step) = Step::from_byte(byte) {
                assert_eq!(step.to_byte(), byte);
                assert!(u32::from(step.extra) < 1 << Step::extra_bits(step.symbol));
            }
        }
    }

    #[test]
    fn repeats_stay_inside() {
        let mut lengths = CodeLengths::new(Counts { litlen: 0, distance: 0, order: 0 });
        assert!(lengths.push(Step { symbol: 16, extra: 0 }).is_err());
        lengths.push(Step { symbol: 18, extra: 127 }).unwrap();
        lengths.push(Step { symbol: 18, extra: 107 }).unwrap();
        lengths.push(Step { symbol: 1, extra: 0 }).unwrap();
        assert!(!lengths.complete());
        assert!(lengths.push(Step { symbol: 16, extra: 0 }).is_err());
        lengths.push(Step { symbol: 1, extra: 0 }).unwrap();
        assert!(lengths.complete());
        assert_eq!((lengths.litlen().unwrap().len(), lengths.distance()), (257, &[1][..]));
        assert!(lengths.push(Step { symbol: 0, extra: 0 }).is_err());
    }
}
