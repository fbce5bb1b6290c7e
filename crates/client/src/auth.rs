//! Who we are to an upstream: Basic, and tokens (the token specification of distribution, "Token Authentication").
//!
//! A registry that asks for a token says where to get it. Believing that blindly gives the password to whoever can
//! write one header (CVE-2026-33540 and its kin), so the token service must be on the registry's own host or be named
//! in the configuration.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use reqwest::Url;
use serde::Deserialize;

use crate::challenge::Challenge;
use crate::error::ErrorKind;
use crate::options::{Credentials, Options};
use crate::transport::{Request, Transport};

/// The largest answer of a token service.
const MAX_TOKEN_ANSWER: u64 = 64 * 1024;
/// How many tokens are kept for one upstream; one is needed per repository.
const MAX_GRANTS: usize = 1024;
/// How long a token is valid when the service does not say (the specification's number).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// The longest that a token is used, whatever the service says.
const MAX_LIFE: Duration = Duration::from_secs(60 * 60);
/// How long before its end a token is no longer used, so that it does not expire on its way.
const MARGIN: Duration = Duration::from_secs(5);

/// Token services that are not on the host of their registry, as everybody knows.
const WELL_KNOWN: [(&str, &str); 2] =
    [("registry-1.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

type Result<T> = std::result::Result<T, ErrorKind>;

/// The credentials for one upstream and what they have been exchanged for.
#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Option<Credentials>,
    token_hosts: Vec<String>,
    grants: Mutex<HashMap<String, Grant>>,
    /// Held while a token is fetched: those who need the same one wait for it instead of asking again.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Grant {
    header: HeaderValue,
    until: Option<Instant>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Auth {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            credentials: options.credentials.clone(),
            token_hosts: options.token_hosts.clone(),
            grants: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// The authorization that has worked for `scope` and still should.
    pub(crate) fn known(&self, scope: &str) -> Option<HeaderValue> {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let grant = grants.get(scope)?;
        grant.until.is_none_or(|until| Instant::now() < until).then(|| grant.header.clone())
    }

    /// Answers a challenge. `tried` is what has just been refused.
    ///
    /// Fails when there is nothing better to try.
    pub(crate) async fn answer(
        &self,
        transport: &Transport,
        challenge: Option<Challenge>,
        scope: &str,
        tried: Option<&HeaderValue>,
    ) -> Result<HeaderValue> {
        let grant = match challenge {
            None => {
                return Err(ErrorKind::Denied("asks for credentials in a way that is not known".to_owned()));
            }
            Some(Challenge::Basic) => Grant { header: self.basic()?, until: None },
            Some(Challenge::Bearer { realm, service, scope: asked }) => {
                let _alone = self.fetching.lock().await;
                if let Some(known) = self.known(scope).filter(|known| Some(known) != tried) {
                    return Ok(known);
                }
                let mut realm = self.check_realm(transport.home(), &realm)?;
                realm.query_pairs_mut().extend_pairs(service.iter().map(|service| ("service", service)));
                realm.query_pairs_mut().append_pair("scope", asked.as_deref().unwrap_or(scope));
                self.fetch(transport, realm).await?
            }
        };
        if Some(&grant.header) == tried {
            return Err(ErrorKind::Denied("does not accept the configured credentials".to_owned()));
        }
        self.remember(scope, grant.clone());
        Ok(grant.header)
    }

    fn remember(&self, scope: &str, grant: Grant) {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.len() >= MAX_GRANTS {
            let now = Instant::now();
            grants.retain(|_, grant| grant.until.is_none_or(|until| now < until));
        }
        if grants.len() >= MAX_GRANTS {
            grants.clear();
        }
        grants.insert(scope.to_owned(), grant);
    }

    fn basic(&self) -> Result<HeaderValue> {
        let Some(Credentials { username, password }) = &self.credentials else {
            return Err(ErrorKind::Denied("asks for a password, and none is configured".to_owned()));
        };
        secret(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
    }

    /// The token service's address, if it may be asked.
    fn check_realm(&self, home: &Url, realm: &str) -> Result<Url> {
        let url =
            Url::parse(realm).map_err(|_| ErrorKind::protocol("names a token service that is no address"))?;
        let (Some(host), Some(own)) = (url.host_str(), home.host_str()) else {
            return Err(ErrorKind::protocol("names a token service without a host"));
        };
        if url.scheme() != "https" && (home.scheme() == "https" || url.scheme() != "http") {
            return Err(ErrorKind::protocol(format!("names the token service {host} without TLS")));
        }
        let named = self.token_hosts.iter().any(|name| name.eq_ignore_ascii_case(host));
        if host != own && !named && !WELL_KNOWN.contains(&(own, host)) {
            return Err(ErrorKind::Denied(format!(
                "names {host} as its token service; if that is right, add it to token_hosts of this upstream"
            )));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ErrorKind::protocol("names a token service with a password in its address"));
        }
        Ok(url)
    }

    async fn fetch(&self, transport: &Transport, url: Url) -> Result<Grant> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if self.credentials.is_some() {
            headers.insert(http::header::AUTHORIZATION, self.basic()?);
        }
        let request = Request { method: Method::GET, url, headers, authorization: None, follow: false };
        let mut answer = transport.send(&request).await?;
        if !answer.status().is_success() {
            return Err(match answer.into_error().await {
                ErrorKind::NotFound => ErrorKind::protocol("the token service answers 404"),
                ErrorKind::Denied(_) => ErrorKind::Denied("the token service refuses a token".to_owned()),
                other => other,
            });
        }
        let body = answer.read("the token service's answer", MAX_TOKEN_ANSWER).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| ErrorKind::protocol("the token service's answer is not what it should be"))?;
        let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
        let token = token.ok_or_else(|| ErrorKind::protocol("the token service's answer has no token"))?;
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).min(MAX_LIFE);
        let until = Instant::now() + life.saturating_sub(MARGIN);
        Ok(Grant { header: secret(format!("Bearer {token}"))?, until: Some(until) })
    }
}

/// A header value that no log shows.
fn secret(text: String) -> Result<HeaderValue> {
    let value = HeaderValue::try_from(text);
    let mut value = value.map_err(|_| ErrorKind::protocol("credentials that do not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(home: &str, realm: &str) -> bool {
        let mut options = Options::new("r", home);
        options.token_hosts = vec!["tokens.example".to_owned()];
        Auth::new(&options).check_realm(&Url::parse(home).unwrap(), realm).is_ok()
    }

    #[test]
    fn realms() {
        for (home, realm, good) in [
            ("https://r.example", "https://r.example/token", true),
            ("https://r.example:5000", "https://r.example/token", true),
            ("https://r.example", "https://tokens.example/", true),
            ("https://r.example", "https://TOKENS.example/", true),
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
            ("http://r.example", "https://r.example/token", true),
            ("http://r.example", "http://r.example/token", true),
            ("https://r.example", "http://r.example/token", false),
            ("https://r.example", "https://evil.example/", false),
            ("https://r.example", "https://r.example.evil/", false),
            ("https://r.example", "https://r.example@evil.example/", false),
            ("https://r.example", "https://user:pw@r.example/", false),
            ("https://auth.docker.io", "https://registry-1.docker.io/", false),
            ("https://r.example", "file:///etc/passwd", false),
            ("https://r.example", "/token", false),
        ] {
            assert_eq!(check(home, realm), good, "{home} {realm}");
        }
    }
}
