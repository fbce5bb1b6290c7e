#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::Read;

use proptest::prelude::*;

use super::pgzip::BlockSize;
use super::*;
use crate::recipe::Encode;
use crate::recipe::vectors::{self, Vector, encode};

/// Every level there is.
fn levels() -> impl Iterator<Item = Level> {
    (-2..=9).filter_map(Level::new)
}

/// The group that a release of klauspost/compress belongs to, if it is followed.
fn group(version: &str) -> Option<Group> {
    match version {
        "v1.15.12" | "v1.16.7" | "v1.17.11" | "v1.18.0" => Some(Group::V1_15_10),
        "v1.18.6" | "v1.19.1" | "go1.27.3" => Some(Group::V1_18_2),
        _ => None,
    }
}

/// The number behind `key` in the options of a vector.
fn option(vector: &Vector, key: &str) -> Option<i64> {
    vector
        .options
        .split(',')
        .find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
        .map(|n| n.parse().unwrap())
}

/// Makes a gzip member of a body.
fn member(header: [u8; 10], body: &[u8], content: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(content);
    let len = content.len() as u32;
    [&header[..], body, &crc.sum().to_le_bytes(), &len.to_le_bytes()].concat()
}

/// The header that tells the fastest and the slowest level.
fn header(time: [u8; 4], level: i64) -> [u8; 10] {
    let speed = match level {
        9 => 2,
        1 => 4,
        _ => 0,
    };
    [0x1f, 0x8b, 8, 0, time[0], time[1], time[2], time[3], speed, 0xff]
}

/// What klauspost's writers take for a time that is not set: the year 1, in its lowest 32 bits.
const YEAR_ONE: [u8; 4] = [0, 9, 0x6e, 0x88];

/// Compares all vectors of a family that `encoder` knows, each group once, and says how many there were.
fn compare(family: &str, time: [u8; 4], encoder: impl Fn(Group, Level, &Vector) -> Box<dyn Encode>) -> usize {
    let mut seen = HashSet::new();
    for vector in vectors::family(family) {
        let version = vector.version.rsplit('+').next().unwrap();
        let number = option(&vector, "level").unwrap();
        let number = if version.starts_with("go") && number == -1 { 6 } else { number };
        let Some((group, level)) = group(version).zip(Level::new(number as i8)) else {
            continue;
        };
        if !seen.insert((vector.input, vector.options, vector.sha256)) {
            continue;
        }
        let content = vector.content();
        let body = encode(&mut *encoder(group, level, &vector), &content, 32 << 10);
        vector.assert_is(&member(header(time, number), &body, &content));
    }
    seen.len()
}

#[test]
fn gzip_is_what_klauspost_writes() {
    let compared =
        compare("klauspost-gzip", YEAR_ONE, |group, level, _| Box::new(Encoder::new(group, level)));
    assert_eq!(compared, 26);
}

#[test]
fn pgzip_is_what_klauspost_writes() {
    let compared = compare("klauspost-pgzip", YEAR_ONE, |group, level, vector| {
        let size = BlockSize::new(option(vector, "block").unwrap() as usize).unwrap();
        Box::new(pgzip::Encoder::new(group, level, size, THREE))
    });
    assert_eq!(compared, 52);
}

const ONE: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN;
const THREE: std::num::NonZeroUsize = ONE.saturating_add(2);

fn mixed() -> Vec<u8> {
    vectors::family("klauspost-gzip").iter().find(|vector| vector.input == "mid.bin").unwrap().content()
}

/// The cut into calls is nothing that the output depends on.
#[test]
fn any_cut_gives_the_same_bytes() {
    let content = mixed();
    for level in levels() {
        let whole = encode(&mut Encoder::new(Group::V1_18_2, level), &content, content.len());
        for piece in [1, 7777, 65_535, 65_536] {
            let pieces = encode(&mut Encoder::new(Group::V1_18_2, level), &content, piece);
            assert!(pieces == whole, "{level:?} in pieces of {piece}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let content = mixed().repeat(3);
    for size in [BlockSize::UMOCI, BlockSize::new(16_385).unwrap()] {
        let alone =
            encode(&mut pgzip::Encoder::new(Group::V1_15_10, Level::DEFAULT, size, ONE), &content, 100_000);
        for threads in [2, 3, 8] {
            let threads = threads.try_into().unwrap();
            let mut encoder = pgzip::Encoder::new(Group::V1_15_10, Level::DEFAULT, size, threads);
            assert!(encode(&mut encoder, &content, content.len()) == alone, "{size:?}, {threads}");
        }
    }
}

/// An encoder that is given up in the middle ends its threads.
#[test]
fn an_encoder_can_be_dropped_at_any_time() {
    let content = mixed();
    let mut encoder =
        pgzip::Encoder::new(Group::V1_15_10, Level::DEFAULT, BlockSize::new(20_000).unwrap(), THREE);
    encoder.write(&content, &mut Vec::new());
}

#[test]
fn block_sizes_have_limits() {
    assert_eq!(BlockSize::new(16 << 10), None);
    assert_eq!(BlockSize::new((16 << 20) + 1), None);
    assert_eq!(BlockSize::new(1 << 20), Some(BlockSize::DEFAULT));
    assert_eq!(BlockSize::new(256 << 10), Some(BlockSize::UMOCI));
}

fn inflate(body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    flate2::read::DeflateDecoder::new(body).read_to_end(&mut content).unwrap();
    content
}

/// Pieces of noise, of runs and of what was there before, which is what layers are made of.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = (0..4_u8, any::<u64>(), prop_oneof![0..40_usize, 0..5000_usize, 60_000..70_000_usize]);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| {
        let mut content = Vec::new();
        for (kind, seed, len) in pieces {
            let mut state = seed | 1;
            let mut noise = || {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                state >> 40
            };
            match kind {
                0 => content.extend((0..len).map(|_| noise() as u8)),
                1 => content.extend((0..len).map(|_| b"etaoin srhl\n"[noise() as usize % 12])),
                2 => content.extend(std::iter::repeat_n(seed as u8, len)),
                _ if content.is_empty() => {}
                _ => {
                    let from = seed as usize % content.len();
                    let again = content[from..].iter().take(len).copied().collect::<Vec<u8>>();
                    content.extend(again);
                }
            }
        }
        content
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_inflates_to_the_content(content in content()) {
        for group in Group::ALL {
            for level in levels() {
                let body = encode(&mut Encoder::new(group, level), &content, 10_000);
                prop_assert!(inflate(&body) == content, "{group:?} {level:?}");
                let size = BlockSize::new(20_000).unwrap();
                let body = encode(&mut pgzip::Encoder::new(group, level, size, ONE), &content, 10_000);
                prop_assert!(inflate(&body) == content, "pgzip {group:?} {level:?}");
            }
        }
    }
}
