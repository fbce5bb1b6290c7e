//! Payloads and annotations of any bytes are refused, by policies that want keys, certificates or entries of logs: what
//! the fuzzer writes nobody signed.
//!
//! The input is the payload, and behind zero bytes the signature in base64, the certificate, its chain and the promise
//! of a log.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use deltaport_oci::Digest;
use deltaport_trust::signatures::{Image, ImageName, Policy, layers};
use serde_json::json;

/// What the fixtures sign.
static IMAGE: LazyLock<Digest> =
    LazyLock::new(|| Digest::sha256(include_bytes!("../../crates/trust/tests/fixtures/image.json")));

static POLICIES: LazyLock<Vec<Policy>> = LazyLock::new(|| {
    let name = json!({"type": "matchRepository"});
    [
        json!({"type": "sigstoreSigned", "keyPath": "key", "signedIdentity": name}),
        json!({"type": "sigstoreSigned", "keyPath": "key", "rekorPublicKeyPath": "key", "signedIdentity": name}),
        json!({"type": "sigstoreSigned", "pki": {"caRootsPath": "root", "subjectEmail": "a@b"}}),
        json!({
            "type": "sigstoreSigned",
            "fulcio": {"caPath": "root", "oidcIssuer": "i", "subjectEmail": "a@b"},
            "rekorPublicKeyPath": "key",
        }),
    ]
    .map(|requirement| {
        let text = json!({"default": [requirement]}).to_string();
        Policy::read(text.as_bytes(), |path| {
            Ok(match path {
                // Not the key that signed the seeds.
                "key" => include_bytes!("../../crates/trust/tests/fixtures/rekor.pub").to_vec(),
                _ => include_bytes!("../../crates/trust/tests/fixtures/root.crt").to_vec(),
            })
        })
        .expect("a good policy")
    })
    .into()
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(5, |byte| *byte == 0);
    let payload = parts.next().unwrap_or_default();
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let manifest = json!({"layers": [{
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": Digest::sha256(payload).to_string(),
        "size": payload.len(),
        "annotations": {
            "dev.cosignproject.cosign/signature": text(),
            "dev.sigstore.cosign/certificate": text(),
            "dev.sigstore.cosign/chain": text(),
            "dev.sigstore.cosign/bundle": text(),
        },
    }]});
    let Ok(mut layers) = layers(manifest.to_string().as_bytes()) else { return };
    let document = layers.remove(0).with(payload.to_vec()).expect("the payload that was named");
    let name = ImageName::parse("registry.example/team/app:1.0").expect("a good name");
    let image = Image { name: &name, digest: *IMAGE, within: &[] };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    for policy in &*POLICIES {
        assert!(!policy.judge(image, std::slice::from_ref(&document), now).is_accepted());
    }
});
