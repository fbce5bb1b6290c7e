//! Layers that are made of many gzip members or zstd frames, as real tools write them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::io::Cursor;

use common::{gnu_gzip, scratch, tar, text};
use deltaport_delta::{Delta, Form, Kind, Limits, Options, apply, create};

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/vectors/members/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The delta between two layers, which gives the second one back.
#[track_caller]
fn delta(old: &[u8], new: &[u8]) -> Delta {
    let options = Options { worth_percent: 100, ..Options::default() };
    let delta =
        create(&mut [Cursor::new(old)], &mut Cursor::new(new), || Ok(scratch()), &options, |_| ()).unwrap();
    for threads in [1, 3] {
        let (mut out, limits) = (Vec::new(), Limits { threads, ..Limits::default() });
        apply(&mut [old], &delta.bytes[..], &mut out, scratch(), &limits).unwrap();
        assert!(out == new);
    }
    delta
}

#[track_caller]
fn is_exact(delta: &Delta, recipe: &str, form: Form, largest: usize) {
    assert_eq!(delta.header.kind, Kind::Plain);
    assert_eq!(delta.header.recipe.as_ref().unwrap().to_string(), recipe);
    assert_eq!(delta.header.bases[0].form, form);
    assert!(delta.bytes.len() <= largest, "{} bytes: {:?}", delta.bytes.len(), delta.header.sections);
}

const ESTARGZ: &str = "gzip members by Go compress/gzip up to 1.26, level 9";
const CHUNKED: &str = "zstd frames by klauspost/compress v1.15.10, best";

#[test]
fn estargz_comes_back() {
    let delta = delta(&vector("estargz.old"), &vector("estargz.new"));
    is_exact(&delta, ESTARGZ, Form::GzipMembers, 1200);
}

#[test]
fn zstd_chunked_comes_back() {
    let delta = delta(&vector("zstd-chunked.old"), &vector("zstd-chunked.new"));
    is_exact(&delta, CHUNKED, Form::ZstdFrames, 1500);
}

#[test]
fn the_base_may_be_of_another_tool() {
    let delta = delta(&vector("estargz.old"), &vector("zstd-chunked.new"));
    is_exact(&delta, CHUNKED, Form::GzipMembers, 4000);
}

#[test]
fn gzip_files_one_behind_the_other_come_back() {
    let parts = |seed| [gnu_gzip(&text(seed, 900), 6), gnu_gzip(&tar(&[("a", &text(2, 700))]), 6)].concat();
    let delta = delta(&parts(3), &parts(4));
    is_exact(&delta, "gzip members by GNU gzip, level 6", Form::GzipMembers, 20_000);
}
