//! Upstreams that send something else than they were asked for. Nobody gets a whole wrong blob, and nothing goes on for
//! ever.

use std::time::Duration;

use deltaport_registry::Kind;
use deltaport_testkit::sample::{Content, Image, bytes};
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};

use crate::site::*;

/// The content with one byte changed.
fn wrong(content: &Content, at: usize) -> Content {
    let mut bytes = content.bytes.to_vec();
    bytes[at] ^= 1;
    Content { bytes: bytes.into(), ..content.clone() }
}

#[tokio::test]
async fn an_upstream_that_cannot_resume_sends_everything_again() {
    let content = some(500_000);
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::content(&content).truncated_after(200_000)),
        blob_rule(&content).times(1).reply(Reply::content(&content).whole().truncated_after(100_000)),
        blob_rule(&content).reply(Reply::content(&content).whole()),
    ])
    .await;
    let site = Site::new(&script).await;
    site.gets(&content).await;
    assert_eq!(ranges(&script, &content), [None, from(200_000), from(200_000)]);
}

#[tokio::test]
async fn a_wrong_part_is_not_taken_and_everything_is_asked_for_once() {
    let content = some(500_000);
    let part = |range: &str, start: usize, end: usize| {
        Reply::status(206).header("Content-Range", range).body(content.bytes.slice(start..end))
    };
    for reply in [
        part("bytes 0-299999/500000", 0, 300_000),
        part("bytes 199999-499999/500000", 199_999, 500_000),
        part("bytes 200001-499999/500000", 200_001, 500_000),
        part("bytes 200000-500000/500000", 200_000, 500_000),
        part("items 200000-499999/500000", 200_000, 500_000),
        Reply::status(206).body(content.bytes.slice(200_000..)),
        Reply::status(416).header("Content-Range", "bytes */500000"),
        Reply::status(400),
    ] {
        let script = Script::start(vec![
            blob_rule(&content).times(1).reply(Reply::content(&content).truncated_after(200_000)),
            blob_rule(&content).times(1).reply(reply.clone()),
            blob_rule(&content).reply(Reply::content(&content)),
        ])
        .await;
        let site = Site::new(&script).await;
        site.gets(&content).await;
        assert_eq!(ranges(&script, &content), [None, from(200_000), None], "{reply:?}");
    }
}

/// The answer to `Range` says that it is what was asked for, and is not.
#[tokio::test]
async fn pieces_that_do_not_fit_are_fetched_again_once() {
    let content = some(500_000);
    let bad = wrong(&content, 450_000);
    for good in [true, false] {
        let last = if good { &content } else { &bad };
        let script = Script::start(vec![
            blob_rule(&content).times(1).reply(Reply::content(&content).truncated_after(200_000)),
            blob_rule(&content).times(1).reply(Reply::content(&bad)),
            blob_rule(&content).times(1).reply(Reply::content(last)),
            blob_rule(&content).reply(Reply::status(404)),
        ])
        .await;
        let site = Site::new(&script).await;
        let body = site.open("app", &content.digest).await.unwrap();
        // This one has read bytes of the first attempt and must not get the end of another.
        let (received, whole) = read(&body, 0).await;
        assert!(!whole && received.len() <= 500_000 - HELD_BACK);
        eventually("an end", async || ranges(&script, &content).len() >= 3).await;
        // This one has read nothing, and gets the right bytes if there are any.
        let (received, whole) = read(&body, 0).await;
        assert_eq!(whole, good, "{} bytes", received.len());
        if good {
            assert!(received == content.bytes);
            eventually("the blob is kept", || site.is_filled(&content)).await;
        }
        assert_eq!(ranges(&script, &content), [None, from(200_000), None]);
        eventually("nothing is left", async || site.kept() == 0).await;
    }
}

