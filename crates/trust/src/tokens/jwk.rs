//! Public keys of an identity provider, as a JSON Web Key Set (RFC 7517).
//!
//! Each key has one algorithm, which follows from its kind: RSA keys verify RS256, P-256 keys ES256, P-384 keys ES384 and
//! Ed25519 keys EdDSA. A token that says otherwise is refused. Keys of other kinds, symmetric ones above all, are not
//! taken into the set.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::TokenError;
use super::jws::Jws;
use crate::signatures::json::{self, Fields};

/// The most bytes of a key set.
pub const MAX_JWKS_LEN: usize = 256 << 10;
/// The most keys in one.
pub const MAX_KEYS: usize = 64;

/// Why a key set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// It is not JSON, too long, or not an object with `keys`.
    #[error("not a JSON Web Key Set: {0}")]
    Form(String),
    /// More than [`MAX_KEYS`].
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooMany,
    /// None of its keys can be used.
    #[error("the key set has no key that can be used: RSA, P-256, P-384 and Ed25519 are supported")]
    Nothing,
}

/// The keys of an identity provider.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl KeySet {
    /// Reads a key set. Keys that cannot be used are left out, since providers publish such beside others.
    pub fn read(bytes: &[u8]) -> Result<Self, JwksError> {
        let form = |error: json::JsonError| JwksError::Form(error.to_string());
        let mut set = json::read(bytes, MAX_JWKS_LEN).and_then(|value| value.object("it")).map_err(form)?;
        let listed = set.need("keys").and_then(|keys| keys.array("keys")).map_err(form)?;
        if listed.len() > MAX_KEYS {
            return Err(JwksError::TooMany);
        }
        let keys: Vec<Key> =
            listed.into_iter().filter_map(|value| value.object("key").ok().and_then(Key::read)).collect();
        if keys.is_empty() { Err(JwksError::Nothing) } else { Ok(Self { keys }) }
    }

    /// Whether there is a key that is called `id`.
    pub fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Verifies a signature with the key that the token names, or, when it names none, with the only one that there is.
    pub(super) fn verify(&self, jws: &Jws<'_>) -> Result<(), TokenError> {
        let mut named = self.keys.iter().filter(|key| match &jws.key {
            Some(id) => key.id.as_ref() == Some(id),
            None => self.keys.len() == 1,
        });
        let key = named.next().ok_or(TokenError::Key)?;
        if named.next().is_some() {
            return Err(TokenError::Key);
        }
        if key.material.algorithm() != jws.algorithm {
            return Err(TokenError::Algorithm);
        }
        if key.material.verifies(jws.signed, &jws.signature) { Ok(()) } else { Err(TokenError::Signature) }
    }
}

impl Key {
    fn read(mut fields: Fields) -> Option<Self> {
        let id = fields.optional_string("kid").ok()?;
        if fields.optional_string("use").ok()?.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let algorithm = fields.optional_string("alg").ok()?;
        let kind = fields.string("kty").ok()?;
        let curve = fields.optional_string("crv").ok()?;
        let mut part = |name: &'static str| URL_SAFE_NO_PAD.decode(fields.string(name).ok()?).ok();
        let material = match (kind.as_str(), curve.as_deref()) {
            ("RSA", None) => Material::Rsa { n: part("n")?, e: part("e")? },
            ("EC", Some("P-256")) => Material::P256(point(&part("x")?, &part("y")?, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(&part("x")?, &part("y")?, 48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(part("x")?),
            _ => return None,
        };
        // A key that says it is for another algorithm is not for ours.
        let fits = algorithm.is_none_or(|algorithm| algorithm == material.algorithm());
        fits.then_some(Self { id, material })
    }
}

/// An uncompressed point of a curve whose coordinates have `len` bytes.
fn point(x: &[u8], y: &[u8], len: usize) -> Option<Vec<u8>> {
    (x.len() == len && y.len() == len).then(|| [&[4], x, y].concat())
}

impl Material {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RS256",
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Self::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            Self::P384(key) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(message, signature)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
        };
        verified.is_ok()
    }
}
