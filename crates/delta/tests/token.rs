//! The token stream: every gzip blob comes back as it was or is refused, and no bytes make it panic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::io::Write;

use common::{Bits, HEADER, TRAILER, gzip, gzip_with_names, noise, stored, text, two_spellings};
use deltaport_delta::{Error, token};
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

fn tokens_of(blob: &[u8]) -> Result<Vec<u8>, Error> {
    let mut tokens = Vec::new();
    let len = token::decode(blob, &mut tokens, u64::MAX)?;
    assert_eq!(len, tokens.len() as u64);
    Ok(tokens)
}

fn blob_of(tokens: &[u8]) -> Result<Vec<u8>, Error> {
    let mut blob = Vec::new();
    token::encode(tokens, &mut blob)?;
    assert!(blob.len() <= 2 * tokens.len(), "the promise of `encode` about its output");
    Ok(blob)
}

#[track_caller]
fn comes_back(blob: &[u8]) -> Vec<u8> {
    let tokens = tokens_of(blob).unwrap();
    assert!(blob_of(&tokens).unwrap() == blob, "another blob came back");
    tokens
}

#[track_caller]
fn refused(blob: &[u8]) {
    assert!(matches!(tokens_of(blob), Err(Error::Unrepresentable(_))), "{:?}", tokens_of(blob));
}

#[test]
fn blobs_of_every_level_come_back() {
    let mixed = [text(1, 4000), noise(2, 200_000), vec![0; 300_000], text(3, 4000)].concat();
    for level in 0..=9 {
        comes_back(&gzip(&mixed, level));
        comes_back(&gzip(&[], level));
        comes_back(&gzip(b"A", level));
    }
}

#[test]
fn flushed_blocks_come_back() {
    let content = text(4, 3000);
    let mut deflate = Compress::new(Compression::default(), false);
    let mut body = Vec::with_capacity(4 * content.len());
    for (piece, flush) in content.chunks(997).zip([FlushCompress::Sync, FlushCompress::Full].iter().cycle()) {
        deflate.compress_vec(piece, &mut body, *flush).unwrap();
    }
    deflate.compress_vec(&[], &mut body, FlushCompress::Finish).unwrap();
    comes_back(&[&HEADER, &body[..], &TRAILER].concat());
}

#[test]
fn every_header_comes_back() {
    comes_back(&gzip_with_names(&text(5, 100)));
    // FTEXT and FHCRC, whose two bytes follow the name.
    let body = &two_spellings()[HEADER.len()..];
    comes_back(&[&[0x1f, 0x8b, 8, 0b1011, 1, 2, 3, 4, 5, 6], &b"name\0\x12\x34"[..], body].concat());
    // A header that fills its count, and one that does not fit.
    for (extra, fits) in [(0xffff - 12, true), (0xffff - 11, false)] {
        let head = [&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 3], &u16::to_le_bytes(extra)[..]].concat();
        let blob = [&head, &noise(6, extra.into())[..], body].concat();
        if fits { _ = comes_back(&blob) } else { refused(&blob) }
    }
}

#[test]
fn members_and_tails_come_back() {
    let blob = gzip(&text(7, 200), 6);
    let many = blob.repeat(20);
    comes_back(&many);
    for tail in [
        &[0][..],
        &[0; 512],
        &[0x1f],
        &[0x1f, 0x8b],
        &HEADER[..9],
        &[0x1f, 0x8b, 7, 0, 0, 0],
        &[0x1f, 0x8b, 8, 0x80, 0, 0],
        &[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0, b'n', b'a'],
        &noise(8, 300_000),
    ] {
        comes_back(&[&many, tail].concat());
    }
    // A header is a promise: a member that begins and is not one is refused.
    refused(&[&blob, &HEADER[..]].concat());
    refused(&[&blob, &HEADER[..], &[0xff; 20]].concat());
}

#[test]
fn padding_comes_back() {
    for padding in 0..32 {
        comes_back(&stored(b"content", padding).member());
        comes_back(&Bits::default().block(true, 1).fixed_symbol(256).pad(padding).member());
    }
}

