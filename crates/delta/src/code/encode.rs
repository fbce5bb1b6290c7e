//! Writing the content section.

use super::Reference;
use super::arith::{self, Coder};
use super::bulk::Compressor;
use super::matches::validate;
use super::pace::{self, Pace};
use super::piece::{Channel, Lane, REGION, Stage};
use super::plan::Plan;
use crate::content::Content;
use crate::error::Error;
use crate::format::codec::write_varint;
use crate::matching::Match;

/// What content is small, in bytes.
const SMALL: u64 = 2 << 20;

/// How much work goes into a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Fast to make and to apply.
    Fast,
    /// The smallest.
    Best,
}

impl Effort {
    /// The paces that are tried, the closest first.
    fn paces(self, new_len: u64) -> &'static [&'static Pace] {
        match self {
            Self::Fast => &[&pace::QUICK],
            Self::Best if new_len < SMALL => &[&pace::SMALL, &pace::QUICK],
            Self::Best => &[&pace::CLOSE, &pace::QUICK],
        }
    }

    /// The level of zstd for the rest.
    fn level(self) -> i32 {
        match self {
            Self::Fast => 12,
            Self::Best => 19,
        }
    }
}

/// What the content section holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// New content that went through the models, and what was written for it.
    pub(crate) modelled: u64,
    pub(crate) modelled_coded: u64,
    /// New content that went in bulk, likewise.
    pub(crate) bulk: u64,
    pub(crate) bulk_coded: u64,
}

/// Writes what is coded to a vector.
#[derive(Debug)]
struct Writing<'a> {
    coder: arith::Encoder<'a>,
    level: i32,
    /// By lane.
    compressors: [Option<Compressor>; 2],
}

impl Coder for Writing<'_> {
    #[inline]
    fn code(&mut self, bit: bool, one: u16) -> bool {
        self.coder.code(bit, one)
    }
}

impl Channel for Writing<'_> {
    fn bulk(&mut self, lane: Lane, bytes: &mut [u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let compressor = match &mut self.compressors[lane as usize] {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(lane, self.level)?),
        };
        let part = compressor.part(bytes)?;
        write_varint(self.coder.out, part.len() as u64);
        self.coder.out.extend_from_slice(&part);
        Ok(())
    }
}

/// Appends the content section: all of the new content, given the old and the matches.
///
/// The matches are as in [`super::encode_matches`]. Fails when reading does, or with [`Error::Format`] when the matches
/// do not fit.
pub(crate) fn encode_content(
    matches: &[Match],
    reference: impl Reference,
    new: impl Content,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<Sizes, Error> {
    encode_content_within(u64::MAX, matches, reference, new, effort, out)
}

/// The same, but gives up with [`Error::NotWorthIt`] when `out` has more bytes than `allowed`.
pub(crate) fn encode_content_within(
    allowed: u64,
    matches: &[Match],
    mut reference: impl Reference,
    mut new: impl Content,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<Sizes, Error> {
    validate(matches, reference.old_len(), new.len())?;
    let paces = effort.paces(new.len());
    let Plan { pace, runs } = Plan::new(matches, &mut reference, &mut new, paces)?;
    let mut stage = Stage::new(matches, reference, new.len(), pace)?;
    out.push(pace.code);
    let mut writing =
        Writing { coder: arith::Encoder::new(out), level: effort.level(), compressors: [None, None] };
    let mut sizes = Sizes::default();
    let (mut at, mut buffer) = (0, vec![0; REGION]);
    for (turn, run) in runs.into_iter().enumerate() {
        let before = (writing.coder.out.len(), at);
        write_varint(writing.coder.out, run);
        let in_bulk = turn % 2 == 1;
        for _ in 0..run {
            let bytes = &mut buffer[..stage.region()];
            new.read_at(at, bytes)?;
            if in_bulk {
                stage.bulk(&mut writing, bytes)?
            } else {
                stage.model(&mut writing, bytes)?
            }
            at += bytes.len() as u64;
            if writing.coder.out.len() as u64 > allowed {
                return Err(Error::NotWorthIt { allowed });
            }
        }
        if !in_bulk && run > 0 {
            writing.coder.stop();
        }
        let (coded, raw) = ((writing.coder.out.len() - before.0) as u64, at - before.1);
        if in_bulk {
            (sizes.bulk, sizes.bulk_coded) = (sizes.bulk + raw, sizes.bulk_coded + coded);
        } else {
            (sizes.modelled, sizes.modelled_coded) = (sizes.modelled + raw, sizes.modelled_coded + coded);
        }
    }
    Ok(sizes)
}
