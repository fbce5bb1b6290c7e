//! The matches themselves: where the new content is like the old.
//!
//! A match is three numbers: the gap to the match before it, its length, and its displacement (old position minus new
//! position). Most matches go on with a displacement that was used a little earlier, so recent ones have short names.
//! The numbers are predicted by models, or, where there are too many of them for the time that applying may take, they are
//! compressed by zstd, each kind on its own.

use super::arith::{Coder, Decoder, Encoder};
use super::decision::hash;
use super::number::Numbers;
use super::plan;
use crate::error::Error;
use crate::format::codec::{read_varint, write_varint};
use crate::matching::Match;

/// The largest number of matches: 24 MiB of them in memory.
pub(crate) const MAX_MATCHES: usize = 1 << 20;

/// The displacements that have a short name.
const RECENT: usize = 24;

/// The kinds of numbers.
const COUNT: usize = 0;
const GAP: usize = 1;
const LENGTH: usize = 2;
const NAME: usize = 3;
const JUMP: usize = 4;
const COLUMNS: usize = 5;

/// The size of the table of contexts, as a power of two: 4 MiB.
const SLOT_BITS: u32 = 20;

/// The first byte of a section: how the numbers are written.
const MODELLED: u8 = 0;
const BULK: u8 = 1;

/// What a match costs to go through the models, in estimated picoseconds.
const COST: u64 = 8_000_000;

/// How much of what models may take is for the matches: a quarter. Nothing else begins before they are read.
const SHARE: u64 = 4;

/// The level of zstd for numbers in bulk.
const LEVEL: i32 = 19;

/// Displacements, the last used first.
#[derive(Debug)]
struct Recent([u64; RECENT]);

impl Recent {
    /// The place of a displacement; [`RECENT`] when it is not there.
    fn name(&self, displacement: u64) -> usize {
        self.0.iter().position(|recent| *recent == displacement).unwrap_or(RECENT)
    }

    /// Puts what was at a place, or a new displacement, in front.
    fn put(&mut self, name: usize, displacement: u64) {
        self.0[..RECENT.min(name + 1)].rotate_right(1);
        self.0[0] = displacement;
    }
}

/// What both ends know while matches are coded.
#[derive(Debug)]
struct Model {
    numbers: Numbers<6, 16>,
    recent: Recent,
    /// The name of the displacement of the last two matches.
    names: [u32; 2],
    /// The logarithms of the last gaps and lengths.
    gaps: [u32; 2],
    lengths: [u32; 2],
    /// The last gap and length.
    gap: u64,
    length: u64,
}

