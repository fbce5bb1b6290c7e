//! Against the outputs of the real encoders.

#![allow(clippy::unwrap_used)]

use std::io::Read;

use deltaport_oci::Digest;
use proptest::prelude::*;

use super::*;
use crate::recipe::vectors::{self, Vector};

/// Header, body and trailer of a gzip member.
fn gzip(header: [u8; 2], content: &[u8], body: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(content);
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
    out.extend(header);
    out.extend(body);
    out.extend(crc.sum().to_le_bytes());
    out.extend((content.len() as u32).to_le_bytes());
    out
}

/// The extra flags of a gzip header.
fn flags(level: u8) -> u8 {
    match level {
        0 | 1 => 4,
        9 => 2,
        _ => 0,
    }
}

/// Fails unless `encoder` makes the body of every vector, with another cut into calls for each.
fn check<'a>(
    vectors: impl IntoIterator<Item = &'a Vector>,
    header: impl Fn(u8) -> [u8; 2],
    encoder: impl Fn(&Vector) -> (Variant, u8),
) {
    for (vector, piece) in vectors.into_iter().zip([usize::MAX, 0x8000, 7777, 0x1_0000].into_iter().cycle()) {
        let (variant, level) = encoder(vector);
        let content = vector.content();
        if level == 0 && content.len() > MAX_STORED {
            // How large stored blocks are depends on the room for output that each call had.
            continue;
        }
        let mut encoder = Encoder::new(variant, level).unwrap();
        let body = vectors::encode(&mut encoder, &content, piece);
        vector.assert_is(&gzip(header(level), &content, &body));
    }
}

/// The value of an option in a list with commas.
fn option(vector: &Vector, name: &str) -> Option<u8> {
    vector.options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

#[test]
fn gnu_gzip_is_exact() {
    let family = vectors::family("gnu-gzip");
    check(
        &family,
        |level| [flags(level), 3],
        |vector| (Variant::Gzip, vector.options.strip_prefix("-n -").unwrap().parse().unwrap()),
    );
}

#[test]
fn zlib_is_exact() {
    check(
        &vectors::family("zlib"),
        |level| [flags(level), 3],
        |vector| {
            let mem_level = option(vector, "memLevel").unwrap();
            (Variant::Zlib { mem_level }, option(vector, "level").unwrap())
        },
    );
}

#[test]
fn users_of_zlib_are_exact() {
    let zlib = Variant::Zlib { mem_level: 8 };
    check(
        &vectors::family("python-gzipfile"),
        |level| [if level == 0 { 0 } else { flags(level) }, 0xff],
        |vector| (zlib, option(vector, "level").unwrap()),
    );
    check(
        &vectors::family("libarchive"),
        |level| [flags(level), 3],
        |vector| (zlib, option(vector, "level").unwrap_or(6)),
    );
}

#[test]
fn pigz_is_exact() {
    check(
        &vectors::family("pigz"),
        |level| [flags(level), 3],
        |vector| {
            let (threads, level) = vector.options.strip_prefix("-n -p").unwrap().split_once(" -").unwrap();
            (Variant::Pigz { parallel: threads != "1" }, level.parse().unwrap())
        },
    );
}

/// Where the window is nearly full when the content ends, Info-ZIP's zip 3.0 and GNU gzip 1.12 differ. The hashes are of
/// the bodies alone.
#[test]
fn infozip_is_exact() {
    let mixed = vectors::family("zlib").into_iter().find(|vector| vector.input == "mixed.bin").unwrap();
    let content = &mixed.content()[..65_498];
    for (level, zip, gzip) in [
        (
            1,
            "8e00eb13e68bfddfde4f6850708d0e76155df9a09b2d5b68b58930f0c204dc79",
            "9568f0b3d7473e5db99ceaa54093219970127b9372dfec15a7dd577ad456dfcf",
        ),
        (
            4,
            "ef589bedeb4d57e2765c1aba88459624b374a7d660bcb6ee00d20ea3825a7d75",
            "b25041b3235e706fbf26158b8c7b07a8fe87f765c5ab947c3f691363c5cb86c4",
        ),
        (
            6,
            "84f1c9146a3405bea46aae2f0652d9612a04c82307d1c94c831d2b80f9ad9b7b",
            "57466068ca2783b1862bd1477123094e34b02208e116ab52e00fe179d1f8e54d",
        ),
        (
            9,
            "6b955484913e2186fe0cf42bb7dfcc1a35f92e3e102dea9c331ca4b2b1da73f5",
            "2ed93f44f2f6cf380d98f2b97e235482ea1b03e01785ab8c8c3b1bbd1fe29ce1",
        ),
    ] {
        for (variant, hash) in [(Variant::InfoZip, zip), (Variant::Gzip, gzip)] {
            let mut encoder = Encoder::new(variant, level).unwrap();
            let body = vectors::encode(&mut encoder, content, usize::MAX);
            assert_eq!(Digest::sha256(&body).hex(), hash, "{variant:?} {level}");
        }
    }
}

#[test]
fn only_real_levels_exist() {
    assert!(Encoder::new(Variant::Gzip, 0).is_none());
    assert!(Encoder::new(Variant::Gzip, 10).is_none());
    assert!(Encoder::new(Variant::InfoZip, 0).is_none());
    assert!(Encoder::new(Variant::Zlib { mem_level: 0 }, 6).is_none());
    assert!(Encoder::new(Variant::Zlib { mem_level: 10 }, 6).is_none());
    assert!(Encoder::new(Variant::Pigz { parallel: true }, 0).is_none());
}

/// Content that leads to the edges: pieces of literals, of runs, and copies from near and far.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(Piece::Literals),
        (any::<u8>(), 0..70_000_usize).prop_map(|(byte, len)| Piece::Run(byte, len)),
        (prop_oneof![1..50_000_usize, 32_500..32_512_usize], 3..600_usize)
            .prop_map(|(back, len)| Piece::Copy(back, len)),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| {
        let mut content = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Literals(bytes) => content.extend(bytes),
                Piece::Run(byte, len) => content.resize(content.len() + len, byte),
                Piece::Copy(back, len) => {
                    let from = content.len().saturating_sub(back);
                    content.extend_from_within(from..content.len().min(from + len));
                }
            }
        }
        content
    })
}

#[derive(Clone, Debug)]
enum Piece {
    Literals(Vec<u8>),
    Run(u8, usize),
    Copy(usize, usize),
}

fn variant() -> impl Strategy<Value = (Variant, u8)> {
    let variant = prop_oneof![
        Just(Variant::Gzip),
        Just(Variant::InfoZip),
        (1..=9_u8).prop_map(|mem_level| Variant::Zlib { mem_level }),
        any::<bool>().prop_map(|parallel| Variant::Pigz { parallel }),
    ];
    (variant, 1..=9_u8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is written inflates to the content, and neither the cut into calls nor what an encoder did before matters.
    #[test]
    fn output_inflates_and_does_not_depend_on_calls(
        content in content(),
        (variant, level) in variant(),
        piece in 1..100_000_usize,
    ) {
        let mut encoder = Encoder::new(variant, level).unwrap();
        let body = vectors::encode(&mut encoder, &content, usize::MAX);
        let mut inflated = Vec::new();
        flate2::read::DeflateDecoder::new(&body[..]).read_to_end(&mut inflated).unwrap();
        prop_assert!(inflated == content);
        encoder.reset();
        prop_assert!(vectors::encode(&mut encoder, &content, piece) == body);
    }
}
