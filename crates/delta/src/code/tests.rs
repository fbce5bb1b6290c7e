//! The stage as a whole: what goes in comes out, and damage does no harm.

use std::io::{self, Read};

use deltaport_oci::{Algorithm, Hasher};
use proptest::prelude::*;

use super::encode::Sizes;
use super::matches::MAX_MATCHES;
use super::*;
use crate::error::Error;
use crate::matching::Match;

/// Both sections of a content.
fn encode(old: &[u8], new: &[u8], matches: &[Match], effort: Effort) -> (Vec<u8>, Vec<u8>, Sizes) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let (old_len, new_len) = (old.len() as u64, new.len() as u64);
    encode_matches(matches, old_len, new_len, &mut first).unwrap();
    let sizes = encode_content(matches, Unchanged(old), new, effort, &mut second).unwrap();
    (first, second, sizes)
}

fn decode(old: &[u8], new_len: u64, first: &[u8], second: &[u8]) -> io::Result<Vec<u8>> {
    let matches = decode_matches(first, old.len() as u64, new_len)?;
    let mut new = Vec::new();
    Decoder::new(matches, second, Unchanged(old), new_len)?.read_to_end(&mut new)?;
    Ok(new)
}

/// Goes there and back with every effort; the sizes are those of the best.
fn round_trip(old: &[u8], new: &[u8], matches: &[Match]) -> Sizes {
    let [_, best] = [Effort::Fast, Effort::Best].map(|effort| {
        let (first, second, sizes) = encode(old, new, matches, effort);
        assert_eq!(decode_matches(&first, old.len() as u64, new.len() as u64).unwrap(), matches);
        assert!(decode(old, new.len() as u64, &first, &second).unwrap() == new, "the same content");
        assert_eq!(sizes.modelled + sizes.bulk, new.len() as u64);
        sizes
    });
    best
}

#[test]
fn a_section_says_its_pace_and_an_unknown_one_is_refused() {
    let old = noise(3, 5000);
    let mut new = old.clone();
    (0..new.len()).step_by(700).for_each(|at| new[at] ^= 0x55);
    let matches = [Match { new: 0, old: 0, len: 5000 }];
    for (effort, pace) in [(Effort::Best, 2), (Effort::Fast, 1)] {
        let (_, mut second, _) = encode(&old, &new, &matches, effort);
        assert_eq!(second[0], pace);
        for unknown in [3, 0x80] {
            second[0] = unknown;
            let decoder = Decoder::new(&matches[..], &second[..], Unchanged(&old[..]), 5000);
            assert!(matches!(decoder, Err(Error::Format(_))));
        }
    }
}

/// Bytes without any regularity.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Something like code: a few opcodes, and every ninth to sixteenth byte begins an address that moved by `amount`.
fn code_like(len: usize, amount: u32) -> Vec<u8> {
    let random = noise(7, len);
    let mut bytes = Vec::new();
    while bytes.len() + 16 < len {
        let at = bytes.len();
        bytes.push(0xe8);
        bytes.extend_from_slice(&(0x1000 + u32::from(random[at]) * 64 + amount).to_le_bytes());
        bytes.extend(random[at..at + 4 + usize::from(random[at] & 7)].iter().map(|byte| byte & 0x1f));
    }
    bytes.resize(len, 0x90);
    bytes
}

