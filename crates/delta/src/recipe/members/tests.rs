use std::io::Cursor;

use proptest::prelude::*;

use super::super::vectors;
use super::*;
use crate::outline::{Opened, open_gzip, open_zstd};

fn go(level: u8) -> Style {
    let deflate = Deflate::read(&mut &[2, 0, 0, level][..]).unwrap();
    Style::Gzip { header: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255], deflate }
}

fn klauspost(framing: u8) -> Style {
    Style::Zstd(Zstd::read(&mut &[1, 2, 4, framing, 0, 0, 0, 0, 0, 0, 0, 0][..]).unwrap())
}

fn libzstd(length: u8) -> Style {
    Style::Zstd(Zstd::read(&mut &[2, 3, 1, length, 0, 0, 0, 0, 0, 0, 0, 0][..]).unwrap())
}

fn outline(lens: &[u64]) -> Outline {
    let mut outline = Outline::default();
    assert!(lens.iter().all(|len| outline.push(Part::Member { len: *len, header: None })));
    outline
}

fn encode(style: &Style, outline: Outline, content: &[u8], piece: usize) -> Vec<u8> {
    vectors::encode(&mut Encoder::new(style.clone(), outline).unwrap(), content, piece)
}

fn opened(style: &Style, blob: &[u8]) -> (Opened, Vec<u8>) {
    let mut content = Vec::new();
    let opened = match style {
        Style::Gzip { .. } => open_gzip(blob, &mut content),
        Style::Zstd(_) => open_zstd(blob, &mut content),
    };
    (opened.unwrap(), content)
}

fn mixed() -> Vec<u8> {
    vectors::family("zstd").iter().find(|vector| vector.input == "mixed.bin").unwrap().content()
}

fn detected(style: &Style, blob: &[u8]) -> Option<(Style, Outline)> {
    let (opened, content) = opened(style, blob);
    detect(&mut Cursor::new(blob), opened, &mut &content[..]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn whatever_the_members_the_blob_comes_back(
        lens in proptest::collection::vec(prop_oneof![2 => 0..3000_u64, 1 => 4096..50_000_u64], 2..20),
        style in 0..4_usize,
        piece in 1..40_000_usize,
    ) {
        let style = [go(9), klauspost(0), klauspost(2), libzstd(1)][style].clone();
        // Releases of klauspost/compress before v1.18.5 have no frame for nothing.
        let lens: Vec<u64> = lens.into_iter().map(|len| len.max(1)).collect();
        let content = &mixed()[..lens.iter().sum::<u64>() as usize];
        let blob = encode(&style, outline(&lens), content, piece);
        let (opened, inflated) = opened(&style, &blob);
        prop_assert!(inflated == content);
        prop_assert_eq!(&opened.outline, &outline(&lens));
        if lens.iter().any(|len| *len >= 4096) {
            let (found, found_outline) = detected(&style, &blob).unwrap();
            prop_assert!(encode(&found, found_outline, content, 65_536) == blob, "{:?}", found);
        }
    }

    #[test]
    fn content_that_does_not_fit_is_no_panic(
        lens in proptest::collection::vec(0..3000_u64, 0..20), len in 0..60_000_usize, style in 0..4_usize,
    ) {
        let style = [go(6), klauspost(0), klauspost(2), libzstd(2)][style].clone();
        let content = &mixed()[..len];
        let blob = encode(&style, outline(&lens), content, 1000);
        let sum = lens.iter().sum::<u64>() as usize;
        if len > sum {
            prop_assert!(blob.ends_with(&content[sum..]));
        }
    }
}

#[test]
fn a_member_by_another_encoder_is_carried() {
    let content = mixed();
    let lens = [40_000, 5000, 70_000, 100];
    for (style, other) in [(go(9), go(1)), (klauspost(0), libzstd(1)), (libzstd(1), klauspost(0))] {
        let mut at = 0;
        let members = lens.iter().enumerate().map(|(n, len)| {
            let member = &content[at..at + *len as usize];
            at += member.len();
            encode(if n == 1 { &other } else { &style }, outline(&[*len]), member, 9999)
        });
        let members: Vec<_> = members.collect();
        let blob = members.concat();
        let (found, outline) = detected(&style, &blob).unwrap();
        let carried = Part::Carried { len: 5000, bytes: members[1].clone().into() };
        assert_eq!(outline.parts()[1], carried, "{style:?}");
        assert_eq!(outline.parts().iter().filter(|part| matches!(part, Part::Carried { .. })).count(), 1);
        assert!(encode(&found, outline, &content[..at], 65_536) == blob);
    }
}

#[test]
fn members_by_all_sorts_of_encoders_have_no_recipe() {
    let content = &mixed()[..200_000];
    let blob = [go(9), go(1), go(4)].map(|style| encode(&style, outline(&[200_000]), content, 9999)).concat();
    assert_eq!(detected(&go(9), &blob), None);
    assert_eq!(detected(&go(9), &encode(&go(9), outline(&[0, 0]), &[], 1)), None, "nothing tells");
}

#[test]
fn headers_of_their_own_are_kept() {
    let content = &mixed()[..90_000];
    let named = b"\x1f\x8b\x08\x08\0\0\0\0\x02\xffname\0";
    let mut outline = outline(&[30_000, 30_000]);
    outline.push(Part::Member { len: 30_000, header: Some(named[..].into()) });
    outline.push(Part::Member { len: 0, header: Some(named[..].into()) });
    let blob = encode(&go(9), outline.clone(), content, 9999);
    assert_eq!(detected(&go(9), &blob), Some((go(9), outline)));
}

#[test]
fn the_table_of_contents_is_packed_again() {
    let content = &mixed()[..50_000];
    let style = klauspost(0);
    let Style::Zstd(zstd) = &style else { unreachable!() };
    let mut parts = outline(&[20_000, 30_000]);
    let table: Box<[u8]> = mixed()[60_000..90_000].into();
    assert!(parts.push(Part::Packed { magic: 5, encoder: Some(*zstd), content: table.clone() }));
    let blob = encode(&style, parts, content, 9999);
    let (found, outline) = detected(&style, &blob).unwrap();
    assert!(
        matches!(&outline.parts()[2], Part::Packed { magic: 5, encoder: Some(_), content } if *content == table)
    );
    assert!(encode(&found, outline, content, 10) == blob);
}

#[test]
fn many_members_without_content_take_no_time() {
    let lens = vec![0; crate::outline::MAX_PARTS];
    for style in [klauspost(0), klauspost(2), libzstd(0)] {
        encode(&style, outline(&lens), &[], 1);
    }
}
