//! What happens when content is asked for that is not here: it is fetched from an upstream, if there is one.
//!
//! Content that is here by digest never needs the upstream. A tag does, since it may have moved; how often, and what is
//! served when the upstream does not answer, is said by [`tags`]. A blob is fetched once however many wait for it ([`blobs`]), as a delta
//! if there is one ([`delta`], [`published`], [`arrival`], [`apply`]) and it is sooner ([`speed`]), else whole ([`transfer`]). All transfers share
//! one link ([`link`]), and those of an image begin when its manifest is asked for ([`ahead`]).
//!
//! An upstream decides what a repository holds: bytes that are here because another repository has them are served
//! only after the upstream has said that it has them too.

mod ahead;
mod apply;
mod arrival;
mod blobs;
mod delta;
mod foresee;
mod link;
mod manifests;
mod pace;
mod published;
mod questions;
mod speed;
mod tags;
mod transfer;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use deltaport_client as client;
use deltaport_client::ErrorKind;
use deltaport_oci::manifest::ManifestError;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_store as store;
use deltaport_store::Blob;
use tokio::sync::{Semaphore, watch};

use crate::flight::SingleFlight;
use crate::gate::Refusal;
use crate::memory::Memory;
use crate::upstream::{Ask, Sated, Source};
use crate::{Error, Options};

use blobs::Following;
use manifests::Looked;
use published::Publications;
use questions::Questions;
use tags::{Absence, Answers};

pub(crate) use link::{Cap, Claim, Link, Terms};
pub(crate) use speed::Meter;

/// How many blobs may be on their way or waiting for their turn.
const MAX_BLOBS: usize = 4096;
/// How many manifests may be on their way.
const MAX_MANIFESTS: usize = 1024;

/// When to come back to an upstream that has had enough requests and does not say for how long.
const OVER_QUOTA_RETRY: Duration = Duration::from_secs(60);

/// What is being fetched.
#[derive(Debug)]
pub(crate) struct Fills {
    blobs: SingleFlight<(RepositoryName, Digest), Following>,
    manifests: SingleFlight<(RepositoryName, Reference), watch::Receiver<Looked>>,
    /// What upstreams have said about what there is.
    answers: Answers,
    /// What all transfers share.
    pub(crate) link: Link,
    /// Questions that are about to be asked.
    questions: Questions,
    /// One permit for each delta that is applied.
    applying: Arc<Semaphore>,
    /// How many bytes of layers are made of deltas.
    applied: Meter,
    /// What has been published beside images.
    publications: Publications,
    /// Images of which everything is here.
    complete: Memory<(RepositoryName, Digest), ()>,
}

impl Fills {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            blobs: SingleFlight::new(MAX_BLOBS),
            manifests: SingleFlight::new(MAX_MANIFESTS),
            answers: Answers::new(),
            link: Link::new(options.fill.concurrent, options.fill.bandwidth),
            questions: Questions::default(),
            applying: Arc::new(Semaphore::new(options.delta.jobs.max(1))),
            applied: Meter::default(),
            publications: Publications::new(),
            complete: Memory::new(ahead::MAX_COMPLETE),
        }
    }
}

impl Fills {
    /// Whether a blob is on its way.
    pub(crate) fn is_fetching(&self, repository: &RepositoryName, blob: &Digest) -> bool {
        self.blobs.is_running(&(repository.clone(), *blob))
    }

    /// How many bytes of a blob that is on its way have come.
    pub(crate) fn arrived(&self, repository: &RepositoryName, blob: &Digest) -> u64 {
        let following = self.blobs.look(&(repository.clone(), *blob));
        following.map_or(0, |(progress, _)| progress.borrow().reader.as_ref().map_or(0, Blob::size))
    }

    /// Believes no more that everything of an image is here.
    pub(crate) fn forget_complete(&self, repository: &RepositoryName, image: &Digest) {
        self.complete.forget(&(repository.clone(), *image));
    }
}

