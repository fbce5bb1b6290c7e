//! Which local repository stands for what in another registry.
//!
//! The table is closed: a namespace or a path that a client names is looked up here and is never a place to connect
//! to. What an upstream holds is kept under the local name `<host>/<repository>`; the default upstream's under the
//! plain name.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deltaport_client as client;
use deltaport_oci::RepositoryName;

use crate::{Error, Registry, Result};

/// How long a stored tag is served without asking an upstream that has just failed, in case it did not say.
const PAUSE: Duration = Duration::from_secs(10);

/// The registry that Docker's clients mean when they name none, and other names of it.
const DOCKER: &str = "docker.io";
const DOCKER_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// A registry whose content is served here, fetched when it is asked for.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// How it is asked. Its host is the name that clients know it by.
    pub client: client::Upstream,
    /// Whether repositories that name no registry are its.
    pub default: bool,
    /// When a layer is asked for as a delta.
    pub deltas: Deltas,
}

/// When a layer is asked for as a delta from one that is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deltas {
    /// When the layer is so large that the question pays.
    #[default]
    Auto,
    /// Never.
    Never,
}

impl Deltas {
    /// Below this size, in bytes, a layer is there sooner than the answer whether there is a delta.
    const PAYS: u64 = 256 << 10;

    /// Whether to ask for a delta to a layer of `size` bytes.
    pub(crate) fn worth_asking(self, size: u64) -> bool {
        match self {
            Self::Auto => size >= Self::PAYS,
            Self::Never => false,
        }
    }
}

/// Where a pull is answered from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// The repository of this registry.
    pub repository: Cow<'a, RepositoryName>,
    /// The registry that it stands for, when the client named one and it is configured.
    pub namespace: Option<Arc<str>>,
}

/// The configured upstreams.
#[derive(Debug)]
pub(crate) struct Upstreams(Vec<Arc<Remote>>);

/// An upstream at work.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) client: client::Upstream,
    pub(crate) deltas: Deltas,
    default: bool,
    /// The first component of the local names; for a host with a port, the colon is an underscore.
    prefix: String,
    /// Until when there is no point in asking.
    paused: Mutex<Option<Instant>>,
}

/// What a local repository stands for.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) remote: Arc<Remote>,
    /// Its name there.
    pub(crate) repository: RepositoryName,
}

impl Upstreams {
    pub(crate) fn new(upstreams: &[Upstream]) -> Self {
        let remote = |upstream: &Upstream| {
            Arc::new(Remote {
                client: upstream.client.clone(),
                deltas: upstream.deltas,
                default: upstream.default,
                prefix: prefix(upstream.client.host()),
                paused: Mutex::default(),
            })
        };
        Self(upstreams.iter().map(remote).collect())
    }

    /// What `repository` stands for; `None` when it is this registry's own.
    pub(crate) fn source(&self, repository: &RepositoryName) -> Option<Source> {
        let (first, rest) = repository.as_str().split_once('/').unwrap_or((repository.as_str(), ""));
        let (remote, name) = match self.by_host(first) {
            Some(remote) => (remote, rest),
            None => (self.0.iter().find(|remote| remote.default)?, repository.as_str()),
        };
        Some(Source { remote: Arc::clone(remote), repository: remote.name_there(name)? })
    }

    /// The upstream that is known as `host`, however that is spelled.
    fn by_host(&self, host: &str) -> Option<&Arc<Remote>> {
        let host = prefix(host);
        self.0.iter().find(|remote| remote.prefix == host)
    }
}

impl Remote {
    /// The name at the upstream. At Docker Hub, names of one component are short for the official images.
    fn name_there(&self, name: &str) -> Option<RepositoryName> {
        let official = self.prefix == DOCKER && !name.is_empty() && !name.contains('/');
        if official { format!("library/{name}").parse().ok() } else { name.parse().ok() }
    }

    /// The local name of a repository of this upstream.
    fn name_here(&self, name: &RepositoryName) -> Option<RepositoryName> {
        if self.default { Some(name.clone()) } else { format!("{}/{name}", self.prefix).parse().ok() }
    }

    /// Whether the upstream has failed so recently that content which is here should be served at once.
    pub(crate) fn is_paused(&self) -> bool {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        paused.is_some_and(|until| Instant::now() < until)
    }

    /// Notes how a request went.
    pub(crate) fn note<T>(&self, result: &Result<T, client::Error>) {
        let pause = match result.as_ref().map_err(client::Error::kind) {
            Err(client::ErrorKind::Unavailable { retry_after, .. }) => Some(retry_after.unwrap_or(PAUSE)),
            _ => None,
        };
        self.pause(pause);
    }

    /// Asks nothing for a while where there is something to serve instead; `None` ends a pause.
    pub(crate) fn pause(&self, pause: Option<Duration>) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) =
            pause.map(|pause| Instant::now() + pause);
    }
}

