//! `deltaport delta push` and `deltaport delta list` against registries: our own, and scripted ones that know less.

use std::io::Cursor;
use std::path::Path;

use deltaport_oci::{Digest, media_type};
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, Content, Image};
use deltaport_testkit::upstream::{Reply, Rule, Upstream};
use serde_json::{Value, json};

use crate::command::{self, Ended};
use crate::registry::{beside, fetch, pair, push, push_manifest};

/// Runs `deltaport delta` with these words.
fn delta(words: &str) -> Ended {
    delta_told(words, "")
}

fn delta_told(words: &str, input: &str) -> Ended {
    command::delta(words, Path::new("."), input)
}

/// The same, for what has to go well.
#[track_caller]
fn good(words: &str) -> Value {
    delta(words).good().json()
}

/// A registry that makes no deltas by itself.
async fn registry() -> Server {
    Launch::new(env!("CARGO_BIN_EXE_deltaport")).config("[delta]\nhistory = 0\n").start().await
}

fn text(digest: &Digest) -> Value {
    digest.to_string().into()
}

#[tokio::test]
async fn deltas_are_published_and_listed_and_make_the_layer() {
    let (server, [old, new], kept) = (registry().await, pair(1), sample::layer(9, 5_000));
    let (before, after) = (
        Image::of("amd64", vec![kept.clone(), old.clone()]),
        Image::of("amd64", vec![kept.clone(), new.clone()]),
    );
    push(&server, "1.0", &before).await;
    push(&server, "1.1", &after).await;
    let app = format!("{}/team/app", server.address());

    let none = beside({
        let app = app.clone();
        move || good(&format!("list {app}:1.1 --json"))
    })
    .await;
    assert_eq!(none["images"][0]["layers"][1]["deltas"], json!([]));
    let words = format!("push --from {app}:1.0 --to {app}:1.1 --json --memory 256MiB");
    let pushed = beside({
        let words = words.clone();
        move || good(&words)
    })
    .await;
    let image = &pushed["images"][0];
    assert_eq!(
        (&image["digest"], &image["platform"]),
        (&text(&after.manifest.digest), &json!("linux/amd64"))
    );
    assert_eq!(image["layers"][0]["outcome"], "held");
    assert_eq!(image["layers"][1]["outcome"], "made");
    assert_eq!(image["layers"][1]["base"]["digest"], text(&old.digest));

    // What is there, for those who know the documents only.
    let path = format!("/v2/team/app/referrers/{}", after.manifest.digest);
    let list: Value = serde_json::from_slice(&fetch(&server, &path).await).unwrap();
    let listed = &list["manifests"][0];
    assert_eq!(listed["artifactType"], media_type::DELTA_ARTIFACT);
    assert_eq!(listed["annotations"]["vnd.deltaport.delta.from"], text(&before.manifest.digest));
    assert_eq!(listed["digest"], image["artifact"]);
    let path = format!("/v2/team/app/manifests/{}", image["artifact"].as_str().unwrap());
    let artifact: Value = serde_json::from_slice(&fetch(&server, &path).await).unwrap();
    assert_eq!(artifact["subject"]["digest"], text(&after.manifest.digest));
    assert_eq!(artifact["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    let layer = &artifact["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.deltaport.layer-delta.v1");
    assert_eq!(layer["annotations"]["vnd.deltaport.delta.base"], text(&old.digest));
    assert_eq!(layer["annotations"]["vnd.deltaport.delta.target"], text(&new.digest));
    let delta = fetch(&server, &format!("/v2/team/app/blobs/{}", layer["digest"].as_str().unwrap())).await;
    let (mut made, limits) = (Vec::new(), deltaport_delta::Limits::default());
    let (mut bases, scratch) = ([Cursor::new(&old.bytes)], Cursor::new(Vec::new()));
    deltaport_delta::apply(&mut bases, &delta[..], &mut made, scratch, &limits).unwrap();
    assert!(made == new.bytes);

    // Once more: the same, and nothing twice.
    beside(move || {
        assert_eq!(good(&words), pushed);
        let listed = good(&format!("list {app}:1.1 --json"));
        let layer = &listed["images"][0]["layers"][1];
        assert_eq!(layer["deltas"].as_array().unwrap().len(), 1);
        let share = layer["deltas"][0]["percent"].as_f64().unwrap();
        assert!(share > 0.0 && share < 50.0, "{listed}");
        let shown = delta_told(&format!("list {app}:1.1"), "").stdout;
        assert!(shown.contains(" %\n") && shown.contains("no deltas"), "{shown}");
    })
    .await;
}

#[tokio::test]
async fn every_platform_has_an_artifact_of_its_own() {
    let (server, [old, new], [arm, new_arm]) = (registry().await, pair(11), pair(13));
    let one = |platform: &str, layer: &Content| Image::of(platform, vec![layer.clone()]);
    for (tag, images) in [
        ("1.0", [one("amd64", &old), one("arm64", &arm)]),
        ("1.1", [one("amd64", &new), one("arm64", &new_arm)]),
    ] {
        for image in &images {
            push(&server, &image.manifest.digest.to_string(), image).await;
        }
        let index = sample::index(&[&images[0].manifest, &images[1].manifest], json!({}));
        push_manifest(&server, tag, &index).await;
    }
    let app = format!("{}/team/app", server.address());
    let (pushed, listed) = beside(move || {
        (
            good(&format!("push --from {app}:1.0 --to {app}:1.1 --json --profile fast")),
            good(&format!("list {app}:1.1 --json")),
        )
    })
    .await;
    for (image, base) in [(0, &old), (1, &arm)] {
        assert_eq!(pushed["images"][image]["layers"][0]["base"]["digest"], text(&base.digest));
        assert_eq!(listed["images"][image]["layers"][0]["deltas"][0]["base"], text(&base.digest));
        let artifact = &pushed["images"][image]["artifact"];
        assert_eq!(&listed["images"][image]["layers"][0]["deltas"][0]["artifact"], artifact);
    }
}

#[tokio::test]
async fn what_is_not_worth_it_is_not_published() {
    let server = registry().await;
    let noise = |seed| Content::new("application/vnd.oci.image.layer.v1.tar", sample::bytes(seed, 20_000));
    let (before, after) = (Image::of("amd64", vec![noise(1)]), Image::of("amd64", vec![noise(2)]));
    push(&server, "1.0", &before).await;
    push(&server, "1.1", &after).await;
    push(&server, "again", &after).await;
    let app = format!("{}/team/app", server.address());
    beside(move || {
        let ended = delta(&format!("push --from {app}:1.0 --to {app}:1.1 --json"));
        assert_eq!((ended.code, &ended.json()["images"][0]["artifact"]), (4, &Value::Null), "{ended:?}");
        assert_eq!(ended.json()["images"][0]["layers"][0]["outcome"], "not-worth-it");
        let ended = delta(&format!("push --from {app}:again --to {app}:1.1"));
        assert_eq!(ended.code, 0, "none is needed: {ended:?}");
        assert!(ended.stdout.contains("nothing to publish"), "{ended:?}");
        for (words, code, says) in [
            (format!("push --from {app}:absent --to {app}:1.1"), 1, "not found"),
            (format!("push --from other.example/a:1 --to {app}:1.1"), 1, "same registry"),
            (format!("push --from app:1 --to {app}:1.1"), 2, "host"),
            (format!("push --from {app} --to {app}:1.1"), 2, "tag"),
            (format!("list {app}:1.1 --username me"), 2, "--password-stdin"),
            (format!("list {app}:1.1 --username me --password-stdin"), 1, "no password"),
            (format!("list {app}:1.1 --authfile /nonexistent/file"), 1, "/nonexistent/file"),
        ] {
            let ended = delta(&words);
            assert_eq!(ended.code, code, "{words}: {ended:?}");
            assert!(ended.stderr.contains(says) && ended.stdout.is_empty(), "{words}: {ended:?}");
        }
    })
    .await;
}

/// A registry of the time before lists of referrers, with two images in `app`; it takes everything.
fn without_lists(old: &Image, new: &Image) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (tag, image) in [("1.0", old), ("1.1", new)] {
        rules.push(
            Rule::on("GET", &format!("/v2/app/manifests/{tag}")).reply(Reply::content(&image.manifest)),
        );
        for blob in image.blobs() {
            let path = format!("/v2/app/blobs/{}", blob.digest);
            rules.push(Rule::on("GET", &path).reply(Reply::content(blob)));
        }
    }
    let list = format!("/v2/app/referrers/{}", new.manifest.digest);
    rules.push(Rule::on("GET", &list).reply(Reply::status(404).body("404 page not found")));
    rules
}

#[tokio::test]
async fn a_registry_without_lists_of_referrers_gets_one_under_a_tag() {
    let [old, new] = pair(21);
    let (before, after) = (Image::of("amd64", vec![old]), Image::of("amd64", vec![new.clone()]));
    // What will be pushed is known, since the same images always give the same artifact: our own registry says it.
    let server = registry().await;
    push(&server, "1.0", &before).await;
    push(&server, "1.1", &after).await;
    let app = format!("{}/team/app", server.address());
    let pushed = beside(move || good(&format!("push --from {app}:1.0 --to {app}:1.1 --json"))).await;
    let artifact = pushed["images"][0]["artifact"].as_str().unwrap().to_owned();
    let blob = pushed["images"][0]["layers"][0]["delta"]["digest"].as_str().unwrap().to_owned();
    let manifest = fetch(&server, &format!("/v2/team/app/manifests/{artifact}")).await;

    let tag = format!("/v2/app/manifests/sha256-{}", after.manifest.digest.hex());
    let mut rules = without_lists(&before, &after);
    rules.push(Rule::on("GET", &tag).reply(Reply::status(404)));
    for digest in [blob.clone(), Digest::sha256(b"{}").to_string()] {
        rules.push(Rule::on("HEAD", &format!("/v2/app/blobs/{digest}")).reply(Reply::status(404)));
    }
    let upload = Reply::status(202).header("Location", "/v2/app/blobs/uploads/1");
    // The first attempt is turned away.
    rules.push(
        Rule::on("POST", "/v2/app/blobs/uploads/")
            .times(1)
            .reply(Reply::status(503).header("Retry-After", "0")),
    );
    rules.push(Rule::on("POST", "/v2/app/blobs/uploads/").reply(upload));
    rules.push(Rule::on("PUT", "/v2/app/blobs/uploads/1").reply(Reply::status(201)));
    rules.push(Rule::on("PUT", &format!("/v2/app/manifests/{artifact}")).reply(Reply::status(201)));
    rules.push(Rule::on("PUT", &tag).reply(Reply::status(201)).then("pushed"));
    let upstream = Upstream::start(rules).await;
    // Once it was pushed, the list is there.
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [{
        "mediaType": media_type::OCI_MANIFEST, "digest": artifact, "size": manifest.len(),
        "artifactType": media_type::DELTA_ARTIFACT,
    }]});
    let index = Content::new(media_type::OCI_INDEX, index.to_string());
    upstream.first(Rule::on("GET", &tag).in_state("pushed").reply(Reply::content(&index)));
    let content = Content::new(media_type::OCI_MANIFEST, manifest.clone());
    upstream.first(Rule::on("GET", &format!("/v2/app/manifests/{artifact}")).reply(Reply::content(&content)));
    let app = format!("{}/app", upstream.address());
    let again = beside({
        let app = app.clone();
        move || good(&format!("push --from {app}:1.0 --to {app}:1.1 --json"))
    })
    .await;
    assert_eq!(again, pushed);
    let asked = upstream.asked();
    assert!(asked.iter().all(|asked| asked.scripted), "{:#?}", upstream.lines());
    let sent = |line: &str| asked.iter().find(|asked| asked.line() == line).unwrap().body.clone();
    assert_eq!(sent(&format!("PUT /v2/app/manifests/{artifact}")), manifest);
    let list: Value = serde_json::from_slice(&sent(&format!("PUT {tag}"))).unwrap();
    assert_eq!(list["manifests"][0]["digest"], json!(artifact));
    assert_eq!(list["manifests"][0]["artifactType"], media_type::DELTA_ARTIFACT);

    let listed = beside(move || good(&format!("list {app}:1.1 --json"))).await;
    let layer = &listed["images"][0]["layers"][0];
    assert_eq!((&layer["digest"], &layer["deltas"][0]["digest"]), (&text(&new.digest), &json!(blob)));
}

