//! The name of an image, written out, is the same name; it has a registry and a repository, and nothing that a path or
//! a header could not hold.

#![no_main]

use deltaport_trust::signatures::ImageName;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(name) = ImageName::parse(text) else { return };
    let full = name.to_string();
    assert!(full.is_ascii() && full.contains('/') && !full.contains(char::is_whitespace));
    assert!(full.starts_with(name.repository()));
    assert_eq!(ImageName::parse(&full), Ok(name));
});
