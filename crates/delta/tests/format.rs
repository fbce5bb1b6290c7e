//! The bytes of a delta: golden examples of every kind, and a document that cannot fall behind the code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use common::{gnu_gzip, scratch, stored, tar};
use deltaport_delta::{Delta, Error, Kind, Limits, Options, apply, create, inspect};
use deltaport_oci::{Algorithm, Digest};

/// The sources that decide what the bytes of a delta are.
const SOURCES: [&str; 15] = [
    "crates/delta/src/exec/model.rs",
    "crates/delta/src/format/codec.rs",
    "crates/delta/src/format/header.rs",
    "crates/delta/src/format/mod.rs",
    "crates/delta/src/format/sections.rs",
    "crates/delta/src/outline/open.rs",
    "crates/delta/src/outline/section.rs",
    "crates/delta/src/outline/wire.rs",
    "crates/delta/src/recipe/blob.rs",
    "crates/delta/src/recipe/deflate.rs",
    "crates/delta/src/recipe/members/mod.rs",
    "crates/delta/src/recipe/zstd/wire.rs",
    "crates/delta/src/token/layout.rs",
    "crates/delta/src/token/tables.rs",
    "crates/delta/src/unfold/list.rs",
];

const OLD: &[u8] = b"What was there before and mostly stays, even though a little changes.";
const NEW: &[u8] = b"What was there before and mostly stays, even though something changes.";

fn make(base: &[u8], target: &[u8], algorithm: Algorithm) -> Delta {
    let options = Options { worth_percent: 10_000, algorithm, ..Options::default() };
    create(&mut [Cursor::new(base)], &mut Cursor::new(target), || Ok(scratch()), &options, |_| ()).unwrap()
}

/// Makes a delta and compares it with the golden one, which is applied as well. Golden deltas are made again by running
/// the tests with `BLESS=1`; that is right only while no release has written the version that they have.
#[track_caller]
fn is_golden(kind: Kind, base: &[u8], target: &[u8], algorithm: Algorithm) {
    is_golden_as(kind.as_str(), kind, base, target, algorithm);
}

#[track_caller]
fn is_golden_as(name: &str, kind: Kind, base: &[u8], target: &[u8], algorithm: Algorithm) {
    let path = in_repository(&format!("crates/delta/tests/golden/{name}.delta"));
    let made = make(base, target, algorithm);
    assert_eq!(made.header.kind, kind);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &made.bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    let mut out = Vec::new();
    apply(&mut [base], &golden[..], &mut out, scratch(), &Limits::default()).unwrap();
    assert_eq!(out, target);
    // When only this fails, the same format is written in another way, and the golden delta may stay.
    assert!(made.bytes == golden, "{} bytes were made, and {} are golden", made.bytes.len(), golden.len());
}

#[test]
fn the_golden_raw_delta_is_made_and_applied() {
    let zstd = |content: &[u8]| [&0xfd2f_b528_u32.to_le_bytes()[..], content].concat();
    is_golden(Kind::Raw, &zstd(OLD), &zstd(NEW), Algorithm::Sha512);
}

#[test]
fn the_golden_token_delta_is_made_and_applied() {
    // Both are gzip, and their trailers are the same.
    let (old, new) = (stored(OLD, 0).member(), stored(NEW, 0b10101).member());
    is_golden(Kind::Token, &old, &new, Algorithm::Sha256);
}

#[test]
fn the_golden_plain_delta_is_made_and_applied() {
    let layer =
        |content: &[u8]| gnu_gzip(&tar(&[("doc/a.gz", &gnu_gzip(&content.repeat(9), 9)), ("b", content)]), 6);
    is_golden(Kind::Plain, &layer(OLD), &layer(NEW), Algorithm::Sha256);
}

#[test]
fn the_golden_delta_of_members_is_made_and_applied() {
    let layer = |content: &[u8]| {
        let members = [&content.repeat(90)[..], b"a", content].map(|content| gnu_gzip(content, 6));
        [&members.concat()[..], &gnu_gzip(&OLD.repeat(70), 6)].concat()
    };
    is_golden_as("members", Kind::Plain, &layer(OLD), &layer(NEW), Algorithm::Sha256);
}

#[test]
fn a_header_says_these_bytes() {
    let zstd = |content: &[u8]| [&0xfd2f_b528_u32.to_le_bytes()[..], content].concat();
    let golden = make(&zstd(OLD), &zstd(NEW), Algorithm::Sha512).bytes;
    let hex = golden[..11].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex, "896470646c74610a040201", "magic, version, kind, number of bases");
    // Algorithm, digest, size and form of the base; algorithm, digest and size of the target; and the lengths.
    let mut at = 11;
    let mut field = |len: usize| {
        at += len;
        &golden[at - len..at]
    };
    for blob in [zstd(OLD), zstd(NEW)] {
        assert_eq!(field(1), [2]);
        assert_eq!(field(64), Digest::of(Algorithm::Sha512, &blob).hash());
        assert_eq!(field(8), (blob.len() as u64).to_be_bytes());
        if blob == zstd(OLD) {
            assert_eq!(field(1), [0]);
        }
    }
    assert_eq!(field(8), (OLD.len() as u64 + 4).to_be_bytes());
    assert_eq!(field(8), (NEW.len() as u64 + 4).to_be_bytes());
    let header = inspect(&golden[..]).unwrap();
    for (name, size) in header.sections.by_name() {
        assert_eq!(field(8), size.to_be_bytes(), "{name}");
    }
    let payload: u64 = header.sections.by_name().iter().map(|(_, size)| size).sum();
    assert_eq!((golden.len() - at) as u64, payload);
}

#[test]
fn a_header_is_read_without_its_payload() {
    let delta = make(OLD, NEW, Algorithm::Sha256);
    let payload: u64 = delta.header.sections.by_name().iter().map(|(_, size)| size).sum();
    let header_len = delta.bytes.len() - payload as usize;
    let mut rest = &delta.bytes[..];
    assert_eq!(inspect(&mut rest).unwrap(), delta.header);
    assert_eq!(rest.len() as u64, payload);
    for len in 0..header_len {
        assert!(matches!(inspect(&delta.bytes[..len]), Err(Error::Format(_))), "cut at {len}");
    }
}

#[test]
fn what_a_newer_version_writes_is_refused() {
    let delta = make(OLD, NEW, Algorithm::Sha256).bytes;
    // Magic, version, kind, number of bases, algorithm of the first digest.
    for (place, value) in
        [(0, 0x88), (7, b'\r'), (8, 3), (8, 5), (9, 0), (9, 4), (10, 0), (10, 17), (11, 0), (11, 3), (52, 6)]
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
