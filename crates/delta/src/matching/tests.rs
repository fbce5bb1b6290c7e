use proptest::prelude::*;

use super::*;

/// Bytes that do not repeat.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn file(start: &mut u64, len: usize, name: &str) -> Segment {
    let segment = Segment {
        start: *start,
        len: len as u64,
        part: Part::File,
        name: Some(name.as_bytes().into()),
        nested: false,
    };
    *start += len as u64;
    segment
}

/// Puts files after each other.
fn archive(files: &[(&str, &[u8])]) -> (Vec<u8>, Vec<Segment>) {
    let mut at = 0;
    let layout = files.iter().map(|(name, bytes)| file(&mut at, <[u8]>::len(bytes), name)).collect();
    (files.iter().flat_map(|(_, bytes)| *bytes).copied().collect(), layout)
}

const MEMORY: u64 = 256 << 20;

fn find_with(old: &(Vec<u8>, Vec<Segment>), new: &(Vec<u8>, Vec<Segment>), options: Options) -> Vec<Match> {
    let found = find(&mut &old.0[..], &old.1, &mut &new.0[..], &new.1, options).unwrap();
    assert_valid(&found, old.0.len(), new.0.len());
    found
}

fn both_profiles(old: &(Vec<u8>, Vec<Segment>), new: &(Vec<u8>, Vec<Segment>)) -> Vec<Match> {
    let find = |profile| find_with(old, new, Options { profile, memory: MEMORY, threads: 1 });
    let (fast, best) = (find(Profile::Fast), find(Profile::Best));
    assert_eq!(fast, best);
    best
}

fn assert_valid(matches: &[Match], old: usize, new: usize) {
    let mut end = 0;
    for found in matches {
        assert!(found.len > 0 && found.new >= end, "{found:?} after {end}");
        end = found.new_end();
        assert!(found.old_end() <= old as u64 && end <= new as u64, "{found:?}");
    }
}

/// How many of the new bytes are in no match, or differ.
fn unexplained(matches: &[Match], old: &[u8], new: &[u8]) -> usize {
    let equal = |found: &Match| {
        let old = &old[found.old as usize..found.old_end() as usize];
        let new = &new[found.new as usize..found.new_end() as usize];
        old.iter().zip(new).filter(|(old, new)| old == new).count()
    };
    new.len() - matches.iter().map(equal).sum::<usize>()
}

#[test]
fn the_same_content_is_one_match() {
    let (a, b, c) = (noise(5000, 1), noise(100, 2), noise(70_000, 3));
    let content = archive(&[("a", &a), ("b", &b), ("c", &c)]);
    assert_eq!(both_profiles(&content, &content), [Match { new: 0, old: 0, len: 75_100 }]);
    let unnamed = (content.0.clone(), Segment::whole(75_100));
    assert_eq!(both_profiles(&unnamed, &unnamed), [Match { new: 0, old: 0, len: 75_100 }]);
}

#[test]
fn there_may_be_nothing_on_either_side() {
    let (nothing, something) = (archive(&[]), archive(&[("a", &[7; 3000])]));
    assert_eq!(both_profiles(&nothing, &something), []);
    assert_eq!(both_profiles(&something, &nothing), []);
    assert_eq!(both_profiles(&nothing, &nothing), []);
}

#[test]
fn files_that_changed_their_order_or_name_are_found() {
    let (a, b) = (noise(5000, 1), noise(3000, 2));
    let old = archive(&[("a", &a), ("b", &b)]);
    let new = archive(&[("c", &b), ("a", &a)]);
    let expected = [Match { new: 0, old: 5000, len: 3000 }, Match { new: 3000, old: 0, len: 5000 }];
    assert_eq!(both_profiles(&old, &new), expected);
}

