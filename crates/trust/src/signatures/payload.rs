//! What signatures say: cosign's payload in the format of simple signing (containers-signature(5), as cosign's
//! specification of signatures restricts it), and the in-toto statement that cosign 3 signs instead.
//!
//! Both are read strictly where it counts and leniently where others may add to them, as podman does.

use std::time::{Duration, SystemTime};

use deltaport_oci::Digest;

use super::json::{self, Fields, JsonError, Value};

/// The most bytes of a payload.
pub const MAX_PAYLOAD_LEN: usize = 64 << 10;
/// The most subjects of a statement.
pub const MAX_SUBJECTS: usize = 256;

/// The year 9999, in seconds since 1970.
const END_OF_TIME: u64 = 253_370_764_800;

/// What a payload has to call itself.
const SIMPLE_TYPE: &str = "cosign container image signature";
/// The statements of in-toto that are known. The first version is what cosign's first bundles have.
const STATEMENT_TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// What a statement says that is the signature of an image, and not its bill of materials or how it was built.
const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Why a payload says nothing that could be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The JSON is not what it has to be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// It is something else than the signature of an image.
    #[error("it is {found:?}, not {wanted:?}")]
    Type {
        /// What it calls itself.
        found: String,
        /// What it has to.
        wanted: &'static str,
    },
    /// The digest of what is signed is none.
    #[error("{0:?} is not a digest")]
    Digest(String),
    /// More than [`MAX_SUBJECTS`], or none.
    #[error("it has no subject, or more than {MAX_SUBJECTS}")]
    Subjects,
}

/// What was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Which manifests it is about, and what each one is called, if a name is given.
    pub(crate) subjects: Vec<(Digest, Option<String>)>,
    /// When the signer says that it was.
    pub(crate) time: Option<SystemTime>,
}

/// Reads a payload of simple signing.
pub(crate) fn simple(text: &[u8]) -> Result<Claim, PayloadError> {
    let mut fields = json::read(text, MAX_PAYLOAD_LEN)?.object("the payload")?;
    let mut critical = fields.object("critical")?;
    let optional = fields.need("optional")?;
    fields.end()?;

    let time = optional_time(optional)?;
    let kind = critical.string("type")?;
    let mut image = critical.object("image")?;
    let mut identity = critical.object("identity")?;
    critical.end()?;
    if kind != SIMPLE_TYPE {
        return Err(PayloadError::Type { found: kind, wanted: SIMPLE_TYPE });
    }
    let digest = image.string("docker-manifest-digest")?;
    image.end()?;
    let reference = identity.string("docker-reference")?;
    identity.end()?;
    let digest = digest.parse().map_err(|_| PayloadError::Digest(digest))?;
    Ok(Claim { subjects: vec![(digest, Some(reference))], time })
}

/// Reads `optional`: `null`, or an object in which two keys have a meaning and any other may be.
fn optional_time(optional: Value) -> Result<Option<SystemTime>, JsonError> {
    if optional == Value::Null {
        return Ok(None);
    }
    let mut fields = optional.object("optional")?;
    fields.optional_string("creator")?;
    let Some(timestamp) = fields.take("timestamp") else { return Ok(None) };
    let Value::Integer(seconds) = timestamp else {
        return Err(JsonError::Kind { key: "timestamp".to_owned(), wanted: "an integer" });
    };
    Ok(seconds_since_epoch(seconds))
}

/// Reads a statement of in-toto that cosign made.
pub(crate) fn statement(text: &[u8]) -> Result<Claim, PayloadError> {
    let mut fields = json::read(text, MAX_PAYLOAD_LEN)?.object("the statement")?;
    let kind = fields.string("_type")?;
    if !STATEMENT_TYPES.contains(&kind.as_str()) {
        return Err(PayloadError::Type { found: kind, wanted: STATEMENT_TYPES[0] });
    }
    let predicate = fields.string("predicateType")?;
    if predicate != SIGN_PREDICATE {
        return Err(PayloadError::Type { found: predicate, wanted: SIGN_PREDICATE });
    }
    let subjects = fields.need("subject")?.array("subject")?;
    // The first versions of cosign 3 leave the predicate out, later ones write an empty object.
    if let Some(predicate) = fields.take("predicate") {
        predicate.object("predicate")?;
    }
    fields.end()?;
    if subjects.is_empty() || subjects.len() > MAX_SUBJECTS {
        return Err(PayloadError::Subjects);
    }
    let subjects = subjects.into_iter().map(|subject| subject_of(subject.object("subject")?));
    Ok(Claim { subjects: subjects.collect::<Result<_, _>>()?, time: None })
}

/// Reads a ResourceDescriptor: by SHA-256, and by SHA-512 when that is all there is.
fn subject_of(mut fields: Fields) -> Result<(Digest, Option<String>), PayloadError> {
    let name = fields.optional_string("name")?.filter(|name| !name.is_empty());
    let mut digests = fields.object("digest")?;
    let (algorithm, hex) = match digests.optional_string("sha256")? {
        Some(hex) => ("sha256", hex),
        None => ("sha512", digests.string("sha512")?),
    };
    let digest = format!("{algorithm}:{hex}");
    Ok((digest.parse().map_err(|_| PayloadError::Digest(digest))?, name))
}

/// A time in seconds since 1970; none for a time before, and none that a calendar with four digits cannot show.
pub(crate) fn seconds_since_epoch(seconds: i64) -> Option<SystemTime> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds < END_OF_TIME)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
