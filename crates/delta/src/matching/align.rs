//! The cheapest way to make new bytes of old ones: which stretch of old bytes is beside each new byte, if any.
//!
//! bsdiff (Colin Percival, BSD licence) extends exact matches over stretches where more than half of the bytes agree.
//! Here the same question is put as a cheapest path, in the manner of Viterbi: each new byte is a literal or is beside
//! an old byte at some *displacement*, changing costs something, and so does each byte, less if it agrees. An index of
//! short keys says which displacements are worth a try, a step back finds where each should have begun, and only the
//! few that can still win are carried along.

use super::index::{Index, key_at};
use crate::common::common_prefix;

/// What things cost, in 64ths of a byte of the delta.
mod cost {
    /// A byte that agrees.
    pub(super) const EQUAL: u64 = 1;
    /// A byte that does not agree.
    pub(super) const DIFFER: u64 = 64;
    /// A byte with nothing beside it.
    pub(super) const LITERAL: u64 = 46;
    /// To end a match for literals.
    pub(super) const END: u64 = 32;
    /// To begin a match at a displacement of its own.
    pub(super) const BEGIN: u64 = 640;
    /// To begin a match at a displacement that some of the last matches had.
    pub(super) const RETURN: u64 = 256;
    /// To go on after literals at the displacement from before them.
    pub(super) const RESUME: u64 = 128;
}

/// What a byte costs.
#[inline]
fn byte_cost(agrees: bool) -> u64 {
    if agrees { cost::EQUAL } else { cost::DIFFER }
}

/// How many of the last displacements are cheap to return to.
const RECENT: usize = 16;

/// How hard to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// How many places of a key are looked at.
    pub(super) places: usize,
    /// How many displacements are carried along.
    pub(super) tracks: usize,
    /// How many bytes after one that differs new displacements are looked for.
    pub(super) doubt: u32,
    /// A displacement is not in doubt where so many bytes agree from here on.
    pub(super) calm: usize,
}

/// A stretch of new bytes with old bytes beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) new: usize,
    pub(super) old: usize,
    pub(super) len: usize,
}

/// How far back the beginning of a match is looked for, in bytes: a power of two.
const HISTORY: usize = 1 << 16;
/// When to stop looking further back: when so much would have been lost on the way, in 64ths of a byte.
const TOO_MUCH: u64 = 20 * 64;
/// From this many agreeing bytes on, everything but their displacement is forgotten.
const RUN: usize = 64;

/// The displacement of literals.
const LITERAL: i64 = i64::MIN;
/// The event of a state that has never been the best.
const NO_EVENT: u32 = u32::MAX;

/// The most memory that the alignment of `new` bytes takes, in bytes: an event for each.
pub(super) const fn memory(new: usize) -> usize {
    HISTORY * 16 + new * 16
}

/// From `at` on the best way has this displacement, and before it went as `previous` says.
#[derive(Clone, Copy, Debug)]
struct Event {
    at: u32,
    previous: u32,
    displacement: i64,
}

/// A way to have come this far.
#[derive(Clone, Copy, Debug)]
struct Track {
    /// Place in the old bytes minus place in the new ones, or [`LITERAL`].
    displacement: i64,
    cost: u64,
    /// Since when, and what was before.
    start: u32,
    previous: u32,
    /// Its event, once it was the best way.
    event: u32,
    /// How many bytes it stays in doubt.
    doubt: u32,
    /// Up to where it is known to agree.
    agrees: u32,
}

struct Aligner<'a> {
    old: &'a [u8],
    index: &'a Index,
    new: &'a [u8],
    effort: Effort,
    /// The cost of the best way to each of the last places, and its event.
    history: Vec<(u64, u32)>,
    events: Vec<Event>,
    tracks: Vec<Track>,
    literal: Track,
    /// The displacement of the last match that was the best way.
    last: i64,
    /// The displacements of the last matches that were, the last one first.
    recent: [i64; RECENT],
}

