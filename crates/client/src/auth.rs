//! Who we are to an upstream: Basic, and tokens (the token specification of distribution, "Token Authentication" and
//! "OAuth2 Token Authentication").
//!
//! A registry that asks for a token says where to get it. Believing that blindly gives the password to whoever can
//! write one header (CVE-2026-33540 and its kin), so the token service must be on the registry's own host or be named
//! in the configuration. Nor does the registry decide what the token allows: whoever gets one to read with must not be
//! able to have it made out for writing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_oci::RepositoryName;
use deltaport_oci::wire::Query;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use reqwest::Url;
use serde::Deserialize;

use crate::challenge::Challenge;
use crate::credentials::{Credentials, Keyring, Login};
use crate::error::ErrorKind;
use crate::options::Options;
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
/// No scope is called that.
const ANY_SCOPE: &str = "*";
/// What we are called where a token service wants a name for the program.
const CLIENT_ID: &str = "deltaport";

/// Token services that are not on the host of their registry, as everybody knows. All the other large public
/// registries have theirs on their own host (ghcr.io, quay.io, gcr.io, public.ecr.aws) or ask for nothing
/// (registry.k8s.io, mcr.microsoft.com, registry.access.redhat.com).
const WELL_KNOWN: [(&str, &str); 3] = [
    ("registry-1.docker.io", "auth.docker.io"),
    ("index.docker.io", "auth.docker.io"),
    ("registry.gitlab.com", "gitlab.com"),
];

type Result<T> = std::result::Result<T, ErrorKind>;

/// What a request must be allowed to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// To which repository; `None` for what is about none.
    pub(crate) repository: Option<&'a RepositoryName>,
    /// The words of the token specification, with commas.
    actions: &'static str,
}

impl<'a> Scope<'a> {
    /// What is about no repository.
    pub(crate) const REGISTRY: Self = Self { repository: None, actions: "" };

    /// The names of all repositories.
    pub(crate) const CATALOG: Self = Self { repository: None, actions: "*" };

    pub(crate) fn pull(repository: &'a RepositoryName) -> Self {
        Self { repository: Some(repository), actions: "pull" }
    }

    pub(crate) fn push(repository: &'a RepositoryName) -> Self {
        Self { repository: Some(repository), actions: "pull,push" }
    }

    pub(crate) fn delete(repository: &'a RepositoryName) -> Self {
        Self { repository: Some(repository), actions: "pull,delete" }
    }

    /// The scope to ask a token service for, when the registry has asked for `asked`. Registries have scopes of their
    /// own (`aws`), and proxies other names for a repository; but nobody gets more actions than we need.
    fn narrow(&self, asked: Option<&str>) -> String {
        let own = self.to_string();
        let mut parts: Vec<String> = Vec::new();
        for part in asked.unwrap_or_default().split_whitespace() {
            let part = match part.rsplit_once(':') {
                None => part.to_owned(),
                Some((resource, _)) if own.rsplit_once(':').is_some_and(|(ours, _)| ours == resource) => {
                    own.clone()
                }
                Some((resource, actions)) => {
                    let needed = |action: &&str| {
                        !self.is_catalog() && self.actions.split(',').any(|ours| ours == *action)
                    };
                    let actions: Vec<&str> = actions.split(',').filter(needed).collect();
                    if actions.is_empty() {
                        continue;
                    }
                    format!("{resource}:{}", actions.join(","))
                }
            };
            parts.push(part);
        }
        if parts.is_empty() { own } else { parts.join(" ") }
    }

    fn is_catalog(&self) -> bool {
        self.repository.is_none() && self.actions == Self::CATALOG.actions
    }
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.repository {
            Some(name) => write!(f, "repository:{name}:{}", self.actions),
            None if self.is_catalog() => write!(f, "registry:catalog:{}", self.actions),
            None => Ok(()),
        }
    }
}

