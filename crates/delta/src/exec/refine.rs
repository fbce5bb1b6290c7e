//! Matching a second time, with addresses that can be compared.
//!
//! The matcher compares bytes: in tables of addresses it finds stretches that look alike and are about other things,
//! and in code each moved address is a reason to end a match. Once a first map of addresses is known, both files can
//! be written so that equal fields mean the same place; what is aligned then belongs together.

use super::elf::Elf;
use super::file::File;
use super::plan::MAX_FILE_MATCHES;
use super::predict::Pair;
use super::rule::Rule;
use crate::content::Content;
use crate::error::Error;
use crate::matching::{self, MIN_MEMORY, Match, Options, Segment};

/// Returns the matches of two files, relative to their contents, or `None` when there is not enough memory, or there are
/// too many matches.
pub(super) fn matches(
    pair: &mut Pair,
    old: &mut impl Content,
    new: &mut impl Content,
    is: Elf,
    options: Options,
) -> Result<Option<Vec<Match>>, Error> {
    let (old_len, new_len) = (pair.file.elf().len, is.len);
    let Some(memory) = options.memory.checked_sub(old_len + new_len).filter(|left| *left >= MIN_MEMORY)
    else {
        return Ok(None);
    };
    let (old_start, new_start) = (pair.file.start, pair.new.start);
    let mut file = File::new(is, new_start);
    let rules: Vec<Rule> = file
        .elf()
        .sections
        .iter()
        .map(|new| {
            let same =
                pair.file.elf().sections.iter().position(|old| old.name == new.name && old.kind == new.kind);
            let ruled = same.and_then(|old| pair.file.ruled.iter().find(|ruled| ruled.section == old));
            ruled.map_or(Rule::Nothing, |ruled| ruled.rule)
        })
        .collect();
    file.set_rules(new, &rules)?;
    let is = file.normalized(new, new_len, |target| target)?;
    let was = pair.normalized(old)?;
    let (old_layout, new_layout) = (Segment::whole(old_len), Segment::whole(new_len));
    let options = Options { memory, ..options };
    let mut found = matching::find(&mut &was[..], &old_layout, &mut &is[..], &new_layout, options)?;
    if found.len() > MAX_FILE_MATCHES {
        return Ok(None);
    }
    for found in &mut found {
        found.old += old_start;
        found.new += new_start;
    }
    Ok(Some(found))
}
