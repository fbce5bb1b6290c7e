//! Which executables are worth looking into, and by which rules.

use std::collections::BTreeMap;
use std::ops::Range;

use super::elf::{self, Elf};
use super::map::{self, Layout};
use super::model::{MAX_ENTRIES, MAX_MODELS, Model};
use super::predict::Pair;
use super::refine;
use super::rule::Rule;
use crate::content::Content;
use crate::error::Error;
use crate::matching::{MAX_MATCHES, Match, Options, Part, Profile, Segment};

/// How many bytes are compared at once.
const CHUNK: usize = 64 << 10;
/// How many bytes a rule or a model must make right to be worth writing.
const MIN_GAIN: i64 = 24;
/// How many matches a file may have to be looked into: while rules are tried, there are a dozen lists of them.
pub(super) const MAX_FILE_MATCHES: usize = 1 << 18;
/// What a match costs, in bytes that differ.
const MATCH_COST: u64 = 3;

/// Returns a model for each executable of the new content in which it makes more bytes right than wrong, and puts
/// better matches where those that were found are not about the same places.
///
/// `matches` are in the order of the new content; the layouts say where files are. Both files of a pair are held in
/// memory, as far as `options` allow. Fails only when reading does.
pub(crate) fn plan(
    matches: &mut Vec<Match>,
    old: &mut impl Content,
    old_layout: &[Segment],
    new: &mut impl Content,
    new_layout: &[Segment],
    options: Options,
) -> Result<Vec<Model>, Error> {
    let mut plans: Vec<Plan> = Vec::new();
    let (mut entries, mut count) = (0, matches.len());
    for segment in new_layout.iter().filter(|segment| segment.part == Part::File) {
        if plans.len() as u64 == MAX_MODELS || segment.len < elf::MAGIC.len() as u64 {
            continue;
        }
        let mut magic = [0; elf::MAGIC.len()];
        new.read_at(segment.start, &mut magic)?;
        if magic != *elf::MAGIC {
            continue;
        }
        let range = segment.start..segment.end();
        if within(matches, &range).count() > MAX_FILE_MATCHES {
            continue;
        }
        let found: Vec<Match> = within(matches, &range).collect();
        if unchanged(&found, &range, old, new)? {
            continue;
        }
        let Some(start) = old_version(&found, old_layout) else { continue };
        let Some(was) = elf::parse(old, start, u64::MAX)? else { continue };
        let Some(is) = elf::parse(new, range.start, segment.len)? else { continue };
        let mut files = Files { old: &mut *old, new: &mut *new, was, is, start, range };
        let before = found.len();
        let Some(plan) = files.plan(found, options.profile)? else { continue };
        let plan = match options.profile {
            Profile::Fast => plan,
            Profile::Best => files.refine(plan, options)?,
        };
        // Two more where the matches of others are cut.
        let total = (entries + plan.model.entries(), count + plan.matches.len() + 2 - before);
        if plan.gain >= MIN_GAIN && total.0 <= MAX_ENTRIES && total.1 <= MAX_MATCHES {
            (entries, count) = total;
            plans.push(plan);
        }
    }
    replace(matches, &plans);
    Ok(plans.into_iter().map(|plan| plan.model).collect())
}

/// Where the old file begins that most of a new file is like.
fn old_version(matches: &[Match], old_layout: &[Segment]) -> Option<u64> {
    let mut by_file: BTreeMap<usize, u64> = BTreeMap::new();
    for found in matches {
        let file = old_layout.partition_point(|segment| segment.end() <= found.old);
        *by_file.entry(file).or_default() += found.len;
    }
    let (file, _) = by_file.into_iter().max_by_key(|(file, len)| (*len, std::cmp::Reverse(*file)))?;
    old_layout.get(file).filter(|segment| segment.part == Part::File).map(|segment| segment.start)
}

/// The parts of matches that are within a range of the new content.
fn within<'a>(matches: &'a [Match], new: &'a Range<u64>) -> impl Iterator<Item = Match> + 'a {
    let first = matches.partition_point(|found| found.new_end() <= new.start);
    let last = matches.partition_point(|found| found.new < new.end);
    matches.get(first..last).unwrap_or_default().iter().map(|found| {
        let (from, to) = (found.new.max(new.start), found.new_end().min(new.end));
        Match { new: from, old: found.old + (from - found.new), len: to - from }
    })
}