#[test]
fn a_new_version_of_a_file_is_aligned_with_the_old_one() {
    let old_bytes = noise(20_000, 1);
    // One byte differs, 100 are new, and 50 are gone.
    let mut new_bytes =
        [&old_bytes[..5000], &noise(100, 9), &old_bytes[5000..12_000], &old_bytes[12_050..]].concat();
    new_bytes[2000] ^= 1;
    let expected = [
        Match { new: 0, old: 0, len: 5000 },
        Match { new: 5100, old: 5000, len: 7000 },
        Match { new: 12_100, old: 12_050, len: 7950 },
    ];
    for name in ["lib/libx.so.1.2.3", "lib/libx.so.1.2.4", "other/libx.so.1.2.4", "lib64/libx.so.1.2.3"] {
        let old = archive(&[("something", &noise(3000, 3)), ("lib/libx.so.1.2.3", &old_bytes)]);
        let new = archive(&[(name, &new_bytes)]);
        let found = both_profiles(&old, &new);
        let shifted: Vec<_> =
            expected.iter().map(|found| Match { old: found.old + 3000, ..*found }).collect();
        assert_eq!(found, shifted, "{name}");
    }
}

#[test]
fn the_last_base_that_has_the_file_is_preferred() {
    let first = noise(8000, 1);
    let mut second = first.clone();
    second[3000..3016].copy_from_slice(&[1; 16]);
    let mut third = second.clone();
    third[6000] ^= 1;
    let old = archive(&[("f", &first), ("f", &second)]);
    assert_eq!(both_profiles(&old, &archive(&[("f", &third)])), [Match { new: 0, old: 8000, len: 8000 }]);
}

#[test]
fn what_was_a_part_of_something_else_is_found() {
    let old_bytes = noise(100_000, 1);
    let new_bytes = [&noise(3000, 2), &old_bytes[40_123..52_345], &noise(5000, 3)].concat();
    let old = archive(&[("a", &old_bytes)]);
    let expected = [Match { new: 3000, old: 40_123, len: 12_222 }];
    assert_eq!(both_profiles(&old, &archive(&[("b", &new_bytes)])), expected);
}

#[test]
fn headers_are_matched_by_path() {
    let header = |seed| [noise(80, seed), vec![0; 432]].concat();
    let layout = |names: [&str; 2]| -> Vec<Segment> {
        let header = |(at, name): (usize, &str)| {
            let mut start = 512 * at as u64;
            Segment { part: Part::Header, ..file(&mut start, 512, name) }
        };
        names.into_iter().enumerate().map(header).collect()
    };
    let old = ([header(1), header(2)].concat(), layout(["a", "b"]));
    let new = ([header(3), header(4)].concat(), layout(["b", "a"]));
    let expected = [Match { new: 0, old: 512, len: 512 }, Match { new: 512, old: 0, len: 512 }];
    assert_eq!(both_profiles(&old, &new), expected);
}

#[test]
fn a_layout_that_lies_is_ignored() {
    let bytes = noise(5000, 1);
    let lies = [
        vec![],
        vec![file(&mut 1, 4999, "a")],
        vec![file(&mut 0, 5001, "a")],
        vec![file(&mut 0, 3000, "a"), file(&mut 2000, 3000, "b")],
        vec![Segment { len: u64::MAX, ..file(&mut 0, 1, "a") }, file(&mut 1, 4999, "b")],
    ];
    for layout in lies {
        let content = (bytes.clone(), layout);
        assert_eq!(both_profiles(&content, &content), [Match { new: 0, old: 0, len: 5000 }]);
    }
}

