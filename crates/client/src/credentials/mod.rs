//! Where the credentials for an upstream come from.
//!
//! A source is asked when the upstream, or its token service, wants to know who we are, and not before. Files are read
//! each time, so a secret that changes needs no restart; the answers of programs are kept for a minute. Nothing here
//! shows a secret: not in `Debug`, not in a log, not in an error.

mod config_file;
mod helper;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deltaport_oci::RepositoryName;
use reqwest::Url;
use tokio::sync::Mutex;

use config_file::{ConfigFile, Found};

/// The largest file that credentials are read from, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// How long the answer of a credential helper is used without asking it again, unless it is refused before that.
const HELPER_LIFE: Duration = Duration::from_secs(60);
/// How many answers of credential helpers are kept for one upstream.
const MAX_ANSWERS: usize = 16;

/// What can be wrong with a source: a sentence without the secret.
type Result<T> = std::result::Result<T, String>;

/// A user name and a password or access token.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The secret; never shown.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Where to look for credentials.
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// These, for as long as the process runs.
    Given(Credentials),
    /// The first line of a file is the password.
    PasswordFile {
        /// The user.
        username: String,
        /// The file, at most 1 MiB.
        path: PathBuf,
    },
    /// A file as `docker login` and `podman login` write it, docker's `config.json` or podman's `auth.json`, at most 1
    /// MiB. An upstream that it does not know is asked anonymously. Credential helpers that it names are run.
    ConfigFile(PathBuf),
    /// The program `docker-credential-<name>`, which is run to ask for them.
    Helper(String),
}

impl CredentialSource {
    /// Says what is wrong with the source as far as looking at its files tells. No program is run.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Given(_) => Ok(()),
            Self::PasswordFile { path, .. } => first_line(path).map(drop),
            Self::ConfigFile(path) => ConfigFile::read(path).map(drop),
            Self::Helper(name) => helper::check_name(name),
        }
    }
}

/// What a source has for an upstream.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// For the Basic scheme.
    Password(Credentials),
    /// An OAuth refresh token, which only a token service understands.
    IdentityToken(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(credentials) => credentials.fmt(f),
            Self::IdentityToken(_) => f.debug_struct("IdentityToken").finish_non_exhaustive(),
        }
    }
}

/// The source of one upstream, with the last answers of programs.
#[derive(Debug)]
pub(crate) struct Keyring {
    source: Option<CredentialSource>,
    server: Server,
    /// By the name of the helper and what it was asked. Held while one runs, so that it is run once for all who wait.
    answers: Mutex<HashMap<(String, String), Answer>>,
}

#[derive(Debug)]
struct Answer {
    login: Option<Login>,
    until: Instant,
}

/// The registry as sources know it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    /// `host[:port]`; `docker.io` for Docker Hub, whatever it is called.
    name: String,
}

impl Keyring {
    pub(crate) fn new(source: Option<CredentialSource>, home: &Url) -> Self {
        Self { source, server: Server::of(home), answers: Mutex::default() }
    }

    /// Who we are when `repository` is asked for; `None` if the source knows nobody.
    pub(crate) async fn login(&self, repository: Option<&RepositoryName>) -> Result<Option<Login>> {
        match &self.source {
            None => Ok(None),
            Some(CredentialSource::Given(credentials)) => Ok(Some(Login::Password(credentials.clone()))),
            Some(CredentialSource::PasswordFile { username, path }) => {
                let path = path.clone();
                let password = blocking(move || first_line(&path)).await?;
                Ok(Some(Login::Password(Credentials { username: username.clone(), password })))
            }
            Some(CredentialSource::ConfigFile(path)) => {
                let path = path.clone();
                let file = blocking(move || ConfigFile::read(&path)).await?;
                match file.find(&self.server, repository) {
                    Found::Nobody => Ok(None),
                    Found::Login(login) => Ok(Some(login)),
                    Found::Helper { name, otherwise } => Ok(self.ask_helper(&name).await?.or(otherwise)),
                }
            }
            Some(CredentialSource::Helper(name)) => self.ask_helper(name).await,
        }
    }

