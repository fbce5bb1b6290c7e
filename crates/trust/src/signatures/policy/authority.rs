//! Whose signatures a requirement accepts: keys, one's own public key infrastructure, or Fulcio's certificates.

use super::super::calendar::Period;
use super::super::certificate::Anchors;
use super::super::key::PublicKey;

/// Whose signatures count.
#[derive(Debug)]
pub(crate) enum Authority {
    /// The owners of these keys.
    Keys(Vec<PublicKey>),
    /// Somebody with a certificate of one's own infrastructure.
    Pki(Pki),
    /// Somebody with a short-lived certificate that Fulcio gave out.
    Fulcio(Fulcio),
}

/// `pki` of a requirement. At least one of the subjects is set, and every one that is has to be right.
#[derive(Debug)]
pub(crate) struct Pki {
    pub(crate) anchors: Anchors,
    pub(crate) email: Option<String>,
    pub(crate) hostname: Option<String>,
}

/// `fulcio` of a requirement.
#[derive(Debug)]
pub(crate) struct Fulcio {
    pub(crate) anchors: Anchors,
    pub(crate) issuer: String,
    pub(crate) email: String,
}

/// The key of a transparency log.
#[derive(Debug)]
pub(crate) struct LogKey {
    pub(crate) key: PublicKey,
    /// When the log used it, as far as that is told.
    pub(crate) period: Period,
}
