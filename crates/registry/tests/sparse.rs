//! Sparse indexes at a site and at a registry of its own: every state of a child and how it comes to be, what clients
//! are told about what is not here, and what completing and pruning fetch and take away.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::path::Path;
use std::time::{Duration, SystemTime};

use deltaport_client as client;
use deltaport_oci::platform::Filter;
use deltaport_oci::{Digest, Reference, RepositoryName, media_type};
use deltaport_registry::image::{Node, Role, State, Tree};
use deltaport_registry::{Error, Kind, NewManifest, Options, Registry, Upstream, Validate};
use deltaport_store::{Faults, Store};
use deltaport_testkit::sample::{self, Content, Image, layer};
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};
use deltaport_trust::{Access, Rules};
use serde_json::{Value, json};
use tempfile::TempDir;

const HOST: &str = "registry.example";

fn app() -> RepositoryName {
    format!("{HOST}/app").parse().unwrap()
}

fn filter(text: &str) -> Filter {
    Filter::new(text.split_whitespace().map(|one| one.parse().unwrap()).collect())
}

/// An index of images for these architectures, the first with an attestation.
struct Sample {
    images: Vec<Image>,
    attestation: Image,
    index: Content,
}

impl Sample {
    fn new(architectures: &[&str]) -> Self {
        Self::of(architectures, |seed| vec![layer(10 + seed, 40_000), layer(30 + seed, 8000)])
    }

    fn of(architectures: &[&str], layers: impl Fn(u64) -> Vec<Content>) -> Self {
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
    async fn upstream(&self) -> Script {
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

    fn child(&self, number: usize) -> &Digest {
        &self.images[number].manifest.digest
    }
}

fn has(script: &Script, image: &Image) {
    for blob in image.blobs() {
        for method in ["HEAD", "GET"] {
            let path = format!("/v2/app/blobs/{}", blob.digest);
            script.first(Rule::on(method, &path).reply(Reply::content(blob)));
        }
    }
    answers(script, "GET", &image.manifest.digest.to_string(), Reply::content(&image.manifest));
}

fn answers(script: &Script, method: &str, reference: &str, reply: Reply) {
    script.first(Rule::on(method, &format!("/v2/app/manifests/{reference}")).reply(reply));
}

async fn open(root: &Path) -> Store {
    Store::open(deltaport_store::Options {
        root: root.to_owned(),
        keep_free: 0,
        manifest_cache: 1 << 20,
        grace: Duration::from_secs(600),
        upload_expiry: Duration::from_secs(600),
        partial_expiry: Duration::from_secs(600),
        faults: Faults::none(),
    })
    .await
    .unwrap()
}

/// A registry over a store of its own.
struct Site {
    registry: Registry,
    store: Store,
    home: TempDir,
}

impl Site {
    /// One in front of `url`, of which it wants these platforms. Nothing is fetched that nobody asked for.
    async fn of(url: &str, platforms: Filter) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path()).await;
        Self { registry: mirror(&store, url, platforms), store, home }
    }

    /// One that mirrors nothing.
    async fn own(validate: Validate) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path()).await;
        let options = Options { validate, ..Options::default() };
        let registry = Registry::new(options, store.clone(), Rules::new(Access::default()).unwrap());
        Self { registry, store, home }
    }

    /// The same data in front of another upstream, or with other platforms wanted.
    fn now(self, url: &str, platforms: Filter) -> Self {
        Self { registry: mirror(&self.store, url, platforms), ..self }
    }

    async fn pull(&self, reference: &str) -> Result<Vec<u8>, Error> {
        let pulled = self.registry.manifest(&app(), &reference.parse().unwrap()).await?;
        Ok(pulled.bytes.to_vec())
    }

    async fn pulls(&self, image: &Image) -> Result<(), Error> {
        assert_eq!(self.pull(&image.manifest.digest.to_string()).await?, image.manifest.bytes);
        for blob in image.blobs() {
            self.registry.blob(&app(), &blob.digest).await?;
        }
        Ok(())
    }

    async fn tree(&self) -> Tree {
        self.registry.image(&app(), &"v1".parse().unwrap()).await.unwrap()
    }

    /// The states of the children of `v1`.
    async fn states(&self) -> Vec<State> {
        self.tree().await.root.children.iter().map(|child| child.state).collect()
    }

    async fn close(self) {
        drop(self.registry);
        self.store.close().await.unwrap();
        drop(self.store);
        let options = deltaport_store::FsckOptions { root: self.home.path().to_owned(), repair: false };
        let report = deltaport_store::fsck(&options, &|_| {}).unwrap();
        assert!(report.is_clean(), "{:#?}", report.findings);
    }
}

