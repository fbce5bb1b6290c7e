//! The rhythm in which space is taken back: images make room, and the collector removes what nothing refers to.

use std::time::{Duration, SystemTime};

use deltaport_store::Collected;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Evicted;
use crate::{Registry, Result};

/// How often it is written down when images were used. So much a crash forgets.
const WRITE_USES: Duration = Duration::from_secs(60);
/// How soon a run may follow another when so much arrives that the cap is exceeded.
const SOONEST: Duration = Duration::from_secs(10);

/// What the lease is called of who takes back room.
const LEASE: &str = "collect";

/// What was taken back at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenBack {
    /// Images from upstreams that made room.
    pub evicted: Evicted,
    /// What nothing refers to any more and is gone.
    pub collected: Collected,
}

impl Registry {
    /// Evicts and collects now: see [`Registry::evict`]. A second call, at another replica too, waits for the first. What
    /// is being collected goes on to its end when the future is dropped.
    pub async fn take_back(&self, now: SystemTime) -> Result<TakenBack> {
        let work = async {
            let evicted = self.evict(now).await?;
            Ok(TakenBack { evicted, collected: self.collect_once(now).await? })
        };
        self.in_turn(LEASE, Box::pin(work)).await?
    }

    async fn collect_once(&self, now: SystemTime) -> Result<Collected> {
        let metrics = self.metrics();
        let collected = self.store().collect(now).await.inspect_err(|_| {
            metrics.collector_failures.inc();
        })?;
        metrics.collector_runs.inc();
        metrics.collected_blobs.inc_by(collected.blobs);
        metrics.collected_bytes.inc_by(collected.bytes);
        metrics.collected_uploads.inc_by(collected.uploads);
        metrics.collected_partials.inc_by(collected.partials);
        tracing::debug!(?collected, "the collector ran");
        Ok(collected)
    }

    /// Evicts and collects every [`Collect::interval`](crate::Collect::interval) until `stop`, and when what arrives
    /// exceeds [`Space::cached`](crate::Space::cached); a run in progress ends first. A run that fails is logged and tried
    /// again at the next.
    pub async fn collect(&self, stop: CancellationToken) {
        let interval = self.options().collect.interval;
        let mut next = Instant::now() + interval;
        let mut last: Option<Instant> = None;
        loop {
            let soonest = last.map_or_else(Instant::now, |last| last + SOONEST);
            let due = async {
                tokio::select! {
                    () = tokio::time::sleep_until(next) => true,
                    () = async {
                        tokio::time::sleep_until(soonest).await;
                        self.0.room.is_exceeded().await;
                    } => true,
                    () = tokio::time::sleep(WRITE_USES) => false,
                }
            };
            let due = stop.run_until_cancelled(due).await;
            self.write_uses().await;
            match due {
                Some(true) => {
                    self.take_back_by_the_way(&stop).await;
                    last = Some(Instant::now());
                    next = Instant::now() + interval;
                }
                Some(false) => {}
                None => return,
            }
        }
    }

    /// Evicts and collects, unless another replica does.
    async fn take_back_by_the_way(&self, stop: &CancellationToken) {
        let work = async {
            // It waits for upstreams, and can be left at any point.
            if let Some(Err(error)) = stop.run_until_cancelled(self.evict(SystemTime::now())).await {
                tracing::warn!(%error, "nothing was evicted; it is tried again later");
            }
            if let Err(error) = self.collect_once(SystemTime::now()).await {
                tracing::warn!(%error, "the collector failed; it tries again later");
            }
        };
        match self.alone(LEASE, Box::pin(work)).await {
            Ok(Some(())) => {}
            Ok(None) => tracing::debug!("another replica takes back room"),
            Err(error) => tracing::warn!(%error, "no room was taken back; it is tried again later"),
        }
    }
}
