//! Levels 0 and -2: blocks of a fixed length, in which no matches are looked for.

use super::block::BlockWriter;
use super::symbols::LONGEST_STORED;

/// Collects content until a block is full.
#[derive(Debug)]
pub(super) struct Whole {
    write_block: fn(&mut BlockWriter, &[u8], &mut Vec<u8>),
    block: Vec<u8>,
}

impl Whole {
    /// Level 0: every block is stored.
    pub(super) fn stored() -> Self {
        Self::new(BlockWriter::stored)
    }

    /// Level -2: every block is Huffman coded if that pays.
    pub(super) fn literals() -> Self {
        Self::new(BlockWriter::literals_or_stored)
    }

    fn new(write_block: fn(&mut BlockWriter, &[u8], &mut Vec<u8>)) -> Self {
        Self { write_block, block: Vec::with_capacity(LONGEST_STORED) }
    }

    pub(super) fn write(&mut self, mut content: &[u8], blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        while !content.is_empty() {
            if self.block.len() == LONGEST_STORED {
                self.finish(blocks, out);
            }
            let (now, later) = content.split_at(content.len().min(LONGEST_STORED - self.block.len()));
            self.block.extend_from_slice(now);
            content = later;
        }
    }

    pub(super) fn finish(&mut self, blocks: &mut BlockWriter, out: &mut Vec<u8>) {
        if !self.block.is_empty() {
            (self.write_block)(blocks, &self.block, out);
            self.block.clear();
        }
    }
}
