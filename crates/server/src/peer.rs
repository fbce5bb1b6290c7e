//! What requests share, with all others and with those on the same connection, and who asks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use deltaport_registry::Registry;
use deltaport_trust::certificates;
use http::HeaderMap;

use crate::activity::Activity;
use crate::audit::AuditLog;
use crate::forwarded::TrustedProxies;
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
    pub(crate) proxies: TrustedProxies,
    pub(crate) audit: Option<AuditLog>,
    /// Whose certificates are whose.
    pub(crate) certificates: Vec<certificates::Identity>,
    pub(crate) limits: Limits,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) metrics: Metrics,
}

/// Where a request comes from, and what it shares with the others on its connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) shared: Arc<Shared>,
    /// The other end of the connection.
    pub(crate) address: SocketAddr,
    /// Who asks. Not the other end when that is a trusted proxy, which then speaks for another client with each request.
    pub(crate) client: IpAddr,
    /// The user that came with the certificate of the connection.
    pub(crate) certified: Option<Arc<str>>,
    pub(crate) activity: Arc<Activity>,
}

impl Peer {
    /// The end of a connection, which speaks for itself.
    pub(crate) fn new(shared: Arc<Shared>, address: SocketAddr, activity: Arc<Activity>) -> Self {
        let client = address.ip().to_canonical();
        Self { shared, address, client, certified: None, activity }
    }

    /// The same for a request with these headers.
    pub(crate) fn asks(self, headers: &HeaderMap) -> Self {
        let client = self.shared.proxies.client(self.address.ip(), headers);
        Self { client, ..self }
    }

    /// The proxy that speaks for the client, if one does.
    pub(crate) fn proxy(&self) -> Option<SocketAddr> {
        (self.client != self.address.ip().to_canonical()).then_some(self.address)
    }

    /// The client for people: its address, and its port where that is known.
    pub(crate) fn shown(&self) -> String {
        self.proxy().map_or_else(|| self.address.to_string(), |_| self.client.to_string())
    }
}
