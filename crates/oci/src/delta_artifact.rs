//! Deltas as an artifact that any registry keeps (docs/delta-artifacts.md): an image manifest that refers to the target
//! image as its subject, with one layer for each delta.

use serde_json::json;

use crate::manifest::View;
use crate::{Descriptor, Digest, media_type};

/// Annotation of a layer: the digest of the layer that the delta is from.
pub const BASE: &str = "vnd.deltaport.delta.base";
/// Annotation of a layer: the digest of the layer that the delta makes.
pub const TARGET: &str = "vnd.deltaport.delta.target";
/// Annotation of the manifest: the digest of the image manifest whose layers are the bases. Lists of referrers show it,
/// so that whoever has that image need not fetch the manifests of other artifacts.
pub const FROM: &str = "vnd.deltaport.delta.from";
/// The content of the configuration, which is empty.
pub const EMPTY_CONFIG: &[u8] = b"{}";

/// A delta as an artifact names it. Nothing of it has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerDelta {
    /// The layer that it is from.
    pub base: Digest,
    /// The layer that it makes.
    pub target: Digest,
    /// The delta itself, a blob of the same repository.
    pub delta: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// The deltas of an artifact. What is not a delta, or does not say from what to what, is left out.
pub fn deltas(artifact: &View) -> impl Iterator<Item = LayerDelta> {
    let read = |layer: &Descriptor| {
        let digest = |name| layer.annotations.get(name).and_then(|text: &String| text.parse().ok());
        let (base, target) = (digest(BASE)?, digest(TARGET)?);
        Some(LayerDelta { base, target, delta: layer.digest, size: layer.size })
    };
    artifact.layers.iter().filter(|layer| layer.media_type == media_type::LAYER_DELTA).filter_map(read)
}

/// The bytes of the manifest of an artifact about `subject`, with deltas from the layers of the image manifest `from`. The
/// same deltas give the same bytes.
pub fn manifest(subject: &Descriptor, from: &Digest, deltas: &[LayerDelta]) -> Vec<u8> {
    let layers: Vec<_> = deltas
        .iter()
        .map(|delta| {
            json!({
                "mediaType": media_type::LAYER_DELTA,
                "digest": delta.delta,
                "size": delta.size,
                "annotations": { BASE: delta.base, TARGET: delta.target },
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": media_type::DELTA_ARTIFACT,
        "config": {
            "mediaType": media_type::OCI_EMPTY,
            "digest": Digest::sha256(EMPTY_CONFIG),
            "size": EMPTY_CONFIG.len(),
        },
        "layers": layers,
        "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.size },
        "annotations": { FROM: from },
    });
    manifest.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Limits;

    #[test]
    fn what_is_written_is_read() {
        let digest = |text: &str| Digest::sha256(text.as_bytes());
        let delta = |name: &str, size| LayerDelta {
            base: digest("base"),
            target: digest("target"),
            delta: digest(name),
            size,
        };
        let subject = Descriptor {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            digest: digest("image"),
            size: 7,
            urls: Vec::new(),
            artifact_type: None,
            platform: Some("linux/amd64".parse().expect("a platform")),
            annotations: [("left".to_owned(), "out".to_owned())].into(),
        };
        let written = [delta("one", 1), delta("two", 2)];
        let bytes = manifest(&subject, &digest("old"), &written);
        let mut view = View::parse(media_type::OCI_MANIFEST, &bytes, Limits::DEFAULT).expect("a manifest");
        assert_eq!(deltas(&view).collect::<Vec<_>>(), written);
        assert_eq!(view.referrer_type(), Some(media_type::DELTA_ARTIFACT));
        assert_eq!(view.annotations[FROM], digest("old").to_string());
        let seen = view.subject.clone().expect("a subject");
        assert_eq!((seen.digest, seen.size, seen.annotations.len()), (subject.digest, 7, 0));

        // Others may write anything.
        view.layers[0].annotations.remove(BASE);
        view.layers[1].media_type = media_type::OCTET_STREAM.to_owned();
        assert_eq!(deltas(&view).count(), 0);
    }
}
