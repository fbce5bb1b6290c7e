//! Which old file a new file is likely a version of.

use std::io;

use super::Match;
use super::layout::{Part, Segment};
use super::similar::{self, Sketches};
use crate::content::Content;

/// How many old files are put beside a new one.
const MAX_OLDS: usize = 3;
/// How many of them because their content is similar.
const MAX_SIMILAR: usize = 2;
/// A new file shorter than this is not worth a search, in bytes.
const MIN_FILE: u64 = 16;
/// How many old files with the same simplified name are looked at.
const MAX_LOOKED_AT: usize = 64;

/// The old segments by name.
#[derive(Debug)]
pub(super) struct Names<'a> {
    layout: &'a [Segment],
    /// Those that have a key, sorted by it, and then in the order of the layout.
    sorted: Vec<usize>,
}

impl<'a> Names<'a> {
    pub(super) fn new(layout: &'a [Segment]) -> Self {
        let mut sorted: Vec<usize> = (0..layout.len()).filter(|old| key(&layout[*old]).is_some()).collect();
        sorted.sort_unstable_by_key(|old| (key(&layout[*old]), *old));
        Self { layout, sorted }
    }

    /// The old segments that have the name of a new one and hold the same part; for files without a name, those
    /// without a name. In the order of the layout.
    pub(super) fn same(&self, segment: &Segment) -> &[usize] {
        let Some(wanted) = key(segment) else { return &[] };
        let start = self.sorted.partition_point(|old| key(&self.layout[*old]) < Some(wanted));
        let rest = &self.sorted[start..];
        &rest[..rest.partition_point(|old| key(&self.layout[*old]) == Some(wanted))]
    }
}

/// What segments of the same meaning have in common.
fn key(segment: &Segment) -> Option<(&[u8], Part, bool)> {
    (segment.part != Part::Other)
        .then(|| (segment.name.as_deref().unwrap_or_default(), segment.part, segment.nested))
}

/// Puts headers beside the headers of the same path, or of the file before: who owns it and when it was changed is
/// often the same.
pub(super) fn headers(
    old_layout: &[Segment],
    new_layout: &[Segment],
    names: &Names<'_>,
    same: &[Option<usize>],
) -> Vec<Match> {
    let mut matches = Vec::new();
    let mut before: Option<&Segment> = None;
    let mut displacement = 0;
    for (index, segment) in new_layout.iter().enumerate().filter(|(_, segment)| segment.part == Part::Header)
    {
        // Of several, the one before the content that was found for this file, or where the headers before led to.
        let content = same.get(index + 1).copied().flatten();
        let of_content = content.and_then(|old| old.checked_sub(1)).map(|old| &old_layout[old]);
        let of_content = of_content.filter(|old| old.part == Part::Header && old.name == segment.name);
        let candidates = || names.same(segment).iter().map(|old| &old_layout[*old]);
        let going_on = || candidates().find(|old| old.end().wrapping_sub(segment.end()) == displacement);
        let Some(old) = of_content.or_else(going_on).or_else(|| candidates().next_back()).or(before) else {
            continue;
        };
        displacement = old.end().wrapping_sub(segment.end());
        before = Some(old);
        // The header proper is the last block.
        let len = old.len.min(segment.len);
        matches.push(Match { new: segment.end() - len, old: old.end() - len, len });
    }
    matches
}

/// A new file and the old files that it is searched in, best first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) new: usize,
    pub(super) olds: Vec<usize>,
}

