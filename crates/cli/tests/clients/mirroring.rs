//! Mirroring from and to deltaport, Debian's registry and an OCI image layout: each from each to each, digest by digest,
//! with signatures under tags and referrers.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use deltaport_client::{Options, Upstream};
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_testkit::clients::{Layout, Sandbox};
use deltaport_testkit::sample::{self, Content, Image};
use futures_util::stream;
use serde_json::{Value, json};

use crate::registry::{Registry, at, wait};
use crate::skopeo;

const BILL: &str = "application/spdx+json";

/// What is mirrored: an index, its images, cosign's signature of the index, and what is said about the first image.
struct Release {
    index: Content,
    images: [Image; 2],
    signature: Content,
    bill: Content,
    /// What the signature and the bill are made of.
    blobs: Vec<Content>,
}

impl Release {
    fn new() -> Self {
        let (index, images) = skopeo::two_architectures();
        let (payload, text) = (sample::layer(71, 500), sample::layer(72, 700));
        let signature = sample::manifest(&sample::empty_config(), std::slice::from_ref(&payload), json!({}));
        let bill = sample::artifact(BILL, Some(&images[0].manifest), &text);
        Self { index, images, signature, bill, blobs: vec![payload, text, sample::empty_config()] }
    }

    fn signature_tag(&self) -> String {
        format!("sha256-{}.sig", self.index.digest.hex())
    }

    fn all_blobs(&self) -> impl Iterator<Item = &Content> {
        self.images.iter().flat_map(Image::blobs).chain(&self.blobs)
    }
}

/// What content is mirrored from or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Deltaport,
    Debian,
    Layout,
}

const KINDS: [Kind; 3] = [Kind::Deltaport, Kind::Debian, Kind::Layout];

/// One of them, running.
enum Place {
    Registry(Box<Registry>, Upstream),
    Layout(PathBuf),
}

impl Place {
    fn new(kind: Kind, sandbox: &Sandbox, name: &str) -> Self {
        let registry = match kind {
            Kind::Layout => return Self::Layout(sandbox.path(name)),
            Kind::Debian => Registry::foreign(),
            Kind::Deltaport => Registry::with_settings("public_upstreams = false\nvalidate = \"none\""),
        };
        let options = Options::new(name, format!("http://{}", registry.address()));
        Self::Registry(Box::new(registry), Upstream::new(&options).expect("an address"))
    }

    /// What a rule calls it, with the settings that this needs.
    fn settings(&self, host: &str) -> (String, String) {
        match self {
            Self::Registry(registry, _) => {
                let url = format!("http://{}", registry.address());
                (format!("{host}/team/app"), format!("[[upstream]]\nhost = {host:?}\nurl = {url:?}\n"))
            }
            Self::Layout(path) => (format!("oci:{}", path.display()), String::new()),
        }
    }

    /// Has the release as `team/app:v1`.
    async fn fill(&self, release: &Release) {
        let (client, name) = match self {
            Self::Registry(_, client) => (client, repository()),
            Self::Layout(path) => return fill_layout(path, release),
        };
        for blob in release.all_blobs() {
            let size = blob.bytes.len() as u64;
            let bytes = || stream::iter([Ok(Bytes::clone(&blob.bytes))]);
            client.push_blob(&name, &blob.digest, size, bytes).await.expect("the registry takes blobs");
        }
        let put = async |reference: Reference, manifest: &Content| {
            let put = client.push_manifest(&name, &reference, &manifest.media_type, manifest.bytes.clone());
            put.await.expect("the registry takes manifests")
        };
        for image in &release.images {
            put(Reference::Digest(image.manifest.digest), &image.manifest).await;
        }
        if put(Reference::Digest(release.bill.digest), &release.bill).await.is_none() {
            let mut listed = release.bill.descriptor();
            listed["artifactType"] = BILL.into();
            let listed = serde_json::from_value(listed).expect("a descriptor");
            let subject = release.images[0].manifest.digest;
            client.list_referrer(&name, &subject, &listed).await.expect("a list under a tag");
        }
        put(tag(&release.signature_tag()), &release.signature).await;
        put(tag("v1"), &release.index).await;
    }

    /// Asserts that it has the release, bit for bit.
    async fn check(&self, release: &Release) {
        let (client, name) = match self {
            Self::Registry(_, client) => (client, repository()),
            Self::Layout(path) => return check_layout(path, release),
        };
        let wanted = [
            (tag("v1"), &release.index),
            (Reference::Digest(release.index.digest), &release.index),
            (Reference::Digest(release.images[0].manifest.digest), &release.images[0].manifest),
            (Reference::Digest(release.images[1].manifest.digest), &release.images[1].manifest),
            (tag(&release.signature_tag()), &release.signature),
            (Reference::Digest(release.bill.digest), &release.bill),
        ];
        for (reference, manifest) in wanted {
            let found = client.manifest(&name, &reference).await.expect("it is there");
            assert_eq!((found.digest, &found.bytes), (manifest.digest, &manifest.bytes), "{reference}");
            assert_eq!(found.media_type, manifest.media_type);
        }
        for blob in release.all_blobs() {
            client.head_blob(&name, &blob.digest).await.expect("it is there");
        }
        let subject = release.images[0].manifest.digest;
        let about = client.referrers(&name, &subject, Some(BILL)).await.expect("an answer");
        assert_eq!(about.iter().map(|bill| bill.digest).collect::<Vec<_>>(), [release.bill.digest]);
    }
}

