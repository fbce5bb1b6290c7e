//! A repository name that parses is a path that stays inside its directory, and its text is the text that was parsed.

#![no_main]

use deltaport_oci::{MAX_NAME_LEN, RepositoryName};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= MAX_NAME_LEN);
        let plain = |part: &str| {
            part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        let bounded = |part: &str| {
            let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
            edge(part.bytes().next()) && edge(part.bytes().last())
        };
        assert!(text.split('/').all(|part| plain(part) && bounded(part)));
    }
});
