//! Blobs of many members that one encoder has written, each on its own: eStargz, zstd:chunked, gzip files one behind the
//! other.

mod detect;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::vec;

use super::blob::Member;
use super::{Deflate, Encode, Zstd};
use crate::error::Error;
use crate::format::codec;
use crate::gzip;
use crate::outline::{Outline, Part};

pub(super) use detect::detect;

/// How all members were written that are not carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Gzip members.
    Gzip {
        /// The header that most have.
        header: Vec<u8>,
        deflate: Deflate,
    },
    /// Zstd frames. The lengths that encoders are told are 0 here.
    Zstd(Zstd),
}

impl Style {
    pub(super) fn read_gzip(source: &mut impl Read) -> Result<Self, Error> {
        Ok(Self::Gzip { header: codec::read_bytes(source)?, deflate: Deflate::read(source)? })
    }

    pub(super) fn read_zstd(source: &mut impl Read) -> Result<Self, Error> {
        match Zstd::read(source)? {
            zstd if zstd == zstd.with_len(0) => Ok(Self::Zstd(zstd)),
            _ => Err(Error::Format("one length for many frames")),
        }
    }

    /// Appends everything but the byte that tells gzip from zstd.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Gzip { header, deflate } => {
                codec::write_bytes(bytes, header);
                deflate.write(bytes);
            }
            Self::Zstd(zstd) => zstd.write(bytes),
        }
    }
}

/// The encoder of a style, used again for each member if that is faster.
struct Reused {
    style: Style,
    encoder: Option<Box<dyn Encode>>,
}

impl Reused {
    fn new(style: Style) -> Self {
        Self { style, encoder: None }
    }

    /// The encoder for a member of `len` bytes of content; `None` when there is no memory for it.
    fn begin(&mut self, len: u64, header: Option<&[u8]>) -> Option<&mut dyn Encode> {
        if !self.encoder.as_mut().is_some_and(|encoder| encoder.restart(len)) {
            self.encoder = None; // its memory goes before that of the next comes
            self.encoder = Some(match &self.style {
                Style::Gzip { header: usual, deflate } => Box::new(Member {
                    header: header.unwrap_or(usual).to_vec(),
                    body: deflate.encoder(1),
                    trailer: gzip::Trailer::default(),
                }),
                Style::Zstd(zstd) => zstd.with_len(len).encoder()?,
            });
        }
        self.encoder()
    }

    /// The encoder that was begun.
    fn encoder(&mut self) -> Option<&mut dyn Encode> {
        match &mut self.encoder {
            Some(encoder) => Some(&mut **encoder),
            None => None,
        }
    }
}

/// Writes a blob by its outline.
///
/// Content that does not fit the outline makes another blob, never a panic.
pub(super) struct Encoder {
    encoder: Reused,
    parts: vec::IntoIter<Part>,
    /// The part that has begun and whose content is not complete.
    current: Option<Current>,
}

struct Current {
    /// How much of its content is still to come.
    left: u64,
    /// Whether that is encoded, or was carried instead.
    is_encoded: bool,
}

impl Encoder {
    /// An encoder; `None` when there is no memory for it.
    pub(super) fn new(style: Style, outline: Outline) -> Option<Self> {
        let mut encoder = Reused::new(style);
        encoder.begin(0, None)?;
        encoder.encoder = None;
        Some(Self { encoder, parts: outline.into_parts().into_iter(), current: None })
    }

    /// Begins parts, and writes those without content, up to one that has some; `false` when there are no more.
    fn advance(&mut self, out: &mut Vec<u8>) -> bool {
        while self.current.is_none() {
            let Some(part) = self.parts.next() else { return false };
            self.begin(part, out);
        }
        true
    }

    fn begin(&mut self, part: Part, out: &mut Vec<u8>) {
        let current = match part {
            Part::Member { len, header } => {
                // Without memory, the blob will be another one.
                _ = self.encoder.begin(len, header.as_deref());
                Current { left: len, is_encoded: true }
            }
            Part::Carried { len, bytes } => {
                out.extend_from_slice(&bytes);
                Current { left: len, is_encoded: false }
            }
            Part::Packed { magic, encoder, content } => {
                pack(magic, encoder, &content, out);
                return;
            }
        };
        self.current = Some(current);
        self.take(&[], out);
    }

    /// Takes content of the part that has begun.
    fn take(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let Some(current) = &mut self.current else { return };
        current.left -= content.len() as u64;
        let ends = current.left == 0;
        if current.is_encoded
            && let Some(encoder) = self.encoder.encoder()
        {
            if !content.is_empty() {
                encoder.write(content, out);
            }
            if ends {
                encoder.finish(out);
            }
        }
        if ends {
            self.current = None;
        }
    }
}

impl Encode for Encoder {
    fn write(&mut self, mut content: &[u8], out: &mut Vec<u8>) {
        while !content.is_empty() {
            if !self.advance(out) {
                // More than all parts have: what is written is longer than the blob.
                out.extend_from_slice(content);
                return;
            }
            let left = self.current.as_ref().map_or(0, |current| current.left);
            let len = content.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (now, later) = content.split_at(len);
            self.take(now, out);
            content = later;
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        // A part with content that does not come is where the blob ends.
        self.advance(out);
    }
}

/// Appends a skippable frame with a zstd frame in it.
fn pack(magic: u8, encoder: Option<Zstd>, content: &[u8], out: &mut Vec<u8>) {
    let mut frame = Vec::new();
    if let Some(mut encoder) = encoder.and_then(Zstd::encoder) {
        encoder.write(content, &mut frame);
        encoder.finish(&mut frame);
    }
    out.extend_from_slice(&(SKIPPABLE | u32::from(magic)).to_le_bytes());
    // A frame that is too long for its length is not the one that was there.
    out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
    out.append(&mut frame);
}

/// The magic number of skippable frames (RFC 8878, section 3.1.2), without its lowest four bits.
const SKIPPABLE: u32 = 0x184d_2a50;