prop_compose! {
    /// A match as three numbers to be fitted to the contents, and the bytes that it changes.
    fn arb_match()(gap in 0..300_u64, len in 1..5000_u64, old in 0..100_000_u64, changes in
        proptest::collection::vec((0..5000_usize, any::<u8>()), 0..30)) -> (u64, u64, u64, Vec<(usize, u8)>) {
        (gap, len, old, changes)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn everything_comes_back(
        old_len in 0..40_000_usize,
        plan in proptest::collection::vec(arb_match(), 0..12),
        rest in 0..300_usize,
        seed in any::<u32>(),
    ) {
        let old = noise(seed, old_len);
        let (mut new, mut matches) = (Vec::new(), Vec::new());
        for (gap, len, from, changes) in plan {
            let gap = noise(gap as u32 ^ seed, gap as usize);
            let len = len.min(old.len() as u64);
            if len == 0 {
                continue;
            }
            new.extend_from_slice(&gap);
            let from = from.min(old.len() as u64 - len);
            matches.push(Match { new: new.len() as u64, old: from, len });
            let mut bytes = old[from as usize..(from + len) as usize].to_vec();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            new.extend_from_slice(&bytes);
        }
        new.extend(noise(!seed, rest));
        round_trip(&old, &new, &matches);
    }

    #[test]
    fn damage_is_an_error_or_wrong_bytes(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let (old, new) = (code_like(6000, 0), code_like(6000, 0x40));
        let matches = [Match { new: 100, old: 100, len: 2000 }, Match { new: 2200, old: 2100, len: 3000 }];
        let (mut first, mut second, _) = encode(&old, &new, &matches, Effort::Best);
        for (at, flip) in flips {
            let at = at.index(first.len() + second.len());
            match at.checked_sub(first.len()) {
                Some(at) => second[at] ^= flip,
                None => first[at] ^= flip,
            }
        }
        if let Some(cut) = cut {
            second.truncate(cut.index(second.len()));
        }
        if let Ok(decoded) = decode(&old, new.len() as u64, &first, &second) {
            prop_assert_eq!(decoded.len(), new.len());
        }
    }

    #[test]
    fn anything_may_be_read(
        first in proptest::collection::vec(any::<u8>(), 0..200),
        second in proptest::collection::vec(any::<u8>(), 0..400),
        pace in 0..2_u8,
        runs in proptest::collection::vec(0..3_u8, 0..3),
        old_len in 0..5000_usize,
        new_len in 0..20_000_u64,
    ) {
        let old = noise(3, old_len);
        let _ = decode(&old, new_len, &first, &second);
        let matches = [Match { new: 0, old: 0, len: (old_len as u64).min(new_len) }];
        let matches = if matches[0].len > 0 { &matches[..] } else { &[] };
        let second = [&[pace][..], &runs, &second].concat();
        if let Ok(mut decoder) = Decoder::new(matches, &second[..], Unchanged(&old[..]), new_len) {
            let read = io::copy(&mut decoder, &mut io::sink());
            prop_assert!(!read.is_ok_and(|read| read != new_len));
        }
    }
}

#[test]
fn the_smallest_contents() {
    round_trip(b"", b"", &[]);
    round_trip(b"x", b"", &[]);
    round_trip(b"", b"x", &[]);
    round_trip(b"x", b"x", &[Match { new: 0, old: 0, len: 1 }]);
    round_trip(b"x", b"y", &[Match { new: 0, old: 0, len: 1 }]);
}

#[test]
fn matches_may_overlap_and_go_back_in_the_old() {
    let old = noise(1, 10_000);
    let new = [&old[5000..10_000], &old[..6000], b"between", &old[4000..4001], &old[3000..9000]].concat();
    let matches = [
        Match { new: 0, old: 5000, len: 5000 },
        Match { new: 5000, old: 0, len: 6000 },
        Match { new: 11_007, old: 4000, len: 1 },
        Match { new: 11_008, old: 3000, len: 6000 },
    ];
    round_trip(&old, &new, &matches);
}

#[test]
fn matches_that_do_not_fit_are_refused() {
    let old = &[0; 100][..];
    for matches in [
        &[Match { new: 0, old: 1, len: 100 }][..],
        &[Match { new: 1, old: 0, len: 100 }],
        &[Match { new: 0, old: 0, len: 0 }],
        &[Match { new: 0, old: u64::MAX, len: 2 }],
        &[Match { new: 0, old: 0, len: 2 }, Match { new: 1, old: 0, len: 2 }],
    ] {
        let mut out = Vec::new();
        assert!(matches!(encode_matches(matches, 100, 100, &mut out), Err(Error::Format(_))));
        let content = encode_content(matches, Unchanged(old), old, Effort::Best, &mut out);
        assert!(matches!(content, Err(Error::Format(_))));
        let decoder = Decoder::new(matches, &[0, 1, 0, 0, 0, 0][..], Unchanged(old), 100);
        assert!(matches!(decoder, Err(Error::Format(_))));
    }
    let many = vec![Match { new: 0, old: 0, len: 1 }; MAX_MATCHES + 1];
    assert!(matches!(encode_matches(&many, 100, 100, &mut Vec::new()), Err(Error::Limit { .. })));
}

#[test]
fn what_is_beyond_the_budget_goes_in_bulk() {
    let old = noise(5, 900_000);
    // A quiet stretch, one with a change every few bytes, text that is new, and what nothing helps with.
    let mut busy = old[400_000..800_000].to_vec();
    (0..busy.len()).step_by(5).for_each(|at| busy[at] = busy[at].wrapping_add(3));
    let text: Vec<u8> = (0..500_000_u32).flat_map(|n| [(n >> 12) as u8, (n % 251) as u8]).collect();
    let new = [b"short gap", &old[..400_000], &busy, &text, &old[800_000..], &noise(9, 300_000)].concat();
    let matches = [
        Match { new: 9, old: 0, len: 800_000 },
        Match { new: 800_009 + text.len() as u64, old: 800_000, len: 100_000 },
    ];
    for effort in [Effort::Fast, Effort::Best] {
        let (first, second, sizes) = encode(&old, &new, &matches, effort);
        assert!(decode(&old, new.len() as u64, &first, &second).unwrap() == new, "the same content");
        assert_eq!(sizes.modelled + sizes.bulk, new.len() as u64);
        assert!(sizes.modelled >= 300_000 && sizes.modelled_coded < 200, "{sizes:?}");
        assert!((1_400_000..2_000_000).contains(&sizes.bulk), "{sizes:?}");
        assert!(sizes.bulk_coded < 300_000 + 80_000, "{sizes:?}");
    }
}

#[test]
fn matches_beyond_the_budget_go_in_bulk() {
    let old = noise(5, 200_000);
    let seeds = noise(77, 40_000);
    let (mut new, mut matches) = (Vec::new(), Vec::new());
    for seed in seeds {
        new.push(seed);
        let from = usize::from(seed) * 700;
        matches.push(Match { new: new.len() as u64, old: from as u64, len: 30 });
        new.extend_from_slice(&old[from..from + 30]);
    }
    let (first, _, _) = encode(&old, &new, &matches, Effort::Best);
    assert_eq!(first[0], 1);
    round_trip(&old, &new, &matches);
    for cut in [1, 2, 5, 100, first.len() / 2, first.len() - 1] {
        let damaged = decode_matches(&first[..cut], old.len() as u64, new.len() as u64);
        assert!(matches!(damaged, Err(Error::Format(_))), "cut at {cut}");
    }
    let more = [&first[..], &[0]].concat();
    assert!(matches!(decode_matches(&more, old.len() as u64, new.len() as u64), Err(Error::Format(_))));
    // Of contents that are shorter, the same matches are outside.
    assert!(matches!(decode_matches(&first, 100_000, new.len() as u64), Err(Error::Format(_))));
}

#[test]
fn runs_that_cannot_be_are_refused() {
    let refused = |second: &[u8], new_len| {
        let mut decoder = Decoder::new([], second, Unchanged(&[][..]), new_len).unwrap();
        let error = decoder.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(matches!(Error::from(error), Error::Format(_)));
    };
    refused(&[0], 5);
    refused(&[0, 2, 1, 0], 5);
    refused(&[0, 0, 0, 1, 0], 5);
    refused(&[0, 0, 2, 0], 5);
    refused(&[0, 0, 1, 0xff, 0xff, 0xff, 0x7f], 5);
    refused(&[0, 0, 1, 1, 0], 5);
}

#[test]
fn equal_content_costs_almost_nothing() {
    let old = noise(5, 3_000_000);
    let (first, second, _) = encode(&old, &old, &[Match { new: 0, old: 0, len: 3_000_000 }], Effort::Best);
    assert!(first.len() + second.len() < 40, "{} and {}", first.len(), second.len());
}

#[test]
fn a_moved_address_costs_little() {
    let (old, new) = (code_like(200_000, 0), code_like(200_000, 0x1234));
    let differing = old.iter().zip(&new).filter(|(one, two)| one != two).count();
    let sizes = round_trip(&old, &new, &[Match { new: 0, old: 0, len: 200_000 }]);
    assert!(sizes.modelled_coded * 40 < differing as u64, "{} for {differing}", sizes.modelled_coded);
}

#[test]
fn bytes_behind_the_sections_are_refused() {
    let (mut first, mut second, _) = encode(b"old", b"new", &[], Effort::Best);
    second.push(0);
    assert!(decode(b"old", 3, &first, &second).is_err());
    second.pop();
    first.push(0);
    assert!(decode(b"old", 3, &first, &second).is_err());
}

#[test]
fn a_failing_source_is_not_a_damaged_one() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }
    let source = (&[0_u8, 1][..]).chain(Failing);
    let mut decoder = Decoder::new(Vec::new(), source, Unchanged(&b"old"[..]), 100).unwrap();
    let error = decoder.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn reads_of_any_size_give_the_same() {
    let (old, new) = (noise(1, 400_000), noise(1, 400_003));
    let matches = [Match { new: 0, old: 0, len: 400_000 }];
    let (_, second, _) = encode(&old, &new, &matches, Effort::Best);
    let mut decoder = Decoder::new(&matches, &second[..], Unchanged(&old[..]), new.len() as u64).unwrap();
    let (mut read, mut size) = (Vec::new(), 1);
    loop {
        let mut buffer = vec![0; size];
        match decoder.read(&mut buffer).unwrap() {
            0 => break,
            len => read.extend_from_slice(&buffer[..len]),
        }
        size = size * 3 % 70_001;
    }
    assert!(read == new);
}

/// What is written must not change unnoticed, nor differ between platforms: a delta outlives the program that made it.
/// A change of these digests is a change of the format.
#[test]
fn the_bytes_are_those_of_the_format() {
    let digest = |bytes: &[u8]| {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish().to_string()
    };
    let (old, mut new) = (code_like(30_000, 0), code_like(30_000, 0x1234));
    new.splice(20_000..20_000, b"something new, something new".iter().copied().chain(noise(3, 100)));
    let matches = [Match { new: 0, old: 0, len: 20_000 }, Match { new: 20_128, old: 20_000, len: 10_000 }];
    let (first, second, _) = encode(&old, &new, &matches, Effort::Best);
    let written = [(first.len(), digest(&first)), (second.len(), digest(&second))];
    assert_eq!(written, GOLDEN.map(|(len, digest)| (len, digest.to_owned())));
}

/// The lengths and digests of the two sections.
const GOLDEN: [(usize, &str); 2] = [
    (17, "sha256:963bd081a0fa089312fb0d79954ffbf89373c6fd0fe26ef030139b08ff0ff8a2"),
    (161, "sha256:9753c173bf3270261890920061a9d2d2ca61f4500e341b96791cc56921f11767"),
];
