//! Making and applying deltas: the target or an error, whatever the inputs are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::io::{Cursor, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{gnu_gzip, gzip, gzip_with_names, noise, scratch, tar, text};
use deltaport_delta::{
    Applied, Delta, Error, Kind, Limits, MAX_BASES, Options, Profile, apply, create, inspect,
};
use deltaport_oci::{Algorithm, Digest};
use proptest::prelude::*;

/// Options for inputs that are far too small to be worth it.
fn at_any_price() -> Options {
    Options { worth_percent: 1_000_000, ..Options::default() }
}

fn make(bases: &[&[u8]], target: &[u8], options: &Options) -> Result<Delta, Error> {
    let mut bases: Vec<_> = bases.iter().map(Cursor::new).collect();
    create(&mut bases, &mut Cursor::new(target), || Ok(scratch()), options, |_| ())
}

fn restore(bases: Vec<&[u8]>, delta: &[u8]) -> Result<(Applied, Vec<u8>), Error> {
    restore_with(1, bases, delta)
}

fn restore_with(threads: usize, mut bases: Vec<&[u8]>, delta: &[u8]) -> Result<(Applied, Vec<u8>), Error> {
    let mut out = Vec::new();
    let limits = Limits { threads, ..Limits::default() };
    let applied = apply(&mut bases, delta, &mut out, scratch(), &limits)?;
    Ok((applied, out))
}

#[track_caller]
fn round_trip(bases: &[&[u8]], target: &[u8]) -> Delta {
    let delta = make(bases, target, &at_any_price()).unwrap();
    assert_eq!(inspect(&delta.bytes[..]).unwrap(), delta.header);
    for threads in [1, 3] {
        let (applied, out) = restore_with(threads, bases.to_vec(), &delta.bytes).unwrap();
        assert!(out == target, "another blob came back");
        assert_eq!(applied, Applied { digest: Digest::sha256(target), size: target.len() as u64 });
    }
    delta
}

/// An old layer and a new one: a file grown, a file gone, a file added, and much that stayed.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let stays = [text(1, 3000), noise(2, 50_000), text(3, 3000)].concat();
    let old = [&text(4, 300), &stays[..], &text(5, 300)].concat();
    let new = [&text(4, 310), &stays[..100_000], &text(6, 20), &stays[100_000..]].concat();
    (old, new)
}

#[test]
fn gzip_of_a_known_encoder_is_compared_uncompressed() {
    let (old, new) = versions();
    for level in [1, 6, 9] {
        let new = gnu_gzip(&new, level);
        // However the base was compressed.
        for old in [gzip(&old, 6), old.clone(), zstd::encode_all(&old[..], 3).unwrap()] {
            let delta = round_trip(&[&old], &new);
            assert_eq!(delta.header.kind, Kind::Plain, "level {level}");
            assert_eq!(
                delta.header.recipe.as_ref().unwrap().to_string(),
                format!("gzip by GNU gzip, level {level}")
            );
            assert!(
                delta.bytes.len() * 50 < new.len(),
                "level {level}: {} of {}",
                delta.bytes.len(),
                new.len()
            );
        }
    }
}

#[test]
fn gzip_of_an_unknown_encoder_is_compared_as_tokens() {
    let (old, new) = versions();
    for level in [1, 6, 9] {
        let (old, new) = (gzip(&old, level), gzip(&new, level));
        let delta = round_trip(&[&old], &new);
        assert_eq!(delta.header.kind, Kind::Token);
        assert!(delta.bytes.len() * 20 < new.len(), "level {level}: {} of {}", delta.bytes.len(), new.len());
    }
}

#[test]
fn what_is_not_compressed_is_compared_as_it_is() {
    let (old, new) = versions();
    for old in [old.clone(), gzip(&old, 6)] {
        let delta = round_trip(&[&old], &new);
        assert_eq!(delta.header.kind, Kind::Plain);
        assert_eq!(delta.header.recipe.as_ref().unwrap().to_string(), "not compressed");
        assert!(delta.bytes.len() * 50 < new.len());
    }
}

