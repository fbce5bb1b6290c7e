//! Which encoder of the family wrote a deflate body.

use super::{Encode, Encoder, PIGZ_BLOCK, Variant};

/// How much content a candidate is given before what it wrote is compared. It writes nothing for less than a full
/// window.
const STEP: usize = 1 << 16;

/// The flag in a gzip header (RFC 1952, XFL) that asked for the best compression.
const BEST: u8 = 2;

/// The flag in a gzip header that asked for the fastest compression.
const FASTEST: u8 = 4;

/// The encoders, the likeliest first for members inside layers: those of Debian's packages are nearly all GNU gzip's.
const VARIANTS: [Variant; 5] = [
    Variant::Gzip,
    Variant::Zlib { mem_level: 8 },
    Variant::Zlib { mem_level: 9 },
    Variant::Pigz { parallel: true },
    Variant::Pigz { parallel: false },
];

/// The levels, the likeliest first.
const LEVELS: [u8; 10] = [6, 9, 1, 5, 4, 7, 8, 3, 2, 0];

/// Finds the encoder of deflate bodies; kept for many of them, because encoders are used again and because the members
/// of a layer tend to come from one hand.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    /// Encoders that were needed so far; the last one that was right comes first.
    encoders: Vec<(Variant, u8, Encoder)>,
    written: Vec<u8>,
}

impl Detector {
    /// The variant and level that write `body`, whole and exactly, for `content`; `None` if there are none.
    ///
    /// `hint` is the XFL byte of a gzip header, if there is one; it says what is tried first, never what is left out.
    /// Where several candidates write the same, it is chance which of them is given.
    pub(crate) fn detect(&mut self, body: &[u8], content: &[u8], hint: Option<u8>) -> Option<(Variant, u8)> {
        let last = self.encoders.first().map(|&(variant, level, _)| (variant, level));
        let last = last.filter(|&(_, level)| hint.is_none_or(|hint| agrees(hint, level)));
        let others = candidates(hint).filter(|&candidate| Some(candidate) != last);
        let found = last.into_iter().chain(others).find(|&(variant, level)| {
            // Up to its first block, pigz is zlib.
            let same = matches!(variant, Variant::Pigz { .. }) && content.len() <= PIGZ_BLOCK;
            !same && self.writes(variant, level, body, content)
        })?;
        let place = self.encoders.iter().position(|&(variant, level, _)| (variant, level) == found)?;
        self.encoders.swap(0, place);
        Some(found)
    }

    /// Whether an encoder writes `body`; it is stopped at the first byte that differs.
    fn writes(&mut self, variant: Variant, level: u8, body: &[u8], content: &[u8]) -> bool {
        let known = self.encoders.iter().position(|&(v, l, _)| (v, l) == (variant, level));
        let place = match known {
            Some(place) => place,
            None => {
                let Some(encoder) = Encoder::new(variant, level) else { return false };
                self.encoders.push((variant, level, encoder));
                self.encoders.len() - 1
            }
        };
        let (.., encoder) = &mut self.encoders[place];
        encoder.reset();
        let mut rest = body;
        for piece in content.chunks(STEP) {
            self.written.clear();
            encoder.write(piece, &mut self.written);
            match rest.strip_prefix(self.written.as_slice()) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        self.written.clear();
        encoder.finish(&mut self.written);
        rest == self.written
    }
}

/// Every variant at every level, in the order in which they are tried: the levels that agree with the hint first.
fn candidates(hint: Option<u8>) -> impl Iterator<Item = (Variant, u8)> {
    let likely = move |level: u8| hint.is_none_or(|hint| agrees(hint, level));
    let levels = LEVELS.into_iter().filter(move |&level| likely(level));
    let levels = levels.chain(LEVELS.into_iter().filter(move |&level| !likely(level)));
    levels.flat_map(|level| VARIANTS.map(|variant| (variant, level)))
}

/// Whether an encoder that works at `level` writes this XFL byte.
fn agrees(hint: u8, level: u8) -> bool {
    match level {
        9 => hint == BEST,
        0 | 1 => hint == FASTEST,
        _ => hint != BEST && hint != FASTEST,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::recipe::vectors;

    fn mixed() -> Vec<u8> {
        let vector =
            vectors::family("gnu-gzip").into_iter().find(|vector| vector.input == "mixed.bin").unwrap();
        vector.content()
    }

    /// Whoever is found writes the same, though it may not be the one who wrote it.
    #[test]
    fn every_body_is_found() {
        let content = &mixed()[..150_000];
        let mut detector = Detector::default();
        let levels = [0, 1, 4, 6, 9].into_iter().flat_map(|level| VARIANTS.map(|variant| (variant, level)));
        for (variant, level) in levels {
            let Some(mut encoder) = Encoder::new(variant, level) else { continue };
            let body = vectors::encode(&mut encoder, content, usize::MAX);
            let hint = (level > 1).then_some(if level == 9 { BEST } else { 0 });
            let (variant, level) = detector.detect(&body, content, hint).unwrap();
            let mut encoder = Encoder::new(variant, level).unwrap();
            assert!(vectors::encode(&mut encoder, content, usize::MAX) == body, "{variant:?} {level}");
        }
    }

    #[test]
    fn a_body_that_differs_anywhere_is_not_found() {
        let content = &mixed()[..200_000];
        let mut encoder = Encoder::new(Variant::Gzip, 9).unwrap();
        let body = vectors::encode(&mut encoder, content, usize::MAX);
        let mut detector = Detector::default();
        assert_eq!(detector.detect(&body, content, Some(BEST)), Some((Variant::Gzip, 9)));
        for place in [0, body.len() / 2, body.len() - 1] {
            let mut body = body.clone();
            body[place] ^= 1;
            assert_eq!(detector.detect(&body, content, Some(BEST)), None);
        }
        assert_eq!(detector.detect(&body[..body.len() - 1], content, None), None);
        assert_eq!(detector.detect(&[], content, None), None);
        assert_eq!(detector.detect(&body, &[], None), None);
    }

    #[test]
    fn the_hint_comes_first() {
        let first = |hint| candidates(hint).next().unwrap();
        assert_eq!(first(Some(BEST)), (Variant::Gzip, 9));
        assert_eq!(first(Some(FASTEST)), (Variant::Gzip, 1));
        assert_eq!(first(Some(0)), (Variant::Gzip, 6));
        assert_eq!(candidates(Some(BEST)).count(), VARIANTS.len() * LEVELS.len());
    }
}
