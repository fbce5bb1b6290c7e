//! What the registry counts. The server decides where the numbers are shown.

use deltaport_oci::RepositoryName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as Prometheus;

use crate::mirror::{Outcome, Report};

/// What the registry counts, since it was made.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) accepted: Counter,
    pub(crate) cached_bytes: Gauge,
    pub(crate) collected_blobs: Counter,
    pub(crate) collected_bytes: Counter,
    pub(crate) collected_partials: Counter,
    pub(crate) collected_uploads: Counter,
    pub(crate) collector_failures: Counter,
    pub(crate) collector_runs: Counter,
    pub(crate) denied: Counter,
    pub(crate) deltas_failed: Counter,
    pub(crate) deltas_made: Counter,
    pub(crate) deltas_not_worth_it: Counter,
    pub(crate) deltas_offered: Counter,
    pub(crate) evicted_bytes: Counter,
    pub(crate) evicted_images: Counter,
    pub(crate) manifests_pushed: Counter,
    pub(crate) mounts: Counter,
    pub(crate) quarantined: Gauge,
    pub(crate) upload_bytes: Counter,
    pub(crate) uploads_begun: Counter,
    pub(crate) uploads_finished: Counter,
    deltas_applied: Family<Host, Counter>,
    delta_saved_bytes: Family<Host, Counter>,
    delta_fallbacks: Family<Reason, Counter>,
    fill_failures: Family<Host, Counter>,
    fills: Family<Host, Counter>,
    cache_saved_bytes: Family<Host, Counter>,
    dedupe_saved_bytes: Family<Host, Counter>,
    mirror_failed_tags: Family<OfRule, Gauge>,
    mirror_last_success: Family<OfRule, Gauge>,
    mirror_received_bytes: Family<OfRule, Counter>,
    mirror_runs: Family<OfRule, Counter>,
    mirror_wanted_tags: Family<OfRule, Gauge>,
    negative: Family<Host, Counter>,
    received_bytes: Family<Host, Counter>,
    refused: Family<Refused, Counter>,
    resumes: Family<Host, Counter>,
    served_bytes: Family<Host, Counter>,
    stale: Family<Host, Counter>,
}

/// Which upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Host {
    upstream: String,
}

/// Which upstream, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    upstream: String,
    reason: String,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: String,
}

/// Which mirror rule, and for which repository. There are as many as rules and repositories that they are about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRule {
    rule: String,
    repository: String,
}

impl OfRule {
    fn new(rule: &str, repository: &RepositoryName) -> Self {
        Self { rule: rule.to_owned(), repository: repository.to_string() }
    }
}

impl Host {
    fn of(host: &str) -> Self {
        Self { upstream: host.to_owned() }
    }
}

impl Metrics {
    /// Shows the counters in `prometheus`.
    pub fn register(&self, prometheus: &mut Prometheus) {
        for (name, help, counter) in [
            ("collected_blobs", "Unreferenced blobs removed", &self.collected_blobs),
            ("collected_bytes", "Bytes of unreferenced blobs removed", &self.collected_bytes),
            (
                "collected_partials",
                "Beginnings of blobs that nobody went on with removed",
                &self.collected_partials,
            ),
            ("collected_uploads", "Abandoned uploads removed", &self.collected_uploads),
            ("collector_failures", "Runs of the collector that failed", &self.collector_failures),
            ("collector_runs", "Runs of the collector that succeeded", &self.collector_runs),
            ("deltas_failed", "Deltas that could not be made", &self.deltas_failed),
            ("deltas_made", "Deltas made", &self.deltas_made),
            ("deltas_not_worth_it", "Deltas that would save too little", &self.deltas_not_worth_it),
            ("deltas_offered", "Requests answered with a delta", &self.deltas_offered),
            ("evicted_bytes", "Bytes of blobs that images made room of", &self.evicted_bytes),
            ("evicted_images", "Images from upstreams that made room for others", &self.evicted_images),
            ("manifests_pushed", "Manifests stored", &self.manifests_pushed),
            ("mounts", "Blobs mounted from another repository", &self.mounts),
            ("upload_bytes", "Bytes of blobs received and durable", &self.upload_bytes),
            ("uploads_begun", "Uploads begun", &self.uploads_begun),
            ("uploads_finished", "Uploads that became blobs", &self.uploads_finished),
            ("verdicts_accepted", "Verdicts of the policy that accept a manifest", &self.accepted),
            ("verdicts_denied", "Requests for what the policy does not accept", &self.denied),
        ] {
            prometheus.register(name, help, counter.clone());
        }
        for (name, help, family) in [
            (
                "upstream_cache_saved_bytes",
                "Bytes of manifests and blobs that were here when they were asked for",
                &self.cache_saved_bytes,
            ),
            (
                "upstream_dedupe_saved_bytes",
                "Bytes of blobs that another repository held already",
                &self.dedupe_saved_bytes,
            ),
            ("upstream_deltas_applied", "Layers that came as a delta", &self.deltas_applied),
            ("upstream_delta_saved_bytes", "Bytes that deltas spared", &self.delta_saved_bytes),
            ("upstream_fill_failures", "Blobs that did not arrive", &self.fill_failures),
            ("upstream_fills", "Blobs that arrived", &self.fills),
            (
                "upstream_received_bytes",
                "Bytes of manifests, blobs and deltas received",
                &self.received_bytes,
            ),
            (
                "upstream_negative_answers",
                "Answers that there is nothing, without asking again",
                &self.negative,
            ),
            ("upstream_served_bytes", "Bytes of manifests and blobs sent to clients", &self.served_bytes),
            ("upstream_resumes", "Requests that went on where a transfer had broken off", &self.resumes),
            ("upstream_stale_answers", "Stored tags served although they may have moved", &self.stale),
        ] {
            prometheus.register(name, help, family.clone());
        }
        let help = "Bytes of blobs and deltas received for a mirror rule and for nobody else";
        prometheus.register("mirror_received_bytes", help, self.mirror_received_bytes.clone());
        let help = "Runs of a mirror rule that are over";
        prometheus.register("mirror_runs", help, self.mirror_runs.clone());
        for (name, help, family) in [
            (
                "mirror_failed_tags",
                "Tags that the last run of a mirror rule could not bring",
                &self.mirror_failed_tags,
            ),
            (
                "mirror_last_success_timestamp_seconds",
                "When a run of a mirror rule was last over that brought everything, in seconds since 1970",
                &self.mirror_last_success,
            ),
            (
                "mirror_wanted_tags",
                "Tags that the last run of a mirror rule was about",
                &self.mirror_wanted_tags,
            ),
        ] {
            prometheus.register(name, help, family.clone());
        }
        let help = "Bytes that are here only because they came from upstreams, as of the last look";
        prometheus.register("cached_bytes", help, self.cached_bytes.clone());
        let help = "Verdicts of the policy that refuse a manifest, by reason";
        prometheus.register("verdicts_refused", help, self.refused.clone());
        let help = "Manifests that are here and that the policy refuses, as of the last look";
        prometheus.register("quarantined_manifests", help, self.quarantined.clone());
        let help = "Layers that were fetched whole although a delta was asked for";
        prometheus.register("upstream_delta_fallbacks", help, self.delta_fallbacks.clone());
    }

