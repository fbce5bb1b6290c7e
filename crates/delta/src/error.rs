//! What can go wrong, cut by what the caller will do about it.

use std::io;

/// Why there is no delta, or no blob made of one.
///
/// A delta is an optimisation: every one of these can be answered by sending the whole blob.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The given base is not the one that the delta was made from. Find the right base, or fetch the whole blob.
    #[error("not the base that the delta was made from: {0}")]
    BaseMismatch(&'static str),
    /// The delta or the token stream is damaged, or was written by something newer. Trying again will not help.
    #[error("malformed delta: {0}")]
    Format(&'static str),
    /// Reading or writing failed. Trying again may help.
    #[error("input or output failed: {0}")]
    Io(io::Error),
    /// Going on would cost more than the caller allowed.
    #[error("limit reached: {what} would be above {limit} bytes")]
    Limit {
        /// What would have been too large.
        what: &'static str,
        /// How large it may be.
        limit: u64,
    },
    /// A delta can be made but saves too little. Send the whole blob.
    #[error("not worth it: the delta would be above {allowed} bytes")]
    NotWorthIt {
        /// The largest size that would have been worth it.
        allowed: u64,
    },
    /// What the delta made is not its target. The output must be thrown away.
    #[error("the delta did not restore its target: {0}")]
    OutputMismatch(&'static str),
    /// The blob is not gzip, or gzip of a form that a token stream cannot say. Treat it as plain bytes.
    #[error("no token stream of this blob: {0}")]
    Unrepresentable(&'static str),
}

impl From<io::Error> for Error {
    /// Gives back an [`Error`] that travelled inside an [`io::Error`], and wraps any other.
    fn from(error: io::Error) -> Self {
        match error.downcast() {
            Ok(own) => own,
            Err(foreign) => Self::Io(foreign),
        }
    }
}

impl From<Error> for io::Error {
    /// Lets an error of this crate pass through the readers and writers of `std::io` without losing what it is.
    fn from(error: Error) -> Self {
        match error {
            Error::Io(foreign) => foreign,
            own => Self::other(own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_io() {
        let there_and_back = Error::from(io::Error::from(Error::Format("a reason")));
        assert!(matches!(there_and_back, Error::Format("a reason")), "{there_and_back:?}");
        let foreign = Error::from(io::Error::from(Error::Io(io::ErrorKind::StorageFull.into())));
        assert!(matches!(foreign, Error::Io(e) if e.kind() == io::ErrorKind::StorageFull));
    }
}