/// Whether a new file is an old one.
fn unchanged(
    matches: &[Match],
    range: &Range<u64>,
    old: &mut impl Content,
    new: &mut impl Content,
) -> Result<bool, Error> {
    match matches {
        [one] if one.len == range.end - range.start => Ok(differing(one, old, new, |_, _, _| Ok(()))? == 0),
        _ => Ok(false),
    }
}

/// How many bytes of a match differ, after its old bytes were given to `change`.
fn differing<O: Content>(
    found: &Match,
    old: &mut O,
    new: &mut impl Content,
    mut change: impl FnMut(&mut O, Range<u64>, &mut [u8]) -> Result<(), Error>,
) -> Result<u64, Error> {
    let (mut was, mut is) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut done, mut differing) = (0, 0);
    while done < found.len {
        let len = (found.len - done).min(CHUNK as u64);
        let (was, is) = (&mut was[..len as usize], &mut is[..len as usize]);
        old.read_at(found.old + done, was)?;
        new.read_at(found.new + done, is)?;
        change(old, found.old + done..found.old + done + len, was)?;
        differing += was.iter().zip(&*is).filter(|(was, is)| was != is).count() as u64;
        done += len;
    }
    Ok(differing)
}

/// Puts the matches of plans in place of those that were there.
fn replace(matches: &mut Vec<Match>, plans: &[Plan]) {
    let mut merged: Vec<Match> = Vec::with_capacity(matches.len());
    let mut at = 0;
    for plan in plans {
        join(&mut merged, within(matches, &(at..plan.model.new.start)));
        join(&mut merged, plan.matches.iter().copied());
        at = plan.model.new.end;
    }
    join(&mut merged, within(matches, &(at..u64::MAX)));
    *matches = merged;
}

/// Appends matches; those that only go on are made one.
fn join(joined: &mut Vec<Match>, matches: impl IntoIterator<Item = Match>) {
    for found in matches {
        match joined.last_mut() {
            Some(last) if last.new_end() == found.new && last.old_end() == found.old => last.len += found.len,
            _ => joined.push(found),
        }
    }
}

/// A model, the matches that it goes with, and what they are worth.
#[derive(Clone, Debug)]
struct Plan {
    model: Model,
    /// All in the new file.
    matches: Vec<Match>,
    /// How many bytes more are right than without the model.
    gain: i64,
    /// What remains to be written for each part of the new file, roughly, in bytes that differ; none where nothing is
    /// refined.
    costs: Vec<u64>,
}

impl Plan {
    fn cost(&self) -> u64 {
        self.costs.iter().sum()
    }
}

/// An old and a new executable.
struct Files<'a, O, N> {
    old: &'a mut O,
    new: &'a mut N,
    was: Elf,
    is: Elf,
    /// Where the old file begins.
    start: u64,
    /// Where the new file is.
    range: Range<u64>,
}

