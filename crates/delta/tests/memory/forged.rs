//! Deltas that nobody makes: true ones with another header.

use std::io::Cursor;

use deltaport_delta::{Delta, Options, create, inspect};

use crate::common::scratch;

/// Where the sizes stand in the header of a delta with so many bases, all digests being SHA-256.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    bases: usize,
}

const FIRST_BASE: usize = 8 + 1 + 1 + 1;
const DIGEST: usize = 1 + 32;
const SIZE: usize = 8;
const BASE: usize = DIGEST + SIZE + 1;

impl Places {
    pub(crate) fn of(bases: usize) -> Self {
        Self { bases }
    }

    pub(crate) fn base_size(self) -> usize {
        FIRST_BASE + DIGEST
    }

    pub(crate) fn target_size(self) -> usize {
        FIRST_BASE + self.bases * BASE + DIGEST
    }

    pub(crate) fn old_len(self) -> usize {
        self.target_size() + SIZE
    }

    pub(crate) fn new_len(self) -> usize {
        self.old_len() + SIZE
    }

    /// Where the recipe begins, if there is one.
    pub(crate) fn recipe(self) -> usize {
        self.new_len() + SIZE
    }
}

/// Puts a size into a header.
pub(crate) fn set(delta: &mut [u8], place: usize, size: u64) {
    delta[place..place + SIZE].copy_from_slice(&size.to_be_bytes());
}

/// The delta with another recipe in place of "not compressed", and a target as large as it may be.
pub(crate) fn with_recipe(delta: &[u8], recipe: &[u8]) -> Vec<u8> {
    let places = Places::of(inspect(delta).unwrap().bases.len());
    let at = places.recipe();
    assert_eq!(delta[at], 0);
    let mut forged = [&delta[..at], recipe, &delta[at + 1..]].concat();
    set(&mut forged, places.target_size(), 1 << 40);
    forged
}

/// A table as a section: its length, and what the entropy stage makes of it. An empty table is an empty section.
pub(crate) fn section(table: &[u8]) -> Vec<u8> {
    if table.is_empty() {
        return Vec::new();
    }
    // A delta from nothing holds the same in its last section.
    let options = Options { worth_percent: 1_000_000, ..Options::default() };
    let made = create(&mut [Cursor::new(b"")], &mut Cursor::new(table), || Ok(scratch()), &options, |_| ());
    let Delta { header, bytes, .. } = made.unwrap();
    let mut section = Vec::new();
    number(&mut section, table.len() as u64);
    section.extend_from_slice(&bytes[bytes.len() - header.sections.data as usize..]);
    section
}

/// Appends a number: seven bits a byte, the lowest first, the highest bit set in all but the last.
pub(crate) fn number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A `plain` delta from one empty base with these tables and matches, and as many bases as asked for.
pub(crate) fn with_tables(delta: &[u8], bases: usize, tables: [&[u8]; 4]) -> Vec<u8> {
    let header = inspect(delta).unwrap();
    let places = Places::of(header.bases.len());
    assert_eq!(delta[places.recipe()], 0);
    let base = &delta[FIRST_BASE..FIRST_BASE + BASE];
    let mut forged = delta[..FIRST_BASE].to_vec();
    forged[FIRST_BASE - 1] = bases as u8;
    (0..bases).for_each(|_| forged.extend_from_slice(base));
    let after = FIRST_BASE + header.bases.len() * BASE;
    forged.extend_from_slice(&delta[after..=places.recipe()]);
    tables.iter().for_each(|table| forged.extend_from_slice(&(table.len() as u64).to_be_bytes()));
    forged.extend_from_slice(&header.sections.data.to_be_bytes());
    tables.iter().for_each(|table| forged.extend_from_slice(table));
    forged.extend_from_slice(&delta[delta.len() - header.sections.data as usize..]);
    forged
}

/// The section of the matches.
pub(crate) fn matches(delta: &[u8]) -> Vec<u8> {
    let sections = inspect(delta).unwrap().sections;
    let end = delta.len() - (sections.data + sections.executables) as usize;
    delta[end - sections.matches as usize..end].to_vec()
}
