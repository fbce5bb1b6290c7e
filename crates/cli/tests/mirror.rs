//! Mirror rules as operators use them: `deltaport mirror plan` and `run` while `deltaport serve` runs, and the registry
//! that runs them by itself.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::time::{Duration, Instant};

use deltaport_testkit::http::Request;
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, Content, Image, bytes};
use deltaport_testkit::upstream::{Gate, Reply, Rule, Upstream};
use serde_json::{Value, json};

const HOST: &str = "hub.example";

/// A registry with a repository `app`.
struct Hub(Upstream);

impl Hub {
    async fn new() -> Self {
        Self(Upstream::start(vec![Rule::no_hub()]).await)
    }

    fn has(&self, method: &str, path: &str, reply: Reply) {
        self.0.first(Rule::on(method, &format!("/v2/app/{path}")).reply(reply));
    }

    /// A manifest by its digest, about which nobody says anything.
    fn manifest(&self, manifest: &Content) {
        self.has("GET", &format!("manifests/{}", manifest.digest), Reply::content(manifest));
        for ending in [".sig", ".att", ".sbom", ""] {
            self.has("HEAD", &format!("manifests/{}", about(manifest, ending)), Reply::status(404));
        }
        self.referrers(manifest, &[]);
    }

    fn referrers(&self, subject: &Content, referrers: &[&Content]) {
        let list: Vec<Value> = referrers.iter().map(|referrer| referrer.descriptor()).collect();
        let list = sample::index(&[], json!({ "manifests": list }));
        self.has("GET", &format!("referrers/{}", subject.digest), Reply::content(&list));
    }

    fn image(&self, image: &Image) {
        self.manifest(&image.manifest);
        for blob in image.blobs() {
            self.blob(blob);
        }
    }

    fn blob(&self, blob: &Content) {
        self.has("GET", &format!("blobs/{}", blob.digest), Reply::content(blob));
        self.has("HEAD", &format!("blobs/{}", blob.digest), Reply::content(blob));
    }

    fn tag(&self, tag: &str, manifest: &Content) {
        for method in ["HEAD", "GET"] {
            self.has(method, &format!("manifests/{tag}"), Reply::content(manifest));
        }
    }

    /// How often something was asked for whose path ends so.
    fn count(&self, method: &str, end: &str) -> usize {
        self.0.asked().iter().filter(|asked| asked.method == method && asked.target.ends_with(end)).count()
    }

    /// A site with a rule.
    async fn site(&self, rule: &str) -> Server {
        let config = format!(
            "[[upstream]]\nhost = \"{HOST}\"\nurl = \"{}\"\nnegative_age = \"0s\"\n\
             [[mirror]]\nname = \"all\"\nsource = \"{HOST}/app\"\n{rule}\n",
            self.0.url()
        );
        Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(&config).start().await
    }
}

/// The tag that belongs to the digest of a manifest.
fn about(manifest: &Content, ending: &str) -> String {
    format!("{}{ending}", manifest.digest.to_string().replace(':', "-"))
}

/// Three images for linux/amd64, linux/arm64 and linux/riscv64, and their index.
fn three(seed: u64) -> (Vec<Image>, Content) {
    let image = |(at, architecture): (u64, &&str)| {
        Image::of(architecture, vec![Content::new(sample::LAYER_TAR, bytes(10 * seed + at, 100_000))])
    };
    let images: Vec<Image> = (0..).zip(&["amd64", "arm64", "riscv64"]).map(image).collect();
    let manifests: Vec<&Content> = images.iter().map(|image| &image.manifest).collect();
    let index = sample::index(&manifests, json!({}));
    (images, index)
}

/// `deltaport mirror VERB` at this site: the status, and what is said.
fn mirror(site: &Server, verb: &str, more: &[&str]) -> (Option<i32>, String) {
    let address = site.address().to_string();
    let (status, text) = site.launch().run(&[&["mirror", verb, &address], more].concat());
    (status.code(), text)
}

/// The same with `--json`: the status, and the report of the only rule.
fn report(site: &Server, verb: &str) -> (Option<i32>, Value) {
    let (status, text) = mirror(site, verb, &["--json"]);
    let all: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{}", site.log()));
    (status, all["mirrors"][0].clone())
}