impl<O: Content, N: Content> Files<'_, O, N> {
    /// Finds the best rules, given matches: only whether those that are expected do good, or the best of all.
    fn plan(&mut self, matches: Vec<Match>, profile: Profile) -> Result<Option<Plan>, Error> {
        let Some(layout) = layout(&self.was, &self.is) else { return Ok(None) };
        let (new, old) = (self.range.clone(), self.start);
        let mut model = Model { new, old, loads: vec![], zeros: vec![], rules: vec![] };
        model.set_layout(&self.was, &layout);
        let Some(mut pair) = Pair::open(self.old, &model, &matches)? else { return Ok(None) };
        let sections = &self.was.sections;
        let expected: Vec<Rule> = sections.iter().map(|section| Rule::expected(&self.was, section)).collect();
        let candidates: Vec<_> = match profile {
            Profile::Fast => Vec::new(),
            Profile::Best => sections.iter().map(Rule::candidates).collect(),
        };
        let mut best = expected.clone();
        let mut gains = self.gains(&mut pair, &matches, &expected)?;
        // One candidate of every section at a time.
        for round in 0..candidates.iter().map(|rules| rules.len()).max().unwrap_or(0) {
            let rules = candidates.iter().map(|rules| rules.get(round).copied().unwrap_or(Rule::Nothing));
            let rules: Vec<Rule> = rules.collect();
            let gained = self.gains(&mut pair, &matches, &rules)?;
            for index in 0..rules.len() {
                if gained[index] >= gains[index].max(0) + MIN_GAIN {
                    (best[index], gains[index]) = (rules[index], gained[index]);
                }
            }
        }
        for (index, gain) in gains.iter_mut().enumerate() {
            if *gain < 0 {
                (best[index], *gain) = (Rule::Nothing, 0);
            }
            if best[index] != expected[index] {
                model.rules.push((index as u16, best[index]));
            }
        }
        let gain = gains.into_iter().sum();
        let costs = match profile {
            Profile::Fast => Vec::new(),
            Profile::Best => {
                pair.set_rules(self.old, &best)?;
                self.costs(&mut pair, &matches)?
            }
        };
        Ok(Some(Plan { model, matches, gain, costs }))
    }

    /// Matches the files again with the map that a plan gives, and returns the better plan.
    fn refine(&mut self, plan: Plan, options: Options) -> Result<Plan, Error> {
        let Some(mut pair) =
            Pair::open(self.old, &Model { rules: vec![], ..plan.model.clone() }, &plan.matches)?
        else {
            return Ok(plan);
        };
        let Some(matches) = refine::matches(&mut pair, self.old, self.new, self.is.clone(), options)? else {
            return Ok(plan);
        };
        let Some(refined) = self.plan(matches, options.profile)? else { return Ok(plan) };
        let mixed = self.plan(self.mix(&plan, &refined), options.profile)?;
        let better = |one: Plan, two: Plan| if two.cost() < one.cost() { two } else { one };
        Ok(better(mixed.map_or(plan.clone(), |mixed| better(plan, mixed)), refined))
    }

    /// The matches of each section from the plan that does better there.
    fn mix(&self, one: &Plan, two: &Plan) -> Vec<Match> {
        let mut mixed = Vec::new();
        for (part, (first, second)) in self.parts().iter().zip(one.costs.iter().zip(&two.costs)) {
            mixed.extend(within(if second < first { &two.matches } else { &one.matches }, part));
        }
        let mut joined = Vec::new();
        join(&mut joined, mixed);
        joined
    }

    /// The new file cut where sections begin.
    fn parts(&self) -> Vec<Range<u64>> {
        let starts = self.is.sections.iter().filter(|section| !section.in_file().is_empty());
        let starts = starts.map(|section| self.range.start + section.offset);
        let mut cuts: Vec<u64> = starts.chain([self.range.start, self.range.end]).collect();
        cuts.retain(|cut| self.range.start <= *cut && *cut <= self.range.end);
        cuts.sort_unstable();
        cuts.dedup();
        cuts.windows(2).map(|two| two[0]..two[1]).collect()
    }

    /// How many bytes more are right in each section by these rules than without.
    fn gains(&mut self, pair: &mut Pair, matches: &[Match], rules: &[Rule]) -> Result<Vec<i64>, Error> {
        pair.set_rules(self.old, rules)?;
        let mut gains = vec![0; rules.len()];
        for ruled in pair.file.ruled.clone() {
            let everything = 0..u64::MAX;
            for found in matches {
                let part = map::part(found, &ruled.range, 0, &everything, &self.range);
                let Some(part) = part else { continue };
                let raw = differing(&part, self.old, self.new, |_, _, _| Ok(()))?;
                let rest = differing(&part, self.old, self.new, |old, range, bytes| {
                    Ok(pair.rewrite(old, found, range, bytes)?)
                })?;
                gains[ruled.section] += raw as i64 - rest as i64;
            }
        }
        Ok(gains)
    }

    /// What remains to be written for each part when addresses are predicted by the rules of the pair.
    fn costs(&mut self, pair: &mut Pair, matches: &[Match]) -> Result<Vec<u64>, Error> {
        let mut costs = Vec::new();
        for part in self.parts() {
            let mut cost = part.end - part.start;
            for found in within(matches, &part) {
                cost -= found.len;
                cost += MATCH_COST
                    + differing(&found, self.old, self.new, |old, range, bytes| {
                        Ok(pair.rewrite(old, &found, range, bytes)?)
                    })?;
            }
            costs.push(cost);
        }
        Ok(costs)
    }
}

/// The layout of the new file, told by the parts of the old.
fn layout(was: &Elf, is: &Elf) -> Option<Layout> {
    if was.loads.len() != is.loads.len() || was.machine != is.machine {
        return None;
    }
    let old_zeros: Vec<_> = map::zeros(was).collect();
    let new_zeros: Vec<_> = map::zeros(is).collect();
    let zeros = old_zeros.iter().zip(&new_zeros);
    let mut zeros: Vec<_> = zeros.map(|(old, new)| new.start.wrapping_sub(old.start) as i64).collect();
    zeros.resize(old_zeros.len(), 0);
    Some(Layout { loads: is.loads.clone(), zeros })
}
