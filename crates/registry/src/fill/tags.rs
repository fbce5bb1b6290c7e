//! Whether what an upstream has said before is answer enough, and what is served when it says nothing.
//!
//! A tag that is here is served without a question while it is fresh; otherwise the upstream is asked, and when that
//! fails the stored one is served as stale. What an upstream does not have, or refuses, is remembered for a moment, so
//! that clients that ask for it again and again do not cost a request each. All of this is in memory: after a restart,
//! every tag is looked at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deltaport_oci::{Digest, Reference, RepositoryName, Tag};

use super::Failure;
use super::manifests::Wanted;
use crate::memory::Memory;
use crate::pull::Pulled;
use crate::upstream::{Lifetime, Remote, Stale};
use crate::{Error, Manifest, Registry, Result};

/// How many tags are known to have been confirmed. One takes about 200 bytes.
const MAX_CONFIRMED: usize = 16_384;
/// How many things are known not to be at an upstream. One takes about 200 bytes.
const MAX_ABSENT: usize = 16_384;
/// How long a client waits when there is nothing to serve. Clients give up after 30 seconds without an answer, and then
/// ask elsewhere.
const LIMIT: Duration = Duration::from_secs(25);
/// The longest that anything is remembered, so that its end is a point in time that there is.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What is remembered of the answers of upstreams.
#[derive(Debug)]
pub(crate) struct Answers {
    /// When a tag was last confirmed.
    confirmed: Memory<(RepositoryName, Tag), Instant>,
    /// What there is not.
    absent: Memory<(RepositoryName, Reference), Absence>,
    /// When remembering began.
    since: Instant,
}

/// How an upstream says that there is nothing for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absence {
    /// There is no such thing.
    NotFound,
    /// It refuses.
    Denied,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self { confirmed: Memory::new(MAX_CONFIRMED), absent: Memory::new(MAX_ABSENT), since: Instant::now() }
    }

    /// Notes what asking `remote` came to.
    pub(super) fn note<T>(
        &self,
        remote: &Remote,
        repository: &RepositoryName,
        reference: &Reference,
        found: &Result<T, Failure>,
    ) {
        let key = (repository.clone(), reference.clone());
        let now = Instant::now();
        match found.as_ref().map_err(Failure::absence) {
            Ok(_) => {
                self.absent.forget(&key);
                if let (repository, Reference::Tag(tag)) = key {
                    let until = now + matters_for(remote, &tag).min(LONGEST);
                    self.confirmed.remember((repository, tag), now, until);
                }
            }
            Err(Some(absence)) => {
                self.absent.remember(key, absence, now + remote.policy.negative_age.min(LONGEST));
            }
            Err(None) => {}
        }
    }

    /// How long ago the upstream confirmed a tag that is here; what was here before the process was is as old as that.
    fn age(&self, repository: &RepositoryName, tag: &Tag) -> Duration {
        let confirmed = self.confirmed.recall(&(repository.clone(), tag.clone()));
        confirmed.unwrap_or(self.since).elapsed()
    }

    /// Whether a tag that is here need not be looked at.
    fn is_fresh(&self, remote: &Remote, repository: &RepositoryName, tag: &Tag) -> bool {
        match remote.policy.lifetime(tag) {
            Lifetime::Immutable => true,
            Lifetime::MaxAge(Duration::ZERO) => false,
            Lifetime::MaxAge(age) => self
                .confirmed
                .recall(&(repository.clone(), tag.clone()))
                .is_some_and(|confirmed| confirmed.elapsed() < age),
        }
    }

    /// Whether a tag that is here may be served without the upstream's word.
    fn may_be_stale(&self, remote: &Remote, repository: &RepositoryName, reference: &Reference) -> bool {
        match (remote.policy.stale, reference) {
            (Stale::For(limit), Reference::Tag(tag)) => self.age(repository, tag) < limit,
            (Stale::Forever, _) | (_, Reference::Digest(_)) => true,
        }
    }
}

