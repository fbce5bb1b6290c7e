//! Which stretches are folded, and how that is written.

use std::io::Read;

use super::MAX_MEMBERS;
use crate::error::Error;
use crate::format::{MAX_SIZE, codec};
use crate::recipe::Deflate;

/// A stretch of deflate in content that is not unfolded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Where its first byte is.
    pub(crate) start: u64,
    /// How many bytes it has; at least one.
    pub(crate) len: u64,
    /// How many bytes behind it go away with it. Not written, since bases keep theirs.
    pub(crate) tail: u64,
}

/// A stretch of unfolded content that was deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fold {
    /// Where its first byte is, in the unfolded content.
    pub(crate) start: u64,
    /// How many bytes it has there; at least one.
    pub(crate) len: u64,
    /// What compresses it to the bytes that were there.
    pub(crate) deflate: Deflate,
    /// Whether the usual trailer of a gzip member follows.
    pub(crate) trailer: bool,
}

/// Appends a list whose stretches are in order and do not overlap.
pub(crate) fn write_packed(list: &[Packed], bytes: &mut Vec<u8>) {
    codec::write_varint(bytes, list.len() as u64);
    let mut end = 0;
    for packed in list {
        codec::write_varint(bytes, packed.start - end);
        codec::write_varint(bytes, packed.len);
        end = packed.start + packed.len;
    }
}

/// Reads what [`write_packed`] has written, once for each of so many bases.
pub(crate) fn read_packed(source: &mut impl Read, bases: usize) -> Result<Vec<Vec<Packed>>, Error> {
    let mut left = MAX_MEMBERS as u64;
    (0..bases).map(|_| read_list(source, &mut left)).collect()
}

/// Reads a list, and takes its length off what is left for all.
fn read_list(source: &mut impl Read, left: &mut u64) -> Result<Vec<Packed>, Error> {
    let mut end = 0;
    let count = read_count(source, *left)?;
    *left -= count;
    (0..count)
        .map(|_| {
            let (start, len) = read_stretch(source, &mut end)?;
            Ok(Packed { start, len, tail: 0 })
        })
        .collect()
}

/// Appends a list whose stretches are in order and do not overlap.
pub(crate) fn write_folds(list: &[Fold], bytes: &mut Vec<u8>) {
    codec::write_varint(bytes, list.len() as u64);
    let mut end = 0;
    for fold in list {
        codec::write_varint(bytes, fold.start - end);
        codec::write_varint(bytes, fold.len);
        fold.deflate.write(bytes);
        bytes.push(fold.trailer.into());
        end = fold.start + fold.len;
    }
}

/// Reads what [`write_folds`] has written.
pub(crate) fn read_folds(source: &mut impl Read) -> Result<Vec<Fold>, Error> {
    let mut end = 0;
    (0..read_count(source, MAX_MEMBERS as u64)?)
        .map(|_| {
            let (start, len) = read_stretch(source, &mut end)?;
            let deflate = Deflate::read(source)?;
            let trailer = match codec::read_u8(source)? {
                0 => false,
                1 => true,
                _ => return Err(Error::Format("a trailer that is neither there nor not")),
            };
            Ok(Fold { start, len, deflate, trailer })
        })
        .collect()
}

/// Reads how many stretches there are, when no more than `left` may come.
fn read_count(source: &mut impl Read, left: u64) -> Result<u64, Error> {
    match codec::read_varint(source)? {
        count if count > left => Err(Error::Limit { what: "unfolded members", limit: MAX_MEMBERS as u64 }),
        count => Ok(count),
    }
}

/// Reads the distance from the last stretch, and the length; `end` is where the last stretch ended.
fn read_stretch(source: &mut impl Read, end: &mut u64) -> Result<(u64, u64), Error> {
    let (gap, len) = (codec::read_varint(source)?, codec::read_varint(source)?);
    if len == 0 {
        return Err(Error::Format("an unfolded member without a byte"));
    }
    // Neither sum can overflow, since each part is below the limit.
    if gap > MAX_SIZE || len > MAX_SIZE || *end + gap + len > MAX_SIZE {
        return Err(Error::Limit { what: "an unfolded member", limit: MAX_SIZE });
    }
    let start = *end + gap;
    *end = start + len;
    Ok((start, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back() {
        let packed = [(0, 5), (5, 1), (1000, 1 << 33)].map(|(start, len)| Packed { start, len, tail: 0 });
        let mut bytes = Vec::new();
        write_packed(&packed, &mut bytes);
        assert_eq!(read_packed(&mut &bytes[..], 1).unwrap(), [&packed[..]]);
        for end in 0..bytes.len() {
            assert!(matches!(read_packed(&mut &bytes[..end], 1), Err(Error::Format(_))), "{end}");
        }
    }

    #[test]
    fn absurd_lists_are_refused() {
        let mut bytes = Vec::new();
        codec::write_varint(&mut bytes, MAX_MEMBERS as u64 + 1);
        assert!(matches!(read_packed(&mut &bytes[..], 1), Err(Error::Limit { .. })));
        bytes.clear();
        for number in [2, u64::MAX, 1] {
            codec::write_varint(&mut bytes, number);
        }
        assert!(matches!(read_packed(&mut &bytes[..], 1), Err(Error::Limit { .. })));
    }
}
