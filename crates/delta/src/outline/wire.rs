//! How an outline is written.

use std::io::Read;

use super::{MAX_PARTS, Outline, Part};
use crate::error::Error;
use crate::format::{MAX_SIZE, codec};
use crate::recipe::Zstd;

/// What a part is, in the lowest bits of its number; the bits above are how much content it has.
const MEMBER: u64 = 0;
const CARRIED: u64 = 1;
const HEADED: u64 = 2;
const PACKED: u64 = 3;
const KIND_BITS: u32 = 2;

const TOO_MUCH: Error = Error::Limit { what: "the outline of a blob", limit: super::MAX_OUTLINE as u64 };

impl Outline {
    /// Appends the numbers of all parts, and then what they carry: lists of the same kind, so that those of a base and of
    /// its target are alike.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        codec::write_varint(bytes, self.parts().len() as u64);
        for part in self.parts() {
            let (kind, len) = match part {
                Part::Member { len, header: None } => (MEMBER, *len),
                Part::Member { len, header: Some(_) } => (HEADED, *len),
                Part::Carried { len, .. } => (CARRIED, *len),
                Part::Packed { content, .. } => (PACKED, content.len() as u64),
            };
            codec::write_varint(bytes, len << KIND_BITS | kind);
        }
        for part in self.parts() {
            match part {
                Part::Member { header: None, .. } => {}
                Part::Member { header: Some(carried), .. } | Part::Carried { bytes: carried, .. } => {
                    codec::write_varint(bytes, carried.len() as u64);
                    bytes.extend_from_slice(carried);
                }
                Part::Packed { magic, encoder, content } => {
                    bytes.push(*magic);
                    if let Some(encoder) = encoder {
                        encoder.write(bytes);
                    }
                    bytes.extend_from_slice(content);
                }
            }
        }
    }

    /// Reads the outline of a target.
    pub(crate) fn read(source: &mut impl Read) -> Result<Self, Error> {
        let count = codec::read_varint(source)?;
        if count > MAX_PARTS as u64 {
            return Err(Error::Limit { what: "parts of a blob", limit: MAX_PARTS as u64 });
        }
        let numbers = (0..count).map(|_| codec::read_varint(source)).collect::<Result<Vec<_>, _>>()?;
        let mut outline = Self::default();
        for number in numbers {
            let (kind, len) = (number & ((1 << KIND_BITS) - 1), number >> KIND_BITS);
            if len > MAX_SIZE {
                return Err(Error::Limit { what: "a part of a blob", limit: MAX_SIZE });
            }
            let mut carried = || {
                let len = codec::read_varint(source)?;
                read_bytes(source, len, outline.room())
            };
            let part = match kind {
                MEMBER => Part::Member { len, header: None },
                CARRIED => Part::Carried { len, bytes: carried()? },
                HEADED => Part::Member { len, header: Some(carried()?) },
                _ => read_packed(source, len, outline.room())?,
            };
            if !outline.push(part) {
                return Err(TOO_MUCH);
            }
        }
        Ok(outline)
    }
}

fn read_packed(source: &mut impl Read, len: u64, room: usize) -> Result<Part, Error> {
    let magic = codec::read_u8(source)?;
    if magic > 15 {
        return Err(Error::Format("a skippable frame of a kind that there is not"));
    }
    let encoder = Some(Zstd::read(source)?);
    Ok(Part::Packed { magic, encoder, content: read_bytes(source, len, room)? })
}

/// Reads `len` bytes, if there is room for them.
fn read_bytes(source: &mut impl Read, len: u64, room: usize) -> Result<Box<[u8]>, Error> {
    if len > room as u64 {
        return Err(TOO_MUCH);
    }
    let mut bytes = Vec::new();
    source.take(len).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < len {
        return Err(Error::Format("it ends inside an outline"));
    }
    Ok(bytes.into())
}
