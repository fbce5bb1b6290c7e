//! From a gzip blob to its token stream.

use std::io::{Read, Write};

use super::bits::{BitReader, TRUNCATED};
use super::deflate::{
    ALMOST_LONGEST, DISTANCES, DYNAMIC, END_OF_BLOCK, FIXED, FIXED_DISTANCE, FIXED_LITLEN, LENGTHS, MIN_COPY,
    STORED,
};
use super::huffman::Decoder;
use super::layout::{Block, MAX_RUN, TokenWriter};
use super::tables::{CodeLengths, Counts, LENGTH_CODE_BITS, Step, length_code};
use crate::error::Error;

/// The bits of a gzip header's flags (RFC 1952, section 2.3.1).
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// CRC32 and ISIZE at the end of a member.
const TRAILER: usize = 8;

/// The most bits that one copy can have: two codes and their extra bits.
const COPY_BITS: u32 = 15 + 5 + 15 + 13;

/// Writes the token stream of a gzip blob, of at most `limit` bytes, and returns its length.
///
/// What follows the last member is carried along. Fails with [`Error::Unrepresentable`] when the blob does not begin
/// with a gzip member or a member is cut off or not valid deflate, and with [`Error::Limit`] when the stream would be
/// longer than `limit`; `tokens` has then received a part of a stream, which means nothing.
pub fn decode(gzip: impl Read, tokens: impl Write, limit: u64) -> Result<u64, Error> {
    let mut decoder = Gzip {
        bits: BitReader::new(gzip),
        tokens: TokenWriter::new(tokens, limit),
        dynamic: Box::new(Codes::new()),
        fixed: Box::new(Codes::new()),
    };
    decoder.fixed.set(&FIXED_LITLEN, &FIXED_DISTANCE)?;
    decoder.blob()?;
    decoder.tokens.finish()
}

/// The two codes of a block.
///
/// The tables find codes of up to 11 and 9 bits at once: together 5 KiB, which stay in the first cache, and nearly all
/// codes that occur.
struct Codes {
    litlen: Decoder<2048>,
    distance: Decoder<512>,
}

impl Codes {
    fn new() -> Self {
        Self { litlen: Decoder::new(), distance: Decoder::new() }
    }

    fn set(&mut self, litlen: &[u8], distance: &[u8]) -> Result<(), Error> {
        self.litlen.set(litlen).map_err(Error::Unrepresentable)?;
        self.distance.set(distance).map_err(Error::Unrepresentable)
    }
}

struct Gzip<R, W> {
    bits: BitReader<R>,
    tokens: TokenWriter<W>,
    dynamic: Box<Codes>,
    fixed: Box<Codes>,
}

impl<R: Read, W: Write> Gzip<R, W> {
    fn blob(&mut self) -> Result<(), Error> {
        let mut header = Vec::with_capacity(64);
        if !self.header(&mut header)? {
            return Err(Error::Unrepresentable("it does not begin with a gzip header"));
        }
        loop {
            self.tokens.member(&header)?;
            self.member()?;
            if !self.header(&mut header)? {
                break;
            }
        }
        // What was taken for the beginning of a header is the beginning of the tail.
        if !header.is_empty() {
            self.tokens.tail(&header)?;
        }
        self.tail()
    }

    /// Reads a gzip header into `header`; false when there is none, and what was read on the way is in `header`.
    fn header(&mut self, header: &mut Vec<u8>) -> Result<bool, Error> {
        header.clear();
        for expected in [0x1f, 0x8b, 8] {
            if self.header_byte(header)? != Some(expected) {
                return Ok(false);
            }
        }
        let Some(flags) = self.header_byte(header)? else { return Ok(false) };
        Ok(flags & RESERVED == 0
            && self.header_bytes(header, 6)?
            && (flags & FEXTRA == 0 || self.header_extra(header)?)
            && (flags & FNAME == 0 || self.header_text(header)?)
            && (flags & FCOMMENT == 0 || self.header_text(header)?)
            && (flags & FHCRC == 0 || self.header_bytes(header, 2)?))
    }

    fn header_extra(&mut self, header: &mut Vec<u8>) -> Result<bool, Error> {
        let (Some(low), Some(high)) = (self.header_byte(header)?, self.header_byte(header)?) else {
            return Ok(false);
        };
        self.header_bytes(header, u16::from_le_bytes([low, high]).into())
    }

