//! Sections that somebody made up are refused, or make no more bytes than they may.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: (&[u8], &[u8], &[u8], &[u8], u16)| {
    deltaport_delta::fuzzing::decode(input.0, input.1, input.2, input.3, input.4);
});
