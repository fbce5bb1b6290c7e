//! Regions where too much has changed for the models, compressed by zstd: a hundred times faster, and up to twice the
//! size.
//!
//! What is carried in one lane is one zstd frame, cut where regions end. Each part is led by its length, because
//! something else follows it.

use std::fmt;

use zstd::stream::raw::{self, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::{CParameter, DParameter};

use super::piece::{Lane, REGION};
use crate::error::Error;

/// The longest part on the wire: a region that does not compress, and its headers.
pub(super) const MAX_PART: usize = REGION + (REGION >> 4) + 64;

/// The window of a lane, as a power of two. New files repeat themselves over 8 MiB; differences gain nothing from more than
/// what is near.
fn window_log(lane: Lane) -> u32 {
    match lane {
        Lane::Differences => 20,
        Lane::Gaps => 23,
    }
}

/// Compresses what one lane carries.
pub(super) struct Compressor(raw::Encoder<'static>);

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    pub(super) fn new(lane: Lane, level: i32) -> Result<Self, Error> {
        let mut inner = raw::Encoder::new(level)?;
        inner.set_parameter(CParameter::WindowLog(window_log(lane)))?;
        inner.set_parameter(CParameter::ContentSizeFlag(false))?;
        Ok(Self(inner))
    }

    /// Gives the part of the frame that ends with these bytes.
    pub(super) fn part(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut part = vec![0; MAX_PART];
        let mut input = InBuffer::around(bytes);
        let mut output = OutBuffer::around(&mut part[..]);
        while input.pos() < bytes.len() {
            self.0.run(&mut input, &mut output)?;
        }
        while self.0.flush(&mut output)? > 0 {
            if output.pos() == MAX_PART {
                return Err(Error::Limit { what: "a part in bulk", limit: MAX_PART as u64 });
            }
        }
        let written = output.pos();
        part.truncate(written);
        Ok(part)
    }
}

/// Gives back what a [`Compressor`] got.
pub(super) struct Decompressor(raw::Decoder<'static>);

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl Decompressor {
    pub(super) fn new(lane: Lane) -> Result<Self, Error> {
        let mut inner = raw::Decoder::new()?;
        inner.set_parameter(DParameter::WindowLogMax(window_log(lane)))?;
        Ok(Self(inner))
    }

    /// Fills `bytes` from a part; fails unless that is exactly what the part holds.
    pub(super) fn fill(&mut self, part: &[u8], bytes: &mut [u8]) -> Result<(), Error> {
        let wanted = bytes.len();
        let mut input = InBuffer::around(part);
        let mut output = OutBuffer::around(bytes);
        while output.pos() < wanted {
            let before = (input.pos(), output.pos());
            self.0.run(&mut input, &mut output).map_err(|_| Error::Format("bad bytes in bulk"))?;
            if before == (input.pos(), output.pos()) {
                return Err(Error::Format("a part in bulk ends early"));
            }
        }
        if input.pos() < part.len() {
            return Err(Error::Format("a part in bulk is too long"));
        }
        Ok(())
    }
}
