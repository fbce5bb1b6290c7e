//! Sparse indexes as operators and clients see them: a site that keeps one platform of five, and the commands that show,
//! complete and prune an image while `deltaport serve` runs.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::process::ExitStatus;

use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, Content, Image, bytes};
use deltaport_testkit::upstream::{Gate, Reply, Rule, Upstream};
use serde_json::{Value, json};

const ARCHITECTURES: [&str; 5] = ["amd64", "arm64", "riscv64", "s390x", "ppc64le"];
const HOST: &str = "hub.example";

/// An index of five images of the same size, and a registry that has them.
struct Hub {
    registry: Upstream,
    images: Vec<Image>,
    index: Content,
}

impl Hub {
    async fn new() -> Self {
        let image = |(architecture, seed): (&&str, u64)| {
            Image::of(architecture, vec![Content::new(sample::LAYER_TAR, bytes(seed, 400_000))])
        };
        let images: Vec<Image> = ARCHITECTURES.iter().zip(1..).map(image).collect();
        let children: Vec<Value> = images
            .iter()
            .zip(ARCHITECTURES)
            .map(|(image, architecture)| {
                let mut child = image.manifest.descriptor();
                child["platform"] = json!({ "os": "linux", "architecture": architecture });
                child
            })
            .collect();
        let index = sample::index(&[], json!({ "manifests": children }));
        let registry = Upstream::start(vec![Rule::no_hub()]).await;
        let hub = Self { registry, images, index };
        for image in &hub.images {
            for blob in image.blobs() {
                hub.has("GET", &format!("blobs/{}", blob.digest), Reply::content(blob));
                hub.has("HEAD", &format!("blobs/{}", blob.digest), Reply::content(blob));
            }
            let place = format!("manifests/{}", image.manifest.digest);
            hub.has("GET", &place, Reply::content(&image.manifest));
        }
        for reference in ["v1".to_owned(), hub.index.digest.to_string()] {
            for method in ["HEAD", "GET"] {
                hub.has(method, &format!("manifests/{reference}"), Reply::content(&hub.index));
            }
        }
        hub
    }

    fn has(&self, method: &str, path: &str, reply: Reply) {
        self.registry.first(Rule::on(method, &format!("/v2/app/{path}")).reply(reply));
    }

    /// A site that wants one platform of it.
    async fn site(&self, more: &str) -> Server {
        let config = format!(
            "{more}[[upstream]]\nhost = \"{HOST}\"\nurl = \"{}\"\nplatforms = [\"linux/arm64\"]\nnegative_age = \"0s\"\n",
            self.registry.url()
        );
        Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(&config).start().await
    }
}

async fn get(site: &Server, path: &str) -> Response {
    site.client().send(Request::get(&format!("/v2/{HOST}/app/{path}"))).await
}

/// `deltaport image VERB hub.example/app:v1 ...` at this site.
fn image(site: &Server, verb: &str, more: &[&str]) -> (ExitStatus, String) {
    let image = format!("{}/{HOST}/app:v1", site.address());
    let mut arguments = vec!["image", verb, &image];
    arguments.extend(more);
    site.launch().run(&arguments)
}

