//! Making deltas in the background, a few at a time.
//!
//! What is to be made stands on a list in the store, so that a restart forgets nothing, and replicas share it. A few
//! workers take up one job after the other, each with a lease, and are there only while there is something to do.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use deltaport_delta as delta;
use deltaport_oci::{Digest, RepositoryName};
use deltaport_store as store;
use deltaport_store::{ClaimLimits, DeltaJob, Holder, LayerDelta, Lease};
use tokio_util::sync::CancellationToken;

use crate::{Delta, Registry, files};

/// How many deltas that somebody waits for may stand on the list.
const MAX_WAITED: usize = 256;
/// How many that are made ahead may.
pub(super) const MAX_AHEAD: usize = 4096;
/// How many failures are remembered; all are forgotten when there are more.
const MAX_FAILED: usize = 1024;
/// How often a delta is begun that never comes to an end. It may be what kills who makes it, so not for ever; but replicas are
/// killed for other reasons, too, several at a time.
const MAX_ATTEMPTS: u32 = 5;
/// How long a job rests that the disk or the database made fail.
const PAUSE: Duration = Duration::from_secs(60);
/// How many bytes of a delta are handed to the store at once.
const CHUNK: usize = 256 << 10;

/// The deltas that are being made.
#[derive(Debug)]
pub(crate) struct Jobs {
    workers: Workers,
    /// What could not be made, so that nobody has it tried over and over.
    failed: Mutex<HashSet<(RepositoryName, Digest, Digest)>>,
}

/// How many work on the list. Nobody goes home while there may be something on it.
#[derive(Debug)]
struct Workers {
    most: usize,
    state: Mutex<Working>,
}

#[derive(Debug, Default)]
struct Working {
    count: usize,
    /// Something was put on the list that no worker may have seen.
    more: bool,
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, Working> {
        // Nothing under this lock can stop half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that there is something on the list; whether one more worker has to begin.
    fn call(&self) -> bool {
        let mut working = self.lock();
        let begins = working.count < self.most;
        working.more |= !begins;
        working.count += usize::from(begins);
        begins
    }

    /// Whether a worker that found the list empty may end. Otherwise it has to look again.
    fn may_end(&self) -> bool {
        let mut working = self.lock();
        let ends = !std::mem::take(&mut working.more);
        working.count -= usize::from(ends);
        ends
    }
}

/// Why a delta was not made.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("a layer is gone")]
    Gone,
    #[error(transparent)]
    Delta(#[from] delta::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Failure {
    /// Whether the same work may succeed later.
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Delta(delta::Error::Io(_))
                | Self::Store(store::Error::Io(_) | store::Error::NoSpace | store::Error::Unavailable { .. })
        )
    }

    /// Whether there is nothing to be made any more, which is nobody's fault.
    fn is_moot(&self) -> bool {
        matches!(self, Self::Gone | Self::Store(store::Error::Missing(_)))
    }
}

impl Jobs {
    pub(crate) fn new(options: &Delta) -> Self {
        let workers = Workers { most: options.jobs.max(1), state: Mutex::default() };
        Self { workers, failed: Mutex::default() }
    }

    fn lock_failed(&self) -> MutexGuard<'_, HashSet<(RepositoryName, Digest, Digest)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self, job: &DeltaJob) -> bool {
        self.lock_failed().contains(&(job.repository.clone(), job.base, job.target))
    }

    fn remember_failure(&self, job: &DeltaJob) {
        let mut failed = self.lock_failed();
        if failed.len() >= MAX_FAILED {
            failed.clear();
        }
        failed.insert((job.repository.clone(), job.base, job.target));
    }
}