#[test]
fn zstd_of_an_unknown_encoder_is_compared_as_the_blob_it_is() {
    // Frames that stayed as they are, behind one that no encoder writes.
    let frame = |seed| {
        // No tool asks for this window.
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(13).unwrap();
        encoder.write_all(&noise(seed, 30_000)).unwrap();
        encoder.finish().unwrap()
    };
    let frames: Vec<_> = (0..4).map(frame).collect();
    let (old, new) = (frames[..3].concat(), [&frames[3], &frames[1], &frames[2]].map(|f| &f[..]).concat());
    assert_eq!(round_trip(&[&old], &new).header.kind, Kind::Raw);
}

#[test]
fn compressed_files_inside_are_opened() {
    let (old, new) = (text(1, 4000), [text(7, 10), text(1, 4000)].concat());
    let layer =
        |content: &[u8]| tar(&[("a", b"some"), ("doc/changelog.gz", &gnu_gzip(content, 9)), ("z", b"file")]);
    let (old, new) = (layer(&old), layer(&new));
    let delta = round_trip(&[&old], &gnu_gzip(&new, 6));
    assert!(delta.header.sections.fold > 0);
    assert!(delta.bytes.len() < 1000, "{}", delta.bytes.len());
    // What did not change stays closed.
    assert_eq!(round_trip(&[&old], &[&old[..old.len() - 1], &[1]].concat()).header.sections.fold, 0);
    // What cannot be compressed again, too.
    let layer = |content: &[u8]| tar(&[("a", &gzip(content, 6))]);
    let delta = round_trip(&[&layer(&text(1, 4000))], &layer(&text(1, 4001)));
    assert_eq!(delta.header.sections.fold, 0);
}

#[test]
fn a_wrong_recipe_is_found_out() {
    // Enough that the recipe fits, with a change behind what is looked at: padding bits that no encoder leaves set.
    let content = text(1, 200_000);
    assert!(content.len() > 6 << 20);
    let mut blob = gnu_gzip(&content, 6);
    let last = blob.len() - 9;
    blob[last] |= 0x80;
    let spoiled = blob[last];
    let delta = round_trip(&[&content], &blob);
    // Either the bit was no padding and the blob is damaged, or it was and only tokens can say so.
    assert_ne!(delta.header.kind, Kind::Plain, "{spoiled:02x}");
}

#[test]
fn several_bases_serve_one_target() {
    let pieces: Vec<_> = (0..4).map(|seed| noise(seed, 40_000)).collect();
    let target = gzip(&pieces.concat(), 6);
    let bases: Vec<_> = pieces.iter().map(|piece| gzip(piece, 6)).collect();
    let bases: Vec<_> = bases.iter().map(|base| &base[..]).collect();
    let delta = round_trip(&bases, &target);
    assert!(delta.bytes.len() * 10 < target.len(), "{} of {}", delta.bytes.len(), target.len());

    let mut wrong_order = bases.clone();
    wrong_order.reverse();
    assert!(matches!(restore(wrong_order, &delta.bytes), Err(Error::BaseMismatch(_))));
    assert!(matches!(restore(bases[1..].to_vec(), &delta.bytes), Err(Error::BaseMismatch(_))));
}

#[test]
fn small_and_odd_blobs_come_back() {
    let blobs = [
        vec![],
        vec![0],
        b"text".to_vec(),
        gzip(&[], 6),
        gzip(b"A", 9),
        gzip_with_names(&[]),
        noise(1, 3000),
    ];
    for base in &blobs {
        for target in &blobs {
            if target.is_empty() {
                let nothing = make(&[base], target, &at_any_price());
                assert!(matches!(nothing, Err(Error::NotWorthIt { allowed: 0 })), "{nothing:?}");
            } else {
                round_trip(&[base], target);
            }
        }
    }
}

#[test]
fn digests_are_of_the_algorithm_asked_for() {
    let (old, new) = versions();
    let options = Options { algorithm: Algorithm::Sha512, ..at_any_price() };
    let delta = make(&[&old], &new, &options).unwrap();
    let (applied, _) = restore(vec![&old], &delta.bytes).unwrap();
    assert_eq!(applied.digest, Digest::of(Algorithm::Sha512, &new));
    assert_eq!(delta.header.bases[0].blob.digest, Digest::of(Algorithm::Sha512, &old));
}

