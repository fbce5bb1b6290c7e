//! What Go programs hold addresses in: tables of functions, types and inlined calls, all of them offsets of four bytes.
//!
//! After `runtime/symtab.go` and `internal/abi` of Go 1.20 and later (BSD licence). The tables are found by what the
//! runtime itself uses, the record `moduledata`, and a program without one has none.

use std::io;
use std::ops::Range;

use super::elf::{Elf, Kind, Section, u32_at, u64_at};
use super::field::{Base, Field, Form};
use super::rule::Window;
use crate::content::Content;

/// How many functions, and how many names, are kept.
const MAX_ENTRIES: usize = 1 << 19;
/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// The first bytes of the table of functions.
const MAGIC: u32 = 0xffff_fff1;
/// The length of the table's header, and of its part of each function that has a fixed length.
const HEADER: usize = 72;
const FUNCTION: usize = 44;
/// The words of `moduledata` that are looked at, and how many there are up to the last.
const TEXT: usize = 22;
const TYPES: usize = 37;
const FUNCTION_DATA: usize = 40;
const WORDS: usize = 41;
/// What the places of types are multiples of, mostly.
const TYPE: u32 = 32;

/// Where the tables of a Go program are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    text: u64,
    names: Range<u64>,
    units: Range<u64>,
    files: Range<u64>,
    values: Range<u64>,
    functions: Range<u64>,
    types: Range<u64>,
    /// The list of types.
    links: Range<u64>,
    function_data: Range<u64>,
    /// Where functions begin, from the first byte of the code; sorted.
    entries: Vec<u32>,
    /// Where functions are described, from the beginning of `functions`; sorted.
    described: Vec<u32>,
    /// Where names of functions begin; sorted.
    named: Vec<u32>,
}

/// Whether a section is the table of functions.
pub(super) fn is_table(section: &Section) -> bool {
    section.name == b".gopclntab" || section.name == b".data.rel.ro.gop"
}

/// A section and the file that it is in.
struct Source<'a, C> {
    content: &'a mut C,
    file: u64,
}

