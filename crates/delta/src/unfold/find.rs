//! Which members are unfolded: those that changed and can be folded again.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use deltaport_oci::Digest;
use flate2::{Decompress, FlushDecompress, Status};

use super::members::{MAX_FILE, Member, may_have_any, members};
use super::{Fold, MAX_MEMBERS, Packed};
use crate::content::Content;
use crate::error::Error;
use crate::gzip;
use crate::matching::{Part, Segment};
use crate::recipe::{Deflate, Detector};

/// The part of the memory that a file which is looked into may take, as a divisor: the whole of it is in memory.
const FILE_SHARE: u64 = 4;
/// The same for what a member inflates to, which is there while its encoder is looked for: up to three times, while it
/// grows.
const INFLATED_SHARE: u64 = 8;
/// The same for what is known of all members, of the bases or of the target.
const MEMBERS_SHARE: u64 = 8;
/// What is known of a member takes so much, in bytes.
const MEMBER: u64 = 256;
/// A file shorter than this is not worth it.
const MIN_FILE: u64 = 64;

/// Two contents, unfolded.
pub(crate) struct Unfolded {
    /// What is inflated in the content of each base.
    pub(crate) unfold: Vec<Vec<Packed>>,
    /// The layout of all bases, unfolded.
    pub(crate) old: Vec<Segment>,
    /// What is inflated in the content of the target.
    pub(crate) packed: Vec<Packed>,
    /// How it is compressed again.
    pub(crate) folds: Vec<Fold>,
    /// The layout of the target, unfolded.
    pub(crate) new: Vec<Segment>,
}

/// Finds what is worth unfolding in the contents of all bases, which are one behind the other at `bases`, and of the
/// target; `None` when nothing is. Takes so much memory, in bytes, at most. Fails only when reading does.
pub(crate) fn find(
    old: &mut impl Content,
    old_layout: &[Segment],
    bases: &[Range<u64>],
    new: &mut impl Content,
    new_layout: &[Segment],
    memory: u64,
) -> Result<Option<Unfolded>, Error> {
    let inflated = (memory / INFLATED_SHARE) as usize;
    let (old_members, new_members) =
        (candidates(old, old_layout, memory)?, candidates(new, new_layout, memory)?);
    let known: HashSet<&Digest> = old_members.iter().map(|candidate| &candidate.digest).collect();
    let (mut opened, mut detector) = (Vec::new(), Detector::default());
    for candidate in new_members.iter().filter(|candidate| !known.contains(&candidate.digest)) {
        opened.extend(open_target(new, candidate, &mut detector, inflated)?);
    }
    if opened.is_empty() {
        return Ok(None);
    }
    let kept: HashSet<&Digest> = new_members.iter().map(|candidate| &candidate.digest).collect();
    let mut old_opened = Vec::new();
    for candidate in old_members.iter().filter(|candidate| !kept.contains(&candidate.digest)) {
        old_opened.extend(open_base(old, candidate, inflated)?);
    }
    Ok(Some(Unfolded {
        unfold: bases.iter().map(|base| within(base, &old_opened)).collect(),
        old: unfold_layout(old_layout, &old_opened),
        packed: opened.iter().map(|opened| opened.packed).collect(),
        folds: folds(&opened),
        new: unfold_layout(new_layout, &opened),
    }))
}

/// A member that may be unfolded.
struct Candidate {
    /// Where its file is.
    file: u64,
    member: Member,
    /// Of its compressed bytes.
    digest: Digest,
    name: Option<Arc<[u8]>>,
}

/// A member that is unfolded.
struct Opened {
    packed: Packed,
    /// How long its content is.
    len: u64,
    name: Option<Arc<[u8]>>,
    /// What folds it again; for the target only.
    deflate: Option<Deflate>,
}

fn candidates(content: &mut impl Content, layout: &[Segment], memory: u64) -> io::Result<Vec<Candidate>> {
    let mut found = Vec::new();
    let sizes = MIN_FILE..=MAX_FILE.min(memory / FILE_SHARE);
    let most = MAX_MEMBERS.min((memory / MEMBERS_SHARE / MEMBER) as usize);
    for segment in layout.iter().filter(|segment| segment.part == Part::File && sizes.contains(&segment.len))
    {
        let mut head = [0; 4];
        content.read_at(segment.start, &mut head)?;
        if !may_have_any(&head) {
            continue;
        }
        let file = read(content, segment.start, segment.len)?;
        for member in members(&file) {
            if found.len() == most {
                return Ok(found);
            }
            let digest = Digest::sha256(&file[member.start..member.start + member.len]);
            let name = inner_name(segment.name.as_ref(), &member.name);
            found.push(Candidate { file: segment.start, member, digest, name });
        }
    }
    Ok(found)
}

