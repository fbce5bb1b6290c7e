//! Compressing again what was unfolded.

use std::io::{self, Write};

use super::Fold;
use crate::error::Error;
use crate::gzip;
use crate::recipe::Encode;

/// How many compressed bytes are gathered before they are passed on.
const BUFFER: usize = 64 << 10;

/// A writer of unfolded content that passes on the content as it was.
pub(crate) struct Folder<'a, W> {
    inner: W,
    /// What is still to come; the first may have been begun.
    folds: &'a [Fold],
    /// How many bytes were taken.
    at: u64,
    /// What compresses the first of `folds`, once it was begun.
    encoder: Option<Box<dyn Encode>>,
    trailer: gzip::Trailer,
    buffer: Vec<u8>,
}

impl<'a, W: Write> Folder<'a, W> {
    /// Compresses the stretches of `folds`, which are in order and do not overlap.
    pub(crate) fn new(inner: W, folds: &'a [Fold]) -> Self {
        Self { inner, folds, at: 0, encoder: None, trailer: gzip::Trailer::default(), buffer: Vec::new() }
    }

    /// Fails unless all stretches were there.
    pub(crate) fn finish(self) -> Result<W, Error> {
        if !self.folds.is_empty() {
            return Err(Error::Format("its target ends before something that is compressed in it"));
        }
        Ok(self.inner)
    }

    /// Takes some of `bytes`, which begin inside `fold`, the first stretch, and says how many.
    fn fold(&mut self, fold: Fold, bytes: &[u8]) -> Result<usize, Error> {
        let left = fold.start + fold.len - self.at;
        let bytes = &bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        let encoder = self.encoder.get_or_insert_with(|| fold.deflate.encoder(1));
        for piece in bytes.chunks(BUFFER) {
            self.trailer.update(piece);
            encoder.write(piece, &mut self.buffer);
            self.inner.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        self.at += bytes.len() as u64;
        if bytes.len() as u64 == left {
            encoder.finish(&mut self.buffer);
            let trailer = std::mem::take(&mut self.trailer).finish();
            if fold.trailer {
                self.buffer.extend_from_slice(&trailer);
            }
            self.inner.write_all(&self.buffer)?;
            self.buffer.clear();
            self.encoder = None;
            self.folds = &self.folds[1..];
        }
        Ok(bytes.len())
    }
}

impl<W: Write> Write for Folder<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(fold) = self.folds.first().copied() else {
            self.at += bytes.len() as u64;
            self.inner.write_all(bytes)?;
            return Ok(bytes.len());
        };
        if self.at >= fold.start {
            return Ok(self.fold(fold, bytes)?);
        }
        let len = bytes.len().min(usize::try_from(fold.start - self.at).unwrap_or(usize::MAX));
        self.inner.write_all(&bytes[..len])?;
        self.at += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
