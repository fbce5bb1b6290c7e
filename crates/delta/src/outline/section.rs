//! The outline of a target as a section of a delta: what makes it of the outlines of the bases.

use std::io::Read as _;

use super::{MAX_OUTLINE, Outline};
use crate::code::{self, Effort, Unchanged};
use crate::error::Error;
use crate::format::{MAX_TABLE, codec};
use crate::matching::{self, Options, Profile, Segment};

/// The outlines of all bases, written one behind the other: the old content of this section.
#[derive(Debug, Default)]
pub(crate) struct Outlines(Vec<u8>);

impl Outlines {
    /// Appends the outline of a base, unless all would be longer than [`MAX_OUTLINE`] with it.
    pub(crate) fn push(&mut self, outline: &Outline) {
        let before = self.0.len();
        if !outline.parts().is_empty() {
            outline.write(&mut self.0);
        }
        if self.0.len() > MAX_OUTLINE {
            self.0.truncate(before);
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The section that makes `new` of `old`, the written outlines of the bases.
///
/// Fails with [`Error::Unrepresentable`] when it is too long.
pub(crate) fn write(mut old: &[u8], new: &Outline) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut table = Vec::new();
    new.write(&mut table);
    if table.len() > MAX_OUTLINE {
        return Err(Error::Unrepresentable("it has too much beside its content"));
    }
    let mut table = &table[..];
    let (old_len, new_len) = (old.len() as u64, table.len() as u64);
    let layouts = [old_len, new_len].map(Segment::whole);
    let options = Options { profile: Profile::Best, memory: 8 * MAX_TABLE, threads: 1 };
    let matches = matching::find(&mut old, &layouts[0], &mut table, &layouts[1], options)?;
    let mut list = Vec::new();
    code::encode_matches(&matches, old_len, new_len, &mut list)?;
    codec::write_varint(&mut bytes, new_len);
    codec::write_varint(&mut bytes, list.len() as u64);
    bytes.extend_from_slice(&list);
    code::encode_content(&matches, Unchanged(old), table, Effort::Best, &mut bytes)?;
    Ok(bytes)
}

/// Makes the outline of the target of those of the bases; of an empty section, an empty one.
pub(crate) fn read(old: &[u8], mut section: &[u8]) -> Result<Outline, Error> {
    if section.is_empty() {
        return Ok(Outline::default());
    }
    let (len, list_len) = (codec::read_varint(&mut section)?, codec::read_varint(&mut section)?);
    if len > MAX_OUTLINE as u64 {
        return Err(TOO_LARGE);
    }
    let list = usize::try_from(list_len).ok().and_then(|len| section.split_off(..len));
    let list = list.ok_or(Error::Format("it ends inside an outline"))?;
    let matches = code::decode_matches(list, old.len() as u64, len)?;
    let mut table = Vec::new();
    code::Decoder::new(&matches[..], section, Unchanged(old), len)?.read_to_end(&mut table)?;
    let mut rest = &table[..];
    let outline = Outline::read(&mut rest)?;
    if rest.is_empty() { Ok(outline) } else { Err(Error::Format("an outline that goes on behind its end")) }
}

const TOO_LARGE: Error = Error::Limit { what: "the outline of a blob", limit: MAX_TABLE };
