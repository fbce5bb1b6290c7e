//! Content for tests. The same call makes the same bytes in every run and on every machine, so digests can be
//! compared and failures repeated.

use std::io::Write as _;

use bytes::Bytes;
use deltaport_oci::{Algorithm, Digest, media_type};
use serde_json::{Value, json};

/// Media type of a gzip-compressed layer.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Media type of a layer that is not compressed.
pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of the configuration of an image.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Random numbers that are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for every seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero. The small bias does not matter to tests.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// `length` bytes that do not compress.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// About `length` bytes of words that compress like text, ending with a line break.
    pub fn text(&mut self, length: usize) -> Vec<u8> {
        const WORDS: [&str; 12] = [
            "layer", "digest", "mount", "of", "the", "root", "tag", "index", "and", "blob", "config", "share",
        ];
        let mut text = Vec::with_capacity(length + 16);
        while text.len() < length {
            let word = WORDS[usize::try_from(self.below(12)).expect("below 12")];
            text.extend_from_slice(word.as_bytes());
            text.push(if self.below(9) == 0 { b'\n' } else { b' ' });
        }
        text.push(b'\n');
        text
    }
}

/// `length` bytes that do not compress, of a sequence of their own for every seed.
pub fn bytes(seed: u64, length: usize) -> Bytes {
    Random::new(seed).bytes(length).into()
}

/// Some content with the name it goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Media type, for descriptors that refer to it.
    pub media_type: String,
    /// The bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
}

impl Content {
    /// Names `bytes` by SHA-256.
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        Self::with(Algorithm::Sha256, media_type, bytes)
    }

    /// Names `bytes` by `algorithm`.
    pub fn with(algorithm: Algorithm, media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { media_type: media_type.to_owned(), digest: Digest::of(algorithm, &bytes), bytes }
    }

    /// The same bytes by another algorithm.
    pub fn renamed(&self, algorithm: Algorithm) -> Self {
        Self::with(algorithm, &self.media_type, self.bytes.clone())
    }

    /// The descriptor that refers to it.
    pub fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.digest.to_string(),
            "size": self.bytes.len(),
        })
    }
}

/// A configuration of `{}`: what an artifact has that needs none.
pub fn empty_config() -> Content {
    Content::new(media_type::OCI_EMPTY, &b"{}"[..])
}

/// A file in a sample layer.
#[derive(Clone, Debug)]
pub struct File {
    /// Path without a leading slash, at most 99 bytes.
    pub path: String,
    /// What is in it.
    pub content: Vec<u8>,
}

impl File {
    /// A file.
    pub fn new(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), content: content.into() }
    }
}

/// `count` files of text, about `length` bytes each. Two calls whose seeds differ share nothing.
pub fn files(seed: u64, count: usize, length: usize) -> Vec<File> {
    let mut random = Random::new(seed);
    (0..count).map(|n| File::new(&format!("usr/share/sample/{n:05}"), random.text(length))).collect()
}

/// Another version of `files`: about one in `one_in` has other content.
pub fn changed(files: &[File], seed: u64, one_in: u64) -> Vec<File> {
    let mut random = Random::new(seed);
    let change = |file: &File| {
        let content =
            if random.below(one_in) == 0 { random.text(file.content.len()) } else { file.content.clone() };
        File { path: file.path.clone(), content }
    };
    files.iter().map(change).collect()
}

/// A tar archive (ustar) of `files`, all owned by root and of one date.
pub fn tar(files: &[File]) -> Vec<u8> {
    let mut archive = Vec::new();
    for file in files {
        archive.extend_from_slice(&tar_header(file));
        archive.extend_from_slice(&file.content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn tar_header(file: &File) -> [u8; 512] {
    assert!(file.path.len() < 100, "the name field of ustar ends there: {}", file.path);
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, &file.path);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", file.content.len()));
    put(136, "14371000000\0");
    put(148, "        "); // the checksum is taken with its own field blank
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// `bytes` as gzip writes them at its usual level.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

/// A gzip-compressed layer with some files of text, about `length` bytes before compression.
pub fn layer(seed: u64, length: usize) -> Content {
    layer_of(&files(seed, 4, length / 4))
}

/// A gzip-compressed layer with these files.
pub fn layer_of(files: &[File]) -> Content {
    Content::new(LAYER_GZIP, gzip(&tar(files)))
}

/// An image with everything it refers to.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest.
    pub manifest: Content,
    /// The configuration.
    pub config: Content,
    /// The layers, lowest first.
    pub layers: Vec<Content>,
}

impl Image {
    /// An image of these layers for `architecture` (Go's word).
    pub fn of(architecture: &str, layers: Vec<Content>) -> Self {
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(diff_id).collect::<Vec<_>>() },
        });
        let config = Content::new(CONFIG, config.to_string());
        let manifest = manifest(&config, &layers, json!({}));
        Self { manifest, config, layers }
    }

    /// A small image with two layers, other ones for every seed.
    pub fn small(seed: u64) -> Self {
        Self::of("amd64", vec![layer(2 * seed, 4000), layer(2 * seed + 1, 2000)])
    }

    /// The configuration and the layers: what has to be pushed before the manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &Content> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// The digest of a layer's archive, as configurations name it.
