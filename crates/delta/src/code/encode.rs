//! Writing the content section.

use std::io::Read;

use super::Reference;
use super::arith::{self, Coder};
use super::bulk::Compressor;
use super::pace::{self, Pace};
use super::piece::{Channel, PIECE, Place, Stage};
use crate::error::Error;
use crate::matching::Match;

/// How much work goes into a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Fast to make and to apply.
    Fast,
    /// The smallest.
    Best,
}

impl Effort {
    /// The most bytes in gaps, in all, that go through the models: they make less than 1 MB/s, at both
    /// ends. Short gaps are not counted out: they go through the models however many there are.
    fn modelled(self) -> u64 {
        match self {
            Self::Fast => 256 << 10,
            Self::Best => 1 << 20,
        }
    }

    /// How closely matches are looked at.
    fn pace(self) -> &'static Pace {
        match self {
            Self::Fast => &pace::QUICK,
            Self::Best => &pace::CLOSE,
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
    /// New content inside matches.
    pub(crate) matched: u64,
    /// New content between matches, that went through the models.
    pub(crate) literal: u64,
    /// New content between matches, that went in bulk.
    pub(crate) bulk: u64,
    /// Written for what is inside matches, and about that.
    pub(crate) matched_coded: u64,
    /// Written for literals, likewise.
    pub(crate) literal_coded: u64,
    /// Written for bulk.
    pub(crate) bulk_coded: u64,
}

/// No gap is carried in bulk that is shorter than 2^14 bytes: it would cost more in headers than it saves in time.
pub(super) const LEAST_BULK: u8 = 14;
/// The exponent that says that no gap is carried in bulk.
pub(super) const NO_BULK: u8 = 63;
/// How many bits of the first byte are that exponent; those above are the pace.
pub(super) const EXPONENT_BITS: u32 = 6;

/// The exponent of the length from which on gaps go in bulk, so that the others hold at most `modelled` bytes.
fn bulk_from(matches: &[Match], new_len: u64, modelled: u64) -> u8 {
    let mut by_magnitude = [0_u64; 64];
    let mut end = 0;
    let ends = std::iter::once(Match { new: new_len, old: 0, len: 0 });
    for found in matches.iter().copied().chain(ends) {
        let gap = found.new.saturating_sub(end);
        if gap > 0 {
            by_magnitude[gap.ilog2().min(NO_BULK.into()) as usize] += gap;
        }
        end = found.new.saturating_add(found.len);
    }
    let mut sum = 0;
    for (magnitude, bytes) in by_magnitude.into_iter().enumerate() {
        sum += bytes;
        if sum > modelled && magnitude >= LEAST_BULK.into() {
            return magnitude as u8;
        }
    }
    NO_BULK
}

/// Writes what is coded to a vector.
#[derive(Debug)]
struct Writing<'a> {
    coder: arith::Encoder<'a>,
    /// Whether decisions were coded since the last bytes in bulk.
    stretch: bool,
    level: i32,
    compressor: Option<Compressor>,
}

impl Writing<'_> {
    fn stop(&mut self) {
        if self.stretch {
            self.coder.stop();
            self.stretch = false;
        }
    }
}

impl Coder for Writing<'_> {
    #[inline]
    fn code(&mut self, bit: bool, one: u16) -> bool {
        self.stretch = true;
        self.coder.code(bit, one)
    }
}

impl Channel for Writing<'_> {
    fn bulk(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.stop();
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(self.level)?),
        };
        let part = compressor.part(bytes)?;
        self.coder.out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        self.coder.out.extend_from_slice(&part);
        Ok(())
    }
}

/// Appends the content section: all of the new content, given the old and the matches.
///
/// `new` has exactly `new_len` bytes; the matches are as in [`super::encode_matches`]. Fails when reading does, or
/// with [`Error::Format`] when the matches do not fit.
pub(crate) fn encode_content(
    matches: &[Match],
    reference: impl Reference,
    new: impl Read,
    new_len: u64,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<Sizes, Error> {
    encode_content_within(u64::MAX, matches, reference, new, new_len, effort, out)
}

/// The same, but gives up with [`Error::NotWorthIt`] when `out` has more bytes than `allowed`.
pub(crate) fn encode_content_within(
    allowed: u64,
    matches: &[Match],
    reference: impl Reference,
    mut new: impl Read,
    new_len: u64,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Result<Sizes, Error> {
    let exponent = bulk_from(matches, new_len, effort.modelled());
    let pace = effort.pace();
    let mut stage = Stage::new(matches, reference, new_len, 1 << exponent, pace)?;
    out.push(exponent | pace.code << EXPONENT_BITS);
    let mut writing =
        Writing { coder: arith::Encoder::new(out), stretch: false, level: effort.level(), compressor: None };
    let mut sizes = Sizes::default();
    let mut buffer = vec![0; PIECE];
    while let Some(piece) = stage.piece() {
        let bytes = &mut buffer[..piece.len];
        new.read_exact(bytes)?;
        let before = writing.coder.out.len();
        stage.code(&mut writing, piece, bytes)?;
        let (raw, coded) = match piece.place {
            Place::Match(..) => (&mut sizes.matched, &mut sizes.matched_coded),
            Place::Gap(gap) if stage.in_bulk(gap) => (&mut sizes.bulk, &mut sizes.bulk_coded),
            Place::Gap(_) => (&mut sizes.literal, &mut sizes.literal_coded),
        };
        *raw += piece.len as u64;
        *coded += (writing.coder.out.len() - before) as u64;
        if writing.coder.out.len() as u64 > allowed {
            return Err(Error::NotWorthIt { allowed });
        }
    }
    writing.stop();
    Ok(sizes)
}
