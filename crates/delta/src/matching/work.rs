//! Pairs of files put side by side: read, indexed and aligned, as many at once as memory and threads allow.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::align::{self, Effort, Stretch};
use super::index::Index;
use super::layout::Segment;
use super::pair::Pair;
use super::{MAX_MATCHES, MIN_MEMORY, Match, Options, Profile, tidy};
use crate::content::Content;
use crate::error::Error;

/// How much of a new file is aligned at once, in bytes. Pieces of one file share its index.
const PIECE: usize = 4 << 20;
/// Files up to this size are indexed at each place whatever the profile, in bytes.
const SMALL: u64 = 256 << 10;
/// The coarsest sample of an index, in bytes.
const MAX_STEP: usize = 32;
/// How many jobs are in memory at once.
const MAX_BATCH: usize = 4096;
/// How much of the new content is aligned before what was found is taken down, in bytes: a stretch of a few bytes is
/// one of three times as many.
const MAX_ALIGNED: usize = 8 * PIECE;

/// A stretch of the new content, and the stretches of the old content that it is searched in.
#[derive(Debug)]
struct Job {
    new: Range<u64>,
    olds: Vec<Range<u64>>,
    step: usize,
}

impl Job {
    fn old_len(&self) -> u64 {
        self.olds.iter().map(|old| old.end - old.start).sum()
    }

    /// What it needs while it is worked on, without the alignment.
    fn memory(&self) -> u64 {
        self.old_len()
            + (self.new.end - self.new.start)
            + Index::memory(self.old_len() as usize, self.step) as u64
    }
}

/// A job with its bytes in memory.
#[derive(Debug)]
struct Loaded<'a> {
    job: &'a Job,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// Aligns all pairs, and adds to the matches, in no order. Of far too many, the shortest are dropped.
pub(super) fn align_pairs(
    old: &mut impl Content,
    old_layout: &[Segment],
    new: &mut impl Content,
    new_layout: &[Segment],
    pairs: &[Pair],
    options: Options,
    matches: &mut Vec<Match>,
) -> Result<(), Error> {
    // Each thread has a piece in work. To leave the matches alone by the threads, two are always reckoned with.
    let total = options.memory.max(MIN_MEMORY);
    let piece = piece_len(total);
    let budget = total.saturating_sub(2 * align::memory(piece) as u64).max(total / 4);
    let mut jobs = Vec::new();
    for pair in pairs {
        let olds = pair.olds.iter().map(|old| old_layout[*old].start..old_layout[*old].end()).collect();
        let segment = &new_layout[pair.new];
        plan(segment.start..segment.end(), olds, budget, options.profile, &mut jobs);
    }
    let effort = effort(options.profile);
    let mut rest = jobs.as_slice();
    while !rest.is_empty() {
        let mut memory = 0;
        let fits = |job: &&Job| {
            memory += job.memory();
            memory <= budget
        };
        let count = rest.iter().take(MAX_BATCH).take_while(fits).count().max(1);
        let (batch, later) = rest.split_at(count);
        rest = later;
        let left = budget.saturating_sub(batch.iter().map(Job::memory).sum());
        let threads = options.threads.clamp(1, 2 + (left / align::memory(piece) as u64) as usize);
        let loaded = batch.iter().map(|job| load(old, new, job)).collect::<Result<Vec<_>, Error>>()?;
        let indexes =
            in_parallel(threads, loaded.len(), |at| Index::new(&loaded[at].old, loaded[at].job.step));
        let pieces: Vec<(usize, Range<usize>)> = loaded
            .iter()
            .enumerate()
            .flat_map(|(at, job)| cut(job.new.len(), piece).map(move |cut| (at, cut)))
            .collect();
        let mut pieces = pieces.as_slice();
        while !pieces.is_empty() {
            let (now, later) = pieces.split_at(first_of(pieces, MAX_ALIGNED).min(pieces.len()));
            pieces = later;
            let found = in_parallel(threads, now.len(), |at| {
                let (at, range) = &now[at];
                let job = &loaded[*at];
                // The same relative place is as good a guess as any.
                let expected =
                    range.start as i64 * (job.old.len() as i64 - job.new.len() as i64) / job.new.len() as i64;
                let new = &job.new[range.clone()];
                align::align(&job.old, &indexes[*at], new, expected + range.start as i64, effort)
            });
            for ((at, range), stretches) in now.iter().zip(found) {
                let job = loaded[*at].job;
                for stretch in stretches {
                    place(job, Stretch { new: stretch.new + range.start, ..stretch }, matches);
                }
            }
            if matches.len() > 2 * MAX_MATCHES {
                *matches = tidy::limit(std::mem::take(matches));
            }
        }
    }
    Ok(())
}

