//! An identity provider on loopback, as CI systems are: a document that says where its keys are, the keys, and tokens for jobs.

use std::time::SystemTime;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::upstream::{Reply, Rule, Upstream};

/// Where the document is.
pub const DOCUMENT: &str = "/.well-known/openid-configuration";
/// Where the keys are.
pub const KEYS: &str = "/keys";

/// An identity provider. It ends when this is dropped.
#[derive(Debug)]
pub struct CiSystem {
    upstream: Upstream,
    key: u8,
}

impl CiSystem {
    /// Starts one that signs with its key number `key`.
    pub async fn start(key: u8) -> Self {
        let mut system = Self { upstream: Upstream::start(Vec::new()).await, key };
        system.publish(key);
        let document = json!({ "issuer": system.url(), "jwks_uri": format!("{}{KEYS}", system.url()) });
        system.answer(DOCUMENT, Reply::status(200).body(document.to_string()));
        system
    }

    /// Its address, which is what it calls itself.
    pub fn url(&self) -> String {
        self.upstream.url()
    }

    /// Signs with another key from now on, and says so.
    pub fn publish(&mut self, key: u8) {
        self.key = key;
        self.answer(KEYS, Reply::status(200).body(self.keys()));
    }

    /// Answers something else from now on.
    pub fn answer(&self, path: &str, reply: Reply) {
        self.upstream.first(Rule::on("GET", path).reply(reply));
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<String> {
        self.upstream.lines()
    }

    /// Its key set.
    pub fn keys(&self) -> String {
        let public = URL_SAFE_NO_PAD.encode(self.pair().public_key());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": self.name(), "x": public }] }).to_string()
    }

    /// A token of a job, valid for ten minutes from now, with these claims besides; those that are null are left out.
    pub fn token(&self, audience: &str, more: &Value) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs();
        let mut claims = json!({ "iss": self.url(), "aud": audience, "iat": now, "exp": now + 600 });
        for (name, value) in more.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let header = json!({ "alg": "EdDSA", "kid": self.name(), "typ": "JWT" });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&header), part(&claims));
        let signature = self.pair().sign(input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[self.key; 32]).expect("any seed is a key")
    }

    fn name(&self) -> String {
        format!("key {}", self.key)
    }
}
