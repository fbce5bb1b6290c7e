//! What can go wrong with a request to the service, cut by what follows.

use std::error::Error as StdError;
use std::io;

use crate::error::Error;

/// Why a request to the service failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// There is no such object, or no such upload in parts, or not such a part.
    #[error("it is not there")]
    Gone,
    /// What is there is not what was stored.
    #[error("{0}")]
    Wrong(String),
    /// The service does not answer, or says that it cannot now, also after the request was repeated.
    #[error("{0}")]
    Away(String),
    /// It does not do what it is asked: wrong credentials, region, name or rights.
    #[error("{text}")]
    Refused {
        /// The code in its answer, for instance `AccessDenied`.
        code: String,
        /// Everything that is known.
        text: String,
    },
    /// Something on this side.
    #[error(transparent)]
    Here(#[from] io::Error),
}

impl Fault {
    /// What something on this side failed with.
    pub(crate) fn here(error: Error) -> Self {
        Self::Here(io::Error::other(error))
    }

    /// What reading an object failed with.
    pub(crate) fn from_reading(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Here)
    }
}

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        let text = in_full(&error);
        match (&error, code(&text)) {
            // A wrong name of the bucket is not an object that is gone.
            (_, Some(code @ "NoSuchBucket")) => Self::Refused { code: code.to_owned(), text },
            // A part that another has put in the place of ours is gone, too.
            (E::NotFound { .. }, _) | (_, Some("NoSuchKey" | "NoSuchUpload" | "InvalidPart")) => Self::Gone,
            (E::PermissionDenied { .. } | E::Unauthenticated { .. }, code) => {
                Self::Refused { code: code.unwrap_or("AccessDenied").to_owned(), text }
            }
            (_, Some(code)) if !passes(code) => Self::Refused { code: code.to_owned(), text },
            _ => Self::Away(text),
        }
    }
}

/// Whether what a code says may be otherwise in a while.
fn passes(code: &str) -> bool {
    matches!(
        code,
        "InternalError"
            | "SlowDown"
            | "ServiceUnavailable"
            | "Busy"
            | "RequestTimeout"
            | "OperationAborted"
            | "TooManyRequests"
            | "IncompleteBody"
    )
}

/// The code in the answer of a service.
fn code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code.trim())
}

/// An error with everything that led to it.
fn in_full(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Gone => Self::Corrupt("an object of the bucket is gone; run fsck".to_owned()),
            Fault::Wrong(text) => Self::Corrupt(text),
            Fault::Away(text) => Self::unavailable("the bucket", text),
            // The settings may be put right while clients wait.
            Fault::Refused { text, .. } => Self::unavailable("the bucket", text),
            Fault::Here(error) => error.downcast::<Self>().unwrap_or_else(Self::from),
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Here(error) => error,
            Fault::Gone => Self::new(io::ErrorKind::NotFound, fault),
            Fault::Wrong(_) => Self::new(io::ErrorKind::InvalidData, fault),
            Fault::Away(_) | Fault::Refused { .. } => Self::other(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn a_fault_is_what_the_service_says() {
        let answer =
            |code: &str| format!("Server returned non-2xx status code: <Error><Code>{code}</Code></Error>");
        let fault = |code: &str| Fault::from(generic(&answer(code)));
        assert!(matches!(fault("NoSuchUpload"), Fault::Gone));
        assert!(matches!(fault("InvalidPart"), Fault::Gone));
        assert!(matches!(fault("SlowDown"), Fault::Away(_)));
        assert!(
            matches!(fault("AuthorizationHeaderMalformed"), Fault::Refused { code, .. } if code.starts_with("Auth"))
        );
        assert!(matches!(Fault::from(generic("connection reset")), Fault::Away(_)));
        let gone = |text: String| object_store::Error::NotFound { path: "p".to_owned(), source: text.into() };
        assert!(matches!(Fault::from(gone(answer("NoSuchKey"))), Fault::Gone));
        assert!(matches!(Fault::from(gone(answer("NoSuchBucket"))), Fault::Refused { .. }));
    }
}
