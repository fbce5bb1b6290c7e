//! Deltas that somebody has published beside an image, for registries that make none themselves
//! (docs/delta-artifacts.md).

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltaport_client::ErrorKind;
use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Descriptor, Digest, Reference, RepositoryName, delta_artifact, media_type};
use tokio::sync::OnceCell;

use super::Failure;
use super::blobs::Fill;
use crate::flight::{Flight, SingleFlight};
use crate::memory::Memory;

/// How many images that have a layer are asked about.
const MAX_IMAGES: usize = 2;
/// How many artifacts of one image are read.
const MAX_ARTIFACTS: usize = 8;
/// How many images are asked about at the same time.
const MAX_SEARCHES: usize = 256;
/// Of how many images it is remembered what has been published. One takes some kilobytes at most.
const MAX_KNOWN: usize = 512;
/// How long that is believed. Deltas are published soon after an image, or not at all.
const LIFE: Duration = Duration::from_secs(10 * 60);

/// An image manifest of a local repository.
type Image = (RepositoryName, Digest);
/// What one search gives to all who wait for it.
type Found = Arc<OnceCell<Result<Arc<[Published]>, Failure>>>;

/// A published delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// The delta's own digest.
    pub(super) digest: Digest,
    /// In bytes.
    pub(super) size: u64,
    base: Digest,
    target: Digest,
}

/// What is known of published deltas.
#[derive(Debug)]
pub(super) struct Publications {
    known: Memory<Image, Arc<[Published]>>,
    searches: SingleFlight<Image, Found>,
}

impl Publications {
    pub(super) fn new() -> Self {
        Self { known: Memory::new(MAX_KNOWN), searches: SingleFlight::new(MAX_SEARCHES) }
    }
}

impl Fill {
    /// The delta to the layer that was published from one of `bases`, of those the first.
    pub(super) async fn published(&self, bases: &[Digest]) -> Result<Option<Published>, Failure> {
        let names = self.registry.store().names();
        let images = names.images_with(&self.repository, &self.digest, MAX_IMAGES).await?;
        self.published_for(images, bases).await
    }

    /// The same for images that have the layer, whether they are here or not.
    pub(super) async fn published_for(
        &self,
        images: Vec<Digest>,
        bases: &[Digest],
    ) -> Result<Option<Published>, Failure> {
        let mut found = Vec::new();
        for image in images {
            found.extend_from_slice(&self.publications(image).await?);
        }
        found.retain(|delta| delta.target == self.digest);
        let place = |delta: &Published| bases.iter().position(|base| *base == delta.base);
        Ok(found
            .into_iter()
            .filter(|delta| place(delta).is_some())
            .min_by_key(|delta| (place(delta), delta.size)))
    }

    /// What has been published for an image: remembered, or looked for once however many of its layers ask.
    async fn publications(&self, image: Digest) -> Result<Arc<[Published]>, Failure> {
        let publications = &self.registry.0.fills.publications;
        let key = (self.repository.clone(), image);
        if let Some(known) = publications.known.recall(&key) {
            return Ok(known);
        }
        let (cell, _guard) = match publications.searches.join(key.clone(), || Found::new(OnceCell::new())) {
            Flight::Joined(cell) => (cell, None),
            Flight::Started(cell, guard) => (cell, Some(guard)),
            Flight::Full => return Err(Failure::Busy),
        };
        let search = async {
            let found = Box::pin(self.search(image)).await?;
            publications.known.remember(key, Arc::clone(&found), Instant::now() + LIFE);
            Ok(found)
        };
        cell.get_or_init(|| search).await.clone()
    }

    async fn search(&self, image: Digest) -> Result<Arc<[Published]>, Failure> {
        let (client, there) = (&self.source.remote.client, &self.source.repository);
        let mut artifacts = client.referrers(there, &image, Some(media_type::DELTA_ARTIFACT)).await?;
        // Those first that start from an image which is here.
        let mut ranked = Vec::with_capacity(artifacts.len());
        for artifact in artifacts.drain(..) {
            ranked.push((!self.holds_start_of(&artifact).await?, artifact));
        }
        ranked.sort_by_key(|(unknown, _)| *unknown);
        let mut found = Vec::new();
        for (_, artifact) in ranked.into_iter().take(MAX_ARTIFACTS) {
            let manifest = match client.manifest(there, &Reference::Digest(artifact.digest)).await {
                Ok(manifest) => manifest,
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable { .. }) => {
                    return Err(error.into());
                }
                // A list may name what is gone.
                Err(_) => continue,
            };
            self.registry.metrics().received(client.host(), manifest.bytes.len() as u64);
            if let Ok(view) = View::parse(&manifest.media_type, &manifest.bytes, Limits::DEFAULT) {
                found.extend(view.layers.iter().filter_map(Published::read));
            }
        }
        Ok(found.into())
    }

    /// Whether the image that an artifact's deltas start from is in the repository; when it does not say, it may be.
    async fn holds_start_of(&self, artifact: &Descriptor) -> Result<bool, Failure> {
        let from = artifact.annotations.get(delta_artifact::FROM);
        let Some(Ok(from)) = from.map(|from| Digest::from_str(from)) else { return Ok(from.is_none()) };
        let names = self.registry.store().names();
        Ok(names.absent(&self.repository, vec![from]).await?.is_empty())
    }
}

impl Published {
    /// What a layer of an artifact says about itself.
    fn read(layer: &Descriptor) -> Option<Self> {
        let digest = |name: &str| Digest::from_str(layer.annotations.get(name)?).ok();
        (layer.media_type == media_type::LAYER_DELTA).then_some(())?;
        Some(Self {
            digest: layer.digest,
            size: layer.size,
            base: digest(delta_artifact::BASE)?,
            target: digest(delta_artifact::TARGET)?,
        })
    }
}
