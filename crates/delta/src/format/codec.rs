//! The primitive fields of the container.

use std::io::Read;

use deltaport_oci::{Algorithm, Digest};

use super::MAX_SIZE;
use crate::error::Error;

/// How `sha256` and `sha512` are written.
const ALGORITHMS: [(u8, Algorithm); 2] = [(1, Algorithm::Sha256), (2, Algorithm::Sha512)];

/// Reads `N` bytes; an early end is a damaged delta, not a failure of the reader.
pub(crate) fn read_array<const N: usize>(source: &mut impl Read) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    match source.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(Error::Format("it ends inside its header"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads one byte.
pub(crate) fn read_u8(source: &mut impl Read) -> Result<u8, Error> {
    let [byte] = read_array(source)?;
    Ok(byte)
}

/// Reads a size of at most [`MAX_SIZE`].
pub(crate) fn read_size(source: &mut impl Read) -> Result<u64, Error> {
    let size = u64::from_be_bytes(read_array(source)?);
    if size > MAX_SIZE {
        return Err(Error::Limit { what: "a size in the header", limit: MAX_SIZE });
    }
    Ok(size)
}

/// Reads a digest: its algorithm, then as many bytes as that has.
pub(crate) fn read_digest(source: &mut impl Read) -> Result<Digest, Error> {
    let code = read_u8(source)?;
    let Some((_, algorithm)) = ALGORITHMS.into_iter().find(|(known, _)| *known == code) else {
        return Err(Error::Format("unknown digest algorithm"));
    };
    let digest = match algorithm {
        Algorithm::Sha256 => Digest::from_hash(algorithm, &read_array::<32>(source)?),
        Algorithm::Sha512 => Digest::from_hash(algorithm, &read_array::<64>(source)?),
    };
    digest.map_err(|_| Error::Format("a digest of the wrong length"))
}

/// Writes a size.
pub(crate) fn write_size(bytes: &mut Vec<u8>, size: u64) {
    bytes.extend_from_slice(&size.to_be_bytes());
}

/// Writes a digest.
pub(crate) fn write_digest(bytes: &mut Vec<u8>, digest: &Digest) {
    bytes.push(match digest.algorithm() {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    });
    bytes.extend_from_slice(digest.hash());
}

/// Reads a number of at most 64 bits: seven bits a byte, the lowest first, the highest bit set in all but the last.
pub(crate) fn read_varint(source: &mut impl Read) -> Result<u64, Error> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = read_u8(source)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
            return Err(Error::Format("a number that is too large or too long"));
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Error::Format("a number that is too large or too long"))
}

/// Writes a number.
pub(crate) fn write_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads a length of two bytes, and as many bytes.
pub(crate) fn read_bytes(source: &mut impl Read) -> Result<Vec<u8>, Error> {
    let len = u64::from(u16::from_be_bytes(read_array(source)?));
    let mut bytes = Vec::new();
    source.take(len).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < len {
        return Err(Error::Format("it ends inside its header"));
    }
    Ok(bytes)
}

/// Writes at most 65 535 bytes, with their length in front.
pub(crate) fn write_bytes(bytes: &mut Vec<u8>, written: &[u8]) {
    debug_assert!(written.len() <= usize::from(u16::MAX));
    bytes.extend_from_slice(&(written.len() as u16).to_be_bytes());
    bytes.extend_from_slice(written);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_have_one_spelling() {
        for number in [0, 1, 127, 128, 300, 1 << 35, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, number);
            let mut rest = &bytes[..];
            assert_eq!(read_varint(&mut rest).unwrap(), number);
            assert!(rest.is_empty());
        }
        for wrong in [
            &[0x80, 0][..],
            &[0x80],
            &[],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert!(matches!(read_varint(&mut &wrong[..]), Err(Error::Format(_))), "{wrong:?}");
        }
    }
}
