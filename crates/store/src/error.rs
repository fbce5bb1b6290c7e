//! Why the store could not do something.

use std::io;
use std::path::PathBuf;

use deltaport_oci::Digest;

/// Why the store could not do something, cut by what the caller will do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not here (upload, repository): answer 404.
    #[error("not found")]
    NotFound,
    /// The bytes do not have the digest that was announced: the sender's fault; nothing was kept of them.
    #[error("the content is {actual}, not {expected}")]
    Mismatch {
        /// Announced.
        expected: Digest,
        /// Computed.
        actual: Digest,
    },
    /// A chunk does not begin where the upload ends: the sender asks for the offset and goes on there.
    #[error("the upload continues at byte {offset}")]
    OutOfOrder {
        /// Where it continues.
        offset: u64,
    },
    /// Somebody else is writing to this upload right now.
    #[error("another request is writing to this upload")]
    Busy,
    /// The caller has too many uploads open.
    #[error("too many uploads are open; finish or cancel one")]
    TooManyUploads,
    /// A manifest refers to things that are not in the repository.
    #[error("the manifest refers to {} that are not in the repository", .0.len())]
    Missing(Vec<Digest>),
    /// The disk is full, or would leave less than [`Options::keep_free`](crate::Options::keep_free).
    #[error("not enough disk space")]
    NoSpace,
    /// Another process, or another store of this one, has the directory or the database open.
    #[error("{} is in use by process {owner}; stop it, or choose another place", path.display())]
    InUse {
        /// The directory, or the database.
        path: PathBuf,
        /// The process, as it has said itself.
        owner: String,
    },
    /// The directory cannot be opened as a store as it is; the text says what the operator can do.
    #[error("{0}")]
    Unusable(String),
    /// The database or the bucket that others run cannot be reached, or cannot do now what it was asked: nothing was done
    /// that is visible, unless the text says that this is not known, and the same may be asked again in a while.
    #[error("{what} cannot be used now: {why}")]
    Unavailable {
        /// Which of them.
        what: &'static str,
        /// What happened, for the log.
        why: String,
    },
    /// Bytes on disk are not what they were.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The disk or the database failed.
    #[error("storage: {0}")]
    Io(#[source] io::Error),
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What every operation fails with after the store was closed.
    pub(crate) fn closed() -> Self {
        Self::Io(io::Error::other("the store is closed"))
    }

    /// `what`, which others run, cannot be used now.
    pub(crate) fn unavailable(what: &'static str, why: impl Into<String>) -> Self {
        Self::Unavailable { what, why: why.into() }
    }

    /// The same failure for another of those whom it concerns: everybody in a group commit, say.
    pub(crate) fn share(&self) -> Self {
        match self {
            Self::NotFound => Self::NotFound,
            Self::Mismatch { expected, actual } => Self::Mismatch { expected: *expected, actual: *actual },
            Self::OutOfOrder { offset } => Self::OutOfOrder { offset: *offset },
            Self::Busy => Self::Busy,
            Self::TooManyUploads => Self::TooManyUploads,
            Self::Missing(digests) => Self::Missing(digests.clone()),
            Self::NoSpace => Self::NoSpace,
            Self::InUse { path, owner } => Self::InUse { path: path.clone(), owner: owner.clone() },
            Self::Unusable(text) => Self::Unusable(text.clone()),
            Self::Unavailable { what, why } => Self::Unavailable { what, why: why.clone() },
            Self::Corrupt(text) => Self::Corrupt(text.clone()),
            Self::Io(error) => Self::Io(share_io(error)),
        }
    }
}

/// A second error that says the same as `error`; `io::Error` itself cannot be cloned.
pub(crate) fn share_io(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io(error),
        }
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        if let rusqlite::Error::InvalidColumnType(..) = error {
            return Self::Corrupt(format!("names.db: {error}"));
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::NoSpace,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(format!("names.db: {error}"))
            }
            _ => Self::Io(io::Error::other(error)),
        }
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Io(io::Error::other(error))
    }
}