#[test]
fn the_same_inputs_give_the_same_delta() {
    let (old, new) = versions();
    let (old, new) = (gzip(&old, 6), gzip(&new, 6));
    let options = Options::default();
    assert!(make(&[&old], &new, &options).unwrap() == make(&[&old], &new, &options).unwrap());
}

#[test]
fn what_saves_too_little_is_not_worth_it() {
    let target = gzip(&noise(1, 20_000), 6);
    let other = make(&[&gzip(&noise(2, 20_000), 6)], &target, &Options::default());
    let allowed = target.len() as u64 * 70 / 100;
    assert!(matches!(other, Err(Error::NotWorthIt { allowed: a }) if a == allowed), "{other:?}");
    // The same pair is worth it to someone who asks for less.
    let delta = make(&[&noise(2, 20_000)], &target, &Options { worth_percent: 110, ..Options::default() });
    assert!(delta.is_ok_and(|delta| delta.bytes.len() as u64 <= target.len() as u64 * 110 / 100));
}

#[test]
fn bases_are_counted() {
    for count in [0, MAX_BASES + 1] {
        let bases = vec![&b"base"[..]; count];
        assert!(matches!(make(&bases, b"target", &at_any_price()), Err(Error::BaseMismatch(_))));
    }
    round_trip(&[&b"base"[..]; MAX_BASES], b"target");
}

#[test]
fn profiles_and_threads_make_deltas_of_the_same_target() {
    let (old, new) = versions();
    let (old, new) = (gzip(&old, 6), gnu_gzip(&new, 6));
    let with =
        |profile, threads| make(&[&old], &new, &Options { profile, threads, ..at_any_price() }).unwrap();
    for profile in [Profile::Fast, Profile::Best] {
        let delta = with(profile, 1);
        assert!(delta == with(profile, 3), "threads change nothing");
        for threads in [1, 4] {
            let (limits, mut out) = (Limits { threads, ..Limits::default() }, Vec::new());
            apply(&mut [&old[..]], &delta.bytes[..], &mut out, scratch(), &limits).unwrap();
            assert!(out == new);
        }
    }
}

#[test]
fn applying_keeps_to_its_limits() {
    let (old, new) = versions();
    let delta = make(&[&old], &new, &Options::default()).unwrap();
    let (target_size, space) = (delta.header.target.size, delta.header.old_len);
    let limits = |target_size, scratch| Limits { target_size, scratch, ..Limits::default() };
    let run = |limits| apply(&mut [&old[..]], &delta.bytes[..], std::io::sink(), scratch(), &limits);
    assert!(run(limits(target_size, space)).is_ok());
    for limits in [limits(target_size - 1, space), limits(target_size, space - 1)] {
        assert!(matches!(limits.admit(&delta.header), Err(Error::Limit { .. })));
        assert!(matches!(run(limits), Err(Error::Limit { .. })));
    }
}

#[test]
fn a_wrong_base_is_told_from_a_wrong_delta() {
    let (old, new) = versions();
    for level in [None, Some(6)] {
        let pack = |content: &[u8]| level.map_or(content.to_vec(), |level| gzip(content, level));
        let (old, new) = (pack(&old), pack(&new));
        let delta = make(&[&old], &new, &Options::default()).unwrap();
        let mut flipped = old.clone();
        flipped[1000] ^= 1;
        let longer = [&old[..], &[0]].concat();
        for wrong in [&[][..], &new, &old[..old.len() - 1], &longer, &flipped, b"no gzip at all"] {
            for threads in [1, 2] {
                let outcome = restore_with(threads, vec![wrong], &delta.bytes);
                assert!(matches!(outcome, Err(Error::BaseMismatch(_))), "{:?}", outcome.map(drop));
            }
        }
    }
}

