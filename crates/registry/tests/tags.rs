//! Which upstream a repository stands for, and how long what an upstream says about a tag is believed.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::path::Path;
use std::time::{Duration, Instant};

use deltaport_client as client;
use deltaport_oci::{Reference, RepositoryName};
use deltaport_registry::upstream::{Lifetime, Stale, TagPolicy, TagRule};
use deltaport_registry::{Error, Kind, Options, Pulled, Registry, Result, Upstream};
use deltaport_store::{Faults, Store};
use deltaport_testkit::sample::{Content, Image};
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};
use deltaport_trust::{Access, Rules};
use prometheus_client::registry::Registry as Prometheus;
use tempfile::TempDir;

const HOST: &str = "registry.example";

/// An upstream of this name at that address that is given up soon.
fn upstream(host: &str, url: &str, policy: TagPolicy) -> Upstream {
    let mut options = client::Options::new(host, url);
    options.timeouts = client::Timeouts {
        connect: Duration::from_secs(2),
        header: Duration::from_secs(20),
        stall: Duration::from_secs(2),
    };
    Upstream { policy, ..Upstream::new(client::Upstream::new(&options).unwrap()) }
}

async fn registry(root: &Path, upstreams: Vec<Upstream>) -> Registry {
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
    let options = Options { upstreams, ..Options::default() };
    Registry::new(options, store, Rules::new(Access::default()).unwrap())
}

/// A site with one upstream.
struct Site {
    registry: Registry,
    home: TempDir,
}

impl Site {
    async fn new(script: &Script, policy: TagPolicy) -> Self {
        let home = tempfile::tempdir().unwrap();
        let registry = registry(home.path(), vec![upstream(HOST, &script.url(), policy)]).await;
        Self { registry, home }
    }

    async fn pull(&self, reference: &str) -> Result<Pulled> {
        self.registry.manifest(&app(), &reference.parse().unwrap()).await
    }

    /// Pulls a tag, which must be `image`; returns whether it is stale.
    async fn gets(&self, reference: &str, image: &Image) -> bool {
        let pulled = self.pull(reference).await.unwrap();
        assert_eq!((pulled.digest, &pulled.bytes), (image.manifest.digest, &image.manifest.bytes));
        pulled.stale
    }

    async fn blob(&self, content: &Content) -> Result<u64> {
        Ok(self.registry.blob(&app(), &content.digest).await?.size())
    }