/// The same over a restart: what was kept is wrong, because the upstream was, or the disk is.
#[tokio::test]
async fn a_beginning_that_is_wrong_is_dropped_once() {
    let content = some(500_000);
    let bad = wrong(&content, 100);
    let mut setup = Setup::default();
    setup.fill.patience = Duration::ZERO;
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::content(&bad).truncated_after(200_000)),
        blob_rule(&content).reply(Reply::content(&content)),
    ])
    .await;
    let site = Site::with(&script, setup).await;
    let (_, whole) = site.get(&content).await.unwrap();
    assert!(!whole);
    let site = site.restarted(&script).await;
    let body = site.open("app", &content.digest).await.unwrap();
    eventually("the blob arrives", || site.is_filled(&content)).await;
    assert_eq!(ranges(&script, &content), [None, from(200_000), None]);
    let (received, whole) = read(&body, 0).await;
    assert!(whole && received == content.bytes);
}

#[tokio::test]
async fn wrong_bytes_in_one_answer_are_what_the_upstream_has() {
    let content = some(500_000);
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::content(&wrong(&content, 499_999))),
        blob_rule(&content).reply(Reply::content(&content)),
    ])
    .await;
    let site = Site::new(&script).await;
    let (received, whole) = site.get(&content).await.unwrap();
    assert!(!whole && received.len() <= 500_000 - HELD_BACK);
    eventually("nothing is left", async || site.kept() == 0).await;
    site.gets(&content).await;
    assert_eq!(ranges(&script, &content), [None, None]);
}

/// More than the manifest says, without a `Content-Length` that would tell.
#[tokio::test]
async fn an_endless_body_ends_at_the_size() {
    let content = some(300_000);
    let image = Image::of("amd64", vec![content.clone()]);
    let endless = || Reply::status(200).body([&content.bytes[..], &bytes(1, 4 << 20)].concat()).chunked();
    let mut rules = manifest_rules(&image, "latest");
    rules.extend([
        blob_rule(&content).times(1).reply(endless()),
        blob_rule(&content).reply(Reply::content(&content)),
        Rule::on("GET", "/v2/app/_deltaport/delta/layer").reply(Reply::status(404)),
    ]);
    let script = Script::start(rules).await;
    let site = Site::new(&script).await;
    site.pull_manifest("latest").await;
    let (received, whole) = site.get(&content).await.unwrap();
    assert!(!whole && received.len() <= 300_000 - HELD_BACK, "{} bytes", received.len());
    assert!(site.upstream.received() < 2 << 20, "it was given up at once");
    site.gets(&content).await;
}

#[tokio::test]
async fn a_length_that_contradicts_the_manifest_is_refused_before_a_byte() {
    let content = some(300_000);
    let image = Image::of("amd64", vec![content.clone()]);
    for lie in [299_999, 300_001] {
        let mut rules = manifest_rules(&image, "latest");
        rules.extend([
            blob_rule(&content).reply(Reply::status(200).body(bytes(7, lie))),
            Rule::on("GET", "/v2/app/_deltaport/delta/layer").reply(Reply::status(404)),
        ]);
        let script = Script::start(rules).await;
        let site = Site::new(&script).await;
        site.pull_manifest("latest").await;
        assert_eq!(site.get(&content).await.unwrap_err().kind(), Kind::Upstream);
        assert_eq!(ranges(&script, &content), [None]);
        assert_eq!(site.kept(), 0);
    }
}

/// The size that the first answer said was wrong; nobody is told another one in the middle.
#[tokio::test]
async fn a_size_that_changes_ends_the_request_and_not_the_blob() {
    let content = some(500_000);
    let short = Content { bytes: content.bytes.slice(..400_000), ..content.clone() };
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::content(&short).truncated_after(100_000)),
        blob_rule(&content).reply(Reply::content(&content)),
    ])
    .await;
    let site = Site::new(&script).await;
    let body = site.open("app", &content.digest).await.unwrap();
    assert_eq!(body.size(), 400_000);
    assert!(!read(&body, 0).await.1);
    eventually("it is given up", async || site.counted("upstream_fill_failures") == 1).await;
    assert_eq!(site.kept(), 0);
    assert!(ranges(&script, &content).len() <= 4, "{:?}", ranges(&script, &content));
    site.gets(&content).await;
}