impl Registry {
    /// The repository that answers a pull of `repository` from `namespace`, which clients with a mirror configured
    /// send as `ns` (distribution-spec, "Registry Proxying"); without one, the name under which `repository` is kept.
    ///
    /// Fails with [`Error::NameUnknown`] when upstreams are configured and this is none of them: `repository` is then
    /// somebody else's, and must not be answered with what has the same name here. A registry without upstreams is
    /// nobody's mirror and ignores namespaces.
    pub fn locate<'a>(&self, repository: &'a RepositoryName, namespace: Option<&str>) -> Result<Located<'a>> {
        let upstreams = &self.0.upstreams;
        let own = Located { repository: Cow::Borrowed(repository), namespace: None };
        match namespace {
            _ if upstreams.0.is_empty() => Ok(own),
            None => {
                let source = upstreams.source(repository);
                let name = source.and_then(|source| source.remote.name_here(&source.repository));
                Ok(Located { repository: name.map_or(own.repository, Cow::Owned), namespace: None })
            }
            Some(namespace) => {
                let remote = upstreams.by_host(namespace);
                let name =
                    remote.and_then(|remote| remote.name_here(&remote.name_there(repository.as_str())?));
                let name = name.ok_or_else(|| Error::NameUnknown(repository.clone()))?;
                Ok(Located { repository: Cow::Owned(name), namespace: Some(namespace.into()) })
            }
        }
    }

    /// Fails when `repository` only mirrors another registry: what is pushed there would contradict it.
    pub(crate) fn check_own(&self, repository: &RepositoryName) -> Result<()> {
        match self.0.upstreams.source(repository) {
            Some(source) => Err(Error::Mirror { host: source.remote.client.host().into() }),
            None => Ok(()),
        }
    }
}

/// The first component of local names for `host`.
fn prefix(host: &str) -> String {
    let host = host.to_ascii_lowercase().replace(':', "_");
    if DOCKER_ALIASES.contains(&host.as_str()) { DOCKER.to_owned() } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(hosts: &[(&str, bool)]) -> Upstreams {
        let upstream = |(host, default): &(&str, bool)| Upstream {
            client: client::Upstream::new(&client::Options::new(*host, "http://192.0.2.1")).unwrap(),
            default: *default,
            deltas: Deltas::Auto,
        };
        Upstreams::new(&hosts.iter().map(upstream).collect::<Vec<_>>())
    }

    fn source(upstreams: &Upstreams, name: &str) -> Option<(String, String)> {
        let source = upstreams.source(&name.parse().unwrap())?;
        Some((source.remote.client.host().to_owned(), source.repository.to_string()))
    }

    #[test]
    fn a_path_names_its_registry() {
        let upstreams = upstreams(&[("docker.io", false), ("quay.io", false), ("r.example:5000", false)]);
        for (name, expected) in [
            ("docker.io/library/debian", Some(("docker.io", "library/debian"))),
            ("docker.io/debian", Some(("docker.io", "library/debian"))),
            ("index.docker.io/a/b", Some(("docker.io", "a/b"))),
            ("quay.io/debian", Some(("quay.io", "debian"))),
            ("r.example_5000/a", Some(("r.example:5000", "a"))),
            ("quay.io", None),
            ("ghcr.io/a/b", None),
            ("debian", None),
        ] {
            let expected = expected.map(|(host, name)| (host.to_owned(), name.to_owned()));
            assert_eq!(source(&upstreams, name), expected, "{name}");
        }
    }

    #[test]
    fn the_default_upstream_has_every_other_name() {
        let upstreams = upstreams(&[("quay.io", false), ("docker.io", true)]);
        let found = |host: &str, name: &str| Some((host.to_owned(), name.to_owned()));
        assert_eq!(source(&upstreams, "debian"), found("docker.io", "library/debian"));
        assert_eq!(source(&upstreams, "a/b"), found("docker.io", "a/b"));
        assert_eq!(source(&upstreams, "docker.io/a/b"), found("docker.io", "a/b"));
        assert_eq!(source(&upstreams, "quay.io/a/b"), found("quay.io", "a/b"));
        let quay = upstreams.by_host("QUAY.io").unwrap();
        assert_eq!(quay.name_here(&"a/b".parse().unwrap()).unwrap().as_str(), "quay.io/a/b");
        let docker = upstreams.by_host("registry-1.docker.io").unwrap();
        assert_eq!(docker.name_here(&"library/a".parse().unwrap()).unwrap().as_str(), "library/a");
    }

    #[test]
    fn a_failure_pauses_and_a_success_ends_the_pause() {
        let upstreams = upstreams(&[("a.example", true)]);
        let remote = &upstreams.0[0];
        let error = |kind| Err::<(), _>(client::Error::new("a".into(), kind));
        remote.note(&error(client::ErrorKind::NotFound));
        assert!(!remote.is_paused());
        remote.note(&error(client::ErrorKind::unavailable("")));
        assert!(remote.is_paused());
        remote.note(&Ok(()));
        assert!(!remote.is_paused());
    }
}
