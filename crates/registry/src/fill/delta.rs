//! A layer as a delta from layers that are here.
//!
//! Nothing of what a delta makes is served before all of it is proven, since one that turns out bad half-way is followed
//! by the whole layer, into another file. Every failure here ends in that. The delta itself arrives in a partial, so that
//! a link that breaks costs nothing twice.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltaport_client as client;
use deltaport_client::{ErrorKind, LayerDelta, MAX_OFFERED};
use deltaport_delta as delta;
use deltaport_oci::{Digest, RepositoryName};
use deltaport_store as store;

use super::arrival::Arrival;
use super::blobs::Fill;
use super::link::Turn;
use super::pace::Pace;
use super::speed::Race;
use super::{Failure, before};
use crate::upstream::Deltas;

/// A base that is this many times larger or smaller than the layer has little in common with it.
const MAX_RATIO: u64 = 8;
/// How many layers are looked at for bases.
const MAX_CANDIDATES: usize = 64;
/// The shortest pause between two questions whether a delta is made, whatever the upstream says.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Below this size, in bytes, a layer is there sooner than the answer whether there is a delta.
const PAYS: u64 = 256 << 10;

/// A delta that there is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) digest: Digest,
    /// In bytes, if that was said.
    pub(super) size: Option<u64>,
    /// Its bytes, with the turn in which they come, if the upstream has sent them at once.
    pub(super) sent: Option<(client::BlobBody, Turn)>,
}

/// Why a layer is fetched whole after all.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fallback {
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
    pub(super) async fn by_delta(
        &self,
        size: u64,
        missing: u64,
        place: &mut Option<Arrival>,
        pace: &Pace,
    ) -> bool {
        let most = self.most_worth(size, missing);
        if most == 0 {
            return false;
        }
        let (host, metrics) = (self.source.remote.client.host(), self.registry.metrics());
        match self.try_delta(size, most, place, pace).await {
            Ok(delta_size) => {
                metrics.delta_applied(host, missing.saturating_sub(delta_size));
                tracing::info!(digest = %self.digest, size, delta_size, "a layer came as a delta");
                true
            }
            Err(fallback) => {
                if !fallback.is_passing()
                    && let Some(useless) = place.take()
                {
                    useless.discard().await;
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

    /// The most bytes that a delta may have to be likely to bring the layer sooner than what is `missing` of it; 0 when
    /// there is no point in asking for one. Bytes that are paid for are spared anyhow.
    pub(super) fn most_worth(&self, size: u64, missing: u64) -> u64 {
        let remote = &self.source.remote;
        let too_large = size > self.registry.options().delta.maximum_layer;
        if too_large || remote.deltas == Deltas::Never || missing < PAYS {
            return 0;
        }
        let race = self.race(remote.speed.speed());
        let spares = remote.deltas == Deltas::Always || remote.metered;
        let most = if spares { missing } else { race.most_that_wins(size, missing) };
        most.min(missing - 1)
    }

    /// What is known of a layer that could come as a delta, over a link that is so fast.
    pub(super) fn race(&self, link: Option<f64>) -> Race {
        Race { link, apply: self.registry.0.fills.applied.speed() }
    }

    /// Returns how many bytes the delta had, which are at most `most`.
    async fn try_delta(
        &self,
        size: u64,
        most: u64,
        place: &mut Option<Arrival>,
        pace: &Pace,
    ) -> Result<u64, Fallback> {
        let bases = self.bases(size).await?;
        let found = self.find(&bases, most).await?;
        if found.size.is_some_and(|delta| delta > most) {
            return Err(Fallback::NotSooner);
        }
        // From here on clients get the layer, one way or the other, so they can be told its size.
        self.announce(|progress| progress.size = Some(size));
        let delta = self.fetch_delta(found, most, place, pace).await?;
        let delta_size = delta.size();
        let _permit = self.registry.0.fills.applying.acquire().await;
        let applied = self.registry.0.fills.applied.begin();
        self.apply(delta, &bases, size).await?;
        applied.add(size);
        Ok(delta_size)
    }

    /// What to offer, the most promising first: what the layer most likely replaces, then what else the repository holds,
    /// then layers of images that are built on the same ones, from the same upstream.
    pub(super) async fn bases(&self, size: u64) -> Result<Vec<Digest>, Fallback> {
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

    /// A delta from one of `bases`: made by the upstream, or published there. One of at most `most` bytes may be on its
    /// way already.
    async fn find(&self, bases: &[Digest], most: u64) -> Result<Found, Fallback> {
        if !self.source.remote.client.is_known_hub() {
            self.has_asked();
        }
        // Where the answer gets lost, the next question is as likely to find a hub as another registry.
        if self.source.remote.client.discover().await.is_ok_and(|extensions| !extensions.layer_deltas) {
            return self.find_published(bases).await;
        }
        self.ask(bases, most).await
    }

    async fn find_published(&self, bases: &[Digest]) -> Result<Found, Fallback> {
        match self.published(bases).await.map_err(Fallback::Fetch)? {
            Some(published) => Ok(Found { digest: published.digest, size: Some(published.size), sent: None }),
            None => Err(Fallback::NotOffered),
        }
    }

    /// Asks for a delta, again while it is being made.
    ///
    /// It is to come with the answer, which spares a round trip. Where something is kept of earlier transfers it is only
    /// to be named: it may be that one, of which not all has to come.
    async fn ask(&self, bases: &[Digest], most: u64) -> Result<Found, Fallback> {
        let until = Instant::now() + self.registry.options().fill.delta_wait;
        let client = &self.source.remote.client;
        let kept = self.registry.store().blobs().keeps_partials(&self.repository).await?;
        let inline = if kept { 0 } else { most };
        loop {
            let turn = self.registry.0.fills.link.turn(&self.claim).await;
            let asking = client.layer_delta(&self.source.repository, &self.digest, bases, inline);
            match before(asking, || self.has_asked()).await? {
                LayerDelta::Sent { digest, body } => {
                    return Ok(Found { digest, size: body.size(), sent: Some((*body, turn)) });
                }
                LayerDelta::Named { digest, size } => return Ok(Found { digest, size, sent: None }),
                LayerDelta::None => return Err(Fallback::NotOffered),
                LayerDelta::Pending(pause) => {
                    drop(turn);
                    let pause = between_questions(pause);
                    if Instant::now() + pause > until {
                        return Err(Fallback::Pending);
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// How long to wait before a delta is asked for again, when the upstream says so long.
pub(super) fn between_questions(pause: Duration) -> Duration {
    pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Whether layers of these sizes, in bytes, may have something in common.
fn is_comparable(base: u64, target: u64) -> bool {
    let (small, large) = (base.min(target), base.max(target));
    large / MAX_RATIO <= small
}
