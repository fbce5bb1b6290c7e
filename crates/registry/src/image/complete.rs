//! Fetching what is missing of an image, whatever is wanted of its upstream otherwise.

use std::sync::Arc;

use deltaport_oci::manifest::View;
use deltaport_oci::platform::{self, Child, Filter, NothingMatches};
use deltaport_oci::{Digest, Platform, Reference, RepositoryName};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::{MAX_DEPTH, MAX_MANIFESTS, Tree};
use crate::{Error, Manifest, Registry, Result};

/// How many manifests of one image are asked for at the same time.
const MANIFESTS: usize = 8;
/// How many blobs of one image are fetched, or wait for their turn on the link, at the same time.
const BLOBS: usize = 32;

/// What [`Registry::complete`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// What is here now.
    pub tree: Tree,
    /// What was wanted and could not be had.
    pub failed: Vec<Failed>,
}

/// Something that could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Failed {
    /// A manifest, or a blob of an image.
    pub digest: Digest,
    /// What the image is for, if its index says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Whether it is an image for a platform that was asked for by name, or a blob of one.
    pub asked: bool,
    /// Whether the upstream says that it does not have it.
    pub absent: bool,
    /// What happened, in words.
    pub why: String,
}

/// A manifest on the way through an image.
struct Step {
    manifest: Arc<Manifest>,
    platform: Option<Platform>,
    /// Whether its platform was asked for by name.
    asked: bool,
    /// What is wanted of its children.
    filter: Filter,
    depth: usize,
}

impl Registry {
    /// Fetches what is missing of the image that `reference` means: the children of its index that `filter` selects, and
    /// the blobs of all of them. Returns when everything is here or has failed; what has been begun is fetched to its end
    /// also when the future is dropped, and may be taken up by calling this again.
    ///
    /// What the upstream is otherwise asked for ([`Upstream::platforms`](crate::Upstream::platforms)) does not count
    /// here. Referrers are not fetched.
    ///
    /// Fails with [`Error::NothingMatches`] when no child is selected, and as [`Registry::manifest`] does.
    pub async fn complete(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        filter: &Filter,
    ) -> Result<Completed> {
        let manifest = Arc::clone(&self.manifest(repository, reference).await?.manifest);
        let root = Reference::Digest(manifest.digest);
        let mut failed = Vec::new();
        let images = self.fetch_children(repository, manifest, filter, &mut failed).await?;
        self.fetch_blobs(repository, images, &mut failed).await?;
        let mut tree = self.image(repository, &root).await?;
        tree.reference = reference.to_string();
        Ok(Completed { tree, failed })
    }

    /// Fetches the manifests that are wanted, level by level; returns the images.
    async fn fetch_children(
        &self,
        repository: &RepositoryName,
        root: Arc<Manifest>,
        filter: &Filter,
        failed: &mut Vec<Failed>,
    ) -> Result<Vec<(Step, View)>> {
        let mut images = Vec::new();
        let (mut nothing, mut matched, mut room) = (None, filter.is_all(), MAX_MANIFESTS);
        let mut level =
            vec![Step { manifest: root, platform: None, asked: false, filter: filter.clone(), depth: 0 }];
        while !level.is_empty() {
            let mut wanted = Vec::new();
            for step in std::mem::take(&mut level) {
                let Some(view) = self.view_of(&step.manifest) else { continue };
                if !view.is_index() {
                    matched |= step.depth == 0;
                    images.push((step, view));
                    continue;
                }
                if step.depth >= MAX_DEPTH {
                    continue;
                }
                match step.filter.select(&view) {
                    Ok(selection) => {
                        wanted.extend(selection.kept().map(|child| Wanted::new(child, &step)));
                    }
                    Err(error) => nothing = nothing.or(Some(error)),
                }
            }
            matched |= wanted.iter().any(|wanted| wanted.asked || wanted.leaf);
            room = room.checked_sub(wanted.len()).ok_or(Error::TooManyManifests { limit: MAX_MANIFESTS })?;
            let mut fetched = stream::iter(wanted)
                .map(|wanted| self.clone().fetch_child(repository.clone(), wanted))
                .buffered(MANIFESTS);
            while let Some(child) = fetched.next().await {
                match child? {
                    Ok(step) => level.push(step),
                    Err(failure) => failed.push(failure),
                }
            }
        }
        match nothing.filter(|_| !matched) {
            Some(error) => Err(error.into()),
            None => Ok(images),
        }
    }

