//! Promises of transparency logs: a log (Rekor, first version) signed that it took an entry at a time, which needs
//! nothing but the log's key to be verified.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_oci::Digest;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

use super::bundle::Entry;
use super::encoding;
use super::json::{self, Fields, JsonError};
use super::key::Scheme;
use super::payload::seconds_since_epoch;
use super::policy::LogKey;

/// The most bytes of the annotation that holds a promise, and of the body of an entry.
pub const MAX_ENTRY_LEN: usize = 256 << 10;

/// Why an entry of a log proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// There is no entry with a promise.
    #[error(
        "it comes without a promise of a transparency log (a signed entry timestamp, as logs of Rekor's first version \
         give), and the policy wants one"
    )]
    Missing,
    /// The JSON of it is not what it has to be.
    #[error("the entry of the transparency log: {0}")]
    Json(#[from] JsonError),
    /// It is damaged in another way.
    #[error("the entry of the transparency log is damaged: {0}")]
    Damaged(&'static str),
    /// None of the keys of the policy signed the promise.
    #[error("the promise of the transparency log was not signed with a key that the policy names")]
    Signature,
    /// The entry is of a kind that is not known.
    #[error("the entry of the transparency log is of the kind {0:?}, which is not read")]
    Kind(String),
    /// The entry is about another signature.
    #[error("the entry of the transparency log is about another {0}")]
    Other(&'static str),
    /// The log's key was not in use then.
    #[error("the key of the transparency log was not in use at the time of the entry")]
    NotInUse,
    /// The log says that it will be.
    #[error("the entry of the transparency log is from the future")]
    Future,
}

/// What an entry has to be about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    /// The DER of the signer's certificate, or of the SubjectPublicKeyInfo of the key.
    pub(crate) signer: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// Reads the annotation in which cosign keeps the promise of a log.
pub(crate) fn annotation(text: &str) -> Result<Entry, LogError> {
    let mut fields = json::read(text.as_bytes(), MAX_ENTRY_LEN)?.object("the annotation")?;
    let promise = base64(&mut fields, "SignedEntryTimestamp")?;
    let mut payload = fields.object("Payload")?;
    fields.end()?;
    let entry = Entry {
        body: base64(&mut payload, "body")?,
        integrated_time: payload.need("integratedTime")?.integer("integratedTime")?,
        log_index: payload.need("logIndex")?.integer("logIndex")?,
        log_id: hex(&payload.string("logID")?).ok_or(LogError::Damaged("logID is not hexadecimal"))?,
        promise: Some(promise),
    };
    payload.end()?;
    Ok(entry)
}

/// Verifies that one of `logs` took an entry about this signature before `now`, and gives the time.
///
/// The first entry whose promise one of the logs signed counts.
pub(crate) fn verify(
    entries: &[Entry],
    logs: &[LogKey],
    about: About<'_>,
    now: SystemTime,
) -> Result<SystemTime, LogError> {
    if entries.iter().all(|entry| entry.promise.is_none()) {
        return Err(LogError::Missing);
    }
    let promised = |entry| promised_by(entry, logs).map(|log| (entry, log));
    let (entry, log) = entries.iter().find_map(promised).ok_or(LogError::Signature)?;
    is_about(&entry.body, about)?;
    let time = seconds_since_epoch(entry.integrated_time)
        .ok_or(LogError::Damaged("its time is none that can be"))?;
    if time > now {
        Err(LogError::Future)
    } else if !log.period.has_begun(time) || log.period.is_over(time) {
        Err(LogError::NotInUse)
    } else {
        Ok(time)
    }
}

/// Which of the logs signed the promise. What is signed is the canonical JSON (RFC 8785) of the entry.
fn promised_by<'a>(entry: &Entry, logs: &'a [LogKey]) -> Option<&'a LogKey> {
    let promise = entry.promise.as_ref()?;
    let id: String = entry.log_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let signed = format!(
        r#"{{"body":"{}","integratedTime":{},"logID":"{id}","logIndex":{}}}"#,
        STANDARD.encode(&entry.body),
        entry.integrated_time,
        entry.log_index
    );
    logs.iter().find(|log| log.key.verifies(Scheme::Simple, signed.as_bytes(), promise))
}

/// Fails unless the body of an entry names this signature.
fn is_about(body: &[u8], about: About<'_>) -> Result<(), LogError> {
    let mut fields = json::read(body, MAX_ENTRY_LEN)?.object("the body of the entry")?;
    let kind = format!("{} {}", fields.string("kind")?, fields.string("apiVersion")?);
    let spec = fields.object("spec")?;
    let entry = match kind.as_str() {
        "hashedrekord 0.0.1" => hashed_record(spec)?,
        "dsse 0.0.1" => dsse(spec)?,
        _ => return Err(LogError::Kind(kind)),
    };
    if entry.signature != about.signature {
        return Err(LogError::Other("signature"));
    }
    if entry.payload_hash.as_bytes() != Digest::sha256(about.payload).hex().as_bytes() {
        return Err(LogError::Other("payload"));
    }
    if signer(&entry.verifier).as_deref() != Some(about.signer) {
        return Err(LogError::Other("signer"));
    }
    Ok(())
}

/// What the body of an entry says.
struct Body {
    payload_hash: String,
    signature: Vec<u8>,
    /// PEM of a certificate or a key.
    verifier: Vec<u8>,
}

/// Reads the entry of a signature over bytes.
fn hashed_record(mut spec: Fields) -> Result<Body, LogError> {
    let hash = spec.object("data")?.object("hash")?;
    let mut signature = spec.object("signature")?;
    Ok(Body {
        payload_hash: sha256(hash)?,
        signature: base64(&mut signature, "content")?,
        verifier: base64(&mut signature.object("publicKey")?, "content")?,
    })
}

/// Reads the entry of an envelope.
fn dsse(mut spec: Fields) -> Result<Body, LogError> {
    let hash = spec.object("payloadHash")?;
    let mut signatures = spec.need("signatures")?.array("signatures")?;
    let (Some(signature), true) = (signatures.pop(), signatures.is_empty()) else {
        return Err(LogError::Damaged("it has not exactly one signature"));
    };
    let mut signature = signature.object("signature")?;
    Ok(Body {
        payload_hash: sha256(hash)?,
        signature: base64(&mut signature, "signature")?,
        verifier: base64(&mut signature, "verifier")?,
    })
}

fn sha256(mut hash: Fields) -> Result<String, LogError> {
    match hash.string("algorithm")?.as_str() {
        "sha256" => Ok(hash.string("value")?),
        _ => Err(LogError::Damaged("its hash is not SHA-256")),
    }
}

/// The DER of a certificate or a key in PEM.
fn signer(pem: &[u8]) -> Option<Vec<u8>> {
    match CertificateDer::from_pem_slice(pem) {
        Ok(certificate) => Some(certificate.to_vec()),
        Err(_) => SubjectPublicKeyInfoDer::from_pem_slice(pem).ok().map(|key| key.to_vec()),
    }
}

fn base64(fields: &mut Fields, key: &'static str) -> Result<Vec<u8>, LogError> {
    encoding::base64(&fields.string(key)?).ok_or(LogError::Damaged("something in it is not base64"))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some((digit(pair[0])? << 4) | digit(pair[1])?)).collect()
}
