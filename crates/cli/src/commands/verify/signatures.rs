//! Signatures in an OCI image layout: under the tag that cosign makes of a digest, in what lies under the tag of the
//! referrers, or in manifests of the layout's index that have the digest as their subject.

use std::path::Path;

use deltaport_oci::manifest::View;
use deltaport_oci::{Descriptor, Digest};
use deltaport_trust::signatures::{ARTIFACT_TYPES, Document, DocumentError, Layer, layers, signature_tag};

use crate::commands::layout;

/// The most entries of a layout that are looked at for signatures.
const MAX_ENTRIES: usize = 4096;

/// The signatures in a layout.
pub(super) struct Signatures<'a> {
    layout: &'a Path,
    /// The entries that may be signatures or lists of them.
    entries: Vec<Descriptor>,
}

impl<'a> Signatures<'a> {
    /// Those among the entries of a layout's index.
    pub(super) fn new(layout: &'a Path, mut entries: Vec<Descriptor>) -> Self {
        entries.truncate(MAX_ENTRIES);
        Self { layout, entries }
    }

    /// The signatures of a manifest, and what there is instead of those that cannot be read.
    pub(super) fn of(&self, digest: &Digest) -> anyhow::Result<Vec<Document>> {
        let tag = signature_tag(digest);
        let referrers = format!("{}-{}", digest.algorithm(), digest.hex());
        let mut documents = Vec::new();
        for entry in &self.entries {
            let name = layout::name(entry);
            if name.is_some() && name == tag.as_ref().map(|tag| tag.as_str()) {
                self.read(entry, &mut documents);
            } else if name == Some(referrers.as_str()) {
                let (_, list) = layout::manifest(self.layout, entry)?;
                for referrer in list.manifests.iter().take(MAX_ENTRIES).filter(|entry| is_signature(entry)) {
                    self.read(referrer, &mut documents);
                }
            } else if self.is_referrer(entry, digest) {
                self.read(entry, &mut documents);
            }
        }
        Ok(documents)
    }

    /// Whether an entry is a manifest of signatures about `digest`.
    fn is_referrer(&self, entry: &Descriptor, digest: &Digest) -> bool {
        let Ok((_, View { subject: Some(subject), artifact_type, .. })) =
            layout::manifest(self.layout, entry)
        else {
            return false;
        };
        subject.digest == *digest && artifact_type.is_some_and(|kind| ARTIFACT_TYPES.contains(&kind.as_str()))
    }

    /// Adds the signatures of a manifest.
    fn read(&self, entry: &Descriptor, documents: &mut Vec<Document>) {
        match layout::manifest(self.layout, entry) {
            Err(_) => documents.push(DocumentError::Missing(entry.digest).into()),
            Ok((manifest, _)) => match layers(&manifest) {
                Err(error) => documents.push(error.into()),
                Ok(layers) => documents.extend(layers.into_iter().map(|layer| self.blob(layer))),
            },
        }
    }

    fn blob(&self, layer: Layer) -> Document {
        let digest = layer.digest();
        match layout::read(&layout::blob_path(self.layout, &digest)) {
            Ok(bytes) => layer.with(bytes).unwrap_or_else(Document::from),
            Err(_) => DocumentError::Missing(digest).into(),
        }
    }
}

/// Whether a list of referrers says that an entry is a manifest of signatures.
fn is_signature(entry: &Descriptor) -> bool {
    entry.artifact_type.as_deref().is_some_and(|kind| ARTIFACT_TYPES.contains(&kind))
}

/// The entries that are images: not under a tag that cosign or a list of referrers has.
pub(super) fn but_signatures(entries: &[Descriptor]) -> Vec<Descriptor> {
    let made_of_digest = |name: &str| {
        name.strip_prefix("sha256-").is_some_and(|rest| {
            rest.split('.')
                .next()
                .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        })
    };
    let is_image =
        |entry: &&Descriptor| !is_signature(entry) && !layout::name(entry).is_some_and(made_of_digest);
    entries.iter().filter(is_image).cloned().collect()
}
