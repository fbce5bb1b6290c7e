//! Gzip files and zip archives inside a layer are opened or left alone.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: (&[u8], &[u8])| deltaport_delta::fuzzing::members(input.0, input.1));