/// Returns the pairs for all new files that are not among the old ones.
///
/// A file of the same path is enough. Without one, files of similar content come first, then those of a similar name.
pub(super) fn files(
    old: &mut impl Content,
    old_layout: &[Segment],
    new: &mut impl Content,
    new_layout: &[Segment],
    names: &Names<'_>,
    same: &[Option<usize>],
) -> io::Result<Vec<Pair>> {
    let lonely = |index: &usize| {
        let segment = &new_layout[*index];
        segment.part == Part::File && segment.len >= MIN_FILE && same[*index].is_none()
    };
    let (known, unknown): (Vec<usize>, Vec<usize>) =
        (0..new_layout.len()).filter(lonely).partition(|index| !names.same(&new_layout[*index]).is_empty());
    let last_of_name =
        |new| Pair { new, olds: names.same(&new_layout[new]).last().copied().into_iter().collect() };
    let mut pairs: Vec<Pair> = known.into_iter().map(last_of_name).collect();
    if unknown.is_empty() {
        return Ok(pairs);
    }
    let simplified = SimplifiedNames::new(old_layout);
    let large = unknown.iter().any(|index| new_layout[*index].len >= similar::MIN_FILE);
    let sketches = if large { Some(Sketches::new(old, old_layout)?) } else { None };
    for index in unknown {
        let segment = &new_layout[index];
        let mut olds = match &sketches {
            Some(sketches) => sketches.similar(new, segment)?,
            None => Vec::new(),
        };
        olds.truncate(MAX_SIMILAR);
        for old in simplified.nearest(old_layout, segment) {
            if olds.len() < MAX_OLDS && !olds.contains(&old) {
                olds.push(old);
            }
        }
        if !olds.is_empty() {
            pairs.push(Pair { new: index, olds });
        }
    }
    Ok(pairs)
}

/// The old files by what is left of their names without what changes between versions: its hash, and the segment;
/// sorted. Two names with one hash are taken for each other, which costs a try.
#[derive(Debug)]
struct SimplifiedNames(Vec<(u64, u32)>);

impl SimplifiedNames {
    fn new(layout: &[Segment]) -> Self {
        let mut names = Vec::new();
        for (index, segment) in layout.iter().enumerate().filter(|(_, old)| old.part == Part::File) {
            names.extend(hashes(segment).map(|hash| (hash, index as u32)));
        }
        names.sort_unstable();
        Self(names)
    }

    /// For each way to simplify the name of a new file, the old file that is nearest in size.
    fn nearest(&self, layout: &[Segment], segment: &Segment) -> Vec<usize> {
        let nearest = |hash: u64| {
            let end = self.0.partition_point(|name| name.0 <= hash);
            let found = self.0[..end].iter().rev().take_while(|name| name.0 == hash);
            let looked_at = found.take(MAX_LOOKED_AT).map(|(_, old)| *old as usize);
            looked_at.min_by_key(|old| layout[*old].len.abs_diff(segment.len))
        };
        hashes(segment).filter_map(nearest).collect()
    }
}

/// The hashes of a file's simplified names (FNV-1a, Fowler, Noll and Vo).
fn hashes(segment: &Segment) -> impl Iterator<Item = u64> {
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let start = if segment.nested { 0x8422_2325_cbf2_9ce4 } else { 0xcbf2_9ce4_8422_2325 };
    let names = simplifications(segment.name.as_deref().unwrap_or_default());
    names.map(move |name| name.iter().fold(start, hash))
}

/// What is left of a path when what changes between versions is taken out, from the most telling to the least: the
/// path without numbers, the file's name, the file's name without numbers.
fn simplifications(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let tagged = |tag: u8, mut text: Vec<u8>| {
        text.push(0);
        text.push(tag);
        text
    };
    let all = [tagged(1, without_numbers(path)), tagged(2, name.to_vec()), tagged(3, without_numbers(name))];
    all.into_iter().filter(|text| text.len() > 3)
}

/// Replaces numbers by `#`, and long strings of hexadecimal digits too, such as a hash in `libgfortran-040039e1.so.5`.
fn without_numbers(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let run = |test: fn(&u8) -> bool| text[at..].iter().take_while(|byte| test(byte)).count();
        let hexadecimal = run(u8::is_ascii_hexdigit);
        let decimal = run(|byte| byte.is_ascii_digit() || *byte == b'.');
        let boundary = at == 0 || !text[at - 1].is_ascii_alphanumeric();
        if hexadecimal >= 6 && boundary && text[at..at + hexadecimal].iter().any(u8::is_ascii_digit) {
            out.push(b'#');
            at += hexadecimal;
        } else if text[at].is_ascii_digit() {
            out.push(b'#');
            at += decimal;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}
