//! Where the content of a rule goes besides this registry: to another one, or into an OCI image layout. What is there is
//! looked at like what is here, and what has to be sent is in the plan.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use deltaport_client as client;
use deltaport_client::ErrorKind;
use deltaport_oci::{Digest, Reference, RepositoryName, Tag};
use futures_util::{StreamExt as _, stream};

use super::catalog::Repositories;
use super::layout::Layout;
use super::plan::{Found, Here, Seen};
use crate::Registry;
use crate::upstream::{Ask, Remote};

/// How many questions about one tag are asked at the same time.
const QUESTIONS: usize = 8;

/// A place other than this registry that a rule fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Another registry.
    Registry {
        /// One of the upstreams, by the name that clients know it by.
        host: String,
        /// The repository there.
        repository: RepositoryName,
    },
    /// An OCI image layout in this directory.
    Layout(PathBuf),
}

impl Destination {
    /// Where one repository of a rule goes: of several, each below, under its name at the upstream.
    pub(super) fn for_one(&self, of: &Repositories, name: &RepositoryName) -> Option<Self> {
        match (of, self) {
            (Repositories::One(_), _) => Some(self.clone()),
            (Repositories::Matching(_), Self::Registry { host, repository }) => {
                let repository = format!("{repository}/{name}").parse().ok()?;
                Some(Self::Registry { host: host.clone(), repository })
            }
            (Repositories::Matching(_), Self::Layout(path)) => Some(Self::Layout(path.join(name.as_str()))),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { host, repository } => write!(f, "{host}/{repository}"),
            Self::Layout(path) => write!(f, "oci:{}", path.display()),
        }
    }
}

/// A destination with what is needed to reach it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its name, also under which is remembered what was brought there.
    pub(super) place: String,
    pub(super) at: At,
}

#[derive(Clone, Debug)]
pub(super) enum At {
    Registry { remote: Arc<Remote>, repository: RepositoryName },
    Layout(Arc<Layout>),
}

impl Target {
    /// What a tag leads to there.
    pub(super) async fn head(&self, tag: &Tag) -> Result<Option<Digest>, String> {
        match &self.at {
            At::Registry { remote, repository } => {
                head(remote, repository, &Reference::Tag(tag.clone())).await.map(Option::flatten)
            }
            At::Layout(layout) => layout.resolve(&Reference::Tag(tag.clone())).await,
        }
    }

    /// What is there of what was seen, `tag` leading to `tagged`.
    pub(super) async fn look(&self, seen: &Seen, tagged: Option<Digest>) -> Result<Here, String> {
        let mut there = Here::default();
        there.tags.extend(tagged.map(|digest| (seen.tag.clone(), digest)));
        for tag in seen.signatures.iter().filter_map(|signature| signature.tag.as_ref()) {
            if let Some(digest) = self.head(tag).await? {
                there.tags.insert(tag.clone(), digest);
            }
        }
        let all = || seen.signatures.iter().chain(&seen.image);
        match &self.at {
            At::Registry { remote, repository } => {
                let all: Vec<Found> = all().cloned().collect();
                look_at_registry(remote, repository, &all, &mut there).await?;
            }
            At::Layout(layout) => {
                let parts =
                    all().flat_map(|found| found.blobs.iter().copied().chain([(found.digest, found.size)]));
                let held = layout.held(parts.collect()).await?;
                let whole = |found: &Found| {
                    found.blobs.iter().all(|(digest, _)| held.contains(digest))
                        && held.contains(&found.digest)
                };
                let whole: Vec<Found> = all().filter(|found| whole(found)).cloned().collect();
                for found in whole {
                    // What is about another manifest is found by the index of the layout only.
                    if found.subject.is_none() || found.tag.is_some() || layout.lists(&found.digest).await? {
                        there.content.insert(found.digest);
                    }
                }
                let blobs: BTreeSet<Digest> =
                    all().flat_map(|found| found.blobs.iter().map(|(digest, _)| *digest)).collect();
                there.content.extend(blobs.intersection(&held));
            }
        }
        Ok(there)
    }
}

/// Which manifests a registry has, and of those that it has not, which blobs.
async fn look_at_registry(
    remote: &Remote,
    repository: &RepositoryName,
    all: &[Found],
    there: &mut Here,
) -> Result<(), String> {
    let mut asked = stream::iter(all.to_vec())
        .map(|found| async move {
            let digest = found.digest;
            let known = head(remote, repository, &Reference::Digest(digest)).await?.is_some();
            // A manifest that says something about another one may be there and in no list: the list comes after it.
            let listed = match found.subject.filter(|_| known && found.tag.is_none()) {
                Some(subject) => is_listed(remote, repository, &subject, &digest).await?,
                None => known,
            };
            Ok::<_, String>((digest, listed))
        })
        .buffered(QUESTIONS);
    while let Some(answer) = asked.next().await {
        let (digest, known) = answer?;
        if known {
            there.content.insert(digest);
        }
    }
    let lacking = all.iter().filter(|found| !there.content.contains(&found.digest));
    let blobs: BTreeSet<Digest> =
        lacking.flat_map(|found| found.blobs.iter().map(|(digest, _)| *digest)).collect();
    let mut asked = stream::iter(blobs)
        .map(|digest| async move {
            remote.may_ask(Ask::Blob).map_err(|_| enough(remote))?;
            match remote.client.head_blob(repository, &digest).await {
                Ok(_) => Ok((digest, true)),
                Err(error) if *error.kind() == ErrorKind::NotFound => Ok((digest, false)),
                Err(error) => Err(error.to_string()),
            }
        })
        .buffered(QUESTIONS);
    while let Some(answer) = asked.next().await {
        let (digest, known) = answer?;
        if known {
            there.content.insert(digest);
        }
    }
    Ok(())
}

/// Whether a registry lists a manifest among those about `subject`.
async fn is_listed(
    remote: &Remote,
    repository: &RepositoryName,
    subject: &Digest,
    digest: &Digest,
) -> Result<bool, String> {
    let listed = remote.client.referrers(repository, subject, None).await;
    let listed = listed.map_err(|error| error.to_string())?;
    Ok(listed.iter().any(|referrer| referrer.digest == *digest))
}

/// What a registry says about a reference: `None` when it has none, `Some(None)` when it has and does not say which.
async fn head(
    remote: &Remote,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Option<Option<Digest>>, String> {
    remote.may_ask(Ask::Head).map_err(|_| enough(remote))?;
    let head = remote.client.head_manifest(repository, reference).await;
    remote.note(Ask::Head, &head);
    match head {
        Ok(client::ManifestHead { digest, .. }) => Ok(Some(digest)),
        Err(error) if *error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn enough(remote: &Remote) -> String {
    format!("{} wants no more requests for a while", remote.client.host())
}

impl Registry {
    /// A destination as it is reached; `None` when there is no upstream with its host.
    pub(super) fn target(&self, destination: &Destination) -> Option<Target> {
        let at = match destination {
            Destination::Registry { host, repository } => At::Registry {
                remote: Arc::clone(self.0.upstreams.by_host(host)?),
                repository: repository.clone(),
            },
            Destination::Layout(path) => At::Layout(Arc::new(Layout::destination(path))),
        };
        Some(Target { place: destination.to_string(), at })
    }
}
