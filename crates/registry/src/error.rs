//! Why the registry could not do something.

use std::sync::Arc;
use std::time::Duration;

use deltaport_oci::manifest::ManifestError;
use deltaport_oci::platform::NothingMatches;
use deltaport_oci::{Digest, ErrorCode, Reference, RepositoryName};
use deltaport_store as store;
use serde_json::{Value, json};

use crate::fill::Failure;
use crate::gate::Refusal;
use crate::image::Absent;

/// Why the registry could not do something. What [`Display`](std::fmt::Display) says may be shown to clients.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The rules do not grant it, whether the thing exists or not.
    #[error("access to this resource is not granted")]
    Denied,
    /// The blob is not in the repository.
    #[error("the blob is not in this repository")]
    BlobUnknown(Digest),
    /// The manifest is not in the repository.
    #[error("there is no such manifest in this repository")]
    ManifestUnknown(Reference),
    /// An index of the repository names it, but it is not here and cannot be had.
    #[error("{0}")]
    Absent(Box<Absent>),
    /// The index has nothing for the platforms that were asked for.
    #[error(transparent)]
    NothingMatches(Box<NothingMatches>),
    /// The policy does not accept it.
    #[error("{0}")]
    Refused(Arc<Refusal>),
    /// It is one image, and not an index of several.
    #[error("this is one image and not an index; it cannot be here in part")]
    NotAnIndex,
    /// The image consists of too many manifests to be looked at as a whole.
    #[error("the image consists of more than {limit} manifests")]
    TooManyManifests {
        /// How many are looked at.
        limit: usize,
    },
    /// The repository does not exist.
    #[error("there is no such repository")]
    NameUnknown(RepositoryName),
    /// There is no such mirror rule for the repository, or no such run of it any more.
    #[error("there is no mirror rule {0} for this repository, or no such run of it any more")]
    MirrorUnknown(Box<str>),
    /// The upload does not exist, has ended, or belongs to another caller.
    #[error("there is no such upload; it may have ended or expired, begin another one")]
    UploadUnknown,
    /// The bytes do not have the digest that was announced. Nothing of them was kept.
    #[error("the content has the digest {actual}, not {expected}; nothing was kept")]
    DigestMismatch {
        /// Announced.
        expected: Digest,
        /// Computed.
        actual: Digest,
    },
    /// A chunk does not begin where the upload ends.
    #[error("the next chunk has to begin at byte {offset}")]
    OutOfOrder {
        /// Where the upload ends.
        offset: u64,
    },
    /// More or fewer bytes arrived than were announced.
    #[error("{expected} bytes were announced and {actual} sent")]
    Size {
        /// Announced, in bytes.
        expected: u64,
        /// Received, in bytes; at least this many when there were too many.
        actual: u64,
    },
    /// Another request is writing to the upload.
    #[error("another request is writing to this upload; wait for it to end")]
    UploadBusy,
    /// The caller has too many uploads open.
    #[error("too many uploads are open; finish or cancel one of the {limit}")]
    TooManyUploads {
        /// How many may be open.
        limit: usize,
    },
    /// The bytes are not a manifest that is stored here.
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    /// The manifest refers to things that are not in the repository.
    #[error("the manifest refers to content that is not in this repository; push it first")]
    MissingReferences(Vec<Digest>),
    /// The manifest is too large.
    #[error("a manifest may have at most {limit} bytes")]
    ManifestTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The blob is too large.
    #[error("a blob may have at most {limit} bytes")]
    BlobTooLarge {
        /// In bytes.
        limit: u64,
    },
    /// One push sets too many tags.
    #[error("one push may set at most {limit} tags")]
    TooManyTags {
        /// How many it may set.
        limit: usize,
    },
    /// The repository shows what another registry holds, and cannot be pushed to.
    #[error("this repository mirrors {host} and cannot be pushed to; push to {host} instead")]
    Mirror {
        /// The registry that it mirrors.
        host: Box<str>,
    },
    /// The disk is full.
    #[error("there is not enough disk space to store this; try again later")]
    NoSpace,
    /// Another registry that this one depends on did not do its part.
    #[error("the upstream registry cannot be reached or did not answer; try again later")]
    Upstream {
        /// When to try again, if that is known.
        retry_after: Option<Duration>,
        /// What happened, for the log.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another registry that this one depends on wants no more requests from here for now.
    #[error("the upstream registry takes no more requests from here for now; try again later")]
    OverQuota {
        /// When to try again.
        retry_after: Duration,
    },
    /// The database or the bucket that everything is kept in cannot be used now.
    #[error("what this registry keeps its content in cannot be used now; try again soon")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The fault is ours; the cause is for the log.
    #[error("the registry could not complete the request; its log says why")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of error it is, cut by what the asking end will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It is not here.
    NotFound,
    /// Not allowed; for the nameless: not without logging in.
    Denied,
    /// Not allowed to anybody: the policy refuses it.
    Refused,
    /// The request is wrong, and would be wrong again.
    Invalid,
    /// The chunk does not continue the upload.
    OutOfOrder,
    /// Collides with another request.
    Conflict,
    /// Too many at once.
    TooMany,
    /// Not offered here.
    Unsupported,
    /// More bytes than are taken.
    TooLarge,
    /// A longer list in the request than is taken.
    TooLong,
    /// The disk is full.
    NoSpace,
    /// Another registry failed.
    Upstream,
    /// Another registry wants to be left alone for a while.
    OverQuota,
    /// What content is kept in cannot be used now.
    Unavailable,
    /// The fault is ours.
    Internal,
}

