//! Images on disk, as skopeo and others read them (image-spec, image-layout.md).

use std::fs;
use std::path::{Path, PathBuf};

use deltaport_oci::Digest;
use serde_json::{Value, json};

use crate::sample::{Content, Image};

/// An OCI image layout.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    tags: Vec<Value>,
}

impl Layout {
    /// An empty one in the directory `path`, which is made.
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).expect("a directory to write to");
        fs::write(path.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")
            .expect("a directory to write to");
        Self { path, tags: Vec::new() }
    }

    /// Adds an image under a tag.
    #[must_use]
    pub fn image(mut self, tag: &str, image: &Image) -> Self {
        self.store(image);
        self.name(tag, &image.manifest);
        self
    }

    /// Adds an index under a tag, with all its images.
    #[must_use]
    pub fn index(mut self, tag: &str, index: &Content, images: &[Image]) -> Self {
        images.iter().for_each(|image| self.store(image));
        self.blob(index);
        self.name(tag, index);
        self
    }

    /// How clients call what is under `tag`.
    pub fn reference(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.path.display())
    }

    fn store(&self, image: &Image) {
        image.blobs().chain([&image.manifest]).for_each(|content| self.blob(content));
    }

    fn blob(&self, content: &Content) {
        fs::write(blob_path(&self.path, &content.digest), &content.bytes).expect("a directory to write to");
    }

    fn name(&mut self, tag: &str, content: &Content) {
        let mut descriptor = content.descriptor();
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        self.tags.push(descriptor);
        let index = json!({ "schemaVersion": 2, "manifests": self.tags });
        fs::write(self.path.join("index.json"), index.to_string()).expect("a directory to write to");
    }
}

/// What some client wrote: the image under `tag` in the layout at `path`. Panics when the layout does not hold what it
/// says, digest by digest.
pub fn read_image(path: &Path, tag: &str) -> Image {
    let index = fs::read(path.join("index.json")).expect("a layout has an index");
    let index: Value = serde_json::from_slice(&index).expect("an index is JSON");
    let tags = index["manifests"].as_array().expect("an index has manifests");
    let is_tagged =
        |descriptor: &&Value| descriptor["annotations"]["org.opencontainers.image.ref.name"] == tag;
    let descriptor =
        tags.iter().find(is_tagged).unwrap_or_else(|| panic!("no tag {tag} in {}", path.display()));
    let manifest = read_content(path, descriptor);
    let fields: Value = serde_json::from_slice(&manifest.bytes).expect("a manifest is JSON");
    let layers = fields["layers"].as_array().expect("a manifest has layers");
    Image {
        config: read_content(path, &fields["config"]),
        layers: layers.iter().map(|layer| read_content(path, layer)).collect(),
        manifest,
    }
}

fn read_content(path: &Path, descriptor: &Value) -> Content {
    let field = |name: &str| descriptor[name].as_str().expect("a descriptor has it");
    let digest: Digest = field("digest").parse().expect("a digest");
    let content =
        Content::new(field("mediaType"), fs::read(blob_path(path, &digest)).expect("the layout has it"));
    assert_eq!(content.digest, digest, "in {}", path.display());
    content
}

fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}