/// An old content, and a new one made of pieces of it and of other bytes, cut into files at random.
fn versions() -> impl Strategy<Value = [(Vec<u8>, Vec<Segment>); 2]> {
    let cuts = || proptest::collection::vec((0..40_000_usize, 0..5_u8), 0..5);
    let piece = (any::<u16>(), 0..3000_usize, 0..4_u8, any::<u64>());
    (0..40_000_usize, proptest::collection::vec(piece, 0..20), cuts(), cuts(), 1..4_u8).prop_map(
        |(len, pieces, old_cuts, new_cuts, alphabet)| {
            let mut old = noise(len, 7);
            if alphabet < 3 {
                old.iter_mut().for_each(|byte| *byte %= alphabet);
            }
            let mut new = Vec::new();
            for (at, len, kind, seed) in pieces {
                let at = usize::from(at).min(old.len());
                let mut piece = old[at..old.len().min(at + len)].to_vec();
                match kind {
                    0 => piece = noise(len, seed),
                    1 => piece.iter_mut().step_by(17).for_each(|byte| *byte ^= 0x55),
                    _ => {}
                }
                new.extend(piece);
            }
            [(old, old_cuts), (new, new_cuts)].map(|(bytes, mut cuts)| {
                cuts.sort_unstable();
                let mut layout = Vec::new();
                let mut at = 0;
                for (cut, name) in cuts.into_iter().chain([(bytes.len(), 9)]) {
                    let cut = cut.min(bytes.len());
                    if at < cut as u64 {
                        let len = cut - at as usize;
                        let part = if name == 0 { Part::Header } else { Part::File };
                        layout.push(Segment { part, ..file(&mut at, len, &format!("dir/file-{name}")) });
                    }
                }
                (bytes, layout)
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn matches_are_valid_and_do_not_depend_on_threads([old, new] in versions()) {
        for profile in [Profile::Fast, Profile::Best] {
            let one = find_with(&old, &new, Options { profile, memory: MEMORY, threads: 1 });
            let two = find_with(&old, &new, Options { profile, memory: MEMORY, threads: 2 });
            prop_assert_eq!(&one, &two);
            let small = find_with(&old, &new, Options { profile, memory: 0, threads: 1 });
            prop_assert!(unexplained(&small, &old.0, &new.0) <= new.0.len());
        }
    }
}

#[test]
fn little_memory_finds_most_of_it() {
    let old_bytes = noise(20 << 20, 1);
    let mut new_bytes = [&old_bytes[..3 << 20], &noise(1000, 2), &old_bytes[3 << 20..]].concat();
    new_bytes.iter_mut().step_by(50_000).for_each(|byte| *byte ^= 1);
    let (old, new) = (archive(&[("a", &old_bytes)]), archive(&[("a", &new_bytes)]));
    for profile in [Profile::Fast, Profile::Best] {
        let found = find_with(&old, &new, Options { profile, memory: 0, threads: 1 });
        let rest = unexplained(&found, &old.0, &new.0);
        assert!(rest < 60_000, "{profile:?}: {rest} bytes are not found");
    }
}

#[test]
fn a_file_that_moved_and_changed_is_found_by_its_content() {
    let bytes = noise(30_000, 1);
    let mut changed = [&bytes[..9000], &noise(70, 5), &bytes[9000..]].concat();
    changed.iter_mut().skip(300).step_by(700).for_each(|byte| *byte ^= 1); // no block of 1 KiB is left
    let old = archive(&[("x/one", &noise(40_000, 2)), ("x/two", &bytes), ("x/three", &noise(30_000, 3))]);
    let new = archive(&[("y/other", &changed)]);
    let expected = [Match { new: 0, old: 40_000, len: 9000 }, Match { new: 9070, old: 49_000, len: 21_000 }];
    assert_eq!(both_profiles(&old, &new), expected);
}

#[test]
fn of_too_many_matches_the_longest_are_kept() {
    let len_of = |n: u64| if n.is_multiple_of(1000) { 9 } else { 8 };
    let matches = (0..MAX_MATCHES as u64 + 500).map(|n| Match { new: 10 * n, old: 10 * n, len: len_of(n) });
    let matches: Vec<Match> = matches.collect();
    let kept = tidy::limit(matches.clone());
    assert_eq!(kept.len(), MAX_MATCHES);
    assert!(kept.is_sorted_by_key(|found| found.new));
    let longest = |matches: &[Match]| matches.iter().filter(|found| found.len == 9).count();
    assert_eq!(longest(&kept), longest(&matches));
    assert_eq!(kept[..1000], matches[..1000]);
}
