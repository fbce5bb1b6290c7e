//! Fixtures, and a signer who signs anything.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_oci::Digest;
use deltaport_trust::signatures::{Document, Image, ImageName, Policy, Reason, Verdict, layers};
use serde_json::{Value, json};

/// What the fixtures call the image.
pub(crate) const NAME: &str = "registry.example/team/app:1.0";

/// A file of the fixtures.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The digest of the image that the fixtures sign.
pub(crate) fn image_digest() -> Digest {
    Digest::sha256(&fixture("image.json"))
}

/// The signature of a fixture, as it would be read from a registry.
pub(crate) fn document(name: &str) -> Document {
    let mut layers = layers(&fixture(&format!("{name}.manifest.json"))).expect("a manifest of signatures");
    assert_eq!(layers.len(), 1);
    let layer = layers.remove(0);
    let kind = if name.contains("cosign3") || name == "fulcio3" { "bundle.json" } else { "payload" };
    layer.with(fixture(&format!("{name}.{kind}"))).expect("the blob of the manifest")
}

/// A policy that wants `requirement` of everything; its paths are names of fixtures.
pub(crate) fn policy(requirement: Value) -> Policy {
    let text = json!({"default": [requirement]}).to_string();
    Policy::read(text.as_bytes(), |path| Ok(fixture(path))).expect("a good policy")
}

/// `sigstoreSigned` with other keys beside it.
pub(crate) fn signed(mut keys: Value) -> Value {
    keys["type"] = "sigstoreSigned".into();
    keys
}

/// The repository is enough, as for signatures that cosign made.
pub(crate) fn match_repository() -> Value {
    json!({"type": "matchRepository"})
}

/// So many seconds after 1970.
pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// 2026-01-01, when the long-lived certificates of the fixtures are valid.
pub(crate) fn now() -> SystemTime {
    at(1_767_225_600)
}

/// The verdict on an image that is in no index.
pub(crate) fn judge(policy: &Policy, name: &str, digest: Digest, documents: &[Document]) -> Verdict {
    let name = ImageName::parse(name).expect("a good name");
    policy.judge(Image { name: &name, digest, within: &[] }, documents, now())
}

/// Why an image was refused.
#[track_caller]
pub(crate) fn reason(verdict: Verdict) -> Reason {
    match verdict {
        Verdict::Refused(refused) => refused.reason,
        Verdict::Accepted(accepted) => panic!("accepted: {accepted:?}"),
    }
}

/// A key that was made just now.
pub(crate) struct Key(EcdsaKeyPair);

impl Key {
    pub(crate) fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key"))
    }

    /// The key pair of a certificate that rcgen is to sign.
    pub(crate) fn of(pair: &rcgen::KeyPair) -> Self {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pair.serialized_der());
        Self(pair.expect("a key of rcgen"))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
    }

    /// The public half: the DER of its SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().expect("a public key");
        der.as_ref().to_vec()
    }

    /// The same in PEM.
    pub(crate) fn pem(&self) -> Vec<u8> {
        pem("PUBLIC KEY", &self.spki()).into_bytes()
    }

    /// A policy that wants signatures of this key, with any tag.
    pub(crate) fn policy(&self) -> Policy {
        let key = STANDARD.encode(self.pem());
        policy(signed(json!({"keyData": key, "signedIdentity": match_repository()})))
    }

    /// A payload, signed, as it lies in a registry.
    pub(crate) fn simple(&self, payload: &[u8]) -> Document {
        with_annotations(payload, self.annotation(payload))
    }

    /// The annotation of a payload's signature.
    pub(crate) fn annotation(&self, payload: &[u8]) -> Value {
        json!({"dev.cosignproject.cosign/signature": STANDARD.encode(self.sign(payload))})
    }

    /// A bundle around a statement.
    pub(crate) fn bundle(&self, statement: &[u8]) -> Value {
        const TYPE: &str = "application/vnd.in-toto+json";
        let mut signed = format!("DSSEv1 28 {TYPE} {} ", statement.len()).into_bytes();
        signed.extend_from_slice(statement);
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "any"}},
            "dsseEnvelope": {
                "payload": STANDARD.encode(statement),
                "payloadType": TYPE,
                "signatures": [{"sig": STANDARD.encode(self.sign(&signed))}],
            },
        })
    }
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// The payload of a signature that is right.
pub(crate) fn payload(digest: Digest, name: &str) -> Vec<u8> {
    payload_value(digest, name).to_string().into_bytes()
}

pub(crate) fn payload_value(digest: Digest, name: &str) -> Value {
    json!({
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest.to_string()},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
}

/// The statement of a signature that is right.
pub(crate) fn statement(digest: Digest) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest.hex()}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    })
}

/// A payload with these annotations, as it lies in a registry.
pub(crate) fn with_annotations(payload: &[u8], annotations: Value) -> Document {
    one_layer("application/vnd.dev.cosign.simplesigning.v1+json", payload, annotations)
}

/// A bundle as it lies in a registry.
pub(crate) fn bundled(bundle: &Value) -> Document {
    let text = bundle.to_string();
    one_layer("application/vnd.dev.sigstore.bundle.v0.3+json", text.as_bytes(), json!({}))
}

pub(crate) fn one_layer(media_type: &str, content: &[u8], annotations: Value) -> Document {
    let manifest = manifest(media_type, content, annotations);
    layers(&manifest).expect("a manifest").remove(0).with(content.to_vec()).expect("its layer")
}

/// A manifest with one layer.
pub(crate) fn manifest(media_type: &str, content: &[u8], annotations: Value) -> Vec<u8> {
    let layer = json!({
        "mediaType": media_type,
        "digest": Digest::sha256(content).to_string(),
        "size": content.len(),
        "annotations": annotations,
    });
    json!({"schemaVersion": 2, "layers": [layer]}).to_string().into_bytes()
}