/// The same with `--json`, which must work.
fn image_json(site: &Server, verb: &str, more: &[&str]) -> Value {
    let (status, text) = image(site, verb, &[more, &["--json"]].concat());
    assert!(status.success(), "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The states of the five images.
fn states(tree: &Value) -> Vec<&str> {
    tree["root"]["children"]
        .as_array()
        .unwrap()
        .iter()
        .map(|child| child["state"].as_str().unwrap())
        .collect()
}

/// Pulls the image for arm64 as a client does, by a reference to the index.
async fn pull(site: &Server, reference: &str, hub: &Hub) {
    let index = get(site, &format!("manifests/{reference}")).await;
    assert_eq!((index.status, &index.body), (200, &hub.index.bytes), "{}", index.text());
    let digest = hub.index.digest.to_string();
    assert_eq!(index.header("docker-content-digest"), Some(digest.as_str()));
    let wanted = &hub.images[1];
    let child = get(site, &format!("manifests/{}", wanted.manifest.digest)).await;
    assert_eq!((child.status, &child.body), (200, &wanted.manifest.bytes));
    for blob in wanted.blobs() {
        let pulled = get(site, &format!("blobs/{}", blob.digest)).await;
        assert!(pulled.status == 200 && pulled.body == blob.bytes);
    }
}

#[tokio::test]
async fn one_platform_of_five_is_pulled_by_tag_and_by_the_digest_of_the_index() {
    let hub = Hub::new().await;
    let site = hub.site("").await;
    pull(&site, "v1", &hub).await;
    pull(&site, &hub.index.digest.to_string(), &hub).await;

    let weight = |image: &Image| -> u64 {
        image.blobs().chain([&image.manifest]).map(|content| content.bytes.len() as u64).sum()
    };
    let index = hub.index.bytes.len() as u64;
    let all = hub.images.iter().map(weight).sum::<u64>() + index;
    let sent = hub.registry.sent();
    assert_eq!(sent, weight(&hub.images[1]) + index, "{:#?}", hub.registry.lines());
    assert!(sent * 100 <= all * 21, "{sent} of {all}");

    for (number, image) in hub.images.iter().enumerate().filter(|(number, _)| *number != 1) {
        let refused = get(&site, &format!("manifests/{}", image.manifest.digest)).await;
        let error = &refused.json()["errors"][0];
        assert_eq!((refused.status, error["code"].as_str().unwrap()), (404, "MANIFEST_UNKNOWN"));
        let platform = format!("linux/{}", ARCHITECTURES[number]);
        let detail = json!({ "digest": image.manifest.digest, "platform": platform, "reason": "by-policy" });
        assert_eq!(error["detail"], detail);
        assert!(error["message"].as_str().unwrap().contains(&platform), "{error}");
    }
    assert_eq!(hub.registry.sent(), sent, "nobody asked the upstream for them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_image_is_shown_completed_and_pruned_while_it_is_served() {
    let hub = Hub::new().await;
    let site = hub.site("").await;
    let (status, text) = image(&site, "show", &[]);
    assert!(status.code() == Some(1) && text.contains("no such manifest"), "{text}");
    pull(&site, "v1", &hub).await;

    let tree = image_json(&site, "show", &[]);
    assert_eq!(states(&tree), ["by-policy", "present", "by-policy", "by-policy", "by-policy"]);
    assert_eq!(tree["root"]["digest"], json!(hub.index.digest));
    assert_eq!(tree["root"]["children"][1]["platform"]["architecture"], "arm64");
    assert_eq!(tree["root"]["children"][1]["blobs"]["count"], 2);
    let (_, text) = image(&site, "show", &[]);
    for says in ["  index ", "linux/arm64", "present", "by policy", "image complete"] {
        assert!(text.contains(says), "{says}: {text}");
    }

    // What is not wanted otherwise is fetched when it is asked for by name, and then served.
    let done = image_json(&site, "complete", &["--platform", "linux/amd64"]);
    assert_eq!(states(&done["tree"]), ["present", "present", "by-policy", "by-policy", "by-policy"]);
    assert_eq!(done["failed"], json!([]));
    let amd64 = format!("manifests/{}", hub.images[0].manifest.digest);
    assert_eq!(get(&site, &amd64).await.status, 200);
    let layer = format!("blobs/{}", hub.images[0].layers[0].digest);
    assert_eq!(get(&site, &layer).await.body, hub.images[0].layers[0].bytes);

    let pruned = image_json(&site, "prune", &["--platform", "linux/arm64", "--platform", "*/amd64"]);
    assert_eq!(states(&pruned["tree"]), ["by-policy", "evicted", "by-policy", "by-policy", "by-policy"]);
    assert_eq!((pruned["evicted"].as_array().unwrap().len(), &pruned["upstream"]), (2, &json!(true)));
    assert!(pruned["bytes"].as_u64().unwrap() > 800_000);
    assert_eq!(get(&site, &amd64).await.status, 404, "what clients are told is not remembered from before");
    let (status, text) = image(&site, "prune", &["--platform", "linux/arm64"]);
    assert!(status.success() && text.contains("nothing left to remove"), "{text}");
    pull(&site, "v1", &hub).await;

    // What the upstream does not have is told, and is a failure where it was asked for.
    hub.has("GET", &format!("manifests/{}", hub.images[4].manifest.digest), Reply::status(404));
    let (status, text) = image(&site, "complete", &["--platform", "linux/ppc64le"]);
    assert!(status.code() == Some(1) && text.contains("error: linux/ppc64le"), "{text}");
    let (status, text) = image(&site, "complete", &[]);
    assert!(status.success() && text.contains("note: linux/ppc64le"), "{text}");
    let tree = image_json(&site, "show", &[]);
    assert_eq!(states(&tree), ["present", "present", "present", "present", "by-policy"]);
    let (status, text) = image(&site, "prune", &["--platform", "linux/s390x"]);
    assert!(status.success() && text.contains("removed linux/s390x"), "{text}");

    for (verb, more, code, says) in [
        ("complete", &["--platform", "linux/mips"][..], 1, "nothing for linux/mips; it has linux/amd64"),
        ("prune", &["--platform", "windows/*"], 1, "nothing for windows/*"),
        ("complete", &["--platform", "linux"], 2, "not a platform such as"),
        ("prune", &[], 2, "--platform"),
    ] {
        let (status, text) = image(&site, verb, more);
        assert!(status.code() == Some(code) && text.contains(says), "{verb} {more:?}: {text}");
    }
    let elsewhere = format!("{}/app:v1", hub.registry.address());
    let (status, text) = site.launch().run(&["image", "show", &elsewhere]);
    assert!(status.code() == Some(1) && text.contains("not a deltaport"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn completing_waits_for_what_takes_long() {
    let hub = Hub::new().await;
    let (gate, slow) = (Gate::new(), &hub.images[0].layers[0]);
    hub.has("GET", &format!("blobs/{}", slow.digest), Reply::content(slow).held_after(100_000, &gate));
    let site = hub.site("").await;
    std::thread::scope(|scope| {
        let command = scope.spawn(|| image_json(&site, "complete", &["--platform", "linux/amd64"]));
        let post = format!("/v2/{HOST}/app/_deltaport/image/v1?platform=linux/amd64");
        let client = site.client();
        let pending = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(client.send(Request::new("POST", &post)))
        });
        assert_eq!(pending.status, 202, "{}", pending.text());
        assert_eq!(pending.json()["done"], json!(false));
        assert_eq!(pending.json()["tree"]["root"]["digest"], json!(hub.index.digest));
        gate.open();
        let done = command.join().unwrap();
        assert_eq!(states(&done["tree"])[0], "present");
        assert_eq!(done["failed"], json!([]));
    });
    assert_eq!(
        hub.registry.lines().iter().filter(|line| line.ends_with(&slow.digest.to_string())).count(),
        1
    );
}

#[tokio::test]
async fn showing_needs_pull_completing_push_and_pruning_delete() {
    let hub = Hub::new().await;
    let rule = |allow: &str| {
        format!("[[access.rule]]\nrepositories = [\"{HOST}/**\"]\nallow = [{allow}]\nanonymous = true\n")
    };
    for (allow, granted) in [
        ("\"pull\"", [true, false, false]),
        ("\"pull\", \"push\"", [true, true, false]),
        ("\"pull\", \"delete\"", [true, false, true]),
    ] {
        let site = hub.site(&rule(allow)).await;
        pull(&site, "v1", &hub).await;
        for (method, granted) in ["GET", "POST", "DELETE"].into_iter().zip(granted) {
            let path = format!("/v2/{HOST}/app/_deltaport/image/v1?platform=linux/arm64");
            let answer = site.client().send(Request::new(method, &path)).await;
            assert_eq!(answer.status, if granted { 200 } else { 401 }, "{allow} {method}: {}", answer.text());
        }
        let path = format!("/v2/{HOST}/app/_deltaport/image/v1");
        for (method, query, status) in [
            ("DELETE", "", 400),
            ("POST", "?platform=linux", 400),
            ("PUT", "", 405),
            ("GET", "?platform=x", 200),
        ] {
            let answer = site.client().send(Request::new(method, &format!("{path}{query}"))).await;
            let status = if answer.status == 401 { 401 } else { status };
            assert_eq!(answer.status, status, "{method} {query}: {}", answer.text());
        }
    }
}
