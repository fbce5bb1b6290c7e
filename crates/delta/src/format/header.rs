//! The header of a delta.

use std::io::Read;

use deltaport_oci::Digest;

use super::{MAGIC, MAX_BASES, MAX_SIZE, Sections, VERSION, codec};
use crate::error::Error;
use crate::recipe::Recipe;

/// How the bases and the target were looked at when they were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// As their uncompressed content; a [recipe](Header::recipe) says how the target was compressed.
    Plain,
    /// As gzip token streams (see [`token`](crate::token)).
    Token,
    /// As the blobs that they are.
    Raw,
}

impl Kind {
    /// The name that people and logs see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Token => "token",
            Self::Raw => "raw",
        }
    }

    fn from_code(code: u8) -> Result<Self, Error> {
        match code {
            1 => Ok(Self::Token),
            2 => Ok(Self::Raw),
            3 => Ok(Self::Plain),
            _ => Err(Error::Format("unknown kind; a newer deltaport may have made it")),
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Token => 1,
            Self::Raw => 2,
            Self::Plain => 3,
        }
    }
}

/// How a base is opened to get at what was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// Not at all.
    AsIs,
    /// Gzip: inflated.
    Gzip,
    /// Zstd: decompressed.
    Zstd,
    /// Gzip: as its token stream.
    Tokens,
    /// Gzip: inflated, and with an outline of its members.
    GzipMembers,
    /// Zstd: decompressed, and with an outline of its frames.
    ZstdFrames,
}

impl Form {
    /// The name that people and logs see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsIs => "as is",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Tokens => "tokens",
            Self::GzipMembers => "gzip members",
            Self::ZstdFrames => "zstd frames",
        }
    }

    fn from_code(code: u8) -> Result<Self, Error> {
        match code {
            0 => Ok(Self::AsIs),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Zstd),
            3 => Ok(Self::Tokens),
            4 => Ok(Self::GzipMembers),
            5 => Ok(Self::ZstdFrames),
            _ => Err(Error::Format("unknown form of a base; a newer deltaport may have made it")),
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::AsIs => 0,
            Self::Gzip => 1,
            Self::Zstd => 2,
            Self::Tokens => 3,
            Self::GzipMembers => 4,
            Self::ZstdFrames => 5,
        }
    }

    /// Whether a delta of this kind may have a base of this form.
    fn is_of(self, kind: Kind) -> bool {
        match kind {
            Kind::Plain => self != Self::Tokens,
            Kind::Token => self == Self::Tokens,
            Kind::Raw => self == Self::AsIs,
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

/// A blob that a delta starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Base {
    /// The blob.
    pub blob: Blob,
    /// How it is opened.
    pub form: Form,
}

/// What a delta says about itself in front of its sections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// How bases and target were compared.
    pub kind: Kind,
    /// The blobs that the delta needs, in the order in which [`apply`](crate::apply) wants them; at least one, at most
    /// [`MAX_BASES`].
    pub bases: Vec<Base>,
    /// The blob that the delta makes.
    pub target: Blob,
    /// How many bytes all bases have together, opened and unfolded. So much scratch space is needed.
    pub old_len: u64,
    /// How many bytes the target has, opened and unfolded.
    pub new_len: u64,
    /// How the target was compressed; of a `plain` delta only.
    pub recipe: Option<Recipe>,
    /// What follows the header.
    pub sections: Sections,
}

impl Header {
    /// Reads a header and leaves `source` at the first byte behind it.
    pub(crate) fn read(source: &mut impl Read) -> Result<Self, Error> {
        if codec::read_array(source)? != MAGIC {
            return Err(Error::Format("not a layer delta"));
        }
        if codec::read_u8(source)? != VERSION {
            return Err(Error::Format("unknown version; another deltaport may have made it"));
        }
        let kind = Kind::from_code(codec::read_u8(source)?)?;
        let header = Self {
            kind,
            bases: read_bases(source, kind)?,
            target: Blob::read(source)?,
            old_len: codec::read_size(source)?,
            new_len: codec::read_size(source)?,
            recipe: if kind == Kind::Plain { Some(Recipe::read(source)?) } else { None },
            sections: Sections::read(source)?,
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
            base.blob.write(&mut bytes);
            bytes.push(base.form.code());
        }
        self.target.write(&mut bytes);
        codec::write_size(&mut bytes, self.old_len);
        codec::write_size(&mut bytes, self.new_len);
        if let Some(recipe) = &self.recipe {
            recipe.write(&mut bytes);
        }
        self.sections.write(&mut bytes);
        bytes
    }

    /// A raw delta compares the blobs themselves, so it has no lengths of its own to choose. Only what has many members has
    /// an outline.
    fn check(&self) -> Result<(), Error> {
        let bases: u64 = self.bases.iter().map(|base| base.blob.size).sum();
        let raw = self.old_len == bases && self.new_len == self.target.size;
        if self.kind == Kind::Raw && !raw {
            return Err(Error::Format("the lengths of a raw delta contradict each other"));
        }
        if self.sections.outline > 0 && !self.recipe.as_ref().is_some_and(Recipe::has_outline) {
            return Err(Error::Format("an outline of a blob that has none"));
        }
        Ok(())
    }
}

fn read_bases(source: &mut impl Read, kind: Kind) -> Result<Vec<Base>, Error> {
    let count = usize::from(codec::read_u8(source)?);
    if count == 0 || count > MAX_BASES {
        return Err(Error::Format("no base, or too many"));
    }
    (0..count)
        .map(|_| {
            let blob = Blob::read(source)?;
            let form = Form::from_code(codec::read_u8(source)?)?;
            if !form.is_of(kind) {
                return Err(Error::Format("a base of a form that its kind does not have"));
            }
            Ok(Base { blob, form })
        })
        .collect()
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
