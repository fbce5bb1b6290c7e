//! The frame around deflate: the header and trailer of a gzip member (RFC 1952, section 2.3).

use crate::recipe::Hint;

/// How a member begins, method included.
pub(crate) const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// How many bytes follow the deflate stream: CRC32 and ISIZE.
pub(crate) const TRAILER: usize = 8;
/// The length of a header without optional fields.
const FIXED: usize = 10;

const FLAGS: usize = 3;
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;

/// The length of the header at the start of `bytes`; `None` when there is no whole one.
pub(crate) fn header_len(bytes: &[u8]) -> Option<usize> {
    let flags = *bytes.get(FLAGS)?;
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let mut len = FIXED;
    if flags & FEXTRA != 0 {
        len += 2 + usize::from(u16::from_le_bytes([*bytes.get(len)?, *bytes.get(len + 1)?]));
    }
    for text in [FNAME, FCOMMENT] {
        if flags & text != 0 {
            len += bytes.get(len..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    if flags & FHCRC != 0 {
        len += 2;
    }
    (len <= bytes.len()).then_some(len)
}

/// The trailer of a member, made while its content passes.
#[derive(Default)]
pub(crate) struct Trailer(flate2::Crc);

impl Trailer {
    pub(crate) fn update(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    pub(crate) fn finish(self) -> [u8; TRAILER] {
        let mut trailer = [0; TRAILER];
        trailer[..4].copy_from_slice(&self.0.sum().to_le_bytes());
        trailer[4..].copy_from_slice(&self.0.amount().to_le_bytes());
        trailer
    }
}

/// The trailer of a member with this content.
pub(crate) fn trailer(content: &[u8]) -> [u8; TRAILER] {
    let mut trailer = Trailer::default();
    trailer.update(content);
    trailer.finish()
}

/// What the header at the start of `bytes` says about the encoder.
pub(crate) fn hint(bytes: &[u8]) -> Option<Hint> {
    let [_, _, _, _, a, b, c, d, xfl, os, ..] = *bytes else { return None };
    Some(Hint { xfl, mtime: u32::from_le_bytes([a, b, c, d]), os })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_measured() {
        let fixed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3];
        assert_eq!(header_len(&fixed), Some(10));
        let mut full = fixed;
        full[FLAGS] = FHCRC | FEXTRA | FNAME | FCOMMENT;
        let full = [&full[..], b"\x03\0abc", b"name\0", b"\0", b"cc"].concat();
        assert_eq!(header_len(&full), Some(full.len()));
        for end in 0..full.len() {
            assert_eq!(header_len(&full[..end]), None, "{end}");
        }
        assert_eq!(header_len(b"\x1f\x8b\x07\0\0\0\0\0\0\0"), None);
    }
}
