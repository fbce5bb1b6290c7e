//! The rhythm in which space is taken back: images make room, and the collector removes what nothing refers to.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Registry;

/// How often it is written down when images were used. So much a crash forgets.
const WRITE_USES: Duration = Duration::from_secs(60);
/// How soon a run may follow another when so much arrives that the cap is exceeded.
const SOONEST: Duration = Duration::from_secs(10);

impl Registry {
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
                    self.take_back(&stop).await;
                    last = Some(Instant::now());
                    next = Instant::now() + interval;
                }
                Some(false) => {}
                None => return,
            }
        }
    }

    async fn take_back(&self, stop: &CancellationToken) {
        // It waits for upstreams, and can be left at any point.
        if let Some(Err(error)) = stop.run_until_cancelled(self.evict(SystemTime::now())).await {
            tracing::warn!(%error, "nothing was evicted; it is tried again later");
        }
        match self.store().collect(SystemTime::now()).await {
            Ok(collected) => {
                self.metrics().collector_runs.inc();
                self.metrics().collected_blobs.inc_by(collected.blobs);
                self.metrics().collected_bytes.inc_by(collected.bytes);
                self.metrics().collected_uploads.inc_by(collected.uploads);
                self.metrics().collected_partials.inc_by(collected.partials);
                tracing::debug!(?collected, "the collector ran");
            }
            Err(error) => {
                self.metrics().collector_failures.inc();
                tracing::warn!(%error, "the collector failed; it tries again later");
            }
        }
    }
}
