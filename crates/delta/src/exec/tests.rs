//! Programs that were never run: generated, moved, damaged.

use std::io::Read;
use std::sync::Arc;

use proptest::prelude::*;

use super::elf;
use super::*;
use crate::code::{self, Effort, Reference, Unchanged};
use crate::matching::{self, MIN_MEMORY, Match, Options, Profile, Segment};

const OPTIONS: Options = Options { profile: Profile::Best, memory: 64 << 20, threads: 1 };

/// Numbers without any regularity.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// How many functions a generated program has.
const FUNCTIONS: usize = 400;
const TEXT: u64 = 0x1000;

/// A section of a generated program.
struct Content {
    kind: u32,
    flags: u64,
    name: &'static str,
    bytes: Vec<u8>,
}

/// Puts sections into a file: one load, in which addresses are places in the file.
fn link(sections: Vec<Content>) -> Vec<u8> {
    let mut file = vec![0; TEXT as usize];
    let mut names = vec![0];
    let mut headers = vec![0; 64];
    let mut add = |file: &[u8], names: &mut Vec<u8>, content: &Content, address: u64| {
        let fields = [names.len() as u64 | u64::from(content.kind) << 32, content.flags, address];
        fields.iter().for_each(|field| headers.extend_from_slice(&field.to_le_bytes()));
        headers.extend_from_slice(&(file.len() as u64).to_le_bytes());
        headers.extend_from_slice(&(content.bytes.len() as u64).to_le_bytes());
        headers.extend_from_slice(&[0; 24]);
        names.extend_from_slice(content.name.as_bytes());
        names.push(0);
    };
    for content in &sections {
        file.resize(file.len().next_multiple_of(16), 0);
        add(&file, &mut names, content, file.len() as u64);
        file.extend_from_slice(&content.bytes);
    }
    let loaded = file.len() as u64;
    names.extend_from_slice(b"\0");
    let strings = Content { kind: 3, flags: 0, name: ".shstrtab", bytes: vec![0; names.len() + 10] };
    add(&file, &mut names, &strings, 0);
    names.resize(strings.bytes.len(), 0);
    file.extend_from_slice(&names);
    let table = file.len() as u64;
    let count = headers.len() / 64;
    file.extend_from_slice(&headers);
    file[..24].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0");
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[40..48].copy_from_slice(&table.to_le_bytes());
    for (at, value) in [(54, 56), (56, 1), (58, 64), (60, count), (62, count - 1)] {
        file[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
    }
    let program = [1 | 5 << 32, 0, 0, 0, loaded, loaded, 0x1000];
    for (at, field) in program.into_iter().enumerate() {
        file[64 + 8 * at..72 + 8 * at].copy_from_slice(&field.to_le_bytes());
    }
    file
}

/// A program of functions that call each other and take addresses of data, with a table of pointers to all; `longer`
/// says by how much each function is longer than usual.
fn program(longer: impl Fn(usize) -> usize) -> Vec<u8> {
    let mut noise = Noise(1);
    let shapes: Vec<Vec<usize>> =
        (0..FUNCTIONS).map(|_| (0..4 + noise.below(8)).map(|_| noise.below(FUNCTIONS)).collect()).collect();
    let fillings: Vec<u8> = (0..1 << 12).map(|_| 0x50 + (noise.next() & 15) as u8).collect();
    let len = |function: usize| 16 * shapes[function].len() + longer(function);
    let starts: Vec<usize> = (0..=FUNCTIONS).map(|until| (0..until).map(len).sum()).collect();
    let data = (TEXT as usize + starts[FUNCTIONS]).next_multiple_of(16);
    let mut text = Vec::new();
    for (function, shape) in shapes.iter().enumerate() {
        for (n, target) in shape.iter().enumerate() {
            text.extend_from_slice(&fillings[(function * 16 + n) % 4000..][..4]);
            let here = text.len() + 5;
            text.push(0xe8);
            text.extend_from_slice(&(starts[*target] as i32 - here as i32).to_le_bytes());
            text.extend_from_slice(&[0x48, 0x8d, 0x05]);
            let here = TEXT as usize + text.len() + 4;
            text.extend_from_slice(&((data + 8 * target) as i32 - here as i32).to_le_bytes());
        }
        text.resize(starts[function + 1], 0x90);
    }
    let pointers =
        starts[..FUNCTIONS].iter().flat_map(|start| (TEXT + *start as u64).to_le_bytes()).collect();
    link(vec![
        Content { kind: 1, flags: 6, name: ".text", bytes: text },
        Content { kind: 1, flags: 3, name: ".data", bytes: pointers },
    ])
}

/// The matches and models of two files.
fn planned(old: &[u8], new: &[u8]) -> (Arc<[Match]>, Vec<Model>) {
    let layouts = (Segment::whole(old.len() as u64), Segment::whole(new.len() as u64));
    let (mut one, mut two) = (old, new);
    let mut matches = matching::find(&mut one, &layouts.0, &mut two, &layouts.1, OPTIONS).unwrap();
    let models = plan(&mut matches, &mut one, &layouts.0, &mut two, &layouts.1, OPTIONS).unwrap();
    (matches.into(), models)
}

fn encoded(matches: &[Match], reference: impl Reference, new: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    code::encode_content(matches, reference, new, Effort::Best, &mut out).unwrap();
    out
}

#[test]
fn moved_code_costs_next_to_nothing() {
    let old = program(|_| 0);
    let new = program(|function| [0, 0, 0, 7, 0][function % 5]);
    let (matches, models) = planned(&old, &new);
    assert_eq!(models.len(), 1);
    let raw = encoded(&matches, Unchanged(&old[..]), &new);
    let predicted = encoded(&matches, Predicted::new(&old[..], Arc::clone(&matches), models.clone()), &new);
    assert!(predicted.len() * 4 < raw.len(), "{} and {}", predicted.len(), raw.len());

    let mut table = Vec::new();
    write_models(&models, &matches, &mut table);
    let (old_len, new_len) = (old.len() as u64, new.len() as u64);
    let read = read_models(&mut &table[..], &matches, old_len, new_len).unwrap();
    assert_eq!(read, models);
    let reference = Predicted::new(&old[..], Arc::clone(&matches), read);
    let mut decoded = Vec::new();
    let mut decoder = code::Decoder::new(&matches[..], &predicted[..], reference, new_len).unwrap();
    decoder.read_to_end(&mut decoded).unwrap();
    assert!(decoded == new);
}

#[test]
fn what_did_not_change_needs_no_model() {
    let old = program(|_| 0);
    assert_eq!(planned(&old, &old).1, []);
    let mut new = old.clone();
    new[5000..5010].fill(0);
    assert_eq!(planned(&old, &new).1, []);
}

#[test]
fn without_memory_the_first_matches_stay() {
    let old = program(|_| 0);
    let new = program(|function| function % 3);
    let layouts = (Segment::whole(old.len() as u64), Segment::whole(new.len() as u64));
    let (mut one, mut two) = (&old[..], &new[..]);
    let first = matching::find(&mut one, &layouts.0, &mut two, &layouts.1, OPTIONS).unwrap();
    let mut matches = first.clone();
    let options = Options { memory: MIN_MEMORY, ..OPTIONS };
    plan(&mut matches, &mut one, &layouts.0, &mut two, &layouts.1, options).unwrap();
    assert_eq!(matches, first);
}

#[test]
fn a_program_is_parsed_whole_or_not_at_all() {
    let file = program(|_| 0);
    let parse = |bytes: &[u8]| elf::parse(&mut &bytes[..], 0, u64::MAX).unwrap();
    let parsed = parse(&file).unwrap();
    assert_eq!(parsed.len, file.len() as u64);
    let names: Vec<_> = parsed.sections.iter().map(|section| &section.name[..]).collect();
    assert_eq!(names, [&b""[..], b".text", b".data", b".shstrtab"]);
    for len in (0..file.len()).step_by(97).chain([file.len() - 1]) {
        assert_eq!(parse(&file[..len]), None, "{len}");
    }
    assert_eq!(elf::parse(&mut &file[..], file.len() as u64, 100).unwrap(), None);
    assert_eq!(elf::parse(&mut &file[..], u64::MAX, 100).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn pieces_do_not_matter(
        seed in any::<u64>(),
        pieces in proptest::collection::vec((any::<prop::sample::Index>(), 1..9000_usize), 1..60),
    ) {
        let mut noise = Noise(seed | 1);
        let longer: Vec<usize> = (0..FUNCTIONS).map(|_| [0, 0, 0, 3, 16, 40][noise.below(6)]).collect();
        let (old, new) = (program(|_| 0), program(|function| longer[function]));
        let (matches, models) = planned(&old, &new);
        prop_assert_eq!(models.len(), 1);
        let mut whole = Predicted::new(&old[..], Arc::clone(&matches), models.clone());
        let mut pieced = Predicted::new(&old[..], Arc::clone(&matches), models);
        for (index, len) in pieces {
            let found = matches[index.index(matches.len())];
            let mut expected = vec![0; found.len as usize];
            whole.read(found.new, found.old, &mut expected).unwrap();
            let at = index.index(found.len as usize);
            let len = len.min(found.len as usize - at);
            let mut piece = vec![0; len];
            pieced.read(found.new + at as u64, found.old + at as u64, &mut piece).unwrap();
            prop_assert!(piece == expected[at..at + len]);
            // What is read around a match does not change it.
            let before = at.min(8);
            piece.resize(before + len, 0);
            let (from, was) = (found.new + (at - before) as u64, found.old + (at - before) as u64);
            pieced.read(from, was, &mut piece).unwrap();
            prop_assert!(piece[..] == expected[at - before..at + len]);
        }
    }

    #[test]
    fn damaged_programs_do_no_harm(
        damage in proptest::collection::vec((0..1024_usize, any::<u8>()), 0..20),
        tail in proptest::collection::vec((0..400_usize, any::<u8>()), 0..20),
    ) {
        let mut old = program(|_| 0);
        let new = program(|function| function % 3);
        let (matches, models) = planned(&old, &new);
        let len = old.len();
        damage.into_iter().for_each(|(at, byte)| old[at] = byte);
        tail.into_iter().for_each(|(at, byte)| old[len - 1 - at] = byte);
        let coded = encoded(&matches, Predicted::new(&old[..], Arc::clone(&matches), models), &new);
        prop_assert!(!coded.is_empty());
        let _ = planned(&old, &new);
    }

    #[test]
    fn any_table_may_be_read(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (old, new) = (program(|_| 0), program(|function| function % 3));
        let (matches, models) = planned(&old, &new);
        let mut table = Vec::new();
        write_models(&models, &matches, &mut table);
        flips.into_iter().for_each(|(at, byte)| { let at = at.index(table.len()); table[at] = byte });
        for table in [bytes, table] {
            let (old_len, new_len) = (old.len() as u64, new.len() as u64);
            if let Ok(models) = read_models(&mut &table[..], &matches, old_len, new_len) {
                encoded(&matches, Predicted::new(&old[..], Arc::clone(&matches), models), &new);
            }
        }
    }
}

#[test]
fn a_table_that_ends_early_is_refused() {
    let (old, new) = (program(|_| 0), program(|function| function % 3));
    let (matches, models) = planned(&old, &new);
    let mut table = Vec::new();
    write_models(&models, &matches, &mut table);
    for len in 0..table.len() {
        let read = read_models(&mut &table[..len], &matches, old.len() as u64, new.len() as u64);
        assert!(read.is_err(), "{len}");
    }
    let read = read_models(&mut &table[..], &matches, old.len() as u64, new.len() as u64 - 1);
    assert!(read.is_err(), "longer than the new content");
}
