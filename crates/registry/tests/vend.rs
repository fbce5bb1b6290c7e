//! Deltas at a hub: made in the background, once, from what the repository holds, and no others.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::io::Cursor;
use std::time::Duration;

use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Digest, RepositoryName};
use deltaport_registry::vend::DeltaAnswer;
use deltaport_registry::{NewManifest, Options, Registry};
use deltaport_store::{BucketOptions, ByteStore, Credentials, Faults, Store};
use deltaport_testkit::s3::{self, Fault, Kind, Server};
use deltaport_testkit::sample::{self, Content, Image};
use deltaport_trust::{Access, Caller, Rules};
use futures_util::StreamExt as _;
use tempfile::TempDir;

struct Hub {
    registry: Registry,
    store: Store,
    home: TempDir,
}

impl Hub {
    async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap(), |_| ()).await
    }

    /// A hub over what is in a directory, with settings of its own.
    async fn open(home: TempDir, settings: impl Fn(&mut Options)) -> Self {
        Self::over(home, ByteStore::Directory, settings).await
    }

    /// The same with its blobs where `bytes` says.
    async fn over(home: TempDir, bytes: ByteStore, settings: impl Fn(&mut Options)) -> Self {
        let store = Store::open(deltaport_store::Options {
            root: home.path().to_owned(),
            bytes,
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
        let mut options = Options::default();
        options.delta.maximum_layer = 8 << 20;
        settings(&mut options);
        let registry = Registry::new(options, store.clone(), Rules::new(Access::default()).unwrap());
        Self { registry, store, home }
    }

    /// Ends the hub in the middle of whatever it is doing, and begins anew over what it leaves.
    async fn restart(self) -> Self {
        self.store.close().await.unwrap();
        let Self { registry, store, home } = self;
        drop((registry, store));
        Self::open(home, |_| ()).await
    }

    /// How many deltas to `target` are known, without asking for any.
    async fn known(&self, name: &str, bases: &[Content], target: &Content) -> usize {
        let (names, name) = (self.store.names(), repository(name));
        let mut known = 0;
        for base in bases {
            let found = names.layer_delta(&name, &base.digest, &target.digest).await.unwrap();
            known += usize::from(found.is_some());
        }
        known
    }

    async fn push_blob(&self, name: &str, blob: &Content) {
        let (caller, name) = (Caller { local: true, ..Caller::default() }, repository(name));
        let id = self.registry.begin_upload(&caller, &name, None).await.unwrap();
        let mut upload = self.registry.append(&caller, &name, &id, None, None).await.unwrap();
        upload.write(blob.bytes.clone()).await.unwrap();
        upload.finish().await.unwrap();
        self.registry.finish_upload(&caller, &name, &id, &blob.digest).await.unwrap();
    }

    async fn push_manifest(&self, name: &str, tag: &str, manifest: &Content) {
        let manifest = NewManifest {
            reference: tag.parse().unwrap(),
            tags: Vec::new(),
            media_type: manifest.media_type.clone(),
            bytes: manifest.bytes.clone(),
        };
        self.registry.put_manifest(&repository(name), manifest).await.unwrap();
    }

    async fn push(&self, name: &str, tag: &str, image: &Image) {
        for blob in image.blobs() {
            self.push_blob(name, blob).await;
        }
        self.push_manifest(name, tag, &image.manifest).await;
    }

    /// Pushes an image of these layers under a tag of its own.
    async fn push_layers(&self, name: &str, layers: &[&Content]) {
        let image = Image::of("amd64", layers.iter().copied().cloned().collect());
        self.push(name, &image.manifest.digest.hex()[..16], &image).await;
    }

    async fn ask(&self, name: &str, to: &Content, from: &[&Content]) -> DeltaAnswer {
        let from: Vec<Digest> = from.iter().map(|base| base.digest).collect();
        self.registry.layer_delta(&repository(name), &to.digest, &from).await.unwrap()
    }

    /// Asks until the answer is final.
    async fn ask_on(&self, name: &str, to: &Content, from: &[&Content]) -> Option<Digest> {
        loop {
            match self.ask(name, to, from).await {
                DeltaAnswer::Ready { delta, .. } => return Some(delta),
                DeltaAnswer::None => return None,
                DeltaAnswer::Pending(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn blob(&self, name: &str, digest: &Digest) -> Vec<u8> {
        let body = self.registry.blob(&repository(name), digest).await.unwrap();
        let mut stream = body.read(ByteRange { start: 0, end: body.size() });
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        bytes
    }

    /// Fails unless `name` reaches `expected` within two minutes, which a busy machine may need. A delta can be asked for
    /// a moment before it is counted.
    async fn counts(&self, name: &str, expected: u64) {
        for _ in 0..6000 {
            if self.count(name) == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} is {} and not {expected}", self.count(name));
    }

    fn count(&self, name: &str) -> u64 {
        let mut prometheus = prometheus_client::registry::Registry::default();
        self.registry.metrics().register(&mut prometheus);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &prometheus).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}_total ")));
        line.unwrap().parse().unwrap()
    }
}

fn repository(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

/// A layer and its update, in which one file of 20 has changed.
fn pair(seed: u64) -> [Content; 2] {
    let files = sample::files(seed, 60, 10_000);
    [sample::layer_of(&files), sample::layer_of(&sample::changed(&files, seed + 1, 20))]
}

#[tokio::test]
async fn a_delta_is_made_once_while_the_asker_waits() {
    let hub = Hub::new().await;
    let [old, new] = pair(1);
    hub.push_layers("app", &[&old, &new]).await;
    assert!(matches!(hub.ask("app", &new, &[&old]).await, DeltaAnswer::Pending(_)));
    let bases = [&old];
    let (one, two) = tokio::join!(hub.ask_on("app", &new, &bases), hub.ask_on("app", &new, &bases));
    assert!(one.is_some() && one == two);
    hub.counts("deltas_made", 1).await;
    let delta = hub.blob("app", &one.unwrap()).await;
    assert!(delta.len() * 5 < new.bytes.len(), "{} of {}", delta.len(), new.bytes.len());
    let mut made = Vec::new();
    let limits = deltaport_delta::Limits::default();
    let (mut bases, scratch) = ([Cursor::new(&old.bytes)], Cursor::new(Vec::new()));
    deltaport_delta::apply(&mut bases, &delta[..], &mut made, scratch, &limits).unwrap();
    assert!(made == new.bytes);
}

#[tokio::test]
async fn layers_in_a_bucket_are_copied_once_for_all_their_deltas() {
    let server = Server::start();
    let bucket = BucketOptions {
        endpoint: Some(server.endpoint()),
        region: Some(s3::REGION.to_owned()),
        path_style: true,
        credentials: Credentials::Key { id: s3::ACCESS_KEY.to_owned(), secret: s3::SECRET_KEY.to_owned() },
        retries: 1,
        retry_for: Duration::from_secs(1),
        ..BucketOptions::new(server.bucket())
    };
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::over(home, ByteStore::Bucket(Box::new(bucket)), |_| ()).await;
    let files = sample::files(1, 60, 10_000);
    let old = sample::layer_of(&files);
    let [new, other] = [2, 3].map(|seed| sample::layer_of(&sample::changed(&files, seed, 20)));
    hub.push_layers("app", &[&old, &new, &other]).await;

    let before = server.counts();
    let made = hub.ask_on("app", &new, &[&old]).await.unwrap();
    let second = hub.ask_on("app", &other, &[&old]).await.unwrap();
    assert_eq!((server.counts() - before).of(Kind::Get), 3, "each layer once");
    for (delta, target) in [(made, &new), (second, &other)] {
        let delta = hub.blob("app", &delta).await;
        let mut made = Vec::new();
        let limits = deltaport_delta::Limits::default();
        let (mut bases, scratch) = ([Cursor::new(&old.bytes)], Cursor::new(Vec::new()));
        deltaport_delta::apply(&mut bases, &delta[..], &mut made, scratch, &limits).unwrap();
        assert!(made == target.bytes);
    }

    // One that cannot be stored now is no reason to believe that there is none.
    server.breaks(Fault::Status(503), |_| true);
    assert!(matches!(hub.ask("app", &old, &[&new]).await, DeltaAnswer::Pending(_)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.mends();
    assert!(hub.ask_on("app", &old, &[&new]).await.is_some());
}

#[tokio::test]
async fn what_the_repository_does_not_hold_is_unknown() {
    let hub = Hub::new().await;
    let [old, new] = pair(3);
    hub.push_layers("secret", &[&old, &new]).await;
    hub.push_layers("app", &[&new]).await;
    let nowhere = sample::layer(9, 1000);
    assert!(hub.ask_on("secret", &new, &[&old]).await.is_some());
    assert_eq!(hub.ask("app", &new, &[&old]).await, DeltaAnswer::None, "its base is in another repository");
    assert_eq!(hub.ask("app", &old, &[&new]).await, DeltaAnswer::None);
    assert_eq!(hub.ask("app", &nowhere, &[&new]).await, DeltaAnswer::None);
    assert_eq!(hub.ask("app", &new, &[&new, &nowhere]).await, DeltaAnswer::None);
    assert_eq!(hub.ask("app", &new, &[]).await, DeltaAnswer::None);
    hub.push_blob("app", &old).await;
    assert_eq!(hub.ask("app", &new, &[&old]).await, DeltaAnswer::None, "no manifest refers to it");
    assert_eq!(hub.ask("app", &old, &[&new]).await, DeltaAnswer::None);
    hub.push_layers("app", &[&old]).await;
    assert!(hub.ask_on("app", &new, &[&nowhere, &old]).await.is_some());
}

#[tokio::test]
async fn what_is_not_worth_it_is_not_tried_again() {
    let hub = Hub::new().await;
    let [noise, other] = [1, 2].map(|seed| Content::new("x/y", sample::bytes(seed, 100_000)));
    let (small, huge) = (sample::layer(5, 1000), Content::new("x/y", sample::bytes(6, 9 << 20)));
    hub.push_layers("app", &[&noise, &other, &small, &huge]).await;
    assert_eq!(hub.ask_on("app", &noise, &[&other]).await, None);
    assert_eq!(hub.ask("app", &noise, &[&other]).await, DeltaAnswer::None);
    hub.counts("deltas_not_worth_it", 1).await;
    assert_eq!(hub.ask("app", &noise, &[&small]).await, DeltaAnswer::None, "too different in size");
    assert_eq!(hub.ask("app", &huge, &[&huge, &noise]).await, DeltaAnswer::None, "too large");
    hub.counts("deltas_not_worth_it", 1).await;
}

#[tokio::test]
async fn an_existing_delta_is_preferred_to_one_that_has_to_be_made() {
    let hub = Hub::new().await;
    let ([old, new], [other, _]) = (pair(5), pair(7));
    hub.push_layers("app", &[&old, &new, &other]).await;
    let made = hub.ask_on("app", &new, &[&old]).await.unwrap();
    let size = hub.blob("app", &made).await.len() as u64;
    assert_eq!(hub.ask("app", &new, &[&other, &old]).await, DeltaAnswer::Ready { delta: made, size });
}

#[tokio::test]
async fn only_so_many_deltas_to_one_layer_are_kept() {
    let hub = Hub::new().await;
    let files = sample::files(21, 60, 2_000);
    let target = sample::layer_of(&files);
    let bases: Vec<Content> =
        (0..18).map(|n| sample::layer_of(&sample::changed(&files, 30 + n, 12))).collect();
    let mut layers = vec![&target];
    layers.extend(&bases);
    hub.push_layers("app", &layers).await;
    hub.push_layers("other", &layers).await;
    // All at once: what was asked for before there were enough is not made either.
    let answers = futures_util::future::join_all(bases.iter().map(|base| {
        let (hub, target) = (&hub, &target);
        async move { hub.ask_on("app", target, &[base]).await }
    }));
    assert_eq!(answers.await.iter().flatten().count(), 16);
    hub.counts("deltas_made", 16).await;
    assert_eq!(hub.count("deltas_failed"), 0);
    assert!(hub.ask_on("app", &bases[0], &[&target]).await.is_some(), "another target");
    assert!(hub.ask_on("other", &target, &[&bases[17]]).await.is_some(), "another repository");
}

#[tokio::test]
async fn when_a_tag_moves_its_deltas_are_made_ahead() {
    let hub = Hub::new().await;
    let ([old, new], [old_arm, new_arm]) = (pair(11), pair(13));
    let base = sample::layer(15, 20_000);
    let image = |name: &str, layer: &Content| Image::of(name, vec![base.clone(), layer.clone()]);
    hub.push("app", "latest", &image("amd64", &old)).await;
    hub.push("app", "latest", &image("amd64", &new)).await;
    hub.counts("deltas_made", 1).await;
    assert!(matches!(hub.ask("app", &new, &[&old]).await, DeltaAnswer::Ready { .. }));

    // The same through an index, whose children are pushed first.
    let (amd64, arm64) = (image("amd64", &new), image("arm64", &old_arm));
    let updated = image("arm64", &new_arm);
    for image in [&amd64, &arm64, &updated] {
        hub.push("app", &image.manifest.digest.to_string(), image).await;
    }
    hub.push_manifest(
        "app",
        "multi",
        &sample::index(&[&amd64.manifest, &arm64.manifest], serde_json::json!({})),
    )
    .await;
    hub.push_manifest(
        "app",
        "multi",
        &sample::index(&[&amd64.manifest, &updated.manifest], serde_json::json!({})),
    )
    .await;
    hub.counts("deltas_made", 2).await;
    assert!(matches!(hub.ask("app", &new_arm, &[&old_arm]).await, DeltaAnswer::Ready { .. }));
}

/// Layers that are versions of each other: two of 30 files are others than in the one before.
fn versions(seed: u64, count: usize) -> Vec<Content> {
    let (mut files, others) = (sample::files(seed, 30, 1_000), sample::files(seed + 1, 30, 1_000));
    let mut version = |n: usize| {
        let changed = if n == 0 { 0..0 } else { 2 * n..2 * n + 2 };
        files[changed.clone()].clone_from_slice(&others[changed]);
        sample::layer_of(&files)
    };
    (0..count).map(&mut version).collect()
}

#[tokio::test]
async fn deltas_are_made_from_the_last_manifests_of_a_tag() {
    for history in [0_usize, 3] {
        let hub = Hub::open(tempfile::tempdir().unwrap(), |options| options.delta.history = history).await;
        let (kept, versions) = (sample::layer(100, 20_000), versions(41, 5));
        let mut made = 0;
        for (n, version) in versions.iter().enumerate() {
            hub.push("app", "latest", &Image::of("amd64", vec![kept.clone(), version.clone()])).await;
            made += n.min(history) as u64;
            hub.counts("deltas_made", made).await;
        }
        let newest = &versions[4];
        for (age, base) in versions[..4].iter().rev().enumerate() {
            let ready = matches!(hub.ask("app", newest, &[base]).await, DeltaAnswer::Ready { .. });
            assert_eq!(ready, age < history, "{age} of {history}");
        }
    }
}

#[tokio::test]
async fn a_manifest_that_is_gone_leaves_its_place_to_an_older_one() {
    let hub = Hub::open(tempfile::tempdir().unwrap(), |options| options.delta.history = 2).await;
    let versions = versions(61, 4);
    let images: Vec<Image> = versions.iter().map(|layer| Image::of("amd64", vec![layer.clone()])).collect();
    for image in &images[..3] {
        hub.push("app", "latest", image).await;
    }
    hub.counts("deltas_made", 3).await;
    let gone = images[1].manifest.digest.to_string().parse().unwrap();
    hub.registry.delete_manifest(&repository("app"), &gone).await.unwrap();
    hub.push("app", "latest", &images[3]).await;
    hub.counts("deltas_made", 5).await;
    for base in [&versions[0], &versions[2]] {
        assert!(matches!(hub.ask("app", &versions[3], &[base]).await, DeltaAnswer::Ready { .. }));
    }
}

#[tokio::test]
async fn what_was_to_be_made_is_made_after_a_restart() {
    let hub = Hub::new().await;
    let versions = versions(51, 5);
    let (target, bases) = versions.split_last().unwrap();
    hub.push_layers("app", &versions.iter().collect::<Vec<_>>()).await;
    for base in bases {
        assert!(matches!(hub.ask("app", target, &[base]).await, DeltaAnswer::Pending(_)));
    }
    let hub = hub.restart().await;
    let before = hub.known("app", bases, target).await;
    assert!(before < bases.len(), "they are made one after the other");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(hub.known("app", bases, target).await, before, "nothing begins by itself");
    // Nobody asks again.
    hub.registry.resume();
    while hub.known("app", bases, target).await < bases.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(hub.count("deltas_failed"), 0);
    let hub = hub.restart().await;
    hub.registry.resume();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(hub.count("deltas_made"), 0, "nothing is left to do");
}
