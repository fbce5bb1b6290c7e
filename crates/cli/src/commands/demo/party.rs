//! A hub or a site: a whole deltaport in this process, with data of its own.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use deltaport_oci::{Digest, Reference, RepositoryName, Tag};
use deltaport_registry::vend::DeltaAnswer;
use deltaport_registry::{NewManifest, Registry};
use deltaport_store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::image::Image;
use crate::settings::{Overrides, Settings};
use crate::wiring;

/// A deltaport that serves.
pub(super) struct Party {
    pub(super) address: SocketAddr,
    registry: Registry,
    store: Store,
    stop: CancellationToken,
    serving: JoinHandle<bool>,
}

impl Party {
    /// Starts one that keeps its data in `data`. `config` is a configuration file's text.
    pub(super) async fn start(data: &Path, config: &str) -> anyhow::Result<Self> {
        let overrides = Overrides {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            data: Some(data.to_owned()),
            ..Overrides::default()
        };
        let settings = Settings::read(config, data, &overrides)
            .map_err(|problems| crate::settings::Problems { file: None, problems })?;
        let store = wiring::store(&settings, data).await?;
        let registry = wiring::registry(&settings, store.clone())?;
        let server = wiring::server(&settings, data, store.secrets(), registry.clone(), None).await?;
        let (address, stop) = (server.local_addr(), CancellationToken::new());
        let serving = tokio::spawn(server.run(stop.clone()));
        Ok(Self { address, registry, store, stop, serving })
    }

    /// Ends what is running.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.serving.await.context("a server failed")?;
        self.store.close().await.context("cannot close the data")
    }

    /// Stores an image under a tag, as a push does.
    pub(super) async fn push(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        image: &Image,
    ) -> anyhow::Result<()> {
        for blob in &image.blobs {
            let mut incoming = self.registry.receive(repository, &blob.digest(), Some(blob.size())).await?;
            for chunk in blob.chunks()? {
                incoming.write(chunk?).await?;
            }
            incoming.finish().await?;
        }
        let manifest = NewManifest {
            reference: Reference::Tag(tag.clone()),
            tags: Vec::new(),
            media_type: image.media_type.clone(),
            bytes: image.manifest.clone(),
        };
        self.registry.put_manifest(repository, manifest).await?;
        Ok(())
    }

    /// Waits until the deltas to the layers `to` are made, as far as they are worth it.
    pub(super) async fn deltas_made(
        &self,
        repository: &RepositoryName,
        from: &[Digest],
        to: &[Digest],
    ) -> anyhow::Result<()> {
        for layer in to {
            while let DeltaAnswer::Pending(pause) = self.registry.layer_delta(repository, layer, from).await?
            {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }
}
