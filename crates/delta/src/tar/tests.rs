use proptest::prelude::*;

use super::*;

/// A header of POSIX's form with a right checksum.
fn header(name: &[u8], kind: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    if size < 1 << 33 {
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        block[124..136].copy_from_slice(&[&[0x80, 0, 0, 0], &size.to_be_bytes()[..]].concat());
    }
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn padded_data(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

fn member(name: &str, data: &[u8]) -> Vec<u8> {
    [header(name.as_bytes(), b'0', data.len() as u64), padded_data(data)].concat()
}

fn pax(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let len = (1..).map(|digits| rest + digits).find(|len| len.to_string().len() + rest == *len).unwrap();
        data += &format!("{len} {key}={value}\n");
    }
    [header(b"PaxHeaders/x", kind, data.len() as u64), padded_data(data.as_bytes())].concat()
}

/// Where the segments are, what they hold, and of whom.
fn seen(archive: &[u8]) -> Vec<(u64, u64, Part, String)> {
    let segments = walk(&mut &archive[..], MAX_SEGMENTS).unwrap();
    assert_tiles(&segments, archive.len());
    let name =
        |segment: &Segment| String::from_utf8(segment.name.as_deref().unwrap_or(b"").to_vec()).unwrap();
    segments.iter().map(|segment| (segment.start, segment.len, segment.part, name(segment))).collect()
}

fn assert_tiles(segments: &[Segment], len: usize) {
    let mut at = 0;
    for segment in segments {
        assert_eq!(segment.start, at);
        assert!(segment.len > 0);
        at = segment.end();
    }
    assert_eq!(at, len as u64);
    assert!(segments.len() <= MAX_SEGMENTS);
}

fn part(start: u64, len: u64, part: Part, name: &str) -> (u64, u64, Part, String) {
    (start, len, part, name.to_owned())
}

#[test]
fn members_follow_each_other() {
    let archive =
        [member("./a", b"hello"), header(b"/dir/", b'5', 0), member("b", &[1; 512]), vec![0; 1024]].concat();
    let expected = [
        part(0, 512, Part::Header, "a"),
        part(512, 5, Part::File, "a"),
        part(517, 507, Part::Other, ""),
        part(1024, 512, Part::Header, "dir/"),
        part(1536, 512, Part::Header, "b"),
        part(2048, 512, Part::File, "b"),
        part(2560, 1024, Part::Other, ""),
    ];
    assert_eq!(seen(&archive), expected);
}

#[test]
fn extended_headers_belong_to_the_header_after_them() {
    let long = "d/".repeat(100) + "file";
    let archive = [
        pax(b'g', &[("comment", "all")]),
        pax(b'x', &[("path", &long), ("size", "3")]),
        header(b"short", b'0', 0),
        padded_data(b"abc"),
    ];
    let expected = [
        part(0, 2560, Part::Header, &long),
        part(2560, 3, Part::File, &long),
        part(2563, 509, Part::Other, ""),
    ];
    assert_eq!(seen(&archive.concat()), expected);

    let gnu =
        [header(b"././@LongLink", b'L', 205), padded_data(long.as_bytes()), member("short", b"")].concat();
    assert_eq!(seen(&gnu), [part(0, 1536, Part::Header, &long)]);
}

#[test]
fn global_records_hold_for_all_members_until_others_replace_them() {
    let archive = [
        pax(b'g', &[("size", "512")]),
        header(b"a", b'0', 0),
        padded_data(b"one"),
        header(b"b", b'0', 0),
        padded_data(b"two"),
        pax(b'x', &[("size", "0")]),
        header(b"c", b'0', 512),
    ];
    let files: Vec<_> = seen(&archive.concat()).into_iter().filter(|seen| seen.2 == Part::File).collect();
    assert_eq!(files, [part(1536, 512, Part::File, "a"), part(2560, 512, Part::File, "b")]);
}

#[test]
fn the_prefix_of_a_name_is_posix_only() {
    let mut block = header(b"name", b'0', 0);
    block[345..348].copy_from_slice(b"dir");
    seal(&mut block);
    assert_eq!(seen(&block)[0].3, "dir/name");
    block[257..265].copy_from_slice(b"ustar  \0");
    seal(&mut block);
    assert_eq!(seen(&block)[0].3, "name");
}

#[test]
fn links_have_content_only_where_no_header_follows() {
    let archive =
        [header(b"link", b'1', 4), member("b", b"bb"), header(b"full", b'1', 4), padded_data(b"data")];
    let files: Vec<_> = seen(&archive.concat()).into_iter().filter(|seen| seen.2 == Part::File).collect();
    assert_eq!(files, [part(1024, 2, Part::File, "b"), part(2048, 4, Part::File, "full")]);
    let directory = [header(b"d/", b'5', 1 << 30), member("b", b"bb")].concat();
    assert_eq!(seen(&directory)[1], part(512, 512, Part::Header, "b"));
}

#[test]
fn the_maps_of_old_sparse_files_are_headers() {
    let mut first = header(b"sparse", b'S', 3);
    first[482] = 1;
    seal(&mut first);
    let (mut more, last) = (vec![1; 512], vec![0; 512]);
    more[504] = 1;
    let archive = [first, more, last, padded_data(b"abc")].concat();
    assert_eq!(
        seen(&archive)[..2],
        [part(0, 1536, Part::Header, "sparse"), part(1536, 3, Part::File, "sparse")]
    );
    let named =
        [pax(b'x', &[("path", "GNUSparseFile.1/a"), ("GNU.sparse.name", "a")]), member("x", b"a")].concat();
    assert_eq!(seen(&named)[0].3, "a");
}

#[test]
fn a_declared_size_beyond_the_end_is_no_member() {
    for size in [513, 8 << 30, (1 << 33) - 1, 1 << 33, 1 << 62, u64::MAX] {
        let archive =
            [member("a", b"1"), header(b"big", b'0', size), vec![7; 512], member("b", b"2")].concat();
        let names: Vec<_> = seen(&archive).into_iter().filter(|seen| seen.2 == Part::Header).collect();
        let expected = if size == 513 { vec!["a", "big"] } else { vec!["a", "b"] };
        assert_eq!(names.iter().map(|seen| seen.3.as_str()).collect::<Vec<_>>(), expected, "{size}");
    }
}

#[test]
fn a_wrong_checksum_is_no_header() {
    let mut archive = [member("a", b"1"), member("b", b"2"), member("c", b"3")].concat();
    archive[1024 + 3] ^= 1;
    let headers: Vec<_> = seen(&archive).into_iter().filter(|seen| seen.2 == Part::Header).collect();
    assert_eq!(headers, [part(0, 512, Part::Header, "a"), part(2048, 512, Part::Header, "c")]);
    let mut signed = header("ä".as_bytes(), b'0', 0);
    signed[148..156].fill(b' ');
    let sum: i32 = signed.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(seen(&signed)[0].3, "ä");
}

#[test]
fn more_members_than_the_limit_are_one_segment() {
    let archive = header(b"a", b'0', 0).repeat(MAX_SEGMENTS + 10);
    let segments = walk(&mut &archive[..], MAX_SEGMENTS).unwrap();
    assert_tiles(&segments, archive.len());
    assert_eq!(segments.last().unwrap().part, Part::Other);
    assert!(segments.len() > MAX_SEGMENTS - 4);
}

#[test]
fn every_block_is_read_a_bounded_number_of_times() {
    struct Counted<'a>(&'a [u8], u64);
    impl Content for Counted<'_> {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.1 += buffer.len() as u64;
            self.0.read_at(at, buffer)
        }
    }
    let mut sparse = header(b"s", b'S', 1 << 40);
    (sparse[482], sparse[504]) = (1, 1);
    seal(&mut sparse);
    let extended = header(b"x", b'x', 0);
    let too_large = header(b"x", b'x', 1 << 20);
    for block in [sparse, extended, too_large] {
        let archive = block.repeat(20_000);
        let mut counted = Counted(&archive, 0);
        assert_tiles(&walk(&mut counted, MAX_SEGMENTS).unwrap(), archive.len());
        assert!(counted.1 <= 4 * archive.len() as u64, "{} of {}", counted.1, archive.len());
    }
}

