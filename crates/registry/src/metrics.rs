//! What the registry counts. The server decides where the numbers are shown.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry as Prometheus;

/// What the registry counts, since it was made.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) collected_blobs: Counter,
    pub(crate) collected_bytes: Counter,
    pub(crate) collected_uploads: Counter,
    pub(crate) collector_failures: Counter,
    pub(crate) collector_runs: Counter,
    pub(crate) manifests_pushed: Counter,
    pub(crate) mounts: Counter,
    pub(crate) upload_bytes: Counter,
    pub(crate) uploads_begun: Counter,
    pub(crate) uploads_finished: Counter,
}

impl Metrics {
    /// Shows the counters in `prometheus`.
    pub fn register(&self, prometheus: &mut Prometheus) {
        for (name, help, counter) in [
            ("collected_blobs", "Unreferenced blobs removed", &self.collected_blobs),
            ("collected_bytes", "Bytes of unreferenced blobs removed", &self.collected_bytes),
            ("collected_uploads", "Abandoned uploads removed", &self.collected_uploads),
            ("collector_failures", "Runs of the collector that failed", &self.collector_failures),
            ("collector_runs", "Runs of the collector that succeeded", &self.collector_runs),
            ("manifests_pushed", "Manifests stored", &self.manifests_pushed),
            ("mounts", "Blobs mounted from another repository", &self.mounts),
            ("upload_bytes", "Bytes of blobs received and durable", &self.upload_bytes),
            ("uploads_begun", "Uploads begun", &self.uploads_begun),
            ("uploads_finished", "Uploads that became blobs", &self.uploads_finished),
        ] {
            prometheus.register(name, help, counter.clone());
        }
    }
}
