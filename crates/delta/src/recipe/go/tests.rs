//! What real Go encoders wrote, and that whatever is written inflates to the content.

use std::io::Read;

use flate2::read::DeflateDecoder;
use proptest::prelude::*;

use super::*;
use crate::recipe::vectors::{Vector, encode, family};

/// The versions of Go that write the same. With 1.27 the package was replaced.
fn is_ours(vector: &Vector) -> bool {
    let minor = vector.version.strip_prefix("go1.").and_then(|version| version.split('.').next());
    (19..=26).contains(&minor.unwrap().parse::<u32>().unwrap())
}

fn level_of(vector: &Vector) -> i32 {
    vector.options.strip_prefix("level=").unwrap().parse().unwrap()
}

/// Puts Go's gzip header and the trailer around what the encoder writes.
fn gzip(level: i32, content: &[u8], piece: usize) -> Vec<u8> {
    let flags = match level {
        9 => 2,
        1 => 4,
        _ => 0,
    };
    let mut blob = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, flags, 0xff];
    blob.extend(encode(&mut Encoder::new(level).unwrap(), content, piece));
    let mut crc = flate2::Crc::new();
    crc.update(content);
    blob.extend(crc.sum().to_le_bytes());
    blob.extend(crc.amount().to_le_bytes());
    blob
}

#[test]
fn outputs_are_those_of_go() {
    let mut known: Vec<Vector> = Vec::new();
    for vector in family("go-gzip").into_iter().filter(is_ours) {
        let same = |other: &&Vector| (other.input, other.options) == (vector.input, vector.options);
        match known.iter().find(same) {
            Some(other) => assert_eq!((other.len, other.sha256), (vector.len, vector.sha256), "{vector:?}"),
            None => known.push(vector),
        }
    }
    assert!(known.len() >= 12 * 8, "only {} vectors", known.len());
    for vector in known {
        vector.assert_is(&gzip(level_of(&vector), &vector.content(), usize::MAX));
    }
}

/// The levels of Go, with each way to compress among them.
const LEVELS: [i32; 12] = [-2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

fn deflate(level: i32, content: &[u8], piece: usize) -> Vec<u8> {
    encode(&mut Encoder::new(level).unwrap(), content, piece)
}

/// Fails unless `body` is one deflate stream of `content` and nothing else.
#[track_caller]
fn assert_inflates(body: &[u8], content: &[u8]) {
    let mut decoder = DeflateDecoder::new(body);
    let mut inflated = Vec::new();
    decoder.read_to_end(&mut inflated).unwrap();
    assert!(inflated == content, "{} bytes became {}", content.len(), inflated.len());
    assert_eq!(decoder.total_in(), body.len() as u64, "bytes behind the end");
}

#[test]
fn there_are_no_other_levels() {
    for level in [i32::MIN, -3, 10, i32::MAX] {
        assert!(Encoder::new(level).is_none(), "{level}");
    }
}

/// The cuts meet the borders of blocks and windows, and everything beside them.
#[test]
fn cuts_do_not_matter() {
    let vector =
        |vector: &Vector| is_ours(vector) && vector.input == "mid.bin" && vector.version == "go1.26.6";
    for vector in family("go-gzip").into_iter().filter(vector) {
        let content = vector.content();
        for piece in [1, 261, 4096, 32_768, 65_535, 65_536] {
            vector.assert_is(&gzip(level_of(&vector), &content, piece));
        }
    }
}

/// Content without any match and with nothing but one, of all lengths at which something changes: the first place that
/// can be searched, the last block of level 1, the search that needs enough ahead, full blocks, windows that slide.
#[test]
fn every_length_inflates() {
    let noise: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(0x9e37_79b1) >> 23) as u8).collect();
    let zeros = vec![0; 200_000];
    let edges = [15, 127, 262, 16_384, 32_768, 65_275, 65_535, 65_536, 98_043, 131_070, 163_840];
    let lengths = (0..20).chain(edges.iter().flat_map(|edge| edge - 2..edge + 3));
    for length in lengths {
        for level in LEVELS {
            for content in [&noise[..length], &zeros[..length]] {
                assert_inflates(&deflate(level, content, usize::MAX), content);
            }
        }
    }
}

/// Pieces of noise, runs, and copies of what came before at all distances.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        (any::<u32>(), 0..2000_usize, 1..=256_u32).prop_map(|(seed, len, of)| (seed, len, of, 0)),
        (any::<u32>(), 0..600_usize, Just(1)).prop_map(|(seed, len, of)| (seed, len, of, 0)),
        (1..66_000_usize, 1..600_usize).prop_map(|(back, len)| (0, len, 0, back)),
        (1..66_000_usize, 1..70_000_usize).prop_map(|(back, len)| (0, len, 0, back)),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| {
        let mut content: Vec<u8> = Vec::new();
        for (mut state, len, of, back) in pieces {
            for _ in 0..len {
                let next = match content.len().checked_sub(back) {
                    Some(from) if back > 0 => content[from],
                    _ => {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        ((u64::from(state) * u64::from(of)) >> 32) as u8
                    }
                };
                content.push(next);
            }
        }
        content
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_inflates(content in content(), piece in 1..100_000_usize) {
        for level in LEVELS {
            let body = deflate(level, &content, piece);
            assert_inflates(&body, &content);
            prop_assert!(body == deflate(level, &content, usize::MAX), "the cut matters at level {}", level);
        }
    }
}
