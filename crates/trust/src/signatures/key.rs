//! Public keys: what kind they are is said by the key itself, never by a signature.

use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA256_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use deltaport_oci::Digest;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{AlgorithmIdentifier, SubjectPublicKeyInfoDer, alg_id};

use super::der;

/// The most bytes that a file with a key may have.
pub const MAX_KEY_LEN: usize = 64 << 10;
/// The most bytes that a signature may have: more than RSA with 8192 bits makes.
pub const MAX_SIGNATURE_LEN: usize = 2048;

/// Why a public key was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no key in the file, or more than one.
    #[error("there is not exactly one public key in it; a PEM file with one BEGIN PUBLIC KEY is needed")]
    Count,
    /// It is longer than [`MAX_KEY_LEN`].
    #[error("it has more than {MAX_KEY_LEN} bytes")]
    TooLong,
    /// Its kind is not supported.
    #[error(
        "it is of a kind that is not supported; ECDSA (P-256, P-384, P-521), RSA (2048 to 8192 bits) and Ed25519 are"
    )]
    Unsupported,
    /// It is damaged.
    #[error("it is damaged")]
    Damaged,
}

/// The kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    P521,
    Rsa,
    Ed25519,
}

/// In which of the two formats a signature was made: they hash differently with the larger curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// cosign's simple signing, and the entries of its log: SHA-256 with every key.
    Simple,
    /// Bundles: the hash that belongs to the key.
    Bundle,
}

/// A public key, ready to verify with. Comparing and printing it means its identifier.
#[derive(Clone)]
pub struct PublicKey {
    /// SHA-256 of the DER of its SubjectPublicKeyInfo.
    id: Digest,
    spki: Arc<[u8]>,
    kind: Kind,
    simple: ParsedPublicKey,
    bundle: ParsedPublicKey,
}

impl PublicKey {
    /// Reads a PEM file with one `PUBLIC KEY`.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        if pem.len() > MAX_KEY_LEN {
            return Err(KeyError::TooLong);
        }
        let mut keys = SubjectPublicKeyInfoDer::pem_slice_iter(pem);
        match (keys.next(), keys.next()) {
            (Some(Ok(key)), None) => Self::from_spki(&key),
            (Some(Err(_)), _) | (_, Some(Err(_))) => Err(KeyError::Damaged),
            _ => Err(KeyError::Count),
        }
    }

    /// Reads the DER of a SubjectPublicKeyInfo.
    pub(crate) fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let algorithm = der::spki_algorithm(spki).ok_or(KeyError::Damaged)?;
        let kind = kind_of(algorithm).ok_or(KeyError::Unsupported)?;
        let parsed = |scheme| {
            ParsedPublicKey::new(algorithm_of(kind, scheme), spki).map_err(|_| match kind {
                // A small or giant one is fine DER and useless.
                Kind::Rsa => KeyError::Unsupported,
                _ => KeyError::Damaged,
            })
        };
        Ok(Self {
            id: Digest::sha256(spki),
            spki: spki.into(),
            kind,
            simple: parsed(Scheme::Simple)?,
            bundle: parsed(Scheme::Bundle)?,
        })
    }

    /// What the key is called in verdicts: the SHA-256 digest of its SubjectPublicKeyInfo, which
    /// `openssl pkey -pubin -outform DER | sha256sum` gives too.
    pub fn id(&self) -> Digest {
        self.id
    }

    /// The DER of its SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Whether the key may sign the entries of a transparency log.
    pub(crate) fn is_ecdsa(&self) -> bool {
        matches!(self.kind, Kind::P256 | Kind::P384 | Kind::P521)
    }

    /// Whether `signature` over `message` was made with the other half of this key.
    pub(crate) fn verifies(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        let key = match scheme {
            Scheme::Simple => &self.simple,
            Scheme::Bundle => &self.bundle,
        };
        signature.len() <= MAX_SIGNATURE_LEN && key.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for PublicKey {}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The kind that an AlgorithmIdentifier names; `algorithm` is what is inside of its SEQUENCE.
fn kind_of(algorithm: &[u8]) -> Option<Kind> {
    const KINDS: [(AlgorithmIdentifier, Kind); 5] = [
        (alg_id::ECDSA_P256, Kind::P256),
        (alg_id::ECDSA_P384, Kind::P384),
        (alg_id::ECDSA_P521, Kind::P521),
        (alg_id::RSA_ENCRYPTION, Kind::Rsa),
        (alg_id::ED25519, Kind::Ed25519),
    ];
    KINDS.iter().find(|(id, _)| id.as_ref() == algorithm).map(|(_, kind)| *kind)
}

fn algorithm_of(kind: Kind, scheme: Scheme) -> &'static dyn VerificationAlgorithm {
    match (kind, scheme) {
        (Kind::P256, _) => &ECDSA_P256_SHA256_ASN1,
        (Kind::P384, Scheme::Simple) => &ECDSA_P384_SHA256_ASN1,
        (Kind::P384, Scheme::Bundle) => &ECDSA_P384_SHA384_ASN1,
        (Kind::P521, Scheme::Simple) => &ECDSA_P521_SHA256_ASN1,
        (Kind::P521, Scheme::Bundle) => &ECDSA_P521_SHA512_ASN1,
        (Kind::Rsa, _) => &RSA_PKCS1_2048_8192_SHA256,
        (Kind::Ed25519, _) => &ED25519,
    }
}
