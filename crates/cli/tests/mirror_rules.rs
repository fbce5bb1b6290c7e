//! What mirror rules say about when and how fast, as operators see it.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::time::{Duration, Instant, SystemTime};

use deltaport_testkit::http::Request;
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, Content, Image, bytes};
use deltaport_testkit::upstream::{Reply, Rule, Upstream};
use serde_json::{Value, json};

const HOST: &str = "hub.example";

/// Adds images under tags of `repository`, about which nobody says anything.
fn serve(hub: &Upstream, repository: &str, images: &[(&str, &Image)]) {
    let on = |method: &str, path: &str, reply: Reply| {
        hub.first(Rule::on(method, &format!("/v2/{repository}/{path}")).reply(reply));
    };
    for (tag, image) in images {
        let digest = image.manifest.digest;
        for method in ["HEAD", "GET"] {
            for reference in [(*tag).to_owned(), digest.to_string()] {
                on(method, &format!("manifests/{reference}"), Reply::content(&image.manifest));
            }
            for blob in image.blobs() {
                on(method, &format!("blobs/{}", blob.digest), Reply::content(blob).ranged());
            }
        }
        let nothing = sample::index(&[], json!({}));
        on("GET", &format!("referrers/{digest}"), Reply::content(&nothing));
        for ending in [".sig", ".att", ".sbom", ""] {
            let tag = format!("{}{ending}", digest.to_string().replace(':', "-"));
            on("HEAD", &format!("manifests/{tag}"), Reply::status(404));
        }
    }
}

/// A site with these settings above its tables, and a rule.
async fn site(hub: &Upstream, top: &str, rule: &str) -> Server {
    let config = format!(
        "{top}\n[[upstream]]\nhost = \"{HOST}\"\nurl = \"{}\"\n[[mirror]]\nname = \"all\"\n{rule}\n",
        hub.url()
    );
    Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(&config).start().await
}

/// `deltaport mirror VERB` at this site: the status, and what is said.
fn mirror(site: &Server, verb: &str, more: &[&str]) -> (Option<i32>, String) {
    let address = site.address().to_string();
    let (status, text) = site.launch().run(&[&["mirror", verb, &address], more].concat());
    (status.code(), text)
}

