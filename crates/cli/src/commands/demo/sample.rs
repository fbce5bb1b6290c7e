//! Two versions of a small image, made up on the spot: programs, texts, and an update that touches a few of them.

use deltaport_oci::{Digest, media_type};
use serde_json::json;

use super::image::{Blob, Image};

/// Text files, and how long each is in bytes.
const TEXTS: u64 = 400;
const TEXT_LEN: usize = 12 << 10;
/// Files that do not compress, and how long each is in bytes.
const PROGRAMS: u64 = 6;
const PROGRAM_LEN: usize = 1 << 20;
/// Every so manieth text is edited.
const EDITED: u64 = 40;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

const WORDS: [&str; 16] = [
    "anchor", "buoy", "cable", "deck", "ebb", "fathom", "gale", "harbour", "island", "jetty", "keel",
    "lantern", "mast", "north", "oar", "pilot",
];

/// Version 1 or 2 of the sample.
pub(super) fn image(version: u8) -> Image {
    let tar = archive(version);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(&tar).to_string()] },
    });
    let (config, layer) = (Blob::Bytes(config.to_string().into()), Blob::Bytes(tar.into()));
    let described = |blob: &Blob, media_type: &str| json!({ "mediaType": media_type, "digest": blob.digest().to_string(), "size": blob.size() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": described(&config, media_type::OCI_CONFIG),
        "layers": [described(&layer, LAYER)],
    });
    Image {
        name: format!("a sample, version {version}"),
        media_type: media_type::OCI_MANIFEST.to_owned(),
        manifest: manifest.to_string().into(),
        blobs: vec![config, layer],
    }
}

/// The files as a tar archive (POSIX ustar).
fn archive(version: u8) -> Vec<u8> {
    let mut tar = Vec::new();
    for n in 0..TEXTS {
        let mut text = text(n);
        if version > 1 && n % EDITED == 0 {
            text.splice(TEXT_LEN / 2..TEXT_LEN / 2 + 20, *b"edited for version 2, all of it\n");
        }
        append(&mut tar, &format!("usr/share/doc/part{n:03}.txt"), 1_700_000_000, &text);
    }
    for n in 0..PROGRAMS {
        let mut program = noise(1000 + n, PROGRAM_LEN);
        if version > 1 && n % 3 == 0 {
            program.splice(300_000..300_050, noise(2000 + n, 90));
        }
        append(&mut tar, &format!("usr/bin/program{n}"), 1_700_000_000 + i64::from(version), &program);
    }
    if version > 1 {
        append(&mut tar, "usr/share/doc/news.txt", 1_700_000_002, &text(TEXTS + 1));
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Appends one regular file.
fn append(tar: &mut Vec<u8>, name: &str, mtime: i64, content: &[u8]) {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, format!("{mtime:011o}\0").as_bytes());
    // The checksum is taken with blanks in its own place.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&header);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn text(seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut text = Vec::with_capacity(TEXT_LEN + 16);
    while text.len() < TEXT_LEN {
        let number = numbers.next();
        text.extend_from_slice(WORDS[(number % 16) as usize].as_bytes());
        text.push(if number >> 32 & 7 == 0 { b'\n' } else { b' ' });
    }
    text
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut noise: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| numbers.next().to_le_bytes()).collect();
    noise.truncate(len);
    noise
}

/// Numbers without a pattern, the same for the same seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
