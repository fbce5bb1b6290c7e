//! Making and applying deltas: the target or an error, whatever the inputs are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::io::{Cursor, Read};

use common::{gzip, gzip_with_names, noise, text};
use deltaport_delta::{Applied, Delta, Error, Kind, Limits, MAX_BASES, Options, apply, create, inspect};
use deltaport_oci::{Algorithm, Digest};
use proptest::prelude::*;

/// Options for inputs that are far too small to be worth it.
fn at_any_price() -> Options {
    Options { worth_percent: 1_000_000, ..Options::default() }
}

fn make(bases: &[&[u8]], target: &[u8], options: &Options) -> Result<Delta, Error> {
    let mut bases: Vec<_> = bases.iter().map(Cursor::new).collect();
    create(&mut bases, &mut Cursor::new(target), options)
}

fn restore(mut bases: Vec<&[u8]>, delta: &[u8]) -> Result<(Applied, Vec<u8>), Error> {
    let mut out = Vec::new();
    let applied = apply(&mut bases, delta, &mut out, &Limits::default())?;
    Ok((applied, out))
}

#[track_caller]
fn round_trip(bases: &[&[u8]], target: &[u8]) -> Delta {
    let delta = make(bases, target, &at_any_price()).unwrap();
    assert_eq!(inspect(&delta.bytes[..]).unwrap(), delta.header);
    let (applied, out) = restore(bases.to_vec(), &delta.bytes).unwrap();
    assert!(out == target, "another blob came back");
    assert_eq!(applied, Applied { digest: Digest::sha256(target), size: target.len() as u64 });
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
fn gzip_layers_are_compared_as_tokens() {
    let (old, new) = versions();
    for level in [1, 6, 9] {
        let (old, new) = (gzip(&old, level), gzip(&new, level));
        let delta = round_trip(&[&old], &new);
        assert_eq!(delta.header.kind, Kind::Token);
        assert!(delta.bytes.len() * 5 < new.len(), "level {level}: {} of {}", delta.bytes.len(), new.len());
    }
}

#[test]
fn other_layers_are_compared_as_they_are() {
    let (old, new) = versions();
    let delta = round_trip(&[&old], &new);
    assert_eq!(delta.header.kind, Kind::Raw);
    assert!(delta.bytes.len() * 10 < new.len());
    // One gzip blob and one that is none.
    assert_eq!(round_trip(&[&old], &gzip(&new, 6)).header.kind, Kind::Raw);
    assert_eq!(round_trip(&[&gzip(&old, 6)], &new).header.kind, Kind::Raw);
}

#[test]
fn the_smaller_kind_wins() {
    // Members that stayed as they are need no look inside.
    let member = gzip(&noise(1, 60_000), 6);
    let (old, new) = (member.repeat(3), [&member[..], &member].concat());
    let delta = round_trip(&[&old], &new);
    let (applied, _) = restore(vec![&old], &delta.bytes).unwrap();
    assert_eq!((delta.header.kind, applied.size), (Kind::Raw, new.len() as u64));
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
    assert_eq!(delta.header.bases[0].digest, Digest::of(Algorithm::Sha512, &old));
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
fn making_keeps_to_its_memory() {
    let (old, new) = versions();
    let with = |memory| make(&[&old], &new, &Options { memory, ..Options::default() });
    // Too little for the blobs, and too little for any way to compare them.
    for memory in [1000, 1 << 20] {
        let outcome = with(memory);
        assert!(matches!(outcome, Err(Error::Limit { .. })), "{outcome:?}");
    }
    assert!(with(32 << 20).is_ok());
}

#[test]
fn applying_keeps_to_its_limits() {
    let (old, new) = versions();
    let delta = make(&[&old], &new, &Options::default()).unwrap();
    let size = delta.header.target.size;
    let memory = delta.header.reference_len + delta.header.stream_len + (1 << 20);
    let run = |limits| apply(&mut [&old[..]], &delta.bytes[..], std::io::sink(), &limits);
    assert!(run(Limits { target_size: size, memory }).is_ok());
    for limits in [Limits { target_size: size - 1, memory }, Limits { target_size: size, memory: memory - 1 }]
    {
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
            let mut out = Vec::new();
            let outcome = apply(&mut [wrong], &delta.bytes[..], &mut out, &Limits::default());
            assert!(matches!(outcome, Err(Error::BaseMismatch(_))), "{outcome:?}");
            assert!(out.is_empty(), "nothing may be written before the base is proven");
        }
    }
}

/// Two small deltas, one of each kind, with their bases and targets.
fn small_deltas() -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let (old, new) = (text(1, 12), text(1, 13));
    [(old.clone(), new.clone()), (gzip(&old, 6), gzip(&new, 6))]
        .into_iter()
        .map(|(old, new)| {
            let delta = make(&[&old], &new, &at_any_price()).unwrap();
            (old, new, delta.bytes)
        })
        .collect()
}

