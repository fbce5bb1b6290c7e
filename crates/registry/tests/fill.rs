//! Filling from a scripted upstream: once, whole, only what is right, and from nowhere else.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::io::Cursor;
use std::time::Duration;

use deltaport_client as client;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_registry::pull::Body;
use deltaport_registry::{Deltas, Error, Kind, NewManifest, Options, Registry, Upstream};
use deltaport_store::{Faults, Store};
use deltaport_testkit::sample::{self, Content, Image, bytes, layer};
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};
use deltaport_trust::{Access, Caller, Rules};
use futures_util::StreamExt as _;
use tempfile::TempDir;

const HOST: &str = "registry.example";

struct Site {
    registry: Registry,
    upstream: client::Upstream,
    _home: TempDir,
}

impl Site {
    async fn new(script: &Script) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(deltaport_store::Options {
            root: home.path().to_owned(),
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
        let mut options = client::Options::new(HOST, script.url());
        options.timeouts = client::Timeouts {
            connect: Duration::from_secs(2),
            header: Duration::from_secs(2),
            stall: Duration::from_millis(300),
        };
        let upstream = client::Upstream::new(&options).unwrap();
        let mut options = Options::default();
        options.fill.patience = Duration::from_secs(3);
        options.fill.delta_wait = Duration::from_secs(3);
        let mut remote = Upstream::new(upstream.clone());
        // What the upstream says is about to change in these tests.
        remote.policy.negative_age = Duration::ZERO;
        // On loopback no delta is ever sooner.
        remote.deltas = Deltas::Always;
        options.upstreams = vec![remote];
        let registry = Registry::new(options, store, Rules::new(Access::default()).unwrap());
        Self { registry, upstream, _home: home }
    }

    async fn blob(&self, name: &str, digest: &Digest) -> Result<(Vec<u8>, std::io::Result<()>), Error> {
        Ok(read(self.registry.blob(&repository(name), digest).await?, 0).await)
    }

    async fn is_filled(&self, name: &str, content: &Content) -> bool {
        matches!(self.registry.blob(&repository(name), &content.digest).await, Ok(Body::Stored(_)))
    }
}

async fn read(body: Body, start: u64) -> (Vec<u8>, std::io::Result<()>) {
    let mut stream = body.read(ByteRange { start, end: body.size() });
    let mut received = Vec::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => received.extend_from_slice(&chunk),
            Err(error) => return (received, Err(error)),
        }
    }
    (received, Ok(()))
}

fn repository(name: &str) -> RepositoryName {
    format!("{HOST}/{name}").parse().unwrap()
}

fn blob_rule(content: &Content) -> Rule {
    Rule::on("GET", &format!("/v2/app/blobs/{}", content.digest))
}

fn manifest_rules(image: &Image, tag: &str) -> Vec<Rule> {
    let (by_tag, by_digest) =
        (format!("/v2/app/manifests/{tag}"), format!("/v2/app/manifests/{}", image.manifest.digest));
    vec![
        Rule::on("HEAD", &by_tag).reply(Reply::content(&image.manifest)),
        Rule::on("GET", &by_tag).reply(Reply::content(&image.manifest)),
        Rule::on("GET", &by_digest).reply(Reply::content(&image.manifest)),
    ]
}

fn some(size: usize) -> Content {
    Content::new("application/octet-stream", bytes(7, size))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_clients_cost_one_transfer_and_all_read_along() {
    let content = some(2 << 20);
    let script = Script::start(vec![
        blob_rule(&content).reply(Reply::content(&content).slowly(Duration::from_millis(2))),
    ])
    .await;
    let site = Site::new(&script).await;
    let clients = (0..20).map(|n| {
        let (registry, digest) = (site.registry.clone(), content.digest);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5 * n)).await;
            let start = n * 50_000;
            (start, read(registry.blob(&repository("app"), &digest).await.unwrap(), start).await)
        })
    });
    for client in clients.collect::<Vec<_>>() {
        let (start, (received, end)) = client.await.unwrap();
        end.unwrap();
        assert!(received == content.bytes[usize::try_from(start).unwrap()..], "from {start}");
    }
    assert_eq!(script.lines().len(), 1, "{:?}", script.lines());
    assert_eq!(site.upstream.received(), 2 << 20);
    assert!(site.is_filled("app", &content).await);
}

