//! From bases and a delta to the target.

use std::io::{self, BufWriter, Read, Seek, Write};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use deltaport_oci::Digest;

use crate::code;
use crate::content::{Content, Seekable};
use crate::error::Error;
use crate::exec::Predicted;
use crate::format::{Base, Header, Kind};
use crate::growing::Growing;
use crate::open::open;
use crate::outline::{self, Outline, Outlines};
use crate::recipe::Encode;
use crate::stream::{BUFFER, Expecting, Hashing, Limited, Scratch, copy};
use crate::tables::Tables;
use crate::token;
use crate::unfold::{Fold, Folder, Packed, Unfolder};

/// How many chunks of content may wait to be compressed.
const QUEUE: usize = 4;
/// How large such a chunk is.
const CHUNK: usize = 256 << 10;

/// What applying a delta may cost. Memory is not among it: no delta takes more than [`MAX_MEMORY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest target that is made, in bytes. Default: 16 GiB.
    pub target_size: u64,
    /// The most scratch space that is taken, in bytes: for all bases, uncompressed. Default: 64 GiB.
    pub scratch: u64,
    /// How many threads may work at the same time. Default: 1.
    pub threads: usize,
}

/// The most memory that [`apply`] takes, in bytes, whatever the layer and with up to eight threads: 256 MiB.
pub const MAX_MEMORY: u64 = 256 << 20;

/// The most of it that an encoder may take. The rest is for the models of the entropy stage, the tables and the matches.
pub(crate) const MAX_ENCODER_MEMORY: u64 = 192 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self { target_size: 16 << 30, scratch: 64 << 30, threads: 1 }
    }
}

impl Limits {
    /// Fails when a delta with this header could not stay within the limits, or within [`MAX_MEMORY`].
    ///
    /// A caller that fetches deltas asks this as soon as it has the header.
    pub fn admit(&self, header: &Header) -> Result<(), Error> {
        if header.target.size > self.target_size {
            return Err(Error::Limit { what: "the target", limit: self.target_size });
        }
        if header.old_len > self.scratch {
            return Err(Error::Limit { what: "scratch space", limit: self.scratch });
        }
        let recipe = header.recipe.as_ref();
        let encoder = recipe.map_or(0, |recipe| recipe.memory(header.new_len, header.target.size));
        if encoder > MAX_ENCODER_MEMORY {
            return Err(Error::Limit { what: "the memory of the encoder", limit: MAX_ENCODER_MEMORY });
        }
        Ok(())
    }
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
/// `bases` are the blobs that the delta's header names, in that order. `delta` is read to its end. `scratch` is an empty
/// file, which takes the bases uncompressed. Success means that `out` has received exactly the blob that the header names
/// as target; whether that is the blob which the caller wants is for the caller to compare. After any error, what `out`
/// has received must be thrown away. A caller that wants to stop lets `out` or `delta` fail.
///
/// Fails with
/// - [`Error::BaseMismatch`] when a base is not the one that the header names,
/// - [`Error::Format`] when the delta is damaged, or anything follows it,
/// - [`Error::Limit`] when `limits` do not allow it,
/// - [`Error::OutputMismatch`] when a delta that looks right makes something else than its target,
/// - [`Error::Io`] when `bases`, `delta`, `out` or `scratch` do.
pub fn apply<B: Read + Send, F: Read + Write + Seek + Send>(
    bases: &mut [B],
    mut delta: impl Read + Send,
    mut out: impl Write,
    mut scratch: F,
    limits: &Limits,
) -> Result<Applied, Error> {
    // The types of the caller end here, so that what follows is compiled once, and with this crate.
    let mut bases: Vec<&mut (dyn Read + Send)> = bases.iter_mut().map(|base| base as _).collect();
    restore(&mut bases, &mut delta, &mut out, &mut scratch, limits)
}

fn restore(
    bases: &mut [&mut (dyn Read + Send)],
    mut delta: &mut (dyn Read + Send),
    out: &mut dyn Write,
    scratch: &mut dyn Scratch,
    limits: &Limits,
) -> Result<Applied, Error> {
    let header = Header::read(&mut delta)?;
    limits.admit(&header)?;
    let mut tables = Tables::read(&header, &mut delta)?;
    if bases.len() != header.bases.len() {
        return Err(Error::BaseMismatch("the delta was made from another number of bases"));
    }
    let outline = std::mem::take(&mut tables.outline);
    // An outline is told by those of the bases, which are known only when all of them are opened.
    if limits.threads <= 1 || !outline.is_empty() {
        let mut staged = BufWriter::with_capacity(CHUNK, scratch);
        let outlines = stage(&header, bases, &tables.unfold, &mut staged)?;
        let old = Seekable::new(staged.into_inner().map_err(io::IntoInnerError::into_error)?)?;
        let outline = outline::read(outlines.bytes(), &outline)?;
        drop(outlines);
        return make(&header, tables, outline, old, delta, out, limits.threads);
    }
    let outline = Outline::default();
    let growing = Growing::new(scratch, header.old_len);
    let unfold = tables.unfold.clone();
    std::thread::scope(|scope| {
        let (growing, header) = (&growing, &header);
        let opener = scope.spawn(move || {
            let mut staged = BufWriter::with_capacity(CHUNK, growing.writer());
            stage(header, bases, &unfold, &mut staged)?;
            Ok::<_, Error>(staged.flush()?)
        });
        let made = growing
            .reader()
            .and_then(|old| make(header, tables, outline, Seekable::new(old)?, delta, out, limits.threads));
        if matches!(made, Err(Error::Io(_))) {
            growing.abandon();
        }
        match (opener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), made) {
            (Err(Error::Io(_)), Err(stopped @ Error::Io(_))) => Err(stopped),
            // A base that is another than the delta needs makes everything else go wrong as well: it is told first.
            (opened, made) => opened.and(made),
        }
    })
}

