//! What the server counts, and `/metrics`.
//!
//! Labels are routes and statuses, never names: what exists is nobody's business who may not pull it. The exception are
//! users that the operator has listed to be counted by name, such as the sites of a hub.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use deltaport_registry::Registry;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry as Prometheus;

/// The media type of what `/metrics` answers.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = [(&'static str, Label); 3];

/// What a label's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Label {
    Word(&'static str),
    Status(u16),
}

impl prometheus_client::encoding::EncodeLabelValue for Label {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        match self {
            Self::Word(word) => word.encode(encoder),
            Self::Status(status) => u32::from(*status).encode(encoder),
        }
    }
}

/// What the server counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    shown: Prometheus,
    requests: Family<Labels, Counter>,
    seconds: Family<[(&'static str, &'static str); 1], Histogram>,
    body_bytes_in: Counter,
    body_bytes_out: Counter,
    connections: Gauge<i64, AtomicI64>,
    users: ByUser,
}

/// What is counted of those who are counted by name.
#[derive(Debug, Default)]
struct ByUser {
    listed: BTreeSet<String>,
    requests: Family<[(&'static str, String); 1], Counter>,
    bytes_in: Family<[(&'static str, String); 1], Counter>,
    bytes_out: Family<[(&'static str, String); 1], Counter>,
}

impl ByUser {
    fn new(listed: BTreeSet<String>) -> Self {
        let users = Self { listed, ..Self::default() };
        for user in &users.listed {
            // There from the beginning, so that a site that does not ask is seen not to ask.
            users.count(user, 0, 0, 0);
        }
        users
    }

    fn count(&self, user: &str, requests: u64, bytes_in: u64, bytes_out: u64) {
        for (family, count) in
            [(&self.requests, requests), (&self.bytes_in, bytes_in), (&self.bytes_out, bytes_out)]
        {
            family.get_or_create(&[("user", user.to_owned())]).inc_by(count);
        }
    }
}

/// One request, when it has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) route: &'static str,
    pub(crate) method: &'static str,
    pub(crate) status: u16,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) took: Duration,
    pub(crate) user: Option<&'a str>,
}

/// An open connection; closed when dropped.
pub(crate) struct Open<'a>(&'a Gauge<i64, AtomicI64>);

impl Metrics {
    /// Counts the users in `listed` by name.
    pub(crate) fn new(registry: &Registry, listed: BTreeSet<String>) -> Self {
        let mut metrics = Self {
            shown: Prometheus::with_prefix("deltaport"),
            requests: Family::default(),
            // From a quarter of a millisecond to a minute.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_25, 4.0, 10))),
            body_bytes_in: Counter::default(),
            body_bytes_out: Counter::default(),
            connections: Gauge::default(),
            users: ByUser::new(listed),
        };
        let shown = &mut metrics.shown;
        registry.metrics().register(shown);
        shown.register("http_requests", "Requests answered", metrics.requests.clone());
        shown.register("http_request_seconds", "Time from head to last byte", metrics.seconds.clone());
        shown.register("http_body_received_bytes", "Bytes of request bodies", metrics.body_bytes_in.clone());
        shown.register("http_body_sent_bytes", "Bytes of response bodies", metrics.body_bytes_out.clone());
        shown.register("http_connections", "Open connections", metrics.connections.clone());
        let users = &metrics.users;
        shown.register("user_requests", "Requests of a user who is counted by name", users.requests.clone());
        shown.register("user_received_bytes", "Bytes of their request bodies", users.bytes_in.clone());
        shown.register("user_sent_bytes", "Bytes of response bodies to them", users.bytes_out.clone());
        metrics
    }

    pub(crate) fn connection(&self) -> Open<'_> {
        self.connections.inc();
        Open(&self.connections)
    }

    pub(crate) fn request(&self, ended: Ended<'_>) {
        let labels = [
            ("route", Label::Word(ended.route)),
            ("method", Label::Word(ended.method)),
            ("status", Label::Status(ended.status)),
        ];
        self.requests.get_or_create(&labels).inc();
        self.seconds.get_or_create(&[("route", ended.route)]).observe(ended.took.as_secs_f64());
        self.body_bytes_in.inc_by(ended.bytes_in);
        self.body_bytes_out.inc_by(ended.bytes_out);
        if let Some(user) = ended.user.filter(|user| self.users.listed.contains(*user)) {
            self.users.count(user, 1, ended.bytes_in, ended.bytes_out);
        }
    }

    /// The numbers as text.
    pub(crate) fn render(&self) -> String {
        let mut text = String::with_capacity(8 << 10);
        // Writing to a string cannot fail, and half of the numbers are better than none.
        let _written = text::encode(&mut text, &self.shown);
        text
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
