//! From a request to its answer: what it means, who asks, whether they may, and one line in the log.

use std::sync::Arc;

use deltaport_oci::RepositoryName;
use deltaport_oci::wire::{Query, Route, RouteError};
use deltaport_trust::{Action, Caller};
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::body::{Body, Content};
use crate::error::Failure;
use crate::exchange::Exchange;
use crate::handlers::{self, Asked};
use crate::identity::Credentials;
use crate::peer::Peer;
use crate::realm::{self, TOKEN_PATH};
use crate::request::Payload;

/// Answers one request.
pub(crate) async fn handle(request: Request<Incoming>, peer: Peer) -> Response<Body> {
    let (request, incoming) = request.into_parts();
    let peer = peer.asks(&request.headers);
    let mut exchange = Exchange::new(&peer, &request);
    let mut payload = Payload::new(incoming, Arc::clone(&peer.activity));
    let answer = answer(&peer, &request, &mut payload, &mut exchange).await;
    let mut response = answer.unwrap_or_else(|failure| refuse(&peer, &request, &mut exchange, failure));
    // What was pushed is what it says it is, and no page because it looks like one.
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if request.method == Method::HEAD {
        // The headers are those of GET, the length included.
        *response.body_mut() = Content::Empty;
    }
    if !payload.is_empty() {
        peer.activity.leave_unread();
    }
    exchange.answered(&response);
    exchange.bytes_in = payload.received();
    response.map(|content| Body::new(content, peer.activity, exchange))
}

/// The answer that says why there is no other. Who has to log in for a resource is asked for a token, where there are any.
fn refuse(peer: &Peer, request: &Parts, exchange: &mut Exchange, failure: Failure) -> Response<Content> {
    exchange.refused(&failure);
    if exchange.claimed.is_none() && failure.is_about_credentials() {
        exchange.claimed = request.headers.get(AUTHORIZATION).map(claimed);
    }
    let token_error = failure.token_error();
    let mut response = failure.into_response();
    if response.status() == StatusCode::UNAUTHORIZED && exchange.route != TOKEN {
        let challenge = peer.shared.realm.bearer(request, exchange.scope.as_deref(), token_error);
        if let Some(challenge) = challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
    }
    response
}

/// Who a header that is not believed says it is from.
fn claimed(header: &HeaderValue) -> String {
    match header.to_str().ok().and_then(Credentials::parse) {
        Some(Credentials::Basic { user, .. }) => user,
        Some(Credentials::Bearer(_)) => "(a token)".to_owned(),
        None => "(not readable)".to_owned(),
    }
}

async fn answer(
    peer: &Peer,
    request: &Parts,
    payload: &mut Payload,
    exchange: &mut Exchange,
) -> Result<Response<Content>, Failure> {
    let target = Target::parse(request.uri.path())?;
    exchange.route = target.label();
    let route = match target {
        Target::Api(route) => route,
        Target::Health => return handlers::health::health(request),
        Target::Ready => return handlers::health::ready(peer, request).await,
        Target::Metrics => return handlers::health::metrics(peer, request),
        Target::Token => return handlers::token::token(peer, request, payload, exchange).await,
    };
    let action = action(&route, &request.method)?;
    let named = route.repository().cloned();
    exchange.action = Some(action);
    exchange.scope = match (&named, &route) {
        (Some(name), _) => Some(realm::scope(action, name.as_str())),
        (None, Route::Catalog) => Some("registry:catalog:*".to_owned()),
        (None, _) => None,
    };
    let mut caller = peer.shared.identity.caller(request, peer).await?;
    exchange.caller.clone_from(&caller);

    let query = Query::parse(request.uri.query().unwrap_or_default());
    let namespace = query.first("ns").filter(|_| action == Action::Pull);
    let (route, namespace) = locate(peer, route, namespace, host(request))?;
    if let (Action::Pull, Route::Blob(name, _) | Route::LayerDelta(name) | Route::Manifest(name, _)) =
        (action, &route)
    {
        exchange.pulled = Some(name.clone());
    }
    translate(&mut caller, named.as_ref(), &route);
    authorize(peer, &caller, action, &route)?;
    let asked = Asked { peer, caller: &caller, request, query, named, payload };
    handlers::call(route, namespace, asked).await
}

/// Takes the names in a token as the client means them: it knows a repository by the name that it asks for, and here that
/// may be called otherwise. A token for the list of repositories is for all that the caller may see in it.
fn translate(caller: &mut Caller, named: Option<&RepositoryName>, route: &Route) {
    let Some(within) = &caller.within else { return };
    match (named, route.repository()) {
        (Some(named), Some(here)) if named != here => caller.within = Some(within.also(named, here).into()),
        (None, None) if matches!(route, Route::Catalog) && within.permit_catalog() => caller.within = None,
        _ => {}
    }
}

/// Asks whether the caller may. Who has not logged in is told to, and whose token is for less than its holder may do, to
/// take another one.
fn authorize(peer: &Peer, caller: &Caller, action: Action, route: &Route) -> Result<(), Failure> {
    let ask = |caller: &Caller| peer.shared.registry.authorize(caller, action, route.repository());
    let Err(refusal) = ask(caller) else { return Ok(()) };
    if caller.within.is_some() && ask(&caller.unlimited()).is_ok() {
        return Err(Failure::Scope);
    }
    if caller.user.is_none() { Err(Failure::LogIn) } else { Err(refusal.into()) }
}

/// What a path means, ours included.
enum Target {
    Api(Route),
    Health,
    Metrics,
    Ready,
    Token,
}

