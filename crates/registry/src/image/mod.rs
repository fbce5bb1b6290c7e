//! Images as they are stored: what of an index is here, what is not, and why.
//!
//! An index is kept byte for byte whether its children are here or not; which are, is a matter of what was pushed or
//! fetched, of the platforms that are wanted of its upstream ([`Upstream::platforms`](crate::Upstream::platforms)), and
//! of what an operator does with [`Registry::complete`] and [`Registry::prune`].

mod absent;
mod complete;
mod prune;

use std::collections::BTreeSet;
use std::sync::Arc;

use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::platform::{self, Child, Filter};
use deltaport_oci::{Digest, Platform, Reference, RepositoryName};
use deltaport_store as store;
use serde::{Deserialize, Serialize};

use crate::{Error, Manifest, Registry, Result, Verdict};

pub(crate) use absent::Lost;
pub use absent::{Absent, Reason};
pub(crate) use complete::words;
pub use complete::{Completed, Failed};
pub use prune::{Evicted, Pruned};

/// How deep indexes in indexes are looked into.
pub const MAX_DEPTH: usize = 4;
/// How many manifests one image may consist of to be shown, completed or pruned. A tree of them has all in memory.
pub const MAX_MANIFESTS: usize = 8192;

/// What is wanted where nothing else is said.
static EVERYTHING: Filter = Filter::ALL;

/// An image or index, with everything below it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Tree {
    /// The repository, as it is called here.
    pub repository: RepositoryName,
    /// The tag or digest that was asked for.
    pub reference: String,
    /// What that means here.
    pub root: Node,
}

/// A manifest in a [`Tree`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Node {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The size of the manifest itself in bytes.
    pub size: u64,
    /// What it is for, as its index says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What it is.
    pub role: Role,
    /// The image that an attestation is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<Digest>,
    /// Whether it is here, or why not.
    pub state: State,
    /// Its configuration and layers, when it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs: Option<Blobs>,
    /// What the policy has decided about it, by digest and under its tags, where there is a policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
    /// The children of an index that is here, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Self>,
}

/// What a manifest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// An image, or an artifact in the form of one.
    Image,
    /// An index.
    Index,
    /// How an image was built, or what is in it.
    Attestation,
    /// A child for no platform in particular.
    Other,
}

/// Whether a manifest is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is.
    Present,
    /// Nobody has asked for it or pushed it yet.
    Missing,
    /// Its platform is not wanted of the upstream.
    ByPolicy,
    /// It was here and was removed on purpose.
    Evicted,
    /// The upstream does not have it either.
    AbsentUpstream,
}

/// The configuration and the layers of an image, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Blobs {
    /// How many there are.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them are here.
    pub present_count: usize,
    /// Their bytes.
    pub present_bytes: u64,
}

impl Tree {
    /// Every manifest, an index in front of its children.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        let mut left = vec![&self.root];
        std::iter::from_fn(move || {
            let node = left.pop()?;
            left.extend(node.children.iter().rev());
            Some(node)
        })
    }

    /// Whether everything is here.
    pub fn is_complete(&self) -> bool {
        self.nodes().all(|node| {
            node.state == State::Present && node.blobs.is_none_or(|blobs| blobs.present_count == blobs.count)
        })
    }
}

impl Registry {
    /// What is here of the image that `reference` means. Asks no upstream.
    ///
    /// Fails with [`Error::ManifestUnknown`] when its manifest is not here, and with [`Error::TooManyManifests`].
    pub async fn image(&self, repository: &RepositoryName, reference: &Reference) -> Result<Tree> {
        let found = self.store().names().manifest(repository, reference).await?;
        let manifest = found.ok_or_else(|| Error::ManifestUnknown(reference.clone()))?;
        let source = self.0.upstreams.source(repository);
        let policy = source.as_ref().map_or(&EVERYTHING, |source| &source.remote.platforms);
        let mut room = MAX_MANIFESTS;
        let root = Node {
            digest: manifest.digest,
            media_type: manifest.media_type.to_string(),
            size: manifest.bytes.len() as u64,
            platform: None,
            role: Role::Image,
            about: None,
            state: State::Present,
            blobs: None,
            verdicts: Vec::new(),
            children: Vec::new(),
        };
        let root = Box::pin(self.look_into(root, &manifest, repository, policy, 0, &mut room)).await?;
        Ok(Tree { repository: repository.clone(), reference: reference.to_string(), root })
    }