/// The name of a file and of a member in it.
fn inner_name(file: Option<&Arc<[u8]>>, member: &[u8]) -> Option<Arc<[u8]>> {
    let file = file?;
    if member.is_empty() {
        return Some(Arc::clone(file));
    }
    Some([&file[..], b"!", member].concat().into())
}

fn read(content: &mut impl Content, start: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize]; // at most MAX_FILE
    content.read_at(start, &mut bytes)?;
    Ok(bytes)
}

/// Opens a member of the target, if it can be folded again to the same bytes.
fn open_target(
    content: &mut impl Content,
    candidate: &Candidate,
    detector: &mut Detector,
    most: usize,
) -> io::Result<Option<Opened>> {
    let Candidate { file, member, .. } = candidate;
    let start = file + member.start as u64;
    let tail = if member.hint.is_some() { gzip::TRAILER } else { 0 };
    let bytes = read(content, start, (member.len + tail) as u64)?;
    let (body, trailer) = bytes.split_at(member.len);
    let Some(inflated) = inflate(body, most) else { return Ok(None) };
    let Some(deflate) = Deflate::of(body, &inflated, member.hint, detector) else { return Ok(None) };
    let is_usual = tail > 0 && trailer == gzip::trailer(&inflated);
    let tail = if is_usual { gzip::TRAILER as u64 } else { 0 };
    Ok(Some(Opened {
        packed: Packed { start, len: member.len as u64, tail },
        len: inflated.len() as u64,
        name: candidate.name.clone(),
        deflate: Some(deflate),
    }))
}

/// Opens a member of a base.
fn open_base(content: &mut impl Content, candidate: &Candidate, most: usize) -> io::Result<Option<Opened>> {
    let Candidate { file, member, .. } = candidate;
    let (start, len) = (file + member.start as u64, member.len as u64);
    let inflated = inflate(&read(content, start, len)?, most);
    let packed = Packed { start, len, tail: 0 };
    Ok(inflated.map(|inflated| Opened {
        packed,
        len: inflated.len() as u64,
        name: candidate.name.clone(),
        deflate: None,
    }))
}

/// What a whole deflate stream inflates to; `None` when that is nothing, more than `most` bytes, or not all of it is the
/// stream.
fn inflate(body: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut inflate = Decompress::new(false);
    let mut out = Vec::with_capacity(body.len().saturating_mul(4).min(most));
    loop {
        let taken = inflate.total_in() as usize;
        let status = inflate.decompress_vec(&body[taken..], &mut out, FlushDecompress::None).ok()?;
        let stuck = inflate.total_in() as usize == taken && out.len() < out.capacity();
        match status {
            Status::StreamEnd => break,
            _ if stuck || out.len() >= most => return None,
            _ => out.reserve(out.len().max(4096)),
        }
    }
    (inflate.total_in() as usize == body.len() && !out.is_empty() && out.len() <= most).then_some(out)
}

/// Those in `base`, with places that count from its start.
fn within(base: &Range<u64>, opened: &[Opened]) -> Vec<Packed> {
    let inside = opened.iter().map(|opened| opened.packed).filter(|packed| base.contains(&packed.start));
    inside.map(|packed| Packed { start: packed.start - base.start, ..packed }).collect()
}

fn folds(opened: &[Opened]) -> Vec<Fold> {
    let (mut grown, mut gone) = (0, 0);
    let fold = |opened: &Opened| {
        let fold = Fold {
            start: opened.packed.start + grown - gone,
            len: opened.len,
            deflate: opened.deflate?,
            trailer: opened.packed.tail > 0,
        };
        grown += opened.len;
        gone += opened.packed.len + opened.packed.tail;
        Some(fold)
    };
    opened.iter().filter_map(fold).collect()
}

/// The layout after unfolding: files with members are cut into what is around them and the members' content.
fn unfold_layout(layout: &[Segment], opened: &[Opened]) -> Vec<Segment> {
    let mut opened = opened.iter().peekable();
    let mut made = Vec::with_capacity(layout.len() + 2 * opened.len());
    let mut at = 0;
    let mut push = |len: u64, part, name: &Option<Arc<[u8]>>, nested| {
        if len > 0 {
            made.push(Segment { start: at, len, part, name: name.clone(), nested });
            at += len;
        }
    };
    for segment in layout {
        let mut from = segment.start;
        while let Some(inner) = opened.next_if(|inner| inner.packed.start < segment.end()) {
            push(inner.packed.start - from, segment.part, &segment.name, false);
            push(inner.len, Part::File, &inner.name, true);
            from = inner.packed.start + inner.packed.len + inner.packed.tail;
        }
        push(segment.end() - from, segment.part, &segment.name, false);
    }
    made
}
