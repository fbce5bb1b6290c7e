//! Who asks: the user that logged in, by password, token or certificate, and whether the request comes from this machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_registry::issuers::Issuers;
use deltaport_registry::tokens::{AccessTokens, RobotTokens};
use deltaport_trust::Caller;
use deltaport_trust::tokens::{
    MAX_IDENTITY_TOKEN_LEN, Robot, TokenError, looks_like_secret, unverified_issuer,
};
use http::header::{AUTHORIZATION, FORWARDED, HOST, HeaderMap, HeaderName, ORIGIN, VIA};
use http::request::Parts;

use crate::forwarded::X_FORWARDED_FOR;
use crate::line::Full;
use crate::passwords::Users;
use crate::peer::Peer;
use crate::throttle::Throttle;

/// Who clients log in as that can only send a name and a password, and whose password is an identity token.
const IDENTITY_TOKEN_USER: &str = "oidc";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Establishes who asks.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) users: Option<Arc<Users>>,
    pub(crate) access_tokens: Option<AccessTokens>,
    pub(crate) robots: Option<RobotTokens>,
    pub(crate) issuers: Option<Issuers>,
    /// Users that come by certificate or with the token of an issuer, and have no password.
    pub(crate) without_password: BTreeSet<Arc<str>>,
    pub(crate) throttle: Throttle,
}

/// Why it is not established who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unidentified {
    /// Credentials came along and are not those of anybody.
    NotKnown,
    /// A token came along and is not, or no longer, valid.
    Token,
    /// Too many passwords wait to be checked.
    TooMany,
    /// Too many were wrong; so long none is looked at.
    Throttled(Duration),
}

impl From<Full> for Unidentified {
    fn from(_: Full) -> Self {
        Self::TooMany
    }
}

impl Identity {
    /// Who sent this request. Credentials that are wrong are never taken for none, and credentials count before the
    /// certificate of the connection.
    pub(crate) async fn caller(&self, request: &Parts, peer: &Peer) -> Result<Caller, Unidentified> {
        let local = is_local(request, peer.address);
        let by_certificate = Caller { user: peer.certified.clone(), local, ..Caller::default() };
        let Some(header) = request.headers.get(AUTHORIZATION) else { return Ok(by_certificate) };
        let caller = match header.to_str().ok().and_then(Credentials::parse).ok_or(Unidentified::NotKnown)? {
            // Some clients answer a challenge with nothing in it when they have nothing: they are anonymous.
            Credentials::Basic { user, password } if user.is_empty() && password.is_empty() => {
                return Ok(by_certificate);
            }
            Credentials::Basic { user, password } => self.log_in(peer, &user, &password).await?,
            Credentials::Bearer(token) => self.bearer(&token).await?,
        };
        Ok(Caller { local, ..caller })
    }

    /// Who has this name and password. The password may be a robot's secret, or, for [`IDENTITY_TOKEN_USER`], the identity
    /// token of a job.
    pub(crate) async fn log_in(
        &self,
        peer: &Peer,
        user: &str,
        password: &str,
    ) -> Result<Caller, Unidentified> {
        if looks_like_secret(password) {
            let robot = self.robot(password).filter(|robot| robot.name == user);
            return robot.map(of_robot).ok_or(Unidentified::NotKnown);
        }
        if user == IDENTITY_TOKEN_USER
            && let Some(user) = self.identity_token(password).await
        {
            return user.map(of_user).map_err(|_| Unidentified::NotKnown);
        }
        let users = self.users.as_ref().ok_or(Unidentified::NotKnown)?;
        let (address, now) = (peer.client, Instant::now());
        let checked = match users.known(user, password) {
            Some(known) => known,
            None => {
                self.throttle.admit(user, address, now).map_err(Unidentified::Throttled)?;
                let checked = users.check(address, user, password).await?;
                match &checked {
                    Some(user) => self.throttle.succeeded(user, address, now),
                    None => self.throttle.failed(user, address, now),
                }
                checked
            }
        };
        checked.map(of_user).ok_or(Unidentified::NotKnown)
    }

    /// Who has this token.
    pub(crate) async fn bearer(&self, token: &str) -> Result<Caller, Unidentified> {
        if looks_like_secret(token) {
            return self.robot(token).map(of_robot).ok_or(Unidentified::Token);
        }
        if let Some(user) = self.identity_token(token).await {
            return user.map(of_user).map_err(|_| Unidentified::Token);
        }
        let tokens = self.access_tokens.as_ref().ok_or(Unidentified::Token)?;
        let grant = tokens.verify(token).map_err(|error| {
            tracing::debug!(%error, "an access token was refused");
            Unidentified::Token
        })?;
        let caller = match grant.user {
            None => Caller::default(),
            Some(user) => self.still_there(user).ok_or(Unidentified::Token)?,
        };
        Ok(Caller { within: Some(grant.scopes.into()), ..caller })
    }

    /// The user that a token was issued to, unless that user is no more.
    fn still_there(&self, user: Arc<str>) -> Option<Caller> {
        if let Some(robot) = self.robots.as_ref().and_then(|robots| robots.user(&user)) {
            return Some(of_robot(robot));
        }
        let has_password = self.users.as_ref().is_some_and(|users| users.contains(&user));
        (has_password || self.without_password.contains(&user)).then(|| of_user(user))
    }

