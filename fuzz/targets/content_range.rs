//! A chunk's `Content-Range` that parses has a first byte, a last byte and a length that does not overflow, and its
//! text means the same.

#![no_main]

use deltaport_oci::wire::ContentRange;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(range) = text.parse::<ContentRange>() {
        assert!(range.first <= range.last);
        assert!(range.last - range.first + 1 >= 1);
        assert_eq!(range.to_string().parse(), Ok(range));
    }
});
