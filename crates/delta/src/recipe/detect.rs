//! Which encoder wrote a deflate stream: the one that writes the same again.

use std::io::{Read, Seek, SeekFrom};

use super::Deflate;
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
        if writes_the_same(candidate, blob, content, prefix)? {
            found.push(candidate);
        }
    }
    Ok(found)
}

/// Whether `blob` goes on with what the encoder makes of the content, up to the first `prefix` bytes of that.
fn writes_the_same(
    deflate: Deflate,
    blob: &mut impl Read,
    content: &mut impl Content,
    prefix: u64,
) -> Result<bool, Error> {
    let mut encoder = deflate.encoder(1);
    let (mut piece, mut made, mut there) = (Vec::new(), Vec::new(), Vec::new());
    let end = content.len().min(prefix);
    let mut at = 0;
    while at < end {
        piece.resize((end - at).min(PIECE as u64) as usize, 0);
        content.read_at(at, &mut piece)?;
        at += piece.len() as u64;
        encoder.write(&piece, &mut made);
        if at == content.len() {
            encoder.finish(&mut made);
        }
        there.clear();
        blob.by_ref().take(made.len() as u64).read_to_end(&mut there)?;
        if made != there {
            return Ok(false);
        }
        made.clear();
    }
    Ok(true)
}