/// The length of the binary form: a coarse logarithm.
fn magnitude(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// Signed distances as small numbers: 0, -1, 1, -2 ...
fn fold(distance: u64) -> u64 {
    distance << 1 ^ ((distance as i64) >> 63) as u64
}

fn unfold(folded: u64) -> u64 {
    folded >> 1 ^ (folded & 1).wrapping_neg()
}

impl Model {
    fn new() -> Self {
        Self {
            numbers: Numbers::new(SLOT_BITS, COLUMNS),
            recent: Recent([0; RECENT]),
            names: [0; 2],
            gaps: [0; 2],
            lengths: [0; 2],
            gap: 0,
            length: 0,
        }
    }

    fn count(&mut self, coder: &mut impl Coder, count: usize) -> usize {
        self.numbers.code(coder, count as u64, MAX_MATCHES as u64, &[0; 6], COUNT) as usize
    }

    /// Codes a match that follows one which ends at `end` of the new content; `None` when it does not fit the contents.
    fn code(
        &mut self,
        coder: &mut impl Coder,
        found: Match,
        end: u64,
        old_len: u64,
        new_len: u64,
    ) -> Option<Match> {
        let room = (new_len - end).checked_sub(1)?;
        let [name, before] = self.names;
        let contexts = [
            hash(&[1, self.gaps[0]]),
            hash(&[2, self.lengths[0], name.min(2)]),
            hash(&[3, self.gaps[0], self.gaps[1], self.lengths[0]]),
            hash(&[4, name, before]),
            hash(&[5, self.gap as u32, self.length as u32]),
            0,
        ];
        let gap = self.numbers.code(coder, found.new.wrapping_sub(end), room, &contexts, GAP);
        let new = end + gap;
        let near = gap.min(40) as u32;
        let contexts = [
            hash(&[1, magnitude(gap), name.min(2)]),
            hash(&[2, self.lengths[0], self.lengths[1]]),
            hash(&[3, near, self.lengths[0]]),
            hash(&[4, near]),
            hash(&[5, self.length as u32]),
            0,
        ];
        let most = (new_len - new).min(old_len).checked_sub(1)?;
        let length = self.numbers.code(coder, found.len.wrapping_sub(1), most, &contexts, LENGTH) + 1;
        let (gaps, lengths) = (magnitude(gap), magnitude(length));
        let displacement = found.old.wrapping_sub(found.new);
        let listed = self.recent.name(displacement);
        let contexts = [
            hash(&[1, name]),
            hash(&[2, name, before]),
            hash(&[3, gaps, lengths]),
            hash(&[4, near, name.min(3)]),
            hash(&[5, lengths, self.lengths[0], name.min(3)]),
            0,
        ];
        let listed = self.numbers.code(coder, listed as u64, RECENT as u64, &contexts, NAME) as usize;
        let displacement = if listed < RECENT {
            self.recent.0[listed]
        } else {
            let jump = fold(displacement.wrapping_sub(self.recent.0[0]));
            let contexts = [
                hash(&[1, near]),
                hash(&[2, gaps, lengths]),
                hash(&[3, name, before]),
                hash(&[4, gap as u32, self.gap as u32]),
                hash(&[5, lengths, self.lengths[0]]),
                0,
            ];
            let jump = self.numbers.code(coder, jump, u64::MAX - 1, &contexts, JUMP);
            self.recent.0[0].wrapping_add(unfold(jump))
        };
        self.recent.put(listed, displacement);
        self.names = [listed as u32, name];
        self.gaps = [gaps, self.gaps[0]];
        self.lengths = [lengths, self.lengths[0]];
        (self.gap, self.length) = (gap, length);
        let old = new.wrapping_add(displacement);
        let fits = old.checked_add(length).is_some_and(|end| end <= old_len);
        fits.then_some(Match { new, old, len: length })
    }
}

/// Fails unless the matches are sorted by their place in the new content, do not overlap there, are not empty and lie
/// within the contents.
pub(super) fn validate(matches: &[Match], old_len: u64, new_len: u64) -> Result<(), Error> {
    let mut end = 0;
    for found in matches {
        let ends = found.new.checked_add(found.len).zip(found.old.checked_add(found.len));
        let fits = ends.is_some_and(|(new, old)| new <= new_len && old <= old_len);
        if found.new < end || found.len == 0 || !fits {
            return Err(Error::Format("a match outside the contents"));
        }
        end = found.new + found.len;
    }
    Ok(())
}

/// Appends the matches section.
///
/// The matches are sorted by their place in the new content, do not overlap there, are not empty and lie within the
/// contents, or this fails with [`Error::Format`]; with [`Error::Limit`] when there are more than [`MAX_MATCHES`].
pub(crate) fn encode_matches(
    matches: &[Match],
    old_len: u64,
    new_len: u64,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    if matches.len() > MAX_MATCHES {
        return Err(Error::Limit { what: "the number of matches", limit: MAX_MATCHES as u64 });
    }
    validate(matches, old_len, new_len)?;
    if matches.len() as u64 * COST > plan::budget(new_len) / SHARE {
        out.push(BULK);
        return write_bulk(matches, out);
    }
    out.push(MODELLED);
    let mut coder = Encoder::new(out);
    let mut model = Model::new();
    model.count(&mut coder, matches.len());
    let mut end = 0;
    for found in matches {
        model.code(&mut coder, *found, end, old_len, new_len);
        end = found.new + found.len;
    }
    coder.stop();
    Ok(())
}

/// Appends the numbers of all matches, by kind.
fn write_bulk(matches: &[Match], out: &mut Vec<u8>) -> Result<(), Error> {
    let [mut gaps, mut lengths, mut names, mut jumps] = [const { Vec::new() }; 4];
    let (mut end, mut recent) = (0, Recent([0; RECENT]));
    for found in matches {
        write_varint(&mut gaps, found.new - end);
        write_varint(&mut lengths, found.len);
        let displacement = found.old.wrapping_sub(found.new);
        let name = recent.name(displacement);
        names.push(name as u8);
        if name == RECENT {
            write_varint(&mut jumps, fold(displacement.wrapping_sub(recent.0[0])));
        }
        recent.put(name, displacement);
        end = found.new + found.len;
    }
    write_varint(out, matches.len() as u64);
    for kind in [gaps, lengths, names, jumps] {
        let packed = zstd::bulk::compress(&kind, LEVEL)?;
        write_varint(out, kind.len() as u64);
        write_varint(out, packed.len() as u64);
        out.extend_from_slice(&packed);
    }
    Ok(())
}

/// Reads what [`write_bulk`] has written. That the matches fit is not seen here.
fn read_bulk(mut section: &[u8]) -> Result<Vec<Match>, Error> {
    let count = read_varint(&mut section)?;
    if count > MAX_MATCHES as u64 {
        return Err(Error::Limit { what: "the number of matches", limit: MAX_MATCHES as u64 });
    }
    let mut kinds = [const { Vec::new() }; 4];
    for kind in &mut kinds {
        let (len, packed_len) = (read_varint(&mut section)?, read_varint(&mut section)?);
        // A number has ten bytes at most.
        let len = usize::try_from(len).ok().filter(|len| *len as u64 <= count * 10);
        let packed = usize::try_from(packed_len).ok().and_then(|len| section.split_off(..len));
        let (Some(len), Some(packed)) = (len, packed) else {
            return Err(Error::Format("numbers of matches that cannot be"));
        };
        *kind = zstd::bulk::decompress(packed, len).map_err(|_| Error::Format("bad numbers of matches"))?;
    }
    let [mut gaps, mut lengths, mut names, mut jumps] = kinds.each_ref().map(Vec::as_slice);
    let (mut end, mut recent, mut matches) = (0_u64, Recent([0; RECENT]), Vec::new());
    for _ in 0..count {
        let new = end.wrapping_add(read_varint(&mut gaps)?);
        let len = read_varint(&mut lengths)?;
        let name = usize::from(*names.split_off_first().ok_or(Error::Format("too few names of matches"))?);
        let displacement = match recent.0.get(name) {
            Some(displacement) => *displacement,
            None => recent.0[0].wrapping_add(unfold(read_varint(&mut jumps)?)),
        };
        recent.put(name, displacement);
        matches.push(Match { new, old: new.wrapping_add(displacement), len });
        end = new.wrapping_add(len);
    }
    if [section, gaps, lengths, names, jumps].iter().any(|rest| !rest.is_empty()) {
        return Err(Error::Format("bytes behind the matches"));
    }
    Ok(matches)
}

/// Reads a matches section: what [`encode_matches`] was given, if the lengths are the same.
///
/// Whatever the section says, the matches are sorted, do not overlap and lie within the contents.
pub(crate) fn decode_matches(section: &[u8], old_len: u64, new_len: u64) -> Result<Vec<Match>, Error> {
    match section.split_first() {
        Some((&MODELLED, section)) => read_modelled(section, old_len, new_len),
        Some((&BULK, section)) => {
            let matches = read_bulk(section)?;
            validate(&matches, old_len, new_len)?;
            Ok(matches)
        }
        _ => Err(Error::Format("a matches section of another version")),
    }
}

fn read_modelled(section: &[u8], old_len: u64, new_len: u64) -> Result<Vec<Match>, Error> {
    let mut coder = Decoder::new(section);
    coder.start();
    let mut model = Model::new();
    let count = model.count(&mut coder, 0);
    let mut matches = Vec::new();
    let mut end = 0;
    for _ in 0..count {
        let nothing = Match { new: 0, old: 0, len: 0 };
        let found = model.code(&mut coder, nothing, end, old_len, new_len);
        coder.check()?;
        let found = found.ok_or(Error::Format("a match outside the contents"))?;
        end = found.new + found.len;
        matches.push(found);
    }
    coder.check()?;
    if !coder.at_end()? {
        return Err(Error::Format("bytes behind the matches"));
    }
    Ok(matches)
}