/// Makes the target from opened bases and the rest of the delta.
fn make(
    header: &Header,
    tables: Tables,
    outline: Outline,
    old: impl Content + Send,
    delta: &mut (dyn Read + Send),
    out: &mut dyn Write,
    threads: usize,
) -> Result<Applied, Error> {
    let mut data = (&mut *delta).take(header.sections.data);
    let mut content = code::Decoder::new(
        Arc::clone(&tables.matches),
        &mut data,
        Predicted::new(old, Arc::clone(&tables.matches), tables.models),
        header.new_len,
    )?;
    let mut out = Expecting::new(out, header.target);
    match (header.kind, &header.recipe) {
        (Kind::Raw, _) => _ = copy(&mut content, &mut out)?,
        (Kind::Token, _) => token::encode(&mut content, &mut out)?,
        (Kind::Plain, Some(recipe)) => {
            let encoder = recipe.encoder(outline, threads)?;
            compress(&mut content, &tables.folds, encoder, threads, &mut out)?;
        }
        (Kind::Plain, None) => return Err(Error::Format("a plain delta without a recipe")),
    }
    // Only now is it known that nothing follows: neither content, nor data, nor anything behind that.
    let more = copy(&mut content, &mut io::sink())?;
    drop(content);
    if more > 0 || data.limit() > 0 || copy(&mut delta.take(1), &mut io::sink())? > 0 {
        return Err(Error::Format("it goes on behind its end"));
    }
    let (digest, size) = out.finish()?;
    Ok(Applied { digest, size })
}

/// Opens all bases, one behind the other, and gathers their outlines; `unfold` says what is to be opened inside of each.
fn stage<B: Read>(
    header: &Header,
    bases: &mut [B],
    unfold: &[Vec<Packed>],
    staged: &mut impl Write,
) -> Result<Outlines, Error> {
    let mut staged = Limited::new(staged, header.old_len);
    let mut outlines = Outlines::default();
    for ((base, expected), packed) in bases.iter_mut().zip(&header.bases).zip(unfold) {
        outlines.push(&stage_base(base, expected, packed, &mut staged)?);
    }
    match staged.finish() {
        (_, 0) => Ok(outlines),
        _ => Err(Error::Format("its bases are not as long as announced")),
    }
}

/// Opens a base, proves that it is the expected one, and says what its outline is.
fn stage_base(
    base: &mut impl Read,
    expected: &Base,
    packed: &[Packed],
    staged: &mut impl Write,
) -> Result<Outline, Error> {
    // One byte more than expected is enough to see that a base is too long.
    let blob = expected.blob;
    let mut base = Hashing::new(base.take(blob.size + 1), blob.digest.algorithm());
    let mut unfolder = Unfolder::new(staged, packed);
    let opened = open(expected.form, &mut base, &mut unfolder);
    if let Err(error @ Error::Io(_)) = opened {
        return Err(error);
    }
    // A wrong base may well be one that cannot be opened. That it is wrong is what the caller can act upon.
    if base.finish()? != blob {
        return Err(Error::BaseMismatch("its digest is another"));
    }
    opened
        .and_then(|opened| unfolder.finish().map(|_| opened.outline))
        .map_err(|_| Error::Format("its bases are not what it announces"))
}

/// Folds and compresses content. With a second thread, the content is made while what came before is compressed.
fn compress(
    content: &mut (impl Read + Send),
    folds: &[Fold],
    encoder: Box<dyn Encode>,
    threads: usize,
    out: &mut impl Write,
) -> Result<(), Error> {
    let mut compressor = Compressor { encoder, buffer: Vec::new(), out };
    if threads <= 1 {
        fold(content, folds, &mut compressor)?;
        return compressor.finish();
    }
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(QUEUE);
        let folder = scope.spawn(move || {
            let mut chunks = BufWriter::with_capacity(CHUNK, Chunks(sender));
            fold(content, folds, &mut chunks)?;
            Ok::<_, Error>(chunks.flush()?)
        });
        // The loop ends when the folder does, and the folder when this one does.
        let compressed = receiver.into_iter().try_for_each(|chunk: Vec<u8>| compressor.write_all(&chunk));
        let folded = folder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        compressed?;
        folded?;
        compressor.finish()
    })
}

/// Writes content as it is before it is compressed as a whole.
fn fold(content: &mut impl Read, folds: &[Fold], out: &mut impl Write) -> Result<(), Error> {
    let mut folder = Folder::new(out, folds);
    copy(content, &mut folder)?;
    folder.finish()?;
    Ok(())
}

/// A writer that compresses.
struct Compressor<'a, W> {
    encoder: Box<dyn Encode>,
    buffer: Vec<u8>,
    out: &'a mut W,
}

impl<W: Write> Compressor<'_, W> {
    fn finish(mut self) -> Result<(), Error> {
        self.encoder.finish(&mut self.buffer);
        Ok(self.out.write_all(&self.buffer)?)
    }
}

impl<W: Write> Write for Compressor<'_, W> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        for piece in content.chunks(BUFFER) {
            self.encoder.write(piece, &mut self.buffer);
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(content.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that hands what it gets to another thread.
struct Chunks(SyncSender<Vec<u8>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Whoever receives has failed, and says why.
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