fn mirror(store: &Store, url: &str, platforms: Filter) -> Registry {
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
const NOWHERE: &str = "http://127.0.0.1:9";

/// Status, platform and reason of a refusal.
fn told(error: &Error) -> (Kind, &'static str, Value) {
    (error.kind(), error.code().as_str(), error.detail().unwrap_or_default())
}

fn detail(digest: &Digest, platform: &str, reason: &str) -> Value {
    json!({ "digest": digest, "platform": platform, "reason": reason })
}

#[tokio::test]
async fn every_state_of_a_child_and_the_ways_between_them() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let (amd64, arm64) = (&sample.images[0], &sample.images[1]);
    let script = sample.upstream().await;
    let url = script.url();
    let mut site = Site::of(&url, Filter::ALL).await;
    site.pull("v1").await.unwrap();
    let [tag, all] = ["v1".parse::<Reference>().unwrap(), "v1".parse().unwrap()];
    let arm = "linux/arm64";
    use State::{AbsentUpstream, ByPolicy, Evicted, Missing, Present};

    /// What happens, and the state of the child for arm64 after it.
    enum Event {
        /// Its manifest is asked for; the reason why it is not served, if it is not.
        Asked(Option<&'static str>),
        Completed,
        Pruned,
        /// The upstream has it, or not.
        Upstream(bool),
        /// The site is started with these platforms, in front of the upstream or of nothing.
        Started(&'static str, bool),
        Deleted,
        Collected,
    }
    use Event::{Asked, Collected, Completed, Deleted, Pruned, Started, Upstream};
    let events = [
        (Asked(None), Present),
        (Pruned, Evicted),
        (Collected, Evicted),
        (Asked(None), Present),
        (Deleted, Missing),
        (Completed, Present),
        (Upstream(false), Present),
        (Asked(None), Present),
        (Collected, Present),
        (Pruned, Evicted),
        (Asked(Some("absent-upstream")), AbsentUpstream),
        (Completed, AbsentUpstream),
        (Upstream(true), AbsentUpstream),
        (Asked(None), Present),
        (Pruned, Evicted),
        (Started("", false), Evicted),
        (Asked(Some("offline")), Evicted),
        (Completed, Evicted),
        (Started("linux/amd64", false), ByPolicy),
        (Asked(Some("by-policy")), ByPolicy),
        (Started("linux/amd64", true), ByPolicy),
        (Asked(Some("by-policy")), ByPolicy),
        (Completed, Present),
        (Asked(None), Present),
        (Pruned, ByPolicy),
        (Asked(Some("by-policy")), ByPolicy),
        (Started("linux/s390x", true), ByPolicy),
        (Asked(Some("by-policy")), ByPolicy),
        (Started("linux/arm64", true), Evicted),
        (Asked(None), Present),
        (Pruned, Evicted),
        (Upstream(false), Evicted),
        (Completed, AbsentUpstream),
        (Started("", false), AbsentUpstream),
        (Asked(Some("offline")), AbsentUpstream),
        (Started("", true), AbsentUpstream),
        (Upstream(true), AbsentUpstream),
        (Completed, Present),
    ];
    assert_eq!(site.states().await, [Missing, Missing, Missing], "only the index was asked for");
    for (number, (event, after)) in events.into_iter().enumerate() {
        match event {
            Asked(None) => site.pulls(arm64).await.unwrap(),
            Asked(Some(reason)) => {
                let refused = site.pull(&arm64.manifest.digest.to_string()).await.unwrap_err();
                let expected = detail(&arm64.manifest.digest, arm, reason);
                assert_eq!(told(&refused), (Kind::NotFound, "MANIFEST_UNKNOWN", expected), "{number}");
            }
            Completed => {
                site.registry.complete(&app(), &all, &filter(arm)).await.unwrap();
            }
            Pruned => {
                let pruned = site.registry.prune(&app(), &tag, &filter(arm)).await.unwrap();
                assert_eq!(pruned.evicted.len(), 1, "{number}");
                assert!(pruned.upstream && pruned.bytes > 0);
            }
            Upstream(there) => {
                let reply = if there { Reply::content(&arm64.manifest) } else { Reply::status(404) };
                answers(&script, "GET", &arm64.manifest.digest.to_string(), reply);
            }
            Started(platforms, online) => {
                site = site.now(if online { &url } else { NOWHERE }, filter(platforms));
            }
            Deleted => {
                let digest = Reference::Digest(arm64.manifest.digest);
                site.registry.delete_manifest(&app(), &digest).await.unwrap();
            }
            Collected => {
                let later = SystemTime::now() + Duration::from_secs(601);
                site.store.collect(later).await.unwrap();
                site.store.collect(later).await.unwrap();
            }
        }
        assert_eq!(site.states().await[1], after, "{number}");
        let index = site.registry.image(&app(), &tag).await.unwrap().root;
        assert_eq!((index.digest, index.role), (sample.index.digest, Role::Index));
    }
    assert_eq!(site.pull("v1").await.unwrap(), sample.index.bytes, "byte for byte");
    assert_eq!(site.states().await[0], Missing, "nobody asked for {}", amd64.manifest.digest);
    site.close().await;
}

#[tokio::test]
async fn blobs_of_a_child_are_told_about_like_the_child() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let mut site = Site::of(&script.url(), Filter::ALL).await;
    site.pull("v1").await.unwrap();
    let arm64 = &sample.images[1];
    site.pull(&arm64.manifest.digest.to_string()).await.unwrap();
    let layer = &arm64.layers[0].digest;
    for (url, platforms, reason) in [
        (NOWHERE, "", "offline"),
        (NOWHERE, "linux/amd64", "by-policy"),
        (&script.url(), "linux/amd64", "by-policy"),
    ] {
        site = site.now(url, filter(platforms));
        let expected = (Kind::NotFound, "BLOB_UNKNOWN", detail(layer, "linux/arm64", reason));
        assert_eq!(told(&site.registry.blob(&app(), layer).await.unwrap_err()), expected);
        assert_eq!(told(&site.registry.blob_size(&app(), layer).await.unwrap_err()), expected);
    }
    assert_eq!(site.tree().await.root.children[1].blobs.unwrap().present_count, 0);
    site = site.now(&script.url(), Filter::ALL);
    let path = format!("/v2/app/blobs/{layer}");
    script.first(Rule::on("GET", &path).times(1).reply(Reply::status(404)));
    let expected = (Kind::NotFound, "BLOB_UNKNOWN", detail(layer, "linux/arm64", "absent-upstream"));
    assert_eq!(told(&site.registry.blob(&app(), layer).await.unwrap_err()), expected);
    site.pulls(arm64).await.unwrap();
    site.close().await;
}

#[tokio::test]
async fn only_what_is_wanted_is_fetched_ahead() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let site = Site::of(&script.url(), Filter::ALL).await;
    site.pull("v1").await.unwrap();
    for image in [&sample.images[1], &sample.images[0]] {
        site.pull(&image.manifest.digest.to_string()).await.unwrap();
    }
    let site = site.now(&script.url(), filter("linux/amd64"));
    for image in [&sample.images[1], &sample.images[0]] {
        let digest = Reference::Digest(image.manifest.digest);
        let pulled = site.registry.manifest(&app(), &digest).await.unwrap();
        site.registry.fetch_ahead(&app(), &pulled.manifest);
    }
    let present = |tree: Tree, child: usize| tree.root.children[child].blobs.unwrap().present_count;
    while present(site.tree().await, 0) < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(present(site.tree().await, 1), 0);
    let asked = script.lines();
    let unwanted = |blob: &Content| asked.iter().any(|line| line.ends_with(&blob.digest.to_string()));
    assert!(!sample.images[1].blobs().any(unwanted), "{asked:#?}");
    site.close().await;
}

