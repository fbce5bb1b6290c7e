//! Gzip blobs made by hand and by flate2, for the tests of this crate.
#![allow(dead_code, reason = "every test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::io::{Cursor, Write};
use std::process::{Command, Stdio};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

/// The shortest gzip header.
pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// What stands for CRC32 and ISIZE: nothing here checks them.
pub(crate) const TRAILER: [u8; 8] = *b"crc+size";

/// Writes deflate bit by bit.
#[derive(Default)]
pub(crate) struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    /// Appends `count` bits, lowest first.
    pub(crate) fn put(mut self, bits: u32, count: u32) -> Self {
        for place in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let byte = self.bytes.last_mut().unwrap();
            *byte |= ((bits >> place & 1) as u8) << (self.used % 8);
            self.used += 1;
        }
        self
    }

    /// Appends a Huffman code, which goes first bit first.
    pub(crate) fn code(self, code: u32, len: u32) -> Self {
        self.put(code.reverse_bits() >> (32 - len), len)
    }

    /// Appends the head of a block.
    pub(crate) fn block(self, last: bool, kind: u32) -> Self {
        self.put(last.into(), 1).put(kind, 2)
    }

    /// Appends a literal in the fixed code.
    pub(crate) fn fixed_literal(self, byte: u8) -> Self {
        match byte {
            0..=143 => self.code(0x30 + u32::from(byte), 8),
            144.. => self.code(0x190 + u32::from(byte) - 144, 9),
        }
    }

    /// Appends a length symbol or the end of a block in the fixed code.
    pub(crate) fn fixed_symbol(self, symbol: u32) -> Self {
        match symbol {
            256..=279 => self.code(symbol - 256, 7),
            _ => self.code(0xc0 + symbol - 280, 8),
        }
    }

    /// Fills the last byte with the lowest bits of `padding`.
    pub(crate) fn pad(self, padding: u32) -> Self {
        let count = (8 - self.used % 8) % 8;
        self.put(padding, count)
    }

    /// Appends whole bytes.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        assert_eq!(self.used % 8, 0);
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The deflate stream as a member with the shortest header.
    pub(crate) fn member(self) -> Vec<u8> {
        [&HEADER, &self.bytes[..], &TRAILER].concat()
    }
}

/// A stored block that ends its member.
pub(crate) fn stored(content: &[u8], padding: u32) -> Bits {
    let len = u16::try_from(content.len()).unwrap();
    Bits::default()
        .block(true, 0)
        .pad(padding)
        .bytes(&len.to_le_bytes())
        .bytes(&(!len).to_le_bytes())
        .bytes(content)
}

/// A fixed block with a literal and both spellings of a copy of 258 bytes, the longer one first.
pub(crate) fn two_spellings() -> Vec<u8> {
    Bits::default()
        .block(true, 1)
        .fixed_literal(b'a')
        .fixed_symbol(284)
        .put(31, 5)
        .code(0, 5)
        .fixed_symbol(285)
        .code(0, 5)
        .fixed_symbol(256)
        .pad(0)
        .member()
}

/// A blob that flate2 compresses at `level`.
pub(crate) fn gzip(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A blob with everything that a gzip header can have but its checksum.
pub(crate) fn gzip_with_names(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new()
        .extra(&b"XY\x03\x00abc"[..])
        .filename("layer.tar")
        .comment("made by a test")
        .mtime(1_600_000_000)
        .write(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress, the same for the same seed (xorshift64*).
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    std::iter::repeat_with(|| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    })
    .take(len)
    .collect()
}

/// Text that compresses like source code does, with something of its own in every line.
pub(crate) fn text(seed: u64, lines: usize) -> Vec<u8> {
    let numbers = noise(seed, lines * 4);
    numbers
        .chunks(4)
        .enumerate()
        .flat_map(|(line, n)| {
            format!("{line:06} fn f{}_{}() {{ return {}; }} // {}\n", n[0], n[1] % 16, n[2] % 8, n[3])
                .into_bytes()
        })
        .collect()
}

/// Scratch space for one delta.
pub(crate) fn scratch() -> Cursor<Vec<u8>> {
    Cursor::new(Vec::new())
}

/// A blob that the system's gzip compresses: an encoder that is known, which flate2's is not.
pub(crate) fn gnu_gzip(content: &[u8], level: u32) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .args(["-n", "-c", &format!("-{level}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("every Debian has gzip");
    let (mut stdin, content) = (child.stdin.take().unwrap(), content.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&content).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// The header of a file in an archive, in the format of POSIX (ustar).
pub(crate) fn tar_header(name: &str, len: u64) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    for (at, width, value) in
        [(100, 8, 0o644), (108, 8, 0), (116, 8, 0), (124, 12, len), (136, 12, 1_600_000_000)]
    {
        let digits = format!("{value:0width$o}\0", width = width - 1);
        header[at..at + width].copy_from_slice(digits.as_bytes());
    }
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// An archive of files, in the format of POSIX (ustar).
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend_from_slice(&tar_header(name, content.len() as u64));
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}
