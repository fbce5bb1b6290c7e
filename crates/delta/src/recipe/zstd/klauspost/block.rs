//! What is found in a block, and how it is written (RFC 8878, section 3.1.1.2).
//!
//! When a block is compressed and when not is klauspost/compress's choice (BSD-3-Clause).

use super::huffman::{self, Outcome};
use super::sequences::{self, MIN_MATCH, Sequence};
use super::{Level, Release};

/// The parse of a block.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) literals: Vec<u8>,
    pub(super) sequences: Vec<Sequence>,
}

impl Block {
    pub(super) fn clear(&mut self) {
        self.literals.clear();
        self.sequences.clear();
    }

    /// Appends literals and a match of `length` bytes.
    #[inline(always)]
    pub(super) fn push(&mut self, literals: &[u8], length: usize, offset: u32) {
        self.literals.extend_from_slice(literals);
        self.sequences.push(Sequence {
            literals: literals.len() as u32,
            length: (length - MIN_MATCH) as u32,
            offset,
        });
    }

    /// Parses the content as one byte, repeated, if it is that.
    pub(super) fn push_repetition(&mut self, content: &[u8]) -> bool {
        let repeated = content.len() > MIN_MATCH && content[1..] == content[..content.len() - 1];
        if repeated {
            self.push(&content[..1], content.len() - 1, 1 + 3);
        }
        repeated
    }

    /// Whether the last three distances come from this block, so that they may be used.
    #[inline(always)]
    pub(super) fn knows_repeats(&self) -> bool {
        self.sequences.len() > 2
    }
}

/// Writes blocks, one after the other, with what the decoder remembers from one to the next.
#[derive(Debug)]
pub(super) struct Writer {
    release: Release,
    level: Level,
    literals: huffman::Coder,
    sequences: sequences::Coder,
}

#[derive(Clone, Copy, Debug)]
enum BlockType {
    Raw = 0,
    Repeated = 1,
    Compressed = 2,
}

#[derive(Clone, Copy, Debug)]
enum LiteralsType {
    Raw = 0,
    Repeated = 1,
    Compressed = 2,
    Treeless = 3,
}

impl Writer {
    pub(super) fn new(release: Release, level: Level) -> Self {
        Self { release, level, literals: huffman::Coder::new(), sequences: sequences::Coder::new() }
    }

    /// Forgets what the decoder remembers: the next block is the first.
    pub(super) fn clear(&mut self) {
        self.literals = huffman::Coder::new();
        self.sequences = sequences::Coder::new();
    }

    /// Appends the block of `content` that was parsed as `block`.
    pub(super) fn write(&mut self, content: &[u8], block: &Block, last: bool, out: &mut Vec<u8>) {
        let whole = self.release < Release::V1_16_4 && content.len() == self.level.block_size();
        if whole && block.literals.len() == content.len() {
            return write_raw(content, last, out);
        }
        if block.sequences.is_empty() {
            return self.write_literals_only(content, last, out);
        }
        if self.release >= Release::V1_17_8 && is_repetition(block) {
            write_header(BlockType::Repeated, content.len(), last, out);
            return out.push(content[0]);
        }
        let margin = if self.release < Release::V1_16_4 { 5 } else { 6 };
        if content.len() < block.literals.len() + (content.len() >> margin) + 16 {
            return self.write_literals_only(content, last, out);
        }
        let start = out.len();
        write_header(BlockType::Compressed, 0, last, out);
        self.write_literals(&block.literals, out);
        let used = self.sequences.write(&block.sequences, out);
        let len = out.len() - start - HEADER_LEN;
        match used.filter(|_| len < content.len()) {
            Some(used) => {
                self.sequences.keep(used);
                out[start..start + HEADER_LEN].copy_from_slice(&header(BlockType::Compressed, len, last));
            }
            None => {
                out.truncate(start);
                write_raw(content, last, out);
                self.literals.forget();
            }
        }
    }

    /// Writes a block that has no sequences.
    fn write_literals_only(&mut self, literals: &[u8], last: bool, out: &mut Vec<u8>) {
        if literals.len() < 32 || !self.level.codes_literals_only(self.release) {
            return write_raw(literals, last, out);
        }
        match self.compress(literals, 0) {
            Outcome::Incompressible => write_raw(literals, last, out),
            Outcome::Repeated => {
                write_header(BlockType::Repeated, literals.len(), last, out);
                out.push(literals[0]);
            }
            outcome @ (Outcome::Packed | Outcome::PackedAsBefore) => {
                let packed = self.literals.packed().len();
                let len = packed_header_len(packed, literals.len()) + packed + 1;
                write_header(BlockType::Compressed, len, last, out);
                self.write_packed(outcome, literals.len(), out);
                out.push(0); // no sequences
            }
        }
    }

