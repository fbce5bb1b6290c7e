//! The signature gate as operators meet it: a policy in a file, keys that are replaced while `deltaport serve` runs, and what
//! clients and commands are told.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::time::{Duration, Instant};

use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{Content, Image};
use deltaport_testkit::signer::{Signature, Signer};
use deltaport_testkit::upstream::{Reply, Rule, Upstream};
use serde_json::{Value, json};

const OWN: &str = "own.example:5000";

/// A policy that wants the signature of the key in a file.
fn policy(launch: &Launch) -> Value {
    let key = launch.home().join("team.pub");
    let requirement = json!({ "type": "sigstoreSigned", "keyPath": key });
    json!({ "default": [requirement] })
}

/// A registry with a policy and this key, which everyone may pull from and `anna` push to; and what else it is told.
async fn served(key: &Signer, more: &str) -> Server {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    launch.file("team.pub", key.pem());
    let path = launch.file("policy.json", policy(&launch).to_string());
    launch.config(&format!("{more}\n[trust]\npolicy = {path:?}\nname = {OWN:?}\n")).start().await
}

async fn get(server: &Server, path: &str) -> Response {
    server.client().send(Request::get(path)).await
}

async fn push_blob(server: &Server, blob: &Content) {
    let upload = Request::post("/v2/team/app/blobs/uploads/").query("digest", blob.digest);
    assert_eq!(server.client().send(upload.body(blob.bytes.clone())).await.status, 201);
}

async fn push(server: &Server, manifest: &Content, reference: &str) {
    let put = Request::put(&format!("/v2/team/app/manifests/{reference}"))
        .header("Content-Type", &manifest.media_type)
        .body(manifest.bytes.clone());
    assert_eq!(server.client().send(put).await.status, 201);
}

async fn push_signature(server: &Server, signature: &Signature) {
    for blob in signature.blobs() {
        push_blob(server, blob).await;
    }
    push(server, &signature.manifest, &signature.tag).await;
}