#[tokio::test]
async fn the_first_bytes_come_before_the_last_have_arrived_and_the_transfer_outlives_its_client() {
    let content = some(1 << 20);
    let script = Script::start(vec![
        blob_rule(&content).reply(Reply::content(&content).slowly(Duration::from_millis(5))),
    ])
    .await;
    let site = Site::new(&script).await;
    let body = site.registry.blob(&repository("app"), &content.digest).await.unwrap();
    assert_eq!(body.size(), 1 << 20);
    let first = body.read(ByteRange { start: 0, end: body.size() }).next().await.unwrap().unwrap();
    assert!(script.sent() < 1 << 20, "{} bytes at once", first.len());
    assert_eq!(first, content.bytes[..first.len()]);
    drop(body);
    while !site.is_filled("app", &content).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(script.lines().len(), 1);
}

#[tokio::test]
async fn a_transfer_goes_on_where_it_broke_off() {
    let content = some(600_000);
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::content(&content).truncated_after(200_000)),
        blob_rule(&content).times(1).reply(Reply::status(503)),
        blob_rule(&content).times(1).reply(Reply::content(&content).stalled_after(100_000)),
        // Cannot resume, and sends everything again.
        blob_rule(&content).times(1).reply(Reply::content(&content).whole().truncated_after(400_000)),
        blob_rule(&content).reply(Reply::content(&content)),
    ])
    .await;
    let site = Site::new(&script).await;
    let (received, end) = site.blob("app", &content.digest).await.unwrap();
    end.unwrap();
    assert!(received == content.bytes);
    let ranges: Vec<_> =
        script.asked().iter().map(|asked| asked.headers.first("range").map(str::to_owned)).collect();
    let range = |from: &str| Some(format!("bytes={from}-"));
    assert_eq!(ranges, [None, range("200000"), range("200000"), range("300000"), range("400000")]);
}

#[tokio::test]
async fn wrong_bytes_reach_nobody_whole_and_are_not_kept() {
    let content = some(500_000);
    let mut wrong = content.bytes.to_vec();
    wrong[400_000] ^= 1;
    let too_long = [&content.bytes[..], b"x"].concat();
    let image = Image::of("amd64", vec![content.clone()]);
    let mut rules = vec![
        blob_rule(&content).times(1).reply(Reply::status(200).body(wrong)),
        // The manifest says how many there are.
        blob_rule(&content).times(1).reply(Reply::status(200).body(too_long)),
        blob_rule(&content).times(1).reply(Reply::status(200).body(content.bytes.slice(..499_999))),
        blob_rule(&content).reply(Reply::content(&content)),
        Rule::on("GET", "/v2/app/_deltaport/delta/layer").reply(Reply::status(404)),
    ];
    rules.extend(manifest_rules(&image, "latest"));
    let script = Script::start(rules).await;
    let site = Site::new(&script).await;
    let (received, end) = site.blob("app", &content.digest).await.unwrap();
    assert!(end.is_err() && received.len() < 500_000, "{} bytes", received.len());
    site.registry.manifest(&repository("app"), &"latest".parse().unwrap()).await.unwrap();
    for _ in 0..2 {
        let refused = site.blob("app", &content.digest).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Upstream, "{refused}");
    }
    let (received, end) = site.blob("app", &content.digest).await.unwrap();
    end.unwrap();
    assert!(received == content.bytes);
}

#[tokio::test]
async fn a_size_does_not_change_in_the_middle() {
    let content = some(500_000);
    let wrong = bytes(9, 500_000);
    let part =
        Reply::status(206).header("Content-Range", "bytes 200000-9999999/10000000").body(bytes(9, 9_800_000));
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::status(200).body(wrong).truncated_after(200_000)),
        blob_rule(&content).reply(part),
    ])
    .await;
    let site = Site::new(&script).await;
    // Were the larger size believed, all that the client waits for would be far from the new end.
    let (received, end) = site.blob("app", &content.digest).await.unwrap();
    assert!(end.is_err() && received.len() < 500_000, "{} bytes", received.len());
}