fn repository() -> RepositoryName {
    "team/app".parse().expect("a name")
}

fn tag(text: &str) -> Reference {
    text.parse().expect("a tag")
}

fn file(layout: &std::path::Path, digest: &Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

/// As other tools write layouts: a referrer is an entry without a name.
fn fill_layout(path: &std::path::Path, release: &Release) {
    let _written = Layout::new(path.to_owned()).index("v1", &release.index, &release.images);
    for content in release.blobs.iter().chain([&release.signature, &release.bill]) {
        fs::write(file(path, &content.digest), &content.bytes).expect("a directory to write to");
    }
    let mut index: Value =
        serde_json::from_slice(&fs::read(path.join("index.json")).expect("an index")).expect("JSON");
    let mut signature = release.signature.descriptor();
    signature["annotations"] = json!({ "org.opencontainers.image.ref.name": release.signature_tag() });
    let entries = index["manifests"].as_array_mut().expect("entries");
    entries.extend([signature, release.bill.descriptor()]);
    fs::write(path.join("index.json"), index.to_string()).expect("a directory to write to");
}

fn check_layout(path: &std::path::Path, release: &Release) {
    let manifests = release.images.iter().map(|image| &image.manifest);
    let more = [&release.index, &release.signature, &release.bill];
    for content in release.all_blobs().chain(manifests).chain(more) {
        let bytes = fs::read(file(path, &content.digest)).expect("the layout has it");
        assert_eq!(bytes, content.bytes, "{}", content.digest);
    }
    // skopeo reads the index, all of it, and with the digest that it had.
    let sandbox = Sandbox::new();
    let copied = sandbox.path("copied");
    let (from, to) = (format!("oci:{}:v1", path.display()), format!("dir:{}", copied.display()));
    skopeo::skopeo(&sandbox).line("copy --all").args([from, to]).ok();
    assert_eq!(fs::read(copied.join("manifest.json")).expect("skopeo wrote it"), release.index.bytes);
    let from = format!("oci:{}:{}", path.display(), release.signature_tag());
    let raw = skopeo::skopeo(&sandbox).line("inspect --raw").arg(from).ok();
    assert_eq!(raw.as_bytes(), &release.signature.bytes[..]);
}

/// Mirrors from one to each.
fn from(kind: Kind) {
    let (release, sandbox) = (Release::new(), Sandbox::new());
    let source = Place::new(kind, &sandbox, "source.example");
    wait(source.fill(&release));
    for to in KINDS {
        let target = Place::new(to, &sandbox, &format!("target-{to:?}"));
        let (from, mut settings) = source.settings("source.example");
        let (place, more) = target.settings("target.example");
        let local = if kind == Kind::Layout { "repository = \"vendor/app\"\n" } else { "" };
        settings += &format!(
            "{more}[[mirror]]\nname = \"all\"\nsource = {from:?}\n{local}to = {place:?}\ntags = [\"v*\"]\n"
        );
        let site = Registry::with_settings(&format!("public_upstreams = false\n{settings}"));
        let run = || {
            let mut run = sandbox.run(env!("CARGO_BIN_EXE_deltaport")).line("mirror run --json");
            run = run.arg(at(site.address(), "").trim_end_matches('/'));
            serde_json::from_str::<Value>(&run.ok()).expect("JSON")["mirrors"][0].take()
        };
        let first = run();
        assert_eq!(first["tags"][0]["outcome"], "mirrored", "{kind:?} to {to:?}: {first:#}");
        wait(target.check(&release));
        let notes = first["notes"].to_string();
        let keeps_lists = to != Kind::Debian;
        assert_eq!(
            notes.contains("keeps no lists of referrers"),
            !keeps_lists,
            "{kind:?} to {to:?}: {notes}"
        );
        let again = run();
        assert_eq!(again["tags"][0]["outcome"], "unchanged", "{kind:?} to {to:?}: {again:#}");
        assert_eq!(again["sent"], 0);
    }
}

#[test]
fn from_deltaport_to_each() {
    from(Kind::Deltaport);
}

#[test]
fn from_debians_registry_to_each() {
    from(Kind::Debian);
}

#[test]
fn from_a_layout_to_each() {
    from(Kind::Layout);
}

/// One platform of two: the other registry refuses the index, and the command says what to do.
#[test]
fn debians_registry_refuses_a_sparse_index_and_is_told_apart() {
    let (release, sandbox) = (Release::new(), Sandbox::new());
    let source = Place::new(Kind::Layout, &sandbox, "source");
    wait(source.fill(&release));
    let target = Place::new(Kind::Debian, &sandbox, "target.example");
    let (from, _) = source.settings("");
    let (place, more) = target.settings("target.example");
    let site = Registry::with_settings(&format!(
        "public_upstreams = false\n{more}[[mirror]]\nname = \"all\"\nsource = {from:?}\nrepository = \"vendor/app\"\n\
         to = {place:?}\ntags = [\"v1\"]\nplatforms = [\"linux/amd64\"]\n"
    ));
    let address = site.address().to_string();
    let outcome = sandbox.run(env!("CARGO_BIN_EXE_deltaport")).args(["mirror", "run", &address]).outcome();
    let said = &outcome.everything;
    assert!(!outcome.success && said.contains("Mirror all platforms"), "{said}");
    assert!(said.contains("MANIFEST_BLOB_UNKNOWN"), "{said}");
}
