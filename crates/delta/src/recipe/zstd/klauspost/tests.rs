//! Tests against the outputs of the real encoder.

use super::super::super::vectors::{self, Vector};
use super::*;

/// The releases of the vectors, and the group that each is in.
fn release(vector: &Vector) -> Option<Release> {
    Some(match vector.version {
        "v1.15.12" => Release::V1_15_9,
        "v1.16.7" => Release::V1_16_4,
        "v1.17.11" | "v1.18.0" => Release::V1_17_8,
        "v1.18.6" | "v1.19.1" => Release::V1_18_5,
        _ => return None,
    })
}

fn configuration(vector: &Vector, size: usize) -> Option<(Release, Level, Framing)> {
    let mut options = vector.options.split(',');
    let whole = options.next()? == "encodeall";
    let level = match options.next()? {
        "default" => Level::Default,
        _ => return None,
    };
    let framing = match options.next() {
        Some("write=8+readfrom") => Framing::PeekedStream,
        None if whole => Framing::Whole(size as u64),
        None => Framing::Stream,
        Some(_) => return None,
    };
    Some((release(vector)?, level, framing))
}

#[test]
fn writes_what_the_real_encoder_writes() {
    let mut checked = 0;
    for vector in vectors::family("klauspost-zstd") {
        let content = vector.content();
        let Some((release, level, framing)) = configuration(&vector, content.len()) else { continue };
        let output = vectors::encode(&mut Klauspost::new(release, level, framing), &content, 100_003);
        vector.assert_is(&output);
        checked += 1;
    }
    assert!(checked > 100, "{checked}");
}