#[tokio::test]
async fn failures_before_the_first_byte_are_told_at_once() {
    let content = some(10);
    let script = Script::start(vec![]).await;
    let site = Site::new(&script).await;
    for (status, expected) in
        [(404, Kind::NotFound), (403, Kind::NotFound), (401, Kind::NotFound), (500, Kind::Upstream)]
    {
        script.first(blob_rule(&content).reply(Reply::status(status)));
        let refused = site.blob("app", &content.digest).await.unwrap_err();
        assert_eq!(refused.kind(), expected, "{status}: {refused}");
    }
    script.first(blob_rule(&content).reply(Reply::status(429).header("Retry-After", "9")));
    let refused = site.blob("app", &content.digest).await.unwrap_err();
    assert!(matches!(refused, Error::OverQuota { retry_after } if retry_after.as_secs() == 9));
}

#[tokio::test]
async fn a_tag_is_looked_at_once_for_all_and_fetched_when_it_moved() {
    let (old, new) = (Image::small(1), Image::small(2));
    let script = Script::start(manifest_rules(&old, "latest")).await;
    let site = Site::new(&script).await;
    let tag: Reference = "latest".parse().unwrap();
    let name = repository("app");
    let pulls = (0..20).map(|_| {
        let (registry, name, tag) = (site.registry.clone(), name.clone(), tag.clone());
        tokio::spawn(async move { registry.manifest(&name, &tag).await.unwrap() })
    });
    for pull in pulls.collect::<Vec<_>>() {
        let manifest = pull.await.unwrap();
        assert_eq!((manifest.digest, &manifest.bytes), (old.manifest.digest, &old.manifest.bytes));
    }
    let asked = |method: &str| {
        let lines = script.lines();
        lines.iter().filter(|line| line.starts_with(method) && line.contains("/manifests/")).count()
    };
    assert_eq!(asked("GET"), 1, "{:?}", script.lines());

    let by_digest = Reference::Digest(old.manifest.digest);
    let before = asked("");
    site.registry.manifest(&name, &by_digest).await.unwrap();
    assert_eq!(asked(""), before, "what is here by digest needs nobody");

    for rule in manifest_rules(&new, "latest") {
        script.first(rule);
    }
    assert_eq!(site.registry.manifest(&name, &tag).await.unwrap().digest, new.manifest.digest);
    for rule in manifest_rules(&old, "latest") {
        script.first(rule);
    }
    let before = asked("");
    assert_eq!(site.registry.manifest(&name, &tag).await.unwrap().digest, old.manifest.digest);
    assert_eq!(asked(""), before + 1, "moved back to what is here: the digest says enough");
}

#[tokio::test]
async fn a_stored_tag_is_served_whatever_happens_to_the_upstream() {
    let image = Image::small(1);
    let tag: Reference = "latest".parse().unwrap();
    let name = repository("app");
    for reply in [
        Reply::status(500),
        Reply::status(429),
        Reply::status(401),
        Reply::status(403),
        Reply::content(&Content::new("text/html", "<html>")).header("x", "a captive portal"),
        Reply::content(&image.manifest).delayed(Duration::from_secs(60)),
    ] {
        let script = Script::start(manifest_rules(&image, "latest")).await;
        let site = Site::new(&script).await;
        site.registry.manifest(&name, &tag).await.unwrap();
        script.first(Rule::on("HEAD", "/v2/app/manifests/latest").reply(reply.clone()));
        script.first(Rule::on("GET", "/v2/app/manifests/latest").reply(reply.clone()));
        let found =
            site.registry.manifest(&name, &tag).await.unwrap_or_else(|error| panic!("{reply:?}: {error}"));
        assert_eq!(found.digest, image.manifest.digest);
        let unknown = site.registry.manifest(&name, &"other".parse().unwrap()).await.unwrap_err();
        assert!(matches!(unknown.kind(), Kind::Upstream | Kind::OverQuota), "{unknown}");
    }
    let script = Script::start(manifest_rules(&image, "latest")).await;
    let site = Site::new(&script).await;
    site.registry.manifest(&name, &tag).await.unwrap();
    script.first(Rule::on("HEAD", "/v2/app/manifests/latest").reply(Reply::status(404)));
    let gone = site.registry.manifest(&name, &tag).await.unwrap_err();
    assert!(matches!(gone, Error::ManifestUnknown(_)), "an upstream that answers is believed: {gone}");
    drop(script);
    assert!(site.registry.manifest(&name, &tag).await.is_ok());
}

