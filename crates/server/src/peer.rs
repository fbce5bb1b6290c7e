//! What requests share: with all others, and with those on the same connection.

use std::net::SocketAddr;
use std::sync::Arc;

use deltaport_registry::Registry;

use crate::activity::Activity;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::options::Limits;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
}

/// What all requests on one connection share.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    pub(crate) activity: Arc<Activity>,
}
