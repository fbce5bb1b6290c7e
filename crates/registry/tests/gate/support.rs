//! A registry with a policy, and an upstream with signatures.

use std::path::Path;
use std::time::Duration;

use deltaport_client as client;
use deltaport_oci::{Digest, Reference, RepositoryName, Tag, media_type};
use deltaport_registry::upstream::TagPolicy;
use deltaport_registry::{Error, Options, Pulled, Refusal, Registry, Result, Trust, Upstream};
use deltaport_store::{Faults, Store};
use deltaport_testkit::sample::{Content, Image};
use deltaport_testkit::signer::Signature;
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};
use deltaport_trust::signatures::Policy;
use deltaport_trust::{Access, Rules};
use prometheus_client::registry::Registry as Prometheus;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the upstream is called.
pub(crate) const HOST: &str = "registry.example";
/// What the registry itself is called.
pub(crate) const OWN: &str = "own.example:5000";

pub(crate) fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

/// The repository `app` of the upstream.
pub(crate) fn app() -> RepositoryName {
    name(&format!("{HOST}/app"))
}

/// What a registry is told of a policy.
pub(crate) fn trust(policy: &Value) -> Trust {
    let text = policy.to_string();
    Trust {
        policy: Policy::read(text.as_bytes(), |path| Err(format!("no {path}"))).unwrap(),
        id: Digest::sha256(text.as_bytes()),
        name: OWN.to_owned(),
        judge_pushes: true,
    }
}

pub(crate) struct Site {
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) home: TempDir,
}