impl<C: Content> Source<'_, C> {
    /// The bytes of a section from `at` on, or `None` where it has not so many.
    fn read(&mut self, section: &Section, at: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
        if at.checked_add(len as u64).is_none_or(|end| end > section.in_file().end - section.offset) {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        self.content.read_at(self.file + section.offset + at, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Where the last type is that is listed, from the first one.
    fn last_type(&mut self, section: &Section) -> io::Result<u64> {
        let mut last = 0;
        for at in (0..section.len).step_by(CHUNK) {
            let len = CHUNK.min((section.len - at) as usize);
            let Some(bytes) = self.read(section, at, len)? else { break };
            let types = (0..len).step_by(4).filter_map(|at| u32_at(&bytes, at));
            last = last.max(types.max().unwrap_or(0));
        }
        Ok(last.into())
    }

    /// The record of the module whose table of functions is at `table`, with names at `names`.
    fn module(&mut self, elf: &Elf, table: u64, names: u64) -> io::Result<Option<Vec<u64>>> {
        let holds = |section: &&Section| section.writable && section.mapped && section.kind == Kind::Bytes;
        for section in elf.sections.iter().filter(holds) {
            let mut at = section.address.next_multiple_of(8) - section.address;
            while at + 8 * WORDS as u64 <= section.len {
                let len = CHUNK.min((section.len - at) as usize);
                let Some(bytes) = self.read(section, at, len)? else { break };
                let found = (0..len.saturating_sub(15))
                    .step_by(8)
                    .find(|at| u64_at(&bytes, *at) == Some(table) && u64_at(&bytes, at + 8) == Some(names));
                if let Some(found) = found {
                    let words = self.read(section, at + found as u64, 8 * WORDS)?;
                    return Ok(words.map(|bytes| (0..WORDS).filter_map(|n| u64_at(&bytes, 8 * n)).collect()));
                }
                at += (CHUNK - 16) as u64;
            }
        }
        Ok(None)
    }
}

impl Tables {
    /// Finds the tables of the program that begins at `file` of the content.
    pub(super) fn find(content: &mut impl Content, file: u64, elf: &Elf) -> io::Result<Option<Self>> {
        let Some(section) = elf.sections.iter().find(|section| is_table(section)) else { return Ok(None) };
        let mut source = Source { content, file };
        let Some(header) = source.read(section, 0, HEADER)? else { return Ok(None) };
        let word = |at: usize| u64_at(&header, 8 * at).unwrap_or_default();
        if u32_at(&header, 0) != Some(MAGIC) || (word(4)..=word(8)).is_empty() || word(8) > section.len {
            return Ok(None);
        }
        let place = |at: usize| section.address.wrapping_add(word(at));
        let Some(module) = source.module(elf, section.address, place(4))? else { return Ok(None) };
        let data = module[FUNCTION_DATA];
        let within = elf.sections.iter().find(|section| section.in_memory().contains(&data));
        let mut tables = Self {
            text: module[TEXT],
            names: place(4)..place(5),
            units: place(5)..place(6),
            files: place(6)..place(7),
            values: place(7)..place(8),
            functions: place(8)..section.in_memory().end,
            types: module[TYPES]..module[TYPES + 1],
            function_data: data..within.map_or(data, |section| section.in_memory().end),
            ..Self::default()
        };
        let sorted = [word(4), word(5), word(6), word(7), word(8)].is_sorted();
        let count = usize::try_from(word(1)).unwrap_or(usize::MAX);
        if !sorted || count > MAX_ENTRIES {
            return Ok(None);
        }
        let Some(list) = source.read(section, word(8), 8 * count)? else { return Ok(None) };
        tables.entries = (0..count).filter_map(|n| u32_at(&list, 8 * n)).collect();
        tables.described = (0..count).filter_map(|n| u32_at(&list, 8 * n + 4)).collect();
        tables.entries.sort_unstable();
        tables.described.sort_unstable();
        if let Some(links) = elf.sections.iter().find(|section| section.name == b".typelink") {
            tables.types.end = tables.types.start.saturating_add(source.last_type(links)?);
            tables.links = links.in_memory();
        }
        let mut at = word(4);
        while at < word(5) {
            let len = CHUNK.min((word(5) - at) as usize);
            let Some(bytes) = source.read(section, at, len)? else { return Ok(None) };
            let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0);
            let left = MAX_ENTRIES - tables.named.len();
            tables.named.extend(ends.map(|(end, _)| (at - word(4)) as u32 + end as u32 + 1).take(left));
            at += len as u64;
        }
        Ok(Some(tables))
    }

    /// Appends the fields of data: pointers, and offsets of functions, types and names.
    pub(super) fn data(&self, window: Window<'_>, address: u64, mut keep: impl FnMut(Field)) {
        let first = (address + window.from as u64).next_multiple_of(4) - address;
        let mut covered = 0;
        for at in (first as usize..window.to).step_by(4) {
            let Some(value) = u32_at(window.bytes, at) else { return };
            let here = address + at as u64;
            let place = (window.at + at as u64) as u32;
            if here.is_multiple_of(8)
                && let Some(target) = u64_at(window.bytes, at)
                && u64::from(value) == target
                && target >= self.text
            {
                keep(Field { at: place, raw: target, form: Form::Word64, target, base: Base::Zero });
                covered = at + 8;
            }
            if value == 0 || at < covered {
                continue;
            }
            let entry = |at: Option<usize>| {
                let value = at.and_then(|at| u32_at(window.bytes, at));
                value.is_some_and(|value| self.entries.binary_search(&value).is_ok())
            };
            let base = if self.function_data.contains(&here) {
                self.named.binary_search(&value).is_ok().then_some(self.names.start)
            } else if entry(Some(at)) && (entry(at.checked_sub(4)) || entry(Some(at + 4))) {
                // Methods have two functions each.
                Some(self.text)
            } else {
                self.is_type_or_name(here, value).then_some(self.types.start)
            };
            let Some(base) = base else { continue };
            keep(offset(place, value, base));
        }
    }

    /// Whether a word is likely to be the place of a type, or of the name of one.
    fn is_type_or_name(&self, here: u64, value: u32) -> bool {
        // Two small numbers of two bytes each are common among types.
        let two = value >> 16 > 0 && value & 0xff00 == 0;
        u64::from(value) <= self.types.end.saturating_sub(self.types.start)
            && (value.is_multiple_of(TYPE) || !two)
            && (self.types.contains(&here) || self.links.contains(&here))
    }

    /// Appends the fields of the table of functions.
    pub(super) fn functions(&self, window: Window<'_>, address: u64, mut keep: impl FnMut(Field)) {
        let (from, to) = (address + window.from as u64, address + window.to as u64);
        let mut add = |here: u64, base: u64, room: Range<u64>| {
            let at = here.wrapping_sub(address) as usize;
            let value = (from..to).contains(&here).then(|| u32_at(window.bytes, at)).flatten();
            if let Some(value) = value.filter(|value| room.contains(&base.wrapping_add(u64::from(*value)))) {
                keep(offset((window.at + at as u64) as u32, value, base));
            }
        };
        let clip = |range: Range<u64>| from.max(range.start)..to.min(range.end);
        for here in clip(self.units.clone()).filter(|here| here.is_multiple_of(4)) {
            add(here, self.files.start, self.files.clone());
        }
        let code = self.text..self.text + u64::from(self.entries.last().copied().unwrap_or(0)) + 1;
        let start = self.functions.start;
        let list = start..start + 8 * self.described.len() as u64;
        let first = clip(list.clone()).start.saturating_sub(start) / 8 * 8 + start;
        for here in (first..clip(list).end).step_by(8) {
            add(here, self.text, code.clone());
            add(here + 4, start, self.functions.clone());
        }
        let origin = from.saturating_sub(start).min(u32::MAX.into()) as u32;
        let first = self.described.partition_point(|place| *place <= origin).saturating_sub(1);
        for (n, place) in self.described.iter().enumerate().skip(first) {
            let here = start + u64::from(*place);
            if here >= to {
                break;
            }
            let end = self.described.get(n + 1).map_or(self.functions.end, |next| start + u64::from(*next));
            let end = end.min(here + 4096);
            add(here, self.text, code.clone());
            add(here + 4, self.names.start, self.names.clone());
            for field in [16, 20, 24] {
                add(here + field, self.values.start, self.values.clone());
            }
            // How many tables of values there are is behind the window for those that began long before it.
            let count = here.checked_sub(address).and_then(|at| u32_at(window.bytes, at as usize + 28));
            let Some(count) = count else { continue };
            let behind = here + FUNCTION as u64 + 4 * u64::from(count.min(1024));
            for field in (here + FUNCTION as u64..behind.min(end)).step_by(4) {
                add(field, self.values.start, self.values.clone());
            }
            for field in (behind..end).step_by(4) {
                add(field, self.function_data.start, self.function_data.clone());
            }
        }
    }
}

/// An offset of four bytes.
fn offset(at: u32, value: u32, base: u64) -> Field {
    let target = base.wrapping_add(value.into());
    Field { at, raw: value.into(), form: Form::Word32, target, base: Base::At(base) }
}