    /// The policy refuses a manifest for this reason.
    pub(crate) fn refused(&self, reason: &str) {
        self.refused.get_or_create(&Refused { reason: reason.to_owned() }).inc();
    }

    /// Bytes came from an upstream.
    pub(crate) fn received(&self, host: &str, bytes: u64) {
        self.received_bytes.get_or_create(&Host::of(host)).inc_by(bytes);
    }

    /// Counts the bytes that come for a mirror rule.
    pub(crate) fn received_for(&self, rule: &str, repository: &RepositoryName) -> Counter {
        self.mirror_received_bytes.get_or_create(&OfRule::new(rule, repository)).clone()
    }

    /// A run of a mirror rule is over, at this time in seconds since 1970.
    pub(crate) fn mirrored(&self, report: &Report, at: i64) {
        let of = OfRule::new(&report.rule.rule, &report.rule.repository);
        let failed = report.tags.iter().filter(|tag| tag.outcome == Outcome::Failed).count();
        self.mirror_runs.get_or_create(&of).inc();
        self.mirror_wanted_tags.get_or_create(&of).set(i64::try_from(report.wanted).unwrap_or(i64::MAX));
        self.mirror_failed_tags.get_or_create(&of).set(i64::try_from(failed).unwrap_or(i64::MAX));
        if report.is_good() {
            self.mirror_last_success.get_or_create(&of).set(at);
        }
    }

    /// A transfer that had broken off goes on.
    pub(crate) fn resumed(&self, host: &str) {
        self.resumes.get_or_create(&Host::of(host)).inc();
    }

    /// A blob came from an upstream.
    pub(crate) fn filled(&self, host: &str) {
        self.fills.get_or_create(&Host::of(host)).inc();
    }

    /// A blob did not come.
    pub(crate) fn fill_failed(&self, host: &str) {
        self.fill_failures.get_or_create(&Host::of(host)).inc();
    }

    /// A stored tag was served without the upstream's word.
    pub(crate) fn stale(&self, host: &str) {
        self.stale.get_or_create(&Host::of(host)).inc();
    }

    /// So many bytes were here when they were asked for.
    pub(crate) fn cached(&self, host: &str, bytes: u64) {
        self.cache_saved_bytes.get_or_create(&Host::of(host)).inc_by(bytes);
    }

    /// A blob of so many bytes was taken from another repository.
    pub(crate) fn deduplicated(&self, host: &str, bytes: u64) {
        self.dedupe_saved_bytes.get_or_create(&Host::of(host)).inc_by(bytes);
    }

    /// So many bytes were sent to clients.
    pub(crate) fn served(&self, host: &str, bytes: u64) {
        self.served_bytes.get_or_create(&Host::of(host)).inc_by(bytes);
    }

    /// A client was told that there is nothing, as the upstream had said before.
    pub(crate) fn negative(&self, host: &str) {
        self.negative.get_or_create(&Host::of(host)).inc();
    }

    /// A layer came as a delta that was `saved` bytes smaller.
    pub(crate) fn delta_applied(&self, host: &str, saved: u64) {
        self.deltas_applied.get_or_create(&Host::of(host)).inc();
        self.delta_saved_bytes.get_or_create(&Host::of(host)).inc_by(saved);
    }

    /// A layer is fetched whole for this reason.
    pub(crate) fn delta_fallback(&self, host: &str, reason: &str) {
        let reason = Reason { upstream: host.to_owned(), reason: reason.to_owned() };
        self.delta_fallbacks.get_or_create(&reason).inc();
    }
}
