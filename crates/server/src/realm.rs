//! How clients are asked to log in: with a password, or with a token from our own token endpoint.
//!
//! The second kind says where the endpoint is, and clients send their password there. So the address is the one that the
//! operator configured, or the one that the client itself used, provided that it was used over TLS or on this machine: a
//! guess could be the plain-text address of a server that is reached through TLS.

use deltaport_trust::Action;
use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;

use crate::identity::is_name_of_loopback;

/// The path of the token endpoint.
pub(crate) const TOKEN_PATH: &str = "/token";

/// The longest host that is repeated to a client, in bytes.
const MAX_HOST_LEN: usize = 255;

/// What is known of our own address.
#[derive(Debug)]
pub(crate) struct Realm {
    /// Where we are, `https://host[:port]`, if it was configured.
    url: Option<Box<str>>,
    /// Whether clients speak TLS with us.
    tls: bool,
    /// What tokens are for; without it there are none.
    service: Option<Box<str>>,
}

impl Realm {
    pub(crate) fn new(url: Option<&str>, tls: bool, service: Option<&str>) -> Self {
        let url = url.map(|url| url.trim_end_matches('/').into());
        Self { url, tls, service: service.map(Into::into) }
    }

    /// The challenge for a token, in answer to `request`; `None` where only a password can be asked for.
    pub(crate) fn bearer(
        &self,
        request: &Parts,
        scope: Option<&str>,
        error: Option<&'static str>,
    ) -> Option<HeaderValue> {
        let service = self.service.as_deref()?;
        let mut value =
            format!("Bearer realm=\"{}{TOKEN_PATH}\",service=\"{service}\"", self.address(request)?);
        for (name, text) in [("scope", scope), ("error", error)] {
            if let Some(text) = text {
                value.push_str(&format!(",{name}=\"{text}\""));
            }
        }
        HeaderValue::try_from(value).ok()
    }

    fn address(&self, request: &Parts) -> Option<String> {
        if let Some(url) = &self.url {
            return Some(url.to_string());
        }
        let host = match request.uri.authority() {
            Some(authority) => authority.as_str(),
            None => request.headers.get(HOST)?.to_str().ok()?,
        };
        // A quote or a blank in it would end the realm, and something else would begin.
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
        if host.is_empty() || host.len() > MAX_HOST_LEN || !host.bytes().all(plain) {
            return None;
        }
        match self.tls {
            true => Some(format!("https://{host}")),
            false => is_name_of_loopback(host).then(|| format!("http://{host}")),
        }
    }
}

/// The scope that a token needs for `action` on the repository that the client calls `name`.
pub(crate) fn scope(action: Action, name: &str) -> String {
    // Who pushes looks first at what is there, and so does who deletes.
    let actions = match action {
        Action::Pull => "pull",
        Action::Push => "pull,push",
        Action::Delete => "pull,delete",
    };
    format!("repository:{name}:{actions}")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn realm(ours: &Realm, host: &str) -> Option<String> {
        let request = Request::get("/v2/").header("host", host).body(()).ok()?;
        let value = ours.bearer(&request.into_parts().0, Some("repository:a:pull"), None)?;
        let text = value.to_str().expect("text");
        let rest = text.strip_prefix("Bearer realm=\"").expect("a realm");
        let (realm, rest) = rest.split_once('"').expect("its end");
        assert_eq!(rest, ",service=\"s\",scope=\"repository:a:pull\"", "{text}");
        Some(realm.to_owned())
    }

    #[test]
    fn the_realm_is_ours_or_none() {
        let configured = Realm::new(Some("https://registry.example/"), false, Some("s"));
        assert_eq!(realm(&configured, "evil.example").as_deref(), Some("https://registry.example/token"));
        let tls = Realm::new(None, true, Some("s"));
        for host in ["registry.example", "registry.example:5000", "10.0.0.1:5000", "[::1]:5000"] {
            assert_eq!(realm(&tls, host), Some(format!("https://{host}/token")));
        }
        for host in [
            "",
            "a b",
            "a\",realm=\"https://evil.example",
            "a/b",
            "user@a",
            "a\\b",
            "a?b",
            "a#b",
            &"a".repeat(256),
        ] {
            assert_eq!(realm(&tls, host), None, "{host}");
        }
        let plain = Realm::new(None, false, Some("s"));
        for host in ["127.0.0.1:5000", "localhost:5000", "[::1]:5000"] {
            assert_eq!(realm(&plain, host), Some(format!("http://{host}/token")));
        }
        // Behind a proxy that ends TLS, this would send passwords to its port 80.
        for host in ["registry.example", "10.0.0.1:5000", "localhost.example"] {
            assert_eq!(realm(&plain, host), None, "{host}");
        }
        assert_eq!(realm(&Realm::new(None, true, None), "registry.example"), None);
    }
}