    /// The user that comes with the identity token of a job; `None` when it does not say that it is from an issuer who is
    /// believed.
    async fn identity_token(&self, token: &str) -> Option<Result<Arc<str>, TokenError>> {
        let issuers = self.issuers.as_ref()?;
        let issuer =
            unverified_issuer(token, MAX_IDENTITY_TOKEN_LEN).filter(|issuer| issuers.knows(issuer))?;
        let verified = issuers.verify(&issuer, token).await;
        if let Err(error) = &verified {
            tracing::info!(issuer, %error, "an identity token was refused");
        }
        Some(verified)
    }

    fn robot(&self, secret: &str) -> Option<Robot> {
        self.robots.as_ref()?.with_secret(secret)
    }
}

fn of_user(user: Arc<str>) -> Caller {
    Caller { user: Some(user), ..Caller::default() }
}

fn of_robot(robot: Robot) -> Caller {
    Caller { user: Some(robot.user()), granted: Some(robot.scopes), ..Caller::default() }
}

/// What stands in an `Authorization` header.
pub(crate) enum Credentials {
    /// A name and a password.
    Basic { user: String, password: String },
    /// A token (RFC 6750).
    Bearer(String),
}

impl Credentials {
    /// Reads the value of the header.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(rest.trim().to_owned())).filter(|_| !rest.trim().is_empty());
        }
        let Basic { user, password } = Basic::parse(header)?;
        Some(Self::Basic { user, password })
    }
}

/// The credentials of the Basic scheme (RFC 7617).
struct Basic {
    user: String,
    password: String,
}

impl Basic {
    fn parse(header: &str) -> Option<Self> {
        let (scheme, encoded) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

/// Whether a request comes from a program on this machine that means this registry.
fn is_local(request: &Parts, peer: SocketAddr) -> bool {
    if !peer.ip().to_canonical().is_loopback() {
        return false;
    }
    let elsewhere = from_elsewhere(request);
    if let Some(sign) = elsewhere {
        tracing::debug!(sign, "a request that reached us from this machine does not count as local");
    }
    elsewhere.is_none()
}

/// The sign that a request which reached us from this machine was not made here.
///
/// An address of this machine is not enough. A proxy has one too, and asks for others. A browser has one too, and asks
/// for whatever page is open in it: such requests say that they are from elsewhere, and where they do not because the
/// page's name was made to resolve to this machine, they still name the page's host and not ours.
fn from_elsewhere(request: &Parts) -> Option<&'static str> {
    let headers = &request.headers;
    if [FORWARDED, X_FORWARDED_FOR, VIA].iter().any(|name| headers.contains_key(name)) {
        return Some("a proxy passed it on");
    }
    if headers.contains_key(ORIGIN) || headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "none") {
        return Some("a web page sent it");
    }
    if host(request, headers).is_some_and(|host| !means_this_machine(host)) {
        return Some("its Host is neither an address nor localhost");
    }
    None
}

fn host<'a>(request: &'a Parts, headers: &'a HeaderMap) -> Option<&'a str> {
    match request.uri.host() {
        Some(host) => Some(host),
        // A name that is not text is nobody's; it must not pass for none.
        None => headers.get(HOST).map(|host| host.to_str().unwrap_or("?")),
    }
}

/// Whether a host, with or without a port, is a name or an address of loopback.
pub(crate) fn is_name_of_loopback(host: &str) -> bool {
    means_this_machine(host) && name_of(host).parse::<IpAddr>().map_or(true, |address| address.is_loopback())
}

/// The host without its port, and without the brackets or the last dot.
fn name_of(host: &str) -> &str {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.trim_end_matches('.')
}

/// Whether a host, with or without a port, is an address or `localhost`: names that no page can be called by whom
/// somebody else made.
fn means_this_machine(host: &str) -> bool {
    let name = name_of(host);
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    fn local(peer: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::get("/v2/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        is_local(&parts, SocketAddr::new(peer.parse().expect("an address"), 1))
    }

    #[test]
    fn only_a_direct_request_of_this_machine_is_local() {
        for peer in ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"] {
            for host in
                ["127.0.0.1:5000", "localhost:5000", "LOCALHOST", "a.localhost:1", "[::1]:5000", "10.0.0.1"]
            {
                assert!(local(peer, &[("host", host)]), "{peer} {host}");
            }
        }
        assert!(local("127.0.0.1", &[]));
        assert!(!local("10.0.0.1", &[("host", "127.0.0.1:5000")]));
        for header in [
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("via", "1.1 proxy"),
            ("origin", "https://example.com"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-origin"),
            ("host", "example.com:5000"),
            ("host", "notlocalhost"),
            ("host", "127.0.0.1.example.com"),
            ("host", ""),
        ] {
            assert!(!local("127.0.0.1", &[header]), "{header:?}");
        }
    }

    #[test]
    fn credentials_by_the_rfc() {
        let parse = |header: &str| Basic::parse(header).map(|basic| (basic.user, basic.password));
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(parse("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(parse("bAsIc OnA6Og=="), pair("", "p::"));
        for header in ["", "Basic", "Basic ", "Basic !", "Basic QQ==", "Bearer QTpC", "Basic /zo6"] {
            assert_eq!(parse(header), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(header in ".{0,60}", host in "[a-z0-9.:\\[\\]]{0,30}") {
            let _ = Basic::parse(&header);
            let _ = Basic::parse(&format!("Basic {}", STANDARD.encode(&header)));
            let _ = means_this_machine(&host);
        }
    }
}
