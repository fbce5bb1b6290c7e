//! The recipe of a whole blob: what goes around the encoder's output.

use std::fmt;
use std::io::{self, Read, Seek};

use super::detect::detect;
use super::members::{self, Style};
use super::{Deflate, Encode, Zstd};
use crate::content::Content;
use crate::error::Error;
use crate::format::codec;
use crate::gzip;
use crate::outline::{Opened, Outline};

/// How a blob was compressed, exactly enough to compress the same content to the same bytes.
///
/// It prints as a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Not compressed.
    Stored,
    /// One gzip member.
    Gzip {
        /// As it is.
        header: Vec<u8>,
        deflate: Deflate,
    },
    /// One zstd frame.
    Zstd(Zstd),
    /// Many members or frames, by an outline.
    Members(Style),
}

/// How much content is compressed to find out what did the compression inside blocks, in bytes.
const LEAD_PREFIX: u64 = 3 << 16;
/// How much content is compressed to find the recipe, in bytes: a block of every encoder and a quarter of the next, and
/// more while several encoders have written the same.
const PREFIXES: [u64; 3] = [5 << 18, 5 << 20, 20 << 20];
/// How much of a zstd frame, and of its content, is looked at, in bytes.
const ZSTD_PREFIX: u64 = 5 << 20;

/// How long a header may be, in bytes.
const MAX_HEADER: usize = u16::MAX as usize;

impl Recipe {
    /// That of a blob which is not compressed.
    pub(crate) fn stored() -> Self {
        Self(Form::Stored)
    }

    pub(crate) fn read(source: &mut impl Read) -> Result<Self, Error> {
        match codec::read_u8(source)? {
            0 => Ok(Self::stored()),
            1 => {
                let header = codec::read_bytes(source)?;
                Ok(Self(Form::Gzip { header, deflate: Deflate::read(source)? }))
            }
            2 => Ok(Self(Form::Zstd(Zstd::read(source)?))),
            3 => Ok(Self(Form::Members(Style::read_gzip(source)?))),
            4 => Ok(Self(Form::Members(Style::read_zstd(source)?))),
            _ => Err(Error::Format("unknown recipe; a newer deltaport may have made it")),
        }
    }

    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        match &self.0 {
            Form::Stored => bytes.push(0),
            Form::Gzip { header, deflate } => {
                bytes.push(1);
                codec::write_bytes(bytes, header);
                deflate.write(bytes);
            }
            Form::Zstd(zstd) => {
                bytes.push(2);
                zstd.write(bytes);
            }
            Form::Members(style) => {
                bytes.push(if matches!(style, Style::Gzip { .. }) { 3 } else { 4 });
                style.write(bytes);
            }
        }
    }

    /// Whether the blob has an outline.
    pub(crate) fn has_outline(&self) -> bool {
        matches!(self.0, Form::Members(_))
    }

    /// How much memory it takes to make a blob of this length of so much content, in bytes; nothing is said about the
    /// encoders for which it is little for all contents.
    pub(crate) fn memory(&self, content: u64, blob: u64) -> u64 {
        match &self.0 {
            Form::Zstd(zstd) => zstd.memory(content, blob),
            Form::Stored | Form::Gzip { .. } | Form::Members(_) => 0,
        }
    }

    /// Compresses content to the blob that has this outline, with up to `threads` threads if that makes it faster.
    /// Fails when there is no memory for it.
    pub(crate) fn encoder(&self, outline: Outline, threads: usize) -> Result<Box<dyn Encode>, Error> {
        let no_memory = || Error::Io(io::ErrorKind::OutOfMemory.into());
        Ok(match &self.0 {
            Form::Stored => Box::new(Stored),
            Form::Zstd(zstd) => zstd.encoder().ok_or_else(no_memory)?,
            Form::Members(style) => {
                Box::new(members::Encoder::new(style.clone(), outline).ok_or_else(no_memory)?)
            }
            Form::Gzip { header, deflate } => Box::new(Member {
                header: header.clone(),
                body: deflate.encoder(threads),
                trailer: gzip::Trailer::default(),
            }),
        })
    }

    /// The recipes that write the first MiB or so of a gzip blob with this content, the most likely first. Whether one
    /// writes the rest is still to be proven.
    pub(crate) fn of_gzip(
        blob: &mut (impl Read + Seek),
        content: &mut impl Content,
    ) -> Result<Vec<Self>, Error> {
        let mut header = start(blob, MAX_HEADER as u64)?;
        let Some(header_len) = gzip::header_len(&header) else { return Ok(Vec::new()) };
        let candidates = Deflate::candidates(gzip::hint(&header));
        header.truncate(header_len);
        let start = header_len as u64;
        let leads = Deflate::leads(&candidates);
        let leads = detect(leads, blob, start, content, LEAD_PREFIX)?;
        let mut found = candidates;
        found.retain(|candidate| leads.contains(&candidate.lead()));
        for prefix in PREFIXES {
            found = detect(found, blob, start, content, prefix)?;
            if found.len() <= 1 {
                break;
            }
        }
        Ok(found.into_iter().map(|deflate| Self(Form::Gzip { header: header.clone(), deflate })).collect())
    }

    /// The recipe of a blob that was opened, and the outline by which it gives the whole blob back.
    pub(crate) fn of_members(
        blob: &mut (impl Read + Seek),
        opened: Opened,
        content: &mut impl Content,
    ) -> Result<Option<(Self, Outline)>, Error> {
        let found = members::detect(blob, opened, content)?;
        Ok(found.map(|(style, outline)| (Self(Form::Members(style)), outline)))
    }

    /// The recipes that write the first MiB or so of a zstd blob with this content, the most likely first.
    pub(crate) fn of_zstd(
        blob: &mut (impl Read + Seek),
        content: &mut impl Content,
    ) -> Result<Vec<Self>, Error> {
        let frame = start(blob, ZSTD_PREFIX)?;
        let mut head = vec![0; content.len().min(ZSTD_PREFIX) as usize];
        content.read_at(0, &mut head)?;
        let found = super::zstd::detect::detect(&frame, &head, content.len());
        Ok(found.into_iter().map(|zstd| Self(Form::Zstd(zstd))).collect())
    }
}

/// The first bytes of a blob.
fn start(blob: &mut (impl Read + Seek), len: u64) -> io::Result<Vec<u8>> {
    blob.rewind()?;
    let mut start = Vec::new();
    blob.by_ref().take(len).read_to_end(&mut start)?;
    Ok(start)
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Stored => f.write_str("not compressed"),
            Form::Gzip { deflate, .. } => write!(f, "gzip by {deflate}"),
            Form::Zstd(zstd) => write!(f, "zstd by {zstd}"),
            Form::Members(Style::Gzip { deflate, .. }) => write!(f, "gzip members by {deflate}"),
            Form::Members(Style::Zstd(zstd)) => write!(f, "zstd frames by {zstd}"),
        }
    }
}

/// Content that is the blob.
struct Stored;

impl Encode for Stored {
    fn write(&mut self, content: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(content);
    }

    fn finish(&mut self, _: &mut Vec<u8>) {}
}

/// A gzip member.
pub(super) struct Member {
    /// Until it is written.
    pub(super) header: Vec<u8>,
    pub(super) body: Box<dyn Encode>,
    pub(super) trailer: gzip::Trailer,
}

impl Encode for Member {
    fn write(&mut self, content: &[u8], out: &mut Vec<u8>) {
        out.append(&mut self.header);
        self.trailer.update(content);
        self.body.write(content, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.header);
        self.body.finish(out);
        out.extend_from_slice(&std::mem::take(&mut self.trailer).finish());
    }
}
