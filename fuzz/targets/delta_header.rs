//! The header of a delta is read or refused, whatever the bytes, and says nothing that its limits forbid.

#![no_main]

use deltaport_delta::{MAX_BASES, MAX_SIZE, inspect};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = inspect(bytes) {
        assert!((1..=MAX_BASES).contains(&header.bases.len()));
        assert!(header.target.size <= MAX_SIZE && header.bases.iter().all(|base| base.blob.size <= MAX_SIZE));
    }
});