/// The first of the pieces, at least one: those that have at most `most` bytes together.
fn first_of(pieces: &[(usize, Range<usize>)], most: usize) -> usize {
    let mut sum = 0;
    let fits = |(_, range): &&(usize, Range<usize>)| {
        sum += range.len();
        sum <= most
    };
    pieces.iter().take_while(fits).count().max(1)
}

/// How much of a new file is aligned at once.
fn piece_len(memory: u64) -> usize {
    PIECE.min((memory / 8 / 16) as usize).max(64 << 10)
}

/// What the profiles spend.
fn effort(profile: Profile) -> Effort {
    match profile {
        Profile::Best => Effort { places: 8, tracks: 6, doubt: 8, calm: 16 },
        Profile::Fast => Effort { places: 4, tracks: 3, doubt: 2, calm: 12 },
    }
}

/// Makes the jobs for a new stretch: one, or several on windows of the old content if it does not fit.
fn plan(new: Range<u64>, olds: Vec<Range<u64>>, budget: u64, profile: Profile, jobs: &mut Vec<Job>) {
    let mut job = Job { new, olds, step: 1 };
    let old_len = job.old_len();
    if profile == Profile::Fast && old_len > SMALL {
        job.step = 4;
    }
    while job.memory() > budget && job.step < MAX_STEP {
        job.step *= 2;
    }
    if job.memory() <= budget && old_len < u64::from(u32::MAX) {
        jobs.push(job);
        return;
    }
    // Windows of the new and the old stretch at the same relative place. The best old file has to do.
    let Some(old) = job.olds.first().cloned() else { return };
    let old_len = old.end - old.start;
    let new_len = job.new.end - job.new.start;
    let window = (budget / 4).min(u64::from(u32::MAX) / 4);
    let mut at = 0;
    while at < new_len {
        let len = (new_len - at).min(window);
        let middle = (u128::from(at + len / 2) * u128::from(old_len) / u128::from(new_len)) as u64;
        let start = middle.saturating_sub(window / 2).min(old_len.saturating_sub(window));
        let end = (start + window).min(old_len);
        jobs.push(Job {
            new: job.new.start + at..job.new.start + at + len,
            olds: vec![Range { start: old.start + start, end: old.start + end }],
            step: 8,
        });
        at += len;
    }
}

/// Reads what a job needs.
fn load<'a>(old: &mut impl Content, new: &mut impl Content, job: &'a Job) -> Result<Loaded<'a>, Error> {
    let mut new_bytes = vec![0; (job.new.end - job.new.start) as usize];
    new.read_at(job.new.start, &mut new_bytes)?;
    let mut old_bytes = vec![0; job.old_len() as usize];
    let mut at = 0;
    for range in &job.olds {
        let len = (range.end - range.start) as usize;
        old.read_at(range.start, &mut old_bytes[at..at + len])?;
        at += len;
    }
    Ok(Loaded { job, old: old_bytes, new: new_bytes })
}

/// Cuts `len` bytes into pieces.
fn cut(len: usize, piece: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(piece).map(move |start| start..len.min(start + piece))
}

/// Puts a stretch of a job where it is in the contents; where it runs from one old file into the next, it is cut.
fn place(job: &Job, stretch: Stretch, matches: &mut Vec<Match>) {
    let (start, end) = (stretch.old as u64, (stretch.old + stretch.len) as u64);
    let mut at = 0;
    for old in &job.olds {
        let old_len = old.end - old.start;
        let (from, to) = (start.max(at), end.min(at + old_len));
        if from < to {
            matches.push(Match {
                new: job.new.start + stretch.new as u64 + (from - start),
                old: old.start + (from - at),
                len: to - from,
            });
        }
        at += old_len;
    }
}

/// Does `work` for each number below `count`, and returns what it gave in the order of the numbers.
fn in_parallel<T: Send>(threads: usize, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if threads <= 1 || count <= 1 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let one_thread = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return done;
            }
            done.push((at, work(at)));
        }
    };
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(one_thread)).collect();
        let mut done = one_thread();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, value)| value).collect()
}
