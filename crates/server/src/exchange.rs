//! One request from its head to the last byte of its answer: counted and logged once, however it ends.

use std::io;
use std::time::Instant;

use deltaport_oci::RepositoryName;
use deltaport_trust::{Action, Caller};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};

use crate::activity::Running;
use crate::audit::Entry;
use crate::body::Content;
use crate::error::Failure;
use crate::metrics::Ended;
use crate::peer::Peer;
use crate::respond::DOCKER_CONTENT_DIGEST;

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
    /// Who the caller claimed to be, when that could not be established.
    pub(crate) claimed: Option<String>,
    /// What it is to be done.
    pub(crate) action: Option<Action>,
    /// The scope that a token for it needs.
    pub(crate) scope: Option<String>,
    /// Why it was not done: the code and the sentence of the answer.
    refusal: Option<(&'static str, String)>,
    /// Whether that is because of what the content is.
    unacceptable: bool,
    /// The digest that the answer is about.
    digest: Option<String>,
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
            claimed: None,
            action: None,
            scope: None,
            refusal: None,
            unacceptable: false,
            digest: None,
            pulled: None,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// It is refused.
    pub(crate) fn refused(&mut self, failure: &Failure) {
        self.unacceptable = failure.is_about_content();
        self.refusal = Some((failure.code(), failure.to_string()));
    }

    /// This is the answer.
    pub(crate) fn answered(&mut self, response: &Response<Content>) {
        self.status = response.status().as_u16();
        let digest = response.headers().get(DOCKER_CONTENT_DIGEST);
        self.digest = digest.and_then(|digest| Some(digest.to_str().ok()?.to_owned()));
    }

    /// What the audit log calls this, if it belongs there. A question without credentials that is answered with "log in"
    /// does not: that is how every log-in begins.
    fn event(&self) -> Option<&'static str> {
        let status = StatusCode::from_u16(self.status).ok()?;
        let changes = matches!(self.action, Some(Action::Push | Action::Delete));
        let part = self.method == Method::GET || self.method == Method::HEAD;
        match (status, self.action?) {
            _ if self.unacceptable => Some("refused"),
            (StatusCode::UNAUTHORIZED, _) => self.claimed.is_some().then_some("login_failed"),
            (StatusCode::TOO_MANY_REQUESTS, _) if self.claimed.is_some() => Some("login_throttled"),
            (StatusCode::FORBIDDEN, _) => Some("denied"),
            (StatusCode::CREATED, Action::Push) => Some("push"),
            (status, Action::Delete) if status.is_success() => Some("delete"),
            (StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE, _) => None,
            (status, _) if status.is_client_error() && changes && !part => Some("refused"),
            _ => None,
        }
    }

    fn audit(&self) {
        let Some(audit) = &self.peer.shared.audit else { return };
        let Some(event) = self.event() else { return };
        audit.write(&Entry {
            event,
            user: self.caller.user.as_deref(),
            claimed: self.claimed.as_deref(),
            peer: self.peer.shown(),
            via: self.peer.proxy().map(|proxy| proxy.to_string()),
            method: self.method.as_str(),
            path: self.uri.path(),
            status: self.status,
            digest: self.digest.as_deref().filter(|_| self.refusal.is_none()),
            code: self.refusal.as_ref().map(|(code, _)| *code),
            reason: self.refusal.as_ref().map(|(_, reason)| reason.as_str()),
        });
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
        let user = self.caller.user.as_deref();
        let ended = Ended { route: self.route, method, status, bytes_in, bytes_out, took, user };
        self.peer.shared.metrics.request(ended);
        self.audit();
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
            caller = self.caller.user.as_deref().unwrap_or(if self.caller.local {
                "(local)"
            } else {
                "(anonymous)"
            }),
            peer = self.peer.shown(),
            via = self.peer.proxy().map(tracing::field::display),
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