#[test]
fn both_kinds_are_among_the_small_deltas() {
    let kinds: Vec<_> =
        small_deltas().iter().map(|(_, _, delta)| inspect(&delta[..]).unwrap().kind).collect();
    assert_eq!(kinds, [Kind::Raw, Kind::Token]);
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
            for bit in 0..8 {
                let mut damaged = delta.clone();
                damaged[place] ^= 1 << bit;
                if let Ok((applied, out)) = restore(vec![&old], &damaged) {
                    assert!(out == new, "bit {bit} of byte {place} made something else");
                    assert_eq!(applied.digest, Digest::sha256(&new));
                }
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

/// Where the sizes stand in the header of a delta with one SHA-256 base.
const BASE_SIZE: usize = 11 + 33;
const TARGET_SIZE: usize = BASE_SIZE + 8 + 33;
const REFERENCE_LEN: usize = TARGET_SIZE + 8;
const STREAM_LEN: usize = REFERENCE_LEN + 8;
const PAYLOAD_LEN: usize = STREAM_LEN + 8;

#[test]
fn sizes_that_lie_are_refused_before_they_cost_anything() {
    for field in [BASE_SIZE, TARGET_SIZE, REFERENCE_LEN, STREAM_LEN, PAYLOAD_LEN] {
        let (old, delta) = forged(field, u64::MAX);
        assert!(matches!(restore(vec![&old], &delta), Err(Error::Limit { .. })), "field at {field}");
    }
    for field in [TARGET_SIZE, REFERENCE_LEN, STREAM_LEN] {
        let (old, delta) = forged(field, 1 << 39);
        assert!(matches!(restore(vec![&old], &delta), Err(Error::Limit { .. })), "field at {field}");
    }
    for value in [0, 1, 100, 1 << 29] {
        let (old, delta) = forged(BASE_SIZE, value);
        assert!(matches!(restore(vec![&old], &delta), Err(Error::BaseMismatch(_))), "base of {value}");
        let (old, delta) = forged(TARGET_SIZE, value);
        assert!(matches!(restore(vec![&old], &delta), Err(Error::OutputMismatch(_))), "target of {value}");
        for field in [REFERENCE_LEN, STREAM_LEN, PAYLOAD_LEN] {
            let (old, delta) = forged(field, value);
            assert!(matches!(restore(vec![&old], &delta), Err(Error::Format(_))), "{value} at {field}");
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
        for len in [0, 50, 150, delta.len() - 1] {
            let outcome = apply(&mut [&old[..]], Failing(&delta[..len]), std::io::sink(), &Limits::default());
            assert!(matches!(outcome, Err(Error::Io(_))), "{outcome:?}");
        }
        let mut bases = [Failing(&old[..old.len() / 2])];
        let outcome = apply(&mut bases, &delta[..], std::io::sink(), &Limits::default());
        assert!(matches!(outcome, Err(Error::Io(_))), "{outcome:?}");
        let outcome = apply(&mut [&old[..]], &delta[..], &mut [0; 10][..], &Limits::default());
        assert!(matches!(outcome, Err(Error::Io(_))), "{outcome:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_pair_comes_back(
        old in proptest::collection::vec((any::<bool>(), 0..6_u64, 0..5000_usize), 1..6),
        new in proptest::collection::vec((any::<bool>(), 0..6_u64, 0..5000_usize), 1..6),
        levels in (0..11_u32, 0..11_u32),
        level in -5..30,
    ) {
        let content = |pieces: Vec<(bool, u64, usize)>| -> Vec<u8> {
            let piece = |(is_text, seed, len)| if is_text { text(seed, len / 40) } else { noise(seed, len) };
            pieces.into_iter().flat_map(piece).collect()
        };
        // One more than the highest level: not compressed.
        let pack = |content: Vec<u8>, level| if level > 9 { content } else { gzip(&content, level) };
        let (old, new) = (pack(content(old), levels.0), pack(content(new), levels.1));
        match make(&[&old], &new, &Options { level, ..at_any_price() }) {
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
        which in 0..2_usize,
    ) {
        let (old, new, mut delta) = small_deltas().swap_remove(which);
        let at = at.index(delta.len());
        delta.splice(at..delta.len().min(at + bytes.len()), bytes);
        if let Ok((_, out)) = restore(vec![&old], &delta) {
            prop_assert!(out == new);
        }
    }
}
