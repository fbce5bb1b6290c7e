//! Files of the new content that are in the old content as they are.

use std::collections::{HashMap, HashSet};
use std::io;

use super::layout::{Part, Segment};
use super::pair::Names;
use crate::content::Content;

/// How much of two files is compared at once, in bytes.
const STEP: usize = 64 << 10;
/// How many old files with the same hash are compared before a new one counts as new.
const TRIES: usize = 4;

/// Returns for each new segment the old segment that has the same content, where there is one.
///
/// Of several, the one is taken that goes on where the file before was found, so that they make one match.
pub(super) fn find(
    old: &mut impl Content,
    old_layout: &[Segment],
    new: &mut impl Content,
    new_layout: &[Segment],
    names: &Names<'_>,
) -> io::Result<Vec<Option<usize>>> {
    let mut same = by_name(old, old_layout, new, new_layout, names)?;
    by_hash(old, old_layout, new, new_layout, &mut same)?;
    Ok(same)
}

/// Compares files of the same name and length.
fn by_name(
    old: &mut impl Content,
    old_layout: &[Segment],
    new: &mut impl Content,
    new_layout: &[Segment],
    names: &Names<'_>,
) -> io::Result<Vec<Option<usize>>> {
    let mut same = vec![None; new_layout.len()];
    let mut displacement = 0;
    for (index, segment) in new_layout.iter().enumerate().filter(|(_, segment)| segment.part == Part::File) {
        let of_len = |old: &&usize| old_layout[**old].len == segment.len;
        let mut candidates: Vec<usize> = names.same(segment).iter().filter(of_len).copied().collect();
        candidates
            .sort_by_key(|old| (old_layout[*old].start.wrapping_sub(segment.start) == displacement, *old));
        for &candidate in candidates.iter().rev().take(TRIES) {
            if equal(old, old_layout[candidate].start, new, segment.start, segment.len)? {
                same[index] = Some(candidate);
                displacement = old_layout[candidate].start.wrapping_sub(segment.start);
                break;
            }
        }
    }
    Ok(same)
}

/// Finds by their hashes the files that have another name now.
fn by_hash(
    old: &mut impl Content,
    old_layout: &[Segment],
    new: &mut impl Content,
    new_layout: &[Segment],
    same: &mut [Option<usize>],
) -> io::Result<()> {
    let is_file = |segment: &&Segment| segment.part == Part::File;
    let old_lens: HashSet<u64> = old_layout.iter().filter(is_file).map(|segment| segment.len).collect();
    let mut wanted = HashSet::new();
    for (segment, same) in new_layout.iter().zip(&*same) {
        if segment.part == Part::File && same.is_none() && old_lens.contains(&segment.len) {
            wanted.insert(segment.len);
        }
    }
    let mut by_hash: HashMap<(u64, u128), Vec<usize>> = HashMap::new();
    for (index, segment) in old_layout.iter().enumerate() {
        if segment.part == Part::File && wanted.contains(&segment.len) {
            let hash = hash(old, segment)?;
            by_hash.entry((segment.len, hash)).or_default().push(index);
        }
    }
    let mut expected = 0;
    for (index, segment) in new_layout.iter().enumerate() {
        if let Some(old) = same[index] {
            expected = old + 1;
            continue;
        }
        if segment.part != Part::File || !wanted.contains(&segment.len) {
            continue;
        }
        let Some(found) = by_hash.get(&(segment.len, hash(new, segment)?)) else { continue };
        let at = found.partition_point(|old| *old < expected);
        for &candidate in found[at..].iter().chain(found[..at].iter().rev()).take(TRIES) {
            if equal(old, old_layout[candidate].start, new, segment.start, segment.len)? {
                same[index] = Some(candidate);
                expected = candidate + 1;
                break;
            }
        }
    }
    Ok(())
}

/// Whether both contents have the same `len` bytes at these places.
fn equal(
    old: &mut impl Content,
    mut old_at: u64,
    new: &mut impl Content,
    mut new_at: u64,
    len: u64,
) -> io::Result<bool> {
    let mut buffers = [[0; STEP]; 2];
    let [one, two] = &mut buffers;
    let end = new_at + len;
    // Most files that differ do so soon.
    let mut step = 4096;
    while new_at < end {
        let len = (end - new_at).min(step) as usize;
        old.read_at(old_at, &mut one[..len])?;
        new.read_at(new_at, &mut two[..len])?;
        if one[..len] != two[..len] {
            return Ok(false);
        }
        (old_at, new_at, step) = (old_at + len as u64, new_at + len as u64, STEP as u64);
    }
    Ok(true)
}

/// A hash that says which files are worth a comparison. Whoever makes two files collide gains nothing.
fn hash(content: &mut impl Content, segment: &Segment) -> io::Result<u128> {
    const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];
    let mut lanes = [segment.len ^ FACTORS[1], segment.len ^ FACTORS[0]];
    let mut buffer = [0; STEP];
    let mut at = segment.start;
    while at < segment.end() {
        let len = (segment.end() - at).min(STEP as u64) as usize;
        content.read_at(at, &mut buffer[..len])?;
        buffer[len..len.next_multiple_of(16)].fill(0);
        for pair in buffer[..len.next_multiple_of(16)].chunks_exact(16) {
            for (lane, (word, factor)) in lanes.iter_mut().zip(pair.as_chunks::<8>().0.iter().zip(FACTORS)) {
                *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(factor).rotate_left(29);
            }
        }
        at += len as u64;
    }
    let [one, two] = lanes;
    Ok(u128::from(one ^ two.rotate_left(32)) << 64 | u128::from(two ^ (one >> 31)))
}
