//! From bases and a target to a delta.

use std::io::{self, Read, Seek};

use deltaport_oci::Algorithm;

use crate::apply::{Limits, apply, look_at};
use crate::error::Error;
use crate::format::{Blob, Header, Kind, MAX_BASES};
use crate::patch::{self, Effort};
use crate::stream::{Bounded, Hashing};

/// How a delta is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The hash by which the delta names its bases and its target: the one that their manifests use. Default: SHA-256.
    pub algorithm: Algorithm,
    /// The zstd level, 5 to 12; anything else is taken as the nearest of these. Default: 9.
    pub level: i32,
    /// The most memory that is taken. This version keeps the bases and the target in it, as the delta's kind looks at
    /// them, and searches the better the more is left: best with five to ten times the size of the bases. Default:
    /// 1 GiB.
    pub memory: u64,
    /// The largest delta that is worth it, in percent of the target's size. Default: 70.
    pub worth_percent: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { algorithm: Algorithm::Sha256, level: 9, memory: 1 << 30, worth_percent: 70 }
    }
}

/// A delta that was proven to give its target back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delta {
    /// What the delta says about itself.
    pub header: Header,
    /// The whole delta.
    pub bytes: Vec<u8>,
}

/// Makes the smallest delta from `bases` to `target` that this version knows, and proves it by applying it.
///
/// All inputs are read from their starts, several times. The same inputs and options give the same bytes for as long as
/// the version of the zstd library stays the same.
///
/// Fails with
/// - [`Error::NotWorthIt`] when every delta is larger than `options` allow,
/// - [`Error::Limit`] when none was found and one could not be tried within `options.memory`,
/// - [`Error::BaseMismatch`] when `bases` are none or more than [`MAX_BASES`], or change meanwhile,
/// - [`Error::Io`] when `bases` or `target` do.
pub fn create<B: Read + Seek, T: Read + Seek>(
    bases: &mut [B],
    target: &mut T,
    options: &Options,
) -> Result<Delta, Error> {
    if bases.is_empty() || bases.len() > MAX_BASES {
        return Err(Error::BaseMismatch("a delta has at least one base and at most 16"));
    }
    let best = smallest(bases, target, options)?;
    prove(bases, &best, options)?;
    Ok(best)
}

/// Tries every kind; each has to be smaller than what the ones before have made.
fn smallest<B: Read + Seek, T: Read + Seek>(
    bases: &mut [B],
    target: &mut T,
    options: &Options,
) -> Result<Delta, Error> {
    let allowed = allowed(target.seek(io::SeekFrom::End(0))?, options);
    let mut best: Result<Delta, _> = Err(Error::NotWorthIt { allowed });
    let mut compressed = false;
    for kind in [Kind::Token, Kind::Raw] {
        let effort = Effort {
            level: options.level,
            most: best.as_ref().map_or(allowed, |delta| delta.bytes.len() as u64 - 1),
            memory: options.memory,
            compressed,
        };
        match attempt(kind, bases, target, options.algorithm, effort) {
            Ok(found) => {
                // What has token streams is gzip.
                compressed = kind == Kind::Token;
                best = found.map_or(best, Ok);
            }
            Err(Error::Unrepresentable(_)) => {}
            // Whether it would have been worth it is not known, so "not worth it" must not be the answer.
            Err(limit @ Error::Limit { .. }) => best = best.or(Err(limit)),
            Err(error) => return Err(error),
        }
    }
    best
}

/// The largest delta that is worth it.
fn allowed(target_size: u64, options: &Options) -> u64 {
    let allowed = u128::from(target_size) * u128::from(options.worth_percent) / 100;
    u64::try_from(allowed).unwrap_or(u64::MAX)
}

/// Makes a delta of the given kind, `None` when it would have more than `effort.most` bytes.
fn attempt<B: Read + Seek, T: Read + Seek>(
    kind: Kind,
    bases: &mut [B],
    target: &mut T,
    algorithm: Algorithm,
    mut effort: Effort,
) -> Result<Option<Delta>, Error> {
    let views = Views::read(kind, bases, target, algorithm, effort.memory)?;
    effort.memory -= views.bytes.len() as u64;
    let mut header = views.header(kind);
    let Some(most) = effort.most.checked_sub(header.to_bytes().len() as u64) else { return Ok(None) };
    effort.most = most;
    let Some(payload) = patch::write(&views.bytes, views.reference_len, &effort)? else { return Ok(None) };
    drop(views);
    header.payload_len = payload.len() as u64;
    let mut bytes = header.to_bytes();
    bytes.extend_from_slice(&payload);
    Ok(Some(Delta { header, bytes }))
}

/// All bases and the target, as a kind looks at them, and what the blobs themselves are.
struct Views {
    /// The bases, and right behind them the target.
    bytes: Vec<u8>,
    reference_len: usize,
    bases: Vec<Blob>,
    target: Blob,
}

impl Views {
    /// Reads everything, into at most `memory` bytes.
    fn read<B: Read + Seek, T: Read + Seek>(
        kind: Kind,
        bases: &mut [B],
        target: &mut T,
        algorithm: Algorithm,
        memory: u64,
    ) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let mut blobs = Vec::with_capacity(bases.len());
        for base in bases {
            blobs.push(append(kind, base, algorithm, &mut bytes, memory)?);
        }
        let reference_len = bytes.len();
        let target = append(kind, target, algorithm, &mut bytes, memory)?;
        Ok(Self { bytes, reference_len, bases: blobs, target })
    }

    /// The header of the delta between them, but for the length of its payload.
    fn header(&self, kind: Kind) -> Header {
        Header {
            kind,
            bases: self.bases.clone(),
            target: self.target,
            reference_len: self.reference_len as u64,
            stream_len: (self.bytes.len() - self.reference_len) as u64,
            payload_len: 0,
        }
    }
}

/// Appends a blob as the kind looks at it, and says what the blob itself is.
fn append<R: Read + Seek>(
    kind: Kind,
    blob: &mut R,
    algorithm: Algorithm,
    bytes: &mut Vec<u8>,
    memory: u64,
) -> Result<Blob, Error> {
    blob.rewind()?;
    let mut blob = Hashing::new(blob, algorithm);
    look_at(kind, &mut blob, &mut Bounded::new(bytes, memory))?;
    blob.finish()
}

/// Applies a delta, so that nothing leaves this crate which does not give its target back.
fn prove<B: Read + Seek>(bases: &mut [B], delta: &Delta, options: &Options) -> Result<(), Error> {
    for base in &mut *bases {
        base.rewind()?;
    }
    let limits = Limits { target_size: delta.header.target.size, memory: options.memory };
    apply(bases, &delta.bytes[..], io::sink(), &limits)?;
    Ok(())
}