/// For how long it makes a difference when a tag was confirmed.
fn matters_for(remote: &Remote, tag: &Tag) -> Duration {
    let fresh = match remote.policy.lifetime(tag) {
        Lifetime::MaxAge(age) => age,
        Lifetime::Immutable => Duration::ZERO,
    };
    match remote.policy.stale {
        Stale::For(limit) => fresh.max(limit),
        Stale::Forever => fresh,
    }
}

impl Registry {
    /// The manifest that `reference` means now, of which `stored` is here; `None` when there is none anywhere.
    ///
    /// When the upstream cannot be asked, refuses, or makes no sense, what is stored is as good as it gets.
    pub(crate) async fn fill_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        stored: Option<Arc<Manifest>>,
    ) -> Result<Option<Pulled>> {
        let Some(source) = self.0.upstreams.source(repository) else { return Ok(stored.map(Pulled::fresh)) };
        let (repository, reference) = (repository.clone(), reference.clone());
        let (answers, remote) = (&self.0.fills.answers, &source.remote);
        let spare = stored.is_some() && answers.may_be_stale(remote, &repository, &reference);
        let fresh = match (&stored, &reference) {
            (Some(stored), Reference::Tag(tag)) if answers.is_fresh(remote, &repository, tag) => {
                Some(Arc::clone(stored))
            }
            _ => None,
        };
        let wanted = Wanted { source, repository, reference, stored, spare };
        let found = match fresh {
            Some(fresh) => Ok(fresh),
            None => self.ask_upstream(&wanted).await,
        };
        self.settle(wanted, found)
    }

    /// Looks at the upstream for as long as there is a point in waiting, unless it is known already what comes of it.
    async fn ask_upstream(&self, wanted: &Wanted) -> Result<Arc<Manifest>, Failure> {
        let Wanted { source, repository, reference, spare, .. } = wanted;
        let remote = &source.remote;
        if let Some(absence) = self.known_absence(remote, repository, reference) {
            return Err(Failure::Remembered(absence));
        }
        let patience = match spare {
            true if remote.is_paused() => return Err(Failure::Paused),
            true => remote.patience(),
            false => LIMIT,
        };
        match tokio::time::timeout(patience, self.look_once(wanted)).await {
            Ok(found) => found,
            Err(_) => {
                remote.note_silence();
                Err(Failure::Slow(remote.client.host().into()))
            }
        }
    }

    /// What is served, given what the upstream has said.
    fn settle(&self, wanted: Wanted, found: Result<Arc<Manifest>, Failure>) -> Result<Option<Pulled>> {
        let Wanted { source, repository, reference, stored, spare } = wanted;
        let (host, metrics) = (source.remote.client.host(), self.metrics());
        let failure = match found {
            Ok(found) => {
                if stored.is_some_and(|stored| stored.digest == found.digest) {
                    metrics.cached(host, found.bytes.len() as u64);
                }
                return Ok(Some(Pulled::fresh(found)));
            }
            // What there was before is no answer to what the tag means now.
            Err(Failure::Refused(refusal)) => return Err(Error::Refused(refusal)),
            Err(failure) => failure,
        };
        let believed = failure.absence() == Some(Absence::NotFound);
        match stored.filter(|_| spare && !believed) {
            Some(stored) => {
                if failure.is_old_news() {
                    tracing::debug!(%repository, %reference, %failure, "serving a stored tag, which may be out of date");
                } else {
                    tracing::warn!(%repository, %reference, %failure, "serving a stored tag, which may be out of date");
                }
                metrics.stale(host);
                metrics.cached(host, stored.bytes.len() as u64);
                Ok(Some(Pulled { manifest: stored, stale: true }))
            }
            None if failure.is_absence() => Ok(None),
            None => Err(failure.into()),
        }
    }

    /// Whether the upstream has just said that it has nothing for us there.
    fn known_absence(
        &self,
        remote: &Remote,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Option<Absence> {
        let absence = self.0.fills.answers.absent.recall(&(repository.clone(), reference.clone()))?;
        self.metrics().negative(remote.client.host());
        Some(absence)
    }

    /// The same for a blob.
    pub(super) fn is_known_absent(
        &self,
        remote: &Remote,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> bool {
        self.known_absence(remote, repository, &Reference::Digest(*digest)).is_some()
    }
}