#[tokio::test]
async fn what_an_image_without_an_index_needs_is_not_judged_by_platform() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let site = Site::of(&script.url(), filter("linux/amd64")).await;
    let other = Image::of("s390x", vec![sample.images[1].layers[0].clone()]);
    has(&script, &other);
    // No index here names it.
    site.pulls(&sample.images[1]).await.unwrap();
    site.pull("v1").await.unwrap();
    site.pulls(&other).await.unwrap();
    let refused = site.pull(&Digest::sha256(b"nothing").to_string()).await.unwrap_err();
    assert!(matches!(refused, Error::Upstream { .. }), "the script says nothing about it: {refused}");
    site.close().await;
}

/// How many bytes a complete image has, its manifest included.
fn weight(image: &Image) -> u64 {
    image.blobs().chain([&image.manifest]).map(|content| content.bytes.len() as u64).sum()
}

#[tokio::test]
async fn one_platform_of_five_costs_a_fifth() {
    let equal = |seed| vec![Content::new(sample::LAYER_TAR, sample::bytes(seed, 300_000))];
    let sample = Sample::of(&["amd64", "arm64", "riscv64", "s390x", "ppc64le"], equal);
    let script = sample.upstream().await;
    let whole = Site::of(&script.url(), Filter::ALL).await;
    let completed = whole.registry.complete(&app(), &"v1".parse().unwrap(), &Filter::ALL).await.unwrap();
    assert!(completed.tree.is_complete() && completed.failed.is_empty(), "{completed:#?}");
    let all = script.sent();
    let images = sample.images.iter().chain([&sample.attestation]);
    assert_eq!(all, images.map(weight).sum::<u64>() + sample.index.bytes.len() as u64);

    let one = Site::of(&script.url(), filter("linux/arm64")).await;
    let wanted = filter("linux/arm64");
    let completed = one.registry.complete(&app(), &"v1".parse().unwrap(), &wanted).await.unwrap();
    assert!(completed.failed.is_empty() && !completed.tree.is_complete());
    let part = script.sent() - all;
    assert_eq!(part, weight(&sample.images[1]) + sample.index.bytes.len() as u64, "not a byte more");
    assert!(part * 100 <= all * 21, "{part} of {all}");
    one.pulls(&sample.images[1]).await.unwrap();
    assert_eq!(script.sent() - all, part, "all of it is here");
    use State::{ByPolicy, Present};
    assert_eq!(one.states().await, [ByPolicy, Present, ByPolicy, ByPolicy, ByPolicy, ByPolicy]);
    whole.close().await;
    one.close().await;
}

