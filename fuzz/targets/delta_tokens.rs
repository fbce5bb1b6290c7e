//! A stream of tokens that somebody made up is turned into bytes or refused; it does not make the codec panic, hang or
//! write without end.

#![no_main]

use deltaport_delta::token::encode;

libfuzzer_sys::fuzz_target!(|tokens: &[u8]| {
    let mut out = Vec::new();
    let _ = encode(tokens, &mut out);
    assert!(out.len() <= 64 * tokens.len() + 1024, "{} bytes from {}", out.len(), tokens.len());
});
