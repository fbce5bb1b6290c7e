//! What happens when content is asked for that is not here: it is fetched from an upstream, if there is one.
//!
//! Content that is here by digest never needs the upstream. A tag does, since it may have moved; when the upstream
//! does not answer, the stored one is served. A blob is fetched once however many wait for it ([`blobs`]), as a delta
//! if there is one ([`delta`]), else whole ([`transfer`]).
//!
//! An upstream decides what a repository holds: bytes that are here because another repository has them are served
//! only after the upstream has said that it has them too.

mod blobs;
mod delta;
mod manifests;
mod transfer;

use std::sync::Arc;

use deltaport_client as client;
use deltaport_client::ErrorKind;
use deltaport_oci::manifest::ManifestError;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_store as store;
use tokio::sync::{OnceCell, Semaphore, watch};

use crate::flight::SingleFlight;
use crate::pull::Progress;
use crate::{Error, Manifest, Options};

/// How many blobs may be on their way or waiting for their turn.
const MAX_BLOBS: usize = 4096;
/// How many manifests may be on their way.
const MAX_MANIFESTS: usize = 1024;

/// What several callers get of one look at a manifest.
type Found = Arc<OnceCell<Result<Option<Arc<Manifest>>, Failure>>>;

/// What is being fetched.
#[derive(Debug)]
pub(crate) struct Fills {
    blobs: SingleFlight<(RepositoryName, Digest), watch::Receiver<Progress>>,
    manifests: SingleFlight<(RepositoryName, Reference), Found>,
    /// One permit for each blob that is fetched.
    fetching: Arc<Semaphore>,
    /// One permit for each delta that is applied.
    applying: Arc<Semaphore>,
}

impl Fills {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            blobs: SingleFlight::new(MAX_BLOBS),
            manifests: SingleFlight::new(MAX_MANIFESTS),
            fetching: Arc::new(Semaphore::new(options.fill.concurrent.max(1))),
            applying: Arc::new(Semaphore::new(options.delta.jobs.max(1))),
        }
    }
}

/// Why something could not be fetched; everybody who waited for it gets the same.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The upstream did not do its part.
    #[error(transparent)]
    Upstream(#[from] client::Error),
    /// What the upstream sent is not a manifest.
    #[error("upstream {upstream}: {error}")]
    Manifest {
        /// Its host.
        upstream: Box<str>,
        /// What is wrong.
        error: Arc<ManifestError>,
    },
    /// It took too long.
    #[error("upstream {0}: no answer in time")]
    Slow(Box<str>),
    /// It could not be stored, or is not what it should be.
    #[error("{0}")]
    Store(Arc<store::Error>),
    /// Too much is being fetched.
    #[error("too much is being fetched at once")]
    Busy,
}

impl Failure {
    /// Whether the upstream has answered that there is nothing for us. Clients are told that it does not exist, so
    /// that they ask elsewhere.
    fn is_absence(&self) -> bool {
        let kind = match self {
            Self::Upstream(error) => error.kind(),
            _ => return false,
        };
        matches!(kind, ErrorKind::NotFound | ErrorKind::Denied(_))
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let retry_after = match &failure {
            Failure::Upstream(error) => match error.kind() {
                ErrorKind::Unavailable { retry_after, .. } => *retry_after,
                _ => None,
            },
            Failure::Store(error) => match &**error {
                store::Error::NoSpace => return Self::NoSpace,
                // What came is not what was asked for: that is the upstream's fault.
                store::Error::Mismatch { .. } => None,
                _ => return Self::internal(failure),
            },
            Failure::Manifest { .. } | Failure::Slow(_) | Failure::Busy => None,
        };
        Self::Upstream { retry_after, cause: failure.into() }
    }
}