/// Who we are to one upstream, and the tokens that this has been exchanged for.
#[derive(Debug)]
pub(crate) struct Auth {
    keyring: Keyring,
    token_hosts: Vec<String>,
    /// By scope; a password that is the same for all repositories is under [`ANY_SCOPE`].
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
    pub(crate) fn new(options: &Options, home: &Url) -> Self {
        Self {
            keyring: Keyring::new(options.credentials.clone(), home),
            token_hosts: options.token_hosts.clone(),
            grants: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// The authorization that has worked for `scope` and still should.
    pub(crate) fn known(&self, scope: &str) -> Option<HeaderValue> {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let grant = grants.get(scope).or_else(|| grants.get(ANY_SCOPE))?;
        grant.until.is_none_or(|until| Instant::now() < until).then(|| grant.header.clone())
    }

    /// Answers a challenge. `tried` is what has just been refused.
    ///
    /// Fails when there is nothing better to try.
    pub(crate) async fn answer(
        &self,
        transport: &Transport,
        challenge: Option<Challenge>,
        scope: &Scope<'_>,
        tried: Option<&HeaderValue>,
    ) -> Result<HeaderValue> {
        let grant = match challenge {
            None => {
                return Err(ErrorKind::Denied("asks for credentials in a way that is not known".to_owned()));
            }
            Some(Challenge::Basic) => Grant { header: self.answer_basic(scope, tried).await?, until: None },
            Some(Challenge::Bearer { realm, service, scope: asked }) => {
                let _alone = self.fetching.lock().await;
                if let Some(known) = self.known(&scope.to_string()).filter(|known| Some(known) != tried) {
                    return Ok(known);
                }
                let service = TokenService {
                    realm: self.check_realm(transport.home(), &realm)?,
                    service,
                    scope: scope.narrow(asked.as_deref()),
                };
                self.exchange(transport, &service, scope).await?
            }
        };
        if Some(&grant.header) == tried {
            return Err(ErrorKind::Denied("does not accept the configured credentials".to_owned()));
        }
        // A registry that wants a password wants it for everything: asking without one first would cost a round trip
        // for each repository.
        let password = grant.until.is_none() && !self.keyring.tells_repositories_apart();
        let scope = if password { ANY_SCOPE.to_owned() } else { scope.to_string() };
        self.remember(&scope, grant.clone());
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

    async fn login(&self, scope: &Scope<'_>) -> Result<Option<Login>> {
        let failed = |why| ErrorKind::unavailable(format!("who we are there cannot be found out: {why}"));
        self.keyring.login(scope.repository).await.map_err(failed)
    }

    /// The password, looked up anew if the one that is known has just been refused.
    async fn answer_basic(&self, scope: &Scope<'_>, tried: Option<&HeaderValue>) -> Result<HeaderValue> {
        if tried.is_some() {
            self.keyring.forget().await;
        }
        match self.login(scope).await? {
            Some(Login::Password(credentials)) => basic(&credentials),
            Some(Login::IdentityToken(_)) => Err(ErrorKind::Denied(
                "asks for a password, and all that is known is an identity token".to_owned(),
            )),
            None => Err(ErrorKind::Denied("asks for a password, and none is configured".to_owned())),
        }
    }

    /// Exchanges our credentials for a token, and once more with others if the source has others by now.
    async fn exchange(
        &self,
        transport: &Transport,
        service: &TokenService,
        scope: &Scope<'_>,
    ) -> Result<Grant> {
        let login = self.login(scope).await?;
        let refused = match service.fetch(transport, login.as_ref()).await {
            Err(refused @ ErrorKind::Denied(_)) if login.is_some() => refused,
            other => return other,
        };
        self.keyring.forget().await;
        let anew = self.login(scope).await?;
        if anew == login { Err(refused) } else { service.fetch(transport, anew.as_ref()).await }
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
}

/// Where a token comes from, and what it is for.
struct TokenService {
    realm: Url,
    service: Option<String>,
    scope: String,
}

impl TokenService {
    /// Fetches a token for `login`, or an anonymous one. The service must answer itself: a redirect would take the
    /// credentials along to where nobody has allowed them to go, so it is an error.
    async fn fetch(&self, transport: &Transport, login: Option<&Login>) -> Result<Grant> {
        let mut answer = transport.send(&self.request(login)?).await?;
        if !answer.status().is_success() {
            return Err(match answer.into_error().await {
                ErrorKind::NotFound => ErrorKind::protocol("the token service answers 404"),
                ErrorKind::Denied(_) => ErrorKind::Denied("the token service refuses a token".to_owned()),
                ErrorKind::Protocol(why) => ErrorKind::Protocol(format!("the token service {why}")),
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

    /// GET with the password or without; POST with an identity token, which must not stand in an address.
    fn request(&self, login: Option<&Login>) -> Result<Request> {
        let service = self.service.iter().map(|service| ("service", service.as_str()));
        let scope = Some(("scope", self.scope.as_str())).filter(|(_, scope)| !scope.is_empty());
        let pairs = service.chain(scope);
        let mut request = Request::new(Method::GET, self.realm.clone());
        request.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        request.trusted = true;
        match login {
            Some(Login::IdentityToken(token)) => {
                let grant =
                    [("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("refresh_token", token)];
                request.method = Method::POST;
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                request.headers.insert(CONTENT_TYPE, form);
                request.body = Query::render(grant.into_iter().chain(pairs)).into();
            }
            login => {
                if let Some(Login::Password(credentials)) = login {
                    request.headers.insert(AUTHORIZATION, basic(credentials)?);
                }
                request.url.query_pairs_mut().extend_pairs(pairs);
            }
        }
        Ok(request)
    }
}

fn basic(Credentials { username, password }: &Credentials) -> Result<HeaderValue> {
    secret(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
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
        let home = Url::parse(home).unwrap();
        Auth::new(&options, &home).check_realm(&home, realm).is_ok()
    }

    #[test]
    fn realms() {
        for (home, realm, good) in [
            ("https://r.example", "https://r.example/token", true),
            ("https://r.example:5000", "https://r.example/token", true),
            ("https://r.example", "https://tokens.example/", true),
            ("https://r.example", "https://TOKENS.example/", true),
            ("http://r.example", "https://r.example/token", true),
            ("http://r.example", "http://r.example/token", true),
            ("https://r.example", "http://r.example/token", false),
            ("https://r.example", "https://evil.example/", false),
            ("https://r.example", "https://r.example.evil/", false),
            ("https://r.example", "https://evil.r.example/", false),
            ("https://r.example", "https://r.example@evil.example/", false),
            ("https://r.example", "https://r.example\\@evil.example/", true),
            ("https://r.example", "https://user:pw@r.example/", false),
            ("https://r.example", "https://169.254.169.254/latest/", false),
            ("https://auth.docker.io", "https://registry-1.docker.io/", false),
            ("https://r.example", "file:///etc/passwd", false),
            ("https://r.example", "//r.example/token", false),
            ("https://r.example", "/token", false),
            ("https://r.example", "", false),
        ] {
            assert_eq!(check(home, realm), good, "{home} {realm}");
        }
    }

    #[test]
    fn the_public_registries_work_without_configuration() {
        for (home, realm) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://index.docker.io", "https://auth.docker.io/token"),
            ("https://ghcr.io", "https://ghcr.io/token"),
            ("https://quay.io", "https://quay.io/v2/auth"),
            ("https://gcr.io", "https://gcr.io/v2/token"),
            ("https://public.ecr.aws", "https://public.ecr.aws/token/"),
            (
                "https://registry.access.redhat.com",
                "https://registry.access.redhat.com/auth/realms/rhcc/protocol/redhat-docker-v2/auth",
            ),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ] {
            assert!(check(home, realm), "{home} {realm}");
        }
        assert!(!check("https://ghcr.io", "https://auth.docker.io/token"));
    }

    #[test]
    fn nobody_has_a_token_made_out_for_more() {
        let name: RepositoryName = "a/b".parse().unwrap();
        let (pull, push) = (Scope::pull(&name), Scope::push(&name));
        for (scope, asked, expected) in [
            (pull, None, "repository:a/b:pull"),
            (pull, Some(""), "repository:a/b:pull"),
            (pull, Some("repository:a/b:pull,push,delete"), "repository:a/b:pull"),
            (pull, Some("repository:inner/a/b:pull,push"), "repository:inner/a/b:pull"),
            (pull, Some("repository:a/b:push"), "repository:a/b:pull"),
            (pull, Some("repository:other:push,delete"), "repository:a/b:pull"),
            (pull, Some("registry:catalog:*"), "repository:a/b:pull"),
            (pull, Some("aws"), "aws"),
            (pull, Some("repository:x:pull  repository:a/b:pull"), "repository:x:pull repository:a/b:pull"),
            (push, Some("repository:a/b:pull"), "repository:a/b:pull,push"),
            (push, Some("repository:a/b:delete,push"), "repository:a/b:pull,push"),
            (Scope::REGISTRY, None, ""),
            (Scope::REGISTRY, Some("registry:catalog:*"), ""),
            (Scope::REGISTRY, Some("aws"), "aws"),
            (Scope::CATALOG, None, "registry:catalog:*"),
            (Scope::CATALOG, Some("registry:catalog:* repository:a/b:*"), "registry:catalog:*"),
        ] {
            assert_eq!(scope.narrow(asked), expected, "{scope} {asked:?}");
        }
    }
}
