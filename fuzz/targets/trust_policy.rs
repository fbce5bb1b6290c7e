//! A policy is read or refused; one that nowhere says that it accepts anything accepts nothing that is not signed; and
//! keys and certificates of any bytes do no harm.
//!
//! The input is the policy, and behind a zero byte what is in the files that it names.

#![no_main]

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_oci::Digest;
use deltaport_trust::signatures::{Demand, Image, ImageName, Policy};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (text, content) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    let Ok(policy) = Policy::read(text, |path| Ok(file(path, content))) else { return };

    let name = ImageName::parse("registry.example/team/app:1.0").expect("a good name");
    let image = Image { name: &name, digest: Digest::sha256(b""), within: &[] };
    let verdict = policy.judge(image, &[], SystemTime::UNIX_EPOCH);
    // JSON has other spellings of the word only with backslashes.
    let says = |word: &[u8]| text.windows(word.len()).any(|window| window == word);
    assert!(!verdict.is_accepted() || says(b"insecureAcceptAnything") || says(b"\\"));
    if let Demand::Nothing(demanded) = policy.demand(image) {
        assert_eq!(demanded, verdict);
    }
});

/// A file as it is, or PEM of it: then the fuzzer need not learn base64 to make DER.
fn file(path: &str, content: &[u8]) -> Vec<u8> {
    let label = match path.as_bytes().first() {
        Some(b'c') => "CERTIFICATE",
        Some(b'k') => "PUBLIC KEY",
        _ => return content.to_vec(),
    };
    let text = STANDARD.encode(content);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n").into_bytes()
}
