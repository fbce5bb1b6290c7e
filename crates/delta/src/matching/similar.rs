//! Old files that share content with a new one, whatever they are called.
//!
//! A file's sketch is the smallest of the hashes of all its short strings (Andrei Broder, "On the resemblance and
//! containment of documents"): two files share as large a part of their sketches as of their strings.

use std::collections::HashMap;
use std::io;

use super::layout::{Part, Segment};
use crate::content::Content;

/// How many hashes a sketch has.
const SKETCH: usize = 16;
/// How many hashes two files must share to count as similar: one may be a common header.
const MIN_SHARED: usize = 2;
/// Files below this size have no sketch, in bytes.
pub(super) const MIN_FILE: u64 = 512;
/// How many files with the same hash are counted; more of them have something in common that says nothing.
const MAX_FILES: usize = 256;
/// How many bytes of a file are looked at.
const MAX_BYTES: u64 = 16 << 20;
/// How much is read at once, in bytes.
const STEP: usize = 64 << 10;
/// How long a string is, in bytes: what a rolling hash of 32 bits remembers.
const STRING: usize = 32;

/// The sketches of the old files: hash and number of the segment, sorted.
#[derive(Debug)]
pub(super) struct Sketches(Vec<(u32, u32)>);

impl Sketches {
    /// Looks at all old files.
    pub(super) fn new(old: &mut impl Content, layout: &[Segment]) -> io::Result<Self> {
        let mut hashes = Vec::new();
        for (index, segment) in layout.iter().enumerate().filter(|(_, segment)| segment.part == Part::File) {
            hashes.extend(sketch(old, segment)?.into_iter().map(|hash| (hash, index as u32)));
        }
        hashes.sort_unstable();
        Ok(Self(hashes))
    }

    /// The old files that are most like a new one, the most similar first; of those equally similar, the last first.
    pub(super) fn similar(&self, new: &mut impl Content, segment: &Segment) -> io::Result<Vec<usize>> {
        let mut shared: HashMap<u32, usize> = HashMap::new();
        for hash in sketch(new, segment)? {
            let start = self.0.partition_point(|entry| entry.0 < hash);
            let same = self.0[start..].iter().take_while(|entry| entry.0 == hash);
            for (_, index) in same.take(MAX_FILES) {
                *shared.entry(*index).or_default() += 1;
            }
        }
        let mut similar: Vec<(usize, u32)> = shared
            .into_iter()
            .filter(|(_, count)| *count >= MIN_SHARED)
            .map(|(index, count)| (count, index))
            .collect();
        similar.sort_unstable_by(|one, two| two.cmp(one));
        Ok(similar.into_iter().map(|(_, index)| index as usize).collect())
    }
}

/// The sketch of a file, in no order.
fn sketch(content: &mut impl Content, segment: &Segment) -> io::Result<Vec<u32>> {
    if segment.len < MIN_FILE {
        return Ok(Vec::new());
    }
    let mut sketch: Vec<u32> = Vec::with_capacity(SKETCH + 1);
    let mut largest = u32::MAX; // what a hash must be below to come in
    let mut buffer = [0; STEP];
    let end = segment.start + segment.len.min(MAX_BYTES);
    let (mut at, mut rolling, mut skip) = (segment.start, 0_u32, STRING);
    while at < end {
        let len = (end - at).min(STEP as u64) as usize;
        content.read_at(at, &mut buffer[..len])?;
        for byte in &buffer[..len] {
            rolling = (rolling << 1).wrapping_add(GEAR[usize::from(*byte)]);
            let hash = (rolling ^ rolling >> 15).wrapping_mul(0x2c1b_3c6d);
            if hash < largest && skip == 0 {
                if let Err(place) = sketch.binary_search(&hash) {
                    sketch.insert(place, hash);
                    sketch.truncate(SKETCH);
                }
                if sketch.len() == SKETCH {
                    largest = sketch[SKETCH - 1];
                }
            }
            skip = skip.saturating_sub(1);
        }
        at += len as u64;
    }
    Ok(sketch)
}

/// A random number for each byte.
const GEAR: [u32; 256] = gear();

/// Makes the random numbers (SplitMix64, Steele, Lea and Flood).
const fn gear() -> [u32; 256] {
    let mut numbers = [0; 256];
    let mut state = 0_u64;
    let mut index = 0;
    while index < numbers.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        numbers[index] = (mixed >> 32) as u32;
        index += 1;
    }
    numbers
}
