//! The sections of a delta that are read whole before its content is made.

use std::io::Read;
use std::sync::Arc;

use crate::code::{self, Effort, Unchanged};
use crate::error::Error;
use crate::exec::{Model, read_models, write_models};
use crate::format::{Header, MAX_TABLE, Sections, codec};
use crate::matching::Match;
use crate::unfold::{Fold, Packed, read_folds, read_packed, write_folds, write_packed};

/// What a delta says about bases and target, beside bytes.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// What is inflated in the content of each base.
    pub(crate) unfold: Vec<Vec<Packed>>,
    /// What is compressed in the content of the target.
    pub(crate) folds: Vec<Fold>,
    /// Where the target is like the bases.
    pub(crate) matches: Arc<[Match]>,
    /// How addresses moved in executables.
    pub(crate) models: Vec<Model>,
    /// The section that makes the outline of the target of those of the bases.
    pub(crate) outline: Vec<u8>,
}

impl Tables {
    /// Reads the sections behind a header, up to the data.
    pub(crate) fn read(header: &Header, delta: &mut impl Read) -> Result<Self, Error> {
        let Sections { unfold, fold, matches, executables, outline, .. } = header.sections;
        // Each table is done with before the next is in memory.
        let unfold = match &expand(&section(delta, unfold)?)?[..] {
            [] => vec![Vec::new(); header.bases.len()],
            table => whole(table, |list| read_packed(list, header.bases.len()))?,
        };
        let folds = match &expand(&section(delta, fold)?)?[..] {
            [] => Vec::new(),
            table => whole(table, |list| read_folds(list))?,
        };
        let matches = code::decode_matches(&section(delta, matches)?, header.old_len, header.new_len)?;
        let models = match &expand(&section(delta, executables)?)?[..] {
            [] => Vec::new(),
            table => whole(table, |list| read_models(list, &matches, header.old_len, header.new_len))?,
        };
        let outline = section(delta, outline)?;
        Ok(Self { unfold, folds, matches: matches.into(), models, outline })
    }

    /// Appends the sections, and says how long they are.
    pub(crate) fn write(&self, old_len: u64, new_len: u64, bytes: &mut Vec<u8>) -> Result<Sections, Error> {
        let mut sections = Sections::default();
        let mut table = Vec::new();
        if !self.folds.is_empty() {
            self.unfold.iter().for_each(|list| write_packed(list, &mut table));
            sections.unfold = squeeze(&table, bytes)?;
            table.clear();
            write_folds(&self.folds, &mut table);
            sections.fold = squeeze(&table, bytes)?;
        }
        let before = bytes.len();
        code::encode_matches(&self.matches, old_len, new_len, bytes)?;
        sections.matches = (bytes.len() - before) as u64;
        if sections.matches > MAX_TABLE {
            return Err(Error::Limit { what: "a table of the delta", limit: MAX_TABLE });
        }
        if !self.models.is_empty() {
            table.clear();
            write_models(&self.models, &self.matches, &mut table);
            sections.executables = squeeze(&table, bytes)?;
        }
        sections.outline = self.outline.len() as u64;
        bytes.extend_from_slice(&self.outline);
        Ok(sections)
    }
}

/// Reads a table and lets nothing follow it.
fn whole<T>(mut bytes: &[u8], read: impl FnOnce(&mut &[u8]) -> Result<T, Error>) -> Result<T, Error> {
    let table = read(&mut bytes)?;
    if bytes.is_empty() { Ok(table) } else { Err(Error::Format("a table that goes on behind its end")) }
}

/// Reads a section, which is no longer than [`MAX_TABLE`].
fn section(delta: &mut impl Read, len: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    delta.take(len).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < len {
        return Err(Error::Format("it ends inside a section"));
    }
    Ok(bytes)
}

/// Appends a table as a section, with the entropy stage of new content, and says how long that is.
fn squeeze(table: &[u8], bytes: &mut Vec<u8>) -> Result<u64, Error> {
    let before = bytes.len();
    codec::write_varint(bytes, table.len() as u64);
    code::encode_content(&[], nothing(), table, Effort::Best, bytes)?;
    Ok((bytes.len() - before) as u64)
}

/// The table of a section that [`squeeze`] has made; of an empty section, an empty one.
fn expand(mut section: &[u8]) -> Result<Vec<u8>, Error> {
    if section.is_empty() {
        return Ok(Vec::new());
    }
    let len = codec::read_varint(&mut section)?;
    if len > MAX_TABLE {
        return Err(Error::Limit { what: "a table of the delta", limit: MAX_TABLE });
    }
    let mut table = Vec::new();
    code::Decoder::new([], section, nothing(), len)?.read_to_end(&mut table)?;
    Ok(table)
}

fn nothing() -> Unchanged<&'static [u8]> {
    Unchanged(&[])
}