impl Registry {
    /// Makes the deltas that are to be made and that nobody makes, until `stop`: those that were left over when a process
    /// ended, this one or another replica.
    pub async fn make_deltas(&self, stop: CancellationToken) {
        loop {
            match self.store().names().has_delta_jobs().await {
                Ok(true) => self.resume(),
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "cannot tell whether deltas are to be made"),
            }
            let pause = tokio::time::sleep(self.options().replicas.lease);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// Takes up the deltas that are to be made and that nobody makes. Must be called within a tokio runtime.
    pub fn resume(&self) {
        for _ in 0..self.0.deltas.workers.most {
            self.call_worker();
        }
    }

    /// Has a delta made that somebody waits for; `false` when it will not be made, because it has failed before or too
    /// many are waiting.
    pub(super) async fn make_now(
        &self,
        repository: &RepositoryName,
        base: &Digest,
        target: &Digest,
    ) -> Result<bool, store::Error> {
        let job = DeltaJob { repository: repository.clone(), base: *base, target: *target, waited: true };
        if self.0.deltas.has_failed(&job) {
            return Ok(false);
        }
        let made = self.store().names().put_delta_jobs(vec![job], MAX_WAITED).await?;
        self.call_worker();
        Ok(made == [true])
    }

    /// Has deltas made that nobody waits for yet; those for which there is no room are left out.
    pub(super) async fn make_ahead(&self, mut jobs: Vec<DeltaJob>) -> Result<(), store::Error> {
        jobs.retain(|job| !self.0.deltas.has_failed(job));
        if jobs.is_empty() {
            return Ok(());
        }
        let made = self.store().names().put_delta_jobs(jobs, MAX_AHEAD).await?;
        let left_out = made.iter().filter(|made| !**made).count();
        if left_out > 0 {
            tracing::info!(left_out, "there is no room for more deltas that are to be made ahead");
        }
        self.resume();
        Ok(())
    }

    fn call_worker(&self) {
        if self.0.deltas.workers.call() {
            tokio::spawn(self.clone().work());
        }
    }

    /// Makes what stands on the list until nothing does.
    async fn work(self) {
        let limits = ClaimLimits { kept: super::MAX_KEPT, attempts: MAX_ATTEMPTS };
        let life = self.options().replicas.lease;
        loop {
            match self.store().names().claim_delta_job(limits, life).await {
                Ok(Some((job, lease))) => self.run_job(job, lease).await,
                Ok(None) => {
                    if self.0.deltas.workers.may_end() {
                        return;
                    }
                }
                // When the store is closed there will be no more. Otherwise the next who asks begins anew.
                Err(error) => {
                    tracing::debug!(%error, "no more deltas are made for now");
                    while !self.0.deltas.workers.may_end() {}
                    return;
                }
            }
        }
    }

    async fn run_job(&self, job: DeltaJob, mut lease: Lease) {
        let DeltaJob { repository, base, target, .. } = &job;
        let holder = lease.holder();
        // Who lost it leaves the rest to who has it now.
        let Some(made) = lease.hold(Box::pin(self.make_and_keep(&job, &holder))).await else { return };
        match made {
            Ok(None) => {
                tracing::debug!(%repository, %base, %target, "a delta was there already, or is another's to make");
            }
            Ok(Some(LayerDelta::Blob(digest))) => {
                tracing::info!(%repository, %base, %target, %digest, "a delta was made");
                self.metrics().deltas_made.inc();
                return;
            }
            Ok(Some(LayerDelta::NotWorthIt)) => {
                tracing::debug!(%repository, %base, %target, "a delta is not worth it");
                self.metrics().deltas_not_worth_it.inc();
                return;
            }
            Err(error) if error.is_moot() => {
                tracing::debug!(%repository, %base, %target, %error, "a delta is not made");
            }
            Err(error) => {
                tracing::warn!(%repository, %base, %target, %error, "a delta was not made");
                self.metrics().deltas_failed.inc();
                if error.may_pass() {
                    return self.try_again(lease).await;
                }
                self.0.deltas.remember_failure(&job);
            }
        }
        if let Err(error) = self.store().names().end_delta_job(&job, &holder).await {
            tracing::debug!(%error, "a job is left over, and is taken up again");
        }
    }

    /// Lets a job rest; then whoever looks takes it up.
    async fn try_again(&self, lease: Lease) {
        if let Err(error) = lease.rest(PAUSE).await {
            tracing::debug!(%error, "a job is left over, and is taken up again");
        }
    }

    /// Makes a delta, and with the last write of its name ends the job; `None` when it was there already, or the job is not
    /// `holder`'s any more.
    async fn make_and_keep(&self, job: &DeltaJob, holder: &Holder) -> Result<Option<LayerDelta>, Failure> {
        let DeltaJob { repository, base, target, waited } = job;
        let names = self.store().names();
        // Whoever asked may have looked just before another job for the same pair ended.
        if names.layer_delta(repository, base, target).await?.is_some() {
            return Ok(None);
        }
        let (base_file, target_file) = (self.open(base).await?, self.open(target).await?);
        let options = delta::Options {
            algorithm: target.algorithm(),
            profile: if *waited { delta::Profile::Fast } else { delta::Profile::Best },
            memory: self.options().delta.memory,
            ..delta::Options::default()
        };
        let scratch = self.store().blobs().scratch();
        let made = tokio::task::spawn_blocking(move || {
            let (mut base, mut target) = ([files::reader(base_file)], files::reader(target_file));
            delta::create(&mut base, &mut target, || scratch.file(), &options, |_| ())
        });
        // A panic of the engine would come again, with the same layers.
        let made = made.await.map_err(|error| store::Error::Corrupt(error.to_string()))?;
        let known = match made {
            Ok(made) if made.header.target.digest != *target || made.header.bases[0].blob.digest != *base => {
                return Err(store::Error::Corrupt(format!("{base} or {target} is not what it was")).into());
            }
            Ok(made) => LayerDelta::Blob(self.keep_delta(repository, made.bytes).await?),
            Err(delta::Error::NotWorthIt { .. }) => LayerDelta::NotWorthIt,
            Err(error) => return Err(error.into()),
        };
        Ok(names.put_made_delta(job, holder, &known).await?.then_some(known))
    }

    async fn open(&self, digest: &Digest) -> Result<File, Failure> {
        Ok(self.store().blobs().open(digest).await?.ok_or(Failure::Gone)?.file().await?)
    }

    /// Stores a delta as a blob of the repository.
    async fn keep_delta(&self, repository: &RepositoryName, bytes: Vec<u8>) -> Result<Digest, Failure> {
        let mut bytes = Bytes::from(bytes);
        let digest = Digest::sha256(&bytes);
        let mut staging = self.store().blobs().stage(digest.algorithm()).await?;
        while !bytes.is_empty() {
            staging.write(bytes.split_to(bytes.len().min(CHUNK))).await?;
        }
        self.store().commit(staging, &digest, repository).await?;
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_goes_home_while_there_may_be_work() {
        let workers = Workers { most: 2, state: Mutex::default() };
        assert!(workers.call() && workers.call(), "the first two begin");
        assert!(!workers.call(), "there are enough");
        assert!(!workers.may_end(), "something came while both were at work");
        assert!(workers.may_end() && workers.may_end());
        assert!(workers.call(), "and the next begins anew");
    }
}
