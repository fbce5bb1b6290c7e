//! Signatures: those that are here, and those that an upstream has. They are stored like everything else, so that clients
//! find them and a verdict can be given again when there is no link.

use bytes::Bytes;
use deltaport_client::ErrorKind;
use deltaport_oci::manifest::View;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_store as store;
use deltaport_trust::signatures::{
    ARTIFACT_TYPES, Document, DocumentError, Layer, MAX_BUNDLE_LEN, MAX_DOCUMENTS, MAX_MANIFEST_LEN, layers,
    signature_tag,
};
use futures_util::StreamExt as _;

use crate::fill::Failure;
use crate::upstream::{Ask, Source};
use crate::{Manifest, Registry};

/// The most bytes that the configuration of a signature has.
const MAX_CONFIG_LEN: u64 = 64 << 10;

/// Whether a manifest holds signatures and nothing else, so that nothing can be run that it leads to.
pub(super) fn is_evidence(manifest: &[u8], view: &View) -> bool {
    if view.is_index() || view.layers.is_empty() || manifest.len() > MAX_MANIFEST_LEN {
        return false;
    }
    let small = view.config.as_ref().is_none_or(|config| config.size <= MAX_CONFIG_LEN);
    small && layers(manifest).is_ok_and(|found| found.len() == view.layers.len())
}

/// The most bytes of a blob that is served because a signature refers to it, whatever that says of its size.
pub(super) fn largest_blob() -> u64 {
    MAX_BUNDLE_LEN as u64
}

