//! Which local repository stands for what in another registry.
//!
//! The table is closed: a namespace, a host or a path that a client names is looked up here and is never a place to
//! connect to. What an upstream holds is kept under the local name `<host>/<repository>`; the default upstream's under
//! the plain name.

mod policy;
mod public;
mod remote;

use std::borrow::Cow;
use std::sync::Arc;

use deltaport_client as client;
use deltaport_oci::{RepositoryName, platform};
use deltaport_trust::Pattern;

use crate::{Error, Registry, Result};

pub use policy::{Lifetime, Stale, TagPattern, TagPatternError, TagPolicy, TagRule};
pub use public::PUBLIC;
pub(crate) use remote::{Ask, Remote, Sated};

/// The registry that Docker's clients mean when they name none.
pub const DOCKER: &str = "docker.io";
/// Other names of [`DOCKER`].
pub const DOCKER_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// A registry whose content is served here, fetched when it is asked for.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// How it is asked. Its host is the name that clients know it by.
    pub client: client::Upstream,
    /// Whether repositories that name no registry are its.
    pub default: bool,
    /// Names of this registry itself, without ports, under which it stands for that upstream alone.
    pub hosts: Vec<String>,
    /// Which of its repositories are served, by their names there; none given are all.
    pub repositories: Vec<Pattern>,
    /// Which children of its indexes are fetched.
    pub platforms: platform::Filter,
    /// How long what it says is believed.
    pub policy: TagPolicy,
    /// When a layer is asked for as a delta.
    pub deltas: Deltas,
    /// Whether bytes from it are paid for, so that a delta is worth it however fast they come.
    pub metered: bool,
}

impl Upstream {
    /// An upstream with everything else as the configuration begins with.
    pub fn new(client: client::Upstream) -> Self {
        Self {
            client,
            default: false,
            hosts: Vec::new(),
            repositories: Vec::new(),
            platforms: platform::Filter::ALL,
            policy: TagPolicy::DEFAULT,
            deltas: Deltas::Auto,
            metered: false,
        }
    }
}

/// When a layer is asked for as a delta from one that is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deltas {
    /// When the layer is likely to be here sooner that way, by the measured speed of the link and of applying.
    #[default]
    Auto,
    /// Whenever there is one.
    Always,
    /// Never.
    Never,
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

/// What a local repository stands for.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) remote: Arc<Remote>,
    /// Its name there.
    pub(crate) repository: RepositoryName,
}

impl Upstreams {
    pub(crate) fn new(upstreams: &[Upstream]) -> Self {
        Self(upstreams.iter().map(|upstream| Arc::new(Remote::new(upstream))).collect())
    }

    /// What `repository` stands for; `None` when it is this registry's own, or one that is not served.
    pub(crate) fn source(&self, repository: &RepositoryName) -> Option<Source> {
        let (remote, there) = self.split(repository)?;
        Some(Source { remote: Arc::clone(remote), repository: remote.name_there(there)? })
    }

    /// The upstream that has the say over `repository`, whether it serves that one or not; `None` when the name is this
    /// registry's own.
    pub(crate) fn mirrored(&self, repository: &RepositoryName) -> Option<&Remote> {
        self.split(repository).map(|(remote, _)| &**remote)
    }

    /// The upstream that a local name belongs to, and what follows. A default upstream leaves to this registry what it
    /// does not serve.
    fn split<'a>(&self, repository: &'a RepositoryName) -> Option<(&Arc<Remote>, &'a str)> {
        let name = repository.as_str();
        let (first, rest) = name.split_once('/').unwrap_or((name, ""));
        match self.by_host(first) {
            Some(remote) => Some((remote, rest)),
            None => {
                let remote = self.0.iter().find(|remote| remote.default)?;
                remote.name_there(name).is_some().then_some((remote, name))
            }
        }
    }

    /// The upstream that is known as `host`, however that is spelled.
    pub(crate) fn by_host(&self, host: &str) -> Option<&Arc<Remote>> {
        let host = prefix(host);
        self.0.iter().find(|remote| remote.prefix == host)
    }

    /// The upstream that this registry stands for when it is called `host`.
    fn by_own_host(&self, host: &str) -> Option<&Arc<Remote>> {
        self.0.iter().find(|remote| remote.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)))
    }

    /// The local name of a repository of an upstream.
    fn name_here(&self, remote: &Remote, name: RepositoryName) -> Option<RepositoryName> {
        let first = name.as_str().split('/').next().unwrap_or_default();
        // A plain name that begins like another upstream's would be taken for that one's.
        if remote.default && self.by_host(first).is_none() {
            return Some(name);
        }
        format!("{}/{name}", remote.prefix).parse().ok()
    }
}

