//! What pulls ask: answered from memory where nobody else changes names, and while a shared database is away.

use std::sync::Arc;
use std::time::Duration;

use deltaport_oci::{Digest, Reference, RepositoryName};

use super::sql::Connection;
use super::{Manifest, Names, blobs, manifests};
use crate::error::{Error, Result};

/// How long the database has to answer before what is remembered is served. It is asked for one row by its key; one that
/// takes so long is as good as away, though its connections may not have noticed yet.
const REMEMBERED_AFTER: Duration = Duration::from_secs(5);

impl Names {
    /// The manifest that `reference` means in `repository`.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Arc<Manifest>>> {
        if self.core.database.shared().is_some() {
            return self.shared_manifest(repository, reference).await;
        }
        let cache = &self.core.database.cache;
        let key = (repository.clone(), reference.clone());
        if let Some(manifest) = cache.manifest(&key) {
            return Ok(Some(manifest));
        }
        let ticket = cache.ticket(&key);
        let (repository, reference) = key.clone();
        let found =
            self.core.database.read(move |names| manifests::load(names, &repository, &reference)).await?;
        let found = found.map(Arc::new);
        if let Some(manifest) = &found {
            cache.remember_manifest(key, manifest, &ticket);
        }
        Ok(found)
    }

    /// The manifest that `reference` means by names that others change, too: what is remembered spares the bytes, and is
    /// believed only while the database is away.
    async fn shared_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Arc<Manifest>>> {
        let cache = &self.core.database.cache;
        let key = (repository.clone(), reference.clone());
        let remembered = cache.manifest(&key);
        let ticket = cache.ticket(&key);
        let (repository, reference) = key.clone();
        let known = remembered.as_ref().map(|manifest| manifest.digest);
        let read = move |names: &Connection| manifests::look(names, &repository, &reference, known.as_ref());
        let seen = match (self.ask(read, remembered.is_some()).await, &remembered) {
            (Err(Error::Unavailable { why, .. }), Some(remembered)) => {
                tracing::debug!(why, "a manifest is served as it was last seen");
                return Ok(Some(Arc::clone(remembered)));
            }
            (seen, _) => seen?,
        };
        let Some(manifests::Seen { digest, media_type, bytes }) = seen else {
            cache.forget_manifest(&key);
            return Ok(None);
        };
        let bytes = match (bytes, remembered) {
            (Some(bytes), _) => bytes,
            (None, Some(remembered)) if remembered.media_type == media_type => return Ok(Some(remembered)),
            (None, Some(remembered)) => remembered.bytes.clone(),
            (None, None) => return Err(Error::Corrupt(format!("the manifest {digest} has no bytes"))),
        };
        let manifest = Manifest { digest, media_type, bytes };
        let manifest = Arc::new(manifest);
        // Who asks by tag asks by digest next.
        let by_digest = (key.0.clone(), Reference::Digest(manifest.digest));
        let now = cache.ticket(&by_digest);
        cache.remember_manifest(by_digest, &manifest, &now);
        cache.remember_manifest(key, &manifest, &ticket);
        Ok(Some(manifest))
    }

    /// The size of a blob, if `repository` holds it.
    pub async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>> {
        let cache = &self.core.database.cache;
        let key = (repository.clone(), *digest);
        let remembered = cache.blob(&key);
        // What others change, too, is asked each time.
        if remembered.is_some() && self.core.database.shared().is_none() {
            return Ok(remembered);
        }
        let ticket = cache.ticket(&key);
        let (repository, digest) = key.clone();
        let read = move |names: &Connection| blobs::size(names, &repository, &digest);
        let size = match self.ask(read, remembered.is_some()).await {
            Err(Error::Unavailable { .. }) if remembered.is_some() => return Ok(remembered),
            size => size?,
        };
        match size {
            Some(size) => cache.remember_blob(key, size, &ticket),
            None => cache.forget_blob(&key),
        }
        Ok(size)
    }

    /// Asks the database, and no longer than [`REMEMBERED_AFTER`] when an answer is remembered.
    async fn ask<T, F>(&self, read: F, remembered: bool) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T> + Send + 'static,
    {
        let answer = self.core.database.read(read);
        if !remembered {
            return answer.await;
        }
        let late = |_| Err(Error::unavailable("the database", "it does not answer"));
        tokio::time::timeout(REMEMBERED_AFTER, answer).await.unwrap_or_else(late)
    }
}
