//! Which regions of the new content the models look at, so that applying a delta never takes much longer than
//! compressing what it makes.
//!
//! The models make the smallest deltas and code about a million decisions a second. Where little has changed they are
//! hardly asked anything. Where much has changed, they would take many times as long as everything else, and longer
//! than a slow link needs for the bytes that they save; what is beyond their budget goes in bulk. The budget is counted in
//! estimated nanoseconds: an estimate is the same on every machine, and so are the bytes that come of it.

use super::Reference;
use super::pace::{self, Pace};
use super::piece::{Place, Walk};
use crate::common::common_prefix;
use crate::content::Content;
use crate::error::Error;
use crate::matching::Match;

/// What the models may take for each byte of new content, in estimated picoseconds: a third of what the fastest encoders
/// of layers take on one core.
const BUDGET: u64 = 5000;

/// What they may take in any case, likewise: 30 ms.
const FLOOR: u64 = 30_000_000_000;

/// How far behind a change bytes are looked at closely.
const REACH: u64 = 64;

/// The part of all that they may take where it is not enough for everything: what has changed so much takes its time
/// elsewhere, too.
const RICH_SHARE: u64 = 3;

/// What models may take for some new content, in estimated picoseconds.
pub(super) fn budget(new_len: u64) -> u64 {
    FLOOR + new_len.saturating_mul(BUDGET)
}

/// What a part of the new content costs to go through the models, in estimated picoseconds, as measured on one core of a
/// server of the early 2020s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Costs {
    /// A match or a part of one.
    pub(super) matched: u64,
    /// A byte that is not as expected.
    pub(super) changed: u64,
    /// A byte that is, within [`REACH`] of one that is not.
    pub(super) near: u64,
    /// A byte between matches.
    pub(super) literal: u64,
}

/// What there is in a region.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    matched: u64,
    changed: u64,
    near: u64,
    literal: u64,
}

impl Counts {
    /// Counts what is in a match.
    fn stretch(&mut self, bytes: &[u8], expected: &[u8]) {
        self.matched += 1;
        let (mut at, mut reach) = (0, 0);
        while at < bytes.len() {
            let same = common_prefix(&bytes[at..], &expected[at..]);
            self.near += reach.min(same as u64);
            at += same;
            if at < bytes.len() {
                self.changed += 1;
                (reach, at) = (REACH, at + 1);
            }
        }
    }

    fn cost(&self, pace: &Pace) -> u64 {
        let costs = &pace.costs;
        self.matched * costs.matched
            + self.changed * costs.changed
            + self.near * costs.near
            + self.literal * costs.literal
    }
}

/// At which pace the models work, and where.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) pace: &'static Pace,
    /// The lengths of runs of regions: the first go through the models, the next in bulk, and so on in turn. Only the
    /// first may be 0; without any content there are none.
    pub(super) runs: Vec<u64>,
}

impl Plan {
    /// Plans by what is in each region: at the first pace with which the models can look at everything, or at the last
    /// one, and then at the regions that cost least. Where little has changed they save most for their time.
    pub(super) fn new(
        matches: &[Match],
        reference: &mut impl Reference,
        new: &mut impl Content,
        paces: &[&'static Pace],
    ) -> Result<Self, Error> {
        let counts = count(matches, reference, new)?;
        let budget = budget(new.len());
        let (mut pace, mut costs) = (&pace::QUICK, Vec::new());
        for allowed in paces {
            pace = *allowed;
            costs = counts.iter().map(|counts| counts.cost(pace)).collect();
            if costs.iter().sum::<u64>() <= budget {
                break;
            }
        }
        let budget = if costs.iter().sum::<u64>() <= budget { budget } else { budget / RICH_SHARE };
        let mut order: Vec<usize> = (0..costs.len()).collect();
        order.sort_by_key(|region| (costs[*region], *region));
        let mut in_bulk = vec![false; costs.len()];
        let mut spent = 0;
        for region in order {
            spent += costs[region];
            in_bulk[region] = spent > budget;
        }
        Ok(Self { pace, runs: runs(in_bulk) })
    }
}

/// How many regions in a row go the same way.
fn runs(in_bulk: Vec<bool>) -> Vec<u64> {
    let mut runs = Vec::new();
    let mut last = None;
    for bulk in in_bulk {
        match runs.last_mut() {
            Some(run) if last == Some(bulk) => *run += 1,
            // The first run is never in bulk.
            None if bulk => runs.extend([0, 1]),
            _ => runs.push(1),
        }
        last = Some(bulk);
    }
    runs
}

/// Counts what is in each region.
fn count(
    matches: &[Match],
    reference: &mut impl Reference,
    new: &mut impl Content,
) -> Result<Vec<Counts>, Error> {
    let (mut regions, mut walk, new_len) = (Vec::new(), Walk::default(), new.len());
    let [mut bytes, mut expected] = [const { Vec::new() }; 2];
    while walk.at < new_len {
        let (start, end) = (walk.at, walk.region_end(new_len));
        bytes.resize((end - start) as usize, 0);
        new.read_at(start, &mut bytes)?;
        let mut counts = Counts::default();
        while let Some(piece) = walk.piece(matches, end, new_len) {
            let bytes = &bytes[(walk.at - start) as usize - piece.len..][..piece.len];
            match piece.place {
                Place::Match(found, done) => {
                    expected.resize(piece.len, 0);
                    reference.read(found.new + done, found.old + done, &mut expected)?;
                    counts.stretch(bytes, &expected);
                }
                Place::Gap(_) => counts.literal += piece.len as u64,
            }
        }
        regions.push(counts);
    }
    Ok(regions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Unchanged;

    #[test]
    fn runs_take_turns() {
        assert!(runs(vec![]).is_empty());
        assert_eq!(runs(vec![false, false]), [2]);
        assert_eq!(runs(vec![true]), [0, 1]);
        assert_eq!(runs(vec![false, true, true, false]), [1, 2, 1]);
    }

    #[test]
    fn everything_is_counted() {
        let old = [0; 1000];
        let mut new = old;
        new[100] = 1;
        new[120] = 1;
        new[300] = 1;
        let matches = [Match { new: 0, old: 0, len: 350 }, Match { new: 500, old: 500, len: 400 }];
        let counts = count(&matches, &mut Unchanged(&old[..]), &mut &new[..]).unwrap();
        let Counts { matched, changed, near, literal } = counts[0];
        assert_eq!((counts.len(), matched, changed, near, literal), (1, 2, 3, 19 + 64 + 49, 250));
    }

    #[test]
    fn what_costs_most_is_what_goes_in_bulk() {
        let old = vec![0; 40 << 20];
        let mut new = old.clone();
        // The second region would take nearly all that there is, and the last more than is left.
        let most = (budget(new.len() as u64) / pace::QUICK.costs.changed) as usize;
        new[128 << 10..][..most * 9 / 10].fill(1);
        let end = new.len();
        new[end - most / 4..].fill(1);
        let matches = [Match { new: 0, old: 0, len: old.len() as u64 }];
        let paces = [&pace::CLOSE, &pace::QUICK];
        let plan = Plan::new(&matches, &mut Unchanged(&old[..]), &mut &new[..], &paces).unwrap();
        assert_eq!((plan.pace, plan.runs), (&pace::QUICK, vec![1, 1, 318]));
    }
}
