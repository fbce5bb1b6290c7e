//! One request from its head to the last byte of its answer: counted and logged once, however it ends.

use std::io;
use std::time::Instant;

use deltaport_oci::RepositoryName;
use deltaport_trust::Caller;
use http::request::Parts;
use http::{Method, Uri};

use crate::activity::Running;
use crate::metrics::Ended;
use crate::peer::Peer;

/// One request and what became of it; counted and logged when the last byte has been handed over, or never will be.
#[derive(Debug)]
pub(crate) struct Exchange {
    peer: Peer,
    _running: Running,
    begun: Instant,
    method: Method,
    uri: Uri,
    /// What the path means, as a label.
    pub(crate) route: &'static str,
    /// Who asked.
    pub(crate) caller: Caller,
    /// The repository that content is pulled from.
    pub(crate) pulled: Option<RepositoryName>,
    /// The status of the answer.
    pub(crate) status: u16,
    /// Bytes of the request's body that were read.
    pub(crate) bytes_in: u64,
    bytes_out: u64,
}

impl Exchange {
    pub(crate) fn new(peer: &Peer, request: &Parts) -> Self {
        Self {
            _running: peer.activity.run(),
            peer: peer.clone(),
            begun: Instant::now(),
            method: request.method.clone(),
            uri: request.uri.clone(),
            route: "none",
            caller: Caller::default(),
            pulled: None,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// More of the answer was handed over.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// The answer cannot be completed.
    pub(crate) fn broke(&self, error: &io::Error) {
        tracing::warn!(path = self.uri.path(), %error, "an answer broke off");
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        let (bytes_in, bytes_out, status) = (self.bytes_in, self.bytes_out, self.status);
        let method = method_label(&self.method);
        let ended = Ended { route: self.route, method, status, bytes_in, bytes_out, took };
        self.peer.shared.metrics.request(ended);
        if let Some(repository) = self.pulled.as_ref().filter(|_| (200..300).contains(&status)) {
            self.peer.shared.registry.count_served(repository, bytes_out);
        }
        // The path, not the query: what is secret has no place in a query, but somebody might put it there.
        tracing::info!(
            method,
            path = self.uri.path(),
            route = self.route,
            status,
            bytes_in,
            bytes_out,
            ms = took.as_micros() as f64 / 1000.0,
            caller = self.caller.user.as_deref().unwrap_or(if self.caller.local { "(local)" } else { "(anonymous)" }),
            peer = %self.peer.address,
            "request"
        );
    }
}

/// Methods that anybody invents must not each become a time series.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