/// Small deltas, one of each kind, with their bases and targets.
fn small_deltas() -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let (old, new) = (text(1, 12), text(1, 13));
    let zstd = |content: &[u8]| [&0xfd2f_b528_u32.to_le_bytes()[..], content].concat();
    [
        (gzip(&old, 6), gnu_gzip(&new, 6)),
        (gzip(&old, 6), gzip(&new, 6)),
        (zstd(&old), zstd(&new)),
        (tar(&[("a.gz", &gnu_gzip(&old, 9))]), tar(&[("a.gz", &gnu_gzip(&new, 9))])),
    ]
    .into_iter()
    .map(|(old, new)| {
        let delta = make(&[&old], &new, &at_any_price()).unwrap();
        (old, new, delta.bytes)
    })
    .collect()
}

#[test]
fn all_kinds_are_among_the_small_deltas() {
    let headers: Vec<_> = small_deltas().iter().map(|(_, _, delta)| inspect(&delta[..]).unwrap()).collect();
    let kinds: Vec<_> = headers.iter().map(|header| header.kind).collect();
    assert_eq!(kinds, [Kind::Plain, Kind::Token, Kind::Raw, Kind::Plain]);
    assert!(headers[3].sections.fold > 0);
}

#[test]
fn a_truncated_delta_is_malformed() {
    for (old, _, delta) in small_deltas() {
        for len in 0..delta.len() {
            let outcome = restore(vec![&old], &delta[..len]);
            assert!(matches!(outcome, Err(Error::Format(_))), "cut at {len}: {outcome:?}");
        }
    }
}

#[test]
fn a_delta_that_goes_on_is_malformed() {
    for (old, _, delta) in small_deltas() {
        for more in [&[0][..], &delta] {
            let outcome = restore(vec![&old], &[&delta, more].concat());
            assert!(matches!(outcome, Err(Error::Format(_))), "{outcome:?}");
        }
    }
}

#[test]
fn a_damaged_delta_is_an_error_or_makes_its_target() {
    for (old, new, delta) in small_deltas() {
        for place in 0..delta.len() {
            let (bit, mut damaged) = (place % 8, delta.clone());
            damaged[place] ^= 1 << bit;
            if let Ok((applied, out)) = restore(vec![&old], &damaged) {
                assert!(out == new, "bit {bit} of byte {place} made something else");
                assert_eq!(applied.digest, Digest::sha256(&new));
            }
        }
    }
}

/// A delta whose header is changed before it is written again.
fn forged(field: usize, value: u64) -> (Vec<u8>, Vec<u8>) {
    let (old, _, mut delta) = small_deltas().swap_remove(1);
    delta[field..][..8].copy_from_slice(&value.to_be_bytes());
    (old, delta)
}

/// Where the sizes stand in the header of a token delta with one SHA-256 base.
const BASE_SIZE: usize = 11 + 33;
const TARGET_SIZE: usize = BASE_SIZE + 9 + 33;
const OLD_LEN: usize = TARGET_SIZE + 8;
const NEW_LEN: usize = OLD_LEN + 8;
const SECTIONS: [usize; 5] = [NEW_LEN + 8, NEW_LEN + 16, NEW_LEN + 24, NEW_LEN + 32, NEW_LEN + 40];

#[test]
fn sizes_that_lie_are_refused_before_they_cost_anything() {
    let lengths = [&[OLD_LEN, NEW_LEN], &SECTIONS[..]].concat();
    for field in [&[BASE_SIZE, TARGET_SIZE], &lengths[..]].concat() {
        let (old, delta) = forged(field, u64::MAX);
        assert!(matches!(restore(vec![&old], &delta), Err(Error::Limit { .. })), "field at {field}");
    }
    for field in [&[TARGET_SIZE, OLD_LEN], &SECTIONS[..4]].concat() {
        let (old, delta) = forged(field, 1 << 39);
        assert!(matches!(restore(vec![&old], &delta), Err(Error::Limit { .. })), "field at {field}");
    }
    for value in [0, 1, 100, 1 << 29] {
        let (old, delta) = forged(BASE_SIZE, value);
        assert!(matches!(restore(vec![&old], &delta), Err(Error::BaseMismatch(_))), "base of {value}");
        let (old, delta) = forged(TARGET_SIZE, value);
        assert!(matches!(restore(vec![&old], &delta), Err(Error::OutputMismatch(_))), "target of {value}");
        for field in &lengths {
            let (old, delta) = forged(*field, value);
            let restored = restore(vec![&old], &delta);
            let refused =
                matches!(restored, Err(Error::Format(_) | Error::Limit { .. } | Error::OutputMismatch(_)));
            let same = delta == small_deltas()[1].2;
            assert!(refused || same, "{value} at {field}: {restored:?}");
        }
    }
}

