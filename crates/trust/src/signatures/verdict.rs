//! Verdicts: accepted, by whom and when; or refused, and why.
//!
//! They are written as JSON in one way, whoever shows or keeps them: `{"accepted": true, "scope": …, "grounds": […]}` or
//! `{"accepted": false, "scope": …, "reason": {"code": …, "message": …}, "others": […]}`. Times are seconds since 1970.

use std::fmt;
use std::time::SystemTime;

use deltaport_oci::Digest;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::bundle::BundleError;
use super::certificate::CertificateError;
use super::document::{DocumentError, MAX_DOCUMENTS};
use super::judge::MAX_WORK;
use super::log::LogError;
use super::payload::PayloadError;
use super::policy::Scope;

/// What the policy says about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may enter.
    Accepted(Accepted),
    /// It may not.
    Refused(Refused),
}

impl Verdict {
    /// Whether the image may enter.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("accepted", &self.is_accepted())?;
        match self {
            Self::Accepted(Accepted { scope, grounds }) => {
                map.serialize_entry("scope", scope)?;
                map.serialize_entry("grounds", grounds)?;
            }
            Self::Refused(Refused { scope, reason, others }) => {
                map.serialize_entry("scope", scope)?;
                map.serialize_entry("reason", reason)?;
                map.serialize_entry("others", others)?;
            }
        }
        map.end()
    }
}

/// Why an image may enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The part of the policy that counted.
    pub scope: Scope,
    /// What met each of its requirements, in their order.
    pub grounds: Vec<Ground>,
}

/// What met a requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ground {
    /// `insecureAcceptAnything` wants nothing.
    Anything,
    /// A signature.
    Signature(Box<Signature>),
}

/// A signature that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// Whose.
    pub signer: Signer,
    /// Which manifest was signed: the image's, or an index that has it.
    pub digest: Digest,
    /// What the signature calls it, if it names it.
    pub name: Option<String>,
    /// When it was signed.
    pub time: Time,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Signer {
    /// The owner of a key of the policy.
    Key {
        /// SHA-256 of its SubjectPublicKeyInfo.
        key: Digest,
    },
    /// The owner of a certificate.
    Certificate {
        /// SHA-256 of the certificate.
        #[serde(rename = "certificate")]
        fingerprint: Digest,
        /// The address or host of the policy that it was issued for.
        subject: String,
    },
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { key } => write!(f, "key {key}"),
            Self::Certificate { fingerprint, subject } => write!(f, "{subject}, certificate {fingerprint}"),
        }
    }
}

/// When something was signed, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Time {
    /// A transparency log of the policy took the signature then.
    Logged(SystemTime),
    /// The signer says so.
    Claimed(SystemTime),
    /// Nothing says it.
    Unknown,
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, time) = match self {
            Self::Logged(time) => ("logged", time),
            Self::Claimed(time) => ("claimed", time),
            Self::Unknown => return serializer.serialize_none(),
        };
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        serializer.collect_map([(key, since.as_secs())])
    }
}

/// Why an image may not enter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{scope} of the policy refuses it: {reason}")]
pub struct Refused {
    /// The part of the policy that counted.
    pub scope: Scope,
    /// What was missing. Of several signatures, what was wrong with the one that came nearest.
    pub reason: Reason,
    /// What was wrong with the other signatures.
    pub others: Vec<Reason>,
}

/// What is wrong with an image or a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The policy wants it refused.
    #[error("the policy rejects every image in this scope")]
    Rejected,
    /// The requirement cannot be checked here.
    #[error(
        "{0} cannot be checked here; sign with cosign or with `podman push --sign-by-sigstore`, and ask for sigstoreSigned"
    )]
    Unsupported(&'static str),
    /// There is no signature.
    #[error("a signature is needed, and there is none")]
    Unsigned,
    /// There are more than [`MAX_DOCUMENTS`].
    #[error("there are {0} signatures; at most {MAX_DOCUMENTS} are looked at")]
    TooMany(usize),
    /// The signatures and the keys are too many for each to be tried.
    #[error(
        "the signatures would take too much work; at most {MAX_WORK} verifications are done for an image"
    )]
    TooMuchWork,
    /// A signature could not be had or read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A payload or a statement is not one.
    #[error("the signed payload: {0}")]
    Payload(#[from] PayloadError),
    /// A bundle is none.
    #[error("the bundle: {0}")]
    Bundle(#[from] BundleError),
    /// A payload comes without its signature.
    #[error(
        "the payload comes without the annotation dev.cosignproject.cosign/signature, or it is not base64"
    )]
    NoSignature,
    /// It is about another manifest: another image, or an earlier one of the same name.
    #[error("the signature is about another manifest, {0}")]
    OtherManifest(Digest),
    /// None of the keys made it: another did, or something was changed afterwards.
    #[error("the signature was not made with a key that the policy names, or it was changed afterwards")]
    WrongKey,
    /// The certificate's key did not make it.
    #[error("the signature was not made with the key of its certificate, or it was changed afterwards")]
    NotByCertificate,
    /// There is no certificate.
    #[error("the signature comes without a certificate, and the policy wants one")]
    NoCertificate,
    /// There is a certificate where a key was to sign.
    #[error("the bundle was signed with a certificate, and the policy wants a key")]
    NoKey,
    /// The certificate is not acceptable.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No transparency log vouches for it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// It gives the image another name than the policy wants.
    #[error("the signature is for {0:?}, which is not what the policy wants signed (signedIdentity)")]
    OtherName(String),
    /// It gives the image no name, so that nothing tells for which repository it was meant.
    #[error(
        "the signature does not say for which image it was made, as bundles of cosign do not; such signatures are \
         accepted only where that is configured"
    )]
    Nameless,
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("code", self.code()), ("message", &self.to_string())])
    }
}

impl Reason {
    /// A word for the reason that stays the same, for metrics and programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Unsupported(_) => "unsupported",
            Self::Unsigned => "unsigned",
            Self::TooMany(_) | Self::TooMuchWork => "too-many",
            Self::Document(_) => "document",
            Self::Payload(_) => "payload",
            Self::Bundle(_) => "bundle",
            Self::NoSignature => "no-signature",
            Self::OtherManifest(_) => "other-manifest",
            Self::WrongKey => "wrong-key",
            Self::NotByCertificate => "not-by-certificate",
            Self::NoCertificate => "no-certificate",
            Self::NoKey => "no-key",
            Self::Certificate(_) => "certificate",
            Self::Log(_) => "log",
            Self::OtherName(_) => "other-name",
            Self::Nameless => "nameless",
        }
    }

    /// How far a signature came before this was found: of several, the one that came furthest is the one that an
    /// operator wants to hear about.
    pub(crate) fn progress(&self) -> u8 {
        match self {
            Self::Rejected | Self::Unsupported(_) | Self::Unsigned | Self::TooMany(_) => 0,
            Self::Document(_) | Self::Payload(_) | Self::Bundle(_) | Self::NoSignature => 1,
            Self::OtherManifest(_) => 2,
            Self::NoCertificate | Self::NoKey | Self::TooMuchWork => 3,
            Self::WrongKey | Self::Log(_) | Self::Certificate(_) | Self::NotByCertificate => 4,
            Self::OtherName(_) | Self::Nameless => 5,
        }
    }
}
