//! Signatures in an OCI image layout: under the tag that cosign makes of a digest, in what lies under the tag of the
//! referrers, in manifests of the layout's index that have the digest as their subject, or in entries that `cosign save`
//! marked as signatures of the only image.

use std::path::Path;

use deltaport_oci::manifest::View;
use deltaport_oci::{Descriptor, Digest};
use deltaport_trust::signatures::{ARTIFACT_TYPES, Document, DocumentError, Layer, layers, signature_tag};

use super::Place;
use crate::commands::layout;

/// The most entries of a layout that are looked at for signatures.
const MAX_ENTRIES: usize = 4096;

/// The annotation with which `cosign save` says what an entry is.
const KIND: &str = "kind";
/// What it says of signatures.
const SIGNATURES: &str = "dev.cosignproject.cosign/sigs";
/// What it says of attestations, which are no signatures of an image.
const ATTESTATIONS: &str = "dev.cosignproject.cosign/atts";

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

    fn of(&self, digests: &[Digest]) -> anyhow::Result<Vec<Document>> {
        let tags: Vec<String> =
            digests.iter().filter_map(signature_tag).map(|tag| tag.as_str().to_owned()).collect();
        let lists: Vec<String> =
            digests.iter().map(|digest| format!("{}-{}", digest.algorithm(), digest.hex())).collect();
        let among = |names: &[String], name: Option<&str>| {
            name.is_some_and(|name| names.iter().any(|one| one == name))
        };
        let mut documents = Vec::new();
        for entry in &self.entries {
            let name = layout::name(entry);
            if among(&lists, name) {
                let (_, list) = layout::manifest(self.layout, entry)?;
                for referrer in list.manifests.iter().take(MAX_ENTRIES).filter(|entry| is_signature(entry)) {
                    self.read(referrer, &mut documents);
                }
            } else if among(&tags, name)
                || kind(entry) == Some(SIGNATURES)
                || self.is_referrer(entry, digests)
            {
                self.read(entry, &mut documents);
            }
        }
        Ok(documents)
    }

    /// Whether an entry is a manifest of signatures about one of these.
    fn is_referrer(&self, entry: &Descriptor, digests: &[Digest]) -> bool {
        let Ok((_, View { subject: Some(subject), artifact_type, .. })) =
            layout::manifest(self.layout, entry)
        else {
            return false;
        };
        digests.contains(&subject.digest)
            && artifact_type.is_some_and(|kind| ARTIFACT_TYPES.contains(&kind.as_str()))
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

impl Place for Signatures<'_> {
    fn manifest(&self, descriptor: &Descriptor) -> anyhow::Result<Option<View>> {
        match layout::blob_path(self.layout, &descriptor.digest).exists() {
            true => Ok(Some(layout::manifest(self.layout, descriptor)?.1)),
            false => Ok(None),
        }
    }

    fn signatures(&mut self, digests: &[Digest]) -> anyhow::Result<Vec<Document>> {
        self.of(digests)
    }
}

/// Whether a list of referrers says that an entry is a manifest of signatures.
fn is_signature(entry: &Descriptor) -> bool {
    entry.artifact_type.as_deref().is_some_and(|kind| ARTIFACT_TYPES.contains(&kind))
}

/// What `cosign save` says that an entry is.
fn kind(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(KIND).map(String::as_str)
}

/// The entries that are images: not under a tag that cosign or a list of referrers has, not marked as something else, and
/// if they have no name, not about another manifest.
pub(super) fn but_signatures(layout: &Path, entries: &[Descriptor]) -> Vec<Descriptor> {
    let is_image = |entry: &&Descriptor| match (layout::name(entry), kind(entry)) {
        (_, Some(SIGNATURES | ATTESTATIONS)) => false,
        (Some(name), _) => !is_made_of_digest(name),
        (None, _) => !layout::manifest(layout, entry).is_ok_and(|(_, view)| view.subject.is_some()),
    };
    entries.iter().filter(is_image).cloned().collect()
}

/// Whether a tag is `sha256-` and a hash, and maybe an ending.
fn is_made_of_digest(name: &str) -> bool {
    let hash = name.strip_prefix("sha256-").and_then(|rest| rest.split('.').next());
    hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