#[tokio::test]
async fn bytes_that_are_not_the_layer_end_in_an_error() {
    let [old, new] = pair(31);
    let (before, after) = (Image::of("amd64", vec![old]), Image::of("amd64", vec![new.clone()]));
    let upstream = Upstream::start(without_lists(&before, &after)).await;
    let path = format!("/v2/app/blobs/{}", new.digest);
    let mut wrong = new.bytes.to_vec();
    wrong[100] ^= 1;
    let wrong = Reply::status(200).body(wrong);
    upstream.first(Rule::on("GET", &path).reply(wrong));
    // A connection that breaks is taken up where it broke.
    let whole = Reply::content(&before.layers[0]);
    let base = format!("/v2/app/blobs/{}", before.layers[0].digest);
    upstream.first(Rule::on("GET", &base).times(1).reply(whole.reset_after(3_000)));
    let app = format!("{}/app", upstream.address());
    let ended = beside(move || delta(&format!("push --from {app}:1.0 --to {app}:1.1"))).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains(&format!("where {} should be", new.digest)), "{ended:?}");
    let ranges: Vec<_> = upstream
        .asked()
        .iter()
        .filter(|asked| asked.target == base)
        .map(|asked| asked.headers.first("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 2, "{:#?}", upstream.lines());
    assert!(ranges[0].is_none() && ranges[1].as_ref().unwrap().starts_with("bytes="), "{ranges:?}");
    assert!(upstream.lines().iter().all(|line| line.starts_with("GET ")), "nothing was pushed");
}

#[tokio::test]
async fn passwords_come_from_the_standard_input() {
    let image = Image::small(41);
    let mut rules = vec![
        Rule::on("GET", "/v2/app/manifests/1.1")
            .with_header("Authorization", "Basic bWU6c2VjcmV0")
            .reply(Reply::content(&image.manifest)),
        Rule::on("GET", "/v2/app/manifests/1.1")
            .reply(Reply::status(401).header("WWW-Authenticate", "Basic realm=\"r\"")),
    ];
    rules.push(
        Rule::on("GET", &format!("/v2/app/blobs/{}", image.config.digest))
            .reply(Reply::content(&image.config)),
    );
    let list = sample::index(&[], json!({}));
    rules.push(
        Rule::on("GET", &format!("/v2/app/referrers/{}", image.manifest.digest)).reply(Reply::content(&list)),
    );
    let upstream = Upstream::start(rules).await;
    let app = format!("{}/app", upstream.address());
    let (refused, listed) = beside(move || {
        (
            delta(&format!("list {app}:1.1")),
            delta_told(&format!("list {app}:1.1 --username me --password-stdin"), "secret\n"),
        )
    })
    .await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("password"), "{refused:?}");
    assert_eq!((listed.code, listed.stderr.as_str()), (0, ""), "{listed:?}");
    assert!(!listed.stdout.contains("secret"));
}
