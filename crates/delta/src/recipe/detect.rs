//! Which encoder wrote a deflate stream: the one that writes the same again.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use super::{Deflate, Encode};
use crate::content::Content;
use crate::error::Error;

/// How much content is compressed at a time.
const PIECE: usize = 64 << 10;

/// Those of `candidates` that make of `content`, or of its first `prefix` bytes if it has more, what `blob` has from
/// `start` on. Fails only when reading does.
pub(super) fn detect(
    candidates: Vec<Deflate>,
    blob: &mut (impl Read + Seek),
    start: u64,
    content: &mut impl Content,
    prefix: u64,
) -> Result<Vec<Deflate>, Error> {
    let mut found = Vec::new();
    for candidate in candidates {
        blob.seek(SeekFrom::Start(start))?;
        let all = 0..content.len();
        if makes(&mut *candidate.encoder(1), content, all, prefix, blob)? {
            found.push(candidate);
        }
    }
    Ok(found)
}

/// Whether `blob` goes on with what the encoder makes of a part of the content, or of the first `prefix` bytes of that.
pub(super) fn makes(
    encoder: &mut dyn Encode,
    content: &mut impl Content,
    part: Range<u64>,
    prefix: u64,
    blob: &mut impl Read,
) -> io::Result<bool> {
    let (mut piece, mut made, mut there) = (Vec::new(), Vec::new(), Vec::new());
    let end = part.end.min(part.start.saturating_add(prefix));
    let mut at = part.start;
    loop {
        piece.resize((end - at).min(PIECE as u64) as usize, 0);
        content.read_at(at, &mut piece)?;
        at += piece.len() as u64;
        if !piece.is_empty() {
            encoder.write(&piece, &mut made);
        }
        if at == part.end {
            encoder.finish(&mut made);
        }
        there.clear();
        blob.by_ref().take(made.len() as u64).read_to_end(&mut there)?;
        if made != there {
            return Ok(false);
        }
        made.clear();
        if at == end {
            return Ok(true);
        }
    }
}
