//! Applying: below 256 MiB for every layer, kind and recipe.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write, sink};

use deltaport_delta::{
    Applied, Delta, Error, Kind, Limits, MAX_MEMORY, MAX_TABLE, Options, Profile, apply, create,
};

use crate::ceiling::{MIB, Peak};
use crate::common::gzip as gzip_blob;
use crate::forged::{self, Places};
use crate::layers::{Archive, noise, on_file, scratch};

fn limits(threads: usize) -> Limits {
    Limits { target_size: 1 << 40, threads, ..Limits::default() }
}

fn make(base: &mut File, target: &mut File) -> Delta {
    let options = Options { worth_percent: 1_000_000, profile: Profile::Fast, ..Options::default() };
    create(&mut [base], target, scratch, &options, |_| ()).unwrap()
}

fn run(base: &mut File, delta: &[u8], threads: usize) -> (Result<Applied, Error>, Peak) {
    base.rewind().unwrap();
    let scratch = scratch().unwrap();
    Peak::of(|| apply(&mut [base], delta, sink(), scratch, &limits(threads)))
}

/// A layer with a large file that compresses to a half.
fn half_noise(name: &str, len: u64) -> File {
    let mut archive = Archive::new();
    archive.begin(name, len);
    let piece = noise(1, 512 << 10);
    for n in 0..len / MIB {
        archive.write(&piece);
        archive.write(&noise(n, 512 << 10));
    }
    archive.finish()
}

/// Applies a delta of a layer of this length whose recipe is replaced. What is made is then as long as that recipe wants,
/// and the target that is announced is not reached.
#[track_caller]
fn with_recipes(len: u64, threads: &[usize], recipes: &[(&str, Vec<u8>)]) {
    let mut layer = half_noise("file", len);
    let delta = make(&mut layer.try_clone().unwrap(), &mut layer).bytes;
    for (name, recipe) in recipes {
        let forged = forged::with_recipe(&delta, recipe);
        for threads in threads {
            let (applied, peak) = run(&mut layer, &forged, *threads);
            assert!(matches!(applied, Err(Error::OutputMismatch(_))), "{name}: {applied:?}");
            peak.is_within(MAX_MEMORY, format_args!("{name}, {threads} threads"));
        }
    }
}

/// The recipe of one gzip member.
fn gzip(encoder: [u8; 4]) -> Vec<u8> {
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    [&[1, 0, 10][..], &header, &encoder].concat()
}

/// The recipe of one zstd frame whose content was not announced: that needs the most memory.
fn zstd(encoder: [u8; 3]) -> Vec<u8> {
    [&[2][..], &encoder, &[0; 9]].concat()
}

#[test]
fn recipes_of_gzip() {
    let recipes = [
        ("GNU gzip", gzip([1, 0, 0, 6])),
        ("zlib", gzip([1, 1, 9, 6])),
        ("pigz", gzip([1, 2, 1, 6])),
        ("Go", gzip([2, 0, 0, 6])),
        ("klauspost", gzip([3, 7, 0, 9])),
    ];
    with_recipes(24 * MIB, &[8], &recipes);
}

#[test]
fn recipes_of_pgzip() {
    // No pgzip that is known takes larger blocks than 1 MiB, but a delta may say so.
    let recipes = [("blocks of 1 MiB", gzip([3, 6, 20, 5])), ("blocks of 16 MiB", gzip([3, 7, 24, 5]))];
    with_recipes(200 * MIB, &[1, 2, 8], &recipes);
}

#[test]
fn recipes_of_klauspost_zstd() {
    let recipes = [
        ("fastest", zstd([1, 11, 1])),
        ("default", zstd([1, 11, 2])),
        ("better", zstd([1, 1, 3])),
        ("best", zstd([1, 1, 4])),
    ];
    with_recipes(64 * MIB, &[8], &recipes);
}

#[test]
fn recipes_of_libzstd() {
    with_recipes(200 * MIB, &[8], &[("level 3", zstd([2, 3, 0])), ("level 3, threads", zstd([2, 3, 2]))]);
    with_recipes(12 * MIB, &[8], &[("level 19", zstd([2, 19, 0]))]);
}

#[test]
fn threads_of_libzstd_that_need_too_much() {
    // What the command makes at its highest level: 128 MiB of content and 80 MiB of tables.
    let mut layer = half_noise("file", 16 * MIB);
    let delta = make(&mut layer.try_clone().unwrap(), &mut layer).bytes;
    let mut forged = forged::with_recipe(&delta, &zstd([2, 19, 2]));
    let (applied, peak) = run(&mut layer, &forged, 8);
    assert!(matches!(applied, Err(Error::Limit { .. })), "{applied:?}");
    peak.is_within(MIB, "level 19, threads, a large blob");
    forged::set(&mut forged, Places::of(1).target_size(), 9 * MIB);
    let (applied, peak) = run(&mut layer, &forged, 8);
    assert!(matches!(applied, Err(Error::OutputMismatch(_))), "{applied:?}");
    peak.is_within(MAX_MEMORY, "level 19, threads, a small blob");
}