/// Asks until the answer is this one: files are looked at every two seconds.
async fn until(server: &Server, path: &str, status: u16) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = get(server, path).await;
        if found.status == status {
            return;
        }
        assert!(Instant::now() < deadline, "{} and not {status}: {}", found.status, found.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_is_pushed_waits_is_signed_and_follows_the_key() {
    let (key, image) = (Signer::new(), Image::small(1));
    let mut server = served(&key, "public_upstreams = false").await;
    for blob in image.blobs() {
        push_blob(&server, blob).await;
    }
    push(&server, &image.manifest, "1.0").await;
    let layer = format!("/v2/team/app/blobs/{}", image.layers[0].digest);
    // Everyone on this machine may push, so the manifest is seen, to be signed; its blobs are given to nobody.
    assert_eq!(get(&server, "/v2/team/app/manifests/1.0").await.status, 200);
    assert_eq!(server.client().send(Request::head(&layer)).await.status, 200);
    let refused = get(&server, &layer).await;
    assert_eq!((refused.status, &refused.json()["errors"][0]["code"]), (403, &json!("DENIED")));
    let image_name = format!("{}/team/app:1.0", server.address());
    let (status, text) = server.launch().run(&["image", "show", &image_name]);
    assert!(status.success() && text.contains("as 1.0: refused by default: a signature is needed"), "{text}");

    let name = format!("{OWN}/team/app:1.0");
    let verify = |server: &Server| {
        let policy = server.launch().home().join("policy.json");
        let policy = policy.to_str().unwrap();
        server.launch().run(&["verify", &image_name, "--policy", policy, "--name", &name])
    };
    let (status, text) = verify(&server);
    assert!(status.code() == Some(1) && text.contains("a signature is needed"), "{text}");
    push_signature(&server, &key.sign(&image.manifest.digest, &name)).await;
    assert_eq!(get(&server, &layer).await.status, 200);
    let (status, text) = verify(&server);
    assert!(status.success() && text.starts_with("accepted sha256:"), "{text}");

    let (status, text) = server.launch().run(&["image", "show", &image_name, "--json"]);
    let shown: Value = serde_json::from_str(&text).unwrap();
    let verdicts = shown["root"]["verdicts"].as_array().unwrap();
    assert!(status.success() && verdicts.len() == 2, "{text}");
    let verdict = &verdicts[1];
    assert_eq!(
        (&verdict["tag"], &verdict["accepted"], &verdict["current"]),
        (&json!("1.0"), &json!(true), &json!(true))
    );
    let signer = verdict["grounds"][0]["signer"]["key"].as_str().unwrap();
    let (_, text) = server.launch().run(&["image", "show", &image_name]);
    assert!(text.contains(&format!("as 1.0: accepted by default, signed with key {signer}; ")), "{text}");

    // The key is replaced, without a restart; a broken file changes nothing.
    let home = server.launch().home().to_owned();
    std::fs::write(home.join("team.pub"), Signer::new().pem()).unwrap();
    until(&server, &layer, 403).await;
    std::fs::write(home.join("team.pub"), "no key").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(get(&server, &layer).await.status, 403);
    std::fs::write(home.join("team.pub"), key.pem()).unwrap();
    until(&server, &layer, 200).await;
    let log = server.log();
    assert!(log.contains("the policy stays as it was"), "{log}");

    // Nor does it start with one that cannot be used.
    assert!(server.terminate().success());
    std::fs::write(home.join("team.pub"), "no key").unwrap();
    let config = home.join("policy.json");
    std::fs::write(&config, "{}").unwrap();
    let (status, text) = server.launch().run(&["verify", &image_name, "--policy", config.to_str().unwrap()]);
    assert!(status.code() == Some(3) && text.contains("policy.json cannot be used"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_brings_what_is_signed_and_nothing_of_the_rest() {
    let key = Signer::new();
    let (good, bad) = (Image::small(2), Image::small(3));
    let upstream = Upstream::start(vec![Rule::no_hub()]).await;
    let has = |method: &str, path: &str, reply: Reply| {
        upstream.first(Rule::on(method, &format!("/v2/app/{path}")).reply(reply));
    };
    for (image, tag) in [(&good, "good"), (&bad, "bad")] {
        for reference in [tag, &image.manifest.digest.to_string()] {
            has("HEAD", &format!("manifests/{reference}"), Reply::content(&image.manifest));
            has("GET", &format!("manifests/{reference}"), Reply::content(&image.manifest));
        }
        for ending in [".sig", ".att", ".sbom", ""] {
            for method in ["HEAD", "GET"] {
                let tag = format!("manifests/sha256-{}{ending}", image.manifest.digest.hex());
                has(method, &tag, Reply::status(404));
            }
        }
        has("GET", &format!("referrers/{}", image.manifest.digest), Reply::status(404));
        for blob in image.blobs() {
            has("GET", &format!("blobs/{}", blob.digest), Reply::content(blob));
        }
    }
    let signature = key.sign(&good.manifest.digest, "hub.example/app:good");
    for reference in [&signature.tag, &signature.manifest.digest.to_string()] {
        for method in ["HEAD", "GET"] {
            has(method, &format!("manifests/{reference}"), Reply::content(&signature.manifest));
        }
    }
    for blob in signature.blobs() {
        has("GET", &format!("blobs/{}", blob.digest), Reply::content(blob));
    }
    let server = served(
        &key,
        &format!(
            "[[upstream]]\nhost = \"hub.example\"\nurl = {:?}\n[[mirror]]\nname = \"app\"\n\
             source = \"hub.example/app\"\ntags = [\"good\", \"bad\"]\n",
            upstream.url()
        ),
    )
    .await;
    let registry = server.address().to_string();
    let (status, text) = server.launch().run(&["mirror", "run", &registry, "app", "--json"]);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("hub.example/app:bad is not accepted here"), "{text}");
    let asked = upstream.lines().join("\n");
    for blob in bad.blobs() {
        assert!(!asked.contains(&blob.digest.to_string()), "{asked}");
    }
    for (path, status) in [
        ("manifests/good".to_owned(), 200),
        (format!("blobs/{}", good.layers[0].digest), 200),
        (format!("manifests/{}", signature.tag), 200),
        ("manifests/bad".to_owned(), 403),
        (format!("manifests/{}", bad.manifest.digest), 403),
        (format!("blobs/{}", bad.layers[0].digest), 403),
    ] {
        let found = get(&server, &format!("/v2/hub.example/app/{path}")).await;
        assert_eq!(found.status, status, "{path}: {}", found.text());
    }
}