    /// Whether the source may know somebody else for another repository.
    pub(crate) fn tells_repositories_apart(&self) -> bool {
        matches!(self.source, Some(CredentialSource::ConfigFile(_)))
    }

    /// Drops the answers of helpers: what they said last is refused.
    pub(crate) async fn forget(&self) {
        self.answers.lock().await.clear();
    }

    async fn ask_helper(&self, name: &str) -> Result<Option<Login>> {
        let key = (name.to_owned(), self.server.for_helpers());
        let mut answers = self.answers.lock().await;
        if let Some(answer) = answers.get(&key).filter(|answer| Instant::now() < answer.until) {
            return Ok(answer.login.clone());
        }
        let login = helper::ask(name, &key.1).await?;
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        let until = Instant::now() + HELPER_LIFE;
        answers.insert(key, Answer { login: login.clone(), until });
        Ok(login)
    }
}

impl Server {
    /// What Docker Hub is called by its users and by those who log in to it.
    const DOCKER_HUB: &str = "docker.io";
    const DOCKER_HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

    fn of(home: &Url) -> Self {
        let host = home.host_str().unwrap_or_default();
        Self::named(&home.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    }

    fn named(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let hub = Self::DOCKER_HUB_ALIASES.contains(&name.as_str());
        Self { name: if hub { Self::DOCKER_HUB.to_owned() } else { name } }
    }

    /// The name to ask a helper for. Docker Hub has kept that of its first version.
    fn for_helpers(&self) -> String {
        if self.name == Self::DOCKER_HUB {
            "https://index.docker.io/v1/".to_owned()
        } else {
            self.name.clone()
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let failed = |_| "reading was given up".to_owned();
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

fn first_line(path: &Path) -> Result<String> {
    let bytes = read(path)?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not text", path.display()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(format!("there is no password in the first line of {}", path.display())),
    }
}

/// Reads a small file. The error names it and shows nothing of it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    let read = read.and_then(|count| match count as u64 > MAX_FILE {
        true => Err(io::Error::other(format!("it has more than {MAX_FILE} bytes"))),
        false => Ok(()),
    });
    read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_by_the_names_that_logins_are_kept_under() {
        for (url, name, helpers) in [
            ("https://registry-1.docker.io", "docker.io", "https://index.docker.io/v1/"),
            ("https://INDEX.docker.io", "docker.io", "https://index.docker.io/v1/"),
            ("https://quay.io:443", "quay.io", "quay.io"),
            ("http://r.example:5000", "r.example:5000", "r.example:5000"),
            ("https://[::1]:5000", "[::1]:5000", "[::1]:5000"),
        ] {
            let server = Server::of(&Url::parse(url).unwrap());
            assert_eq!((server.name.as_str(), server.for_helpers().as_str()), (name, helpers), "{url}");
        }
    }

    #[tokio::test]
    async fn a_password_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let source = CredentialSource::PasswordFile { username: "me".to_owned(), path: path.clone() };
        assert!(source.check().unwrap_err().contains("password"), "no file");
        let keyring = Keyring::new(Some(source.clone()), &Url::parse("https://r.example").unwrap());
        for password in ["first", "second"] {
            std::fs::write(&path, format!("{password}\nnot this\n")).unwrap();
            source.check().unwrap();
            let expected = Credentials { username: "me".to_owned(), password: password.to_owned() };
            assert_eq!(keyring.login(None).await, Ok(Some(Login::Password(expected))));
        }
        for bad in [&b""[..], b"\nsecret", b"\xff", &vec![b'x'; 2 << 20]] {
            std::fs::write(&path, bad).unwrap();
            let why = keyring.login(None).await.unwrap_err();
            assert!(why.contains(path.to_str().unwrap()) && !why.contains("secret"), "{why}");
        }
    }
}