impl Registry {
    /// The signatures of a manifest that are here.
    pub(super) async fn signatures_here(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<Document>, Failure> {
        let names = self.store().names();
        let mut documents = Vec::new();
        if let Some(tag) = signature_tag(digest)
            && let Some(manifest) = names.manifest(repository, &Reference::Tag(tag)).await?
        {
            self.read_signatures(repository, &manifest, &mut documents).await?;
        }
        for kind in ARTIFACT_TYPES {
            let page = names.referrers(repository, digest, Some(kind), None, MAX_DOCUMENTS).await?;
            for referrer in page.items {
                let reference = Reference::Digest(referrer.digest);
                if let Some(manifest) = names.manifest(repository, &reference).await? {
                    self.read_signatures(repository, &manifest, &mut documents).await?;
                }
            }
        }
        Ok(documents)
    }

    async fn read_signatures(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        documents: &mut Vec<Document>,
    ) -> Result<(), Failure> {
        let found = match layers(&manifest.bytes) {
            Ok(found) => found,
            Err(error) => {
                documents.push(error.into());
                return Ok(());
            }
        };
        for layer in found {
            // One more than are judged is enough for that to be said.
            if documents.len() > MAX_DOCUMENTS {
                break;
            }
            documents.push(self.read_signature(repository, layer).await?);
        }
        Ok(())
    }

    async fn read_signature(&self, repository: &RepositoryName, layer: Layer) -> Result<Document, Failure> {
        let digest = layer.digest();
        let here = self.store().names().blob(repository, &digest).await?.is_some();
        let blob = if here { self.store().blobs().open(&digest).await? } else { None };
        let Some(blob) = blob.filter(|blob| blob.size() == layer.size()) else {
            return Ok(DocumentError::Missing(digest).into());
        };
        let mut stream = blob.read(ByteRange { start: 0, end: blob.size() });
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(store::Error::from)?);
        }
        Ok(layer.with(bytes).unwrap_or_else(Document::from))
    }

    /// Fetches what the upstream has under the tag of a digest's signatures, unless it is here.
    pub(super) async fn fetch_signatures(
        &self,
        source: &Source,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), Failure> {
        let Some(tag) = signature_tag(digest) else { return Ok(()) };
        self.fetch_evidence(source, repository, &Reference::Tag(tag)).await
    }

    /// Fetches the referrers of a digest that are signatures, as far as they are not here.
    pub(super) async fn fetch_referrers(
        &self,
        source: &Source,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), Failure> {
        source.may_ask(Ask::Manifest)?;
        // One question for all of them: where there is no list, each costs two requests.
        let found = source.remote.client.referrers(&source.repository, digest, None).await;
        let found = match found {
            Ok(found) => found,
            Err(error) if is_nothing(error.kind()) || is_wrong(error.kind()) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let is_signature = |kind: &str| ARTIFACT_TYPES.contains(&kind);
        let found = found.iter().filter(|found| found.artifact_type.as_deref().is_some_and(is_signature));
        for referrer in found.take(MAX_DOCUMENTS) {
            self.fetch_evidence(source, repository, &Reference::Digest(referrer.digest)).await?;
        }
        Ok(())
    }

    /// Fetches a manifest of signatures with what it refers to, and stores it. What is something else is left there.
    async fn fetch_evidence(
        &self,
        source: &Source,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<(), Failure> {
        let names = self.store().names();
        let stored = names.manifest(repository, reference).await?;
        source.may_ask(Ask::Manifest)?;
        let client = &source.remote.client;
        let asked = match (&stored, reference) {
            (Some(_), Reference::Digest(_)) => Ok(None),
            (Some(stored), Reference::Tag(_)) => {
                client.manifest_unless(&source.repository, reference, &stored.digest).await
            }
            (None, _) => client.manifest(&source.repository, reference).await.map(Some),
        };
        source.remote.note(Ask::Manifest, &asked);
        let fetched = match asked {
            Ok(fetched) => fetched,
            Err(error) if is_nothing(error.kind()) || is_wrong(error.kind()) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (bytes, media_type, digest) = match (&fetched, &stored) {
            (Some(new), _) => (new.bytes.clone(), new.media_type.clone(), new.digest),
            (None, Some(stored)) => (stored.bytes.clone(), stored.media_type.to_string(), stored.digest),
            (None, None) => return Ok(()),
        };
        let Ok(view) = View::parse(&media_type, &bytes, self.manifest_limits()) else { return Ok(()) };
        if !is_evidence(&bytes, &view) {
            return Ok(());
        }
        if fetched.is_some() {
            self.metrics().received(client.host(), bytes.len() as u64);
        }
        let blobs: Vec<(Digest, u64)> = view.blobs().map(|blob| (blob.digest, blob.size)).collect();
        if fetched.is_some() {
            let tags = match reference {
                Reference::Tag(tag) => vec![tag.clone()],
                Reference::Digest(_) => Vec::new(),
            };
            let new = store::NewManifest { digest, bytes, view, tags, required: Vec::new() };
            names.put_fetched(repository, new).await?;
        }
        for (blob, size) in blobs {
            self.fetch_small(source, repository, &blob, size).await?;
        }
        Ok(())
    }

    /// Fetches a blob of a signature in one piece, unless it is here. One that is something else than was said is left
    /// there: the signature is then not what its manifest names.
    async fn fetch_small(
        &self,
        source: &Source,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
    ) -> Result<(), Failure> {
        if self.store().names().blob(repository, digest).await?.is_some() {
            return Ok(());
        }
        source.may_ask(Ask::Blob)?;
        let body = source.remote.client.blob(&source.repository, digest, 0, size.min(largest_blob())).await;
        source.remote.note(Ask::Blob, &body);
        let mut body = match body {
            Ok(body) => body,
            Err(error) if is_nothing(error.kind()) || is_wrong(error.kind()) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut staging = self.store().blobs().stage(digest.algorithm()).await?;
        loop {
            let chunk: Bytes = match body.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) if is_wrong(error.kind()) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            self.metrics().received(source.remote.client.host(), chunk.len() as u64);
            staging.write(chunk).await?;
        }
        match self.store().commit(staging, digest, repository).await {
            Ok(_) | Err(store::Error::Mismatch { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether an upstream has nothing for us there.
fn is_nothing(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Denied(_))
}

/// Whether what an upstream sends cannot be what it should be.
fn is_wrong(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Protocol(_) | ErrorKind::Limit { .. } | ErrorKind::Mismatch { .. })
}
