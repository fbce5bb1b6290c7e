//! The primitive fields of the container.

use std::io::Read;

use deltaport_oci::{Algorithm, Digest};

use super::MAX_SIZE;
use crate::error::Error;

/// How `sha256` and `sha512` are written.
const ALGORITHMS: [(u8, Algorithm); 2] = [(1, Algorithm::Sha256), (2, Algorithm::Sha512)];

/// Reads `N` bytes; an early end is a damaged delta, not a failure of the reader.
pub(super) fn read_array<const N: usize>(source: &mut impl Read) -> Result<[u8; N], Error> {
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
pub(super) fn read_u8(source: &mut impl Read) -> Result<u8, Error> {
    let [byte] = read_array(source)?;
    Ok(byte)
}

/// Reads a size of at most [`MAX_SIZE`].
pub(super) fn read_size(source: &mut impl Read) -> Result<u64, Error> {
    let size = u64::from_be_bytes(read_array(source)?);
    if size > MAX_SIZE {
        return Err(Error::Limit { what: "a size in the header", limit: MAX_SIZE });
    }
    Ok(size)
}

/// Reads a digest: its algorithm, then as many bytes as that has.
pub(super) fn read_digest(source: &mut impl Read) -> Result<Digest, Error> {
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
pub(super) fn write_size(bytes: &mut Vec<u8>, size: u64) {
    bytes.extend_from_slice(&size.to_be_bytes());
}

/// Writes a digest.
pub(super) fn write_digest(bytes: &mut Vec<u8>, digest: &Digest) {
    bytes.push(match digest.algorithm() {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    });
    bytes.extend_from_slice(digest.hash());
}
