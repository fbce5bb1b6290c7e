//! Trusted roots: the file in which Sigstore gives out its authorities and logs, with the times in which each was in use
//! (sigstore_trustroot.proto, in the JSON of protobuf). `trusted_root.json` is what `cosign trusted-root create` writes.
//!
//! Where a policy names the certificates of Fulcio or the key of a log, such a file may stand instead of PEM.

use deltaport_oci::Digest;

use super::calendar::{Period, rfc3339};
use super::encoding;
use super::json::{self, Fields, JsonError, Value};

/// The most bytes of a trusted root.
pub const MAX_TRUSTED_ROOT_LEN: usize = 256 << 10;
/// The most authorities, and the most logs, of a trusted root.
pub const MAX_INSTANCES: usize = 64;

/// The media types of the versions that are read. They differ in how the version is written.
const MEDIA_TYPES: [&str; 3] = [
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "application/vnd.dev.sigstore.trustedroot.v0.1+json",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
];

/// Why a trusted root was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustedRootError {
    /// The JSON is not what it has to be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// It is another version, or no trusted root.
    #[error("its media type is {0:?}, which is not read")]
    Version(String),
    /// Something is not base64.
    #[error("{0} is not base64")]
    Base64(&'static str),
    /// Something is not a time.
    #[error("{0:?} is not a time, such as 2021-01-12T11:53:27Z")]
    Time(String),
    /// More than [`MAX_INSTANCES`].
    #[error("it has more than {MAX_INSTANCES} authorities, or logs")]
    TooMany,
}

/// A trusted root, as far as it is used here.
#[derive(Debug)]
pub(crate) struct TrustedRoot {
    pub(crate) authorities: Vec<Authority>,
    pub(crate) logs: Vec<Log>,
}

/// A certificate authority.
#[derive(Debug)]
pub(crate) struct Authority {
    /// In DER, the root last.
    pub(crate) certificates: Vec<Vec<u8>>,
    pub(crate) period: Period,
}

/// A transparency log.
#[derive(Debug)]
pub(crate) struct Log {
    /// The DER of its SubjectPublicKeyInfo.
    pub(crate) key: Vec<u8>,
    pub(crate) period: Period,
}

/// Whether a file is a trusted root rather than PEM.
pub(crate) fn is_trusted_root(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'{')
}

impl TrustedRoot {
    /// Reads a trusted root.
    pub(crate) fn read(text: &[u8]) -> Result<Self, TrustedRootError> {
        let mut fields = json::read(text, MAX_TRUSTED_ROOT_LEN)?.object("the trusted root")?;
        let media_type = fields.string("mediaType")?;
        if !MEDIA_TYPES.contains(&media_type.as_str()) {
            return Err(TrustedRootError::Version(media_type));
        }
        let authorities = instances(&mut fields, "certificateAuthorities", authority)?;
        let logs = instances(&mut fields, "tlogs", log)?;
        // Of certificates and of timestamps: neither are asked for by a policy.
        fields.take("ctlogs");
        fields.take("timestampAuthorities");
        fields.end()?;
        Ok(Self { authorities, logs })
    }
}

/// Reads a list that may be missing.
fn instances<T>(
    fields: &mut Fields,
    key: &'static str,
    read: fn(Fields) -> Result<T, TrustedRootError>,
) -> Result<Vec<T>, TrustedRootError> {
    let list = fields.take(key).map_or(Ok(Vec::new()), |value| value.array(key))?;
    if list.len() > MAX_INSTANCES {
        return Err(TrustedRootError::TooMany);
    }
    list.into_iter().map(|value| read(value.object(key)?)).collect()
}

/// Reads a CertificateAuthority. Who it says that it is counts for nothing.
fn authority(mut fields: Fields) -> Result<Authority, TrustedRootError> {
    let chain = fields.object("certChain")?.need("certificates")?.array("certificates")?;
    if chain.len() > MAX_INSTANCES {
        return Err(TrustedRootError::TooMany);
    }
    let certificates = chain.into_iter().map(|value| bytes(&mut value.object("certificate")?, "rawBytes"));
    Ok(Authority { certificates: certificates.collect::<Result<_, _>>()?, period: period(&mut fields)? })
}

/// Reads a TransparencyLogInstance.
fn log(mut fields: Fields) -> Result<Log, TrustedRootError> {
    let mut key = fields.object("publicKey")?;
    Ok(Log { key: bytes(&mut key, "rawBytes")?, period: period(&mut key)? })
}

/// Reads the period behind `validFor`; always, when there is none.
fn period(fields: &mut Fields) -> Result<Period, TrustedRootError> {
    let Some(period) = fields.take("validFor") else { return Ok(Period::default()) };
    let mut period = period.object("validFor")?;
    let mut time = |key| match period.take(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let text = value.string(key)?;
            rfc3339(&text).map(Some).ok_or(TrustedRootError::Time(text))
        }
    };
    Ok(Period { from: time("start")?, until: time("end")? })
}

fn bytes(fields: &mut Fields, key: &'static str) -> Result<Vec<u8>, TrustedRootError> {
    encoding::base64(&fields.string(key)?).ok_or(TrustedRootError::Base64(key))
}

impl Log {
    /// What the key is called in messages.
    pub(crate) fn name(&self) -> String {
        Digest::sha256(&self.key).to_string()
    }
}