impl Error {
    /// What kind of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Denied => Kind::Denied,
            Self::Refused(_) => Kind::Refused,
            Self::Absent(_)
            | Self::BlobUnknown(_)
            | Self::ManifestUnknown(_)
            | Self::MirrorUnknown(_)
            | Self::NameUnknown(_)
            | Self::UploadUnknown => Kind::NotFound,
            Self::DigestMismatch { .. }
            | Self::Size { .. }
            | Self::ManifestInvalid(_)
            | Self::NothingMatches(_)
            | Self::NotAnIndex
            | Self::TooManyManifests { .. }
            | Self::MissingReferences(_) => Kind::Invalid,
            Self::OutOfOrder { .. } => Kind::OutOfOrder,
            Self::UploadBusy => Kind::Conflict,
            Self::TooManyUploads { .. } => Kind::TooMany,
            Self::ManifestTooLarge { .. } | Self::BlobTooLarge { .. } => Kind::TooLarge,
            Self::TooManyTags { .. } => Kind::TooLong,
            Self::Mirror { .. } => Kind::Unsupported,
            Self::NoSpace => Kind::NoSpace,
            Self::Upstream { .. } => Kind::Upstream,
            Self::OverQuota { .. } => Kind::OverQuota,
            Self::Unavailable(_) => Kind::Unavailable,
            Self::Internal(_) => Kind::Internal,
        }
    }

    /// The code of the specification that says it best.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Denied | Self::Refused(_) => ErrorCode::Denied,
            Self::Absent(absent) if absent.blob => ErrorCode::BlobUnknown,
            Self::Absent(_) => ErrorCode::ManifestUnknown,
            Self::BlobUnknown(_) => ErrorCode::BlobUnknown,
            Self::ManifestUnknown(_) => ErrorCode::ManifestUnknown,
            Self::MirrorUnknown(_) | Self::NameUnknown(_) => ErrorCode::NameUnknown,
            Self::UploadUnknown => ErrorCode::BlobUploadUnknown,
            Self::DigestMismatch { .. } => ErrorCode::DigestInvalid,
            Self::OutOfOrder { .. } | Self::UploadBusy => ErrorCode::BlobUploadInvalid,
            Self::Size { .. } | Self::BlobTooLarge { .. } => ErrorCode::SizeInvalid,
            Self::ManifestInvalid(_) | Self::ManifestTooLarge { .. } | Self::TooManyTags { .. } => {
                ErrorCode::ManifestInvalid
            }
            Self::MissingReferences(_) => ErrorCode::ManifestBlobUnknown,
            Self::TooManyUploads { .. } => ErrorCode::TooManyRequests,
            Self::Mirror { .. }
            | Self::NothingMatches(_)
            | Self::NotAnIndex
            | Self::TooManyManifests { .. } => ErrorCode::Unsupported,
            Self::NoSpace | Self::Upstream { .. } | Self::OverQuota { .. } | Self::Unavailable(_) => {
                ErrorCode::Unavailable
            }
            Self::Internal(_) => ErrorCode::Unknown,
        }
    }

    /// Facts for programs, beside the sentence for people.
    pub fn detail(&self) -> Option<Value> {
        match self {
            Self::Absent(absent) => Some(absent.detail()),
            Self::Refused(refusal) => Some(refusal.detail()),
            Self::BlobUnknown(digest) => Some(json!({ "digest": digest })),
            Self::ManifestUnknown(reference) => Some(json!({ "reference": reference.to_string() })),
            Self::NameUnknown(name) => Some(json!({ "name": name })),
            Self::MirrorUnknown(rule) => Some(json!({ "rule": rule })),
            Self::DigestMismatch { expected, actual } => {
                Some(json!({ "expected": expected, "actual": actual }))
            }
            Self::OutOfOrder { offset } => Some(json!({ "offset": offset })),
            Self::MissingReferences(digests) => Some(json!({ "digests": digests })),
            Self::TooManyUploads { limit }
            | Self::ManifestTooLarge { limit }
            | Self::TooManyManifests { limit }
            | Self::TooManyTags { limit } => Some(json!({ "limit": limit })),
            Self::BlobTooLarge { limit } => Some(json!({ "limit": limit })),
            Self::Denied
            | Self::NothingMatches(_)
            | Self::NotAnIndex
            | Self::UploadUnknown
            | Self::Size { .. }
            | Self::UploadBusy
            | Self::ManifestInvalid(_)
            | Self::Mirror { .. }
            | Self::NoSpace
            | Self::Upstream { .. }
            | Self::OverQuota { .. }
            | Self::Unavailable(_)
            | Self::Internal(_) => None,
        }
    }

    /// Whether the upstream could not be asked, or did not answer.
    pub(crate) fn is_offline(&self) -> bool {
        let Self::Upstream { cause, .. } = self else { return false };
        cause.downcast_ref::<Failure>().is_some_and(Failure::is_offline)
    }

    /// Wraps an error that no client can do anything about.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }
}

/// What has a meaning of its own wherever it appears. "Not found" and "too many uploads" get theirs where the thing is
/// known; here they would be a surprise, and so are ours.
impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Mismatch { expected, actual } => Self::DigestMismatch { expected, actual },
            store::Error::OutOfOrder { offset } => Self::OutOfOrder { offset },
            store::Error::Busy => Self::UploadBusy,
            store::Error::Missing(digests) => Self::MissingReferences(digests),
            store::Error::NoSpace => Self::NoSpace,
            away @ store::Error::Unavailable { .. } => Self::Unavailable(away.into()),
            other => Self::internal(other),
        }
    }
}
