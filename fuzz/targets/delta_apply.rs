//! Applying a delta that somebody tampered with ends: in an error, or in exactly the target that its header names,
//! within the limits. The input is a list of edits to a real delta.

#![no_main]

use std::io::{Cursor, Write as _};
use std::sync::OnceLock;

use deltaport_delta::{Limits, Options, apply, create};
use deltaport_oci::Digest;

const LIMITS: Limits = Limits { target_size: 1 << 20, scratch: 1 << 20, threads: 1 };

struct Sample {
    base: Vec<u8>,
    delta: Vec<u8>,
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let text: Vec<u8> = (0..3000_u32).flat_map(|n| (n * n).to_string().into_bytes()).collect();
        let mut changed = text.clone();
        changed.splice(5000..5010, b"something else".iter().copied());
        let (base, target) = (gzip(&text), gzip(&changed));
        let options = Options { worth_percent: 10_000, ..Options::default() };
        let delta = create(
            &mut [Cursor::new(&base)],
            &mut Cursor::new(&target),
            || Ok(Cursor::new(Vec::new())),
            &options,
            |_| (),
        )
        .expect("a delta");
        Sample { base, delta: delta.bytes }
    })
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

libfuzzer_sys::fuzz_target!(|edits: Vec<(u16, u8)>| {
    let Sample { base, delta } = sample();
    let mut delta = delta.clone();
    for (at, byte) in edits {
        let at = usize::from(at) % delta.len();
        delta[at] = byte;
    }
    let mut out = Vec::new();
    if let Ok(applied) = apply(&mut [&base[..]], &delta[..], &mut out, Cursor::new(Vec::new()), &LIMITS) {
        assert_eq!(applied.digest, Digest::of(applied.digest.algorithm(), &out));
        assert_eq!(applied.size, out.len() as u64);
        let header = deltaport_delta::inspect(&delta[..]).expect("it was just read");
        assert_eq!(header.target.digest, applied.digest);
    }
    assert!(out.len() as u64 <= LIMITS.target_size);
});
