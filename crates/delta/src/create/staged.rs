//! Content on a scratch file.

use std::io::{self, BufWriter, Read, Seek, Write};
use std::ops::Range;

use deltaport_oci::Algorithm;

use crate::content::Seekable;
use crate::error::Error;
use crate::format::{Blob, Form, MAX_SIZE};
use crate::open::open;
use crate::outline::Opened;
use crate::stream::{Hashing, Limited};

/// How much is written at once.
const BUFFER: usize = 256 << 10;

/// A scratch file with the content of one blob or of several, one behind the other.
pub(super) struct Staged<F: Write> {
    file: BufWriter<F>,
    /// Where the content of each blob is.
    ranges: Vec<Range<u64>>,
}

impl<F: Read + Write + Seek> Staged<F> {
    pub(super) fn new(file: F) -> Self {
        Self { file: BufWriter::with_capacity(BUFFER, file), ranges: Vec::new() }
    }

    /// Where the content of each blob is.
    pub(super) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// How long the content is.
    pub(super) fn len(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.end)
    }

    /// Appends what a blob is in the given form, and says what the blob itself is and what was found in it.
    pub(super) fn append(
        &mut self,
        blob: impl Read,
        form: Form,
        algorithm: Algorithm,
    ) -> Result<(Blob, Opened), Error> {
        let mut blob = Hashing::new(blob, algorithm);
        let opened = self.append_with(|file| open(form, &mut blob, file))?;
        Ok((blob.finish()?, opened))
    }

    /// Appends what `write` writes, as the content of one blob.
    pub(super) fn append_with<T>(
        &mut self,
        write: impl FnOnce(&mut Limited<&mut BufWriter<F>>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let start = self.len();
        let mut limited = Limited::new(&mut self.file, MAX_SIZE);
        let written = write(&mut limited)?;
        let (_, left) = limited.finish();
        self.ranges.push(start..start + MAX_SIZE - left);
        Ok(written)
    }

    /// The content, to be read at any place.
    pub(super) fn into_content(self) -> Result<Seekable<F>, Error> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Seekable::new(file)?)
    }
}
