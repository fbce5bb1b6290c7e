//! Blocks of what nothing was found for, anywhere in the old content.
//!
//! The search is rsync's (Andrew Tridgell's thesis): the old content is cut into blocks and their hashes are kept; the
//! new content is looked at through a window of the same size whose hash rolls on byte by byte.

use std::io;
use std::ops::Range;

use super::{MIN_MEMORY, Match, Options, Profile, tidy};
use crate::content::Content;
use crate::error::Error;

/// The smallest block, in bytes.
const MIN_BLOCK: u64 = 1 << 10;
/// How much content is read at once, in bytes.
const PIECE: usize = 256 << 10;
/// What a block costs in memory, in bytes: an entry, and its share of the table of buckets and the filter.
const BLOCK_MEMORY: u64 = 32;

/// The factor of the rolling hash: a polynomial in it, modulo 2^64.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15 | 1;

/// Returns matches of whole blocks, extended as far as the bytes agree within the gap that they are in, in order.
pub(super) fn find(
    old: &mut impl Content,
    new: &mut impl Content,
    gaps: &[Range<u64>],
    options: Options,
) -> Result<Vec<Match>, Error> {
    let memory = options.memory.max(MIN_MEMORY) - 2 * PIECE as u64;
    let mut block = if options.profile == Profile::Best { MIN_BLOCK } else { 2 * MIN_BLOCK };
    while old.len() / block > memory / BLOCK_MEMORY || old.len() / block > u64::from(u32::MAX) {
        block *= 2;
    }
    let gaps: Vec<_> = gaps.iter().filter(|gap| gap.end - gap.start >= block).cloned().collect();
    if gaps.is_empty() || old.len() < block {
        return Ok(Vec::new());
    }
    let table = Table::new(old, block as usize)?;
    let mut matches = Vec::new();
    for gap in gaps {
        search(old, new, &table, gap, &mut matches)?;
    }
    Ok(matches)
}

/// The blocks of the old content by their hashes.
#[derive(Debug)]
struct Table {
    block: usize,
    /// Upper bits of the hash and number of the block, sorted.
    entries: Vec<(u32, u32)>,
    /// One bit for each value of some other bits of the hash: whether an entry has it.
    filter: Vec<u64>,
    filter_mask: u64,
    /// The factor to the power of the block's size less one.
    oldest: u64,
}

impl Table {
    fn new(old: &mut impl Content, block: usize) -> io::Result<Self> {
        let count = old.len() / block as u64;
        let filter_bits = (count * 16).next_power_of_two().max(64);
        let mut filter = vec![0_u64; (filter_bits / 64) as usize];
        let filter_mask = filter_bits - 1;
        let mut entries = Vec::with_capacity(count as usize);
        let piece_len = PIECE.next_multiple_of(block);
        let mut piece = vec![0; piece_len];
        let mut at = 0;
        while at + block as u64 <= old.len() {
            let len = (old.len() - at).min(piece_len as u64) as usize / block * block;
            old.read_at(at, &mut piece[..len])?;
            for bytes in piece[..len].chunks_exact(block) {
                let hash = hash(bytes);
                let number = (at / block as u64) as u32;
                at += block as u64;
                if bytes.iter().all(|byte| *byte == bytes[0]) {
                    continue; // everywhere, and cheap without a match
                }
                let bit = mix(hash) & filter_mask;
                filter[(bit / 64) as usize] |= 1 << (bit % 64);
                entries.push(((mix(hash) >> 32) as u32, number));
            }
        }
        entries.sort_unstable();
        entries.dedup_by_key(|entry| entry.0);
        let oldest = (1..block).fold(1_u64, |power, _| power.wrapping_mul(FACTOR));
        Ok(Self { block, entries, filter, filter_mask, oldest })
    }

    /// Where a block with this hash may be.
    fn place(&self, hash: u64) -> Option<u64> {
        let mixed = mix(hash);
        let bit = mixed & self.filter_mask;
        if self.filter[(bit / 64) as usize] >> (bit % 64) & 1 == 0 {
            return None;
        }
        let index = self.entries.binary_search_by_key(&((mixed >> 32) as u32), |entry| entry.0).ok()?;
        Some(u64::from(self.entries[index].1) * self.block as u64)
    }
}

/// The hash of a block.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |hash: u64, byte| hash.wrapping_mul(FACTOR).wrapping_add(u64::from(*byte) + 1))
}

/// Makes all bits depend on all: the lower bits of the rolling hash depend on the lower bits of the bytes only.
fn mix(hash: u64) -> u64 {
    let product = u128::from(hash ^ (hash >> 29)) * 0xbf58_476d_1ce4_e5b9;
    (product >> 64) as u64 ^ product as u64
}

/// Searches one gap of the new content.
fn search(
    old: &mut impl Content,
    new: &mut impl Content,
    table: &Table,
    gap: Range<u64>,
    matches: &mut Vec<Match>,
) -> io::Result<()> {
    let block = table.block;
    let mut piece = Vec::new();
    let mut start = gap.start; // where the piece starts
    let mut floor = gap.start; // what is before is matched
    while start + block as u64 <= gap.end {
        let len = (gap.end - start).min((PIECE + block) as u64) as usize;
        piece.resize(len, 0);
        new.read_at(start, &mut piece)?;
        let mut at = 0;
        let mut rolling = hash(&piece[..block]);
        let mut next = start + (len - block + 1) as u64;
        loop {
            if let Some(place) = table.place(rolling) {
                let found = Match { new: start + at as u64, old: place, len: block as u64 };
                if let Some(found) = tidy::verified(old, new, found, floor..gap.end)? {
                    matches.push(found);
                    floor = found.new_end();
                    next = floor;
                    break;
                }
            }
            let Some(incoming) = piece.get(at + block) else { break };
            let outgoing = (u64::from(piece[at]) + 1).wrapping_mul(table.oldest);
            rolling =
                rolling.wrapping_sub(outgoing).wrapping_mul(FACTOR).wrapping_add(u64::from(*incoming) + 1);
            at += 1;
        }
        start = next;
    }
    Ok(())
}