#[test]
fn both_spellings_of_258_come_back() {
    let blob = two_spellings();
    let tokens = comes_back(&blob);
    let expected =
        [&[1, 0, 10][..], &HEADER, &[0b11, 1, b'a', 0, 1, 0, 0, 0x80, 0, 255, 0, 0, 0], &TRAILER, &[0]]
            .concat();
    assert_eq!(tokens, expected);
}

#[test]
fn runs_of_any_length_come_back() {
    for len in [1, 126, 127, 128, 65_534, 65_535, 65_536, 65_537, 200_000] {
        let blob = (0..len)
            .fold(Bits::default().block(true, 1), |bits, place| bits.fixed_literal((place % 251) as u8))
            .fixed_symbol(256)
            .pad(0)
            .member();
        comes_back(&blob);
    }
}

/// A dynamic block: the lengths of the length code in their order, then what follows as (symbol, bits, extra, bits).
fn dynamic(counts: [u32; 3], length_code: &[u32], steps: &[(u32, u32, u32, u32)]) -> Bits {
    let mut bits = Bits::default().block(true, 2).put(counts[0], 5).put(counts[1], 5).put(counts[2], 4);
    for &length in length_code {
        bits = bits.put(length, 3);
    }
    for &(code, len, extra, extra_bits) in steps {
        bits = bits.code(code, len).put(extra, extra_bits);
    }
    bits
}

/// A length code with the symbols 18 (code 0), 1 (code 10) and 16 (code 11).
const LENGTH_CODE: [u32; 18] = [2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// 256 zeros in two steps.
const ZEROS: [(u32, u32, u32, u32); 2] = [(0, 1, 127, 7), (0, 1, 107, 7)];

#[test]
fn incomplete_codes_come_back_while_nothing_unused_turns_up() {
    // One code of one bit for the end of the block, and one for distance 1, as Go writes it.
    let steps = [ZEROS[0], ZEROS[1], (0b10, 2, 0, 0), (0b10, 2, 0, 0)];
    let block = || dynamic([0, 0, 14], &LENGTH_CODE, &steps);
    comes_back(&block().put(0, 1).pad(0).member());
    refused(&block().put(1, 1).pad(0).member());
}

#[test]
fn impossible_tables_are_refused() {
    // Nothing to repeat.
    refused(&dynamic([0, 0, 14], &LENGTH_CODE, &[(0b11, 2, 0, 2)]).put(0, 8).pad(0).member());
    // A repeat past the end.
    let past = [ZEROS[0], ZEROS[1], (0b10, 2, 0, 0), (0b11, 2, 0, 2)];
    refused(&dynamic([0, 0, 14], &LENGTH_CODE, &past).put(0, 8).pad(0).member());
    // No end of block.
    let endless = [(0, 1, 127, 7), (0, 1, 108, 7), (0b10, 2, 0, 0)];
    refused(&dynamic([0, 0, 14], &LENGTH_CODE, &endless).put(0, 8).pad(0).member());
    // More codes than patterns, in the length code and in the code itself.
    refused(&dynamic([0, 0, 14], &[1; 18], &[]).put(0, 32).pad(0).member());
    let three = [(0b10, 2, 0, 0), (0b10, 2, 0, 0), (0, 1, 127, 7), (0, 1, 105, 7), (0b10, 2, 0, 0)];
    refused(&dynamic([0, 0, 14], &LENGTH_CODE, &three).put(0b10, 2).put(0, 8).pad(0).member());
}

#[test]
fn what_is_not_gzip_is_refused() {
    refused(b"");
    refused(b"\x1f");
    refused(b"no gzip at all, only a text");
    refused(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0, 0, 0, 0]);
    refused(&Bits::default().block(true, 3).pad(0).member());
    for unused in [286, 287] {
        refused(&Bits::default().block(true, 1).fixed_symbol(unused).put(0, 30).pad(0).member());
    }
    for unused in [30, 31] {
        let copy = Bits::default().block(true, 1).fixed_symbol(257).code(unused, 5);
        refused(&copy.put(0, 30).pad(0).member());
    }
    let mut damaged = stored(b"content", 0).member();
    damaged[HEADER.len() + 1] ^= 1;
    refused(&damaged);
}

