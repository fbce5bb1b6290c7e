//! How much room what comes from upstreams takes: what goes when it is too much, what stays, and that whoever asks again
//! is given the same as before.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use deltaport_client as client;
use deltaport_oci::platform::Filter;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_registry::mirror::{self, Selection};
use deltaport_registry::pull::Body;
use deltaport_registry::space::Evicted;
use deltaport_registry::upstream::{Lifetime, TagRule};
use deltaport_registry::{NewManifest, Options, Registry, Upstream};
use deltaport_store::{ByteStore, Faults, FsckOptions, NamesOptions, Store, fsck};
use deltaport_testkit::sample::{self, Content, Image, Random, layer};
use deltaport_testkit::upstream::{Gate, Reply, Rule, Upstream as Script};
use deltaport_trust::{Access, Rules};
use futures_util::StreamExt as _;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const HOST: &str = "registry.example";

fn repository(name: &str) -> RepositoryName {
    format!("{HOST}/{name}").parse().unwrap()
}

async fn open(root: &Path) -> Store {
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

struct Site {
    registry: Registry,
    store: Store,
    home: TempDir,
}

impl Site {
    async fn new(script: &Script, cap: u64) -> Self {
        Self::with(script, |options| options.space.cached = Some(cap)).await
    }

    async fn with(script: &Script, tell: impl FnOnce(&mut Options)) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = open(home.path()).await;
        let mut upstream =
            Upstream::new(client::Upstream::new(&client::Options::new(HOST, script.url())).unwrap());
        // What the upstream has is about to change in these tests.
        upstream.policy.negative_age = Duration::ZERO;
        let mut options = Options { upstreams: vec![upstream], ..Options::default() };
        options.fill.ahead = false;
        tell(&mut options);
        let registry = Registry::new(options, store.clone(), Rules::new(Access::default()).unwrap());
        Self { registry, store, home }
    }

    /// Pulls an image as clients do: its manifest, then its blobs.
    async fn pull(&self, name: &str, tag: &str, image: &Image) {
        pull(&self.registry, name, tag, image).await;
    }

    /// Evicts as if everything had been used long ago, and collects.
    async fn make_room(&self) -> Evicted {
        let evicted = self.registry.evict(later()).await.unwrap();
        let collected = self.store.collect(SystemTime::now()).await.unwrap();
        assert_eq!(collected.bytes, evicted.bytes);
        evicted
    }

    async fn has(&self, name: &str, image: &Image) -> bool {
        let reference = Reference::Digest(image.manifest.digest);
        let here = self.store.names().manifest(&repository(name), &reference).await.unwrap().is_some();
        let layer = image.layers[0].digest;
        assert_eq!(self.store.names().blob(&repository(name), &layer).await.unwrap().is_some(), here);
        here
    }

    async fn clean(self) {
        self.store.close().await.unwrap();
        let Self { registry, store, home } = self;
        drop((registry, store));
        let report = fsck(
            &FsckOptions {
                bytes: deltaport_store::ByteStore::Directory,
                rehash: false,
                root: home.path().to_owned(),
                names: deltaport_store::NamesOptions::Directory,
                repair: false,
            },
            &|_| {},
        )
        .unwrap();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
}

fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

async fn pull(registry: &Registry, name: &str, tag: &str, image: &Image) {
    let name = repository(name);
    let manifest = registry.manifest(&name, &tag.parse().unwrap()).await.unwrap();
    assert_eq!(manifest.bytes, image.manifest.bytes);
    for blob in image.blobs() {
        let body = registry.blob(&name, &blob.digest).await.unwrap();
        assert!(read(body).await == blob.bytes, "{}", blob.digest);
    }
    // Times have milliseconds, and the order is in question.
    tokio::time::sleep(Duration::from_millis(3)).await;
}

async fn read(body: Body) -> Vec<u8> {
    let mut stream = body.read(deltaport_oci::wire::ByteRange { start: 0, end: body.size() });
    let mut received = Vec::new();
    while let Some(chunk) = stream.next().await {
        received.extend_from_slice(&chunk.unwrap());
    }
    received
}

/// An image with a layer of this size, which has a few bytes more.
fn image(seed: u64, size: usize) -> Image {
    Image::of("amd64", vec![layer(1000 + seed, size)])
}

fn size(image: &Image) -> u64 {
    image.blobs().chain([&image.manifest]).map(|content| content.bytes.len() as u64).sum()
}

/// Room for two images and a half, of which a tenth goes for slack.
fn room_for_two(images: &[Image]) -> u64 {
    5 * size(&images[0]) / 2
}

/// The upstream has an image under a tag.
fn has(script: &Script, name: &str, tag: &str, image: &Image) {
    for blob in image.blobs() {
        for method in ["GET", "HEAD"] {
            let path = format!("/v2/{name}/blobs/{}", blob.digest);
            script.first(Rule::on(method, &path).reply(Reply::content(blob)));
        }
    }
    for reference in [tag, &image.manifest.digest.to_string()] {
        answers(script, name, reference, &Reply::content(&image.manifest));
    }
}

fn answers(script: &Script, name: &str, reference: &str, reply: &Reply) {
    for method in ["GET", "HEAD"] {
        let path = format!("/v2/{name}/manifests/{reference}");
        script.first(Rule::on(method, &path).reply(reply.clone()));
    }
}

/// An upstream with four images of some 10 000 bytes under the tags v0 to v3 of `app`.
async fn four() -> (Script, Vec<Image>) {
    let script = Script::start(vec![Rule::no_hub()]).await;
    let images: Vec<Image> = (0..4).map(|seed| image(seed, 10_000)).collect();
    for (n, image) in images.iter().enumerate() {
        has(&script, "app", &format!("v{n}"), image);
    }
    (script, images)
}

async fn pull_all(site: &Site, images: &[Image]) {
    for (n, image) in images.iter().enumerate() {
        site.pull("app", &format!("v{n}"), image).await;
    }
}

#[tokio::test]
async fn the_least_recently_used_goes_and_comes_again_when_it_is_asked_for() {
    let (script, images) = four().await;
    let site = Site::new(&script, room_for_two(&images)).await;
    pull_all(&site, &images[..2]).await;
    assert_eq!(site.make_room().await.images, 0, "there is room");
    pull_all(&site, &images[..1]).await;
    site.pull("app", "v2", &images[2]).await;
    let recent = site.registry.evict(SystemTime::now()).await.unwrap();
    assert_eq!(recent.images, 0, "all of it was used a moment ago");
    assert!(recent.missing > 0);
    let evicted = site.make_room().await;
    assert_eq!((evicted.images, evicted.tags, evicted.missing), (1, 1, 0));
    assert_eq!(evicted.bytes, size(&images[1]));
    assert!(!site.has("app", &images[1]).await);
    assert!(site.has("app", &images[0]).await && site.has("app", &images[2]).await);

    site.pull("app", "v1", &images[1]).await;
    site.make_room().await;
    assert!(!site.has("app", &images[0]).await && site.has("app", &images[1]).await);
    site.clean().await;
}

#[tokio::test]
async fn what_is_pinned_and_what_was_pushed_stays() {
    let (script, images) = four().await;
    let site = Site::with(&script, |options| {
        options.space.cached = Some(1);
        options.space.pins = vec![format!("{HOST}/app:v0").parse().unwrap(), "*/other".parse().unwrap()];
    })
    .await;
    let own: RepositoryName = "own".parse().unwrap();
    for blob in images[3].blobs() {
        let mut staging = site.store.blobs().stage(deltaport_oci::Algorithm::Sha256).await.unwrap();
        staging.write(blob.bytes.clone()).await.unwrap();
        site.store.commit(staging, &blob.digest, &own).await.unwrap();
    }
    let manifest = NewManifest {
        reference: "v1".parse().unwrap(),
        tags: Vec::new(),
        media_type: images[3].manifest.media_type.clone(),
        bytes: images[3].manifest.bytes.clone(),
    };
    site.registry.put_manifest(&own, manifest).await.unwrap();
    pull_all(&site, &images).await;
    let evicted = site.make_room().await;
    assert_eq!((evicted.images, evicted.pinned), (3, 1), "{evicted:?}");
    assert!(evicted.missing > 0 && evicted.cached > 0, "{evicted:?}");
    assert!(site.has("app", &images[0]).await);
    assert!(site.registry.manifest(&own, &"v1".parse().unwrap()).await.is_ok());
    for blob in images[3].blobs() {
        assert_eq!(read(site.registry.blob(&own, &blob.digest).await.unwrap()).await, blob.bytes);
    }
    site.clean().await;
}

#[tokio::test]
async fn a_tag_whose_upstream_is_gone_stays() {
    let (script, images) = four().await;
    let site = Site::new(&script, 1).await;
    pull_all(&site, &images).await;
    // One tag is gone, one is there but its manifest is not, and with the third the upstream falls silent.
    answers(&script, "app", "v0", &Reply::status(404));
    answers(&script, "app", &images[1].manifest.digest.to_string(), &Reply::status(404));
    answers(&script, "app", "v2", &Reply::status(503));
    let evicted = site.make_room().await;
    assert_eq!((evicted.images, evicted.irreplaceable, evicted.busy), (0, 2, 2), "{evicted:?}");
    for (n, image) in images.iter().enumerate().take(3) {
        assert!(site.has("app", image).await, "{n}");
    }
    let asked = script.lines().len();
    let again = site.make_room().await;
    assert_eq!((again.images, again.irreplaceable), (0, 2));
    assert!(script.lines().len() <= asked + 1, "it is left alone: {:?}", script.lines());
    // Everything that is not there any more can still be pulled here.
    for (n, image) in images.iter().enumerate() {
        let reference = Reference::Digest(image.manifest.digest);
        assert!(site.registry.manifest(&repository("app"), &reference).await.is_ok(), "{n}");
    }
    site.clean().await;
}

#[tokio::test]
async fn while_the_upstream_cannot_be_reached_nothing_goes() {
    let (script, images) = four().await;
    let site = Site::new(&script, 1).await;
    pull_all(&site, &images).await;
    drop(script);
    let evicted = site.make_room().await;
    assert_eq!((evicted.images, evicted.busy), (0, 4), "{evicted:?}");
    for (n, image) in images.iter().enumerate() {
        site.pull("app", &format!("v{n}"), image).await;
    }
}

#[tokio::test]
async fn a_tag_that_never_moves_goes_only_if_it_comes_again_as_it_was() {
    let (script, images) = four().await;
    let site = Site::with(&script, |options| {
        options.space.cached = Some(1);
        options.upstreams[0].policy.rules =
            vec![TagRule { tags: vec!["v0".parse().unwrap()], lifetime: Lifetime::Immutable }];
    })
    .await;
    pull_all(&site, &images[..2]).await;
    has(&script, "app", "v0", &images[3]);
    has(&script, "app", "v1", &images[3]);
    let evicted = site.make_room().await;
    assert_eq!((evicted.images, evicted.irreplaceable), (1, 1), "{evicted:?}");
    site.pull("app", "v0", &images[0]).await;
    site.pull("app", "v1", &images[3]).await;
}

#[tokio::test]
async fn an_index_goes_whole_unless_only_an_operator_could_bring_it_again() {
    let images = [image(1, 4000), Image::of("arm64", vec![layer(7, 4000)])];
    let platform = |image: &Image, architecture: &str| {
        let mut child = image.manifest.descriptor();
        child["platform"] = json!({ "os": "linux", "architecture": architecture });
        child
    };
    let children = [platform(&images[0], "amd64"), platform(&images[1], "arm64")];
    let index = sample::index(&[], json!({ "manifests": children }));
    let script = Script::start(vec![Rule::no_hub()]).await;
    for image in &images {
        has(&script, "app", "none", image);
    }
    for reference in ["v1", &index.digest.to_string()] {
        answers(&script, "app", reference, &Reply::content(&index));
    }
    for (completed, goes) in [(false, 1), (true, 0)] {
        let site = Site::with(&script, |options| {
            options.space.cached = Some(1);
            options.upstreams[0].platforms = Filter::new(vec!["linux/amd64".parse().unwrap()]);
        })
        .await;
        let (app, tag): (_, Reference) = (repository("app"), "v1".parse().unwrap());
        assert_eq!(site.registry.manifest(&app, &tag).await.unwrap().digest, index.digest);
        site.pull("app", &images[0].manifest.digest.to_string(), &images[0]).await;
        if completed {
            let filter = Filter::new(vec!["linux/arm64".parse().unwrap()]);
            site.registry.complete(&app, &tag, &filter).await.unwrap();
            let image = async || site.registry.image(&app, &tag).await.unwrap();
            while !image().await.is_complete() {
                site.registry.complete(&app, &tag, &filter).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let evicted = site.make_room().await;
        assert_eq!((evicted.images, evicted.irreplaceable), (goes, 1 - goes), "{evicted:?}");
        assert_eq!(site.has("app", &images[0]).await, completed);
        site.clean().await;
    }
}

#[tokio::test]
async fn what_is_being_fetched_stays() {
    let (script, images) = four().await;
    let gate = Gate::new();
    let slow = &images[0].layers[0];
    let path = format!("/v2/app/blobs/{}", slow.digest);
    script.first(Rule::on("GET", &path).reply(Reply::content(slow).held_after(100, &gate)));
    let site = Site::new(&script, 1).await;
    let app = repository("app");
    site.registry.manifest(&app, &"v0".parse().unwrap()).await.unwrap();
    let body = site.registry.blob(&app, &slow.digest).await.unwrap();
    let evicted = site.registry.evict(later()).await.unwrap();
    assert_eq!((evicted.images, evicted.busy), (0, 1), "{evicted:?}");
    gate.open();
    assert_eq!(read(body).await, slow.bytes);
    eventually(async || site.store.names().blob(&app, &slow.digest).await.unwrap().is_some()).await;
    eventually(async || site.registry.evict(later()).await.unwrap().images == 1).await;
}

async fn eventually(holds: impl AsyncFn() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to it");
}

#[tokio::test]
async fn a_disk_that_is_too_full_counts_as_too_much() {
    let (script, images) = four().await;
    let site = Site::with(&script, |options| options.space.free = 1 << 60).await;
    pull_all(&site, &images).await;
    let evicted = site.make_room().await;
    assert_eq!((evicted.images, evicted.cached), (4, 0), "{evicted:?}");
    let site = Site::with(&script, |options| options.space.free = 1).await;
    pull_all(&site, &images).await;
    assert_eq!(site.make_room().await.images, 0);
}

#[tokio::test]
async fn uses_are_written_down_when_the_server_stops_and_too_much_is_noticed_as_it_arrives() {
    let (script, images) = four().await;
    let site = Site::new(&script, room_for_two(&images)).await;
    let stop = CancellationToken::new();
    let collector = tokio::spawn({
        let (registry, stop) = (site.registry.clone(), stop.clone());
        async move { registry.collect(stop).await }
    });
    pull_all(&site, &images[..2]).await;
    pull_all(&site, &images[..1]).await;
    assert_eq!(runs(&site), 0, "there is room, and the interval is long");
    site.pull("app", "v2", &images[2]).await;
    eventually(async || runs(&site) == 1).await;
    stop.cancel();
    collector.await.unwrap();
    let oldest = site.store.names().oldest_cached(later(), None, 9).await.unwrap();
    let order: Vec<Digest> = oldest.iter().map(|cached| cached.digest).collect();
    assert_eq!(order, [1, 0, 2].map(|n: usize| images[n].manifest.digest));
}

/// How often the collector ran.
fn runs(site: &Site) -> u64 {
    let mut prometheus = prometheus_client::registry::Registry::default();
    site.registry.metrics().register(&mut prometheus);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &prometheus).unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix("collector_runs_total "));
    count.unwrap().parse().unwrap()
}

/// Images of three repositories, of which some share layers.
struct Many {
    images: Vec<(String, String, Image)>,
}

impl Many {
    fn new(random: &mut Random) -> Self {
        let shared: Vec<Content> = (0..4).map(|n| layer(500 + n, 3000)).collect();
        let images = (0..24_u64).map(|n| {
            let mut layers = vec![layer(600 + n, 500 + usize::try_from(random.below(12_000)).unwrap())];
            if random.below(2) == 0 {
                layers.push(shared[usize::try_from(random.below(4)).unwrap()].clone());
            }
            (format!("app{}", n % 3), format!("v{n}"), Image::of("amd64", layers))
        });
        Self { images: images.collect() }
    }

    async fn upstream(&self) -> Script {
        let script = Script::start(vec![Rule::no_hub()]).await;
        for (name, tag, image) in &self.images {
            has(&script, name, tag, image);
        }
        script
    }

    fn any(&self, random: &mut Random) -> &(String, String, Image) {
        // Some are wanted more often than others.
        let most = random.below(self.images.len() as u64) + 1;
        &self.images[usize::try_from(random.below(most)).unwrap()]
    }
}

/// `DELTAPORT_SPACE_SEED` replays one seed.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("DELTAPORT_SPACE_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0x5eed..0x5eed + count).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cap_holds_whatever_is_pulled() {
    for seed in seeds(4) {
        let mut random = Random::new(seed);
        let many = Many::new(&mut random);
        let script = many.upstream().await;
        let cap = many.images.iter().map(|(.., image)| size(image)).sum::<u64>() / 5;
        let site = Site::new(&script, cap).await;
        let mut images = 0;
        for _ in 0..12 {
            for _ in 0..=random.below(6) {
                let (name, tag, image) = many.any(&mut random);
                site.pull(name, tag, image).await;
            }
            let evicted = site.make_room().await;
            images += evicted.images;
            assert!(evicted.cached <= cap && evicted.missing == 0, "seed {seed}: {evicted:?}");
            let usage =
                deltaport_store::usage(site.home.path(), &ByteStore::Directory, &NamesOptions::Directory)
                    .unwrap();
            assert!(usage.blobs <= cap, "seed {seed}: {usage:?}");
            assert_eq!(usage.cached, usage.blobs, "seed {seed}");
        }
        assert!(images > 10, "seed {seed}: {images}");
        site.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pulls_evictions_and_the_collector_do_each_other_no_harm() {
    for seed in seeds(2) {
        let many = Arc::new(Many::new(&mut Random::new(seed)));
        let script = many.upstream().await;
        let site = Site::with(&script, |options| {
            options.space.cached = Some(30_000);
            options.fill.ahead = true;
        })
        .await;
        let over = Arc::new(AtomicBool::new(false));
        let makers = [false, true].map(|collects| {
            let (registry, store, over) = (site.registry.clone(), site.store.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut images = 0;
                while !over.load(Ordering::Relaxed) {
                    // Nothing is spared for having been used just now.
                    images += registry.evict(later()).await.unwrap().images;
                    if collects {
                        store.collect(later()).await.unwrap();
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                images
            })
        });
        let pullers = (0..6).map(|n| {
            let (registry, many) = (site.registry.clone(), Arc::clone(&many));
            tokio::spawn(async move {
                let mut random = Random::new(seed ^ (n << 32));
                for _ in 0..25 {
                    let (name, tag, image) = many.any(&mut random);
                    let manifest = registry.manifest(&repository(name), &tag.parse().unwrap()).await.unwrap();
                    registry.fetch_ahead(&repository(name), &manifest.manifest);
                    pull(&registry, name, tag, image).await;
                }
            })
        });
        for puller in pullers.collect::<Vec<_>>() {
            puller.await.unwrap();
        }
        over.store(true, Ordering::Relaxed);
        let mut evicted = 0;
        for maker in makers {
            evicted += maker.await.unwrap();
        }
        assert!(evicted > 10, "seed {seed}: {evicted}");
        site.clean().await;
    }
}

#[tokio::test]
async fn what_a_mirror_rule_wants_here_stays() {
    let (script, images) = four().await;
    for image in &images {
        nothing_is_said_about(&script, "app", image);
    }
    let tags =
        Selection { patterns: vec!["v0".parse().unwrap(), "v1".parse().unwrap()], ..Selection::default() };
    let name = "app".parse().unwrap();
    let rule = mirror::Rule::new("all", HOST, mirror::Repositories::One(name), tags);
    let site = Site::with(&script, |options| {
        options.space.cached = Some(1);
        options.mirrors = vec![rule];
    })
    .await;
    let repository = repository("app");
    let run = site.registry.mirror(&repository, "all", mirror::Request::Run, None, Duration::from_secs(60));
    let report = run.await.unwrap();
    assert!(report.is_good(), "{report:#?}");
    pull_all(&site, &images).await;
    let evicted = site.make_room().await;
    assert_eq!((evicted.images, evicted.pinned), (2, 2), "{evicted:?}");
    for (image, here) in images.iter().zip([true, true, false, false]) {
        assert_eq!(site.has("app", image).await, here);
    }
    site.clean().await;
}

/// There is nothing about an image at the upstream, neither under a tag nor in the list of referrers.
fn nothing_is_said_about(script: &Script, name: &str, image: &Image) {
    let digest = image.manifest.digest.to_string();
    for ending in [".sig", ".att", ".sbom", ""] {
        let tag = format!("{}{ending}", digest.replace(':', "-"));
        answers(script, name, &tag, &Reply::status(404));
    }
    let path = format!("/v2/{name}/referrers/{digest}");
    let none = sample::index(&[], json!({}));
    script.first(Rule::on("GET", &path).reply(Reply::content(&none)));
}
