//! Manifests and indexes: a read-only view over bytes that somebody else authored (image-spec, manifest.md and
//! image-index.md; Docker's schema 2 has the same shape).
//!
//! The bytes are stored and served as they came. A [`View`] only says what they refer to.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::{Descriptor, Digest, media_type};

/// How much of a manifest is read before it is refused.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How deep objects and arrays may nest.
    pub depth: usize,
    /// How many descriptors one manifest may hold.
    pub descriptors: usize,
}

impl Limits {
    /// What no honest manifest reaches.
    pub const DEFAULT: Self = Self { depth: 32, descriptors: 4096 };
}

/// Why bytes are not a manifest that a registry takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The media type in the body is not the one in the header; clients would disagree on what it is.
    #[error("the manifest says its mediaType is {body:?}, but it was sent as {header:?}")]
    Confused {
        /// `mediaType` in the body.
        body: String,
        /// `Content-Type` of the request.
        header: String,
    },
    /// Not JSON of the right shape.
    #[error("not a manifest: {0}")]
    Json(String),
    /// Lists layers and children at once (CVE-2021-41190): it would be an image to one client, an index to another.
    #[error("a manifest has either config and layers or manifests, not both")]
    Mixed,
    /// Nested too deep.
    #[error("the manifest nests deeper than {0} levels")]
    TooDeep(usize),
    /// Too many descriptors.
    #[error("the manifest refers to more than {0} things")]
    TooMany(usize),
    /// A media type that this registry does not store as a manifest.
    #[error(
        "{0:?} is not the media type of a manifest that is stored here; an OCI or Docker (schema 2) manifest or index is"
    )]
    UnknownType(String),
    /// Not `"schemaVersion": 2`.
    #[error("schemaVersion must be 2")]
    Version,
}

/// What a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Its media type.
    pub media_type: String,
    /// The configuration of an image manifest.
    pub config: Option<Descriptor>,
    /// The layers of an image manifest.
    pub layers: Vec<Descriptor>,
    /// The children of an index.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one says something about.
    pub subject: Option<Descriptor>,
    /// `artifactType`, as it stands there.
    pub artifact_type: Option<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Go writes an empty map or list that was never made as `null`.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl View {
    /// Reads `bytes`, which were sent as `content_type` (without parameters).
    ///
    /// Fails when the two disagree or the bytes are not a manifest that is stored here.
    pub fn parse(content_type: &str, bytes: &[u8], limits: Limits) -> Result<Self, ManifestError> {
        if !media_type::is_manifest(content_type) {
            return Err(ManifestError::UnknownType(content_type.to_owned()));
        }
        if nests_deeper(bytes, limits.depth) {
            return Err(ManifestError::TooDeep(limits.depth));
        }
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(error.to_string()))?;
        if raw.schema_version != 2 {
            return Err(ManifestError::Version);
        }
        if let Some(body) = raw.media_type.filter(|body| body != content_type) {
            return Err(ManifestError::Confused { body, header: content_type.to_owned() });
        }
        let index = media_type::is_index(content_type);
        if (index && (raw.config.is_some() || raw.layers.is_some())) || (!index && raw.manifests.is_some()) {
            return Err(ManifestError::Mixed);
        }
        if index && raw.manifests.is_none() {
            return Err(ManifestError::Json("an index has a list of manifests".to_owned()));
        }
        if !index && raw.config.is_none() {
            return Err(ManifestError::Json("an image manifest has a config".to_owned()));
        }
        let view = Self {
            media_type: content_type.to_owned(),
            config: raw.config,
            layers: raw.layers.unwrap_or_default(),
            manifests: raw.manifests.unwrap_or_default(),
            subject: raw.subject,
            artifact_type: raw.artifact_type.filter(|text| !text.is_empty()),
            annotations: raw.annotations,
        };
        if view.layers.len() + view.manifests.len() + 2 > limits.descriptors {
            return Err(ManifestError::TooMany(limits.descriptors));
        }
        Ok(view)
    }

    /// Whether it is an index or manifest list.
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// The blobs that have to be in the repository for an image to be pulled: the configuration and every layer that
    /// is not kept elsewhere by design.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let here =
            |layer: &&Descriptor| !media_type::is_foreign_layer(&layer.media_type) && layer.urls.is_empty();
        self.config.iter().chain(self.layers.iter().filter(here))
    }

    /// The kind of artifact that a list of referrers shows for this manifest (distribution-spec, "Listing Referrers"):
    /// `artifactType`, or else the media type of an image's configuration.
    pub fn referrer_type(&self) -> Option<&str> {
        self.artifact_type
            .as_deref()
            .or_else(|| self.config.as_ref().map(|config| config.media_type.as_str()))
            .filter(|text| !text.is_empty())
    }

    /// The descriptor that a list of referrers shows for this manifest.
    pub fn referrer(&self, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest,
            size,
            urls: Vec::new(),
            artifact_type: self.referrer_type().map(str::to_owned),
            platform: None,
            annotations: self.annotations.clone(),
        }
    }
}

