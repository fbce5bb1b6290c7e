//! The tar walker tiles whatever it is given.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| deltaport_delta::fuzzing::walk_tar(bytes));
