//! A layer as a delta from layers that are here.
//!
//! Nothing of what a delta makes is served before all of it is proven, since one that turns out bad half-way is followed
//! by the whole layer, into another file. Every failure here ends in that. The delta itself arrives in a partial, so that
//! a link that breaks costs nothing twice.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltaport_client as client;
use deltaport_client::{ErrorKind, LayerDelta, MAX_OFFERED};
use deltaport_delta as delta;
use deltaport_oci::{Digest, RepositoryName};
use deltaport_store as store;
use deltaport_store::Partial;
use tokio::sync::mpsc;

use super::Failure;
use super::blobs::Fill;
use super::speed::Race;
use super::transfer::Transfer;
use crate::files;
use crate::upstream::Deltas;

/// A base that is this many times larger or smaller than the layer has little in common with it.
const MAX_RATIO: u64 = 8;
/// How many layers are looked at for bases.
const MAX_CANDIDATES: usize = 64;
/// How long the transfer of a delta may go without a new byte. Shorter than for a whole blob: there is another way.
const PATIENCE: Duration = Duration::from_secs(20);
/// The shortest pause between two questions whether a delta is made, whatever the upstream says.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How many threads apply a delta: one makes content while the other compresses it.
const APPLYING_THREADS: usize = 2;
/// How many chunks of the result may wait to be written.
const QUEUE: usize = 4;

/// Below this size, in bytes, a layer is there sooner than the answer whether there is a delta.
const PAYS: u64 = 256 << 10;

/// A delta that there is.
#[derive(Clone, Copy, Debug)]
struct Found {
    digest: Digest,
    /// In bytes, if that was said.
    size: Option<u64>,
}

