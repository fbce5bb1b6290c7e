//! Sigstore's bundles, version 0.3: a signed statement, what it was signed with, and the entries of transparency logs
//! (sigstore_bundle.proto, in the JSON of protobuf).

use super::encoding::base64;
use super::json::{self, Fields, JsonError, Value};
use super::key::MAX_SIGNATURE_LEN;

/// The most bytes of a bundle.
pub const MAX_BUNDLE_LEN: usize = 256 << 10;
/// The most entries of transparency logs in a bundle.
pub const MAX_ENTRIES: usize = 16;

/// The media type of bundles.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The same, as it was spelled at first; inside of bundles only.
const BUNDLE_TYPE_AT_FIRST: &str = "application/vnd.dev.sigstore.bundle+json;version=0.3";
/// What the signed payload of a bundle has to be.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Why a bundle was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The JSON is not what it has to be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Something is not base64.
    #[error("{0} is not base64")]
    Base64(&'static str),
    /// It is another version, or no bundle.
    #[error("its media type is {0:?}; {BUNDLE_TYPE:?} is read")]
    Version(String),
    /// The payload is not a statement.
    #[error("its payload is {0:?}, not {PAYLOAD_TYPE:?}")]
    PayloadType(String),
    /// Not exactly one signature.
    #[error("it has {0} signatures, not one")]
    Signatures(usize),
    /// The signature is longer than any.
    #[error("its signature has more than {MAX_SIGNATURE_LEN} bytes")]
    LongSignature,
    /// It signs bytes instead of a statement about an image.
    #[error("it signs a message, not a statement about an image")]
    Message,
    /// It says neither which key nor which certificate, or both.
    #[error("it has not exactly one of publicKey and certificate")]
    Material,
    /// More than [`MAX_ENTRIES`].
    #[error("it has more than {MAX_ENTRIES} entries of transparency logs")]
    Entries,
}

/// A bundle that was read; nothing in it is verified.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    /// The DER of the signer's certificate; none when a key is meant, which the policy knows.
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) entries: Vec<Entry>,
}

/// An entry of a transparency log.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) body: Vec<u8>,
    pub(crate) integrated_time: i64,
    pub(crate) log_index: i64,
    pub(crate) log_id: Vec<u8>,
    /// The log's promise, signed by it; logs of the second version give none.
    pub(crate) promise: Option<Vec<u8>>,
}

impl Bundle {
    /// Reads a bundle.
    pub(crate) fn read(text: &[u8]) -> Result<Self, BundleError> {
        let mut fields = json::read(text, MAX_BUNDLE_LEN)?.object("the bundle")?;
        let media_type = fields.string("mediaType")?;
        if ![BUNDLE_TYPE, BUNDLE_TYPE_AT_FIRST].contains(&media_type.as_str()) {
            return Err(BundleError::Version(media_type));
        }
        if fields.take("messageSignature").is_some() {
            return Err(BundleError::Message);
        }
        let (certificate, entries) = material(fields.object("verificationMaterial")?)?;
        let (payload, signature) = envelope(fields.object("dsseEnvelope")?)?;
        fields.end()?;
        Ok(Self { payload, signature, certificate, entries })
    }

    /// What was signed: the pre-authentication encoding of the envelope (DSSE, protocol.md).
    pub(crate) fn signed(&self) -> Vec<u8> {
        let head =
            format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), self.payload.len()).into_bytes();
        [head.as_slice(), &self.payload].concat()
    }
}

/// Reads an Envelope: its payload and its only signature.
fn envelope(mut fields: Fields) -> Result<(Vec<u8>, Vec<u8>), BundleError> {
    let payload_type = fields.string("payloadType")?;
    if payload_type != PAYLOAD_TYPE {
        return Err(BundleError::PayloadType(payload_type));
    }
    let payload = bytes(&mut fields, "payload")?;
    let mut signatures = fields.need("signatures")?.array("signatures")?;
    fields.end()?;
    let count = signatures.len();
    let Some(signature) = signatures.pop().filter(|_| count == 1) else {
        return Err(BundleError::Signatures(count));
    };
    let mut signature = signature.object("signature")?;
    let sig = bytes(&mut signature, "sig")?;
    signature.optional_string("keyid")?;
    signature.end()?;
    if sig.len() > MAX_SIGNATURE_LEN {
        return Err(BundleError::LongSignature);
    }
    Ok((payload, sig))
}

/// Reads VerificationMaterial: the certificate, if there is one, and the entries of logs.
fn material(mut fields: Fields) -> Result<(Option<Vec<u8>>, Vec<Entry>), BundleError> {
    let certificate = match (fields.take("publicKey"), fields.take("certificate")) {
        // The hint tells which key was meant. The policy tells which ones count, so that it is not needed.
        (Some(key), None) => {
            let mut key = key.object("publicKey")?;
            key.optional_string("hint")?;
            key.end()?;
            None
        }
        (None, Some(certificate)) => {
            let mut certificate = certificate.object("certificate")?;
            let der = bytes(&mut certificate, "rawBytes")?;
            certificate.end()?;
            Some(der)
        }
        _ => return Err(BundleError::Material),
    };
    let entries = match fields.take("tlogEntries") {
        Some(entries) => entries.array("tlogEntries")?,
        None => Vec::new(),
    };
    // Timestamps of other authorities are not looked at: nothing in a policy says which ones to believe.
    fields.take("timestampVerificationData");
    fields.end()?;
    if entries.len() > MAX_ENTRIES {
        return Err(BundleError::Entries);
    }
    let entries = entries.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok((certificate, entries))
}

/// Reads a TransparencyLogEntry.
fn entry(value: Value) -> Result<Entry, BundleError> {
    let mut fields = value.object("the entry of the log")?;
    let number = |fields: &mut Fields, key: &'static str| match fields.take(key) {
        // Zero is what protobuf leaves out.
        None => Ok(0),
        Some(value) => value.integer(key),
    };
    let log_index = number(&mut fields, "logIndex")?;
    let integrated_time = number(&mut fields, "integratedTime")?;
    let log_id = bytes(&mut fields.object("logId")?, "keyId")?;
    let body = bytes(&mut fields, "canonicalizedBody")?;
    let promise = match fields.take("inclusionPromise") {
        Some(promise) => Some(bytes(&mut promise.object("inclusionPromise")?, "signedEntryTimestamp")?),
        None => None,
    };
    // What the promise makes unnecessary, and what the body repeats.
    fields.take("inclusionProof");
    fields.take("kindVersion");
    fields.end()?;
    Ok(Entry { body, integrated_time, log_index, log_id, promise })
}

fn bytes(fields: &mut Fields, key: &'static str) -> Result<Vec<u8>, BundleError> {
    base64(&fields.string(key)?).ok_or(BundleError::Base64(key))
}