/// Whether objects and arrays nest deeper than `limit`. Counts brackets outside strings, so it needs no stack.
fn nests_deeper(json: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(content_type: &str, json: &str) -> Result<View, ManifestError> {
        View::parse(content_type, json.as_bytes(), Limits::DEFAULT)
    }

    fn image(more: &str) -> String {
        let config = format!(r#"{{"mediaType":"application/x","digest":"{DIGEST}","size":0}}"#);
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":null{more}}}"#)
    }

    #[test]
    fn an_image_is_seen_as_one() {
        let view =
            parse(media_type::OCI_MANIFEST, &image(r#","annotations":null,"custom":[1]"#)).expect("an image");
        assert_eq!(view.referrer_type(), Some("application/x"));
        assert_eq!(view.blobs().count(), 1);
        assert!(!view.is_index());
    }

    #[test]
    fn what_two_clients_would_read_differently_is_refused() {
        let both = image(r#","manifests":[]"#);
        assert_eq!(parse(media_type::OCI_MANIFEST, &both), Err(ManifestError::Mixed));
        assert_eq!(parse(media_type::OCI_INDEX, &both), Err(ManifestError::Mixed));
        let lying = image(&format!(r#","mediaType":"{}""#, media_type::OCI_INDEX));
        assert!(matches!(parse(media_type::OCI_MANIFEST, &lying), Err(ManifestError::Confused { .. })));
        let twice = image(r#","subject":null,"subject":null"#);
        assert!(matches!(parse(media_type::OCI_MANIFEST, &twice), Err(ManifestError::Json(_))));
    }

    #[test]
    fn limits_hold() {
        let deep = image(&format!(r#","x":{}{}"#, "[".repeat(40), "]".repeat(40)));
        assert_eq!(parse(media_type::OCI_MANIFEST, &deep), Err(ManifestError::TooDeep(32)));
        let strings = image(&format!(r#","x":"{}""#, "[".repeat(400)));
        assert!(parse(media_type::OCI_MANIFEST, &strings).is_ok());
        let child = format!(r#"{{"digest":"{DIGEST}","size":1}}"#);
        let wide = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec![child; 5000].join(","));
        assert_eq!(parse(media_type::OCI_INDEX, &wide), Err(ManifestError::TooMany(4096)));
    }

    #[test]
    fn other_things_are_refused() {
        for (content_type, json) in [
            ("text/plain", image("")),
            (media_type::OCI_MANIFEST, String::new()),
            (media_type::OCI_MANIFEST, image("").replace('2', "1")),
            (media_type::OCI_MANIFEST, r#"{"schemaVersion":2}"#.to_owned()),
            (media_type::OCI_INDEX, r#"{"schemaVersion":2}"#.to_owned()),
            (
                media_type::OCI_INDEX,
                r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:x","size":1}]}"#.to_owned(),
            ),
            (media_type::OCI_MANIFEST, image("").replace(r#""size":0"#, r#""size":-1"#)),
        ] {
            assert!(parse(content_type, &json).is_err(), "{json}");
        }
    }

    #[test]
    fn foreign_layers_are_not_expected_here() {
        let layer = format!(
            r#"[{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{DIGEST}","size":9}}]"#
        );
        let json = image("").replace("null", &layer);
        let view = parse(media_type::OCI_MANIFEST, &json).expect("an image");
        assert_eq!((view.layers.len(), view.blobs().count()), (1, 1));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), flip in 0..120_usize, with in any::<u8>()) {
            let _ = View::parse(media_type::OCI_MANIFEST, &bytes, Limits::DEFAULT);
            let mut json = image("").into_bytes();
            let at = flip % json.len();
            json[at] = with;
            let _ = View::parse(media_type::OCI_MANIFEST, &json, Limits::DEFAULT);
        }
    }
}
