//! Which encoder wrote the members of a blob, and which members it did not write.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use super::{Deflate, Reused, Style, Zstd};
use crate::content::Content;
use crate::gzip;
use crate::outline::{Opened, Outline, Part};
use crate::recipe::detect::makes;

/// How much of a member candidates are tried on, in bytes: a block of every encoder and a quarter of the next.
const PREFIX: u64 = 5 << 18;
/// How much content a member should have to tell encoders apart, in bytes.
const TELLING: u64 = 4 << 10;
/// How many members candidates are tried on: the first of some length, and the longest.
const FIRST: usize = 8;
const LONGEST: usize = 8;
/// How many candidates are tried on everything.
const TRIED: usize = 3;
/// Which part of the blob may be carried: below a sixteenth.
const CARRIED_SHIFT: u32 = 4;
/// How long a header may be, in bytes.
const MAX_HEADER: u64 = 1 << 10;

/// A blob, its content, and what is known of its parts.
struct Blob<'a, B, C> {
    blob: &'a mut B,
    content: &'a mut C,
    members: Vec<Member>,
}

/// A gzip member or a zstd frame.
#[derive(Clone, Debug)]
struct Member {
    /// Which part of the outline it is.
    part: usize,
    /// Where it is in the blob.
    place: Range<u64>,
    /// Where its content is.
    content: Range<u64>,
    /// The header of a gzip member.
    header: Option<Box<[u8]>>,
}

/// The style that writes most of the blob again, and the outline by which it does; `None` when there is none.
/// Fails only when reading does.
pub(in crate::recipe) fn detect<B: Read + Seek, C: Content>(
    blob: &mut B,
    opened: Opened,
    content: &mut C,
) -> io::Result<Option<(Style, Outline)>> {
    let members = members(&opened);
    let mut blob = Blob { blob, content, members };
    let is_gzip = blob.read_headers()?;
    let sample = blob.sample();
    let candidates = if is_gzip { blob.gzip(&sample)? } else { blob.zstd(&sample)? };
    let candidates = blob.narrow(candidates, &sample)?;
    for style in candidates.into_iter().take(TRIED) {
        if let Some(outline) = blob.prove(&style, &opened)? {
            return Ok(Some((style, outline)));
        }
    }
    Ok(None)
}

fn members(opened: &Opened) -> Vec<Member> {
    let mut at = 0;
    let parts = opened.outline.parts().iter().zip(&opened.places).enumerate();
    let member = |(part, (kind, place)): (usize, (&Part, &Range<u64>))| match kind {
        Part::Member { len, .. } => {
            let content = at..at + len;
            at = content.end;
            Some(Member { part, place: place.clone(), content, header: None })
        }
        Part::Carried { .. } | Part::Packed { .. } => None,
    };
    parts.filter_map(member).collect()
}

fn len(range: &Range<u64>) -> u64 {
    range.end - range.start
}

