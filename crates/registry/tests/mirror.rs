//! Runs of mirror rules: when they go on and when they rest, and how they share the link.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use deltaport_client as client;
use deltaport_oci::RepositoryName;
use deltaport_registry::mirror::select::NewestBy;
use deltaport_registry::mirror::timetable::Windows;
use deltaport_registry::mirror::{
    Clock, Hours, Outcome, Report, Repositories, Request, Rule, Selection, TimeZone,
};
use deltaport_registry::{Options, Registry, Upstream};
use deltaport_store::{Faults, Store};
use deltaport_testkit::sample::{self, Content, Image, bytes};
use deltaport_testkit::upstream::{Gate, Reply, Rule as On, Upstream as Script};
use deltaport_trust::{Access, Rules};
use jiff::Timestamp;
use tempfile::TempDir;

const HOST: &str = "registry.example";
const PATIENCE: Duration = Duration::from_secs(30);

struct Site {
    registry: Registry,
    _home: TempDir,
}

impl Site {
    async fn new(script: &Script, change: impl FnOnce(&mut Options)) -> Self {
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
        let upstream = client::Upstream::new(&client::Options::new(HOST, script.url())).unwrap();
        let mut options = Options { upstreams: vec![Upstream::new(upstream)], ..Options::default() };
        change(&mut options);
        let registry = Registry::new(options, store, Rules::new(Access::default()).unwrap());
        Self { registry, _home: home }
    }

    async fn mirror(&self, request: Request, number: Option<u64>, patience: Duration) -> Report {
        self.registry.mirror(&repository("app"), "all", request, number, patience).await.unwrap()
    }

