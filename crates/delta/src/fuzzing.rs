//! Doors for the fuzz targets to what is private. Not there in any other build.

use std::io::Read as _;

use crate::code::{self, Effort, Unchanged};
use crate::exec::Predicted;
use crate::matching::{self, Match, Options, Profile, Segment};
use crate::outline::{self, Outline};
use crate::recipe::{Deflate, Recipe};
use crate::{tar, unfold};

/// Walks a tar archive; the segments must tile it.
pub fn walk_tar(archive: &[u8]) {
    let segments = tar::walk(&mut &*archive, tar::MAX_SEGMENTS).expect("memory can be read");
    let end = segments.iter().fold(0, |at, segment| {
        assert!(segment.start == at && segment.len > 0);
        segment.end()
    });
    assert_eq!(end, archive.len() as u64);
}

/// Finds matches between two archives, codes and decodes the second; it must come back.
pub fn code(old: &[u8], new: &[u8], fast: bool) {
    let layouts =
        [old, new].map(|mut archive| tar::walk(&mut archive, tar::MAX_SEGMENTS).expect("memory can be read"));
    let (profile, effort) = if fast { (Profile::Fast, Effort::Fast) } else { (Profile::Best, Effort::Best) };
    let options = Options { profile, memory: matching::MIN_MEMORY, threads: 1 };
    let (mut old, mut new) = (old, new);
    let matches = matching::find(&mut old, &layouts[0], &mut new, &layouts[1], options);
    let matches = matches.expect("memory can be read");
    let mut section = Vec::new();
    let reference = Unchanged(old);
    code::encode_content(&matches, reference, new, effort, &mut section).expect("they fit");
    let mut back = Vec::new();
    let mut decoder =
        code::Decoder::new(&matches[..], &section[..], Unchanged(old), new.len() as u64).expect("written");
    decoder.read_to_end(&mut back).expect("written");
    assert!(back == new);
}

/// Decodes sections that somebody made up.
pub fn decode(old: &[u8], matches: &[u8], models: &[u8], data: &[u8], new_len: u16) {
    let new_len = u64::from(new_len);
    let Ok(matches) = code::decode_matches(matches, old.len() as u64, new_len) else { return };
    let models = crate::exec::read_models(&mut &*models, &matches, old.len() as u64, new_len);
    let matches: std::sync::Arc<[Match]> = matches.into();
    let reference = Predicted::new(old, std::sync::Arc::clone(&matches), models.unwrap_or_default());
    let Ok(mut decoder) = code::Decoder::new(matches, data, reference, new_len) else { return };
    let mut back = Vec::new();
    _ = decoder.read_to_end(&mut back);
    assert!(back.len() as u64 <= new_len);
}

/// Reads recipes and lists of members, and lets an encoder that was named work.
pub fn recipe(bytes: &[u8], content: &[u8]) {
    _ = unfold::read_packed(&mut &*bytes, 2);
    _ = unfold::read_folds(&mut &*bytes);
    _ = outline::read(content, bytes);
    let mut rest = bytes;
    if let Ok(recipe) = Recipe::read(&mut rest) {
        _ = recipe.to_string();
        let outline = Outline::read(&mut rest).unwrap_or_default();
        // Those of single members are below.
        if recipe.has_outline() && outline.parts().len() < 100 {
            let mut encoder = recipe.encoder(outline, 1).expect("memory is there");
            let mut blob = Vec::new();
            content.chunks(997).for_each(|piece| encoder.write(piece, &mut blob));
            encoder.finish(&mut blob);
        }
    }
    _ = outline::open_gzip(content, &mut std::io::sink());
    _ = outline::open_zstd(content, &mut std::io::sink());
    if let Ok(deflate) = Deflate::read(&mut &*bytes) {
        let (mut encoder, mut body) = (deflate.encoder(1), Vec::new());
        content.chunks(997).for_each(|piece| encoder.write(piece, &mut body));
        encoder.finish(&mut body);
        let mut back = Vec::new();
        flate2::read::DeflateDecoder::new(&body[..])
            .read_to_end(&mut back)
            .expect("an encoder writes deflate");
        assert!(back == content, "{deflate}");
    }
}

/// Looks for members in a file and opens them.
pub fn members(old: &[u8], new: &[u8]) {
    let layouts = [old, new].map(|bytes| Segment::whole(bytes.len() as u64));
    let (mut old, mut new) = (old, new);
    let whole = 0..old.len() as u64;
    unfold::find(&mut old, &layouts[0], &[whole], &mut new, &layouts[1], 1 << 30)
        .expect("memory can be read");
}