impl Site {
    /// A registry with the upstream at `url` and a policy.
    pub(crate) async fn new(url: &str, policy: &Value) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (registry, store) = open(home.path(), url).await;
        registry.set_trust(Some(trust(policy)));
        Self { registry, store, home }
    }

    pub(crate) async fn pull(&self, repository: &RepositoryName, reference: impl ToString) -> Result<Pulled> {
        let reference: Reference = reference.to_string().parse().unwrap();
        self.registry.manifest(repository, &reference).await
    }

    /// What the refusal of a pull says.
    #[track_caller]
    pub(crate) fn refusal(pulled: Result<Pulled>) -> Refusal {
        match pulled {
            Err(Error::Refused(refusal)) => (*refusal).clone(),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Whether a blob is served.
    pub(crate) async fn serves(&self, repository: &RepositoryName, blob: &Content) -> bool {
        let size = self.registry.blob_size(repository, &blob.digest).await;
        let body = self.registry.blob(repository, &blob.digest).await;
        match (size, body) {
            (Ok(size), Ok(body)) => size == body.size(),
            (Err(Error::Refused(_)), Err(Error::Refused(_))) => false,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn push_blob(&self, repository: &RepositoryName, blob: &Content) {
        let mut staging = self.store.blobs().stage(blob.digest.algorithm()).await.unwrap();
        staging.write(blob.bytes.clone()).await.unwrap();
        self.store.commit(staging, &blob.digest, repository).await.unwrap();
    }

    pub(crate) async fn push(
        &self,
        repository: &RepositoryName,
        manifest: &Content,
        reference: impl ToString,
    ) {
        let new = deltaport_registry::NewManifest {
            reference: reference.to_string().parse().unwrap(),
            tags: Vec::new(),
            media_type: manifest.media_type.clone(),
            bytes: manifest.bytes.clone(),
        };
        self.registry.put_manifest(repository, new).await.unwrap();
    }

    pub(crate) async fn push_image(
        &self,
        repository: &RepositoryName,
        image: &Image,
        reference: impl ToString,
    ) {
        for blob in image.blobs() {
            self.push_blob(repository, blob).await;
        }
        self.push(repository, &image.manifest, reference).await;
    }

    pub(crate) async fn push_signature(&self, repository: &RepositoryName, signature: &Signature) {
        for blob in signature.blobs() {
            self.push_blob(repository, blob).await;
        }
        self.push(repository, &signature.manifest, &signature.tag).await;
    }

    /// Which verdicts are kept of a manifest: tag, accepted, and whether they are of the present policy.
    pub(crate) async fn kept(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Vec<(Option<String>, bool, bool)> {
        let verdicts = self.registry.verdicts(repository, digest).await.unwrap();
        let told = |verdict: &deltaport_registry::Verdict| {
            let tag = verdict.tag.as_ref().map(Tag::to_string);
            (tag, verdict.verdict["accepted"].as_bool().unwrap(), verdict.current)
        };
        verdicts.iter().map(told).collect()
    }

    /// What a line of the metrics says.
    pub(crate) fn counts(&self, line: &str) -> u64 {
        let mut prometheus = Prometheus::default();
        self.registry.metrics().register(&mut prometheus);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &prometheus).unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or(0)
    }
}

pub(crate) async fn open(root: &Path, url: &str) -> (Registry, Store) {
    let store = Store::open(deltaport_store::Options {
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
    .unwrap();
    let mut options = client::Options::new(HOST, url);
    options.timeouts = client::Timeouts {
        connect: Duration::from_secs(2),
        header: Duration::from_secs(5),
        stall: Duration::from_secs(2),
    };
    let policy = TagPolicy { max_age: Duration::ZERO, negative_age: Duration::ZERO, ..TagPolicy::DEFAULT };
    let upstream = Upstream { policy, ..Upstream::new(client::Upstream::new(&options).unwrap()) };
    let options = Options { upstreams: vec![upstream], ..Options::default() };
    let registry = Registry::new(options, store.clone(), Rules::new(Access::default()).unwrap());
    (registry, store)
}

/// An upstream where nothing is signed yet.
pub(crate) async fn upstream() -> Script {
    Script::start(vec![Rule::no_hub()]).await
}

/// What the upstream has by digest and under a tag, without signatures.
pub(crate) fn has(script: &Script, manifest: &Content, tag: Option<&str>) {
    let digest = manifest.digest.to_string();
    for reference in [Some(digest.as_str()), tag].into_iter().flatten() {
        for method in ["HEAD", "GET"] {
            let path = format!("/v2/app/manifests/{reference}");
            script.first(Rule::on(method, &path).reply(Reply::content(manifest)));
        }
    }
    let hex = manifest.digest.hex();
    for ending in [".sig", ""] {
        let path = format!("/v2/app/manifests/sha256-{hex}{ending}");
        script.first(Rule::on("GET", &path).reply(Reply::status(404)));
    }
    referrers(script, manifest, &[]);
}

pub(crate) fn referrers(script: &Script, subject: &Content, referrers: &[&Content]) {
    let described = |content: &&Content| {
        let manifest: Value = serde_json::from_slice(&content.bytes).unwrap();
        let mut descriptor = content.descriptor();
        descriptor["artifactType"] = manifest["artifactType"].clone();
        descriptor
    };
    let list: Vec<Value> = referrers.iter().map(described).collect();
    let list = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": list });
    let list = Content::new(media_type::OCI_INDEX, list.to_string());
    let path = format!("/v2/app/referrers/{}", subject.digest);
    script.first(Rule::on("GET", &path).reply(Reply::content(&list)));
}

pub(crate) fn has_blobs<'a>(script: &Script, blobs: impl IntoIterator<Item = &'a Content>) {
    for blob in blobs {
        let path = format!("/v2/app/blobs/{}", blob.digest);
        script.first(Rule::on("GET", &path).reply(Reply::content(blob)));
        script.first(Rule::on("HEAD", &path).reply(Reply::content(blob)));
    }
}

/// The upstream has an image under a tag.
pub(crate) fn has_image(script: &Script, image: &Image, tag: &str) {
    has(script, &image.manifest, Some(tag));
    has_blobs(script, image.blobs());
}

/// And now it has this signature under its tag.
pub(crate) fn has_signature(script: &Script, signature: &Signature) {
    for method in ["HEAD", "GET"] {
        let path = format!("/v2/app/manifests/{}", signature.tag);
        script.first(Rule::on(method, &path).reply(Reply::content(&signature.manifest)));
    }
    has_blobs(script, signature.blobs());
}

/// Which blobs the upstream was asked for.
pub(crate) fn blobs_asked(script: &Script) -> Vec<String> {
    let lines = script.lines();
    lines.iter().filter_map(|line| line.strip_prefix("GET /v2/app/blobs/")).map(str::to_owned).collect()
}
