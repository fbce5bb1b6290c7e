//! What the token codec takes apart it puts together again, bit for bit; and what it cannot, it says so. The bytes are
//! taken as a gzip file, and compressed into one.

#![no_main]

use std::io::Write as _;

use deltaport_delta::token::{decode, encode};

const LIMIT: u64 = 16 << 20;

fn round_trip(gzip: &[u8]) -> bool {
    let mut tokens = Vec::new();
    if decode(gzip, &mut tokens, LIMIT).is_err() {
        return false;
    }
    let mut again = Vec::new();
    encode(&tokens[..], &mut again).expect("tokens that were just made");
    assert!(again == gzip);
    true
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    round_trip(bytes);
    let level = u32::from(bytes.first().copied().unwrap_or_default()) % 10;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes).expect("memory takes everything");
    assert!(round_trip(&encoder.finish().expect("memory takes everything")));
});
