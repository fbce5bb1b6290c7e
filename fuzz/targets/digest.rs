//! A digest has one spelling. A saved hash state that was tampered with is refused or hashes something, and never
//! more.

#![no_main]

use deltaport_oci::{Digest, Hasher};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(digest) = text.parse::<Digest>()
    {
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::from_hash(digest.algorithm(), digest.hash()), Ok(digest));
    }
    if let Some(mut hasher) = Hasher::resume(bytes) {
        assert_eq!(Hasher::resume(&hasher.save()).map(Hasher::finish), Some(hasher.clone().finish()));
        hasher.update(b"more");
        assert_eq!(hasher.algorithm(), hasher.finish().algorithm());
    }
});
