//! Tests against the outputs of the real encoder.

use std::collections::HashSet;

use proptest::prelude::*;

use super::super::super::vectors::{self, Vector};
use super::*;

/// The releases of the vectors, and the group that each is in.
fn release(vector: &Vector) -> Option<Release> {
    Some(match vector.version {
        "v1.15.12" => Release::V1_15_10,
        "v1.16.7" => Release::V1_16_4,
        "v1.17.11" | "v1.18.0" => Release::V1_17_8,
        "v1.18.6" | "v1.19.1" => Release::V1_18_5,
        _ => return None,
    })
}

fn configuration(vector: &Vector, size: usize) -> Option<(Release, Level, Framing)> {
    let mut options = vector.options.split(',');
    let whole = options.next()? == "encodeall";
    let level = match options.next()? {
        "fastest" => Level::Fastest,
        "default" => Level::Default,
        "better" => Level::Better,
        "best" => Level::Best,
        _ => return None,
    };
    let framing = match options.next() {
        Some("write=8+readfrom") => Framing::PeekedStream,
        None if whole => Framing::Whole(size as u64),
        None => Framing::Stream,
        Some(_) => return None,
    };
    Some((release(vector)?, level, framing))
}

/// Checks the vectors of a level, one per group of releases.
fn check(only: Level) {
    let mut checked = HashSet::new();
    for vector in vectors::family("klauspost-zstd") {
        let content = vector.content();
        let Some((release, level, framing)) = configuration(&vector, content.len()) else { continue };
        if level == only && checked.insert((vector.input, vector.options, release)) {
            let mut encoder = Klauspost::new(release, level, framing);
            vector.assert_is(&vectors::encode(&mut encoder, &content, 100_003));
        }
    }
    assert!(checked.len() > 80, "{}", checked.len());
}

#[test]
fn fastest_is_what_the_real_encoder_writes() {
    check(Level::Fastest);
}

#[test]
fn default_is_what_the_real_encoder_writes() {
    check(Level::Default);
}

#[test]
fn better_is_what_the_real_encoder_writes() {
    check(Level::Better);
}

#[test]
fn best_is_what_the_real_encoder_writes() {
    check(Level::Best);
}

const LEVELS: [Level; 4] = [Level::Fastest, Level::Default, Level::Better, Level::Best];
const RELEASES: [Release; 11] = [
    Release::V1_15_9,
    Release::V1_15_10,
    Release::V1_15_13,
    Release::V1_16_1,
    Release::V1_16_4,
    Release::V1_17_0,
    Release::V1_17_3,
    Release::V1_17_5,
    Release::V1_17_6,
    Release::V1_17_8,
    Release::V1_18_5,
];

/// Everything that the encoder writes for the content in one piece.
fn encode(encoder: &mut Klauspost, content: &[u8]) -> Vec<u8> {
    vectors::encode(encoder, content, usize::MAX)
}

/// Content that has matches near and far, in words of a small vocabulary, with random bytes and runs in between.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let mut content = Vec::with_capacity(len + 64);
    while content.len() < len {
        match next(8) {
            0 => (0..next(40)).for_each(|_| content.push(next(256) as u8)),
            1 => content.extend(std::iter::repeat_n(next(256) as u8, next(60) as usize)),
            2 | 3 if content.len() > 64 => {
                let back = 1 + next(content.len() as u64 - 1) as usize;
                let from = content.len() - back;
                content.extend_from_within(from..from + back.min(next(64) as usize));
            }
            _ => content.extend_from_slice([&b"the "[..], b"of", b"layer\n", b"0x00"][next(4) as usize]),
        }
    }
    content.truncate(len);
    content
}

#[test]
fn cuts_do_not_matter() {
    let content = content(7, 300_000);
    for level in LEVELS {
        for framing in [Framing::Stream, Framing::PeekedStream, Framing::Whole(content.len() as u64)] {
            let new = || Klauspost::new(Release::V1_18_5, level, framing);
            let expected = encode(&mut new(), &content);
            for piece in [1, 7, 65_536, 131_072, 131_073] {
                assert_eq!(
                    vectors::encode(&mut new(), &content, piece),
                    expected,
                    "{level:?} {framing:?} {piece}"
                );
            }
        }
    }
}

#[test]
fn sizes_at_the_edges_of_blocks_come_back() {
    let content = content(11, 2 * 131_072 + 1);
    let edges =
        [0, 1, 7, 8, 9, 255, 256, 1024, 1025, 65_535, 65_536, 65_792, 131_071, 131_072, 131_080, 262_145];
    for level in LEVELS {
        for framing in [Framing::Stream, Framing::PeekedStream, Framing::Whole(0)] {
            let mut encoder = Klauspost::new(Release::V1_18_5, level, framing);
            for size in edges {
                let whole = matches!(framing, Framing::Whole(_));
                encoder.restart_as(if whole { Framing::Whole(size as u64) } else { framing });
                let output = encode(&mut encoder, &content[..size]);
                let decoded = zstd::decode_all(&output[..]).unwrap();
                assert!(decoded == content[..size], "{level:?} {framing:?} {size}");
            }
        }
    }
}

#[test]
fn a_frame_does_not_depend_on_those_before() {
    let contents = [content(1, 200_000), content(2, 500), content(3, 140_000), content(1, 200_000)];
    for level in LEVELS {
        let mut encoder = Klauspost::new(Release::V1_15_10, level, Framing::Stream);
        for content in &contents {
            let framing = Framing::Whole(content.len() as u64);
            encoder.restart_as(framing);
            let fresh = encode(&mut Klauspost::new(Release::V1_15_10, level, framing), content);
            assert_eq!(encode(&mut encoder, content), fresh, "{level:?} {}", content.len());
        }
    }
}

#[test]
fn a_wrong_length_is_no_panic() {
    let content = content(5, 300_000);
    for announced in [0, 1, 131_072, 299_999, 300_001, u64::MAX] {
        let mut encoder = Klauspost::new(Release::V1_18_5, Level::Default, Framing::Whole(announced));
        assert!(!encode(&mut encoder, &content).is_empty());
    }
}

#[test]
fn content_beyond_the_window_comes_back() {
    // The history moves down, and places in the tables are brought down.
    let block = content(13, 1 << 20);
    let mut encoder = Klauspost::new(Release::V1_18_5, Level::Fastest, Framing::Stream);
    encoder.history = History::new_at(Level::Fastest.window(Release::V1_18_5), (1 << 30) - (6 << 20));
    let mut expected = Klauspost::new(Release::V1_18_5, Level::Fastest, Framing::Stream);
    for _ in 0..20 {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        encoder.write(&block, &mut a);
        expected.write(&block, &mut b);
        assert!(a == b);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_written_decodes(
        seed: u64,
        len in 0_usize..200_000,
        release in proptest::sample::select(&RELEASES[..]),
        level in proptest::sample::select(&LEVELS[..]),
        framing in 0_usize..3,
    ) {
        let content = content(seed, len);
        let framing = [Framing::Stream, Framing::PeekedStream, Framing::Whole(len as u64)][framing];
        let output = encode(&mut Klauspost::new(release, level, framing), &content);
        if len > 0 || release >= Release::V1_18_5 {
            prop_assert!(zstd::decode_all(&output[..]).unwrap() == content);
        } else {
            prop_assert!(output.is_empty());
        }
    }
}