    /// Reads up to and including a zero.
    fn header_text(&mut self, header: &mut Vec<u8>) -> Result<bool, Error> {
        loop {
            match self.header_byte(header)? {
                Some(0) => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }

    fn header_bytes(&mut self, header: &mut Vec<u8>, count: usize) -> Result<bool, Error> {
        for _ in 0..count {
            if self.header_byte(header)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next byte of a header; `None` at the end of the blob, and where a header becomes too long to be one.
    fn header_byte(&mut self, header: &mut Vec<u8>) -> Result<Option<u8>, Error> {
        if header.len() == MAX_RUN {
            return Ok(None);
        }
        let byte = self.bits.byte()?;
        header.extend(byte);
        Ok(byte)
    }

    /// Everything of a member behind its header.
    fn member(&mut self) -> Result<(), Error> {
        loop {
            let [last, kind] = [self.bits.take(1)?, self.bits.take(2)?];
            let block = Block { last: last == 1, kind: kind as u8 };
            self.tokens.block(block)?;
            match block.kind {
                STORED => self.stored()?,
                FIXED => {
                    self.tokens.open_run()?;
                    symbols(&mut self.bits, &mut self.tokens, &self.fixed)?;
                }
                DYNAMIC => self.dynamic()?,
                _ => return Err(Error::Unrepresentable("a block of the reserved type")),
            }
            if block.last {
                break;
            }
        }
        let padding = self.bits.align()?;
        self.tokens.raw(&[padding])?;
        self.verbatim(TRAILER)
    }

    fn stored(&mut self) -> Result<(), Error> {
        let padding = self.bits.align()?;
        let [len, complement] = [self.bits.take(16)?, self.bits.take(16)?];
        if len != !complement {
            return Err(Error::Unrepresentable("a stored block with a damaged length"));
        }
        // Puts back what the last refill took too many.
        self.bits.align()?;
        self.tokens.stored(padding, len)?;
        self.verbatim(len.into())
    }

    fn verbatim(&mut self, mut count: usize) -> Result<(), Error> {
        while count > 0 {
            let bytes = self.bits.bytes(count)?;
            if bytes.is_empty() {
                return Err(TRUNCATED);
            }
            count -= bytes.len();
            self.tokens.raw(bytes)?;
        }
        Ok(())
    }

    fn dynamic(&mut self) -> Result<(), Error> {
        let lengths = self.code_lengths()?;
        let litlen = lengths.litlen().map_err(Error::Unrepresentable)?;
        self.dynamic.set(litlen, lengths.distance())?;
        self.tokens.open_run()?;
        symbols(&mut self.bits, &mut self.tokens, &self.dynamic)
    }

    /// Reads how a dynamic block says its codes, and passes it on word for word.
    fn code_lengths(&mut self) -> Result<CodeLengths, Error> {
        let mut sent = [0; 3];
        for (count, bits) in sent.iter_mut().zip(Counts::BITS) {
            *count = self.bits.take(bits)? as u8;
        }
        let [litlen, distance, order] = sent;
        let counts = Counts { litlen, distance, order };
        let mut length_code_sent = [0; 19];
        let length_code_sent = &mut length_code_sent[..counts.order()];
        for length in &mut *length_code_sent {
            *length = self.bits.take(LENGTH_CODE_BITS)? as u8;
        }
        self.tokens.tables(counts, length_code_sent)?;

        let mut code = Decoder::<128>::new();
        code.set(&length_code(length_code_sent)).map_err(Error::Unrepresentable)?;
        let mut lengths = CodeLengths::new(counts);
        while !lengths.complete() {
            let step = read_step(&mut self.bits, &code)?;
            self.tokens.step(step)?;
            lengths.push(step).map_err(Error::Unrepresentable)?;
        }
        Ok(lengths)
    }

    fn tail(&mut self) -> Result<(), Error> {
        loop {
            let piece = self.bits.bytes(MAX_RUN)?;
            if piece.is_empty() {
                return Ok(());
            }
            self.tokens.tail(piece)?;
        }
    }
}

fn read_step<R: Read>(bits: &mut BitReader<R>, code: &Decoder<128>) -> Result<Step, Error> {
    bits.refill()?;
    let (symbol, len) = code.find(bits.peek()).ok_or(UNUSED)?;
    bits.consume(len)?;
    let symbol = symbol as u8;
    let extra = bits.take_ready(Step::extra_bits(symbol))? as u8;
    Ok(Step { symbol, extra })
}

/// A bit pattern that the code in force gives no meaning.
const UNUSED: Error = Error::Unrepresentable("a code that is not in use");

/// Passes on the tokens of a compressed block up to its end. This is where nearly all the time goes.
fn symbols<R: Read, W: Write>(
    bits: &mut BitReader<R>,
    tokens: &mut TokenWriter<W>,
    codes: &Codes,
) -> Result<(), Error> {
    loop {
        if bits.ready() < COPY_BITS {
            bits.refill()?;
        }
        let Some((symbol, len)) = codes.litlen.find(bits.peek()) else { return Err(UNUSED) };
        bits.consume(len)?;
        if symbol < END_OF_BLOCK {
            tokens.literal(symbol as u8)?;
        } else if symbol == END_OF_BLOCK {
            return tokens.end_of_block();
        } else {
            copy(bits, tokens, &codes.distance, symbol - END_OF_BLOCK - 1)?;
        }
    }
}

/// Passes on a copy whose length symbol, counted from 257, was just read.
#[inline(always)]
fn copy<R: Read, W: Write>(
    bits: &mut BitReader<R>,
    tokens: &mut TokenWriter<W>,
    distances: &Decoder<512>,
    length_symbol: usize,
) -> Result<(), Error> {
    let Some(range) = LENGTHS.get(length_symbol) else { return Err(UNUSED) };
    let length = range.first - MIN_COPY + bits.take_ready(range.extra_bits.into())?;
    let Some((symbol, len)) = distances.find(bits.peek()) else { return Err(UNUSED) };
    bits.consume(len)?;
    let Some(range) = DISTANCES.get(symbol) else { return Err(UNUSED) };
    let distance = range.first + bits.take_ready(range.extra_bits.into())?;
    if length == 0xff && length_symbol == usize::from(ALMOST_LONGEST) {
        return tokens.longest_as_almost(distance);
    }
    tokens.copy(length as u8, distance)
}
