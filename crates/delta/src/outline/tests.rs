use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::format::codec;
use crate::recipe::Recipe;

fn packer() -> Option<Zstd> {
    Some(Zstd::read(&mut &[1, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]).unwrap())
}

fn part() -> impl Strategy<Value = Part> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300).prop_map(Vec::into_boxed_slice);
    let len = || prop_oneof![0..5_u64, 0..5_000_000_u64, 0..=crate::format::MAX_SIZE];
    prop_oneof![
        4 => len().prop_map(|len| Part::Member { len, header: None }),
        1 => (len(), bytes()).prop_map(|(len, header)| Part::Member { len, header: Some(header) }),
        1 => (len(), bytes()).prop_map(|(len, bytes)| Part::Carried { len, bytes }),
        1 => (0..16_u8, bytes()).prop_map(|(magic, content)| Part::Packed { magic, encoder: packer(), content }),
    ]
}

fn outline(parts: Vec<Part>) -> Outline {
    let mut outline = Outline::default();
    parts.into_iter().filter(|part| outline.push(part.clone())).for_each(drop);
    outline
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn outlines_come_back(
        old in proptest::collection::vec(part(), 0..200),
        new in proptest::collection::vec(part(), 0..200),
    ) {
        let mut outlines = Outlines::default();
        outlines.push(&outline(old.clone()));
        // Most of it is as it was.
        let new = outline(old.into_iter().take(100).chain(new).collect());
        let section = write(outlines.bytes(), &new).unwrap();
        prop_assert_eq!(read(outlines.bytes(), &section).unwrap(), new);
    }

    #[test]
    fn damaged_sections_are_errors_or_outlines(
        parts in proptest::collection::vec(part(), 1..40), at: usize, bit in 0..8_u32,
    ) {
        let mut section = write(&[], &outline(parts)).unwrap();
        let at = at % section.len();
        section[at] ^= 1 << bit;
        _ = read(&[], &section);
        _ = read(&[], &section[..at]);
    }
}

#[test]
fn an_outline_like_that_of_the_base_costs_little() {
    let lens = |salt: u64| (0..3000_u64).map(move |n| (n * n * 7919 + salt * (n % 100 / 99)) % 90_000);
    let outline = |salt| outline(lens(salt).map(|len| Part::Member { len, header: None }).collect());
    let mut old = Outlines::default();
    old.push(&outline(0));
    let [new, alone] = [old.bytes(), &[]].map(|old| write(old, &outline(17)).unwrap().len());
    assert!(new * 10 < alone, "{new} bytes, and {alone} without a base");
}

#[test]
fn absurd_outlines_are_refused() {
    let read = |numbers: &[u64], rest: &[u8]| {
        let mut bytes = Vec::new();
        numbers.iter().for_each(|number| codec::write_varint(&mut bytes, *number));
        bytes.extend_from_slice(rest);
        Outline::read(&mut &bytes[..])
    };
    // More parts than there may be, more than there are, a part above all sizes, more carried than is there or may be.
    assert!(matches!(read(&[1_000_000_000], &[]), Err(Error::Limit { .. })));
    assert!(matches!(read(&[MAX_PARTS as u64], &[]), Err(Error::Format(_))));
    assert!(matches!(read(&[1, (1 << 42) + 4], &[]), Err(Error::Limit { .. })));
    assert!(matches!(read(&[1, 1, 5], b"abc"), Err(Error::Format(_))));
    assert!(matches!(read(&[1, 1, 1 << 25], b"abc"), Err(Error::Limit { .. })));
    assert!(matches!(read(&[1, 3 | 1 << 27], &[0; 13]), Err(Error::Format(_) | Error::Limit { .. })));
    assert!(matches!(read(&[1, 3], &[16]), Err(Error::Format(_))));
    // More packed frames than there may be, each with one byte.
    let packed = [1, 1, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'x'].repeat(MAX_PACKED + 1);
    let count = MAX_PACKED + 1;
    let numbers = |count| [&[count as u64][..], &vec![1 << 2 | 3; count]].concat();
    assert!(matches!(read(&numbers(count), &packed), Err(Error::Limit { .. })));
    assert!(read(&numbers(count - 1), &packed).is_ok());
}

#[test]
fn what_is_too_much_has_no_outline() {
    // A member without content, as often as there may be one, and once more.
    let empty = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let opened = open_gzip(Cursor::new(empty.repeat(3)), &mut Vec::new()).unwrap();
    assert_eq!(opened.outline.parts().len(), 3);
    assert_eq!(opened.places, [0..20, 20..40, 40..60]);
    let blob = empty.repeat(MAX_PARTS + 1);
    let opened = open_gzip(Cursor::new(blob), &mut Vec::new()).unwrap();
    assert!(opened.outline.parts().is_empty() && opened.places.is_empty());
}

fn skippable(payload: &[u8]) -> Vec<u8> {
    [&0x184d_2a5c_u32.to_le_bytes()[..], &(payload.len() as u32).to_le_bytes(), payload].concat()
}

#[test]
fn skippable_frames_are_opened_if_they_can_be() {
    let frame = |content: &[u8]| zstd::encode_all(content, 3).unwrap();
    let table = frame(b"a table of contents");
    let blob = [
        frame(b"one"),
        skippable(&table),
        skippable(&[&table[..], b"more"].concat()),
        skippable(&table[..9]),
        frame(b"two and more"),
        skippable(b""),
    ];
    let mut content = Vec::new();
    let opened = open_zstd(Cursor::new(blob.concat()), &mut content).unwrap();
    assert_eq!(content, b"onetwo and more");
    let parts = opened.outline.parts();
    assert_eq!(parts.len(), blob.len());
    assert_eq!(parts[0], Part::Member { len: 3, header: None });
    assert!(matches!(&parts[1], Part::Packed { magic: 12, encoder: None, content } if content.len() == 19));
    for n in [2, 3, 5] {
        assert_eq!(parts[n], Part::Carried { len: 0, bytes: blob[n].clone().into() });
    }
    assert_eq!(opened.places.last().unwrap().end, blob.concat().len() as u64);
    for end in 1..blob.concat().len() {
        let cut = &blob.concat()[..end];
        // Cut between frames it is another blob; anywhere else it is none.
        let whole = opened.places.iter().any(|place| place.end == end as u64);
        assert_eq!(open_zstd(cut, &mut Vec::new()).is_ok(), whole, "{end}");
    }
}

#[test]
fn recipes_with_outlines_are_read_and_written() {
    let recipes = [
        &[3, 0, 10, 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255, 2, 0, 0, 9][..],
        &[4, 1, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[4, 2, 3, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in recipes {
        let recipe = Recipe::read(&mut &*bytes).unwrap();
        assert!(recipe.has_outline());
        let mut written = Vec::new();
        recipe.write(&mut written);
        assert_eq!(written, bytes);
    }
    let with_a_length = [4, 2, 3, 1, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    assert!(matches!(Recipe::read(&mut &with_a_length[..]), Err(Error::Format(_))));
}
