//! Signatures in a registry: under the tag that cosign makes of a digest, and among the referrers.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use deltaport_client::{Error, ErrorKind, Manifest, Upstream};
use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Descriptor, Digest, Reference, RepositoryName};
use deltaport_trust::signatures::{
    ARTIFACT_TYPES, Document, DocumentError, Layer, MAX_DOCUMENTS, layers, signature_tag,
};

use super::Place;
use crate::args::{Access, ImageName};
use crate::commands::delta::Remote;

/// A repository of a registry.
pub(super) struct Registry {
    remote: Remote,
    image: ImageName,
    /// The signatures of each manifest that they were asked for.
    known: BTreeMap<Digest, Vec<Document>>,
}

impl Registry {
    /// Where an image is. Nothing is asked yet.
    pub(super) fn of(image: &ImageName, access: &Access) -> anyhow::Result<Self> {
        Ok(Self { remote: Remote::of(image, access)?, image: image.clone(), known: BTreeMap::new() })
    }

    /// What the name of the image stands for.
    pub(super) fn root(&self) -> anyhow::Result<Descriptor> {
        let ImageName { host, repository, reference } = &self.image;
        let found = self.remote.patiently(|client| client.manifest(repository, reference));
        let found = found.with_context(|| format!("cannot read {host}/{repository}, {reference}"))?;
        Ok(found.descriptor())
    }

    /// A manifest, if there is one.
    fn find(&self, reference: &Reference) -> anyhow::Result<Option<Manifest>> {
        let repository = &self.image.repository;
        unless_missing(self.remote.patiently(|client| client.manifest(repository, reference)))
    }

    fn signatures_of(&self, digest: &Digest) -> anyhow::Result<Vec<Document>> {
        let repository = &self.image.repository;
        let mut documents = Vec::new();
        if let Some(tag) = signature_tag(digest)
            && let Some(found) = self.find(&Reference::Tag(tag))?
        {
            self.read(&found.bytes, &mut documents)?;
        }
        let referrers = self.remote.patiently(|client| client.referrers(repository, digest, None));
        let referrers = unless_missing(referrers)?.unwrap_or_default();
        let is_signature = |kind: &str| ARTIFACT_TYPES.contains(&kind);
        let signatures =
            referrers.iter().filter(|entry| entry.artifact_type.as_deref().is_some_and(is_signature));
        for entry in signatures.take(MAX_DOCUMENTS) {
            match self.find(&Reference::Digest(entry.digest))? {
                Some(found) => self.read(&found.bytes, &mut documents)?,
                None => documents.push(DocumentError::Missing(entry.digest).into()),
            }
        }
        Ok(documents)
    }

    /// Adds the signatures of a manifest.
    fn read(&self, manifest: &[u8], documents: &mut Vec<Document>) -> anyhow::Result<()> {
        match layers(manifest) {
            Err(error) => documents.push(error.into()),
            Ok(found) => {
                for layer in found {
                    documents.push(self.blob(layer)?);
                }
            }
        }
        Ok(())
    }

    fn blob(&self, layer: Layer) -> anyhow::Result<Document> {
        let (digest, size, repository) = (layer.digest(), layer.size(), &self.image.repository);
        let read = self.remote.patiently(|client| read_blob(client, repository, digest, size));
        Ok(match unless_missing(read)? {
            Some(bytes) => layer.with(bytes).unwrap_or_else(Document::from),
            None => DocumentError::Missing(digest).into(),
        })
    }
}

impl Place for Registry {
    fn manifest(&self, descriptor: &Descriptor) -> anyhow::Result<Option<View>> {
        let Some(found) = self.find(&Reference::Digest(descriptor.digest))? else { return Ok(None) };
        let view = View::parse(&found.media_type, &found.bytes, Limits::DEFAULT);
        Ok(Some(view.with_context(|| format!("{} cannot be used", descriptor.digest))?))
    }

    fn signatures(&mut self, digests: &[Digest]) -> anyhow::Result<Vec<Document>> {
        let mut documents = Vec::new();
        for digest in digests {
            if !self.known.contains_key(digest) {
                let found = self.signatures_of(digest)?;
                self.known.insert(*digest, found);
            }
            documents.extend(self.known.get(digest).into_iter().flatten().cloned());
        }
        Ok(documents)
    }
}

/// The bytes of a blob, which are not verified here.
async fn read_blob(
    client: &Upstream,
    repository: &RepositoryName,
    digest: Digest,
    size: u64,
) -> Result<Vec<u8>, Error> {
    let mut body = client.blob(repository, &digest, 0, size).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        let chunk: Bytes = chunk;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// An answer, or nothing when there is none.
fn unless_missing<T>(answer: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    let is_missing = |error: &anyhow::Error| {
        error.downcast_ref::<Error>().is_some_and(|e| *e.kind() == ErrorKind::NotFound)
    };
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
