//! What requests share: with all others, and with those on the same connection.

use std::net::SocketAddr;
use std::sync::Arc;

use deltaport_registry::Registry;
use deltaport_trust::certificates;

use crate::activity::Activity;
use crate::audit::AuditLog;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::options::{Limits, Redirect};
use crate::realm::Realm;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) identity: Identity,
    pub(crate) realm: Realm,
    pub(crate) audit: Option<AuditLog>,
    /// Whose certificates are whose.
    pub(crate) certificates: Vec<certificates::Identity>,
    pub(crate) limits: Limits,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) metrics: Metrics,
}

/// What all requests on one connection share.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    /// The user that came with the certificate of the connection.
    pub(crate) certified: Option<Arc<str>>,
    pub(crate) activity: Arc<Activity>,
}
