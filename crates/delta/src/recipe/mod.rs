//! How a blob was compressed, so that it can be compressed again to the same bytes.
//!
//! Each family of encoders is a module with one type that implements [`Encode`]. What they have to write is known from
//! the outputs of the real encoders in `tests/vectors/`.

mod blob;
mod deflate;
mod detect;
mod go;
mod klauspost;
mod members;
mod zlib;
mod zstd;

pub use blob::Recipe;
pub(crate) use deflate::{Deflate, Hint};
pub(crate) use zlib::Detector;
pub(crate) use zstd::detect::Candidate as Zstd;

#[cfg(test)]
pub(crate) mod vectors;

/// An encoder that writes, byte for byte, what one of the world's encoders writes.
///
/// What it writes depends on the content and on nothing else: not on how the content is cut into calls, unless the
/// type says so.
pub(crate) trait Encode: Send {
    /// Takes the next bytes of the content, and appends to `out` what is complete.
    fn write(&mut self, content: &[u8], out: &mut Vec<u8>);

    /// Takes note that the content has ended, and appends the rest. Nothing may be written afterwards.
    fn finish(&mut self, out: &mut Vec<u8>);

    /// Begins another stream after the end of one, as a new encoder of the same settings would that expects `len` bytes
    /// of content; `false` when that is no faster than a new one.
    fn restart(&mut self, _len: u64) -> bool {
        false
    }
}