/// The status of a manifest at the site, by tag without a question upstream.
async fn tags(site: &Server) -> Vec<String> {
    let list = site.client().send(Request::get(&format!("/v2/{HOST}/app/tags/list"))).await;
    if list.status == 404 {
        return Vec::new();
    }
    list.json()["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_takes_the_steps_of_the_plan_signatures_first_and_the_tag_last() {
    let hub = Hub::new().await;
    let (images, index) = three(1);
    images.iter().for_each(|image| hub.image(image));
    hub.manifest(&index);
    hub.tag("v1", &index);
    // Cosign's signature of the index under a tag, and something about the wanted image among its referrers.
    let (payload, bill) = (sample::layer(90, 500), sample::layer(91, 700));
    let signature = sample::manifest(&sample::empty_config(), std::slice::from_ref(&payload), json!({}));
    let referrer = sample::artifact("application/spdx+json", Some(&images[1].manifest), &bill);
    for manifest in [&signature, &referrer] {
        hub.manifest(manifest);
    }
    for blob in [&payload, &bill, &sample::empty_config()] {
        hub.blob(blob);
    }
    hub.tag(&about(&index, ".sig"), &signature);
    hub.referrers(&images[1].manifest, &[&referrer]);
    let site = hub.site("tags = [\"v1\"]\nplatforms = [\"linux/arm64\"]").await;

    let (status, plan) = report(&site, "plan");
    assert_eq!(status, Some(0), "{plan:#}");
    assert!(tags(&site).await.is_empty(), "to plan changes nothing");
    assert!(!hub.0.lines().iter().any(|line| line.starts_with("GET /v2/app/blobs/")), "{:#?}", hub.0.lines());
    let (status, run) = report(&site, "run");
    assert_eq!(status, Some(0), "{run:#}\n{}", site.log());
    let steps = |report: &Value| report["tags"][0]["steps"].clone();
    assert_eq!(steps(&plan), steps(&run));
    assert_eq!(
        (&plan["tags"][0]["outcome"], &run["tags"][0]["outcome"]),
        (&json!("planned"), &json!("mirrored"))
    );
    let steps: Vec<Value> = steps(&run).as_array().unwrap().clone();
    let place = |digest: &Content| {
        steps.iter().position(|step| step["digest"] == json!(digest.digest)).unwrap_or(usize::MAX)
    };
    assert!(
        [&signature, &payload, &referrer, &bill].iter().all(|one| place(one) < place(&index)),
        "{steps:#?}"
    );
    let last = steps.last().unwrap();
    assert_eq!(
        (&last["step"], &last["tag"], &last["digest"]),
        (&json!("tag"), &json!("v1"), &json!(index.digest))
    );
    for other in [&images[0], &images[2]] {
        assert_eq!(place(&other.manifest), usize::MAX, "another platform");
        assert_eq!(hub.count("GET", &other.layers[0].digest.to_string()), 0);
    }

    // All of it is at the site.
    assert_eq!(tags(&site).await, [about(&index, ".sig"), "v1".to_owned()]);
    let path = format!("/v2/{HOST}/app/referrers/{}", images[1].manifest.digest);
    let referrers = site.client().send(Request::get(&path)).await.json();
    assert_eq!(referrers["manifests"][0]["digest"], json!(referrer.digest));
    for verb in ["plan", "run"] {
        let (status, again) = report(&site, verb);
        assert_eq!((status, &again["tags"][0]["outcome"]), (Some(0), &json!("unchanged")), "{again:#}");
    }
    let (status, text) = mirror(&site, "run", &["all"]);
    assert!(status == Some(0) && text.contains("0 mirrored, 1 unchanged, 0 failed"), "{text}");
    let (status, text) = mirror(&site, "run", &["none"]);
    assert!(status == Some(1) && text.contains("no mirror rule none; it has all"), "{text}");
    let (status, text) = site.launch().run(&["mirror", "plan", &hub.0.address().to_string()]);
    assert!(status.code() == Some(1), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_tags_that_have_not_moved_cost_one_head_each() {
    let hub = Hub::new().await;
    let layer = sample::layer(1, 2000);
    let mut names = Vec::new();
    for number in 0..200_u64 {
        let config = Content::new(sample::CONFIG, json!({ "number": number }).to_string());
        let manifest = sample::manifest(&config, std::slice::from_ref(&layer), json!({}));
        hub.manifest(&manifest);
        hub.blob(&config);
        hub.tag(&format!("v1.{number}"), &manifest);
        names.push(format!("v1.{number}"));
    }
    hub.blob(&layer);
    let mut site = hub.site(&format!("tags = {names:?}")).await;
    let (status, first) = report(&site, "run");
    assert_eq!((status, first["wanted"].clone()), (Some(0), json!(200)), "{first:#}");
    assert!(first["tags"].as_array().unwrap().iter().all(|tag| tag["outcome"] == "mirrored"));
    for restarted in [false, true] {
        if restarted {
            site.kill();
            site.start_again().await;
        }
        let before = hub.0.asked().len();
        let (status, warm) = report(&site, "run");
        assert_eq!(status, Some(0));
        assert!(warm["tags"].as_array().unwrap().iter().all(|tag| tag["outcome"] == "unchanged"));
        let asked = hub.0.asked().split_off(before);
        let questions = |method: &str| {
            asked
                .iter()
                .filter(|asked| asked.method == method && asked.target.starts_with("/v2/app/"))
                .count()
        };
        assert_eq!((questions("HEAD"), questions("GET")), (200, 0), "200 HEADs, no GET; {restarted}");
        assert!(restarted || asked.len() == 200, "and nothing else");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_are_selected_from_the_list_and_a_run_follows_one_that_moves() {
    let hub = Hub::new().await;
    let (old, new) = (Image::small(1), Image::small(2));
    hub.image(&old);
    hub.image(&new);
    for tag in ["1.9.0", "1.10.0", "2.0.0-rc1", "latest"] {
        hub.tag(tag, &old.manifest);
    }
    let list = json!({ "name": "app", "tags": ["1.10.0", "1.9.0", "2.0.0-rc1", "latest", about(&old.manifest, ".sig")] });
    hub.has("GET", "tags/list", Reply::status(200).body(list.to_string()));
    let site = hub.site("tags = [\"*\"]\nsemver = \">=1\"\nnewest = 1").await;
    let (status, plan) = report(&site, "plan");
    assert_eq!((status, &plan["tags"][0]["tag"]), (Some(0), &json!("1.10.0")), "{plan:#}");
    assert_eq!(plan["tags"].as_array().unwrap().len(), 1);
    let bytes: usize = old.blobs().chain([&old.manifest]).map(|content| content.bytes.len()).sum();
    assert_eq!(plan["tags"][0]["bytes"], json!(bytes));

    hub.tag("1.10.0", &new.manifest);
    let (status, run) = report(&site, "run");
    assert_eq!(status, Some(0), "{run:#}");
    assert_eq!(run["tags"][0]["digest"], json!(new.manifest.digest), "what it is when the run looks");
    // It moves back while the run is on its way: the run ends with what it saw.
    hub.tag("1.10.0", &new.manifest);
    let moved = Rule::on("HEAD", "/v2/app/manifests/1.10.0").times(1).reply(Reply::content(&old.manifest));
    hub.0.first(moved);
    let (status, run) = report(&site, "run");
    assert_eq!((status, &run["tags"][0]["digest"]), (Some(0), &json!(old.manifest.digest)), "{run:#}");
    let last = run["tags"][0]["steps"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["was"], &last["digest"]), (&json!(new.manifest.digest), &json!(old.manifest.digest)));
    let (_, run) = report(&site, "run");
    assert_eq!(run["tags"][0]["digest"], json!(new.manifest.digest), "and the next one follows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_may_be_sparse_and_a_run_goes_on_after_errors() {
    let hub = Hub::new().await;
    let (images, index) = three(2);
    images.iter().for_each(|image| hub.image(image));
    hub.manifest(&index);
    hub.tag("v1", &index);
    hub.has("GET", &format!("manifests/{}", images[2].manifest.digest), Reply::status(404));
    for method in ["HEAD", "GET"] {
        hub.has(method, "manifests/gone", Reply::status(404));
    }
    // Nobody asked for the platform that is missing.
    let site = hub.site("tags = [\"gone\", \"v1\"]").await;
    let (status, text) = mirror(&site, "run", &[]);
    assert_eq!(status, Some(1), "a tag that is not there is a failure\n{text}");
    assert!(text.contains("error: the upstream does not have this tag"), "{text}");
    assert!(text.contains(&format!("warning: v1: linux/riscv64 {}", images[2].manifest.digest)), "{text}");
    assert!(text.contains("1 mirrored, 0 unchanged, 1 failed"), "{text}");
    assert_eq!(tags(&site).await, ["v1"]);
    let show = format!("{}/{HOST}/app:v1", site.address());
    let (_, text) = site.launch().run(&["image", "show", &show]);
    assert!(text.contains("absent upstream"), "{text}");

    let site = hub.site("tags = [\"v1\"]\nplatforms = [\"linux/riscv64\", \"linux/amd64\"]").await;
    let (status, run) = report(&site, "run");
    assert_eq!((status, &run["tags"][0]["outcome"]), (Some(1), &json!("failed")), "{run:#}");
    assert!(tags(&site).await.is_empty(), "its platform was asked for, so the tag stays away");

    let site = hub.site("tags = [\"v1\"]\nplatforms = [\"windows/*\"]").await;
    let (status, text) = mirror(&site, "run", &[]);
    assert!(status == Some(1) && text.contains("nothing for windows/*; it has linux/amd64"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_killed_goes_on_in_the_next() {
    let hub = Hub::new().await;
    let layers = [7, 8].map(|seed| Content::new(sample::LAYER_TAR, bytes(seed, 300_000)));
    let image = Image::of("amd64", layers.to_vec());
    hub.image(&image);
    hub.tag("v1", &image.manifest);
    let gate = Gate::new();
    let held = format!("blobs/{}", layers[1].digest);
    hub.has("GET", &held, Reply::content(&layers[1]).held_after(200_000, &gate));
    let mut site = hub.site("tags = [\"v1\"]").await;
    let path = format!("/v2/{HOST}/app/_deltaport/mirror/all");
    let client = site.client();
    let asking = tokio::spawn(async move { client.try_send(Request::new("POST", &path)).await });
    let first = format!("/v2/{HOST}/app/blobs/{}", layers[0].digest);
    let deadline = Instant::now() + Duration::from_secs(30);
    while hub.count("GET", &held) == 0 || hub.count("GET", &layers[0].digest.to_string()) == 0 {
        assert!(Instant::now() < deadline, "{:#?}", hub.0.lines());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The first layer is here for good when it can be pulled.
    assert_eq!(site.client().send(Request::get(&first)).await.body, layers[0].bytes);
    site.kill();
    let _broken = asking.await;
    gate.open();
    hub.blob(&layers[1]);
    site.start_again().await;
    assert!(tags(&site).await.is_empty(), "the tag comes last");
    let (status, run) = report(&site, "run");
    assert_eq!((status, &run["tags"][0]["outcome"]), (Some(0), &json!("mirrored")), "{run:#}");
    assert_eq!(tags(&site).await, ["v1"]);
    assert_eq!(hub.count("GET", &layers[0].digest.to_string()), 1, "it was here");
    let manifest = format!("manifests/{}", image.manifest.digest);
    assert_eq!(hub.count("GET", &manifest), 1, "so was it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_runs_a_rule_with_an_interval_by_itself() {
    let hub = Hub::new().await;
    let (old, new) = (Image::small(3), Image::small(4));
    hub.image(&old);
    hub.image(&new);
    hub.tag("v1", &old.manifest);
    let site = hub.site("tags = [\"v1\"]\nevery = \"1s\"").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    for image in [&old, &new] {
        hub.tag("v1", &image.manifest);
        let show = format!("{}/{HOST}/app:v1", site.address());
        let digest = image.manifest.digest.to_string();
        // To show an image asks no upstream.
        while !site.launch().run(&["image", "show", &show]).1.contains(&digest) {
            assert!(Instant::now() < deadline, "{}", site.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let mut site = site;
    assert!(site.terminate().success(), "{}", site.log());
}