fn diff_id(layer: &Content) -> String {
    if layer.media_type != LAYER_GZIP {
        return layer.digest.to_string();
    }
    let mut archive = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&layer.bytes[..]), &mut archive)
        .expect("a layer that was made here");
    Digest::sha256(&archive).to_string()
}

/// An image manifest; `more` is an object whose fields are added or replace those that it has.
pub fn manifest(config: &Content, layers: &[Content], more: Value) -> Content {
    let fields = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": layers.iter().map(Content::descriptor).collect::<Vec<_>>(),
    });
    authored(media_type::OCI_MANIFEST, fields, more)
}

/// An index of `children` for linux/amd64, linux/arm64 and so on; `more` as in [`manifest()`].
pub fn index(children: &[&Content], more: Value) -> Content {
    const ARCHITECTURES: [&str; 4] = ["amd64", "arm64", "riscv64", "s390x"];
    let child = |(content, architecture): (&&Content, &&str)| {
        let mut descriptor = content.descriptor();
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        descriptor
    };
    let fields = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": children.iter().zip(ARCHITECTURES.iter().cycle()).map(child).collect::<Vec<_>>(),
    });
    authored(media_type::OCI_INDEX, fields, more)
}

/// An artifact of `artifact_type` that says something about `subject`, with one blob.
pub fn artifact(artifact_type: &str, subject: Option<&Content>, blob: &Content) -> Content {
    let mut more =
        json!({ "artifactType": artifact_type, "annotations": { "org.example.kind": artifact_type } });
    if let Some(subject) = subject {
        more["subject"] = subject.descriptor();
    }
    manifest(&empty_config(), std::slice::from_ref(blob), more)
}

fn authored(media_type: &str, mut fields: Value, more: Value) -> Content {
    let (Value::Object(object), Value::Object(more)) = (&mut fields, more) else {
        panic!("what is added to a manifest is an object");
    };
    object.extend(more);
    Content::new(media_type, fields.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaport_oci::manifest::{Limits, View};

    #[test]
    fn the_same_seed_makes_the_same_bytes() {
        assert_eq!(bytes(7, 1000), bytes(7, 1000));
        assert_ne!(bytes(7, 1000), bytes(8, 1000));
        assert_eq!(Image::small(3).manifest, Image::small(3).manifest);
        // Known answer of the generator: a change here would change every digest that a test ever printed.
        assert_eq!(Random::new(0).next_u64(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn manifests_are_what_the_vocabulary_reads() {
        let image = Image::small(1);
        let view = View::parse(&image.manifest.media_type, &image.manifest.bytes, Limits::DEFAULT).unwrap();
        assert_eq!((view.blobs().count(), view.layers.len()), (3, 2));
        let index = index(&[&image.manifest, &image.manifest], json!({ "artifactType": "a/b" }));
        let view = View::parse(&index.media_type, &index.bytes, Limits::DEFAULT).unwrap();
        assert_eq!(view.manifests[1].platform.as_ref().unwrap().to_string(), "linux/arm64");
        assert_eq!(view.artifact_type.as_deref(), Some("a/b"));
        let artifact = artifact("x/y", Some(&image.manifest), &layer(5, 100));
        let view = View::parse(&artifact.media_type, &artifact.bytes, Limits::DEFAULT).unwrap();
        assert_eq!(view.subject.unwrap().digest, image.manifest.digest);
        assert_eq!(view.config.unwrap().media_type, media_type::OCI_EMPTY);
    }

    #[test]
    fn a_changed_layer_shares_most_of_its_files() {
        let old = files(1, 100, 50);
        let new = changed(&old, 2, 10);
        let kept = old.iter().zip(&new).filter(|(old, new)| old.content == new.content).count();
        assert!((80..100).contains(&kept), "{kept}");
        assert_eq!(tar(&old).len() % 512, 0);
    }
}
