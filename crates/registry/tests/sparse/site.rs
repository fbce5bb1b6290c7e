//! A site, an upstream with an image for several platforms, and shorthands.

use std::path::Path;
use std::time::Duration;

use deltaport_client as client;
use deltaport_oci::platform::Filter;
use deltaport_oci::{Digest, RepositoryName};
use deltaport_registry::image::{State, Tree};
use deltaport_registry::{Error, Kind, Options, Registry, Upstream, Validate};
use deltaport_store::{Faults, Store};
use deltaport_testkit::sample::{self, Content, Image, layer};
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};
use deltaport_trust::{Access, Rules};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const HOST: &str = "registry.example";

pub(crate) fn app() -> RepositoryName {
    format!("{HOST}/app").parse().unwrap()
}

pub(crate) fn filter(text: &str) -> Filter {
    Filter::new(text.split_whitespace().map(|one| one.parse().unwrap()).collect())
}

/// An index of images for these architectures, the first with an attestation.
pub(crate) struct Sample {
    pub(crate) images: Vec<Image>,
    pub(crate) attestation: Image,
    pub(crate) index: Content,
}

impl Sample {
    pub(crate) fn new(architectures: &[&str]) -> Self {
        Self::of(architectures, |seed| vec![layer(10 + seed, 40_000), layer(30 + seed, 8000)])
    }

    pub(crate) fn of(architectures: &[&str], layers: impl Fn(u64) -> Vec<Content>) -> Self {
        let images: Vec<Image> = architectures
            .iter()
            .zip(0..)
            .map(|(architecture, seed)| Image::of(architecture, layers(seed)))
            .collect();
        let attestation = Image::of("unknown", vec![layer(99, 300)]);
        let mut children: Vec<Value> = images
            .iter()
            .zip(architectures)
            .map(|(image, architecture)| {
                let mut child = image.manifest.descriptor();
                child["platform"] = json!({ "os": "linux", "architecture": architecture });
                child
            })
            .collect();
        let mut about = attestation.manifest.descriptor();
        about["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        about["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": images[0].manifest.digest.to_string(),
        });
        children.push(about);
        let index = sample::index(&[], json!({ "manifests": children }));
        Self { images, attestation, index }
    }

    /// A registry that has all of it under the tag `v1`.
    pub(crate) async fn upstream(&self) -> Script {
        let script = Script::start(vec![Rule::no_hub()]).await;
        for image in self.images.iter().chain([&self.attestation]) {
            has(&script, image);
        }
        for reference in ["v1", &self.index.digest.to_string()] {
            for method in ["HEAD", "GET"] {
                answers(&script, method, reference, Reply::content(&self.index));
            }
        }
        script
    }

    pub(crate) fn child(&self, number: usize) -> &Digest {
        &self.images[number].manifest.digest
    }
}

pub(crate) fn has(script: &Script, image: &Image) {
    for blob in image.blobs() {
        for method in ["HEAD", "GET"] {
            let path = format!("/v2/app/blobs/{}", blob.digest);
            script.first(Rule::on(method, &path).reply(Reply::content(blob)));
        }
    }
    answers(script, "GET", &image.manifest.digest.to_string(), Reply::content(&image.manifest));
}

pub(crate) fn answers(script: &Script, method: &str, reference: &str, reply: Reply) {
    script.first(Rule::on(method, &format!("/v2/app/manifests/{reference}")).reply(reply));
}

pub(crate) async fn open(root: &Path) -> Store {
    Store::open(deltaport_store::Options {
        root: root.to_owned(),
        bytes: deltaport_store::ByteStore::Directory,
        keep_free: 0,
        manifest_cache: 1 << 20,
        grace: Duration::from_secs(600),
        upload_expiry: Duration::from_secs(600),
        partial_expiry: Duration::from_secs(600),
        names: deltaport_store::NamesOptions::Directory,
        faults: Faults::none(),
    })
    .await
    .unwrap()
}

/// A registry over a store of its own.
pub(crate) struct Site {
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) home: TempDir,
}

impl Site {
    /// One in front of `url`, of which it wants these platforms. Nothing is fetched that nobody asked for.
    pub(crate) async fn of(url: &str, platforms: Filter) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path()).await;
        Self { registry: mirror(&store, url, platforms), store, home }
    }

    /// One that mirrors nothing.
    pub(crate) async fn own(validate: Validate) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path()).await;
        let options = Options { validate, ..Options::default() };
        let registry = Registry::new(options, store.clone(), Rules::new(Access::default()).unwrap());
        Self { registry, store, home }
    }

    /// The same data in front of another upstream, or with other platforms wanted.
    pub(crate) fn now(self, url: &str, platforms: Filter) -> Self {
        Self { registry: mirror(&self.store, url, platforms), ..self }
    }

    pub(crate) async fn pull(&self, reference: &str) -> Result<Vec<u8>, Error> {
        let pulled = self.registry.manifest(&app(), &reference.parse().unwrap()).await?;
        Ok(pulled.bytes.to_vec())
    }

    pub(crate) async fn pulls(&self, image: &Image) -> Result<(), Error> {
        assert_eq!(self.pull(&image.manifest.digest.to_string()).await?, image.manifest.bytes);
        for blob in image.blobs() {
            self.registry.blob(&app(), &blob.digest).await?;
        }
        Ok(())
    }

    pub(crate) async fn tree(&self) -> Tree {
        self.registry.image(&app(), &"v1".parse().unwrap()).await.unwrap()
    }

    /// The states of the children of `v1`.
    pub(crate) async fn states(&self) -> Vec<State> {
        self.tree().await.root.children.iter().map(|child| child.state).collect()
    }

    pub(crate) async fn close(self) {
        drop(self.registry);
        self.store.close().await.unwrap();
        drop(self.store);
        let options = deltaport_store::FsckOptions {
            bytes: deltaport_store::ByteStore::Directory,
            rehash: false,
            root: self.home.path().to_owned(),
            names: deltaport_store::NamesOptions::Directory,
            repair: false,
        };
        let report = deltaport_store::fsck(&options, &|_| {}).unwrap();
        assert!(report.is_clean(), "{:#?}", report.findings);
    }
}

pub(crate) fn mirror(store: &Store, url: &str, platforms: Filter) -> Registry {
    let mut options = client::Options::new(HOST, url);
    options.timeouts = client::Timeouts {
        connect: Duration::from_secs(2),
        header: Duration::from_secs(2),
        stall: Duration::from_millis(300),
    };
    let mut upstream = Upstream::new(client::Upstream::new(&options).unwrap());
    upstream.policy.negative_age = Duration::ZERO;
    upstream.platforms = platforms;
    let mut options = Options { upstreams: vec![upstream], ..Options::default() };
    options.fill.patience = Duration::from_secs(1);
    Registry::new(options, store.clone(), Rules::new(Access::default()).unwrap())
}

/// An address where nothing listens.
pub(crate) const NOWHERE: &str = "http://127.0.0.1:9";

/// Status, platform and reason of a refusal.
pub(crate) fn told(error: &Error) -> (Kind, &'static str, Value) {
    (error.kind(), error.code().as_str(), error.detail().unwrap_or_default())
}

pub(crate) fn detail(digest: &Digest, platform: &str, reason: &str) -> Value {
    json!({ "digest": digest, "platform": platform, "reason": reason })
}
