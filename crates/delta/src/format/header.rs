//! The header of a delta.

use std::io::Read;

use deltaport_oci::Digest;

use super::{MAGIC, MAX_BASES, MAX_SIZE, VERSION, codec};
use crate::error::Error;

/// How the bases and the target were looked at when they were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// As the blobs that they are.
    Raw,
    /// As gzip token streams (see [`token`](crate::token)).
    Token,
}

impl Kind {
    /// The name that people and logs see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Token => "token",
        }
    }

    /// Kind 3 is kept for `plain`: a delta of uncompressed content and a recipe to compress it again.
    fn from_code(code: u8) -> Result<Self, Error> {
        match code {
            1 => Ok(Self::Token),
            2 => Ok(Self::Raw),
            _ => Err(Error::Format("unknown kind; a newer deltaport may have made it")),
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Token => 1,
            Self::Raw => 2,
        }
    }
}

/// A blob as a delta names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blob {
    /// The hash of the blob's bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
}

impl Blob {
    fn read(source: &mut impl Read) -> Result<Self, Error> {
        Ok(Self { digest: codec::read_digest(source)?, size: codec::read_size(source)? })
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        codec::write_digest(bytes, &self.digest);
        codec::write_size(bytes, self.size);
    }
}

/// What a delta says about itself in front of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// How bases and target were compared.
    pub kind: Kind,
    /// The blobs that the delta needs, in the order in which [`apply`](crate::apply) wants them; at least one, at most
    /// [`MAX_BASES`].
    pub bases: Vec<Blob>,
    /// The blob that the delta makes.
    pub target: Blob,
    /// How many bytes all bases have together, looked at as `kind` says.
    pub reference_len: u64,
    /// How many bytes the target has, looked at as `kind` says.
    pub stream_len: u64,
    /// How many bytes follow the header.
    pub payload_len: u64,
}

impl Header {
    /// Reads a header and leaves `source` at the first byte of the payload.
    pub(crate) fn read(source: &mut impl Read) -> Result<Self, Error> {
        if codec::read_array(source)? != MAGIC {
            return Err(Error::Format("not a layer delta"));
        }
        if codec::read_u8(source)? != VERSION {
            return Err(Error::Format("unknown version; a newer deltaport may have made it"));
        }
        let kind = Kind::from_code(codec::read_u8(source)?)?;
        let header = Self {
            kind,
            bases: read_bases(source)?,
            target: Blob::read(source)?,
            reference_len: codec::read_size(source)?,
            stream_len: codec::read_size(source)?,
            payload_len: codec::read_size(source)?,
        };
        header.check()?;
        Ok(header)
    }

    /// The bytes of this header.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.push(self.kind.code());
        // At most MAX_BASES, which `create` has checked.
        bytes.push(self.bases.len() as u8);
        for base in &self.bases {
            base.write(&mut bytes);
        }
        self.target.write(&mut bytes);
        codec::write_size(&mut bytes, self.reference_len);
        codec::write_size(&mut bytes, self.stream_len);
        codec::write_size(&mut bytes, self.payload_len);
        bytes
    }

    /// A raw delta compares the blobs themselves, so it has no lengths of its own to choose.
    fn check(&self) -> Result<(), Error> {
        let bases: u64 = self.bases.iter().map(|base| base.size).sum();
        let raw = self.reference_len == bases && self.stream_len == self.target.size;
        if self.kind == Kind::Raw && !raw {
            return Err(Error::Format("the lengths of a raw delta contradict each other"));
        }
        Ok(())
    }
}

fn read_bases(source: &mut impl Read) -> Result<Vec<Blob>, Error> {
    let count = usize::from(codec::read_u8(source)?);
    if count == 0 || count > MAX_BASES {
        return Err(Error::Format("no base, or too many"));
    }
    (0..count).map(|_| Blob::read(source)).collect()
}

/// Reads what a delta says about itself, and nothing behind that.
///
/// Fails with [`Error::Format`] when it is not a delta that this version can apply. A header that is read proves
/// nothing yet: only [`apply`](crate::apply) compares it with the bytes.
pub fn inspect(mut delta: impl Read) -> Result<Header, Error> {
    Header::read(&mut delta)
}

// Sums over all bases must not overflow.
const _: () = assert!(MAX_SIZE.checked_mul(MAX_BASES as u64).is_some());
