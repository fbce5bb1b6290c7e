//! Opening blobs of many members: their content, and their outline.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;

use flate2::bufread::GzDecoder;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Outline, Part};
use crate::error::Error;
use crate::open::{MAX_WINDOW_LOG, copy_opened};
use crate::stream::BUFFER;

/// What was found in a blob beside content.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) outline: Outline,
    /// Where each part begins and ends in the blob.
    pub(crate) places: Vec<Range<u64>>,
    /// Whether it was too much.
    overflown: bool,
}

impl Opened {
    fn push(&mut self, part: Part, place: Range<u64>) {
        if self.overflown {
            return;
        }
        if self.outline.push(part) {
            self.places.push(place);
        } else {
            *self = Self { overflown: true, ..Self::default() };
        }
    }
}

const NOT_COMPRESSED: Error = Error::Unrepresentable("it is not compressed as it seems to be");

/// Writes the content of a gzip blob.
///
/// Fails with [`Error::Unrepresentable`] when it is none, and with the errors of its ends.
pub(crate) fn open_gzip(blob: impl Read, out: &mut impl Write) -> Result<Opened, Error> {
    let mut source = Counting { inner: BufReader::with_capacity(BUFFER, blob), taken: 0 };
    let mut opened = Opened::default();
    loop {
        let start = source.taken;
        let len = copy_opened(GzDecoder::new(&mut source), out)?;
        opened.push(Part::Member { len, header: None }, start..source.taken);
        if source.fill_buf()?.is_empty() {
            return Ok(opened);
        }
    }
}

/// A reader that counts.
struct Counting<R> {
    inner: R,
    taken: u64,
}

impl<R: BufRead> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.taken += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.taken += amount as u64;
    }
}

/// The magic number of skippable frames (RFC 8878, section 3.1.2), without its lowest four bits.
const SKIPPABLE: u32 = 0x184d_2a50;
/// How long the header of a skippable frame is.
const SKIPPABLE_HEADER: usize = 8;

/// Writes the content of a zstd blob.
///
/// Fails with [`Error::Unrepresentable`] when it is none, and with the errors of its ends.
pub(crate) fn open_zstd(blob: impl Read, out: &mut impl Write) -> Result<Opened, Error> {
    let mut source = Counting { inner: BufReader::with_capacity(BUFFER, blob), taken: 0 };
    let mut context = decoder()?;
    let mut opened = Opened::default();
    let mut magic = Vec::new();
    loop {
        let start = source.taken;
        magic.clear();
        source.by_ref().take(4).read_to_end(&mut magic)?;
        let part = match <[u8; 4]>::try_from(&magic[..]).map(u32::from_le_bytes) {
            Err(_) if magic.is_empty() => return Ok(opened),
            Err(_) => return Err(NOT_COMPRESSED),
            Ok(number) if number & !15 == SKIPPABLE => skippable(&mut source, number, &opened.outline)?,
            Ok(_) => Some(Part::Member { len: frame(&mut context, &magic, &mut source, out)?, header: None }),
        };
        match part {
            Some(part) => opened.push(part, start..source.taken),
            None => opened = Opened { overflown: true, ..Opened::default() },
        }
    }
}

fn decoder() -> Result<DCtx<'static>, Error> {
    let mut context = DCtx::try_create().ok_or(Error::Io(io::ErrorKind::OutOfMemory.into()))?;
    let set = context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG));
    set.map_err(|_| Error::Io(io::ErrorKind::Unsupported.into()))?;
    Ok(context)
}

/// Decompresses a frame, of which the first bytes were read already, and says how long its content is.
fn frame(
    context: &mut DCtx<'static>,
    magic: &[u8],
    source: &mut impl BufRead,
    out: &mut impl Write,
) -> Result<u64, Error> {
    let (mut buffer, mut made) = (Vec::with_capacity(BUFFER), 0);
    let mut step = |input: &[u8]| {
        let mut input = InBuffer::around(input);
        buffer.clear();
        let left = context.decompress_stream(&mut OutBuffer::around(&mut buffer), &mut input);
        let left = left.map_err(|_| NOT_COMPRESSED)?;
        out.write_all(&buffer)?;
        made += buffer.len() as u64;
        Ok::<_, Error>((left, input.pos(), buffer.len()))
    };
    step(magic)?;
    loop {
        let input = source.fill_buf()?;
        let is_end = input.is_empty();
        let (left, taken, written) = step(input)?;
        source.consume(taken);
        if left == 0 {
            return Ok(made);
        }
        if is_end && written == 0 {
            return Err(NOT_COMPRESSED);
        }
    }
}

/// Reads the rest of a skippable frame; `None` when it is too long for the outline.
fn skippable(source: &mut impl BufRead, magic: u32, outline: &Outline) -> Result<Option<Part>, Error> {
    let mut bytes = magic.to_le_bytes().to_vec();
    source.take(4).read_to_end(&mut bytes)?;
    let header: [u8; SKIPPABLE_HEADER] = bytes[..].try_into().map_err(|_| NOT_COMPRESSED)?;
    let [.., a, b, c, d] = header;
    let len = u64::from(u32::from_le_bytes([a, b, c, d]));
    let mut frame = source.take(len);
    if len > outline.room() as u64 {
        io::copy(&mut frame, &mut io::sink())?;
    } else {
        frame.read_to_end(&mut bytes)?;
    }
    if frame.limit() > 0 {
        return Err(NOT_COMPRESSED);
    }
    if len > outline.room() as u64 {
        return Ok(None);
    }
    let content = unpack(&bytes[SKIPPABLE_HEADER..], outline);
    Ok(Some(match content {
        Some(content) => Part::Packed { magic: (magic & 15) as u8, encoder: None, content },
        None => Part::Carried { len: 0, bytes: bytes.into() },
    }))
}

/// The content of a zstd frame; `None` when the bytes are anything else, or it is too much for the outline.
fn unpack(bytes: &[u8], outline: &Outline) -> Option<Box<[u8]>> {
    let (magic, mut rest) = bytes.split_at_checked(4)?;
    if magic != crate::open::ZSTD || outline.packed == super::MAX_PACKED {
        return None;
    }
    let mut content = crate::stream::Limited::new(Vec::new(), outline.room() as u64);
    frame(&mut decoder().ok()?, magic, &mut rest, &mut content).ok()?;
    let (content, _) = content.finish();
    (rest.is_empty() && !content.is_empty()).then(|| content.into())
}
