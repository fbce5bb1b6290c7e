#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::Read;

use proptest::prelude::*;

use super::pgzip::BlockSize;
use super::*;
use crate::recipe::Encode;
use crate::recipe::vectors::{self, Vector, encode};

/// Every level there is, once.
fn levels() -> impl Iterator<Item = Level> {
    [-2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9].into_iter().filter_map(Level::new)
}

#[test]
fn levels_differ_between_groups_where_releases_do() {
    let differ = |level: i8| Group::distinct(Level::new(level).unwrap()).collect::<Vec<_>>();
    use Group::*;
    assert_eq!(differ(0), [V1_18_2]);
    assert_eq!(differ(-2), [V1_18_2]);
    assert_eq!(differ(1), [V1_14_4, V1_15_10, V1_18_0, V1_18_2]);
    assert_eq!(differ(4), [V1_14_4, V1_15_15, V1_18_0, V1_18_2]);
    assert_eq!(differ(-1), [V1_14_4, V1_15_0, V1_18_0, V1_18_2]);
    assert_eq!(differ(9), [V1_15_11, V1_18_0, V1_18_2]);
    assert_eq!(Level::new(10), None);
    assert_eq!(Level::new(-3), None);
}

/// The group that a release of klauspost/compress belongs to, if it is followed.
fn group(version: &str) -> Option<Group> {
    match version {
        "v1.15.12" => Some(Group::V1_15_11),
        "v1.16.7" | "v1.17.11" => Some(Group::V1_15_15),
        "v1.18.0" => Some(Group::V1_18_0),
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
        // The largest input is slow at the slowest level; once must do.
        let slow = vector.input == "big.bin" && number == 9 && family != "go-gzip";
        if slow || !seen.insert((vector.input, level.0, option(&vector, "block"), vector.sha256)) {
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
    assert_eq!(compared, 140);
}

/// Its level -1 is another one.
#[test]
fn gzip_is_what_go_1_27_writes() {
    let compared = compare("go-gzip", [0; 4], |group, level, _| Box::new(Encoder::new(group, level)));
    assert_eq!(compared, 91);
}

#[test]
fn pgzip_is_what_klauspost_writes() {
    let compared = compare("klauspost-pgzip", YEAR_ONE, |group, level, vector| {
        let size = BlockSize::new(option(vector, "block").unwrap() as usize).unwrap();
        Box::new(pgzip::Encoder::new(group, level, size, THREE))
    });
    assert_eq!(compared, 248);
}

const ONE: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN;
const THREE: std::num::NonZeroUsize = ONE.saturating_add(2);

fn input(name: &str) -> Vec<u8> {
    vectors::family("klauspost-gzip").iter().find(|vector| vector.input == name).unwrap().content()
}

/// Content that ends near every length where something changes, at every level, plain and in blocks of the smallest
/// size, all outputs in one digest. Real encoders wrote the digests: v1.14.4, v1.15.9, v1.15.10, v1.15.14, v1.17.11,
/// v1.18.0, v1.19.1.
#[test]
fn edges_are_what_klauspost_writes() {
    let digests = [
        "f211097c59beb65e26a19df39f8ad1cee75f9e29afbf91ebc6fa6a597ca0adb6",
        "326fd4f64b825ffcf944c2a70eb86d230477dbe2b0706bcb67b81b9790bc3d76",
        "62ca3ef97edde355a907b5654915b807480dd1c7007ab1697f6626b68f9ef74c",
        "ed82074ffb4b957dadfbfa687aa112a87a73759cb9408f7f5d901309b18e8028",
        "aade53690abd80e7f0e7c504598e64c5041977f01b110a46c9da631efb507d56",
        "e6a26ac4a872506ba0b80a9c41da22b78558c94c2cc6e25206d62dc5e609cac0",
        "5976f98f6680b96ae2b29858092f6d1b758ad681a3a05aec6d67edefcb95cda8",
    ];
    let content = input("mixed.bin");
    for (group, digest) in Group::ALL.into_iter().zip(digests) {
        let mut out = Vec::new();
        for level in levels() {
            for start in [1_830_000, 2_010_372] {
                for len in EDGES {
                    let content = &content[start..start + len];
                    let size = BlockSize::new(16_385).unwrap();
                    out.extend(encode(&mut Encoder::new(group, level), content, len.max(1)));
                    out.extend(encode(
                        &mut pgzip::Encoder::new(group, level, size, ONE),
                        content,
                        len.max(1),
                    ));
                }
            }
        }
        assert_eq!(deltaport_oci::Digest::sha256(&out).hex(), digest, "{group:?}");
    }
}

const EDGES: [usize; 18] = [
    0, 1, 12, 13, 32, 33, 127, 128, 1024, 1025, 16_384, 16_385, 65_535, 65_536, 65_567, 65_568, 65_662,
    65_663,
];

/// The cut into calls is nothing that the output depends on.
#[test]
fn any_cut_gives_the_same_bytes() {
    let content = input("mid.bin");
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
    let content = input("mid.bin").repeat(3);
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
    let content = input("mid.bin");
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
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_written_inflates_to_the_content(
        content in content(),
        group in prop::sample::select(&Group::ALL[..]),
        level in prop::sample::select(levels().collect::<Vec<_>>()),
    ) {
        let body = encode(&mut Encoder::new(group, level), &content, 10_000);
        prop_assert!(inflate(&body) == content);
        let size = BlockSize::new(20_000).unwrap();
        let body = encode(&mut pgzip::Encoder::new(group, level, size, ONE), &content, 10_000);
        prop_assert!(inflate(&body) == content, "pgzip");
    }
}