/// What the token endpoint is called in logs and metrics.
const TOKEN: &str = "token";

impl Target {
    fn parse(path: &str) -> Result<Self, RouteError> {
        match path {
            "/healthz" => Ok(Self::Health),
            "/readyz" => Ok(Self::Ready),
            "/metrics" => Ok(Self::Metrics),
            TOKEN_PATH => Ok(Self::Token),
            _ => Ok(Self::Api(Route::parse(path)?)),
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Ready => "ready",
            Self::Token => TOKEN,
            Self::Api(route) => match route {
                Route::Base => "base",
                Route::Blob(..) => "blob",
                Route::Catalog => "catalog",
                Route::Extensions => "extensions",
                Route::Image(..) => "image",
                Route::LayerDelta(_) => "layer_delta",
                Route::Manifest(..) => "manifest",
                Route::Mirror(..) => "mirror",
                Route::Mirrors => "mirrors",
                Route::Referrers(..) => "referrers",
                Route::Tags(_) => "tags",
                Route::Upload(..) => "upload",
                Route::Uploads(_) => "uploads",
            },
        }
    }
}

/// What a method does to a path, as the rules see it.
fn action(route: &Route, method: &Method) -> Result<Action, Failure> {
    let (allow, action) = match route {
        Route::Base
        | Route::Catalog
        | Route::Extensions
        | Route::Mirrors
        | Route::Tags(_)
        | Route::Referrers(..)
        | Route::LayerDelta(_) => ("GET, HEAD", pulls(method)),
        Route::Blob(..) => ("GET, HEAD, DELETE", pulls(method).or_else(|| deletes(method))),
        Route::Uploads(_) => ("POST", (method == Method::POST).then_some(Action::Push)),
        Route::Upload(..) => {
            // Asking for the state of an upload, or giving it up, is part of pushing.
            let part_of_push = [Method::GET, Method::HEAD, Method::PATCH, Method::PUT, Method::DELETE];
            ("GET, HEAD, PATCH, PUT, DELETE", part_of_push.contains(method).then_some(Action::Push))
        }
        // Completing brings content, pruning takes it away.
        Route::Image(..) => {
            let pushes = (method == Method::POST).then_some(Action::Push);
            ("GET, HEAD, POST, DELETE", pulls(method).or(pushes).or_else(|| deletes(method)))
        }
        // Running a rule brings content, too.
        Route::Mirror(..) => {
            let pushes = (method == Method::POST).then_some(Action::Push);
            ("GET, HEAD, POST", pulls(method).or(pushes))
        }
        Route::Manifest(..) => {
            let pushes = (method == Method::PUT).then_some(Action::Push);
            ("GET, HEAD, PUT, DELETE", pulls(method).or(pushes).or_else(|| deletes(method)))
        }
    };
    action.ok_or(Failure::Method(allow))
}

fn pulls(method: &Method) -> Option<Action> {
    (method == Method::GET || method == Method::HEAD).then_some(Action::Pull)
}

fn deletes(method: &Method) -> Option<Action> {
    (method == Method::DELETE).then_some(Action::Delete)
}

/// The same route in the repository that stands for the one that the client means, and, if the client named it with
/// `ns`, the registry that it stands for.
fn locate(
    peer: &Peer,
    route: Route,
    namespace: Option<&str>,
    host: Option<&str>,
) -> Result<(Route, Option<Arc<str>>), Failure> {
    let Some(repository) = route.repository() else { return Ok((route, None)) };
    let located = peer.shared.registry.locate(repository, namespace, host)?;
    let (name, namespace) = (located.repository.into_owned(), located.namespace);
    let route = match route {
        Route::Base | Route::Catalog | Route::Extensions | Route::Mirrors => route,
        Route::Blob(_, digest) => Route::Blob(name, digest),
        Route::Image(_, reference) => Route::Image(name, reference),
        Route::LayerDelta(_) => Route::LayerDelta(name),
        Route::Manifest(_, reference) => Route::Manifest(name, reference),
        Route::Mirror(_, rule) => Route::Mirror(name, rule),
        Route::Referrers(_, digest) => Route::Referrers(name, digest),
        Route::Tags(_) => Route::Tags(name),
        Route::Upload(_, id) => Route::Upload(name, id),
        Route::Uploads(_) => Route::Uploads(name),
    };
    Ok((route, namespace))
}

/// What the client calls this registry, without a port: `:authority` in HTTP/2, `Host` before.
pub(crate) fn host(request: &Parts) -> Option<&str> {
    let authority = match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => request.headers.get(HOST)?.to_str().ok()?,
    };
    // An IPv6 address has colons of its own, and then brackets around them.
    let port = authority.rfind(':').filter(|colon| authority.rfind(']') < Some(*colon));
    Some(&authority[..port.unwrap_or(authority.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_the_client_calls_us() {
        let parts = |uri: &str, headers: &[(&str, &str)]| {
            let request = headers
                .iter()
                .fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
            request.body(()).expect("a request").into_parts().0
        };
        for (value, expected) in [
            ("mirror.example", "mirror.example"),
            ("mirror.example:5000", "mirror.example"),
            ("[::1]:5000", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
            (":", ""),
        ] {
            assert_eq!(host(&parts("/v2/", &[("host", value)])), Some(expected), "{value}");
        }
        assert_eq!(host(&parts("/v2/", &[])), None);
        let other = [("host", "other.example")];
        assert_eq!(host(&parts("https://mirror.example:443/v2/", &other)), Some("mirror.example"));
    }
}
