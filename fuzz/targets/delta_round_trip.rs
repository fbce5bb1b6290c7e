//! For any base and any target: a delta, when one is made, gives the target back, bit for bit. Half of the inputs are
//! compressed first, so that both kinds of delta are made.

#![no_main]

use std::io::{Cursor, Write as _};

use deltaport_delta::{Error, Limits, Options, apply, create};

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8], &[u8])| {
    let (level, base, target) = input;
    let (mut base, mut target) = (base.to_vec(), target.to_vec());
    if level % 2 == 1 {
        let level = u32::from(level) / 2 % 10;
        (base, target) = (gzip(&base, level), gzip(&target, level));
    }
    let options = Options { worth_percent: 100_000, ..Options::default() };
    match create(
        &mut [Cursor::new(&base)],
        &mut Cursor::new(&target),
        || Ok(Cursor::new(Vec::new())),
        &options,
        |_| (),
    ) {
        Ok(delta) => {
            let mut out = Vec::new();
            apply(&mut [&base[..]], &delta.bytes[..], &mut out, Cursor::new(Vec::new()), &Limits::default())
                .expect("create proved it");
            assert!(out == target);
        }
        Err(Error::NotWorthIt { .. }) => {}
        Err(error) => panic!("{error}"),
    }
});
