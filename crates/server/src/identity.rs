//! Who asks: the user that logged in, and whether the request comes from this machine.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_trust::Caller;
use http::header::{AUTHORIZATION, FORWARDED, HOST, HeaderMap, HeaderName, ORIGIN, VIA};
use http::request::Parts;

use crate::line::Full;
use crate::passwords::Users;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Establishes who asks.
#[derive(Debug)]
pub(crate) struct Identity {
    users: Option<Arc<Users>>,
}

/// Why it is not established who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unidentified {
    /// Credentials came along and are not those of anybody.
    NotKnown,
    /// Too many passwords wait to be checked.
    TooMany,
}

impl From<Full> for Unidentified {
    fn from(_: Full) -> Self {
        Self::TooMany
    }
}

impl Identity {
    pub(crate) fn new(users: Option<Arc<Users>>) -> Self {
        Self { users }
    }

    /// Those who can log in, if anybody can.
    pub(crate) fn users(&self) -> Option<&Arc<Users>> {
        self.users.as_ref()
    }

    /// Who sent this request. Credentials that are wrong are never taken for none.
    pub(crate) async fn caller(&self, request: &Parts, peer: SocketAddr) -> Result<Caller, Unidentified> {
        let local = is_local(request, peer);
        let Some(header) = request.headers.get(AUTHORIZATION) else {
            return Ok(Caller { user: None, local });
        };
        let credentials = header.to_str().ok().and_then(Basic::parse).ok_or(Unidentified::NotKnown)?;
        // Some clients answer a challenge with nothing in it when they have nothing: they are anonymous.
        if credentials.user.is_empty() && credentials.password.is_empty() {
            return Ok(Caller { user: None, local });
        }
        let users = self.users.as_ref().ok_or(Unidentified::NotKnown)?;
        let checked = users.check(peer.ip().to_canonical(), &credentials.user, &credentials.password).await?;
        let user = checked.ok_or(Unidentified::NotKnown)?;
        Ok(Caller { user: Some(user), local })
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

/// Whether a host, with or without a port, is an address or `localhost`: names that no page can be called by whom
/// somebody else made.
fn means_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.');
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