#[tokio::test]
async fn manifests_that_are_none_are_not_kept() {
    let script = Script::start(vec![]).await;
    let site = Site::new(&script).await;
    let tag: Reference = "latest".parse().unwrap();
    let page = Content::new("text/html", "<html>");
    let image = Image::small(3);
    let lying = Content::new(&image.manifest.media_type, "{}");
    for reply in [Reply::content(&page), Reply::content(&lying)] {
        script.first(Rule::on("HEAD", "/v2/app/manifests/latest").reply(reply.clone()));
        script.first(Rule::on("GET", "/v2/app/manifests/latest").reply(reply));
        let refused = site.registry.manifest(&repository("app"), &tag).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Upstream, "{refused}");
    }
    let wanted = Reference::Digest(image.manifest.digest);
    script.first(
        Rule::on("GET", &format!("/v2/app/manifests/{}", image.manifest.digest))
            .reply(Reply::content(&Image::small(4).manifest)),
    );
    let refused = site.registry.manifest(&repository("app"), &wanted).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Upstream, "{refused}");
    assert!(site.registry.tags(&repository("app"), None, None).await.is_err(), "nothing was stored");
}

#[tokio::test]
async fn what_another_repository_holds_needs_the_upstreams_word() {
    let content = some(200_000);
    let head = |name: &str| Rule::on("HEAD", &format!("/v2/{name}/blobs/{}", content.digest));
    let script = Script::start(vec![
        blob_rule(&content).reply(Reply::content(&content)),
        head("friend").reply(Reply::content(&content)),
        head("stranger").reply(Reply::status(404)),
    ])
    .await;
    let site = Site::new(&script).await;
    site.blob("app", &content.digest).await.unwrap().1.unwrap();
    let sent = script.sent();
    assert_eq!(site.blob("stranger", &content.digest).await.unwrap_err().kind(), Kind::NotFound);
    assert!(site.blob("friend", &content.digest).await.unwrap().0 == content.bytes);
    assert_eq!(script.sent(), sent, "its bytes were here");
    assert_eq!(site.registry.blob_size(&repository("app"), &content.digest).await.unwrap(), 200_000);
}

#[tokio::test]
async fn nothing_is_not_taken_for_a_blob() {
    let content = some(100_000);
    let script = Script::start(vec![blob_rule(&content).reply(Reply::status(200))]).await;
    let site = Site::new(&script).await;
    let refused = site.registry.blob(&repository("app"), &content.digest).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Upstream, "{refused}");
    let empty = some(0);
    script.first(blob_rule(&empty).reply(Reply::content(&empty)));
    assert!(matches!(site.blob("app", &empty.digest).await, Ok((bytes, Ok(()))) if bytes.is_empty()));
}

#[tokio::test]
async fn a_blob_does_not_change_its_size_on_the_way() {
    let content = some(600_000);
    let short = content.bytes.slice(..400_000);
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::status(200).body(short).truncated_after(350_000)),
        blob_rule(&content).reply(Reply::content(&content)),
    ])
    .await;
    let site = Site::new(&script).await;
    let (received, end) = site.blob("app", &content.digest).await.unwrap();
    assert!(end.is_err(), "a client that was told of {} bytes got them all", received.len());
}

