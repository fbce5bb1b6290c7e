//! Whole sets of content, as tools push them: each is pushed, listed, pulled, referred to and deleted.

use std::collections::BTreeSet;

use deltaport_oci::{Algorithm, Digest, media_type};
use deltaport_testkit::sample::{
    Content, Image, LAYER_TAR, artifact, bytes, empty_config, files, index, manifest, tar,
};
use serde_json::{Value, json};

use crate::harness::{Registry, requirements};

/// Content that belongs together.
#[derive(Default)]
struct DataSet {
    /// Pushed first.
    blobs: Vec<Content>,
    /// Pushed by digest, in this order.
    manifests: Vec<Content>,
    /// Pushed last, under their tags.
    tagged: Vec<(&'static str, Content)>,
}

impl DataSet {
    fn image(tag: &'static str, image: Image) -> Self {
        Self {
            blobs: image.blobs().cloned().collect(),
            tagged: vec![(tag, image.manifest)],
            ..Self::default()
        }
    }

    /// The same with another image that only has a digest.
    fn with_child(mut self, image: &Image) -> Self {
        self.blobs.extend(image.blobs().cloned());
        self.manifests.push(image.manifest.clone());
        self
    }

    fn all(&self) -> impl Iterator<Item = &Content> {
        self.manifests.iter().chain(self.tagged.iter().map(|(_, manifest)| manifest))
    }