    async fn fetch_child(
        self,
        repository: RepositoryName,
        wanted: Wanted,
    ) -> Result<std::result::Result<Step, Failed>> {
        let Wanted { digest, platform, asked, filter, depth, .. } = wanted;
        let found = match self.stored(&repository, &digest).await? {
            Some(stored) => Ok(Some(stored)),
            None => {
                let filled = self.fill_manifest(&repository, &Reference::Digest(digest), None).await;
                filled.map(|pulled| pulled.map(|pulled| pulled.manifest))
            }
        };
        Ok(match found {
            Ok(Some(manifest)) => Ok(Step { manifest, platform, asked, filter, depth }),
            Ok(None) => Err(self.not_there(&repository, digest, platform, asked)),
            Err(error) => Err(Failed { digest, platform, asked, absent: false, why: words(&error) }),
        })
    }

    /// Fetches the blobs of images that are not here.
    async fn fetch_blobs(
        &self,
        repository: &RepositoryName,
        images: Vec<(Step, View)>,
        failed: &mut Vec<Failed>,
    ) -> Result<()> {
        let mut missing = Vec::new();
        for (step, view) in &images {
            let blobs = view.blobs().map(|blob| blob.digest).collect();
            for digest in self.store().names().absent(repository, blobs).await? {
                missing.push((digest, step.platform.clone(), step.asked));
            }
        }
        let fetch = |(digest, platform, asked)| {
            let (registry, repository) = (self.clone(), repository.clone());
            async move { (digest, platform, asked, registry.bring_blob(&repository, &digest).await) }
        };
        let mut fetched = stream::iter(missing).map(fetch).buffer_unordered(BLOBS);
        while let Some((digest, platform, asked, came)) = fetched.next().await {
            match came {
                Ok(true) => {}
                Ok(false) => failed.push(self.not_there(repository, digest, platform, asked)),
                Err(error) => {
                    failed.push(Failed { digest, platform, asked, absent: false, why: words(&error) });
                }
            }
        }
        Ok(())
    }

    fn not_there(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        platform: Option<Platform>,
        asked: bool,
    ) -> Failed {
        let (absent, why) = match self.0.upstreams.source(repository) {
            Some(source) => (true, format!("{} does not have it", source.remote.client.host())),
            None => (false, "there is no upstream to fetch it from; push it".to_owned()),
        };
        Failed { digest, platform, asked, absent, why }
    }
}

/// A child that is wanted.
struct Wanted {
    digest: Digest,
    platform: Option<Platform>,
    asked: bool,
    /// Whether it is no index: there is something behind the filter.
    leaf: bool,
    filter: Filter,
    depth: usize,
}

impl Wanted {
    fn new(child: &Child<'_>, parent: &Step) -> Self {
        let platform = child.descriptor.platform.clone().filter(|platform| !platform.is_unknown());
        let image = matches!(child.role, platform::Role::Image | platform::Role::Index);
        let named = image && platform.is_some();
        Self {
            digest: child.descriptor.digest,
            asked: parent.asked || named && !parent.filter.is_all(),
            leaf: child.role != platform::Role::Index,
            // In an index for a platform that is wanted, everything is.
            filter: if named { Filter::ALL } else { parent.filter.clone() },
            platform: platform.or_else(|| parent.platform.clone()),
            depth: parent.depth + 1,
        }
    }
}

/// What an error says, with its cause: whoever completes an image may read the log as well.
pub(crate) fn words(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl From<NothingMatches> for Error {
    fn from(nothing: NothingMatches) -> Self {
        Self::NothingMatches(Box::new(nothing))
    }
}
