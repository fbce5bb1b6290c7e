//! What real Go encoders wrote, and that whatever is written inflates to the content.

use std::io::Read;

use deltaport_oci::Digest;
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

/// Bytes that look random, each below `of`.
fn noise(seed: usize, len: usize, of: u64) -> Vec<u8> {
    let mut state = seed as u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(state) * of) >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// What the outputs of a few files do not show: where one decision turns into another.
fn edges() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    // Blocks that are as large in one type as in another, the last block of level 1, and the first places that are
    // searched.
    for of in [2, 5, 16, 48, 190, 256] {
        all.extend((0..=300).map(|len| noise(len, len, of)));
    }
    // Content that ends where a block is full or the window slides, with no match and with nothing but one.
    for edge in [16_384, 32_768, 65_275, 65_535, 65_536, 98_043, 131_070] {
        for len in edge - 2..=edge + 2 {
            all.extend([noise(len, len, 256), vec![0; len]]);
        }
    }
    // A block that begins about where the window will begin when it slides, and had better be stored.
    for zeros in 16_440..16_456 {
        all.push([vec![0; zeros], noise(1, 70_000 - zeros, 256)].concat());
    }
    // About so many matches that level 1 uses them.
    for echo in (56..136).step_by(2) {
        let mut content = noise(echo, 66_000, 64);
        for at in (1024..content.len() - echo).step_by(1024) {
            content.copy_within(at - 1024..at - 1024 + echo, at);
        }
        all.push(content);
    }
    all
}

/// The SHA-256 of all that Go 1.26.6 writes for [`edges`], without headers and trailers, by level.
const EDGES: [(i32, &str); 12] = [
    (-2, "609fd86b673a7f23355e0d60ea9475858fa2be7128ae6b32c2b3393d9332603c"),
    (-1, "be8be3fff2789bb56af97a804a3d2cfe43d3d500d7ef02dda68e75fa381c270b"),
    (0, "8a9c0e4fa47664f979ae2051316073624322f7f06ec7ed5cab7de18582d80cd7"),
    (1, "e4a9884438d395d76936f566366cc4073fe3bc5e996f06c7bcda76ffe93517a2"),
    (2, "6e94f99ec966beb13287cc5e968b185b114f1f4562fa976bbc99e009d2e514b6"),
    (3, "245d603b02841d54f59f45b05e312dffc6dc223a112dc005abb2483e2223a322"),
    (4, "174dffab8d5c0c08d867dad36873dcb75415e5df274c5a117b3723edfcea76c7"),
    (5, "812419ef518a41376f49d5eb32352ece7faa2ae36fa071f3f7720706905c3288"),
    (6, "be8be3fff2789bb56af97a804a3d2cfe43d3d500d7ef02dda68e75fa381c270b"),
    (7, "be8be3fff2789bb56af97a804a3d2cfe43d3d500d7ef02dda68e75fa381c270b"),
    (8, "94fca41bd3efda134d4fe02c568f28731b124010cf037db07da11159922d1a82"),
    (9, "94fca41bd3efda134d4fe02c568f28731b124010cf037db07da11159922d1a82"),
];

#[test]
fn edges_are_those_of_go() {
    let contents = edges();
    for (level, sha256) in EDGES {
        let mut bodies = Vec::new();
        for content in &contents {
            let body = deflate(level, content, usize::MAX);
            assert_inflates(&body, content);
            bodies.extend(body);
        }
        assert_eq!(Digest::sha256(&bodies).hex(), sha256, "level {level}");
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
        for (level, _) in EDGES {
            let body = deflate(level, &content, piece);
            assert_inflates(&body, &content);
            prop_assert!(body == deflate(level, &content, usize::MAX), "the cut matters at level {}", level);
        }
    }
}
