//! The collector's rhythm. What it does is the store's business.

use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use crate::Registry;

impl Registry {
    /// Runs the collector every [`Collect::interval`](crate::Collect::interval) until `stop`; a run in progress ends
    /// first. A run that fails is logged and tried again at the next.
    pub async fn collect(&self, stop: CancellationToken) {
        let interval = self.options().collect.interval;
        while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
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
}
