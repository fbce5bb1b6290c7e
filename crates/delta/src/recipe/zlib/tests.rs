//! Against the outputs of the real encoders.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::recipe::vectors;

/// Header, body and trailer of a gzip member.
fn gzip(header: [u8; 2], content: &[u8], body: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(content);
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
    out.extend(header);
    out.extend(body);
    out.extend(crc.sum().to_le_bytes());
    out.extend((content.len() as u32).to_le_bytes());
    out
}

/// The extra flags of a gzip header.
fn flags(level: u8) -> u8 {
    match level {
        0 | 1 => 4,
        9 => 2,
        _ => 0,
    }
}

#[test]
fn gnu_gzip_is_exact() {
    for vector in vectors::family("gnu-gzip") {
        let level = vector.options.strip_prefix("-n -").unwrap().parse().unwrap();
        let content = vector.content();
        let mut encoder = Encoder::new(Variant::Gzip, level).unwrap();
        for piece in [usize::MAX, 0x8000, 7777] {
            encoder.reset();
            let body = vectors::encode(&mut encoder, &content, piece);
            vector.assert_is(&gzip([flags(level), 3], &content, &body));
        }
    }
}

#[test]
fn zlib_is_exact() {
    for vector in vectors::family("zlib") {
        let option = |name| {
            let mut options = vector.options.split(',');
            options.find_map(|option| option.strip_prefix(name)).map(|value| value.parse().unwrap())
        };
        let (level, mem_level) = (option("level=").unwrap(), option("memLevel=").unwrap());
        if level == 0 {
            continue;
        }
        let content = vector.content();
        let mut encoder = Encoder::new(Variant::Zlib { mem_level }, level).unwrap();
        let body = vectors::encode(&mut encoder, &content, usize::MAX);
        vector.assert_is(&gzip([flags(level), 3], &content, &body));
    }
}
