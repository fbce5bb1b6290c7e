//! What can go wrong when another registry is asked, cut by what the caller will do about it.

use std::sync::Arc;
use std::time::Duration;

use deltaport_oci::Digest;

/// A failed request: which upstream failed, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("upstream {upstream}: {kind}")]
pub struct Error {
    upstream: Arc<str>,
    kind: ErrorKind,
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The upstream refuses, with the credentials that it was given or without any. Asking again will not help.
    #[error("refused: {0}")]
    Denied(String),
    /// The answer is larger than it may be. It was given up at that point.
    #[error("{what} is larger than {limit} bytes")]
    Limit {
        /// What was too large.
        what: &'static str,
        /// How large it may be.
        limit: u64,
    },
    /// The content is not what its digest says. It must not be used.
    #[error("the content is {actual}, not {expected}")]
    Mismatch {
        /// What was asked for or announced.
        expected: Digest,
        /// What came; boxed, since errors travel by value and this is the largest of them.
        actual: Box<Digest>,
    },
    /// The upstream is reachable and does not have it.
    #[error("not found")]
    NotFound,
    /// The answer makes no sense, or asks for something that the rules of this crate forbid. A person has to look.
    #[error("{0}")]
    Protocol(String),
    /// It cannot be reached, is overloaded, or stopped in the middle. Asking again later may help.
    #[error("unavailable: {why}")]
    Unavailable {
        /// What happened.
        why: String,
        /// How long the upstream asked to be left alone.
        retry_after: Option<Duration>,
        /// Whether it turns us away because we ask too much (429), and would answer somebody else.
        quota: bool,
    },
}

impl Error {
    /// An error of `upstream`, named by its host.
    pub fn new(upstream: Arc<str>, kind: ErrorKind) -> Self {
        Self { upstream, kind }
    }

    /// What the caller can act on.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The host of the upstream that failed.
    pub fn upstream(&self) -> &str {
        &self.upstream
    }
}

impl ErrorKind {
    /// Something that may pass by itself, with nothing said about when.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable { why: why.into(), retry_after: None, quota: false }
    }

    pub(crate) fn protocol(why: impl Into<String>) -> Self {
        Self::Protocol(why.into())
    }
}
