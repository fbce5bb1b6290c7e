//! From bases and a delta to the target.

use std::io::{Read, Write};

use deltaport_oci::Digest;

use crate::error::Error;
use crate::format::{Blob, Header, Kind};
use crate::patch;
use crate::stream::{Bounded, Expecting, Hashing, copy};
use crate::token;

/// What applying a delta may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest target that is made. Default: 16 GiB.
    pub target_size: u64,
    /// The most memory that is taken: for this version, the bases and the target as the delta's kind looks at them,
    /// and 1 MiB. Default: 1 GiB.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { target_size: 16 << 30, memory: 1 << 30 }
    }
}

impl Limits {
    /// Fails when a delta with this header could not stay within the limits.
    ///
    /// A caller that fetches deltas asks this as soon as it has the header.
    pub fn admit(&self, header: &Header) -> Result<(), Error> {
        if header.target.size > self.target_size {
            return Err(Error::Limit { what: "the target", limit: self.target_size });
        }
        if memory_of(header) > self.memory {
            return Err(Error::Limit { what: "memory", limit: self.memory });
        }
        Ok(())
    }
}

/// The memory that applying a delta with this header takes. Cannot overflow: each part is at most
/// [`MAX_SIZE`](crate::MAX_SIZE).
fn memory_of(header: &Header) -> u64 {
    header.reference_len + header.stream_len + patch::READER_OVERHEAD
}

/// What was made: the delta's target, proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The digest of everything that was written.
    pub digest: Digest,
    /// How many bytes were written.
    pub size: u64,
}

/// Writes the target of a delta to `out`.
///
/// `bases` are the blobs that the delta's header names, in that order; their digests are proven before the first byte
/// is written. `delta` is read to its end. Success means that `out` has received exactly the blob that the header names
/// as target; whether that is the blob which the caller wants is for the caller to compare. After any error, what `out`
/// has received must be thrown away.
///
/// Fails with
/// - [`Error::BaseMismatch`] when a base is not the one that the header names,
/// - [`Error::Format`] when the delta is damaged, or anything follows it,
/// - [`Error::Limit`] when `limits` do not allow it,
/// - [`Error::OutputMismatch`] when a delta that looks right makes something else than its target,
/// - [`Error::Io`] when `bases`, `delta` or `out` do.
pub fn apply<B: Read>(
    bases: &mut [B],
    mut delta: impl Read,
    out: impl Write,
    limits: &Limits,
) -> Result<Applied, Error> {
    let header = Header::read(&mut delta)?;
    limits.admit(&header)?;
    let reference = read_reference(&header, bases)?;

    let mut stream = patch::Reader::open(delta, header.payload_len, &reference, header.stream_len)?;
    let mut out = Expecting::new(out, header.target);
    match header.kind {
        Kind::Raw => _ = copy(&mut stream, &mut out)?,
        Kind::Token => token::encode(&mut stream, &mut out)?,
    }
    let mut delta = stream.finish()?;
    if copy(&mut (&mut delta).take(1), &mut std::io::sink())? > 0 {
        return Err(Error::Format("it goes on behind its end"));
    }
    let (digest, size) = out.finish()?;
    Ok(Applied { digest, size })
}

/// Reads all bases, as the delta's kind looks at them.
fn read_reference<B: Read>(header: &Header, bases: &mut [B]) -> Result<Vec<u8>, Error> {
    if bases.len() != header.bases.len() {
        return Err(Error::BaseMismatch("the delta was made from another number of bases"));
    }
    let over = Error::Limit { what: "memory", limit: header.reference_len };
    let Ok(len) = usize::try_from(header.reference_len) else { return Err(over) };
    let mut reference = Vec::new();
    reference.try_reserve_exact(len).map_err(|_| over)?;
    for (base, expected) in bases.iter_mut().zip(&header.bases) {
        read_base(header.kind, base, expected, &mut reference, header.reference_len)?;
    }
    if reference.len() != len {
        return Err(Error::Format("its bases are not as long as announced"));
    }
    Ok(reference)
}

/// Appends a base to `reference`, which may grow to `most` bytes, and proves that it is the expected one.
fn read_base(
    kind: Kind,
    base: &mut impl Read,
    expected: &Blob,
    reference: &mut Vec<u8>,
    most: u64,
) -> Result<(), Error> {
    // One byte more than expected is enough to see that a base is too long.
    let mut base = Hashing::new(base.take(expected.size + 1), expected.digest.algorithm());
    let looked_at = look_at(kind, &mut base, &mut Bounded::new(reference, most));
    if let Err(error @ Error::Io(_)) = looked_at {
        return Err(error);
    }
    // A wrong base may well be one that cannot be looked at. That it is wrong is what the caller can act upon.
    if base.finish()? != *expected {
        return Err(Error::BaseMismatch("its digest is another"));
    }
    looked_at.map_err(|_| Error::Format("its bases are not what it announces"))
}

/// Writes a blob as a delta's kind looks at it.
pub(crate) fn look_at(kind: Kind, blob: &mut impl Read, view: &mut impl Write) -> Result<(), Error> {
    match kind {
        Kind::Raw => copy(blob, view)?,
        // The writer knows the limit.
        Kind::Token => token::decode(blob, view, u64::MAX)?,
    };
    Ok(())
}
