//! Tokens, the keys of those who issue them, and scopes: read or refused, whatever callers and issuers send.

#![no_main]

use deltaport_trust::tokens::{KeySet, Scopes, unverified_issuer};

/// As long a token as servers look at.
const LIMIT: usize = 16 << 10;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _keys = KeySet::read(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(issuer) = unverified_issuer(text, LIMIT) {
        assert!(text.len() <= LIMIT && issuer.len() < text.len());
    }
    if let Ok(scopes) = Scopes::parse(text.split_whitespace()) {
        let again: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let parsed = Scopes::parse(again.iter().map(String::as_str)).expect("what was parsed and written");
        assert_eq!(scopes.iter().count(), parsed.iter().count());
    }
});
