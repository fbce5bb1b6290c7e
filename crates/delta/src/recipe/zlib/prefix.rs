//! The first symbols of a deflate body, to tell levels apart without encoding much.

use super::block::{DISTANCE_SYMBOLS, FEW_ZEROS, MANY_ZEROS, REPEAT, fixed_len};
use super::block::{DISTANCES, END, LENGTHS, STEP_ORDER, STEP_SYMBOLS, copy_symbol};
use super::tree::{LITLEN_SYMBOLS, MAX_BITS};

/// The symbols of `body` up to a stored block, a damaged place, its end, or `most` of them, in the form of
/// [`Block`](super::block::Block).
pub(super) fn symbols(body: &[u8], most: usize) -> Vec<u32> {
    let mut symbols = Vec::with_capacity(most);
    let mut bits = BitReader { bytes: body, at: 0 };
    // Whatever ends the list early, what is in it was there.
    while symbols.len() < most && read_block(&mut bits, most, &mut symbols) == Some(Next::Block) {}
    symbols
}

#[derive(PartialEq, Eq)]
enum Next {
    Block,
    Nothing,
}

/// Reads one block; `None` where it cannot be read on.
fn read_block(bits: &mut BitReader<'_>, most: usize, symbols: &mut Vec<u32>) -> Option<Next> {
    let last = bits.take(1)? == 1;
    let (litlen, distance) = match bits.take(2)? {
        1 => (Decoder::new((0..LITLEN_SYMBOLS + 2).map(fixed_len)), Decoder::new([5; DISTANCE_SYMBOLS])),
        2 => read_table(bits)?,
        _ => return None,
    };
    while symbols.len() < most {
        let symbol = litlen.read(bits)?;
        if symbol == END {
            return Some(if last { Next::Nothing } else { Next::Block });
        }
        symbols.push(match symbol.checked_sub(END + 1) {
            None => symbol as u32,
            Some(length) => {
                let length = LENGTHS.get(length)?;
                let excess = length.first + bits.take(u32::from(length.extra_bits))?;
                let distance = DISTANCES.get(distance.read(bits)?)?;
                copy_symbol(excess as u8, distance.first + bits.take(u32::from(distance.extra_bits))?)
            }
        });
    }
    Some(Next::Nothing)
}

/// Reads the two codes of a dynamic block.
fn read_table(bits: &mut BitReader<'_>) -> Option<(Decoder, Decoder)> {
    let litlen = usize::from(bits.take(5)?) + END + 1;
    let distance = usize::from(bits.take(5)?) + 1;
    let order = usize::from(bits.take(4)?) + 4;
    let mut steps = [0; STEP_SYMBOLS];
    for &symbol in &STEP_ORDER[..order] {
        steps[symbol] = bits.take(3)? as u8;
    }
    let steps = Decoder::new(steps);
    let mut lens = Vec::with_capacity(litlen + distance);
    while lens.len() < litlen + distance {
        let (len, count) = match steps.read(bits)? {
            REPEAT => (*lens.last()?, 3 + bits.take(2)?),
            FEW_ZEROS => (0, 3 + bits.take(3)?),
            MANY_ZEROS => (0, 11 + bits.take(7)?),
            len => (len as u8, 1),
        };
        lens.extend((0..count).map(|_| len));
    }
    let distance = lens.drain(litlen..).take(distance).collect::<Vec<_>>();
    Some((Decoder::new(lens), Decoder::new(distance)))
}

/// Finds symbols bit by bit, which is fast enough for a few of them.
struct Decoder {
    /// How many codes there are of each length.
    counts: [u16; MAX_BITS + 1],
    /// Symbols in the order of their codes.
    symbols: Vec<u16>,
}

impl Decoder {
    fn new(lens: impl IntoIterator<Item = u8>) -> Self {
        let mut counts = [0; MAX_BITS + 1];
        let mut symbols: Vec<(u8, u16)> = lens.into_iter().zip(0..).filter(|&(len, _)| len > 0).collect();
        symbols.sort_unstable();
        symbols.iter().for_each(|&(len, _)| counts[usize::from(len)] += 1);
        Self { counts, symbols: symbols.into_iter().map(|(_, symbol)| symbol).collect() }
    }

    fn read(&self, bits: &mut BitReader<'_>) -> Option<usize> {
        // The code so far, counted from the first one of its length, and the place of that one.
        let (mut code, mut place) = (0, 0);
        for &count in &self.counts[1..] {
            code = code << 1 | usize::from(bits.take(1)?);
            if code < usize::from(count) {
                return self.symbols.get(place + code).map(|&symbol| usize::from(symbol));
            }
            code -= usize::from(count);
            place += usize::from(count);
        }
        None
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl BitReader<'_> {
    /// Takes up to 13 bits; `None` behind the end.
    fn take(&mut self, count: u32) -> Option<u16> {
        let byte = |place| self.bytes.get(place).copied().map_or(0, u32::from);
        let end = self.at + count as usize;
        if end > 8 * self.bytes.len() {
            return None;
        }
        let first = self.at / 8;
        let three = byte(first) | byte(first + 1) << 8 | byte(first + 2) << 16;
        let bits = three >> (self.at % 8) & ((1 << count) - 1);
        self.at = end;
        Some(bits as u16)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::recipe::zlib::{Encode, Encoder, Variant};

    /// Plays symbols back.
    fn inflate(symbols: &[u32]) -> Vec<u8> {
        let mut content = Vec::new();
        for &symbol in symbols {
            let (distance, value) = ((symbol >> 16) as usize, symbol as u8);
            if distance == 0 {
                content.push(value);
            }
            for _ in 0..if distance == 0 { 0 } else { usize::from(value) + 3 } {
                content.push(content[content.len() - distance]);
            }
        }
        content
    }

    #[test]
    fn symbols_are_those_of_the_body() {
        let text: Vec<u8> = (0..40_000_u32).flat_map(|i| (i * i / 7).to_string().into_bytes()).collect();
        for content in [&text[..], &text[..40], &[7; 100_000]] {
            let mut encoder = Encoder::new(Variant::Zlib { mem_level: 8 }, 6).unwrap();
            let mut body = Vec::new();
            encoder.write(content, &mut body);
            encoder.finish(&mut body);
            assert!(inflate(&symbols(&body, 1 << 20)) == content);
            assert!(content.starts_with(&inflate(&symbols(&body, 100))));
            assert!(content.starts_with(&inflate(&symbols(&body[..body.len() / 2], 100_000))));
        }
    }

    proptest::proptest! {
        #[test]
        fn nonsense_is_no_harm(body: Vec<u8>) {
            assert!(symbols(&body, 1000).len() <= 1000);
        }
    }
}
