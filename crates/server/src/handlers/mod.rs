//! One use case of the registry each: read its arguments out of the request, call it, write down its answer.
//!
//! Who asks and whether they may has been decided before anything here runs.

mod blobs;
mod conditional;
mod deltas;
pub(crate) mod health;
mod images;
mod lists;
mod manifests;
mod mirrors;
pub(crate) mod token;
mod uploads;

use std::sync::Arc;

use deltaport_oci::RepositoryName;
use deltaport_oci::wire::{Query, Route};
use deltaport_trust::Caller;
use http::request::Parts;
use http::{Method, Response};

use crate::body::Content;
use crate::error::Failure;
use crate::options::Redirect;
use crate::peer::Peer;
use crate::request::Payload;
use crate::respond::OCI_NAMESPACE;

/// What a handler works with.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) caller: &'a Caller,
    pub(crate) request: &'a Parts,
    pub(crate) query: Query<'a>,
    /// The repository as the client calls it, which is not always the one that answers.
    pub(crate) named: Option<RepositoryName>,
    pub(crate) payload: &'a mut Payload,
}

impl<'a> Asked<'a> {
    pub(crate) fn registry(&self) -> &'a deltaport_registry::Registry {
        &self.peer.shared.registry
    }

    /// Where the client is sent for the bytes of blobs, if it can get there.
    pub(crate) fn redirect(&self) -> Option<&'a Redirect> {
        let redirect = self.peer.shared.redirect.as_ref()?;
        redirect.networks.iter().any(|network| network.contains(self.peer.client)).then_some(redirect)
    }

    /// What a link in the answer must call the repository `name`: links are understood as this request was.
    pub(crate) fn link_name(&self, name: &RepositoryName) -> RepositoryName {
        self.named.as_ref().unwrap_or(name).clone()
    }

    /// What a link must say besides, for the same reason.
    pub(crate) fn link_namespace(&self) -> Option<(&'static str, &str)> {
        self.query.first("ns").map(|namespace| ("ns", namespace))
    }
}

/// Calls the handler of a route. `namespace` is the registry that the repository stands for, if the client named one.
pub(crate) async fn call(
    route: Route,
    namespace: Option<Arc<str>>,
    asked: Asked<'_>,
) -> Result<Response<Content>, Failure> {
    let method = &asked.request.method;
    let answer = match route {
        Route::Base => lists::base(&asked),
        Route::Blob(name, digest) => match *method {
            Method::DELETE => blobs::delete(asked, &name, &digest).await?,
            Method::HEAD => blobs::head(asked, &name, &digest).await?,
            _ => blobs::get(asked, &name, &digest).await?,
        },
        Route::Catalog => lists::catalog(asked).await?,
        Route::Extensions => lists::extensions(),
        Route::Image(name, reference) => match *method {
            Method::DELETE => images::prune(asked, &name, &reference).await?,
            Method::POST => images::complete(asked, &name, &reference).await?,
            _ => images::show(asked, &name, &reference).await?,
        },
        Route::LayerDelta(name) => deltas::layer(asked, name).await?,
        Route::Manifest(name, reference) => match *method {
            Method::DELETE => manifests::delete(asked, &name, &reference).await?,
            Method::PUT => manifests::put(asked, name, reference).await?,
            _ => manifests::get(asked, &name, &reference).await?,
        },
        Route::Mirror(name, rule) => match *method {
            Method::POST => mirrors::run(asked, &name, &rule).await?,
            _ => mirrors::plan(asked, &name, &rule).await?,
        },
        Route::Mirrors => mirrors::list(asked).await,
        Route::Referrers(name, subject) => lists::referrers(asked, name, subject).await?,
        Route::Tags(name) => lists::tags(asked, name).await?,
        Route::Upload(name, id) => match *method {
            Method::DELETE => uploads::cancel(asked, &name, &id).await?,
            Method::PATCH => uploads::patch(asked, &name, &id).await?,
            Method::PUT => uploads::put(asked, &name, &id).await?,
            _ => uploads::status(asked, &name, &id).await?,
        },
        Route::Uploads(name) => uploads::post(asked, name).await?,
    };
    let answer = match &namespace {
        Some(namespace) => answer.header(OCI_NAMESPACE, namespace),
        None => answer,
    };
    Ok(answer.into_response())
}