    /// Adds what is below a manifest that is here.
    async fn look_into(
        &self,
        mut node: Node,
        manifest: &Manifest,
        repository: &RepositoryName,
        policy: &Filter,
        depth: usize,
        room: &mut usize,
    ) -> Result<Node> {
        if self.has_policy() {
            node.verdicts = self.verdicts(repository, &node.digest).await?;
        }
        let Some(view) = self.view_of(manifest) else { return Ok(node) };
        if !view.is_index() {
            node.blobs = Some(self.blobs_here(repository, &view).await?);
            return Ok(node);
        }
        node.role = Role::Index;
        if depth >= MAX_DEPTH {
            return Ok(node);
        }
        *room =
            room.checked_sub(view.manifests.len()).ok_or(Error::TooManyManifests { limit: MAX_MANIFESTS })?;
        for child in children(&view, policy) {
            let stored = self.stored(repository, &child.descriptor.digest).await?;
            let state = match &stored {
                Some(_) => State::Present,
                None if !child.kept => State::ByPolicy,
                None => self.why_absent(repository, &child.descriptor.digest).await?,
            };
            let below = child_node(&child, state);
            let below = match stored {
                Some(stored) => {
                    Box::pin(self.look_into(below, &stored, repository, policy, depth + 1, room)).await?
                }
                None => below,
            };
            node.children.push(below);
        }
        Ok(node)
    }

    /// Why a child that is wanted is not here.
    async fn why_absent(&self, repository: &RepositoryName, digest: &Digest) -> Result<State> {
        Ok(match self.store().names().absence(repository, digest).await? {
            Some(store::Absence::Evicted) => State::Evicted,
            Some(store::Absence::Upstream) => State::AbsentUpstream,
            None => State::Missing,
        })
    }

    /// How much of an image's configuration and layers is here.
    async fn blobs_here(&self, repository: &RepositoryName, view: &View) -> Result<Blobs> {
        let mut seen = BTreeSet::new();
        let all: Vec<(Digest, u64)> = view
            .blobs()
            .filter(|blob| seen.insert(blob.digest))
            .map(|blob| (blob.digest, blob.size))
            .collect();
        let digests = all.iter().map(|(digest, _)| *digest).collect();
        let absent: BTreeSet<Digest> =
            self.store().names().absent(repository, digests).await?.into_iter().collect();
        let bytes = |here: bool| {
            let counted = all.iter().filter(|(digest, _)| !(here && absent.contains(digest)));
            counted.fold(0_u64, |sum, (_, size)| sum.saturating_add(*size))
        };
        Ok(Blobs {
            count: all.len(),
            bytes: bytes(false),
            present_count: all.len() - absent.len(),
            present_bytes: bytes(true),
        })
    }

    /// The manifest of a repository with this digest, if it is here.
    async fn stored(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<Arc<Manifest>>> {
        Ok(self.store().names().manifest(repository, &Reference::Digest(*digest)).await?)
    }

    /// What a stored manifest refers to; `None` when the limits have become smaller since it came.
    pub(crate) fn view_of(&self, manifest: &Manifest) -> Option<View> {
        View::parse(&manifest.media_type, &manifest.bytes, self.manifest_limits()).ok()
    }

    /// How deep and how long a manifest may be.
    pub(crate) fn manifest_limits(&self) -> Limits {
        let limits = &self.options().limits;
        Limits { depth: limits.json_depth, descriptors: limits.references }
    }
}

/// The children of an index, each with whether `policy` wants it; where it matches nothing, it wants none.
fn children<'a>(view: &'a View, policy: &Filter) -> Vec<Child<'a>> {
    match policy.select(view) {
        Ok(selection) => selection.children,
        Err(_) => {
            let all = EVERYTHING.select(view).map(|selection| selection.children).unwrap_or_default();
            all.into_iter().map(|child| Child { kept: false, ..child }).collect()
        }
    }
}

fn child_node(child: &Child<'_>, state: State) -> Node {
    let (role, about) = match child.role {
        platform::Role::Image => (Role::Image, None),
        platform::Role::Index => (Role::Index, None),
        platform::Role::Attestation(about) => (Role::Attestation, Some(about)),
        platform::Role::Platformless => (Role::Other, None),
    };
    Node {
        digest: child.descriptor.digest,
        media_type: child.descriptor.media_type.clone(),
        size: child.descriptor.size,
        platform: child.descriptor.platform.clone(),
        role,
        about,
        state,
        blobs: None,
        verdicts: Vec::new(),
        children: Vec::new(),
    }
}
