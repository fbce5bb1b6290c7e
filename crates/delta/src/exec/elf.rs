//! What an ELF file says about itself: where its parts are in the file, and at which addresses in memory.
//!
//! Only what the prediction of addresses needs (ELF-64, little-endian, executables and shared objects), from the
//! System V ABI. Files that are odd in any way are not executables as far as this module is concerned.

use std::io;
use std::ops::Range;

use crate::content::Content;

/// How many program headers a file may have.
const MAX_PROGRAM_HEADERS: u16 = 128;
/// How many sections a file may have.
const MAX_SECTIONS: u16 = 512;
/// How much of a section's name is looked at, in bytes.
const NAME: usize = 16;
/// The lengths of the file header and of the entries of both tables, in bytes.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const SECTION_HEADER: usize = 64;

/// The first bytes of an ELF file.
pub(super) const MAGIC: &[u8; 4] = b"\x7fELF";

/// The instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    X86,
    Arm,
    Other,
}

/// A part of the file that is mapped into memory (`PT_LOAD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Where it is in the file, in bytes.
    pub(super) offset: u64,
    /// At which address.
    pub(super) address: u64,
    /// How many bytes are in the file.
    pub(super) len: u64,
    /// How many bytes there are in memory.
    pub(super) memory: u64,
}

impl Load {
    /// The bytes in the file.
    pub(super) fn in_file(&self) -> Range<u64> {
        self.offset..self.offset + self.len
    }

    /// The addresses in memory.
    pub(super) fn in_memory(&self) -> Range<u64> {
        self.address..self.address + self.memory
    }
}

/// The types of sections that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `SHT_PROGBITS`, arrays of functions, and everything else that is not known.
    Bytes,
    /// `SHT_SYMTAB` and `SHT_DYNSYM`.
    Symbols,
    /// `SHT_RELA`.
    Relocations,
    /// `SHT_RELR`.
    Relative,
    /// `SHT_DYNAMIC`.
    Dynamic,
    /// `SHT_NOBITS`: zeros that are not in the file.
    Zeros,
    /// `SHT_STRTAB`, `SHT_NOTE`, hash tables, versions: nothing in them moves.
    Fixed,
}

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: Kind,
    /// The first bytes of its name.
    pub(super) name: Vec<u8>,
    /// Whether it is in memory when the program runs.
    pub(super) mapped: bool,
    pub(super) writable: bool,
    pub(super) executable: bool,
    /// Whether each thread has its own.
    pub(super) per_thread: bool,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Section {
    /// The bytes in the file.
    pub(super) fn in_file(&self) -> Range<u64> {
        let len = if self.kind == Kind::Zeros { 0 } else { self.len };
        self.offset..self.offset + len
    }

    /// The addresses in memory.
    pub(super) fn in_memory(&self) -> Range<u64> {
        self.address..self.address + self.len
    }
}

/// An executable or shared object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Elf {
    pub(super) machine: Machine,
    /// Whether it is loaded at the very addresses that it names (`ET_EXEC`).
    pub(super) fixed: bool,
    /// Its length as its headers have it, in bytes; no more than [`u32::MAX`].
    pub(super) len: u64,
    /// Sorted by address, not overlapping in the file nor in memory.
    pub(super) loads: Vec<Load>,
    /// In the order of the file's table.
    pub(super) sections: Vec<Section>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A file inside content.
struct File<'a, C> {
    content: &'a mut C,
    start: u64,
    /// The most bytes that it may have.
    most: u64,
}

impl<C: Content> File<'_, C> {
    /// Reads a table; `None` where it is not within the file.
    fn table(&mut self, at: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
        if at.checked_add(len as u64).is_none_or(|end| end > self.most) {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        self.content.read_at(self.start + at, &mut bytes)?;
        Ok(Some(bytes))
    }

    fn elf(&mut self) -> io::Result<Option<Elf>> {
        let Some(header) = self.table(0, HEADER)? else { return Ok(None) };
        let Some(header) = Header::parse(&header) else { return Ok(None) };
        let programs = self.table(header.programs.0, usize::from(header.programs.1) * PROGRAM_HEADER)?;
        let sections = self.table(header.sections.0, usize::from(header.sections.1) * SECTION_HEADER)?;
        let (Some(programs), Some(sections)) = (programs, sections) else { return Ok(None) };
        let loads = programs.chunks_exact(PROGRAM_HEADER).filter_map(load).collect::<Option<Vec<_>>>();
        let Some(loads) = loads.and_then(tidy) else { return Ok(None) };
        let names = sections.chunks_exact(SECTION_HEADER).nth(header.names.into());
        let names = names.and_then(|names| Some((u64_at(names, 24)?, u64_at(names, 32)?)));
        let mut elf =
            Elf { machine: header.machine, fixed: header.fixed, len: 0, loads, sections: Vec::new() };
        for bytes in sections.chunks_exact(SECTION_HEADER) {
            let Some((mut section, name)) = section(bytes) else { return Ok(None) };
            section.name = self.name(names, name)?;
            elf.sections.push(section);
        }
        let tables = [
            header.programs.0 + programs.len() as u64,
            header.sections.0 + elf.sections.len() as u64 * SECTION_HEADER as u64,
        ];
        // Zeros may claim to be behind the end.
        let ends = elf.sections.iter().map(Section::in_file).filter(|range| !range.is_empty());
        let ends = ends.map(|range| range.end);
        let ends = ends.chain(elf.loads.iter().map(|load| load.in_file().end)).chain(tables);
        elf.len = ends.max().unwrap_or(0);
        Ok((elf.len <= self.most.min(u32::MAX.into())).then_some(elf))
    }

    /// Reads the first bytes of a name.
    fn name(&mut self, names: Option<(u64, u64)>, at: u32) -> io::Result<Vec<u8>> {
        let Some((start, len)) = names.filter(|(_, len)| u64::from(at) < *len) else { return Ok(Vec::new()) };
        let wanted = (len - u64::from(at)).min(NAME as u64) as usize;
        let start = start.saturating_add(at.into());
        let mut name = self.table(start, wanted)?.unwrap_or_default();
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
        Ok(name)
    }
}