impl<B: Read + Seek, C: Content> Blob<'_, B, C> {
    /// The bytes of the blob in `place`.
    fn bytes(&mut self, place: &Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.blob.seek(SeekFrom::Start(place.start))?;
        self.blob.by_ref().take(len(place)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the headers of gzip members, and says whether that is what the members are.
    fn read_headers(&mut self) -> io::Result<bool> {
        let Some(first) = self.members.first().map(|member| member.place.start) else { return Ok(false) };
        if !self.bytes(&(first..first + gzip::MAGIC.len() as u64))?.starts_with(&gzip::MAGIC) {
            return Ok(false);
        }
        for n in 0..self.members.len() {
            let Range { start, end } = self.members[n].place;
            let bytes = self.bytes(&(start..end.min(start + MAX_HEADER)))?;
            self.members[n].header = gzip::header_len(&bytes).map(|len| bytes[..len].into());
        }
        Ok(true)
    }

    /// The members that candidates are tried on.
    fn sample(&self) -> Vec<usize> {
        let telling = |n: &usize| len(&self.members[*n].content) >= TELLING;
        let mut sample: Vec<usize> = (0..self.members.len()).filter(telling).take(FIRST).collect();
        let mut others: Vec<usize> = (0..self.members.len()).filter(|n| !sample.contains(n)).collect();
        others.sort_by_key(|n| std::cmp::Reverse(len(&self.members[*n].content)));
        sample.extend(others.into_iter().take(LONGEST));
        sample.retain(|n| !self.members[*n].content.is_empty());
        sample
    }

    /// The styles of gzip that the first header makes likely.
    fn gzip(&mut self, sample: &[usize]) -> io::Result<Vec<Style>> {
        let Some(header) = sample.first().and_then(|n| self.members[*n].header.clone()) else {
            return Ok(Vec::new());
        };
        let style = |deflate| Style::Gzip { header: header.to_vec(), deflate };
        Ok(Deflate::candidates(gzip::hint(&header)).into_iter().map(style).collect())
    }

    /// The styles of zstd that may have written the first member of the sample of which the encoder is known.
    fn zstd(&mut self, sample: &[usize]) -> io::Result<Vec<Style>> {
        for n in sample.iter().take(FIRST) {
            let Member { place, content, .. } = self.members[*n].clone();
            let frame = self.bytes(&(place.start..place.end.min(place.start + 2 * PREFIX)))?;
            let mut head = vec![0; len(&content).min(PREFIX) as usize];
            self.content.read_at(content.start, &mut head)?;
            let found = super::super::zstd::detect::detect(&frame, &head, len(&content));
            let mut styles: Vec<Style> = Vec::new();
            for zstd in found.into_iter().flat_map(Zstd::also_as_stream) {
                let style = Style::Zstd(zstd.with_len(0));
                if !styles.contains(&style) {
                    styles.push(style);
                }
            }
            if !styles.is_empty() {
                return Ok(styles);
            }
        }
        Ok(Vec::new())
    }

    /// Those of the candidates that write most of the sample; none when no candidate writes any of it.
    fn narrow(&mut self, candidates: Vec<Style>, sample: &[usize]) -> io::Result<Vec<Style>> {
        let (mut best, mut most) = (Vec::new(), 1);
        for style in candidates {
            let (mut encoder, mut written) = (Reused::new(style), 0);
            for n in sample {
                if self.writes(&mut encoder, *n, PREFIX)? {
                    written += len(&self.members[*n].content);
                }
            }
            if written > most {
                best.clear();
            }
            if written >= most {
                best.push(encoder.style);
                most = written;
            }
        }
        Ok(best)
    }

    /// Whether the encoder makes the member of its content, or of the first `prefix` bytes of it.
    fn writes(&mut self, encoder: &mut Reused, n: usize, prefix: u64) -> io::Result<bool> {
        let Member { place, content, header, .. } = self.members[n].clone();
        let Some(encoder) = encoder.begin(len(&content), header.as_deref()) else { return Ok(false) };
        self.blob.seek(SeekFrom::Start(place.start))?;
        let mut blob = self.blob.by_ref().take(len(&place));
        let is_whole = len(&content) <= prefix;
        Ok(makes(encoder, self.content, content, prefix, &mut blob)? && (!is_whole || blob.limit() == 0))
    }

    /// The outline by which a style writes the whole blob; `None` when too much would have to be carried.
    fn prove(&mut self, style: &Style, opened: &Opened) -> io::Result<Option<Outline>> {
        let size = opened.places.last().map_or(0, |place| place.end);
        let (mut outline, mut room) = (Outline::default(), size >> CARRIED_SHIFT);
        let mut encoder = Reused::new(style.clone());
        let mut members = 0;
        for (n, part) in opened.outline.parts().iter().enumerate() {
            let place = opened.places[n].clone();
            let part = match part {
                Part::Member { len: content, .. } => {
                    let member = members;
                    members += 1;
                    debug_assert_eq!(self.members[member].part, n);
                    if self.writes(&mut encoder, member, u64::MAX)? {
                        let header = self.members[member].header.take_if(|header| !style.has(header));
                        Part::Member { len: *content, header }
                    } else if len(&place) <= room {
                        room -= len(&place);
                        Part::Carried { len: *content, bytes: self.bytes(&place)?.into() }
                    } else {
                        return Ok(None);
                    }
                }
                Part::Packed { magic, content, .. } => {
                    let bytes = self.bytes(&place)?;
                    match packer(&bytes[SKIPPABLE_HEADER..], content) {
                        Some(encoder) => {
                            Part::Packed { magic: *magic, encoder: Some(encoder), content: content.clone() }
                        }
                        None => Part::Carried { len: 0, bytes: bytes.into() },
                    }
                }
                Part::Carried { .. } => part.clone(),
            };
            if !outline.push(part) {
                return Ok(None);
            }
        }
        Ok(Some(outline))
    }
}

/// How long the header of a skippable frame is.
const SKIPPABLE_HEADER: usize = 8;

impl Style {
    /// Whether this is the header that members have.
    fn has(&self, header: &[u8]) -> bool {
        match self {
            Self::Gzip { header: usual, .. } => usual[..] == *header,
            Self::Zstd(_) => true,
        }
    }
}

/// What makes the whole frame of its content.
fn packer(frame: &[u8], content: &[u8]) -> Option<Zstd> {
    let head = &content[..content.len().min(PREFIX as usize)];
    let found = super::super::zstd::detect::detect(frame, head, content.len() as u64);
    found.into_iter().find(|candidate| {
        let mut made = Vec::new();
        candidate.encoder().is_some_and(|mut encoder| {
            encoder.write(content, &mut made);
            encoder.finish(&mut made);
            made == frame
        })
    })
}
