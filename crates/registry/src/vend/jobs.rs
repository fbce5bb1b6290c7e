//! Making deltas in the background, a few at a time.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use deltaport_delta as delta;
use deltaport_oci::{Digest, RepositoryName};
use deltaport_store as store;
use deltaport_store::LayerDelta;
use tokio::sync::Semaphore;

use crate::flight::{Flight, SingleFlight};
use crate::{Delta, Registry, files};

/// How many deltas may be in the making or waiting for their turn.
const QUEUE: usize = 256;
/// How many failures are remembered; all are forgotten when there are more.
const MAX_FAILED: usize = 1024;
/// How many bytes of a delta are handed to the store at once.
const CHUNK: usize = 256 << 10;

/// A repository, a base and a target.
type Pair = (RepositoryName, Digest, Digest);

/// The deltas that are being made.
#[derive(Debug)]
pub(crate) struct Jobs {
    running: SingleFlight<Pair, ()>,
    making: Arc<Semaphore>,
    /// How many deltas are being made at this moment, by repository and target.
    seats: Mutex<HashMap<(RepositoryName, Digest), usize>>,
    /// What could not be made, so that nobody has it tried over and over.
    failed: Mutex<HashSet<Pair>>,
}

/// A place among the deltas that are being made to one target; given back when it is dropped.
struct Seat<'a> {
    jobs: &'a Jobs,
    key: (RepositoryName, Digest),
    /// How many seats were taken before.
    others: usize,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut seats = self.jobs.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = seats.get_mut(&self.key) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.key);
            }
        }
    }
}

/// Why a delta was not made.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("a layer is gone")]
    Gone,
    #[error("enough deltas to the layer are kept")]
    Enough,
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

impl Jobs {
    pub(crate) fn new(options: &Delta) -> Self {
        Self {
            running: SingleFlight::new(QUEUE),
            making: Arc::new(Semaphore::new(options.jobs.max(1))),
            seats: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Takes a seat among those that make a delta to `target`.
    fn sit(&self, repository: &RepositoryName, target: &Digest) -> Seat<'_> {
        let key = (repository.clone(), *target);
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats.entry(key.clone()).or_insert(0);
        *taken += 1;
        Seat { jobs: self, others: *taken - 1, key }
    }

    fn has_failed(&self, pair: &Pair) -> bool {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).contains(pair)
    }

    fn remember_failure(&self, pair: Pair) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= MAX_FAILED {
            failed.clear();
        }
        failed.insert(pair);
    }
}

impl Registry {
    /// Has a delta made in the background, unless that is happening already; `false` when it will not be made, because
    /// it has failed before or too many are waiting.
    pub(super) fn make_delta(
        &self,
        repository: &RepositoryName,
        base: &Digest,
        target: &Digest,
        profile: delta::Profile,
    ) -> bool {
        let pair = (repository.clone(), *base, *target);
        if self.0.deltas.has_failed(&pair) {
            return false;
        }
        match self.0.deltas.running.join(pair.clone(), || ()) {
            Flight::Full => false,
            Flight::Joined(()) => true,
            Flight::Started((), guard) => {
                let registry = self.clone();
                tokio::spawn(async move {
                    registry.run_job(pair, profile).await;
                    drop(guard);
                });
                true
            }
        }
    }

    async fn run_job(&self, pair: Pair, profile: delta::Profile) {
        let Ok(_permit) = Arc::clone(&self.0.deltas.making).acquire_owned().await else { return };
        let (repository, base, target) = &pair;
        match self.make_and_keep(repository, base, target, profile).await {
            Ok(None) => tracing::debug!(%repository, %base, %target, "a delta was there already"),
            Ok(Some(LayerDelta::Blob(digest))) => {
                tracing::info!(%repository, %base, %target, %digest, "a delta was made");
                self.metrics().deltas_made.inc();
            }
            Ok(Some(LayerDelta::NotWorthIt)) => {
                tracing::debug!(%repository, %base, %target, "a delta is not worth it");
                self.metrics().deltas_not_worth_it.inc();
            }
            // Not remembered, as it may pass; nor counted, as nothing was tried.
            Err(Failure::Enough) => tracing::debug!(%repository, %base, %target, "enough deltas are kept"),
            Err(error) => {
                tracing::warn!(%repository, %base, %target, %error, "a delta was not made");
                self.metrics().deltas_failed.inc();
                self.0.deltas.remember_failure(pair);
            }
        }
    }

    async fn make_and_keep(
        &self,
        repository: &RepositoryName,
        base: &Digest,
        target: &Digest,
        profile: delta::Profile,
    ) -> Result<Option<LayerDelta>, Failure> {
        let names = self.store().names();
        // Whoever asked may have looked just before another job for the same pair ended.
        if names.layer_delta(repository, base, target).await?.is_some() {
            return Ok(None);
        }
        // Jobs that were begun before there were enough may have waited until now. Those that are at work on the same
        // target count as if they had succeeded; the seat is taken before the database is asked, so that none is missed.
        let seat = self.0.deltas.sit(repository, target);
        if self.keeps_enough(repository, target, seat.others).await? {
            return Err(Failure::Enough);
        }
        let (base_file, target_file) = (self.open(base).await?, self.open(target).await?);
        let options = delta::Options {
            algorithm: target.algorithm(),
            profile,
            memory: self.options().delta.memory,
            ..delta::Options::default()
        };
        let scratch = self.store().blobs().scratch();
        let made = tokio::task::spawn_blocking(move || {
            let (mut base, mut target) = ([files::reader(base_file)], files::reader(target_file));
            delta::create(&mut base, &mut target, || scratch.file(), &options, |_| ())
        });
        let known = match made.await.map_err(io::Error::other)? {
            Ok(made) if made.header.target.digest != *target || made.header.bases[0].blob.digest != *base => {
                return Err(store::Error::Corrupt(format!("{base} or {target} is not what it was")).into());
            }
            Ok(made) => LayerDelta::Blob(self.keep_delta(repository, made.bytes).await?),
            Err(delta::Error::NotWorthIt { .. }) => LayerDelta::NotWorthIt,
            Err(error) => return Err(error.into()),
        };
        names.put_layer_delta(repository, base, target, &known).await?;
        Ok(Some(known))
    }

    async fn open(&self, digest: &Digest) -> Result<File, Failure> {
        Ok(self.store().blobs().open(digest).await?.ok_or(Failure::Gone)?.file()?)
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