    /// What a counter of the upstream says.
    fn counts(&self, name: &str) -> u64 {
        let mut prometheus = Prometheus::default();
        self.registry.metrics().register(&mut prometheus);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &prometheus).unwrap();
        let line = format!("{name}_total{{upstream=\"{HOST}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }
}

fn app() -> RepositoryName {
    format!("{HOST}/app").parse().unwrap()
}

/// The upstream has `image` under this tag, with all its blobs.
fn has(script: &Script, tag: &str, image: &Image) {
    for blob in image.blobs() {
        let path = format!("/v2/app/blobs/{}", blob.digest);
        script.first(Rule::on("GET", &path).reply(Reply::content(blob)));
        script.first(Rule::on("HEAD", &path).reply(Reply::content(blob)));
    }
    let by_digest = image.manifest.digest.to_string();
    for (method, reference) in [("HEAD", tag), ("GET", tag), ("GET", &by_digest)] {
        answers(script, method, reference, Reply::content(&image.manifest));
    }
}

fn answers(script: &Script, method: &str, reference: &str, reply: Reply) {
    script.first(Rule::on(method, &format!("/v2/app/manifests/{reference}")).reply(reply));
}

/// How many requests of a method there were for a tag.
fn asked(script: &Script, method: &str, tag: &str) -> usize {
    let line = format!("{method} /v2/app/manifests/{tag}");
    script.lines().iter().filter(|asked| **asked == line).count()
}

/// How many requests there were, but for the question what the upstream offers, which is asked meanwhile.
fn all_asked(script: &Script) -> usize {
    script.lines().iter().filter(|line| !line.ends_with("/_oci/ext/discover")).count()
}

async fn scripted(tag: &str, image: &Image) -> Script {
    let script = Script::start(vec![]).await;
    has(&script, tag, image);
    script
}

fn policy(max_age: Duration) -> TagPolicy {
    TagPolicy { max_age, ..TagPolicy::DEFAULT }
}

fn rule(tags: &[&str], lifetime: Lifetime) -> TagRule {
    TagRule { tags: tags.iter().map(|text| text.parse().unwrap()).collect(), lifetime }
}

const NOW: Duration = Duration::ZERO;
const SHORTLY: Duration = Duration::from_millis(300);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn four_ways_lead_to_one_repository() {
    let home = tempfile::tempdir().unwrap();
    let mut docker = upstream("docker.io", "http://127.0.0.1:1", TagPolicy::DEFAULT);
    docker.hosts = vec!["docker.mirror.example".to_owned()];
    docker.repositories = vec!["library/**".parse().unwrap()];
    let mut hub = upstream("hub.example:5000", "http://127.0.0.1:1", TagPolicy::DEFAULT);
    hub.default = true;
    hub.repositories = vec!["team/**".parse().unwrap()];
    let registry = registry(home.path(), vec![docker, hub]).await;
    let locate = |name: &str, namespace: Option<&str>, host: Option<&str>| {
        let name: RepositoryName = name.parse().unwrap();
        let located = registry.locate(&name, namespace, host).ok()?;
        Some((located.repository.to_string(), located.namespace.map(|text| text.to_string())))
    };
    let here = |name: &str| Some((name.to_owned(), None));
    let debian = "docker.io/library/debian";
    for name in ["docker.io/library/debian", "docker.io/debian", "index.docker.io/debian"] {
        assert_eq!(locate(name, None, None), here(debian), "{name}");
        assert_eq!(locate(name, None, Some("site.example")), here(debian), "{name}");
    }
    for namespace in ["docker.io", "registry-1.docker.io"] {
        for (name, host) in [("debian", None), ("library/debian", Some("docker.mirror.example"))] {
            let expected = Some((debian.to_owned(), Some(namespace.to_owned())));
            assert_eq!(locate(name, Some(namespace), host), expected, "{namespace} {name}");
        }
    }
    for name in ["debian", "library/debian"] {
        assert_eq!(locate(name, None, Some("Docker.Mirror.Example")), here(debian), "{name}");
    }
    // The default upstream's are under their plain names, whichever way they are asked for.
    assert_eq!(locate("team/app", None, None), here("team/app"));
    assert_eq!(locate("hub.example_5000/team/app", None, None), here("team/app"));
    let namespace = Some("hub.example:5000".to_owned());
    assert_eq!(locate("team/app", Some("hub.example:5000"), None), Some(("team/app".into(), namespace)));

    for (name, namespace, host) in [
        ("docker.io/grafana/grafana", None, None),
        ("grafana/grafana", Some("docker.io"), None),
        ("grafana/grafana", None, Some("docker.mirror.example")),
        ("own", Some("hub.example:5000"), None),
        ("debian", Some("quay.io"), None),
        ("debian", Some(""), None),
        ("debian", Some("127.0.0.1:1"), None),
    ] {
        assert_eq!(locate(name, namespace, host), None, "{name} {namespace:?} {host:?}");
    }
    assert_eq!(locate("own", None, None), here("own"), "what no upstream has is ours");
    assert_eq!(locate("quay.io/debian", None, Some("quay.io")), here("quay.io/debian"));
}

#[tokio::test]
async fn each_time_a_tag_is_looked_at_and_fetched_only_when_it_moved() {
    let (old, new) = (Image::small(1), Image::small(2));
    let script = scripted("latest", &old).await;
    let site = Site::new(&script, policy(NOW)).await;
    for _ in 0..5 {
        assert!(!site.gets("latest", &old).await);
    }
    assert_eq!((asked(&script, "HEAD", "latest"), asked(&script, "GET", "latest")), (5, 1));
    has(&script, "latest", &new);
    assert!(!site.gets("latest", &new).await);
    assert_eq!(asked(&script, "GET", "latest"), 2);
}

#[tokio::test]
async fn within_its_age_a_tag_costs_nothing() {
    let (old, new) = (Image::small(1), Image::small(2));
    let script = scripted("latest", &old).await;
    let site = Site::new(&script, policy(SHORTLY)).await;
    let begun = Instant::now();
    site.gets("latest", &old).await;
    has(&script, "latest", &new);
    let requests = all_asked(&script);
    assert!(!site.gets("latest", &old).await, "fresh enough is not stale");
    if begun.elapsed() < SHORTLY {
        assert_eq!(all_asked(&script), requests);
    }
    tokio::time::sleep(SHORTLY).await;
    site.gets("latest", &new).await;
}

#[tokio::test]
async fn rules_for_tags_make_some_immutable() {
    let (old, new) = (Image::small(1), Image::small(2));
    let script = scripted("v1", &old).await;
    has(&script, "v2-rc1", &old);
    has(&script, "edge", &old);
    let rules = vec![rule(&["*-rc*"], Lifetime::MaxAge(HOUR)), rule(&["v*"], Lifetime::Immutable)];
    let site = Site::new(&script, TagPolicy { rules: rules.clone(), ..TagPolicy::DEFAULT }).await;
    for tag in ["v1", "v2-rc1", "edge"] {
        site.gets(tag, &old).await;
        has(&script, tag, &new);
    }
    let requests = all_asked(&script);
    site.gets("v1", &old).await;
    site.gets("v2-rc1", &old).await;
    assert_eq!(all_asked(&script), requests);
    site.gets("edge", &new).await;

    // What is immutable is so across restarts; what was fresh is looked at again.
    let Site { registry: stopped, home } = site;
    drop(stopped);
    let policy = TagPolicy { rules, ..TagPolicy::DEFAULT };
    let site =
        Site { registry: registry(home.path(), vec![upstream(HOST, &script.url(), policy)]).await, home };
    let requests = all_asked(&script);
    site.gets("v1", &old).await;
    assert_eq!(all_asked(&script), requests);
    site.gets("v2-rc1", &new).await;
    assert!(site.home.path().exists());
}

#[tokio::test]
async fn an_upstream_that_is_gone_takes_nothing_away() {
    let (image, other) = (Image::small(1), Image::small(2));
    let script = scripted("latest", &image).await;
    let site = Site::new(&script, policy(NOW)).await;
    site.gets("latest", &image).await;
    for blob in image.blobs() {
        while !matches!(
            site.registry.blob(&app(), &blob.digest).await,
            Ok(deltaport_registry::pull::Body::Stored(_))
        ) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    drop(script);
    for round in 0..3 {
        let begun = Instant::now();
        assert!(site.gets("latest", &image).await, "nobody knows whether it moved");
        assert!(!site.gets(&image.manifest.digest.to_string(), &image).await, "a digest cannot move");
        for blob in image.blobs() {
            assert_eq!(site.blob(blob).await.unwrap(), blob.bytes.len() as u64);
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "round {round} took {:?}", begun.elapsed());
    }
    assert_eq!(site.counts("upstream_stale_answers"), 3);
    let size =
        image.manifest.bytes.len() as u64 + image.blobs().map(|blob| blob.bytes.len() as u64).sum::<u64>();
    assert!(site.counts("upstream_cache_saved_bytes") >= 3 * size);
    let missing = site.pull(&other.manifest.digest.to_string()).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::Upstream, "{missing}");
}

#[tokio::test]
async fn stale_has_an_end_where_one_is_set() {
    let image = Image::small(1);
    for reply in [Reply::status(503), Reply::status(403)] {
        let script = scripted("latest", &image).await;
        let limited = TagPolicy { stale: Stale::For(SHORTLY), negative_age: NOW, ..TagPolicy::DEFAULT };
        let site = Site::new(&script, limited).await;
        let begun = Instant::now();
        site.gets("latest", &image).await;
        answers(&script, "HEAD", "latest", reply.clone());
        match site.pull("latest").await {
            Ok(pulled) => assert!(pulled.stale),
            Err(error) => assert!(begun.elapsed() >= SHORTLY, "{error}"),
        }
        tokio::time::sleep(SHORTLY).await;
        let refused = site.pull("latest").await.unwrap_err();
        assert!(matches!(refused.kind(), Kind::Upstream | Kind::NotFound), "{refused}");
        answers(&script, "HEAD", "latest", Reply::content(&image.manifest));
        assert!(!site.gets("latest", &image).await, "nothing keeps it from asking");
    }
}

#[tokio::test]
async fn what_is_refused_or_gone_is_asked_for_once_in_a_while() {
    let image = Image::small(1);
    let blob = &image.layers[0];
    let path = format!("/v2/app/blobs/{}", blob.digest);
    for status in [404, 403, 401] {
        let script = Script::start(vec![]).await;
        for method in ["HEAD", "GET"] {
            answers(&script, method, "latest", Reply::status(status));
            script.first(Rule::on(method, &path).reply(Reply::status(status)));
        }
        let site = Site::new(&script, TagPolicy { negative_age: SHORTLY, ..TagPolicy::DEFAULT }).await;
        let begun = Instant::now();
        for _ in 0..10 {
            assert!(matches!(site.pull("latest").await, Err(Error::ManifestUnknown(_))), "{status}");
            assert!(matches!(site.blob(blob).await, Err(Error::BlobUnknown(_))), "{status}");
            let size = site.registry.blob_size(&app(), &blob.digest).await;
            assert!(matches!(size, Err(Error::BlobUnknown(_))), "{status}");
        }
        if begun.elapsed() < SHORTLY {
            assert_eq!(all_asked(&script), 2, "{:?}", script.lines());
            assert_eq!(site.counts("upstream_negative_answers"), 28);
        }
        has(&script, "latest", &image);
        tokio::time::sleep(SHORTLY).await;
        site.gets("latest", &image).await;
        assert!(site.blob(blob).await.is_ok());
    }
}

#[tokio::test]
async fn a_stored_tag_that_is_refused_is_stale_and_one_that_is_gone_is_gone() {
    let image = Image::small(1);
    let script = scripted("latest", &image).await;
    let site = Site::new(&script, policy(NOW)).await;
    site.gets("latest", &image).await;
    answers(&script, "HEAD", "latest", Reply::status(403));
    let requests = all_asked(&script);
    for _ in 0..3 {
        assert!(site.gets("latest", &image).await);
    }
    assert_eq!(all_asked(&script), requests + 1, "refused for a while");

    let site = Site::new(&script, policy(NOW)).await;
    answers(&script, "HEAD", "latest", Reply::content(&image.manifest));
    site.gets("latest", &image).await;
    answers(&script, "HEAD", "latest", Reply::status(404));
    for _ in 0..2 {
        assert!(matches!(site.pull("latest").await, Err(Error::ManifestUnknown(_))));
    }
    assert!(!site.gets(&image.manifest.digest.to_string(), &image).await);
}

#[tokio::test]
async fn an_upstream_over_quota_is_left_alone() {
    let (old, new, other) = (Image::small(1), Image::small(2), Image::small(3));
    let script = scripted("latest", &old).await;
    has(&script, "other", &other);
    let site = Site::new(&script, policy(NOW)).await;
    site.gets("latest", &old).await;

    // It moved, and may be looked at but not fetched.
    has(&script, "latest", &new);
    answers(&script, "GET", "latest", Reply::status(429).header("Retry-After", "3600"));
    let gets = script.lines().iter().filter(|line| line.starts_with("GET /v2/app/manifests/")).count();
    for _ in 0..3 {
        assert!(site.gets("latest", &old).await);
        let refused = site.pull("other").await.unwrap_err();
        assert!(
            matches!(&refused, Error::OverQuota { retry_after } if retry_after.as_secs() > 3500),
            "{refused}"
        );
    }
    let now = script.lines().iter().filter(|line| line.starts_with("GET /v2/app/manifests/")).count();
    assert_eq!(now, gets + 1, "{:?}", script.lines());
    has(&script, "latest", &old);
    assert!(!site.gets("latest", &old).await, "to look is still allowed");

    // Neither.
    answers(&script, "HEAD", "latest", Reply::status(429));
    assert!(site.gets("latest", &old).await);
    let requests = all_asked(&script);
    assert!(site.gets("latest", &old).await);
    assert_eq!(site.pull("other").await.unwrap_err().kind(), Kind::OverQuota);
    assert_eq!(all_asked(&script), requests);
    assert!(!site.gets(&old.manifest.digest.to_string(), &old).await, "what is here by digest needs nobody");
}

#[tokio::test]
async fn a_quota_that_is_over_is_asked_again() {
    let (old, new) = (Image::small(1), Image::small(2));
    let script = scripted("latest", &old).await;
    let site = Site::new(&script, policy(NOW)).await;
    site.gets("latest", &old).await;
    has(&script, "latest", &new);
    let limited = Rule::on("GET", "/v2/app/manifests/latest");
    script.first(limited.times(1).reply(Reply::status(429).header("Retry-After", "1")));
    assert!(site.gets("latest", &old).await);
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert!(!site.gets("latest", &new).await);
}

#[tokio::test]
async fn the_last_request_of_a_quota_is_not_spent_on_what_is_here() {
    let (old, new, other) = (Image::small(1), Image::small(2), Image::small(3));
    let counted = |image: &Image, remaining: &str| {
        Reply::content(&image.manifest)
            .header("ratelimit-limit", "100;w=21600")
            .header("ratelimit-remaining", &format!("{remaining};w=21600"))
    };
    let script = Script::start(vec![]).await;
    answers(&script, "HEAD", "latest", counted(&old, "1"));
    answers(&script, "GET", "latest", counted(&old, "0"));
    let site = Site::new(&script, policy(NOW)).await;
    site.gets("latest", &old).await;
    answers(&script, "HEAD", "latest", counted(&new, "0"));
    answers(&script, "GET", "latest", counted(&new, "99"));
    assert!(site.gets("latest", &old).await);
    has(&script, "other", &other);
    assert!(!site.gets("other", &other).await, "what is not here is worth a try");
    answers(&script, "HEAD", "latest", counted(&new, "100"));
    assert!(!site.gets("latest", &new).await);
}

#[tokio::test]
async fn blobs_wait_for_the_quota_too() {
    let image = Image::small(1);
    let script = scripted("latest", &image).await;
    let site = Site::new(&script, policy(NOW)).await;
    site.gets("latest", &image).await;
    let (first, second) = (&image.layers[0], &image.config);
    let path = format!("/v2/app/blobs/{}", first.digest);
    script.first(Rule::on("GET", &path).reply(Reply::status(429).header("Retry-After", "60")));
    let requests = all_asked(&script);
    for blob in [first, first, second] {
        let refused = site.blob(blob).await.unwrap_err();
        assert!(
            matches!(&refused, Error::OverQuota { retry_after } if retry_after.as_secs() > 50),
            "{refused}"
        );
    }
    let asked: Vec<_> = script.lines().split_off(requests);
    assert_eq!(asked.iter().filter(|line| line.starts_with("GET /v2/app/blobs/")).count(), 1, "{asked:?}");
    assert!(!site.gets("latest", &image).await, "tags are not blobs");
}

#[tokio::test]
async fn a_slow_upstream_is_waited_for_once_and_heard_in_the_end() {
    let (old, new) = (Image::small(1), Image::small(2));
    let script = scripted("latest", &old).await;
    let site = Site::new(&script, policy(NOW)).await;
    site.gets("latest", &old).await;
    has(&script, "latest", &new);
    answers(&script, "HEAD", "latest", Reply::content(&new.manifest).delayed(Duration::from_secs(12)));
    let begun = Instant::now();
    assert!(site.gets("latest", &old).await);
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(11), "{waited:?}");
    assert!(site.gets("latest", &old).await, "and at once from then on");
    assert!(begun.elapsed() < waited + Duration::from_secs(1));
    // The look goes on although nobody waits for it.
    while asked(&script, "GET", "latest") < 2 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", script.lines());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    answers(&script, "HEAD", "latest", Reply::content(&new.manifest));
    while site.pull("latest").await.unwrap().digest != new.manifest.digest {
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_tag_that_moves_in_the_middle_of_a_pull_leaves_the_pull_alone() {
    let (old, new) = (Image::small(1), Image::small(2));
    let script = scripted("latest", &old).await;
    let site = Site::new(&script, policy(NOW)).await;
    site.gets("latest", &old).await;
    has(&script, "latest", &new);
    assert!(!site.gets("latest", &new).await);
    // Another client still pulls what the tag was, the rest of it from upstream.
    assert!(!site.gets(&old.manifest.digest.to_string(), &old).await);
    for blob in old.blobs() {
        assert_eq!(site.blob(blob).await.unwrap(), blob.bytes.len() as u64);
    }
    assert_eq!(asked(&script, "GET", &old.manifest.digest.to_string()), 0, "it came with the tag");
}

#[tokio::test]
async fn what_deduplication_spares_is_counted() {
    let image = Image::small(1);
    let blob = &image.layers[0];
    let script = scripted("latest", &image).await;
    let head = format!("/v2/friend/blobs/{}", blob.digest);
    script.first(Rule::on("HEAD", &head).reply(Reply::content(blob)));
    let site = Site::new(&script, policy(NOW)).await;
    let body = site.registry.blob(&app(), &blob.digest).await.unwrap();
    while !matches!(
        site.registry.blob(&app(), &blob.digest).await,
        Ok(deltaport_registry::pull::Body::Stored(_))
    ) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(body);
    assert_eq!(site.counts("upstream_dedupe_saved_bytes"), 0);
    let friend: RepositoryName = format!("{HOST}/friend").parse().unwrap();
    site.registry.blob(&friend, &blob.digest).await.unwrap();
    assert_eq!(site.counts("upstream_dedupe_saved_bytes"), blob.bytes.len() as u64);
    assert_eq!(site.counts("upstream_fills"), 2);
}

#[tokio::test]
async fn references_are_told_apart_by_repository() {
    let image = Image::small(1);
    let script = scripted("latest", &image).await;
    script.first(Rule::on("HEAD", "/v2/none/manifests/latest").reply(Reply::status(404)));
    let site = Site::new(&script, policy(HOUR)).await;
    let tag: Reference = "latest".parse().unwrap();
    let none: RepositoryName = format!("{HOST}/none").parse().unwrap();
    assert_eq!(site.registry.manifest(&none, &tag).await.unwrap_err().kind(), Kind::NotFound);
    site.gets("latest", &image).await;
    assert_eq!(site.registry.manifest(&none, &tag).await.unwrap_err().kind(), Kind::NotFound);
}
