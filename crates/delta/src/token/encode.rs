//! From a token stream back to its gzip blob.

use std::io::{Read, Write};

use super::bits::BitWriter;
use super::deflate::{
    ALMOST_LONGEST, DISTANCE_SYMBOLS, DISTANCES, END_OF_BLOCK, FIXED, FIXED_DISTANCE, FIXED_LITLEN,
    LENGTH_CODE_SYMBOLS, LENGTHS, LITLEN_SYMBOLS, MIN_COPY, STORED, SYMBOL_OF_LENGTH, symbol_of_distance,
};
use super::huffman::{Code, codes};
use super::layout::{Part, Token, TokenReader};
use super::tables::{Counts, LENGTH_CODE_BITS, Step, length_code};
use crate::error::Error;

/// CRC32 and ISIZE at the end of a member.
const TRAILER: usize = 8;

/// Writes the gzip blob that a token stream was made of.
///
/// Fails with [`Error::Format`] when [`decode`](super::decode) cannot have written the stream, or when something
/// follows it; `gzip` has then received a part of a blob. At most twice as much is written as is read; a tighter limit
/// is for the writer to set.
pub fn encode(tokens: impl Read, gzip: impl Write) -> Result<(), Error> {
    let mut encoder = Gzip { tokens: TokenReader::new(tokens), bits: BitWriter::new(gzip) };
    encoder.blob()?;
    encoder.tokens.finish()?;
    encoder.bits.finish()
}

/// The two codes of a block.
struct Codes {
    litlen: [Code; LITLEN_SYMBOLS],
    distance: [Code; DISTANCE_SYMBOLS],
}

impl Codes {
    fn new(litlen: &[u8], distance: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            litlen: codes(litlen).map_err(Error::Format)?,
            distance: codes(distance).map_err(Error::Format)?,
        })
    }
}

struct Gzip<R, W> {
    tokens: TokenReader<R>,
    bits: BitWriter<W>,
}

impl<R: Read, W: Write> Gzip<R, W> {
    fn blob(&mut self) -> Result<(), Error> {
        loop {
            match self.tokens.part()? {
                Part::End => return Ok(()),
                Part::Member(header) => {
                    self.verbatim(header)?;
                    self.member()?;
                }
                Part::Tail(piece) => self.verbatim(piece)?,
            }
        }
    }

    /// Everything of a member behind its header.
    fn member(&mut self) -> Result<(), Error> {
        loop {
            let block = self.tokens.block()?;
            self.bits.put(u64::from(block.last) | u64::from(block.kind) << 1, 3)?;
            match block.kind {
                STORED => self.stored()?,
                FIXED => self.symbols(&Codes::new(&FIXED_LITLEN, &FIXED_DISTANCE)?)?,
                _ => self.dynamic()?,
            }
            if block.last {
                break;
            }
        }
        self.padding()?;
        self.verbatim(TRAILER)
    }

    fn padding(&mut self) -> Result<(), Error> {
        let padding = self.tokens.byte()?;
        self.bits.align(padding)
    }

    fn stored(&mut self) -> Result<(), Error> {
        self.padding()?;
        let count = self.tokens.count()?;
        let len = count as u16;
        self.bits.bytes(&len.to_le_bytes())?;
        self.bits.bytes(&(!len).to_le_bytes())?;
        self.verbatim(count)
    }

    fn verbatim(&mut self, mut count: usize) -> Result<(), Error> {
        while count > 0 {
            let bytes = self.tokens.bytes(count)?;
            count -= bytes.len();
            self.bits.bytes(bytes)?;
        }
        Ok(())
    }

    fn dynamic(&mut self) -> Result<(), Error> {
        let counts = self.tokens.counts()?;
        for (count, bits) in [counts.litlen, counts.distance, counts.order].into_iter().zip(Counts::BITS) {
            self.bits.put(count.into(), bits)?;
        }
        let code = self.length_code(counts)?;
        let bits = &mut self.bits;
        let lengths = self.tokens.steps(counts, |step| {
            put_symbol(bits, code[usize::from(step.symbol)], step.extra.into(), Step::extra_bits(step.symbol))
        })?;
        self.symbols(&Codes::new(lengths.litlen().map_err(Error::Format)?, lengths.distance())?)
    }

    fn length_code(&mut self, counts: Counts) -> Result<[Code; LENGTH_CODE_SYMBOLS], Error> {
        let mut sent = [0; LENGTH_CODE_SYMBOLS];
        let sent = &mut sent[..counts.order()];
        for length in &mut *sent {
            *length = self.tokens.byte()?;
            if *length >> LENGTH_CODE_BITS != 0 {
                return Err(Error::Format("a code length that has too many bits"));
            }
            self.bits.put(u64::from(*length), LENGTH_CODE_BITS)?;
        }
        codes(&length_code(sent)).map_err(Error::Format)
    }

    /// Writes the tokens of a compressed block, its end included. This is where nearly all the time goes.
    fn symbols(&mut self, codes: &Codes) -> Result<(), Error> {
        loop {
            match self.tokens.token()? {
                Token::Copy { length, distance } => {
                    self.copy(codes, SYMBOL_OF_LENGTH[usize::from(length)], length, distance)?;
                }
                Token::EndOfBlock => return put_symbol(&mut self.bits, codes.litlen[END_OF_BLOCK], 0, 0),
                Token::Literals(count) => self.literals(codes, count)?,
                Token::LongestAsAlmost { distance } => self.copy(codes, ALMOST_LONGEST, 0xff, distance)?,
            }
        }
    }

    #[inline(always)]
    fn literals(&mut self, codes: &Codes, mut count: usize) -> Result<(), Error> {
        while count > 0 {
            let bytes = self.tokens.bytes(count)?;
            for &byte in bytes {
                put_symbol(&mut self.bits, codes.litlen[usize::from(byte)], 0, 0)?;
            }
            count -= bytes.len();
        }
        Ok(())
    }

    /// Writes a copy with a length symbol counted from 257.
    #[inline(always)]
    fn copy(&mut self, codes: &Codes, length_symbol: u8, length: u8, distance: u16) -> Result<(), Error> {
        let range = LENGTHS[usize::from(length_symbol)];
        let extra = u16::from(length) + MIN_COPY - range.first;
        let code = codes.litlen[END_OF_BLOCK + 1 + usize::from(length_symbol)];
        put_symbol(&mut self.bits, code, extra, range.extra_bits.into())?;

        let symbol = symbol_of_distance(distance);
        let range = DISTANCES[symbol];
        put_symbol(&mut self.bits, codes.distance[symbol], distance - range.first, range.extra_bits.into())
    }
}

/// Writes a code and the extra bits behind it; fails when the symbol has no code.
#[inline(always)]
fn put_symbol<W: Write>(
    bits: &mut BitWriter<W>,
    code: Code,
    extra: u16,
    extra_bits: u32,
) -> Result<(), Error> {
    if code.len == 0 {
        return Err(Error::Format("a symbol without a code"));
    }
    let len = u32::from(code.len);
    bits.put(u64::from(code.bits) | u64::from(extra) << len, len + extra_bits)
}
