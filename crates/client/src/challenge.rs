//! `WWW-Authenticate` (RFC 9110, section 11.6.1): what a registry wants before it answers.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// The longest header that is read, in bytes.
const MAX_LEN: usize = 8 * 1024;
/// How many parameters one challenge may have.
const MAX_PARAMETERS: usize = 16;

/// A challenge that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password in every request.
    Basic,
    /// A token from another service first (the token specification of distribution).
    Bearer {
        /// The address of the token service.
        realm: String,
        /// The name that the token service knows the registry by.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenge to answer; tokens are preferred, since a password then travels once and not every time.
    pub(crate) fn choose(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            for challenge in parse(text) {
                match challenge {
                    Self::Bearer { .. } => return Some(challenge),
                    Self::Basic => basic = Some(challenge),
                }
            }
        }
        basic
    }
}

/// Reads the challenges that are understood out of one header value and skips the others.
fn parse(text: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = if text.len() > MAX_LEN { "" } else { text.trim_start() };
    while !rest.is_empty() {
        let (scheme, after) = token(rest);
        if scheme.is_empty() {
            break;
        }
        let (parameters, after) = parameters(after);
        rest = after;
        let find = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = find("realm")
        {
            challenges.push(Challenge::Bearer { realm, service: find("service"), scope: find("scope") });
        }
    }
    challenges
}

/// Reads `key=value` pairs up to the next scheme, which is a word without an equals sign behind it.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (key, after) = token(rest);
        let Some(after) = after.trim_start().strip_prefix('=') else { return (found, rest) };
        if key.is_empty() || found.len() == MAX_PARAMETERS {
            return (found, "");
        }
        let (value, after) = value(after.trim_start());
        found.push((key.to_owned(), value));
        rest = after;
    }
}

/// Reads a word of RFC 9110's `token` characters.
fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)));
    text.split_at(end.unwrap_or(text.len()))
}

/// Reads a word or a quoted string. Words are read up to a comma, since some registries do not quote addresses.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            _ if escaped => {
                value.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: own(service), scope: own(scope) }
    }

    #[test]
    fn headers_as_registries_send_them() {
        for (text, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (r#"Basic realm="Registry""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (r#"BEARER Realm = "https://a/t" , service=x"#, vec![bearer("https://a/t", Some("x"), None)]),
            (
                r#"Basic realm="a, Bearer", Bearer realm=https://a/t,scope="""#,
                vec![Challenge::Basic, bearer("https://a/t", None, None)],
            ),
            (r#"Negotiate, Bearer realm="x\"y""#, vec![bearer("x\"y", None, None)]),
            (r#"Digest realm="a", nonce="b""#, vec![]),
            ("Bearer", vec![]),
            (r#"Bearer realm="open"#, vec![bearer("open", None, None)]),
            ("", vec![]),
            ("=", vec![]),
            ("\"", vec![]),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_token_is_preferred_and_length_is_bounded() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=x".parse().unwrap());
        assert_eq!(Challenge::choose(&headers), Some(Challenge::Basic));
        headers.append(WWW_AUTHENTICATE, "Bearer realm=y".parse().unwrap());
        assert_eq!(Challenge::choose(&headers), Some(bearer("y", None, None)));
        assert_eq!(parse(&format!("Bearer realm=\"{}\"", "x".repeat(MAX_LEN))), vec![]);
    }
}
