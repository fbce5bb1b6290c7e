//! The binary arithmetic coder: decisions and their probabilities in, bytes out, and back.
//!
//! The carry-less range coder of the PAQ family (Matt Mahoney): two 32-bit bounds, from which the leading bytes leave
//! as soon as they agree. An encoder that stops writes four bytes, as many as a decoder reads before it begins, so
//! that coded stretches and other bytes can follow each other in one stream.

use std::io::{self, Read};

use crate::error::Error;
use crate::stream::read_some;

/// One end of the coder. The same modelling code drives both: what is known is said, what is not is learned.
pub(super) trait Coder {
    /// Codes a decision of which `one` / 65536 is the probability that it is yes; `one` is not 0.
    ///
    /// An encoder takes the decision from `bit` and gives it back; a decoder ignores `bit`.
    fn code(&mut self, bit: bool, one: u16) -> bool;
}

/// Appends what it codes to a vector.
#[derive(Debug)]
pub(super) struct Encoder<'a> {
    pub(super) out: &'a mut Vec<u8>,
    low: u32,
    high: u32,
}

/// Splits the interval: decisions that are yes lie at or below the result.
#[inline]
fn split(low: u32, high: u32, one: u16) -> u32 {
    low + ((u64::from(high - low) * u64::from(one)) >> 16) as u32
}

impl<'a> Encoder<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, low: 0, high: u32::MAX }
    }

    /// Ends a coded stretch; the next decision begins another.
    pub(super) fn stop(&mut self) {
        self.out.extend_from_slice(&self.low.to_be_bytes());
        (self.low, self.high) = (0, u32::MAX);
    }
}

impl Coder for Encoder<'_> {
    #[inline]
    fn code(&mut self, bit: bool, one: u16) -> bool {
        let middle = split(self.low, self.high, one);
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
        }
        bit
    }
}

/// How much is read ahead from the source.
const AHEAD: usize = 16 << 10;

/// Reads what an [`Encoder`] wrote.
///
/// A source that fails or ends early gives decisions all the same, so that models need not ask after each; the caller
/// asks [`Decoder::check`] before it believes them, and often enough that a short source cannot keep it busy.
#[derive(Debug)]
pub(super) struct Decoder<R> {
    source: R,
    buffer: Vec<u8>,
    at: usize,
    failed: Option<Error>,
    low: u32,
    high: u32,
    value: u32,
}

impl<R: Read> Decoder<R> {
    /// A decoder that has read nothing yet: [`Decoder::start`] comes first.
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), at: 0, failed: None, low: 0, high: u32::MAX, value: 0 }
    }

    /// Begins a coded stretch.
    pub(super) fn start(&mut self) {
        (self.low, self.high) = (0, u32::MAX);
        self.value = (0..4).fold(0, |value, _| value << 8 | u32::from(self.byte()));
    }

    /// Fails if the source failed or ended before the last decision.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Whether nothing is left in the source.
    pub(super) fn at_end(&mut self) -> Result<bool, Error> {
        Ok(self.at == self.buffer.len() && !self.fill()?)
    }

    /// Reads bytes that are not coded, from behind a stretch that is.
    pub(super) fn plain(&mut self) -> Plain<'_, R> {
        Plain(self)
    }

    fn fill(&mut self) -> Result<bool, Error> {
        self.buffer.resize(AHEAD, 0);
        self.at = 0;
        let read = read_some(&mut self.source, &mut self.buffer);
        self.buffer.truncate(*read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }

    #[inline]
    fn byte(&mut self) -> u8 {
        if self.at == self.buffer.len() && !self.more() {
            return 0;
        }
        self.at += 1;
        self.buffer[self.at - 1]
    }

    /// Reads on; what goes wrong is remembered and not tried again.
    #[cold]
    fn more(&mut self) -> bool {
        if self.failed.is_some() {
            return false;
        }
        match self.fill() {
            Ok(true) => return true,
            Ok(false) => self.failed = Some(Error::Format("coded data ends early")),
            Err(error) => self.failed = Some(error),
        }
        false
    }
}

/// See [`Decoder::plain`].
#[derive(Debug)]
pub(super) struct Plain<'a, R>(&'a mut Decoder<R>);

impl<R: Read> Read for Plain<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.0.at == self.0.buffer.len() && !self.0.fill()? {
            return Err(Error::Format("coded data ends early").into());
        }
        let len = bytes.len().min(self.0.buffer.len() - self.0.at);
        bytes[..len].copy_from_slice(&self.0.buffer[self.0.at..self.0.at + len]);
        self.0.at += len;
        Ok(len)
    }
}

impl<R: Read> Coder for Decoder<R> {
    #[inline]
    fn code(&mut self, _: bool, one: u16) -> bool {
        let middle = split(self.low, self.high, one);
        let bit = self.value <= middle;
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
            self.value = self.value << 8 | u32::from(self.byte());
        }
        bit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decisions_come_back_and_stretches_end_exactly(
            stretches in proptest::collection::vec(
                (proptest::collection::vec((any::<bool>(), 1..=u16::MAX), 0..400), any::<[u8; 3]>()), 0..5)
        ) {
            let mut out = Vec::new();
            for (decisions, plain) in &stretches {
                let mut encoder = Encoder::new(&mut out);
                for (bit, one) in decisions {
                    encoder.code(*bit, *one);
                }
                encoder.stop();
                out.extend_from_slice(plain);
            }
            let mut decoder = Decoder::new(&out[..]);
            for (decisions, plain) in &stretches {
                decoder.start();
                for (bit, one) in decisions {
                    prop_assert_eq!(decoder.code(false, *one), *bit);
                }
                let mut read = [0; 3];
                decoder.plain().read_exact(&mut read).unwrap();
                prop_assert_eq!(&read, plain);
            }
            prop_assert!(decoder.at_end().unwrap());
        }
    }

    #[test]
    fn a_short_source_is_noticed() {
        let mut decoder = Decoder::new(&[1, 2, 3][..]);
        decoder.start();
        assert!(matches!(decoder.check(), Err(Error::Format(_))));
    }

    #[test]
    fn sure_decisions_cost_almost_nothing() {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out);
        for _ in 0..100_000 {
            encoder.code(true, 65535);
        }
        encoder.stop();
        assert!(out.len() < 12, "{}", out.len());
    }
}
