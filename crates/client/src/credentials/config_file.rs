//! Docker's `config.json` and podman's `auth.json`, which is the same with more specific keys (containers-auth.json(5)).

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_oci::RepositoryName;
use serde::Deserialize;

use super::{Credentials, Login, Result, Server, read};

/// The logins of a file. What is not about logins is not kept.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigFile {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    /// The helper that all logins are kept by.
    #[serde(default)]
    creds_store: Option<String>,
    /// Helpers by the registry whose login they keep.
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    /// Base64 of `user:password`.
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

/// What a file says about a registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nobody,
    /// This.
    Login(Login),
    /// A helper knows.
    Helper {
        /// Its name, without `docker-credential-`.
        name: String,
        /// What to use if it does not know after all.
        otherwise: Option<Login>,
    },
}

impl ConfigFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        Self::parse(&read(path)?).map_err(|why| format!("cannot use {}: {why}", path.display()))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        // The message of the parser may quote what it has found, so only the place is told.
        serde_json::from_slice(bytes).map_err(|error| {
            format!("it is not a file of logins (line {}, column {})", error.line(), error.column())
        })
    }

    /// Looks up who we are to `repository` on `server`: a helper for that registry comes first, then the helper for all,
    /// then the file itself. Of several keys in it the most specific counts.
    pub(super) fn find(&self, server: &Server, repository: Option<&RepositoryName>) -> Found {
        let login = self.entry(server, repository).and_then(Entry::login);
        let own = self.cred_helpers.iter().find(|(key, _)| Key::parse(key) == Some(Key::of(server)));
        let store = self.creds_store.as_ref().filter(|name| !name.is_empty());
        match (own.map(|(_, name)| name).filter(|name| !name.is_empty()).or(store), login) {
            (Some(name), otherwise) => Found::Helper { name: name.clone(), otherwise },
            (None, Some(login)) => Found::Login(login),
            (None, None) => Found::Nobody,
        }
    }

    /// The entry with the longest key that `repository` is within. Of different spellings of the same key, the one that
    /// is not an address counts: addresses are what older programs wrote.
    fn entry(&self, server: &Server, repository: Option<&RepositoryName>) -> Option<&Entry> {
        let matching = self.auths.iter().filter_map(|(text, entry)| {
            let key = Key::parse(text)?;
            key.covers(server, repository).then_some(((key.path.len(), !text.contains("://"), text), entry))
        });
        matching.max_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, entry)| entry)
    }
}

impl Entry {
    fn login(&self) -> Option<Login> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Some(Login::IdentityToken(token));
        }
        let packed = given(&self.auth).and_then(|auth| unpack(&auth));
        let plain =
            || Some(Credentials { username: given(&self.username)?, password: given(&self.password)? });
        packed.or_else(plain).map(Login::Password)
    }
}

fn unpack(auth: &str) -> Option<Credentials> {
    let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker once padded passwords with zeros.
    let password = password.trim_matches('\0');
    let given = !username.is_empty() && !password.is_empty();
    given.then(|| Credentials { username: username.to_owned(), password: password.to_owned() })
}

/// A key of the file, however it is spelled: `https://index.docker.io/v1/`, `quay.io`, `r.example:5000/team`.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    server: Server,
    /// The repository, or the front part of its name, that the login is for.
    path: String,
}

impl Key {
    fn of(server: &Server) -> Self {
        Self { server: server.clone(), path: String::new() }
    }

