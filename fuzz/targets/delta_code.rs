//! Whatever was matched and coded comes back.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: (&[u8], &[u8], bool)| deltaport_delta::fuzzing::code(
    input.0, input.1, input.2
));