/// Why a layer is fetched whole after all.
#[derive(Debug, thiserror::Error)]
enum Fallback {
    #[error("there is no layer here to start from")]
    NoBase,
    #[error("the upstream has no delta")]
    NotOffered,
    #[error("the delta was not made in time")]
    Pending,
    #[error("the layer is here sooner without the delta")]
    NotSooner,
    #[error("the delta is for something else")]
    Unasked,
    #[error("the delta is not what its digest says")]
    Damaged,
    #[error("the delta could not be fetched: {0}")]
    Fetch(Failure),
    #[error("the delta could not be applied: {0}")]
    Apply(#[from] delta::Error),
    #[error("{0}")]
    Store(#[from] store::Error),
}

impl From<client::Error> for Fallback {
    fn from(error: client::Error) -> Self {
        Self::Fetch(error.into())
    }
}

impl From<io::Error> for Fallback {
    fn from(error: io::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Fallback {
    /// The name under which it is counted.
    fn reason(&self) -> &'static str {
        match self {
            Self::NoBase => "no_base",
            Self::NotOffered => "not_offered",
            Self::Pending => "pending",
            Self::NotSooner => "not_sooner",
            Self::Unasked => "unasked",
            Self::Damaged => "damaged",
            Self::Fetch(_) => "fetch",
            Self::Apply(_) => "apply",
            Self::Store(store::Error::Mismatch { .. }) => "mismatch",
            Self::Store(_) => "store",
        }
    }

    /// Whether the delta may be good for another attempt when the whole layer does not arrive either.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Fetch(Failure::Upstream(error)) if matches!(error.kind(), ErrorKind::Unavailable { .. }))
    }

    /// Whether this is how things are when nothing is wrong.
    fn is_ordinary(&self) -> bool {
        matches!(self, Self::NoBase | Self::NotOffered | Self::Pending | Self::NotSooner)
    }
}

impl Fill {
    /// Tries to get the layer as a delta of fewer bytes than are `missing`; `false` when it has to be fetched whole.
    /// `place` is where the delta arrives; what is left there at the end is good for another attempt.
    pub(super) async fn by_delta(&self, size: u64, missing: u64, place: &mut Option<Partial>) -> bool {
        let largest = self.registry.options().delta.maximum_layer;
        if size > largest || !self.is_worth_asking(size, missing) {
            return false;
        }
        let (host, metrics) = (self.source.remote.client.host(), self.registry.metrics());
        match self.try_delta(size, missing, place).await {
            Ok(delta_size) => {
                metrics.delta_applied(host, missing.saturating_sub(delta_size));
                tracing::info!(digest = %self.digest, size, delta_size, "a layer came as a delta");
                true
            }
            Err(fallback) => {
                if !fallback.is_passing()
                    && let Some(useless) = place.take()
                    && let Err(error) = useless.discard().await
                {
                    tracing::warn!(digest = %self.digest, %error, "a delta could not be removed");
                }
                metrics.delta_fallback(host, fallback.reason());
                if fallback.is_ordinary() {
                    tracing::debug!(digest = %self.digest, reason = %fallback, "a layer is fetched whole");
                } else {
                    tracing::warn!(digest = %self.digest, reason = %fallback, "a layer is fetched whole");
                }
                false
            }
        }
    }

    /// Whether a delta to the layer, of which so many bytes are `missing`, can be sooner there than those.
    fn is_worth_asking(&self, size: u64, missing: u64) -> bool {
        self.source.remote.deltas != Deltas::Never && missing >= PAYS && self.is_sooner(size, missing, 0)
    }

    /// Whether a delta of `delta` bytes is likely to bring the layer sooner than what is `missing` of it. Bytes that are
    /// paid for are spared anyhow.
    fn is_sooner(&self, size: u64, missing: u64, delta: u64) -> bool {
        let remote = &self.source.remote;
        let race = Race { link: remote.speed.speed(), apply: self.registry.0.fills.applied.speed() };
        remote.deltas == Deltas::Always || remote.metered || race.is_won_by_delta(size, missing, delta)
    }

    /// Returns how many bytes the delta had.
    async fn try_delta(&self, size: u64, missing: u64, place: &mut Option<Partial>) -> Result<u64, Fallback> {
        let bases = self.bases(size).await?;
        let found = self.find(&bases).await?;
        if found.size.is_some_and(|delta| delta >= missing || !self.is_sooner(size, missing, delta)) {
            return Err(Fallback::NotSooner);
        }
        // From here on clients get the layer, one way or the other, so they can be told its size.
        self.announce(|progress| progress.size = Some(size));
        let (delta, delta_size) = self.fetch_delta(&found.digest, missing, place).await?;
        let _permit = self.registry.0.fills.applying.acquire().await;
        let applied = self.registry.0.fills.applied.begin();
        self.apply(delta, &bases, size).await?;
        applied.add(size);
        Ok(delta_size)
    }

    /// What to offer, the most promising first: what the layer most likely replaces, then what else the repository holds,
    /// then layers of images that are built on the same ones, from the same upstream.
    async fn bases(&self, size: u64) -> Result<Vec<Digest>, Fallback> {
        let names = self.registry.store().names();
        let mut layers = names.delta_bases(&self.repository, &self.digest, MAX_CANDIDATES).await?;
        layers.retain(|layer| is_comparable(layer.size, size));
        if layers.len() < MAX_OFFERED {
            let kin = names.kin_layers(&self.repository, &self.digest, MAX_CANDIDATES).await?;
            let upstreams = &self.registry.0.upstreams;
            let from_here = |repository: &RepositoryName| {
                let source = upstreams.source(repository);
                source.is_some_and(|source| Arc::ptr_eq(&source.remote, &self.source.remote))
            };
            layers.extend(kin.into_iter().filter(|(name, _)| from_here(name)).map(|(_, layer)| layer));
            layers.retain(|layer| is_comparable(layer.size, size));
        }
        let mut bases: Vec<Digest> = Vec::with_capacity(MAX_OFFERED);
        for layer in layers {
            if bases.len() < MAX_OFFERED && !bases.contains(&layer.digest) {
                bases.push(layer.digest);
            }
        }
        if bases.is_empty() { Err(Fallback::NoBase) } else { Ok(bases) }
    }

    /// A delta from one of `bases`: made by the upstream, or published there.
    async fn find(&self, bases: &[Digest]) -> Result<Found, Fallback> {
        // Where the answer gets lost, the next question is as likely to find a hub as another registry.
        if self.source.remote.client.discover().await.is_ok_and(|extensions| !extensions.layer_deltas) {
            return self.find_published(bases).await;
        }
        self.ask(bases).await
    }

    async fn find_published(&self, bases: &[Digest]) -> Result<Found, Fallback> {
        match self.published(bases).await.map_err(Fallback::Fetch)? {
            Some(published) => Ok(Found { digest: published.digest, size: Some(published.size) }),
            None => Err(Fallback::NotOffered),
        }
    }

    /// Asks for a delta, again while it is being made.
    async fn ask(&self, bases: &[Digest]) -> Result<Found, Fallback> {
        let until = Instant::now() + self.registry.options().fill.delta_wait;
        let client = &self.source.remote.client;
        loop {
            match client.layer_delta(&self.source.repository, &self.digest, bases).await? {
                LayerDelta::Ready { digest, size } => return Ok(Found { digest, size }),
                LayerDelta::None => return Err(Fallback::NotOffered),
                LayerDelta::Pending(pause) => {
                    let pause = pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                    if Instant::now() + pause > until {
                        return Err(Fallback::Pending);
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Fetches a delta behind what there is of it. One of more than `limit` bytes is given up.
    async fn fetch_delta(
        &self,
        found: &Digest,
        limit: u64,
        place: &mut Option<Partial>,
    ) -> Result<(store::Blob, u64), Fallback> {
        let partial = self.registry.store().blobs().partial(&self.repository, found).await?;
        let partial = place.insert(partial);
        if partial.length() == 0 || !partial.is_whole().await? {
            let mut transfer = Transfer::new(self, found, partial.length(), limit);
            transfer.size = partial.size();
            transfer.patience = PATIENCE;
            transfer.run(partial, |_size| {}).await.map_err(Fallback::Fetch)?;
        }
        if partial.is_whole().await? {
            Ok((partial.reader(), partial.length()))
        } else {
            Err(Fallback::Damaged)
        }
    }

    /// Makes the layer of the delta, on a thread of its own.
    async fn apply(&self, delta: store::Blob, offered: &[Digest], size: u64) -> Result<(), Fallback> {
        let delta = delta.file()?;
        let header = blocking({
            let delta = delta.try_clone()?;
            move || Ok(delta::inspect(files::reader(delta))?)
        })
        .await?;
        if header.target.digest != self.digest || header.target.size != size {
            return Err(Fallback::Unasked);
        }
        let mut bases = Vec::with_capacity(header.bases.len());
        for base in &header.bases {
            bases.push(self.open_base(&base.blob.digest, offered).await?);
        }
        let store = self.registry.store();
        let mut staging = store.blobs().stage(self.digest.algorithm()).await?;
        let (sender, mut chunks) = mpsc::channel(QUEUE);
        let limits = delta::Limits {
            target_size: size,
            scratch: self.registry.options().delta.scratch,
            threads: APPLYING_THREADS,
        };
        let scratch = store.blobs().scratch();
        let made = tokio::task::spawn_blocking(move || {
            let mut bases: Vec<_> = bases.into_iter().map(files::reader).collect();
            let mut out = files::Chunks::new(sender);
            delta::apply(&mut bases, files::reader(delta), &mut out, scratch.file()?, &limits)?;
            Ok(out.flush()?)
        });
        let mut stored = Ok(());
        while let Some(chunk) = chunks.recv().await {
            stored = staging.write(chunk).await;
            if stored.is_err() {
                // Ends the thread at its next chunk.
                chunks.close();
                break;
            }
        }
        drop(chunks);
        let made = made.await.unwrap_or_else(|panic| Err(Fallback::Store(io::Error::other(panic).into())));
        stored?;
        made?;
        let reader = staging.reader()?;
        let size = store.commit(staging, &self.digest, &self.repository).await?;
        self.prove_other(reader, size).await;
        Ok(())
    }

    /// Opens a base. Only what was offered is one: a delta must not be able to ask for other repositories' bytes.
    async fn open_base(&self, digest: &Digest, offered: &[Digest]) -> Result<File, Fallback> {
        if !offered.contains(digest) {
            return Err(Fallback::Unasked);
        }
        let blob = self.registry.store().blobs().open(digest).await?.ok_or(Fallback::NoBase)?;
        Ok(blob.file()?)
    }
}

/// Whether layers of these sizes, in bytes, may have something in common.
fn is_comparable(base: u64, target: u64) -> bool {
    let (small, large) = (base.min(target), base.max(target));
    large / MAX_RATIO <= small
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fallback> + Send + 'static,
) -> Result<T, Fallback> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(Fallback::Store(io::Error::other(panic).into())))
}
