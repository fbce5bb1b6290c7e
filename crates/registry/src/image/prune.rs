//! Making an image sparse on purpose.

use std::collections::BTreeMap;

use deltaport_oci::manifest::View;
use deltaport_oci::platform::{Filter, NothingMatches, Role};
use deltaport_oci::{Digest, Platform, Reference, RepositoryName};
use serde::{Deserialize, Serialize};

use super::{EVERYTHING, MAX_DEPTH, MAX_MANIFESTS, Tree};
use crate::{Error, Registry, Result};

/// What [`Registry::prune`] came to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Pruned {
    /// What is here now.
    pub tree: Tree,
    /// Manifests that were removed.
    pub evicted: Vec<Evicted>,
    /// Manifests that stay because a tag leads to them without this index.
    pub kept: Vec<Evicted>,
    /// Bytes of blobs of which the repository has no more need. The collector takes them after its grace period, unless
    /// another repository holds them.
    pub bytes: u64,
    /// Whether there is an upstream from which it comes again when somebody asks for it.
    pub upstream: bool,
}

/// A manifest that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Evicted {
    /// Its digest.
    pub digest: Digest,
    /// What it is for, if the index says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// What is to be removed: by digest, what each is for.
type Doomed = BTreeMap<Digest, Option<Platform>>;

impl Registry {
    /// Removes from the repository the children that `filter` selects of the index that `reference` means, with their
    /// attestations. The index stays as it is. Children that a tag leads to without this index stay too. Asks no
    /// upstream.
    ///
    /// Fails with [`Error::NothingMatches`] when no child is selected, with [`Error::NotAnIndex`], and with
    /// [`Error::ManifestUnknown`] when it is not here.
    pub async fn prune(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        filter: &Filter,
    ) -> Result<Pruned> {
        let names = self.store().names();
        let found = names.manifest(repository, reference).await?;
        let root = found.ok_or_else(|| Error::ManifestUnknown(reference.clone()))?;
        let view = self.view_of(&root).filter(View::is_index).ok_or(Error::NotAnIndex)?;
        let mut doomed = Doomed::new();
        // What is for no platform was not asked for.
        let filter = filter.clone().with_platformless(false);
        if let Some(nothing) = Box::pin(self.select(repository, &view, &filter, None, 0, &mut doomed)).await?
            && doomed.is_empty()
        {
            return Err(nothing.into());
        }
        let blobs = self.blobs_of(repository, doomed.keys()).await?;
        let evicted = names.evict(repository, &root.digest, doomed.keys().copied().collect()).await?;
        let mut bytes = 0_u64;
        for (blob, size) in &blobs {
            if names.blob(repository, blob).await?.is_some()
                && names.referenced(repository, blob).await?.is_none()
            {
                bytes = bytes.saturating_add(*size);
            }
        }
        let mut kept = Vec::new();
        for (digest, platform) in doomed.iter().filter(|(digest, _)| !evicted.contains(digest)) {
            if self.stored(repository, digest).await?.is_some() {
                kept.push(Evicted { digest: *digest, platform: platform.clone() });
            }
        }
        for digest in &evicted {
            self.0.fills.forget_complete(repository, digest);
        }
        let platform = |digest: &Digest| doomed.get(digest).cloned().flatten();
        let evicted = evicted.iter().map(|digest| Evicted { digest: *digest, platform: platform(digest) });
        Ok(Pruned {
            evicted: evicted.collect(),
            kept,
            bytes,
            upstream: self.0.upstreams.source(repository).is_some(),
            tree: self.image(repository, reference).await?,
        })
    }

    /// Adds what `filter` selects of an index and of the indexes in it that are here; says so where that is nothing.
    async fn select(
        &self,
        repository: &RepositoryName,
        view: &View,
        filter: &Filter,
        within: Option<&Platform>,
        depth: usize,
        doomed: &mut Doomed,
    ) -> Result<Option<NothingMatches>> {
        let selection = match filter.select(view) {
            Ok(selection) => selection,
            Err(nothing) => return Ok(Some(nothing)),
        };
        let mut nothing = None;
        for child in selection.kept() {
            let platform = child.descriptor.platform.as_ref().filter(|platform| !platform.is_unknown());
            let digest = child.descriptor.digest;
            let about = match child.role {
                Role::Attestation(about) => view.manifests.iter().find(|image| image.digest == about),
                _ => None,
            };
            let named = about.map_or(platform, |image| image.platform.as_ref()).or(within);
            // An index for no platform is looked into, and stays with what is not selected of it.
            let whole = child.role != Role::Index || platform.is_some() || within.is_some();
            if whole {
                doomed.insert(digest, named.cloned());
            }
            if doomed.len() > MAX_MANIFESTS {
                return Err(Error::TooManyManifests { limit: MAX_MANIFESTS });
            }
            if child.role != Role::Index || depth + 1 >= MAX_DEPTH {
                continue;
            }
            let Some(stored) = self.stored(repository, &digest).await? else { continue };
            let Some(inner) = self.view_of(&stored) else { continue };
            let filter = if whole { &EVERYTHING } else { filter };
            let missed = Box::pin(self.select(repository, &inner, filter, named, depth + 1, doomed)).await?;
            nothing = nothing.or(missed);
        }
        if nothing.is_none() && doomed.is_empty() {
            nothing = Some(NothingMatches::new(filter, view));
        }
        Ok(nothing)
    }

    /// The blobs of images that are here, with their sizes.
    async fn blobs_of(
        &self,
        repository: &RepositoryName,
        images: impl Iterator<Item = &Digest>,
    ) -> Result<BTreeMap<Digest, u64>> {
        let mut blobs = BTreeMap::new();
        for image in images {
            let Some(stored) = self.stored(repository, image).await? else { continue };
            let view = self.view_of(&stored);
            blobs.extend(view.iter().flat_map(View::blobs).map(|blob| (blob.digest, blob.size)));
        }
        Ok(blobs)
    }
}
