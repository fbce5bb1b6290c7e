//! Matches put right: extended, joined, and not too many.

use std::io;
use std::ops::Range;

use super::{MAX_MATCHES, Match};
use crate::common::{common_prefix, common_suffix};
use crate::content::Content;

/// Literals between two matches at the same displacement that cost more than to let the match run on, in bytes.
const SHORT_GAP: u64 = 8;
/// How much is compared at once when matches are extended, in bytes.
const STEP: u64 = 4096;

/// Extends matches into the gaps between them as long as the bytes agree, and joins them.
///
/// The matches are in order and do not overlap.
pub(super) fn extend(
    old: &mut impl Content,
    new: &mut impl Content,
    matches: &[Match],
) -> io::Result<Vec<Match>> {
    let mut extended: Vec<Match> = Vec::with_capacity(matches.len());
    let mut end = 0;
    for (index, found) in matches.iter().enumerate() {
        let mut found = *found;
        let gap = found.new - end;
        let before = agreeing_before(old, new, &found, gap)?;
        found = Match { new: found.new - before, old: found.old - before, len: found.len + before };
        let next = matches.get(index + 1).map_or(new.len(), |next| next.new);
        let room = next - found.new_end();
        found.len += agreeing_after(old, new, &found, room)?;
        end = found.new_end();
        extended.push(found);
    }
    Ok(join(&extended))
}

/// How many bytes agree before a match, at most `limit`.
fn agreeing_before(
    old: &mut impl Content,
    new: &mut impl Content,
    found: &Match,
    limit: u64,
) -> io::Result<u64> {
    let limit = limit.min(found.old);
    let mut len = 0;
    let (mut one, mut two) = ([0; STEP as usize], [0; STEP as usize]);
    while len < limit {
        let step = (limit - len).min(STEP);
        let (one, two) = (&mut one[..step as usize], &mut two[..step as usize]);
        old.read_at(found.old - len - step, one)?;
        new.read_at(found.new - len - step, two)?;
        let agreeing = common_suffix(one, two) as u64;
        len += agreeing;
        if agreeing < step {
            break;
        }
    }
    Ok(len)
}

/// How many bytes agree after a match, at most `limit`.
fn agreeing_after(
    old: &mut impl Content,
    new: &mut impl Content,
    found: &Match,
    limit: u64,
) -> io::Result<u64> {
    let limit = limit.min(old.len() - found.old_end());
    let mut len = 0;
    let (mut one, mut two) = ([0; STEP as usize], [0; STEP as usize]);
    while len < limit {
        let step = (limit - len).min(STEP);
        let (one, two) = (&mut one[..step as usize], &mut two[..step as usize]);
        old.read_at(found.old_end() + len, one)?;
        new.read_at(found.new_end() + len, two)?;
        let agreeing = common_prefix(one, two) as u64;
        len += agreeing;
        if agreeing < step {
            break;
        }
    }
    Ok(len)
}

/// Joins matches that go on at the same displacement, over a short gap also if its bytes differ.
pub(super) fn join(matches: &[Match]) -> Vec<Match> {
    let mut joined: Vec<Match> = Vec::with_capacity(matches.len());
    for found in matches.iter().filter(|found| found.len > 0) {
        match joined.last_mut() {
            Some(last) if last.aligned_with(found) && found.new - last.new_end() <= SHORT_GAP => {
                last.len = found.new_end() - last.new;
            }
            _ => joined.push(*found),
        }
    }
    joined
}

/// The stretches of the new content, of `len` bytes, that are in no match.
pub(super) fn gaps(matches: &[Match], len: u64) -> Vec<Range<u64>> {
    let starts = std::iter::once(0).chain(matches.iter().map(Match::new_end));
    let ends = matches.iter().map(|found| found.new).chain([len]);
    starts.zip(ends).map(|(start, end)| start..end).filter(|gap| !gap.is_empty()).collect()
}

/// Drops the shortest matches, should there be more than [`MAX_MATCHES`].
pub(super) fn limit(mut matches: Vec<Match>) -> Vec<Match> {
    if matches.len() > MAX_MATCHES {
        let mut lens: Vec<u64> = matches.iter().map(|found| found.len).collect();
        let (shorter, shortest, _) = lens.select_nth_unstable(matches.len() - MAX_MATCHES);
        let shortest = *shortest;
        // Of those that are as short as the shortest that are kept, the first.
        let mut dropped = shorter.iter().filter(|len| **len == shortest).count();
        matches.reverse();
        matches.retain(|found| {
            let excess = found.len == shortest && dropped > 0;
            dropped -= usize::from(excess);
            found.len >= shortest && !excess
        });
        matches.reverse();
    }
    matches
}

/// Extends a match that only the hashes say is one, within `room`; none if its bytes do not agree.
pub(super) fn verified(
    old: &mut impl Content,
    new: &mut impl Content,
    found: Match,
    room: Range<u64>,
) -> io::Result<Option<Match>> {
    let after = agreeing_after(old, new, &Match { len: 0, ..found }, room.end - found.new)?;
    if after < found.len {
        return Ok(None);
    }
    let before = agreeing_before(old, new, &found, found.new - room.start)?;
    Ok(Some(Match { new: found.new - before, old: found.old - before, len: after + before }))
}
