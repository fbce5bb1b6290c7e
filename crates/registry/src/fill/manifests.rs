//! Manifests from upstream: by digest once, by tag whenever they may have changed.

use std::sync::Arc;
use std::time::Duration;

use deltaport_client as client;
use deltaport_client::ErrorKind;
use deltaport_oci::manifest::{self, View};
use deltaport_oci::{Reference, RepositoryName, Tag};
use deltaport_store as store;
use tokio::sync::OnceCell;

use super::Failure;
use crate::flight::Flight;
use crate::upstream::Source;
use crate::{Manifest, Registry, Result};

/// How long a client waits for an upstream when a stored manifest can be served instead.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits when there is none. Clients give up after 30 seconds without an answer, and then ask elsewhere.
const LIMIT: Duration = Duration::from_secs(25);

impl Registry {
    /// Looks at the upstream for a manifest of which `stored` is here; `None` when there is none anywhere.
    ///
    /// When the upstream cannot be asked, refuses, or makes no sense, what is stored is as good as it gets.
    pub(crate) async fn fill_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        stored: Option<Arc<Manifest>>,
    ) -> Result<Option<Arc<Manifest>>> {
        let Some(source) = self.0.upstreams.source(repository) else { return Ok(stored) };
        let host = source.remote.client.host();
        if stored.is_some() && source.remote.is_paused() {
            self.metrics().stale(host);
            return Ok(stored);
        }
        let patience = if stored.is_some() { PATIENCE } else { LIMIT };
        let look = self.look_once(&source, repository, reference, stored.clone());
        let found = match tokio::time::timeout(patience, look).await {
            Ok(found) => found,
            Err(_) => {
                source.remote.pause(Some(patience));
                Err(Failure::Slow(host.into()))
            }
        };
        match (found, stored) {
            (Ok(found), _) => Ok(found),
            (Err(failure), Some(stored)) => {
                tracing::warn!(%repository, %reference, %failure, "serving a stored tag, which may be out of date");
                self.metrics().stale(host);
                Ok(Some(stored))
            }
            (Err(failure), None) if failure.is_absence() => Ok(None),
            (Err(failure), None) => Err(failure.into()),
        }
    }

    /// Looks, or waits for somebody who is looking already.
    async fn look_once(
        &self,
        source: &Source,
        repository: &RepositoryName,
        reference: &Reference,
        stored: Option<Arc<Manifest>>,
    ) -> Result<Option<Arc<Manifest>>, Failure> {
        let key = (repository.clone(), reference.clone());
        let (cell, _guard) = match self.0.fills.manifests.join(key, || Arc::new(OnceCell::new())) {
            Flight::Joined(cell) => (cell, None),
            Flight::Started(cell, guard) => (cell, Some(guard)),
            Flight::Full => return Err(Failure::Busy),
        };
        // Should the caller who looks leave, the next who waits takes over.
        cell.get_or_init(|| self.look(source, repository, reference, stored)).await.clone()
    }

    async fn look(
        &self,
        source: &Source,
        repository: &RepositoryName,
        reference: &Reference,
        stored: Option<Arc<Manifest>>,
    ) -> Result<Option<Arc<Manifest>>, Failure> {
        let Reference::Tag(tag) = reference else {
            return self.fetch(source, repository, reference).await;
        };
        let head = source.remote.client.head_manifest(&source.repository, reference).await;
        source.remote.note(&head);
        let digest = match head {
            Ok(head) => head.digest,
            Err(error) if *error.kind() == ErrorKind::NotFound => return Ok(None),
            // Not every registry answers HEAD.
            Err(error) if matches!(error.kind(), ErrorKind::Protocol(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(digest) = digest else { return self.fetch(source, repository, reference).await };
        if let Some(stored) = stored.filter(|stored| stored.digest == digest) {
            return Ok(Some(stored));
        }
        match self.store().names().manifest(repository, &Reference::Digest(digest)).await? {
            Some(known) => {
                self.keep_manifest(source, repository, &known, Some(tag)).await?;
                Ok(Some(known))
            }
            None => self.fetch(source, repository, reference).await,
        }
    }

    /// Fetches a manifest and stores it.
    async fn fetch(
        &self,
        source: &Source,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Arc<Manifest>>, Failure> {
        let fetched = source.remote.client.manifest(&source.repository, reference).await;
        source.remote.note(&fetched);
        let client::Manifest { digest, media_type, bytes } = fetched?;
        self.metrics().received(source.remote.client.host(), bytes.len() as u64);
        let manifest = Arc::new(Manifest { digest, media_type: media_type.into(), bytes });
        let tag = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        self.keep_manifest(source, repository, &manifest, tag).await?;
        Ok(Some(manifest))
    }

    /// Stores a manifest, whether what it refers to is here or not, and points a tag at it.
    async fn keep_manifest(
        &self,
        source: &Source,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), Failure> {
        let limits = &self.options().limits;
        let limits = manifest::Limits { depth: limits.json_depth, descriptors: limits.references };
        let view = View::parse(&manifest.media_type, &manifest.bytes, limits).map_err(|error| {
            let upstream = source.remote.client.host().into();
            Failure::Manifest { upstream, error: Arc::new(error) }
        })?;
        let new = store::NewManifest {
            digest: manifest.digest,
            bytes: manifest.bytes.clone(),
            view,
            tags: tag.into_iter().cloned().collect(),
            required: Vec::new(),
        };
        Ok(self.store().names().put_manifest(repository, new).await?)
    }
}