#[tokio::test]
async fn an_image_comes_with_its_attestation_and_goes_with_it() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let site = Site::of(&script.url(), Filter::ALL).await;
    let tag = "v1".parse().unwrap();
    site.registry.complete(&app(), &tag, &filter("*/amd64")).await.unwrap();
    use State::{Evicted, Missing, Present};
    assert_eq!(site.states().await, [Present, Missing, Present]);
    let node: Node = site.tree().await.root.children[2].clone();
    assert_eq!((node.role, node.about), (Role::Attestation, Some(*sample.child(0))));
    let pruned = site.registry.prune(&app(), &tag, &filter("linux/amd64")).await.unwrap();
    assert!(pruned.evicted.iter().all(|one| one.platform.as_ref().unwrap().to_string() == "linux/amd64"));
    let blobs = |image: &Image| image.blobs().map(|blob| blob.bytes.len() as u64).sum::<u64>();
    assert_eq!(pruned.bytes, blobs(&sample.images[0]) + blobs(&sample.attestation));
    assert_eq!(site.states().await, [Evicted, Missing, Evicted]);
    let again = site.registry.prune(&app(), &tag, &filter("linux/amd64")).await.unwrap();
    assert!(again.evicted.is_empty() && again.kept.is_empty() && again.bytes == 0);
    site.close().await;
}