/// A reader that fails after some bytes.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        self.0.read(buffer)
    }
}

#[test]
fn failures_of_readers_and_writers_come_through() {
    for (old, _, delta) in small_deltas() {
        for threads in [1, 2] {
            let limits = Limits { threads, ..Limits::default() };
            for len in [0, 50, 150, delta.len() - 1] {
                let delta = Failing(&delta[..len]);
                let outcome = apply(&mut [&old[..]], delta, std::io::sink(), scratch(), &limits);
                assert!(matches!(outcome, Err(Error::Io(_))), "{outcome:?}");
            }
            let mut bases = [Failing(&old[..old.len() / 2])];
            let outcome = apply(&mut bases, &delta[..], std::io::sink(), scratch(), &limits);
            assert!(matches!(outcome, Err(Error::Io(_))), "{outcome:?}");
            let outcome = apply(&mut [&old[..]], &delta[..], &mut [0; 10][..], scratch(), &limits);
            assert!(matches!(outcome, Err(Error::Io(_))), "{outcome:?}");
        }
    }
}

/// A base that counts what is read of it, and is slow.
struct Counted<'a>(&'a [u8], Arc<AtomicUsize>);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::thread::sleep(std::time::Duration::from_millis(1));
        let read = self.0.read(buffer)?;
        self.1.fetch_add(read, Ordering::SeqCst);
        Ok(read)
    }
}

#[test]
fn a_base_is_not_read_to_its_end_for_somebody_who_stopped() {
    let old = noise(1, 32 << 20);
    let mut new = old.clone();
    new[5] ^= 1;
    let delta = make(&[&old], &new, &Options::default()).unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let mut bases = [Counted(&old, Arc::clone(&read))];
    let limits = Limits { threads: 2, ..Limits::default() };
    let outcome = apply(&mut bases, &delta.bytes[..], &mut [0; 10][..], scratch(), &limits);
    assert!(matches!(outcome, Err(Error::Io(_))), "{outcome:?}");
    let read = read.load(Ordering::SeqCst);
    assert!(read < old.len() / 2, "{read} bytes were read after all");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_pair_comes_back(
        old in proptest::collection::vec((any::<bool>(), 0..6_u64, 0..5000_usize), 1..6),
        new in proptest::collection::vec((any::<bool>(), 0..6_u64, 0..5000_usize), 1..6),
        levels in (0..11_u32, 0..11_u32),
        fast in any::<bool>(),
    ) {
        let content = |pieces: Vec<(bool, u64, usize)>| -> Vec<u8> {
            let piece = |(is_text, seed, len)| if is_text { text(seed, len / 40) } else { noise(seed, len) };
            pieces.into_iter().flat_map(piece).collect()
        };
        // One more than the highest level: not compressed.
        let pack = |content: Vec<u8>, level| if level > 9 { content } else { gzip(&content, level) };
        let (old, new) = (pack(content(old), levels.0), pack(content(new), levels.1));
        let profile = if fast { Profile::Fast } else { Profile::Best };
        match make(&[&old], &new, &Options { profile, ..at_any_price() }) {
            Ok(delta) => prop_assert!(restore(vec![&old], &delta.bytes).unwrap().1 == new),
            Err(error) => {
                let nothing_to_save = new.is_empty() && matches!(error, Error::NotWorthIt { .. });
                prop_assert!(nothing_to_save, "{:?}", error);
            }
        }
    }

    #[test]
    fn no_delta_panics(
        at in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        which in 0..4_usize,
    ) {
        let (old, new, mut delta) = small_deltas().swap_remove(which);
        let at = at.index(delta.len());
        delta.splice(at..delta.len().min(at + bytes.len()), bytes);
        if let Ok((_, out)) = restore(vec![&old], &delta) {
            prop_assert!(out == new);
        }
    }
}