    /// Reads a key; `None` when it is for something else than a registry.
    fn parse(text: &str) -> Option<Self> {
        let (address, rest) = match text.split_once("://") {
            Some((_, rest)) => (true, rest),
            None => (false, text),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = match (address, path.trim_end_matches('/')) {
            (false, path) => path,
            // What stands behind the host of an address is the version of the protocol.
            (true, "" | "v1" | "v2") => "",
            // Or docker keeps tokens for the web site there (`https://index.docker.io/v1/refresh-token`).
            (true, _) => return None,
        };
        Some(Self { server: Server::named(host), path: path.to_owned() })
    }

    fn covers(&self, server: &Server, repository: Option<&RepositoryName>) -> bool {
        let within = |name: &RepositoryName| {
            let rest = name.as_str().strip_prefix(self.path.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.server == *server && (self.path.is_empty() || repository.is_some_and(within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(file: &serde_json::Value, server: &str, repository: &str) -> Found {
        let file = ConfigFile::parse(file.to_string().as_bytes()).unwrap();
        file.find(&Server::named(server), repository.parse().ok().as_ref())
    }

    fn password(username: &str, password: &str) -> Found {
        let credentials = Credentials { username: username.to_owned(), password: password.to_owned() };
        Found::Login(Login::Password(credentials))
    }

    fn auth(text: &str) -> serde_json::Value {
        serde_json::json!({ "auth": STANDARD.encode(text) })
    }

    #[test]
    fn files_as_docker_writes_them() {
        let file = serde_json::json!({
            "auths": {
                "https://index.docker.io/v1/": auth("me:hub:pass"),
                "https://index.docker.io/v1/access-token": auth("me:not this"),
                "https://index.docker.io/v1/refresh-token": auth("me:nor this"),
                "quay.io": auth("me:quay\0\0"),
                "https://old.example/v2/": auth("me:old"),
                "R.example:5000": { "username": "me", "password": "plain" },
                "acr.example": { "auth": STANDARD.encode("0000:"), "identitytoken": "refresh" },
                "store.example": {},
                "bad.example": { "auth": "!!" },
            },
            "HttpHeaders": { "User-Agent": "x" },
            "detachKeys": "ctrl-e,e",
        });
        for (server, expected) in [
            ("registry-1.docker.io", password("me", "hub:pass")),
            ("quay.io", password("me", "quay")),
            ("QUAY.io", password("me", "quay")),
            ("old.example", password("me", "old")),
            ("r.example:5000", password("me", "plain")),
            ("r.example", Found::Nobody),
            ("acr.example", Found::Login(Login::IdentityToken("refresh".to_owned()))),
            ("store.example", Found::Nobody),
            ("bad.example", Found::Nobody),
            ("io", Found::Nobody),
            ("evil.quay.io", Found::Nobody),
            ("quay.io.evil", Found::Nobody),
        ] {
            assert_eq!(find(&file, server, "library/app"), expected, "{server}");
        }
    }

    #[test]
    fn of_podmans_keys_the_most_specific_counts() {
        let file = serde_json::json!({ "auths": {
            "r.example/team/app": auth("me:app"),
            "r.example/team": auth("me:team"),
            "r.example": auth("me:all"),
            "other.example/team": auth("me:other"),
            "docker.io": auth("me:new"),
            "https://index.docker.io/v1/": auth("me:old"),
        }});
        for (server, repository, expected) in [
            ("r.example", "team/app", password("me", "app")),
            ("r.example", "team/app/part", password("me", "app")),
            ("r.example", "team/apple", password("me", "team")),
            ("r.example", "teams", password("me", "all")),
            ("r.example", "", password("me", "all")),
            ("other.example", "team", password("me", "other")),
            ("other.example", "", Found::Nobody),
            ("other.example", "elsewhere", Found::Nobody),
            ("index.docker.io", "library/app", password("me", "new")),
        ] {
            assert_eq!(find(&file, server, repository), expected, "{server} {repository}");
        }
    }

    #[test]
    fn helpers_come_before_the_file() {
        let file = serde_json::json!({
            "auths": { "a.example": auth("me:stale"), "b.example": {}, "c.example": auth("me:c") },
            "credsStore": "desktop",
            "credHelpers": { "b.example": "ecr-login", "https://index.docker.io/v1/": "pass", "c.example": "" },
        });
        let helper = |name: &str, otherwise: Option<&str>| {
            let credentials =
                |word: &str| Credentials { username: "me".to_owned(), password: word.to_owned() };
            let otherwise = otherwise.map(|word| Login::Password(credentials(word)));
            Found::Helper { name: name.to_owned(), otherwise }
        };
        assert_eq!(find(&file, "a.example", "x"), helper("desktop", Some("stale")));
        assert_eq!(find(&file, "b.example", "x"), helper("ecr-login", None));
        assert_eq!(find(&file, "c.example", "x"), helper("desktop", Some("c")));
        assert_eq!(find(&file, "docker.io", "x"), helper("pass", None));
        assert_eq!(find(&serde_json::json!({}), "docker.io", "x"), Found::Nobody);
    }

    #[test]
    fn an_error_does_not_quote_the_file() {
        for text in [r#"{"auths": "secret"}"#, r#"{"auths": {"a": {"auth": ["secret"]}}}"#, "secret", ""] {
            let why = ConfigFile::parse(text.as_bytes()).err().unwrap();
            assert!(why.contains("line") && !why.contains("secret"), "{why}");
        }
    }
}