#[test]
fn every_truncation_is_refused() {
    for blob in [gzip(&text(9, 20), 9), gzip_with_names(b"abc"), stored(b"content", 1).member()] {
        for len in 0..blob.len() {
            refused(&blob[..len]);
        }
    }
}

#[test]
fn the_limit_holds() {
    let blob = gzip(&text(10, 3000), 6);
    let len = tokens_of(&blob).unwrap().len() as u64;
    assert_eq!(token::decode(&blob[..], std::io::sink(), len).unwrap(), len);
    for limit in [0, 1, len / 2, len - 1] {
        let mut tokens = Vec::new();
        let outcome = token::decode(&blob[..], &mut tokens, limit);
        assert!(matches!(outcome, Err(Error::Limit { .. })), "{outcome:?}");
        assert!(tokens.len() as u64 <= limit);
    }
}

/// Says "full" after some bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn failures_of_the_writer_come_through() {
    let blob = gzip(&noise(11, 300_000), 6);
    let tokens = tokens_of(&blob).unwrap();
    let is_full = |e: &std::io::Error| e.kind() == std::io::ErrorKind::StorageFull;
    assert!(matches!(token::decode(&blob[..], Full(100_000), u64::MAX), Err(Error::Io(e)) if is_full(&e)));
    assert!(matches!(token::encode(&tokens[..], Full(100_000)), Err(Error::Io(e)) if is_full(&e)));
}

#[test]
fn damaged_streams_are_refused_or_say_another_blob() {
    let blob = [gzip(&text(12, 6), 9), two_spellings(), stored(b"content", 3).member(), vec![0; 9]].concat();
    let tokens = tokens_of(&blob).unwrap();
    for len in 0..tokens.len() {
        assert!(matches!(blob_of(&tokens[..len]), Err(Error::Format(_))), "cut at {len}");
    }
    assert!(matches!(blob_of(&[&tokens[..], &[0]].concat()), Err(Error::Format(_))));
    for place in 0..tokens.len() {
        for bit in 0..8 {
            let mut damaged = tokens.clone();
            damaged[place] ^= 1 << bit;
            // Whether it can be said depends on the place; it must never be taken for the same blob.
            match blob_of(&damaged) {
                Ok(other) => assert!(other != blob, "bit {bit} of byte {place} does not matter"),
                Err(error) => assert!(matches!(error, Error::Format(_)), "{error:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_flate2_makes_comes_back(
        pieces in proptest::collection::vec((0..4_u8, any::<u64>(), 0..3000_usize), 0..12),
        level in 0..10_u32,
        cut in any::<prop::sample::Index>(),
    ) {
        let content: Vec<u8> = pieces
            .into_iter()
            .flat_map(|(kind, seed, len)| match kind {
                0 => noise(seed, len),
                1 => text(seed, len / 40),
                2 => vec![seed as u8; 10 * len],
                _ => noise(seed, len).iter().map(|byte| byte & 3).collect(),
            })
            .collect();
        let blob = gzip(&content, level);
        comes_back(&blob);
        comes_back(&[&blob[..], &blob, &blob[..cut.index(3)]].concat());
    }

    #[test]
    fn a_blob_with_a_flipped_bit_comes_back_or_is_refused(
        seed in any::<u64>(),
        level in 0..10_u32,
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let mut blob = gzip(&text(seed, 40), level);
        let at = at.index(blob.len());
        blob[at] ^= 1 << bit;
        match tokens_of(&blob) {
            Ok(tokens) => prop_assert!(blob_of(&tokens).unwrap() == blob),
            Err(error) => prop_assert!(matches!(error, Error::Unrepresentable(_)), "{:?}", error),
        }
    }

    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = blob_of(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        let _ = blob_of(&bytes);
        bytes.splice(0..0, HEADER);
        if let Ok(tokens) = tokens_of(&bytes) {
            prop_assert!(blob_of(&tokens).unwrap() == bytes);
        }
    }
}