    /// Which manifests refer to which subject.
    fn referrers(&self) -> Vec<(Digest, Digest)> {
        let subject = |manifest: &Content| {
            let fields: Value = serde_json::from_slice(&manifest.bytes).expect("made here");
            Some((fields["subject"]["digest"].as_str()?.parse().expect("made here"), manifest.digest))
        };
        self.all().filter_map(subject).collect()
    }
}

/// Takes a set through its life.
async fn expect_life_of(registry: &Registry, set: &DataSet) {
    for blob in &set.blobs {
        registry.push_blob(blob).await;
    }
    for manifest in &set.manifests {
        registry.push_manifest(manifest.digest, manifest).await;
    }
    for (tag, manifest) in &set.tagged {
        registry.push_manifest(tag, manifest).await;
    }
    expect_all_of(registry, set).await;

    for (tag, manifest) in &set.tagged {
        assert_eq!(registry.delete(format_args!("manifests/{tag}")).await.status, 202);
        registry.expect_no_manifest(tag).await;
        registry.expect_manifest(manifest.digest, manifest).await;
    }
    assert_eq!(registry.tags().await, Vec::<String>::new());
    let digests: BTreeSet<Digest> = set.all().map(|manifest| manifest.digest).collect();
    for digest in &digests {
        assert_eq!(registry.delete(format_args!("manifests/{digest}")).await.status, 202);
        registry.expect_no_manifest(digest).await;
    }
    for (subject, _) in set.referrers() {
        assert!(registry.referrers(&subject, "").await.1.is_empty());
    }
    let digests: BTreeSet<Digest> = set.blobs.iter().map(|blob| blob.digest).collect();
    for digest in &digests {
        assert_eq!(registry.delete(format_args!("blobs/{digest}")).await.status, 202);
        registry.expect_no_blob(digest).await;
    }
}

async fn expect_all_of(registry: &Registry, set: &DataSet) {
    let mut tags: Vec<&str> = set.tagged.iter().map(|(tag, _)| *tag).collect();
    tags.sort_unstable();
    assert_eq!(registry.tags().await, tags);
    for blob in &set.blobs {
        registry.expect_blob(blob).await;
    }
    for manifest in set.all() {
        registry.expect_manifest(manifest.digest, manifest).await;
    }
    for (tag, manifest) in &set.tagged {
        registry.expect_manifest(tag, manifest).await;
    }
    for (subject, referrer) in set.referrers() {
        let (_, list) = registry.referrers(&subject, "").await;
        assert!(list.iter().any(|one| one["digest"] == referrer.to_string().as_str()), "{list:?}");
    }
}

/// An image with these fields besides the usual ones.
fn image_with(seed: u64, more: Value) -> Image {
    let image = Image::small(seed);
    let manifest = manifest(&image.config, &image.layers, more);
    Image { manifest, ..image }
}

fn blob(seed: u64) -> Content {
    Content::new("application/vnd.example.blob", bytes(seed, 500))
}

requirements! {
    /// Two compressed layers.
    async fn an_image(registry: &Registry) {
        expect_life_of(registry, &DataSet::image("image", Image::small(1))).await;
    }

    /// A layer that is a bare archive.
    async fn an_uncompressed_image(registry: &Registry) {
        let layer = Content::new(LAYER_TAR, tar(&files(2, 3, 700)));
        expect_life_of(registry, &DataSet::image("bare", Image::of("amd64", vec![layer]))).await;
    }

    /// The same layer twice, as builders do with the empty one.
    async fn an_image_with_a_layer_twice(registry: &Registry) {
        let image = Image::small(3);
        let twice = vec![image.layers[0].clone(), image.layers[0].clone()];
        expect_life_of(registry, &DataSet::image("twice", Image::of("amd64", twice))).await;
    }

    /// 3.9 MB of annotations.
    async fn an_image_with_a_large_manifest(registry: &Registry) {
        let annotations = json!({ "annotations": { "org.example.filler": "x".repeat(3_900_000) } });
        expect_life_of(registry, &DataSet::image("large", image_with(4, annotations))).await;
    }

    /// Two platforms.
    async fn an_index(registry: &Registry) {
        let (one, two) = (Image::small(5), Image::small(6));
        let index = index(&[&one.manifest, &two.manifest], json!({}));
        let set = DataSet { tagged: vec![("index", index)], ..DataSet::default() };
        expect_life_of(registry, &set.with_child(&one).with_child(&two)).await;
    }

    /// An index in an index.
    async fn a_nested_index(registry: &Registry) {
        let image = Image::small(7);
        let inner = index(&[&image.manifest], json!({}));
        let outer = index(&[&inner, &image.manifest], json!({}));
        let mut set = DataSet { tagged: vec![("nested", outer)], ..DataSet::default() }.with_child(&image);
        set.manifests.push(inner);
        expect_life_of(registry, &set).await;
    }

    /// An index of nothing.
    async fn an_empty_index(registry: &Registry) {
        let set = DataSet { tagged: vec![("empty", index(&[], json!({})))], ..DataSet::default() };
        expect_life_of(registry, &set).await;
    }

    /// An index under a sha512 digest, of images under sha512 digests.
    async fn a_sha512_index(registry: &Registry) {
        let image = Image::small(8);
        let child = image.manifest.renamed(Algorithm::Sha512);
        let index = index(&[&child], json!({})).renamed(Algorithm::Sha512);
        let set = DataSet { blobs: image.blobs().cloned().collect(), manifests: vec![child, index], ..DataSet::default() };
        expect_life_of(registry, &set).await;
    }

    /// Something that is no image.
    async fn an_artifact(registry: &Registry) {
        let artifact = artifact("application/vnd.example.thing", None, &blob(9));
        let set = DataSet { blobs: vec![empty_config(), blob(9)], tagged: vec![("thing", artifact)], ..DataSet::default() };
        expect_life_of(registry, &set).await;
    }

    /// An index of artifacts, itself one.
    async fn an_index_of_artifacts(registry: &Registry) {
        let artifact = artifact("application/vnd.example.thing", None, &blob(10));
        let index = index(&[&artifact], json!({ "artifactType": "application/vnd.example.things" }));
        let blobs = vec![empty_config(), blob(10)];
        let set = DataSet { blobs, manifests: vec![artifact], tagged: vec![("things", index)] };
        expect_life_of(registry, &set).await;
    }

    /// Only annotations: the empty object stands for the configuration and for the one layer.
    async fn an_artifact_without_content(registry: &Registry) {
        let more = json!({ "artifactType": "application/vnd.example.note", "annotations": { "note": "yes" } });
        let artifact = manifest(&empty_config(), &[empty_config()], more);
        let set = DataSet { blobs: vec![empty_config()], tagged: vec![("note", artifact)], ..DataSet::default() };
        expect_life_of(registry, &set).await;
    }

    /// A list of layers without layers.
    async fn an_image_without_layers(registry: &Registry) {
        expect_life_of(registry, &DataSet::image("none", Image::of("amd64", Vec::new()))).await;
    }

    /// Three artifacts of two kinds about one image.
    async fn an_image_with_artifacts_about_it(registry: &Registry) {
        let image = Image::small(11);
        let mut set = DataSet::image("signed", image.clone());
        set.blobs.push(empty_config());
        for (seed, kind) in [(12, "signature"), (13, "signature"), (14, "sbom")] {
            set.blobs.push(blob(seed));
            let artifact = artifact(&format!("application/vnd.example.{kind}"), Some(&image.manifest), &blob(seed));
            set.manifests.push(artifact);
        }
        expect_life_of(registry, &set).await;
    }

    /// An index that is about an image.
    async fn an_index_with_a_subject(registry: &Registry) {
        let (subject, child) = (Image::small(15), Image::small(16));
        let about = index(&[&child.manifest], json!({ "subject": subject.manifest.descriptor() }));
        let mut set = DataSet::image("subject", subject).with_child(&child);
        set.tagged.push(("about", about));
        expect_life_of(registry, &set).await;
    }

    /// A subject that is not here.
    async fn an_artifact_about_something_missing(registry: &Registry) {
        let artifact = artifact("application/vnd.example.sbom", Some(&Image::small(17).manifest), &blob(18));
        let set = DataSet { blobs: vec![empty_config(), blob(18)], manifests: vec![artifact.clone()], tagged: vec![("about", artifact)] };
        expect_life_of(registry, &set).await;
    }

    /// A descriptor that carries its content itself.
    async fn an_image_with_a_data_field(registry: &Registry) {
        let mut config = empty_config().descriptor();
        config["data"] = json!("e30=");
        let artifact = manifest(&empty_config(), &[blob(19)], json!({ "config": config }));
        let set = DataSet { blobs: vec![empty_config(), blob(19)], tagged: vec![("data", artifact)], ..DataSet::default() };
        expect_life_of(registry, &set).await;
    }

    /// Layers that are kept elsewhere and not pushed.
    async fn an_image_with_nondistributable_layers(registry: &Registry) {
        let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        let mut layer = Content::new(kind, bytes(20, 300)).descriptor();
        layer["urls"] = json!(["https://example.com/layer.tar.gz"]);
        let image = Image::small(21);
        let mut layers = vec![layer];
        layers.extend(image.layers.iter().map(Content::descriptor));
        let manifest = manifest(&image.config, &[], json!({ "layers": layers }));
        expect_life_of(registry, &DataSet::image("foreign", Image { manifest, ..image })).await;
    }

    /// Fields that nobody has defined yet.
    async fn an_image_with_custom_fields(registry: &Registry) {
        let mut config = Image::small(22).config.descriptor();
        config["org.example.field"] = json!({ "nested": [1, null, "x"] });
        let image = image_with(22, json!({ "org.example.field": [1.5, true], "config": config }));
        expect_life_of(registry, &DataSet::image("custom", image)).await;
    }

    /// The kinds that Docker pushes.
    async fn an_image_in_dockers_format(registry: &Registry) {
        let image = Image::small(23);
        let fields = json!({ "mediaType": media_type::DOCKER_MANIFEST });
        let child = manifest(&image.config, &image.layers, fields);
        let child = Content::new(media_type::DOCKER_MANIFEST, child.bytes);
        let list = index(&[&child], json!({ "mediaType": media_type::DOCKER_LIST }));
        let list = Content::new(media_type::DOCKER_LIST, list.bytes);
        let blobs = image.blobs().cloned().collect();
        let set = DataSet { blobs, manifests: vec![child.clone()], tagged: vec![("child", child), ("list", list)] };
        expect_life_of(registry, &set).await;
    }
}