impl Registry {
    /// The repository that answers requests for `repository`.
    ///
    /// `namespace` is the registry that the client means, as clients with a mirror configured send it in `ns`
    /// (distribution-spec, "Registry Proxying"), and counts first; `host` is what the client calls this registry,
    /// without a port, which counts when it belongs to an upstream. Without either, the name itself says it:
    /// `docker.io/debian`, or a name of the default upstream. All ways lead to the same repository.
    ///
    /// Fails with [`Error::NameUnknown`] when upstreams are configured and the namespace is none of them, or when the
    /// upstream's repository is not one that is served: `repository` is then somebody else's, and must not be answered
    /// with what has the same name here. A registry without upstreams is nobody's mirror and ignores namespaces.
    pub fn locate<'a>(
        &self,
        repository: &'a RepositoryName,
        namespace: Option<&str>,
        host: Option<&str>,
    ) -> Result<Located<'a>> {
        let upstreams = &self.0.upstreams;
        let unknown = || Error::NameUnknown(repository.clone());
        let named = match namespace.filter(|_| !upstreams.0.is_empty()) {
            Some(namespace) => Some(upstreams.by_host(namespace).ok_or_else(unknown)?),
            None => host.and_then(|host| upstreams.by_own_host(host)),
        };
        let found = match named {
            Some(remote) => Some((remote, repository.as_str())),
            None => upstreams.split(repository),
        };
        let name = match found {
            Some((remote, there)) => {
                let name = remote.name_there(there).and_then(|there| upstreams.name_here(remote, there));
                Cow::Owned(name.ok_or_else(unknown)?)
            }
            None => Cow::Borrowed(repository),
        };
        let namespace = namespace.filter(|_| named.is_some()).map(Into::into);
        Ok(Located { repository: name, namespace })
    }

    /// Every repository that requests for `repository` may be answered from, whatever else they say.
    pub(crate) fn names_of(&self, repository: &RepositoryName, host: Option<&str>) -> Vec<RepositoryName> {
        let upstreams = &self.0.upstreams;
        let namespaces = upstreams.0.iter().map(|remote| Some(remote.client.host()));
        let located =
            [None].into_iter().chain(namespaces).map(|namespace| self.locate(repository, namespace, host));
        located.filter_map(|located| Some(located.ok()?.repository.into_owned())).collect()
    }

    /// Fails when `repository` only mirrors another registry: what is pushed there would contradict it.
    pub(crate) fn check_own(&self, repository: &RepositoryName) -> Result<()> {
        match self.0.upstreams.mirrored(repository) {
            Some(remote) => Err(Error::Mirror { host: remote.client.host().into() }),
            None => Ok(()),
        }
    }
}

/// The first component of local names for what comes from `host`, however that is spelled: `docker.io` for each name of
/// Docker Hub, `hub.example_5000` for `hub.example:5000`.
pub fn prefix(host: &str) -> String {
    let host = host.to_ascii_lowercase().replace(':', "_");
    if DOCKER_ALIASES.contains(&host.as_str()) { DOCKER.to_owned() } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(hosts: &[(&str, bool)]) -> Upstreams {
        let upstream = |(host, default): &(&str, bool)| Upstream {
            default: *default,
            ..Upstream::new(client::Upstream::new(&client::Options::new(*host, "http://192.0.2.1")).unwrap())
        };
        Upstreams::new(&hosts.iter().map(upstream).collect::<Vec<_>>())
    }

    /// The local name of the repository `name` of the upstream `host`.
    fn here(upstreams: &Upstreams, host: &str, name: &str) -> String {
        let remote = upstreams.by_host(host).unwrap();
        upstreams.name_here(remote, name.parse().unwrap()).unwrap().to_string()
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
        assert_eq!(here(&upstreams, "QUAY.io", "a/b"), "quay.io/a/b");
        assert_eq!(here(&upstreams, "registry-1.docker.io", "library/a"), "library/a");
        assert_eq!(here(&upstreams, "docker.io", "quay.io/a"), "docker.io/quay.io/a", "or it were quay's");
        assert_eq!(source(&upstreams, "docker.io/quay.io/a"), found("docker.io", "quay.io/a"));
    }

    #[test]
    fn what_an_upstream_does_not_serve_is_nobodys_and_what_the_default_does_not_is_ours() {
        let only = |patterns: &[&str]| patterns.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let upstream = |host: &str, default, patterns: &[&str]| Upstream {
            default,
            repositories: only(patterns),
            ..Upstream::new(client::Upstream::new(&client::Options::new(host, "http://192.0.2.1")).unwrap())
        };
        let upstreams = Upstreams::new(&[
            upstream("docker.io", false, &["library/**"]),
            upstream("hub.example", true, &["team/*", "tools"]),
        ]);
        for (name, served, mirrored) in [
            ("docker.io/debian", true, true),
            ("docker.io/library/debian", true, true),
            ("docker.io/a/b", false, true),
            ("docker.io", false, true),
            ("team/app", true, true),
            ("tools", true, true),
            ("team/app/debug", false, false),
            ("own", false, false),
            ("hub.example/own", false, true),
        ] {
            assert_eq!(source(&upstreams, name).is_some(), served, "{name}");
            assert_eq!(upstreams.mirrored(&name.parse().unwrap()).is_some(), mirrored, "{name}");
        }
    }
}