fn large(seed: u64, size: usize) -> Image {
    Image::of("amd64", vec![Content::new(sample::LAYER_TAR, bytes(seed, size))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_waits_for_its_window_unless_it_is_to_be_now() {
    let hub = Upstream::start(vec![Rule::no_hub()]).await;
    let image = Image::small(1);
    serve(&hub, "app", &[("v1", &image)]);
    // Half a day away.
    let hour = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 3600;
    let window = format!("{:02}:00-{:02}:00", (hour + 11) % 24, (hour + 12) % 24);
    let rule = format!("source = \"{HOST}/app\"\ntags = [\"v1\"]\nwindows = [\"{window}\"]\nevery = \"1h\"");
    let site = site(&hub, "timezone = \"UTC0\"", &rule).await;
    let (status, text) = mirror(&site, "plan", &[]);
    assert!(status == Some(0) && text.contains("1 to do"), "{text}");
    assert!(!hub.lines().iter().any(|line| line.contains("/blobs/")), "the run that has begun rests");
    let (status, text) = mirror(&site, "run", &["--now"]);
    assert!(status == Some(0) && text.contains("1 mirrored"), "{text}\n{}", site.log());
}

/// How long a client takes for a blob.
async fn pull(site: &Server, path: String, expected: &Content) -> Duration {
    let began = Instant::now();
    let answer = site.client().send(Request::get(&path)).await;
    assert_eq!((answer.status, answer.body == expected.bytes), (200, true), "{path}");
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_the_link_for_itself_while_a_rule_runs() {
    const SIZE: usize = 1 << 20;
    let hub = Upstream::start(vec![Rule::no_hub()]).await;
    let images: Vec<Image> = (0..6).map(|seed| large(seed, 2 * SIZE)).collect();
    let tags: Vec<String> = (0..6).map(|number| format!("v{number}")).collect();
    let named: Vec<(&str, &Image)> = tags.iter().map(String::as_str).zip(&images).collect();
    serve(&hub, "app", &named);
    let wanted = large(90, 2 * SIZE);
    serve(&hub, "wanted", &[("v1", &wanted)]);
    let rule = format!("source = \"{HOST}/app\"\ntags = [\"v*\"]\n");
    let list = json!({ "name": "app", "tags": tags });
    hub.first(Rule::on("GET", "/v2/app/tags/list?n=1000").reply(Reply::status(200).body(list.to_string())));
    // 12 MiB for the rule and 2 MiB for the client, over a link that takes 14 s for them.
    let site = site(&hub, "", &format!("{rule}[fill]\nbandwidth = \"1MiB\"")).await;
    let path = format!("/v2/{HOST}/app/_deltaport/mirror/all");
    let run = site.client();
    let running = tokio::spawn(async move { run.try_send(Request::new("POST", &path)).await });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let layer = &wanted.layers[0];
    let took = pull(&site, format!("/v2/{HOST}/wanted/blobs/{}", layer.digest), layer).await;
    assert!(hub.lines().iter().any(|line| line.contains("/v2/app/blobs/")), "the rule runs");
    assert!(took < Duration::from_millis(2900), "2 s are what it takes alone: {took:?}\n{}", site.log());
    running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_keeps_to_its_own_cap_and_clients_do_not() {
    let hub = Upstream::start(vec![Rule::no_hub()]).await;
    let (image, other) = (large(1, 1 << 20), large(2, 1 << 20));
    serve(&hub, "app", &[("v1", &image)]);
    serve(&hub, "other", &[("v1", &other)]);
    let rule = format!("source = \"{HOST}/app\"\ntags = [\"v1\"]\nbandwidth = \"256KiB\"");
    let site = site(&hub, "", &rule).await;
    let layer = &other.layers[0];
    let fast = pull(&site, format!("/v2/{HOST}/other/blobs/{}", layer.digest), layer).await;
    let began = Instant::now();
    let (status, text) = mirror(&site, "run", &["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &report["mirrors"][0]["tags"][0]["outcome"]), (Some(0), &json!("mirrored")));
    let slow = began.elapsed();
    // 4 s are what it takes; what came last need not have had its time.
    assert!(slow > Duration::from_millis(2500) && fast < Duration::from_secs(1), "{slow:?} {fast:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_is_about_every_repository_of_the_catalog_that_fits() {
    let hub = Upstream::start(vec![Rule::no_hub()]).await;
    for (seed, repository) in [(1, "team/one"), (2, "team/two"), (3, "other/three")] {
        serve(&hub, repository, &[("v1", &Image::small(seed))]);
    }
    let page = |names: &[&str]| Reply::status(200).body(json!({ "repositories": names }).to_string());
    let second = "/v2/_catalog?n=1000&last=team%2Fone";
    hub.first(
        Rule::on("GET", "/v2/_catalog?n=1000").reply(
            page(&["other/three", "team/one", "team/sub/four", "Not A Name"])
                .header("link", &format!("<{second}>; rel=\"next\"")),
        ),
    );
    hub.first(Rule::on("GET", second).reply(page(&["team/two"])));
    let rule = format!("source = \"{HOST}/team/*\"\ntags = [\"v1\"]");
    let site = site(&hub, "", &rule).await;
    for (verb, word) in [("plan", "1 to do"), ("run", "1 mirrored"), ("run", "1 unchanged")] {
        let (status, text) = mirror(&site, verb, &["all"]);
        assert_eq!(status, Some(0), "{text}\n{}", site.log());
        for repository in ["team/one", "team/two"] {
            let named = format!("all: {HOST}/{repository} to {HOST}/{repository}\n");
            assert!(text.contains(&named), "{text}");
        }
        assert!(
            text.matches(word).count() == 2 && !text.contains("three") && !text.contains("four"),
            "{text}"
        );
    }
    let asked = hub.lines().iter().filter(|line| line.contains("_catalog")).count();
    assert_eq!(asked, 2, "it is not asked for again and again");
    let path = format!("/v2/{HOST}/other/three/_deltaport/mirror/all");
    assert_eq!(site.client().send(Request::get(&path)).await.status, 404, "the rule is not about that one");
    let path = format!("/v2/{HOST}/team/none/_deltaport/mirror/all");
    assert_eq!(site.client().send(Request::get(&path)).await.status, 404, "nor about one that is not there");

    // They are counted when they are over, which may be a moment after it was said that they are.
    let deadline = Instant::now() + Duration::from_secs(10);
    let metrics = loop {
        let answer = site.client().send(Request::get("/metrics")).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let over = |line: &str| line.starts_with("deltaport_mirror_runs_total{") && line.ends_with(" 2");
        if text.lines().filter(|line| over(line)).count() == 2 || Instant::now() > deadline {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let counted = |name: &str, repository: &str| {
        let labels = format!("{name}{{rule=\"all\",repository=\"{HOST}/{repository}\"}} ");
        let line = metrics.lines().find_map(|line| line.split_once(&labels));
        line.unwrap_or_else(|| panic!("{labels}\n{metrics}")).1.parse::<u64>().unwrap()
    };
    for repository in ["team/one", "team/two"] {
        assert_eq!(counted("mirror_runs_total", repository), 2);
        assert_eq!(
            (counted("mirror_wanted_tags", repository), counted("mirror_failed_tags", repository)),
            (1, 0)
        );
        assert!(counted("mirror_last_success_timestamp_seconds", repository) > 1_700_000_000);
        assert!(counted("mirror_received_bytes_total", repository) > 0);
    }
    assert!(!metrics.contains("team/none"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_does_not_tell_its_repositories_is_told_plainly() {
    let hub = Upstream::start(vec![Rule::no_hub()]).await;
    serve(&hub, "app", &[("v1", &Image::small(1))]);
    hub.first(Rule::on("GET", "/v2/_catalog?n=1000").reply(Reply::status(404)));
    let second = format!("[[mirror]]\nname = \"named\"\nsource = \"{HOST}/app\"\ntags = [\"v1\"]");
    let rule = format!("source = \"{HOST}/**\"\ntags = [\"v1\"]\n{second}");
    let site = site(&hub, "", &rule).await;
    let (status, text) = mirror(&site, "run", &[]);
    assert_eq!(status, Some(1), "{text}");
    let why = format!("{HOST} does not tell us which repositories it has");
    assert!(text.contains(&why) && text.contains("name each in the source of a rule of its own"), "{text}");
    assert!(text.contains("1 mirrored"), "the other rule is run: {text}");
    let (status, text) = mirror(&site, "run", &["named"]);
    assert!(status == Some(0) && !text.contains("error"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_the_guide_is_a_configuration_and_says_what_it_says() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
    let file = format!("{root}/examples/nightly.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let guide = std::fs::read_to_string(format!("{root}/mirroring.md")).unwrap();
    assert!(guide.contains(&format!("```toml\n{text}```\n")), "the guide shows the file as it is");

    let binary = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    let (status, said) = binary.run(&["config", "check", "--json", "--config", &file]);
    assert!(status.success(), "{said}");

    // All of it is put together: what the rules name is served. By night, it would begin at once to fetch it.
    let site = binary.config(&text.replace("schedule =", "#schedule =")).start().await;
    let list = site.client().send(Request::get("/v2/_deltaport/mirror")).await.json();
    let rules: Vec<&str> =
        list["mirrors"].as_array().unwrap().iter().map(|rule| rule["repository"].as_str().unwrap()).collect();
    let expected =
        ["docker.io/library/postgres", "quay.io/prometheus/prometheus", "ghcr.io/fluxcd/source-controller"];
    assert_eq!(rules, expected);
}
