//! The sections of a delta: what follows the header.

use std::io::Read;

use super::codec;
use crate::error::Error;

/// How many bytes each section has, in the order in which they follow the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Sections {
    /// Which stretches of the bases are inflated inside their content.
    pub unfold: u64,
    /// Which stretches of the target are compressed inside its content, and how.
    pub fold: u64,
    /// Which stretches of the target are like which stretches of the bases.
    pub matches: u64,
    /// What is known of executables.
    pub executables: u64,
    /// Where the members of the target end, and what is in none.
    pub outline: u64,
    /// The bytes that differ inside matches, and those that nothing matches.
    pub data: u64,
}

/// How large every section but the last may be: they are read into memory.
pub const MAX_TABLE: u64 = 16 << 20;

impl Sections {
    /// The name and the size in bytes of each section.
    pub fn by_name(&self) -> [(&'static str, u64); 6] {
        [
            ("unfold", self.unfold),
            ("fold", self.fold),
            ("matches", self.matches),
            ("executables", self.executables),
            ("outline", self.outline),
            ("data", self.data),
        ]
    }

    pub(super) fn read(source: &mut impl Read) -> Result<Self, Error> {
        let mut table = || match codec::read_size(source)? {
            size if size > MAX_TABLE => Err(Error::Limit { what: "a table of the delta", limit: MAX_TABLE }),
            size => Ok(size),
        };
        let (unfold, fold, matches, executables, outline) =
            (table()?, table()?, table()?, table()?, table()?);
        Ok(Self { unfold, fold, matches, executables, outline, data: codec::read_size(source)? })
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        for (_, size) in self.by_name() {
            codec::write_size(bytes, size);
        }
    }
}