/// What is taken from the file header.
struct Header {
    machine: Machine,
    fixed: bool,
    /// Where the program headers are, and how many.
    programs: (u64, u16),
    sections: (u64, u16),
    /// The section that holds the names of sections.
    names: u16,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        // 64-bit, little-endian, version 1.
        if !bytes.starts_with(MAGIC) || bytes[4..7] != [2, 1, 1] {
            return None;
        }
        let fixed = match u16_at(bytes, 16)? {
            2 => true,
            3 => false,
            _ => return None,
        };
        let machine = match u16_at(bytes, 18)? {
            62 => Machine::X86,
            183 => Machine::Arm,
            _ => Machine::Other,
        };
        let (programs, sections) = (u16_at(bytes, 56)?, u16_at(bytes, 60)?);
        let sizes = [u16_at(bytes, 54)?, u16_at(bytes, 58)?];
        let fits = (programs > 0 && programs <= MAX_PROGRAM_HEADERS && sections <= MAX_SECTIONS)
            && usize::from(sizes[0]) == PROGRAM_HEADER
            && (usize::from(sizes[1]) == SECTION_HEADER || sections == 0);
        fits.then_some(Self {
            machine,
            fixed,
            programs: (u64_at(bytes, 32)?, programs),
            sections: (if sections > 0 { u64_at(bytes, 40)? } else { 0 }, sections),
            names: u16_at(bytes, 62)?,
        })
    }
}

/// A program header that is a load; the inner `None` is one that cannot be.
fn load(bytes: &[u8]) -> Option<Option<Load>> {
    (u32_at(bytes, 0)? == 1).then(|| {
        let load = Load {
            offset: u64_at(bytes, 8)?,
            address: u64_at(bytes, 16)?,
            len: u64_at(bytes, 32)?,
            memory: u64_at(bytes, 40)?,
        };
        let limit = u64::from(u32::MAX);
        let ends = [load.offset.checked_add(load.len)?, load.address.checked_add(load.memory)?];
        (load.len <= load.memory && load.memory <= limit && ends[0] <= limit).then_some(load)
    })
}

/// Sorts loads; `None` when they overlap or are too far from each other.
fn tidy(mut loads: Vec<Load>) -> Option<Vec<Load>> {
    loads.sort_by_key(|load| load.address);
    let apart = loads.windows(2).all(|two| two[0].in_memory().end <= two[1].address);
    let (first, last) = (loads.first()?, loads.last()?);
    let near = last.in_memory().end - first.address <= u64::from(u32::MAX);
    let mut by_offset = loads.clone();
    by_offset.sort_by_key(|load| load.offset);
    let apart = apart && by_offset.windows(2).all(|two| two[0].in_file().end <= two[1].offset);
    (apart && near).then_some(loads)
}

/// A section header, and where the section's name is.
fn section(bytes: &[u8]) -> Option<(Section, u32)> {
    let kind = match u32_at(bytes, 4)? {
        2 | 11 => Kind::Symbols,
        4 => Kind::Relocations,
        6 => Kind::Dynamic,
        8 => Kind::Zeros,
        19 => Kind::Relative,
        0 | 3 | 5 | 7 | 9 | 0x6fff_fff6 | 0x6fff_fffd..=0x6fff_ffff => Kind::Fixed,
        _ => Kind::Bytes,
    };
    let flags = u64_at(bytes, 8)?;
    let section = Section {
        kind,
        name: Vec::new(),
        mapped: flags & 2 != 0,
        writable: flags & 1 != 0,
        executable: flags & 4 != 0,
        per_thread: flags & 0x400 != 0,
        address: u64_at(bytes, 16)?,
        offset: u64_at(bytes, 24)?,
        len: u64_at(bytes, 32)?,
    };
    let limit = u64::from(u32::MAX);
    section.address.checked_add(section.len)?;
    // A section without bytes may claim to be anywhere.
    let end = section.offset.checked_add(section.len)?;
    let fits = section.len <= limit && (end <= limit || section.kind == Kind::Zeros);
    fits.then_some((section, u32_at(bytes, 0)?))
}

/// Parses the file that begins at `start` and is at most `most` bytes long; `None` when it is not an executable that
/// can be looked into. Fails only when reading does.
pub(super) fn parse(content: &mut impl Content, start: u64, most: u64) -> io::Result<Option<Elf>> {
    let most = most.min(content.len().saturating_sub(start));
    File { content, start, most }.elf()
}
