//! A tag that parses is one path component that cannot be taken for an option, a digest or a hidden file; what a
//! reference is depends on its colon alone.

#![no_main]

use deltaport_oci::{MAX_TAG_LEN, Reference, Tag};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        assert!((1..=MAX_TAG_LEN).contains(&text.len()) && !text.starts_with(['.', '-']));
        assert!(!text.contains(['/', ':', '%', '\\', ' ', '\0']));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(matches!(reference, Reference::Digest(_)), text.contains(':'));
        assert_eq!(reference.to_string(), text);
    }
});