/// Returns the stretches of `new` that are worth having old bytes beside them, in order. `index` is of `old`.
///
/// Both have less than 4 GiB; the memory needed for `new` is [`memory`].
pub(super) fn align(old: &[u8], index: &Index, new: &[u8], expected: i64, effort: Effort) -> Vec<Stretch> {
    let literal =
        Track { displacement: LITERAL, cost: 0, start: 0, previous: 0, event: 0, doubt: 0, agrees: 0 };
    let mut aligner = Aligner {
        old,
        index,
        new,
        effort,
        history: vec![(0, 0); HISTORY],
        events: vec![Event { at: 0, previous: 0, displacement: LITERAL }],
        tracks: Vec::with_capacity(effort.tracks + 1),
        literal,
        last: expected,
        recent: [LITERAL; RECENT],
    };
    aligner.run();
    aligner.stretches()
}

impl Aligner<'_> {
    fn run(&mut self) {
        let mut at = 0;
        while at < self.new.len() {
            let best = self.note_best(at);
            if let Some(best) = best {
                let track = self.tracks[best];
                let run = self.agreement(track.displacement, at, usize::MAX);
                self.tracks[best].agrees = (at + run) as u32;
                if run >= RUN {
                    self.jump(best, at, run);
                    at += run;
                    continue;
                }
            }
            if self.in_doubt(best, at) {
                self.look_up(at);
            }
            self.step(at);
            at += 1;
        }
        self.note_best(at);
    }

    /// Finds the cheapest way to `at` and writes it into the history. None is literals.
    fn note_best(&mut self, at: usize) -> Option<usize> {
        let mut best = None;
        let mut cost = self.literal.cost;
        for (index, track) in self.tracks.iter().enumerate() {
            if track.cost <= cost {
                (best, cost) = (Some(index), track.cost);
            }
        }
        let events = &mut self.events;
        let mut event_of = |track: &mut Track| {
            if track.event == NO_EVENT {
                track.event = events.len() as u32;
                events.push(Event {
                    at: track.start,
                    previous: track.previous,
                    displacement: track.displacement,
                });
            }
            track.event
        };
        let event = match best {
            None => event_of(&mut self.literal),
            Some(best) => {
                let track = &mut self.tracks[best];
                let event = event_of(track);
                if self.last != track.displacement {
                    self.last = track.displacement;
                    let kept =
                        self.recent.iter().position(|recent| *recent == self.last).unwrap_or(RECENT - 1);
                    self.recent[..=kept].rotate_right(1);
                    self.recent[0] = self.last;
                }
                if self.literal.cost > cost + cost::END {
                    self.literal.cost = cost + cost::END;
                    self.literal.start = at as u32;
                    self.literal.previous = event;
                    self.literal.event = NO_EVENT;
                }
                event
            }
        };
        self.tracks.retain(|track| track.cost <= cost + cost::BEGIN);
        self.history[at % HISTORY] = (cost, event);
        best.map(|_| {
            let last = self.last;
            self.tracks.iter().position(|track| track.displacement == last).unwrap_or_default()
        })
    }

    /// How many bytes agree from the new place `at` on, at most `limit`.
    fn agreement(&self, displacement: i64, at: usize, limit: usize) -> usize {
        let old = (at as i64 + displacement) as usize;
        let new = &self.new[at..];
        common_prefix(&new[..new.len().min(limit)], self.old.get(old..).unwrap_or_default())
    }

    /// Goes on along one track where `run` bytes agree, and forgets the others.
    fn jump(&mut self, best: usize, at: usize, run: usize) {
        let mut track = self.tracks[best];
        for place in at.max((at + run).saturating_sub(HISTORY))..at + run {
            self.history[place % HISTORY] = (track.cost + (place - at) as u64 * cost::EQUAL, track.event);
        }
        track.cost += run as u64 * cost::EQUAL;
        track.doubt = 0;
        self.tracks.clear();
        self.tracks.push(track);
        self.literal.cost = u64::MAX / 2; // the next note of the best way puts it right
    }

    /// Whether other displacements than the best one are to be looked for.
    fn in_doubt(&self, best: Option<usize>, at: usize) -> bool {
        match best.map(|best| self.tracks[best]) {
            None => true,
            Some(track) => track.doubt > 0 && (track.agrees as usize) < at + self.effort.calm,
        }
    }

    /// Adds the displacements that the index has for the key at `at`.
    fn look_up(&mut self, at: usize) {
        let Some(key) = key_at(self.new, at) else { return };
        let index = self.index;
        let places = index.places(key);
        let expected = (at as i64).saturating_add(self.last);
        let places = nearest(places, expected, self.effort.places);
        // The longest agreement, and the nearest to where the last match was.
        let (mut longest, mut near) = (None, None);
        for &place in places {
            if key_at(self.old, place as usize) != Some(key) {
                continue;
            }
            let displacement = i64::from(place) - at as i64;
            if self.tracks.iter().any(|track| track.displacement == displacement) {
                continue;
            }
            let len = self.agreement(displacement, at, 512);
            let distance = expected.abs_diff(i64::from(place));
            let candidate = (len, u64::MAX - distance, displacement);
            longest = longest.max(Some(candidate));
            near = near.max(Some((u64::MAX - distance, displacement)));
        }
        let longest = longest.map(|(.., displacement)| displacement);
        let near = near.map(|(_, displacement)| displacement).filter(|near| Some(*near) != longest);
        for displacement in [longest, near].into_iter().flatten() {
            self.begin(displacement, at);
        }
    }

    /// Begins a track, where it would have been best to begin it.
    fn begin(&mut self, displacement: i64, at: usize) {
        let (best_cost, best_event) = self.history[at % HISTORY];
        let mut total = best_cost + self.beginning(best_event, displacement);
        let (mut start, mut previous) = (at, best_event);
        let mut spent = 0;
        let reach = at.min(HISTORY - 1).min((at as i64 + displacement) as usize);
        for back in 1..=reach {
            let place = at - back;
            let old = (place as i64 + displacement) as usize;
            spent += byte_cost(self.new[place] == self.old[old]);
            let (cost, event) = self.history[place % HISTORY];
            if cost + spent < total {
                let all = cost + spent + self.beginning(event, displacement);
                if all < total {
                    (total, start, previous) = (all, place, event);
                }
            } else if cost + spent > total + TOO_MUCH {
                break;
            }
        }
        if self.tracks.len() >= self.effort.tracks {
            let Some(worst) = self.tracks.iter().enumerate().max_by_key(|(_, track)| track.cost) else {
                return;
            };
            if worst.1.cost < total {
                return;
            }
            self.tracks.remove(worst.0);
        }
        self.tracks.push(Track {
            displacement,
            cost: total,
            start: start as u32,
            previous,
            event: NO_EVENT,
            doubt: 0,
            agrees: 0,
        });
    }

    /// What it costs to begin a match after an event.
    fn beginning(&self, event: u32, displacement: i64) -> u64 {
        let event = self.events[event as usize];
        if event.displacement == displacement {
            0
        } else if event.displacement == LITERAL
            && self.events[event.previous as usize].displacement == displacement
        {
            cost::RESUME
        } else if self.recent.contains(&displacement) {
            cost::RETURN
        } else {
            cost::BEGIN
        }
    }

    /// Takes the byte at `at` in all ways.
    fn step(&mut self, at: usize) {
        let (old, byte, doubt) = (self.old, self.new[at], self.effort.doubt);
        self.literal.cost += cost::LITERAL;
        self.tracks.retain_mut(|track| {
            let Some(beside) = old.get((at as i64 + track.displacement) as usize) else { return false };
            let agrees = *beside == byte;
            track.cost += byte_cost(agrees);
            track.doubt = if agrees { track.doubt.saturating_sub(1) } else { doubt };
            true
        });
    }

    /// Follows the best way back from the end.
    fn stretches(self) -> Vec<Stretch> {
        let mut end = self.new.len();
        let (_, mut event) = self.history[end % HISTORY];
        let mut stretches: Vec<Stretch> = Vec::new();
        loop {
            let Event { at, previous, displacement } = self.events[event as usize];
            let new = at as usize;
            if displacement != LITERAL && end > new {
                let old = (i64::from(at) + displacement) as usize;
                match stretches.last_mut() {
                    Some(next) if next.new == end && next.old == old + (end - new) => {
                        *next = Stretch { new, old, len: next.len + (end - new) };
                    }
                    _ => stretches.push(Stretch { new, old, len: end - new }),
                }
            }
            end = new;
            if event == 0 {
                break;
            }
            event = previous;
        }
        stretches.reverse();
        stretches
    }
}

/// The `count` places that are nearest to `expected`.
fn nearest(places: &[u32], expected: i64, count: usize) -> &[u32] {
    if places.len() <= count {
        return places;
    }
    let after = places.partition_point(|place| i64::from(*place) < expected);
    let start = after.saturating_sub(count / 2).min(places.len() - count);
    &places[start..start + count]
}

const _: () = assert!(HISTORY.is_power_of_two());