/// Pieces of archives, whole and broken.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let kind = proptest::sample::select(&b"01234567xXgLKSVDNM\0"[..]);
    let size = prop_oneof![0..2000_u64, 510..514_u64, Just(8 << 30), any::<u64>()];
    let headers = (kind, size, 0..4_usize, any::<[u8; 8]>()).prop_map(|(kind, size, flips, noise)| {
        let mut block = header(b"./some/name", kind, size);
        block[480..488].copy_from_slice(&noise);
        block[504] = noise[0] & 1;
        seal(&mut block);
        for flip in 1..flips {
            let at = usize::from(u16::from_le_bytes([noise[2 * flip], noise[2 * flip + 1]])) % 512;
            block[at] ^= 1;
        }
        block
    });
    prop_oneof![
        4 => headers,
        2 => proptest::collection::vec(any::<u8>(), 0..1200),
        1 => Just(vec![0; 512]),
        1 => Just(pax(b'x', &[("path", "p"), ("size", "700")])),
        1 => Just(padded_data(b"30 path=broken\n")),
    ]
}

proptest! {
    #[test]
    fn whatever_it_is_the_segments_tile_it(pieces in proptest::collection::vec(piece(), 0..12), cut in any::<usize>()) {
        let mut archive = pieces.concat();
        archive.truncate(cut % (archive.len() + 600));
        seen(&archive);
    }
}
