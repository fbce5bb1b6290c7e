//! What a client will ask for next is fetched while it still reads the manifest, so that the link is never idle.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Descriptor, RepositoryName, media_type};

use super::Failure;
use super::link::{Claim, Class};
use crate::image::Lost;
use crate::upstream::Source;
use crate::{Manifest, Registry};

/// Of how many images it is remembered that all of them is here.
pub(super) const MAX_COMPLETE: usize = 16_384;
/// How long that is believed. Blobs that go meanwhile are fetched when they are asked for.
const LIFE: Duration = Duration::from_secs(10 * 60);

impl Registry {
    /// Begins to fetch the blobs of an image that are not here, because a client has just been given its manifest. They
    /// come behind all that clients wait for, until one waits for them.
    pub fn fetch_ahead(&self, repository: &RepositoryName, manifest: &Arc<Manifest>) {
        if !self.options().fill.ahead {
            return;
        }
        let Some(source) = self.0.upstreams.source(repository) else { return };
        if self.0.fills.complete.recall(&(repository.clone(), manifest.digest)).is_some() {
            return;
        }
        let (registry, repository, manifest) = (self.clone(), repository.clone(), Arc::clone(manifest));
        tokio::spawn(async move {
            if let Err(failure) = registry.fetch_missing(&source, &repository, &manifest).await {
                tracing::debug!(%repository, digest = %manifest.digest, %failure, "nothing is fetched ahead");
            }
        });
    }

    async fn fetch_missing(
        &self,
        source: &Source,
        repository: &RepositoryName,
        manifest: &Manifest,
    ) -> Result<(), Failure> {
        let Ok(view) = View::parse(&manifest.media_type, &manifest.bytes, Limits::DEFAULT) else {
            return Ok(());
        };
        if !is_image(&view) {
            return Ok(());
        }
        // The largest first: they are layers, and what takes time.
        let mut blobs: Vec<&Descriptor> = view.blobs().collect();
        blobs.sort_by_key(|blob| Reverse(blob.size));
        let blobs = blobs.into_iter().map(|blob| blob.digest).collect();
        let missing = self.store().names().absent(repository, blobs).await?;
        if !missing.is_empty() {
            let wanted = self.check_wanted(repository, Lost::Manifest(&manifest.digest)).await;
            if wanted.is_err() {
                return Ok(());
            }
        } else {
            let key = (repository.clone(), manifest.digest);
            self.0.fills.complete.remember(key, (), Instant::now() + LIFE);
        }
        for digest in missing {
            let claim = Claim::new(repository.clone(), Class::Ahead);
            self.follow(source.clone(), repository, &digest, claim)?;
        }
        Ok(())
    }
}

/// Whether a client that has the manifest is about to run it: other artifacts are often looked at and no more.
fn is_image(view: &View) -> bool {
    let config = view.config.as_ref().map(|config| config.media_type.as_str());
    matches!(config, Some(media_type::OCI_CONFIG | media_type::DOCKER_CONFIG))
}