#[tokio::test]
async fn a_sparse_upstream_is_told_as_it_is() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    answers(&script, "GET", &sample.child(1).to_string(), Reply::status(404));
    let lost = &sample.images[0].layers[1].digest;
    script.first(Rule::on("GET", &format!("/v2/app/blobs/{lost}")).reply(Reply::status(404)));
    let site = Site::of(&script.url(), Filter::ALL).await;
    let tag = "v1".parse().unwrap();
    for (wanted, failures) in [
        ("", vec![(*sample.child(1), "linux/arm64", false), (*lost, "linux/amd64", false)]),
        ("linux/arm64", vec![(*sample.child(1), "linux/arm64", true)]),
        ("linux/amd64", vec![(*lost, "linux/amd64", true)]),
    ] {
        let completed = site.registry.complete(&app(), &tag, &filter(wanted)).await.unwrap();
        let told = |failed: &deltaport_registry::image::Failed| {
            assert!(failed.absent && failed.why.contains(HOST), "{failed:?}");
            (failed.digest, failed.platform.as_ref().unwrap().to_string(), failed.asked)
        };
        let expected: Vec<_> = failures.into_iter().map(|(d, p, asked)| (d, p.to_owned(), asked)).collect();
        assert_eq!(completed.failed.iter().map(told).collect::<Vec<_>>(), expected, "{wanted:?}");
    }
    assert_eq!(site.states().await[1], State::AbsentUpstream);
    assert_eq!(site.pull("v1").await.unwrap(), sample.index.bytes);
    site.close().await;
}

#[tokio::test]
async fn a_filter_that_matches_nothing_is_refused_and_fetches_nothing() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let site = Site::of(&script.url(), Filter::ALL).await;
    let tag = "v1".parse().unwrap();
    site.pull("v1").await.unwrap();
    let (sent, wanted) = (script.sent(), filter("linux/s390x windows/*"));
    let refused = [
        site.registry.complete(&app(), &tag, &wanted).await.map(|_| ()).unwrap_err(),
        site.registry.prune(&app(), &tag, &wanted).await.map(|_| ()).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), Kind::Invalid);
        let says = "nothing for linux/s390x, windows/*; it has linux/amd64, linux/arm64";
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(script.sent(), sent);
    let image = Reference::Digest(*sample.child(0));
    site.pulls(&sample.images[0]).await.unwrap();
    let refused = site.registry.prune(&app(), &image, &filter("linux/amd64")).await.unwrap_err();
    assert!(matches!(refused, Error::NotAnIndex), "{refused}");
    let completed = site.registry.complete(&app(), &image, &wanted).await.unwrap();
    assert!(completed.tree.is_complete(), "an image that is no index is for one platform, whatever that is");
    let nowhere = "v2".parse().unwrap();
    for refused in [
        site.registry.prune(&app(), &nowhere, &wanted).await.map(|_| ()).unwrap_err(),
        site.registry.image(&app(), &nowhere).await.map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(refused, Error::ManifestUnknown(_)));
    }
    site.close().await;
}

#[tokio::test]
async fn indexes_in_indexes_are_looked_into() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let outer = sample::index(&[], json!({ "manifests": [sample.index.descriptor()] }));
    for method in ["HEAD", "GET"] {
        answers(&script, method, "outer", Reply::content(&outer));
    }
    let site = Site::of(&script.url(), filter("linux/arm64")).await;
    let tag: Reference = "outer".parse().unwrap();
    let completed = site.registry.complete(&app(), &tag, &filter("linux/arm64")).await.unwrap();
    assert!(completed.failed.is_empty());
    let states = |tree: &Tree| tree.nodes().map(|node| node.state).collect::<Vec<_>>();
    use State::{ByPolicy, Evicted, Present};
    assert_eq!(states(&completed.tree), [Present, Present, ByPolicy, Present, ByPolicy]);
    let refused = site.registry.complete(&app(), &tag, &filter("linux/s390x")).await.unwrap_err();
    assert!(refused.to_string().contains("it has linux/amd64, linux/arm64"), "{refused}");
    let refused = site.registry.prune(&app(), &tag, &filter("linux/s390x")).await.unwrap_err();
    assert!(matches!(refused, Error::NothingMatches(_)), "{refused}");
    let pruned = site.registry.prune(&app(), &tag, &filter("linux/arm64")).await.unwrap();
    assert_eq!(states(&pruned.tree), [Present, Present, ByPolicy, Evicted, ByPolicy]);
    site.close().await;
}