/// Begins with `first`, calls `then`, and goes on with `first`: the connection that `first` takes is not there for what
/// `then` lets go.
async fn before<T>(first: impl Future<Output = T>, then: impl FnOnce()) -> T {
    let mut first = pin!(first);
    let begun = poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx))).await;
    then();
    match begun {
        Poll::Ready(done) => done,
        Poll::Pending => first.await,
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
    /// It has said a moment ago that there is nothing for us.
    #[error("the upstream has said a moment ago that there is nothing there for us")]
    Remembered(Absence),
    /// It has failed so recently that it is not asked where there is something to serve instead.
    #[error("the upstream has just failed and is not asked for a moment")]
    Paused,
    /// It has said that it wants no more requests for now.
    #[error("upstream {upstream}: wants no more requests for {} s", sated.retry_after.as_secs())]
    Sated {
        /// Its host.
        upstream: Box<str>,
        /// For how long.
        sated: Sated,
    },
    /// One more request would be one too many, it says.
    #[error("upstream {0}: nothing is left of what we may ask for")]
    Exhausted(Box<str>),
    /// The policy does not accept it.
    #[error("{0}")]
    Refused(Arc<Refusal>),
    /// Whoever asked is gone and left no word.
    #[error("a look at an upstream stopped without saying why")]
    Lost,
    /// It could not be stored, or is not what it should be.
    #[error("{0}")]
    Store(Arc<store::Error>),
    /// Too much is being fetched.
    #[error("too much is being fetched at once")]
    Busy,
}

impl Failure {
    /// How the upstream has answered that there is nothing for us, if that is what happened. Clients are told that it
    /// does not exist, so that they ask elsewhere.
    fn absence(&self) -> Option<Absence> {
        match self {
            Self::Remembered(absence) => Some(*absence),
            Self::Upstream(error) => match error.kind() {
                ErrorKind::NotFound => Some(Absence::NotFound),
                ErrorKind::Denied(_) => Some(Absence::Denied),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_absence(&self) -> bool {
        self.absence().is_some()
    }

    /// Whether the upstream could not be asked, or did not answer.
    pub(crate) fn is_offline(&self) -> bool {
        match self {
            Self::Upstream(error) => matches!(error.kind(), ErrorKind::Unavailable { quota: false, .. }),
            Self::Slow(_) | Self::Paused => true,
            _ => false,
        }
    }

    /// Whether the upstream does not have it (any more).
    fn is_gone(&self) -> bool {
        self.absence() == Some(Absence::NotFound)
    }

    /// Whether what has arrived and what the upstream says do not fit together.
    fn is_contradiction(&self) -> bool {
        match self {
            Self::Upstream(error) => matches!(error.kind(), ErrorKind::Protocol(_) | ErrorKind::Limit { .. }),
            Self::Store(error) => matches!(**error, store::Error::Mismatch { .. }),
            _ => false,
        }
    }

    /// Whether it follows from something that has been in the log before.
    fn is_old_news(&self) -> bool {
        matches!(self, Self::Remembered(_) | Self::Paused | Self::Sated { .. } | Self::Exhausted(_))
    }
}

impl Source {
    /// Fails when the upstream has said that it wants no more of such requests for now.
    pub(crate) fn may_ask(&self, ask: Ask) -> Result<(), Failure> {
        let upstream = || self.remote.client.host().into();
        self.remote.may_ask(ask).map_err(|sated| Failure::Sated { upstream: upstream(), sated })
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
                ErrorKind::Unavailable { retry_after, quota: true, .. } => {
                    return Self::OverQuota { retry_after: retry_after.unwrap_or(OVER_QUOTA_RETRY) };
                }
                ErrorKind::Unavailable { retry_after, .. } => *retry_after,
                _ => None,
            },
            Failure::Sated { sated: Sated { retry_after }, .. } => {
                return Self::OverQuota { retry_after: *retry_after };
            }
            Failure::Exhausted(_) => return Self::OverQuota { retry_after: OVER_QUOTA_RETRY },
            Failure::Store(error) => match &**error {
                store::Error::NoSpace => return Self::NoSpace,
                store::Error::Unavailable { .. } => return Self::Unavailable(Box::new(failure)),
                // What came is not what was asked for: that is the upstream's fault.
                store::Error::Mismatch { .. } => None,
                _ => return Self::internal(failure),
            },
            Failure::Refused(refusal) => return Self::Refused(Arc::clone(refusal)),
            Failure::Lost => return Self::internal(failure),
            Failure::Manifest { .. }
            | Failure::Slow(_)
            | Failure::Busy
            | Failure::Remembered(_)
            | Failure::Paused => None,
        };
        Self::Upstream { retry_after, cause: failure.into() }
    }
}
