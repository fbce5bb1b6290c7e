//! Large layers, on files.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};

use crate::common::tar_header;

/// Numbers without a pattern, the same for the same seed (SplitMix64, Steele, Lea and Flood).
#[derive(Clone, Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Iterator for Numbers {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(mixed ^ (mixed >> 31))
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = Numbers::new(seed).take(len.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
    bytes.truncate(len);
    bytes
}

/// An archive, written member by member.
#[derive(Debug)]
pub(crate) struct Archive {
    file: BufWriter<File>,
    /// How much is missing to a whole block.
    padding: usize,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self { file: BufWriter::with_capacity(1 << 20, scratch().unwrap()), padding: 0 }
    }

    /// Begins a file; its content is written next.
    pub(crate) fn begin(&mut self, name: &str, len: u64) {
        self.end();
        self.write(&tar_header(name, len));
        self.padding = (len.next_multiple_of(512) - len) as usize;
    }

    /// Writes content of the file that was begun.
    pub(crate) fn write(&mut self, content: &[u8]) {
        self.file.write_all(content).unwrap();
    }

    /// Adds a file.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) {
        self.begin(name, content.len() as u64);
        self.write(content);
    }

    fn end(&mut self) {
        let padding = std::mem::take(&mut self.padding);
        self.write(&[0; 512][..padding]);
    }

    /// The archive, whole.
    pub(crate) fn finish(mut self) -> File {
        self.end();
        self.write(&[0; 1024]);
        let mut file = self.file.into_inner().unwrap();
        file.rewind().unwrap();
        file
    }
}

/// An empty file that vanishes.
pub(crate) fn scratch() -> std::io::Result<File> {
    tempfile::tempfile()
}

/// A file with these bytes.
pub(crate) fn on_file(bytes: &[u8]) -> File {
    let mut file = scratch().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// Whether two files hold the same.
pub(crate) fn same(one: &mut File, two: &mut File) -> bool {
    let mut buffers = [vec![0; 1 << 20], vec![0; 1 << 20]];
    one.rewind().unwrap();
    two.rewind().unwrap();
    loop {
        let mut lens = [0; 2];
        for ((file, buffer), len) in [&mut *one, &mut *two].into_iter().zip(&mut buffers).zip(&mut lens) {
            *len = file.take(1 << 20).read(buffer).unwrap();
        }
        if lens[0] != lens[1] || buffers[0][..lens[0]] != buffers[1][..lens[1]] {
            return false;
        }
        if lens[0] == 0 {
            return true;
        }
    }
}