/// Pushes what `validate` lets pass; whether it did.
async fn push(site: &Site, name: &str, content: &Content, tag: &str) -> bool {
    let manifest = NewManifest {
        reference: tag.parse().unwrap(),
        tags: Vec::new(),
        media_type: content.media_type.clone(),
        bytes: content.bytes.clone(),
    };
    match site.registry.put_manifest(&name.parse().unwrap(), manifest).await {
        Ok(put) => put.digest == content.digest,
        Err(Error::MissingReferences(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn push_image(site: &Site, name: &str, image: &Image) {
    for blob in image.blobs() {
        let mut staging = site.store.blobs().stage(blob.digest.algorithm()).await.unwrap();
        staging.write(blob.bytes.clone()).await.unwrap();
        site.store.commit(staging, &blob.digest, &name.parse().unwrap()).await.unwrap();
    }
    assert!(push(site, name, &image.manifest, &image.manifest.digest.to_string()).await);
}

#[tokio::test]
async fn what_is_pushed_is_pruned_on_purpose_only_and_comes_back_by_pushing() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let site = Site::own(Validate::None).await;
    push_image(&site, "own", &sample.images[0]).await;
    assert!(push(&site, "own", &sample.index, "v1").await);
    let (own, tag): (RepositoryName, Reference) = ("own".parse().unwrap(), "v1".parse().unwrap());
    let states = || async {
        let tree = site.registry.image(&own, &tag).await.unwrap();
        tree.root.children.iter().map(|child| child.state).collect::<Vec<_>>()
    };
    let reason = |digest: Digest| {
        let (registry, own) = (site.registry.clone(), own.clone());
        async move {
            let refused = registry.manifest(&own, &Reference::Digest(digest)).await.unwrap_err();
            told(&refused).2
        }
    };
    use State::{Evicted, Missing, Present};
    assert_eq!(states().await, [Present, Missing, Missing]);
    assert_eq!(reason(*sample.child(1)).await, detail(sample.child(1), "linux/arm64", "missing"));
    let attestation = sample.attestation.manifest.digest;
    let about = detail(&attestation, "linux/amd64", "missing");
    assert_eq!(reason(attestation).await, about, "it is for the platform of its image");
    let completed = site.registry.complete(&own, &tag, &Filter::ALL).await.unwrap();
    assert_eq!(completed.failed.len(), 2);
    assert!(completed.failed.iter().all(|failed| !failed.absent && failed.why.contains("push it")));

    let pruned = site.registry.prune(&own, &tag, &filter("linux/amd64")).await.unwrap();
    assert!(!pruned.upstream && pruned.evicted.len() == 1);
    assert_eq!(states().await, [Evicted, Missing, Missing], "and the tag stays with none");
    assert_eq!(reason(*sample.child(0)).await, detail(sample.child(0), "linux/amd64", "evicted"));
    push_image(&site, "own", &sample.images[0]).await;
    assert_eq!(states().await, [Present, Missing, Missing]);
    site.close().await;
}

#[tokio::test]
async fn what_must_be_there_is_said_per_repository() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).await;
    let patterns = |text: &str| vec![text.parse().unwrap()];
    let options = Options {
        validate: Validate::None,
        validate_in: vec![
            (patterns("strict/loose"), Validate::None),
            (patterns("strict/**"), Validate::All),
            (patterns("arm/*"), Validate::Platforms(filter("*/arm64"))),
        ],
        ..Options::default()
    };
    let registry = Registry::new(options, store.clone(), Rules::new(Access::default()).unwrap());
    let site = Site { registry, store, home };
    for (repository, with_amd64, with_arm64, with_all) in [
        ("any", true, true, true),
        ("strict/a", false, false, true),
        ("strict/a/b", false, false, true),
        ("strict/loose", true, true, true),
        ("arm/a", false, true, true),
    ] {
        for (name, images, expected) in [
            ("amd64", &[&sample.images[0]][..], with_amd64),
            ("arm64", &[&sample.images[1]], with_arm64),
            ("all", &[&sample.images[0], &sample.images[1], &sample.attestation], with_all),
        ] {
            // Each in a repository of its own that the pattern means, with nothing of the others.
            for image in images {
                push_image(&site, repository, image).await;
            }
            assert_eq!(push(&site, repository, &sample.index, "v1").await, expected, "{repository} {name}");
            for image in images {
                let digest = Reference::Digest(image.manifest.digest);
                site.registry.delete_manifest(&repository.parse().unwrap(), &digest).await.unwrap();
            }
        }
    }
    assert_eq!(sample.index.media_type, media_type::OCI_INDEX);
    site.close().await;
}