#[test]
fn tokens() {
    let piece = noise(1, 300 << 10);
    let layer = |n: u64| on_file(&gzip_blob(&[&noise(n, 24 << 20)[..], &piece.repeat(20)].concat(), 1));
    let (mut base, mut target) = (layer(1), layer(1));
    target.seek(SeekFrom::End(0)).unwrap();
    target.write_all(&gzip_blob(b"one member more", 6)).unwrap();
    let delta = make(&mut base, &mut target);
    assert_eq!(delta.header.kind, Kind::Token);
    let (applied, peak) = run(&mut base, &delta.bytes, 8);
    assert_eq!(applied.unwrap().digest, delta.header.target.digest);
    peak.is_within(MAX_MEMORY, "tokens");
}

#[test]
fn a_large_window_in_a_base() {
    let mut encoder = ::zstd::Encoder::new(scratch().unwrap(), 1).unwrap();
    encoder.window_log(27).unwrap();
    (0..140).for_each(|n| encoder.write_all(&noise(n, 1 << 20)).unwrap());
    let mut base = encoder.finish().unwrap();
    let mut target = half_noise("file", MIB);
    base.rewind().unwrap();
    let delta = make(&mut base, &mut target);
    let (applied, peak) = run(&mut base, &delta.bytes, 8);
    assert_eq!(applied.unwrap().digest, delta.header.target.digest);
    peak.is_within(MAX_MEMORY, "window");
}

#[test]
fn sizes_that_lie() {
    let mut layer = half_noise("file", MIB);
    let delta = make(&mut layer.try_clone().unwrap(), &mut layer).bytes;
    let places = Places::of(1);
    let sections = (0..5).map(|n| places.recipe() + 1 + 8 * n);
    let sizes = [places.base_size(), places.target_size(), places.old_len(), places.new_len()];
    for place in sizes.into_iter().chain(sections) {
        for size in [u64::MAX, 1 << 63, 1 << 40, 1 << 39] {
            let mut forged = delta.clone();
            forged::set(&mut forged, place, size);
            let (applied, peak) = run(&mut layer, &forged, 8);
            // A target that is shorter than announced, and a base, are known only at their ends.
            let late = [places.base_size(), places.target_size(), places.new_len()].contains(&place);
            let refused = matches!(applied, Err(Error::Limit { .. } | Error::Format(_)));
            assert!(
                refused || (late && size <= 1 << 40 && applied.is_err()),
                "{size} at {place}: {applied:?}"
            );
            peak.is_within(if late { 64 } else { 48 } * MIB, format_args!("{size} at {place}"));
        }
    }
}

#[test]
fn the_largest_tables() {
    let many = 1 << 18;
    let mut unfold = Vec::new();
    for _ in 0..16 {
        forged::number(&mut unfold, many);
        unfold.extend([1, 1].repeat(many as usize));
    }
    let mut fold = Vec::new();
    forged::number(&mut fold, many);
    fold.extend([1, 1, 2, 0, 0, 6, 0].repeat(many as usize));
    // Models of empty files, each with as many loads as it may have.
    let loads = 1 << 10;
    let mut model = vec![0, 0, 0, 0];
    forged::number(&mut model, loads);
    model.extend(vec![0; 3 * loads as usize]);
    model.extend([0, 0]);
    let models = MAX_TABLE as usize / model.len() - 1;
    let mut executables = Vec::new();
    forged::number(&mut executables, models as u64);
    executables.extend(model.repeat(models));
    let mut layer = half_noise("file", MIB);
    let delta = make(&mut layer.try_clone().unwrap(), &mut layer).bytes;
    let matches = forged::matches(&delta);
    for (bases, unfold, executables) in
        [(16, &unfold, &vec![]), (1, &vec![], &executables), (16, &unfold, &executables)]
    {
        let (unfold, fold, executables) =
            (forged::section(unfold), forged::section(&fold), forged::section(executables));
        let forged = forged::with_tables(&delta, bases, [&unfold, &fold, &matches, &executables]);
        let (applied, peak) = run(&mut layer, &forged, 8);
        assert!(matches!(applied, Err(Error::Limit { .. })), "{applied:?}");
        peak.is_within(MAX_MEMORY, "tables");
    }
}
