//! The token endpoint: what clients exchange their credentials at for an access token ("Token Authentication" and "OAuth2
//! Token Authentication" of distribution).
//!
//! No refresh tokens are given out: whoever wants credentials that are not a password has robots.

use deltaport_oci::wire::{Query, RouteError};
use deltaport_registry::tokens::AccessTokens;
use deltaport_trust::tokens::{ACCESS_TOKEN_LIFE, Grant, Scopes};
use deltaport_trust::{Action, Caller};
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::json;

use crate::body::Content;
use crate::dispatch::host;
use crate::error::Failure;
use crate::exchange::Exchange;
use crate::peer::Peer;
use crate::request::{Payload, media_type};
use crate::respond::Answer;

/// The largest form, in bytes.
const MAX_FORM: usize = 64 << 10;
/// What a form is sent as.
const FORM: &str = "application/x-www-form-urlencoded";

/// GET with credentials in the header or none, and POST of a form with them.
pub(crate) async fn token(
    peer: &Peer,
    request: &Parts,
    payload: &mut Payload,
    exchange: &mut Exchange,
) -> Result<Response<Content>, Failure> {
    let tokens = peer.shared.identity.access_tokens.as_ref().ok_or(Failure::Route(RouteError::Path))?;
    // Taking a token is how reading begins; for the audit log it is no more than that.
    exchange.action = Some(Action::Pull);
    let (caller, scopes) = match request.method {
        Method::GET => by_header(peer, request, tokens).await?,
        Method::POST => by_form(peer, request, payload, exchange, tokens).await?,
        _ => return Err(Failure::Method("GET, POST")),
    };
    exchange.caller.clone_from(&caller);
    // A token for a token would let whoever got hold of one keep it alive, and widen it.
    if caller.within.is_some() {
        return Err(Failure::Token);
    }
    let scopes = peer.shared.registry.scopes(&caller, scopes, host(request));
    let scope = scopes.to_string();
    let token = tokens.issue(&Grant { user: caller.user, scopes });
    let token =
        token.ok_or_else(|| deltaport_registry::Error::internal("there is no key to sign tokens with"))?;
    let answer = json!({
        "token": token,
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": ACCESS_TOKEN_LIFE,
        "scope": scope,
    });
    Ok(Answer::new(StatusCode::OK)
        .header(CACHE_CONTROL, "no-store")
        .json("application/json", &answer)
        .into_response())
}

async fn by_header(peer: &Peer, request: &Parts, tokens: &AccessTokens) -> Result<(Caller, Scopes), Failure> {
    let query = Query::parse(request.uri.query().unwrap_or_default());
    let scopes = scopes(&query, tokens)?;
    Ok((peer.shared.identity.caller(request, peer).await?, scopes))
}

async fn by_form(
    peer: &Peer,
    request: &Parts,
    payload: &mut Payload,
    exchange: &mut Exchange,
    tokens: &AccessTokens,
) -> Result<(Caller, Scopes), Failure> {
    if !media_type(&request.headers).eq_ignore_ascii_case(FORM) {
        return Err(Failure::TokenRequest("a form is needed: application/x-www-form-urlencoded"));
    }
    let body = payload.all(MAX_FORM).await?.ok_or(Failure::TokenRequest("the form is too long"))?;
    let form = std::str::from_utf8(&body).map_err(|_| Failure::TokenRequest("the form is not UTF-8"))?;
    let form = Query::parse(form);
    let scopes = scopes(&form, tokens)?;
    let field = |name: &str| form.first(name).unwrap_or_default();
    let identity = &peer.shared.identity;
    let caller = match field("grant_type") {
        "password" => {
            let user = field("username");
            exchange.claimed = Some(user.to_owned());
            identity.log_in(peer, user, field("password")).await?
        }
        // What clients keep as an identity token, and send here: a robot's secret, or a token of a job.
        "refresh_token" => {
            exchange.claimed = Some("(a token)".to_owned());
            identity.bearer(field("refresh_token")).await?
        }
        _ => return Err(Failure::TokenRequest("grant_type must be password or refresh_token")),
    };
    exchange.claimed = None;
    Ok((caller, scopes))
}

/// What the token is to be for. The service, where it is named, must be this one.
fn scopes(query: &Query<'_>, tokens: &AccessTokens) -> Result<Scopes, Failure> {
    if query.first("service").is_some_and(|service| !service.is_empty() && service != tokens.service()) {
        return Err(Failure::TokenRequest("this is the token endpoint of another service"));
    }
    Scopes::requested(query.all("scope")).map_err(|_| Failure::TokenRequest("too many scopes for one token"))
}
