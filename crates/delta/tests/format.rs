//! The bytes of a delta: golden examples of every kind, and a document that cannot fall behind the code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use common::stored;
use deltaport_delta::{Delta, Error, Kind, Limits, Options, apply, create, inspect};
use deltaport_oci::{Algorithm, Digest};

/// The sources that decide what the bytes of a delta are.
const SOURCES: [&str; 5] = [
    "crates/delta/src/format/codec.rs",
    "crates/delta/src/format/header.rs",
    "crates/delta/src/format/mod.rs",
    "crates/delta/src/token/layout.rs",
    "crates/delta/src/token/tables.rs",
];

/// One delta of each kind, field by field. They stay as they are for as long as version 1 is read.
const GOLDEN_RAW: &[&str] = &[
    "896470646c74610a",                                                 // magic
    "01",                                                               // version
    "02",                                                               // kind
    "01",                                                               // bases
    "02",                                                               // base: algorithm
    "f9e519d08f87db88fc933e5c79579192485e6dc20abc72da177cbf5a1c92d6b4", // digest
    "c6c6de1063ec6200f724f43d00f3858b075676e641ea7bb70c7f648b1c962151",
    "0000000000000045",                                                 // size
    "02",                                                               // target: algorithm
    "5898c82085c0ea8a82a33b5bce1512935633d5c8482a0c69c61c2e2290204873", // digest
    "4aa8f0e185bd0c9b0da0ce8677b13e3c8cdfed761b965fc93c73dd04da37ed8c",
    "0000000000000046",                                               // size
    "0000000000000045",                                               // reference length
    "0000000000000046",                                               // stream length
    "000000000000001f",                                               // payload length
    "28b52ffd244695000048736f6d657468696e670200491417e40c40b2953117", // payload: a zstd frame
];

const GOLDEN_TOKEN: &[&str] = &[
    "896470646c74610a",                                                 // magic
    "01",                                                               // version
    "01",                                                               // kind
    "01",                                                               // bases
    "01",                                                               // base: algorithm
    "55c184c65393f68e1041a7f7b949b21b1041df97d48ca5754ad7d2392b6cd0f0", // digest
    "000000000000005c",                                                 // size
    "01",                                                               // target: algorithm
    "b23b22c142d9549ddc778677863fc0270c47b0bbb74b75e49489622de630f2ea", // digest
    "000000000000005d",                                                 // size
    "0000000000000060",                                                 // reference length
    "0000000000000061",                                                 // stream length
    "0000000000000024",                                                 // payload length
    "28b52ffd2461bd000060150046736f6d657468696e67030064484ee09c510e40", // payload: a zstd frame
    "63e23db1",
];

const OLD: &[u8] = b"What was there before and mostly stays, even though a little changes.";
const NEW: &[u8] = b"What was there before and mostly stays, even though something changes.";

fn bytes_of(fields: &[&str]) -> Vec<u8> {
    let digits = fields.concat();
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn make(base: &[u8], target: &[u8], algorithm: Algorithm) -> Delta {
    let options = Options { worth_percent: 10_000, algorithm, ..Options::default() };
    create(&mut [Cursor::new(base)], &mut Cursor::new(target), &options).unwrap()
}

#[track_caller]
fn is_golden(kind: Kind, fields: &[&str], base: &[u8], target: &[u8], algorithm: Algorithm) {
    // When only this fails, and it does because the zstd library writes other bytes now, the example needs no change
    // but a note: it must still be applied below.
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&make(base, target, algorithm).bytes), fields.concat());

    let delta = bytes_of(fields);
    assert_eq!(inspect(&delta[..]).unwrap().kind, kind);
    let mut out = Vec::new();
    apply(&mut [base], &delta[..], &mut out, &Limits::default()).unwrap();
    assert_eq!(out, target);
}

#[test]
fn the_golden_raw_delta_is_made_and_applied() {
    is_golden(Kind::Raw, GOLDEN_RAW, OLD, NEW, Algorithm::Sha512);
}

#[test]
fn the_golden_token_delta_is_made_and_applied() {
    // Both are gzip, and their trailers are the same.
    let (old, new) = (stored(OLD, 0).member(), stored(NEW, 0b10101).member());
    is_golden(Kind::Token, GOLDEN_TOKEN, &old, &new, Algorithm::Sha256);
}

#[test]
fn a_header_is_read_without_its_payload() {
    let delta = make(OLD, NEW, Algorithm::Sha256);
    let header_len = delta.bytes.len() - delta.header.payload_len as usize;
    let mut rest = &delta.bytes[..];
    assert_eq!(inspect(&mut rest).unwrap(), delta.header);
    assert_eq!(rest.len() as u64, delta.header.payload_len);
    for len in 0..header_len {
        assert!(matches!(inspect(&delta.bytes[..len]), Err(Error::Format(_))), "cut at {len}");
    }
}

#[test]
fn what_a_newer_version_writes_is_refused() {
    let delta = make(OLD, NEW, Algorithm::Sha256).bytes;
    // Magic, version, kind, number of bases, algorithm of the first digest.
    for (place, value) in
        [(0, 0x88), (7, b'\r'), (8, 0), (8, 2), (9, 0), (9, 3), (10, 0), (10, 17), (11, 0), (11, 3)]
    {
        let mut changed = delta.clone();
        changed[place] = value;
        assert!(matches!(inspect(&changed[..]), Err(Error::Format(_))), "{value} at {place}");
    }
}

/// A file of the repository.
fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn the_document_describes_these_sources() {
    let document = std::fs::read_to_string(in_repository("docs/delta-format.md")).unwrap();
    for path in SOURCES {
        let digest = Digest::sha256(&std::fs::read(in_repository(path)).unwrap());
        let line = format!("| `{path}` | `{}` |", digest.hex());
        assert!(
            document.contains(&line),
            "{path} has changed. Bring docs/delta-format.md up to date, then put this line into its table:\n{line}"
        );
    }
}
