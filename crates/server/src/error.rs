//! The one table of what clients are told about failures.
//!
//! A client sees a status, a code of the specification, a sentence and at most a few facts. Everything else about a
//! failure goes to the log, here.

use std::error::Error as _;
use std::time::Duration;

use deltaport_oci::wire::{ContentRangeError, RouteError};
use deltaport_oci::{DigestError, ErrorCode, NameError};
use deltaport_registry as registry;
use deltaport_registry::Kind;
use http::header::{ALLOW, CONTENT_RANGE, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Content;
use crate::identity::Unidentified;
use crate::respond::Answer;

/// What nameless callers are asked for.
const CHALLENGE: &str = "Basic realm=\"deltaport\", charset=\"UTF-8\"";

/// When to come back when the database or the bucket cannot be used, in seconds.
const AWAY_RETRY: u64 = 5;
/// When to come back after "too many", in seconds.
const TOO_MANY_RETRY: u64 = 5;

/// Why a request is not answered with what it asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The registry says so.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The path has no meaning.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Nobody is logged in, and it is not for everybody.
    #[error("log in first: this needs a user and a password")]
    LogIn,
    /// User or password are wrong.
    #[error("the user or the password is wrong")]
    NotKnown,
    /// The token is wrong, or no longer right.
    #[error("the token is not valid, or no longer")]
    Token,
    /// The token is for something else, and another one would do.
    #[error("the token is not for this")]
    Scope,
    /// Too many passwords were wrong.
    #[error("too many wrong passwords; try again in {} seconds", seconds(*.0))]
    Throttled(Duration),
    /// A request for a token makes no sense.
    #[error("{0}")]
    TokenRequest(&'static str),
    /// Too many passwords wait to be checked.
    #[error("too many log-ins at once; try again in a few seconds")]
    TooManyLogIns,
    /// Not a method of this path.
    #[error("this path does not support that method; it supports {0}")]
    Method(&'static str),
    /// A digest in the query does not parse.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A tag in the query does not parse.
    #[error(transparent)]
    Tag(NameError),
    /// The range of a chunk does not parse.
    #[error(transparent)]
    ContentRange(#[from] ContentRangeError),
    /// Another parameter of the query is missing or wrong.
    #[error("{0}")]
    Query(&'static str),
    /// Nothing of the range that is asked for exists.
    #[error("the content has {size} bytes; the range that was asked for lies outside")]
    Range {
        /// In bytes.
        size: u64,
    },
    /// A chunk does not continue the upload.
    #[error("{error}")]
    OutOfOrder {
        /// What the registry says.
        error: registry::Error,
        /// Where the upload is, and how far.
        at: Box<Position>,
    },
    /// The body did not arrive to its end.
    #[error("the request ended before its body was complete")]
    Interrupted,
}

/// Where an upload goes on.
#[derive(Debug)]
pub(crate) struct Position {
    pub(crate) location: String,
    /// What is there of it, as the `Range` header says it.
    pub(crate) range: String,
}

impl Failure {
    /// The table.
    fn status_and_code(&self) -> (StatusCode, ErrorCode) {
        match self {
            Self::Registry(error) | Self::OutOfOrder { error, .. } => (status(error.kind()), error.code()),
            Self::Route(RouteError::Digest(_)) | Self::Digest(_) => {
                (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
            }
            Self::Route(RouteError::Name(_)) => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
            Self::Route(RouteError::Reference(NameError::Digest(_))) => {
                (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
            }
            Self::Route(RouteError::Reference(_)) | Self::Tag(_) => {
                (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid)
            }
            Self::Route(_) => (StatusCode::NOT_FOUND, ErrorCode::Unsupported),
            Self::LogIn | Self::NotKnown | Self::Token | Self::Scope => {
                (StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized)
            }
            Self::TokenRequest(_) => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
            Self::TooManyLogIns | Self::Throttled(_) => {
                (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests)
            }
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
            Self::ContentRange(_) | Self::Interrupted => {
                (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid)
            }
            Self::Query(_) => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
            Self::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid),
        }
    }

    fn detail(&self) -> Option<Value> {
        match self {
            Self::Registry(error) | Self::OutOfOrder { error, .. } => error.detail(),
            _ => None,
        }
    }

    /// What a challenge says about the token that came along (RFC 6750, section 3.1).
    pub(crate) fn token_error(&self) -> Option<&'static str> {
        match self {
            Self::Token => Some("invalid_token"),
            Self::Scope => Some("insufficient_scope"),
            _ => None,
        }
    }

    /// Whether it is the credentials that something is wrong with.
    pub(crate) fn is_about_credentials(&self) -> bool {
        matches!(self, Self::NotKnown | Self::Token | Self::Throttled(_) | Self::TooManyLogIns)
    }

    /// Whether content is refused for what it is, and not for who asks.
    pub(crate) fn is_about_content(&self) -> bool {
        matches!(self, Self::Registry(registry::Error::Refused(_)))
    }

    /// The code on the wire.
    pub(crate) fn code(&self) -> &'static str {
        self.status_and_code().1.as_str()
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response<Content> {
        let (status, code) = self.status_and_code();
        self.log(status);
        let mut error = json!({ "code": code.as_str(), "message": self.to_string() });
        if let (Some(detail), Some(error)) = (self.detail(), error.as_object_mut()) {
            error.insert("detail".to_owned(), detail);
        }
        let answer = Answer::new(status).json("application/json", &json!({ "errors": [error] }));
        let answer = match self {
            Self::LogIn | Self::NotKnown | Self::Token | Self::Scope => {
                answer.header(WWW_AUTHENTICATE, CHALLENGE)
            }
            Self::Throttled(wait) => answer.header(RETRY_AFTER, seconds(wait).to_string()),
            Self::Method(allow) => answer.header(ALLOW, allow),
            // A mirror can be read in every way, whatever the path is.
            Self::Registry(registry::Error::Mirror { .. }) => answer.header(ALLOW, "GET, HEAD"),
            Self::Range { size } => answer.header(CONTENT_RANGE, format!("bytes */{size}")),
            Self::OutOfOrder { at, .. } => answer.location(at.location).header(RANGE, at.range),
            Self::TooManyLogIns | Self::Registry(registry::Error::TooManyUploads { .. }) => {
                answer.header(RETRY_AFTER, TOO_MANY_RETRY.to_string())
            }
            Self::Registry(
                registry::Error::Upstream { retry_after: Some(after), .. }
                | registry::Error::OverQuota { retry_after: after },
            ) => answer.header(RETRY_AFTER, after.as_secs().max(1).to_string()),
            Self::Registry(registry::Error::Unavailable(_)) => {
                answer.header(RETRY_AFTER, AWAY_RETRY.to_string())
            }
            _ => answer,
        };
        answer.into_response()
    }

    /// What clients are not told.
    fn log(&self, status: StatusCode) {
        let Self::Registry(error) = self else { return };
        if status.is_server_error() {
            let cause = error.source().map(chain).unwrap_or_default();
            tracing::error!(%error, cause, "a request failed");
        }
    }
}

impl From<Unidentified> for Failure {
    fn from(unidentified: Unidentified) -> Self {
        match unidentified {
            Unidentified::NotKnown => Self::NotKnown,
            Unidentified::Token => Self::Token,
            Unidentified::Throttled(wait) => Self::Throttled(wait),
            Unidentified::TooMany => Self::TooManyLogIns,
        }
    }
}

fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Denied | Kind::Refused => StatusCode::FORBIDDEN,
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::OutOfOrder => StatusCode::RANGE_NOT_SATISFIABLE,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::TooLong => StatusCode::URI_TOO_LONG,
        Kind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Kind::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Upstream => StatusCode::BAD_GATEWAY,
        // Never 429: containerd then asks again at once, and the quota is not the client's.
        Kind::OverQuota | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Whole seconds, at least one.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use deltaport_oci::Digest;
    use deltaport_registry::image::{Absent, Reason};
    use deltaport_registry::{Error, Refusal};

    use super::*;

    /// A failure, and its status, code and headers.
    type Row = (Failure, u16, ErrorCode, &'static [(&'static str, &'static str)]);

    /// Status, code and the headers beside content type and length.
    fn answer(failure: impl Into<Failure>) -> (u16, ErrorCode, Vec<(String, String)>) {
        let failure = failure.into();
        let (_, code) = failure.status_and_code();
        let response = failure.into_response();
        let headers = response.headers().iter().filter(|(name, _)| !name.as_str().starts_with("content-t"));
        let headers = headers.filter(|(name, _)| *name != "content-length");
        let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
        let headers = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
        (response.status().as_u16(), code, headers)
    }

    #[test]
    fn the_table() {
        let digest = Digest::sha256(b"");
        let broken = || Box::<dyn std::error::Error + Send + Sync>::from("secret");
        let upstream = |seconds: Option<u64>| Error::Upstream {
            retry_after: seconds.map(Duration::from_secs),
            cause: broken(),
        };
        let none = &[];
        let absent =
            |blob| Error::Absent(Box::new(Absent { digest, blob, platform: None, reason: Reason::ByPolicy }));
        let refused = Error::Refused(Arc::new(Refusal {
            name: "a.example/b:1".to_owned(),
            digest,
            blob: false,
            pushed: true,
            scope: "default".to_owned(),
            code: "unsigned".to_owned(),
            why: "there is none".to_owned(),
        }));
        let failures: [Row; 33] = [
            (Error::Denied.into(), 403, ErrorCode::Denied, none),
            (Failure::LogIn, 401, ErrorCode::Unauthorized, &[("www-authenticate", CHALLENGE)]),
            (Failure::NotKnown, 401, ErrorCode::Unauthorized, &[("www-authenticate", CHALLENGE)]),
            (Failure::Token, 401, ErrorCode::Unauthorized, &[("www-authenticate", CHALLENGE)]),
            (Failure::Scope, 401, ErrorCode::Unauthorized, &[("www-authenticate", CHALLENGE)]),
            (
                Failure::Throttled(Duration::from_millis(5500)),
                429,
                ErrorCode::TooManyRequests,
                &[("retry-after", "6")],
            ),
            (Failure::TokenRequest(""), 400, ErrorCode::Unsupported, none),
            (Failure::TooManyLogIns, 429, ErrorCode::TooManyRequests, &[("retry-after", "5")]),
            (Failure::Method("GET"), 405, ErrorCode::Unsupported, &[("allow", "GET")]),
            (Failure::Range { size: 7 }, 416, ErrorCode::SizeInvalid, &[("content-range", "bytes */7")]),
            (Failure::Query(""), 400, ErrorCode::Unsupported, none),
            (Failure::Interrupted, 400, ErrorCode::BlobUploadInvalid, none),
            (refused.into(), 403, ErrorCode::Denied, none),
            (Error::BlobUnknown(digest).into(), 404, ErrorCode::BlobUnknown, none),
            (absent(false).into(), 404, ErrorCode::ManifestUnknown, none),
            (absent(true).into(), 404, ErrorCode::BlobUnknown, none),
            (Error::NotAnIndex.into(), 400, ErrorCode::Unsupported, none),
            (Error::TooManyManifests { limit: 1 }.into(), 400, ErrorCode::Unsupported, none),
            (Error::UploadUnknown.into(), 404, ErrorCode::BlobUploadUnknown, none),
            (
                Error::DigestMismatch { expected: digest, actual: digest }.into(),
                400,
                ErrorCode::DigestInvalid,
                none,
            ),
            (Error::OutOfOrder { offset: 1 }.into(), 416, ErrorCode::BlobUploadInvalid, none),
            (Error::UploadBusy.into(), 409, ErrorCode::BlobUploadInvalid, none),
            (Error::MissingReferences(vec![]).into(), 400, ErrorCode::ManifestBlobUnknown, none),
            (Error::ManifestTooLarge { limit: 1 }.into(), 413, ErrorCode::ManifestInvalid, none),
            (Error::TooManyTags { limit: 1 }.into(), 414, ErrorCode::ManifestInvalid, none),
            (
                Error::TooManyUploads { limit: 1 }.into(),
                429,
                ErrorCode::TooManyRequests,
                &[("retry-after", "5")],
            ),
            (
                Error::Mirror { host: "hub".into() }.into(),
                405,
                ErrorCode::Unsupported,
                &[("allow", "GET, HEAD")],
            ),
            (Error::NoSpace.into(), 507, ErrorCode::Unavailable, none),
            (upstream(None).into(), 502, ErrorCode::Unavailable, none),
            (upstream(Some(0)).into(), 502, ErrorCode::Unavailable, &[("retry-after", "1")]),
            (
                Error::OverQuota { retry_after: Duration::from_secs(30) }.into(),
                503,
                ErrorCode::Unavailable,
                &[("retry-after", "30")],
            ),
            (Error::Unavailable(broken()).into(), 503, ErrorCode::Unavailable, &[("retry-after", "5")]),
            (Error::internal(broken()).into(), 500, ErrorCode::Unknown, none),
        ];
        for (failure, status, code, headers) in failures {
            let shown = format!("{failure:?}");
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(answer(failure), (status, code, headers), "{shown}");
        }
    }

    #[test]
    fn causes_are_for_the_log() {
        let response = Failure::from(Error::internal("/secret/path")).into_response();
        let Content::Whole(body) = response.body() else { panic!("an error without a body") };
        assert!(!String::from_utf8_lossy(body).contains("secret"));
    }
}
