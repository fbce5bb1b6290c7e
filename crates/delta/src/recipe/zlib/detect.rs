//! Which encoder of the family wrote a deflate body.

use super::search::Searcher;
use super::{Encode, Encoder, MEM_LEVEL, PIGZ_BLOCK, Variant, prefix};

/// How much content a candidate is given before what it wrote is compared. It writes nothing for less than a full
/// window.
const STEP: usize = 1 << 16;

/// The flag in a gzip header (RFC 1952, XFL) that asked for the best compression.
const BEST: u8 = 2;

/// The flag in a gzip header that asked for the fastest compression.
const FASTEST: u8 = 4;

/// The encoders, the likeliest first for members inside layers: those of Debian's packages are nearly all GNU gzip's.
const VARIANTS: [Variant; 6] = [
    Variant::Gzip,
    Variant::Zlib { mem_level: 8 },
    Variant::InfoZip,
    Variant::Zlib { mem_level: 9 },
    Variant::Pigz { parallel: true },
    Variant::Pigz { parallel: false },
];

/// The levels, the likeliest first.
const LEVELS: [u8; 10] = [6, 9, 1, 5, 4, 7, 8, 3, 2, 0];

/// How much content tells the levels apart: few members begin with so much that all levels treat alike.
const PROBE: usize = 8 << 10;

/// Finds the encoder of deflate bodies; kept for many of them, because encoders are used again and because the members
/// of a layer tend to come from one hand.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    /// Encoders that were needed so far.
    encoders: Vec<(Variant, u8, Encoder)>,
    /// What was found last.
    last: Option<(Variant, u8)>,
    probes: Vec<Probe>,
    written: Vec<u8>,
}

impl Detector {
    /// The variant and level that write `body`, whole and exactly, for `content`; `None` if there are none.
    ///
    /// `hint` is the XFL byte of a gzip header, if there is one; it says what is tried first, never what is left out.
    /// Where several candidates write the same, it is chance which of them is given.
    pub(crate) fn detect(&mut self, body: &[u8], content: &[u8], hint: Option<u8>) -> Option<(Variant, u8)> {
        let last = self.last.filter(|&(_, level)| hint.is_none_or(|hint| agrees(hint, level)));
        let found = match last.filter(|&(variant, level)| self.writes(variant, level, body, content)) {
            Some(last) => last,
            None => {
                let start = &content[..content.len().min(PROBE)];
                let symbols = prefix::symbols(body, start.len());
                self.probes.iter_mut().for_each(|probe| probe.verdict = None);
                candidates(hint).find(|&(variant, level)| {
                    // Up to its first block, pigz is zlib.
                    let other = !matches!(variant, Variant::Pigz { .. }) || content.len() > PIGZ_BLOCK;
                    other
                        && Some((variant, level)) != last
                        && self.begins(variant, level, start, &symbols)
                        && self.writes(variant, level, body, content)
                })?
            }
        };
        self.last = Some(found);
        Some(found)
    }

    /// Whether an encoder can have made these symbols, the first of a body, of content with this start.
    fn begins(&mut self, variant: Variant, level: u8, start: &[u8], symbols: &[u32]) -> bool {
        if level == 0 {
            return symbols.is_empty();
        }
        // All others begin like zlib at its default.
        let mem_level = if let Variant::Zlib { mem_level } = variant { mem_level } else { MEM_LEVEL };
        let key = (mem_level, level);
        let place = self.probes.iter().position(|probe| probe.key == key).unwrap_or_else(|| {
            self.probes.push(Probe { key, searcher: super::zlib(mem_level, level), verdict: None });
            self.probes.len() - 1
        });
        let Probe { searcher, verdict, .. } = &mut self.probes[place];
        *verdict.get_or_insert_with(|| {
            searcher.reset();
            searcher.first_symbols(start).iter().zip(symbols).all(|(a, b)| a == b)
        })
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

/// What an encoder makes of the start of a member, to leave it out early.
#[derive(Debug)]
struct Probe {
    /// Memory level and level of zlib.
    key: (u8, u8),
    searcher: Searcher,
    /// Whether it begins as the member at hand does, once that is known.
    verdict: Option<bool>,
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