#[tokio::test]
async fn an_upstream_is_not_asked_for_a_delta_without_a_pause() {
    let (old, new) = (layer(1, 2 << 20), layer(2, 2 << 20));
    let (old, new) = (Image::of("amd64", vec![old]), Image::of("amd64", vec![new]));
    let mut rules = manifest_rules(&old, "one");
    rules.extend(manifest_rules(&new, "two"));
    rules.extend(
        [&old, &new].map(|image| &image.layers[0]).map(|blob| blob_rule(blob).reply(Reply::content(blob))),
    );
    rules.push(
        Rule::on("GET", "/v2/app/_deltaport/delta/layer")
            .reply(Reply::status(202).header("Retry-After", "0")),
    );
    rules.push(Rule::hub());
    let script = Script::start(rules).await;
    let site = Site::new(&script).await;
    for (tag, image) in [("one", &old), ("two", &new)] {
        site.registry.manifest(&repository("app"), &tag.parse().unwrap()).await.unwrap();
        site.blob("app", &image.layers[0].digest).await.unwrap().1.unwrap();
    }
    let asked = script.lines().iter().filter(|line| line.contains("_deltaport")).count();
    assert!((1..20).contains(&asked), "{asked} questions in three seconds");
}

#[tokio::test]
async fn a_size_is_asked_for_without_a_transfer() {
    let content = some(300_000);
    let path = format!("/v2/app/blobs/{}", content.digest);
    let script = Script::start(vec![Rule::on("HEAD", &path).reply(Reply::content(&content))]).await;
    let site = Site::new(&script).await;
    assert_eq!(site.registry.blob_size(&repository("app"), &content.digest).await.unwrap(), 300_000);
    assert_eq!(script.lines(), [format!("HEAD {path}")]);
}

#[tokio::test]
async fn only_what_is_configured_is_ever_asked() {
    let stranger = Script::start(vec![]).await;
    let script = Script::start(manifest_rules(&Image::small(1), "latest")).await;
    let site = Site::new(&script).await;
    let app: RepositoryName = "app".parse().unwrap();
    let located = site.registry.locate(&app, Some(HOST), None).unwrap();
    assert_eq!(
        (located.repository.as_str(), located.namespace.as_deref()),
        ("registry.example/app", Some(HOST))
    );
    assert_eq!(site.registry.locate(&app, None, None).unwrap().repository.as_str(), "app");
    for namespace in
        [stranger.address().to_string(), stranger.url(), "localhost".into(), String::new(), "..".into()]
    {
        let refused = site.registry.locate(&app, Some(&namespace), None).unwrap_err();
        assert_eq!(refused.kind(), Kind::NotFound, "{namespace}");
    }
    let tag: Reference = "latest".parse().unwrap();
    let address = stranger.address().to_string().replace(':', "_");
    for name in ["app".to_owned(), format!("{address}/app"), "other.example/app".to_owned()] {
        let unknown = site.registry.manifest(&name.parse().unwrap(), &tag).await.unwrap_err();
        assert_eq!(unknown.kind(), Kind::NotFound);
    }
    assert!(stranger.lines().is_empty() && script.lines().is_empty());
}

#[tokio::test]
async fn a_mirror_is_not_pushed_to() {
    let script = Script::start(vec![]).await;
    let site = Site::new(&script).await;
    let image = Image::small(1);
    let caller = Caller { local: true, ..Caller::default() };
    let manifest = || NewManifest {
        reference: "latest".parse().unwrap(),
        tags: Vec::new(),
        media_type: image.manifest.media_type.clone(),
        bytes: image.manifest.bytes.clone(),
    };
    let name = repository("app");
    let refused = site.registry.put_manifest(&name, manifest()).await.unwrap_err();
    assert!(matches!(&refused, Error::Mirror { host } if **host == *HOST), "{refused}");
    assert!(site.registry.begin_upload(&caller, &name, None).await.is_err());
    assert!(site.registry.mount(&caller, &name, &image.config.digest, None).await.is_err());
    assert!(site.registry.begin_upload(&caller, &"own".parse().unwrap(), None).await.is_ok());
}

