//! Bundles of any bytes are refused, and statements of any bytes in a bundle too: what the fuzzer writes nobody signed.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_oci::Digest;
use deltaport_trust::signatures::{Image, ImageName, Policy, layers};
use serde_json::json;

/// Wants the key that signed nothing, whatever the image is called.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let text =
        json!({"default": [{"type": "sigstoreSigned", "keyPath": "key", "rekorPublicKeyPath": "key"}]});
    let key = include_bytes!("../../crates/trust/tests/fixtures/rekor.pub");
    Policy::read(text.to_string().as_bytes(), |_| Ok(key.to_vec()))
        .expect("a good policy")
        .accepting_nameless(true)
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    judge(input);
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {}},
        "dsseEnvelope": {
            "payload": STANDARD.encode(input),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": "AAAA"}],
        },
    });
    judge(bundle.to_string().as_bytes());
});

fn judge(bundle: &[u8]) {
    let manifest = json!({"layers": [{
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "digest": Digest::sha256(bundle).to_string(),
        "size": bundle.len(),
    }]});
    let Ok(mut layers) = layers(manifest.to_string().as_bytes()) else { return };
    let document = layers.remove(0).with(bundle.to_vec()).expect("the bundle that was named");
    let name = ImageName::parse("registry.example/team/app:1.0").expect("a good name");
    let digest = Digest::sha256(include_bytes!("../../crates/trust/tests/fixtures/image.json"));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    assert!(!POLICY.judge(Image { name: &name, digest, within: &[] }, &[document], now).is_accepted());
}