    fn write_literals(&mut self, literals: &[u8], out: &mut Vec<u8>) {
        match self.compress(literals, plain_header_len(literals.len())) {
            Outcome::Incompressible => {
                write_plain_header(LiteralsType::Raw, literals.len(), out);
                out.extend_from_slice(literals);
            }
            Outcome::Repeated => {
                write_plain_header(LiteralsType::Repeated, literals.len(), out);
                out.extend_from_slice(&literals[..1]);
            }
            outcome @ (Outcome::Packed | Outcome::PackedAsBefore) => {
                self.write_packed(outcome, literals.len(), out);
            }
        }
    }

    /// Compresses literals, of which the header would have `plain_header` bytes otherwise.
    fn compress(&mut self, literals: &[u8], plain_header: usize) -> Outcome {
        let least = if self.release < Release::V1_17_0 { 32 } else { 16 };
        if literals.len() <= least {
            return Outcome::Incompressible;
        }
        let outcome = self.literals.compress(literals, streams(literals.len()));
        if matches!(outcome, Outcome::Packed | Outcome::PackedAsBefore) && self.release >= Release::V1_17_0 {
            let packed = self.literals.packed().len();
            let header = packed_header_len(packed, literals.len());
            if packed + 5 > literals.len() && packed + header >= literals.len() + plain_header {
                return Outcome::Incompressible;
            }
        }
        outcome
    }

    fn write_packed(&mut self, outcome: Outcome, literals: usize, out: &mut Vec<u8>) {
        let kind = match outcome {
            Outcome::PackedAsBefore => LiteralsType::Treeless,
            _ => LiteralsType::Compressed,
        };
        let packed = self.literals.packed();
        let (format, width, len) = packed_form(packed.len(), literals);
        let format = if streams(literals) == 1 { 0 } else { format };
        let sizes = (literals as u64) << 4 | (packed.len() as u64) << (4 + width);
        let header = kind as u64 | format << 2 | sizes;
        out.extend_from_slice(&header.to_le_bytes()[..len]);
        out.extend_from_slice(packed);
        self.literals.written();
    }
}

const HEADER_LEN: usize = 3;

/// Whether the block is one byte, repeated, as the match at distance 1 shows.
fn is_repetition(block: &Block) -> bool {
    match block.sequences[..] {
        [only] => {
            only.offset == 4 && block.literals.len() <= 1 && only.literals as usize == block.literals.len()
        }
        _ => false,
    }
}

fn streams(literals: usize) -> usize {
    if literals < 1024 { 1 } else { 4 }
}

fn header(kind: BlockType, size: usize, last: bool) -> [u8; HEADER_LEN] {
    let [a, b, c, _] = (u32::from(last) | (kind as u32) << 1 | (size as u32) << 3).to_le_bytes();
    [a, b, c]
}

fn write_header(kind: BlockType, size: usize, last: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&header(kind, size, last));
}

/// Appends a block that is not compressed.
pub(super) fn write_raw(content: &[u8], last: bool, out: &mut Vec<u8>) {
    write_header(BlockType::Raw, content.len(), last, out);
    out.extend_from_slice(content);
}

fn plain_header_len(size: usize) -> usize {
    match size {
        0..16 => 1,
        16..2048 => 2,
        _ => 3,
    }
}

fn write_plain_header(kind: LiteralsType, size: usize, out: &mut Vec<u8>) {
    let (format, shift) = match plain_header_len(size) {
        1 => (0, 3),
        2 => (1, 4),
        _ => (3, 4),
    };
    let header = kind as u32 | format << 2 | (size as u32) << shift;
    out.extend_from_slice(&header.to_le_bytes()[..plain_header_len(size)]);
}

/// The size format, the bits of each size, and the length of the header.
fn packed_form(packed: usize, literals: usize) -> (u64, u32, usize) {
    match packed.max(literals) {
        0..1024 => (1, 10, 3),
        1024..16384 => (2, 14, 4),
        _ => (3, 18, 5),
    }
}

fn packed_header_len(packed: usize, literals: usize) -> usize {
    packed_form(packed, literals).2
}