#[tokio::test]
async fn bad_deltas_end_in_the_whole_layer_in_the_same_request() {
    let (old, new) = (layer(1, 2 << 20), layer(2, 2 << 20));
    let (old, new) = (Image::of("amd64", vec![old]), Image::of("amd64", vec![new]));
    let delta = some(50_000);
    let ask = "/v2/app/_deltaport/delta/layer";
    let mut rules = manifest_rules(&old, "one");
    rules.extend(manifest_rules(&new, "two"));
    rules.extend(old.blobs().chain(new.blobs()).map(|blob| blob_rule(blob).reply(Reply::content(blob))));
    rules.push(Rule::hub());
    let script = Script::start(rules).await;
    let location = format!("/v2/app/blobs/{}", delta.digest);
    let found = || Reply::status(307).header("Location", &location);
    for (question, answer) in [
        (found(), Reply::content(&delta)),
        (found(), Reply::status(404)),
        (found(), Reply::content(&delta).truncated_after(100)),
        (found(), Reply::status(200).body(bytes(1, 4 << 20))),
        (Reply::status(307).header("Location", "http://192.0.2.1/"), Reply::status(200)),
        (Reply::status(500), Reply::status(200)),
        (Reply::status(404), Reply::status(200)),
    ] {
        script.first(Rule::on("GET", ask).reply(question.clone()));
        script.first(Rule::on("GET", &location).times(1).reply(answer));
        script.first(Rule::on("GET", &location).reply(Reply::status(404)));
        let site = Site::new(&script).await;
        for (tag, image) in [("one", &old), ("two", &new)] {
            site.registry.manifest(&repository("app"), &tag.parse().unwrap()).await.unwrap();
            let (received, end) = site.blob("app", &image.layers[0].digest).await.unwrap();
            end.unwrap();
            assert!(received == image.layers[0].bytes, "{question:?}");
        }
    }
    let asked = script.lines().iter().filter(|line| line.contains("_deltaport")).count();
    assert_eq!(asked, 7, "once for each, and never without a base");
}

#[tokio::test]
async fn a_delta_brings_the_very_bytes_of_the_layer() {
    let files = sample::files(3, 100, 40_000);
    let (old, new) = (sample::layer_of(&files), sample::layer_of(&sample::changed(&files, 4, 20)));
    let options = deltaport_delta::Options::default();
    let made = deltaport_delta::create(
        &mut [Cursor::new(&old.bytes)],
        &mut Cursor::new(&new.bytes),
        || Ok(Cursor::new(Vec::new())),
        &options,
        |_| (),
    )
    .unwrap();
    let delta = Content::new("application/octet-stream", made.bytes);
    let (old, new) = (Image::of("amd64", vec![old]), Image::of("amd64", vec![new]));
    let ask = "/v2/app/_deltaport/delta/layer";
    let location = format!("/v2/app/blobs/{}", delta.digest);
    let mut rules = manifest_rules(&old, "one");
    rules.extend(manifest_rules(&new, "two"));
    rules.extend(old.blobs().map(|blob| blob_rule(blob).reply(Reply::content(blob))));
    rules.extend([
        Rule::hub(),
        Rule::base(),
        Rule::on("GET", ask).times(2).reply(Reply::status(202).header("Retry-After", "1")),
        Rule::on("GET", ask).reply(Reply::status(307).header("Location", &location)),
        Rule::on("GET", &location).times(1).reply(Reply::content(&delta).truncated_after(1000)),
        Rule::on("GET", &location).reply(Reply::content(&delta)),
    ]);
    let script = Script::start(rules).await;
    let site = Site::new(&script).await;
    for tag in ["one", "two"] {
        site.registry.manifest(&repository("app"), &tag.parse().unwrap()).await.unwrap();
        site.blob("app", &old.layers[0].digest).await.unwrap().1.unwrap();
        // It knows then that it has a hub.
        site.upstream.discover().await.unwrap();
    }
    let before = site.upstream.received();
    let layer = &new.layers[0];
    let clients = (0..5).map(|_| {
        let (registry, digest) = (site.registry.clone(), layer.digest);
        tokio::spawn(async move { read(registry.blob(&repository("app"), &digest).await.unwrap(), 0).await })
    });
    for client in clients.collect::<Vec<_>>() {
        let (received, end) = client.await.unwrap();
        end.unwrap();
        assert!(received == layer.bytes);
    }
    let cost = site.upstream.received() - before;
    assert_eq!(cost, delta.bytes.len() as u64, "the delta, once, and nothing of the layer");
    assert!(cost * 5 < layer.bytes.len() as u64, "{cost} of {}", layer.bytes.len());
    drop(script);
    let kept = async { while site.blob("app", &delta.digest).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(30), kept).await.expect("a delta is not kept");
    assert!(site.is_filled("app", layer).await, "a layer is");
}
