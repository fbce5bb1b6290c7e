//! Recipes are read or refused, and whichever encoder one names writes deflate that gives the content back.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: (&[u8], &[u8])| deltaport_delta::fuzzing::recipe(input.0, input.1));
