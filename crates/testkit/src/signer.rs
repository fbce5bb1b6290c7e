//! Somebody who signs images, in the form in which podman and skopeo do: a payload of simple signing, and a manifest
//! under a tag that is made of the image's digest, with the signature in an annotation.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_oci::Digest;
use serde_json::{Value, json};

use crate::sample::{self, CONFIG, Content};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation that holds a signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The artifact type of signatures that are referrers.
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// A key that was made just now, and whoever has it.
#[derive(Debug)]
pub struct Signer(EcdsaKeyPair);

/// A signature as it lies in a registry.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The manifest that holds it.
    pub manifest: Content,
    /// Its configuration, about which nobody asks.
    pub config: Content,
    /// What was signed.
    pub payload: Content,
    /// The tag that it belongs under.
    pub tag: String,
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

impl Signer {
    /// Makes a key: ECDSA on P-256, as cosign and podman do.
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key"))
    }

    /// The public half as PEM.
    pub fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().expect("a public key");
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("it is base64")).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// `sigstoreSigned` by this key; `identity` is the type of `signedIdentity`.
    pub fn requirement(&self, identity: &str) -> Value {
        json!({
            "type": "sigstoreSigned",
            "keyData": STANDARD.encode(self.pem()),
            "signedIdentity": { "type": identity },
        })
    }

    /// A policy that wants everything signed by this key.
    pub fn policy(&self, identity: &str) -> Value {
        json!({ "default": [self.requirement(identity)] })
    }

    /// Signs a manifest under a name.
    pub fn sign(&self, image: &Digest, name: &str) -> Signature {
        let payload = json!({
            "critical": {
                "identity": { "docker-reference": name },
                "image": { "docker-manifest-digest": image.to_string() },
                "type": "cosign container image signature",
            },
            "optional": { "creator": "deltaport tests", "timestamp": 1_700_000_000 },
        });
        let payload = Content::new(PAYLOAD, payload.to_string());
        let signature = self.0.sign(&SystemRandom::new(), &payload.bytes).expect("a signature");
        Signature::of(image, payload, &STANDARD.encode(signature.as_ref()))
    }
}

impl Signature {
    /// The payload with this signature, in base64.
    fn of(image: &Digest, payload: Content, signature: &str) -> Self {
        let config = json!({
            "architecture": "", "os": "", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [payload.digest.to_string()] },
        });
        let config = Content::new(CONFIG, config.to_string());
        let mut layer = payload.descriptor();
        layer["annotations"] = json!({ SIGNATURE: signature });
        let manifest = sample::manifest(&config, &[], json!({ "layers": [layer] }));
        Self { manifest, config, payload, tag: format!("{}-{}.sig", image.algorithm(), image.hex()) }
    }

    /// The same signature as a referrer of the image.
    #[must_use]
    pub fn as_referrer(self, image: &Content) -> Self {
        let mut manifest: Value = serde_json::from_slice(&self.manifest.bytes).expect("it was made here");
        manifest["subject"] = image.descriptor();
        manifest["artifactType"] = ARTIFACT.into();
        Self { manifest: Content::new(&self.manifest.media_type, manifest.to_string()), ..self }
    }

    /// The same with one byte of the signature changed.
    #[must_use]
    pub fn tampered(self, image: &Digest) -> Self {
        let manifest: Value = serde_json::from_slice(&self.manifest.bytes).expect("it was made here");
        let text = manifest["layers"][0]["annotations"][SIGNATURE].as_str().expect("it is signed");
        let mut signature = STANDARD.decode(text).expect("it was made here");
        // Within the second number, so that it still reads.
        let last = signature.len() - 3;
        signature[last] ^= 1;
        Self::of(image, self.payload, &STANDARD.encode(signature))
    }

    /// What has to be pushed before the manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &Content> {
        [&self.config, &self.payload].into_iter()
    }
}