    /// Waits until the site has asked so often for what ends so.
    async fn asked(&self, script: &Script, end: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while count(script, end) < times {
            assert!(Instant::now() < deadline, "{:#?}", script.lines());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn repository(name: &str) -> RepositoryName {
    format!("{HOST}/{name}").parse().unwrap()
}

/// A rule for these tags of `app`.
fn rule(tags: &[&str]) -> Rule {
    let patterns = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    let repository = Repositories::One("app".parse().unwrap());
    Rule::new("all", HOST, repository, Selection { patterns, ..Selection::default() })
}

fn hours(windows: &[&str]) -> Hours {
    let windows = windows.iter().map(|window| window.parse().unwrap()).collect();
    Hours { windows: Windows::new(windows), zone: TimeZone::UTC }
}

fn count(script: &Script, end: &str) -> usize {
    script.asked().iter().filter(|asked| asked.target.ends_with(end)).count()
}

/// Images under tags of `app`, about which nobody says anything.
async fn hub(images: &[(&str, &Image)]) -> Script {
    let mut rules = vec![On::no_hub()];
    for (tag, image) in images {
        let digest = image.manifest.digest;
        for method in ["HEAD", "GET"] {
            for reference in [(*tag).to_owned(), digest.to_string()] {
                let path = format!("/v2/app/manifests/{reference}");
                rules.push(On::on(method, &path).reply(Reply::content(&image.manifest)));
            }
            for blob in image.blobs() {
                let path = format!("/v2/app/blobs/{}", blob.digest);
                rules.push(On::on(method, &path).reply(Reply::content(blob).ranged()));
            }
        }
        let nothing = sample::index(&[], serde_json::json!({}));
        rules.push(On::on("GET", &format!("/v2/app/referrers/{digest}")).reply(Reply::content(&nothing)));
        for ending in [".sig", ".att", ".sbom", ""] {
            let path = format!("/v2/app/manifests/{}{ending}", digest.to_string().replace(':', "-"));
            rules.push(On::on("HEAD", &path).reply(Reply::status(404)));
        }
    }
    Script::start(rules).await
}

fn large(seed: u64, size: usize) -> Image {
    Image::of("amd64", vec![Content::new(sample::LAYER_TAR, bytes(seed, size))])
}

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_rests_outside_its_windows_and_goes_on_where_it_was() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    NOW.store(at("2026-01-01 21:00Z"), Ordering::SeqCst);
    let (first, second) = (large(1, 1 << 20), large(2, 1000));
    let script = hub(&[("v1", &first), ("v2", &second)]).await;
    // Half of the blob comes before the window closes.
    let held = Gate::new();
    let layer = format!("blobs/{}", first.layers[0].digest);
    script.first(
        On::on("GET", &format!("/v2/app/{layer}"))
            .times(1)
            .reply(Reply::content(&first.layers[0]).ranged().held_after(512 << 10, &held)),
    );
    let site = Site::new(&script, |options| {
        options.mirrors = vec![Rule { hours: hours(&["22:00-05:00"]), ..rule(&["v1", "v2"]) }];
        options.clock = Clock(|| Timestamp::from_second(NOW.load(Ordering::SeqCst)).unwrap());
    })
    .await;
    let report = site.mirror(Request::Run, None, Duration::from_millis(200)).await;
    assert_eq!((report.done, report.rests_until.as_deref()), (false, Some("2026-01-01 22:00")));
    assert_eq!(count(&script, "manifests/v1"), 0, "nothing is asked outside the window");
    let plan = site.mirror(Request::Plan, None, PATIENCE).await;
    assert!(plan.is_good() && plan.wanted == 2, "to look is allowed at any hour");

    // The clock is looked at every few seconds.
    NOW.store(at("2026-01-01 23:00Z"), Ordering::SeqCst);
    let number = Some(report.run);
    site.asked(&script, &layer, 1).await;
    NOW.store(at("2026-01-02 05:00Z"), Ordering::SeqCst);
    held.open();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let report = site.mirror(Request::Run, number, Duration::ZERO).await;
    assert_eq!((report.done, report.rests_until.as_deref()), (false, Some("2026-01-02 22:00")));
    assert_eq!(count(&script, &layer), 1, "the blob was broken off");

    // Somebody says that it is to go on now.
    let report = site.mirror(Request::RunNow, number, PATIENCE).await;
    assert!(report.is_good() && report.tags.len() == 2, "{report:#?}");
    let asked = script.asked();
    let again = asked.iter().rfind(|asked| asked.target.ends_with(&layer)).unwrap();
    let range = again.headers.first("range").unwrap_or_default().to_owned();
    assert!(
        range.starts_with("bytes=") && !range.starts_with("bytes=0-"),
        "it goes on where it was: {range}"
    );
}

/// An image that says when it was made: in its configuration, or in an annotation.
fn made(at: &str, annotated: bool) -> Image {
    let date = serde_json::json!(at);
    let (config, fields) = match annotated {
        true => (serde_json::json!({ "id": at }), serde_json::json!({ "annotations": { CREATED: date } })),
        false => (serde_json::json!({ "created": date }), serde_json::json!({})),
    };
    let config = Content::new(sample::CONFIG, config.to_string());
    let layers = vec![sample::layer(5, 500)];
    Image { manifest: sample::manifest(&config, &layers, fields), config, layers }
}

const CREATED: &str = "org.opencontainers.image.created";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_by_date_cost_the_list_and_a_head_for_each_when_nothing_has_changed() {
    let images: Vec<(String, Image)> = (0..12)
        .map(|n| {
            (
                format!("build-{:02}", (n * 7) % 12),
                made(&format!("2026-01-{:02}T00:00:00Z", n + 1), n % 2 == 0),
            )
        })
        .collect();
    let named: Vec<(&str, &Image)> = images.iter().map(|(tag, image)| (tag.as_str(), image)).collect();
    let script = hub(&named).await;
    let tags: Vec<&str> = named.iter().map(|(tag, _)| *tag).collect();
    let list = serde_json::json!({ "name": "app", "tags": tags }).to_string();
    script.first(On::on("GET", "/v2/app/tags/list?n=1000").reply(Reply::status(200).body(list)));
    let newest = |count| {
        let mut rule = rule(&["regex:build-[0-9]+"]);
        rule.tags.except = vec![tags[11].parse().unwrap()];
        (rule.tags.newest, rule.tags.newest_by) = (Some(count), NewestBy::Created);
        rule
    };
    let site = Site::new(&script, |options| options.mirrors = vec![newest(3)]).await;
    let report = site.mirror(Request::Run, None, PATIENCE).await;
    assert!(report.is_good(), "{report:#?}");
    let mut expected = vec![tags[8], tags[9], tags[10]];
    expected.sort_unstable();
    assert_eq!(report.tags.iter().map(|tag| tag.tag.as_str()).collect::<Vec<_>>(), expected);
    let before = script.asked().len();
    let report = site.mirror(Request::Run, None, PATIENCE).await;
    assert!(report.tags.iter().all(|tag| tag.outcome == Outcome::Unchanged));
    let asked = script.asked().split_off(before);
    let heads = asked.iter().filter(|asked| asked.method == "HEAD").count();
    assert_eq!((heads, asked.len()), (11, 12), "the list, and a HEAD for each: {:#?}", script.lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_tags_by_pattern_that_have_not_moved_cost_the_list_and_one_head_each() {
    let images: Vec<Image> = (0..4).map(|n| large(n, 1000)).collect();
    let tags: Vec<String> = (0..200).map(|n| format!("v1.{n}")).collect();
    let named: Vec<(&str, &Image)> = tags.iter().map(String::as_str).zip(images.iter().cycle()).collect();
    let script = hub(&named).await;
    let list = serde_json::json!({ "name": "app", "tags": tags }).to_string();
    script.first(On::on("GET", "/v2/app/tags/list?n=1000").reply(Reply::status(200).body(list)));
    let site = Site::new(&script, |options| options.mirrors = vec![rule(&["v*"])]).await;
    let report = site.mirror(Request::Run, None, PATIENCE).await;
    assert!(report.is_good() && report.wanted == 200, "{report:#?}");
    let before = script.asked().len();
    let report = site.mirror(Request::Run, None, PATIENCE).await;
    assert!(report.tags.iter().all(|tag| tag.outcome == Outcome::Unchanged));
    let asked = script.asked().split_off(before);
    let gets: Vec<String> =
        asked.iter().filter(|asked| asked.method == "GET").map(|asked| asked.line()).collect();
    assert_eq!((asked.len(), gets), (201, vec!["GET /v2/app/tags/list?n=1000".to_owned()]));
}
