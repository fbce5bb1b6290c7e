//! An upstream that is gone for a day.

use std::time::Duration;

use deltaport_testkit::sample::Image;
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};

use crate::site::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is said in place of an upstream that is gone, in order that it is not asked all the time.
fn gone() -> Reply {
    Reply::status(503).header("Retry-After", "600")
}

/// The client that waits gets all of it if the site is patient enough, else the next that comes; either way no byte
/// crosses the link twice.
#[tokio::test]
async fn a_transfer_goes_on_after_a_day() {
    for (patience, waits) in [(2 * DAY, true), (HOUR, false)] {
        let content = some(600_000);
        let script = Script::start(vec![
            blob_rule(&content).times(1).reply(Reply::content(&content).truncated_after(250_000)),
            blob_rule(&content).reply(gone()),
        ])
        .await;
        let mut setup = Setup::default();
        setup.fill.patience = patience;
        let site = Site::with(&script, setup).await;
        let body = site.open("app", &content.digest).await.unwrap();
        let client = tokio::spawn(async move { read(&body, 0).await });
        eventually("it is asked for again", async || ranges(&script, &content).len() > 1).await;

        // From here on time passes as soon as nobody has anything to do.
        tokio::time::pause();
        tokio::time::sleep(DAY).await;
        tokio::time::resume();
        assert_eq!(client.is_finished(), !waits);
        let attempts = ranges(&script, &content).len();
        let expected = if waits { 100..200 } else { 5..10 };
        assert!(expected.contains(&attempts), "{attempts}");

        script.first(blob_rule(&content).reply(Reply::content(&content)));
        if waits {
            // The pause between two attempts may have just begun.
            tokio::time::pause();
            tokio::time::sleep(Duration::from_secs(600)).await;
            tokio::time::resume();
        } else {
            site.gets(&content).await;
        }
        let (received, whole) = client.await.unwrap();
        assert_eq!(whole, waits);
        assert!(received == content.bytes[..received.len()], "{} bytes", received.len());
        assert!(site.is_filled(&content).await);
        assert_eq!(*ranges(&script, &content).last().unwrap(), from(250_000));
        assert_eq!(site.upstream.received(), 600_000);
    }
}

/// Neither the tag nor a blob nor the beginning of one is lost to the collector, which does not stop meanwhile.
#[tokio::test]
async fn what_is_here_is_served_after_a_day_and_what_has_begun_is_kept() {
    let (image, begun) = (Image::small(1), some(600_000));
    let mut rules = manifest_rules(&image, "latest");
    rules.extend(image.blobs().map(|blob| blob_rule(blob).reply(Reply::content(blob))));
    rules.push(blob_rule(&begun).reply(Reply::content(&begun).truncated_after(250_000)));
    let script = Script::start(rules).await;
    let mut setup = Setup::default();
    setup.fill.patience = Duration::ZERO;
    let site = Site::with(&script, setup).await;
    site.pull_manifest("latest").await;
    for blob in image.blobs() {
        site.gets(blob).await;
    }
    assert!(!site.get(&begun).await.unwrap().1);

    for method in ["HEAD", "GET"] {
        script.first(Rule::on(method, "/v2/app/manifests/latest").reply(gone()));
    }
    script.first(blob_rule(&begun).reply(gone()));
    for hours in 1..=24 {
        site.collect_in(hours * HOUR).await;
    }
    let requests = script.lines().len();
    let name = repository("app");
    let pulled = site.registry.manifest(&name, &"latest".parse().unwrap()).await.unwrap();
    assert!(pulled.stale && pulled.bytes == image.manifest.bytes);
    for blob in image.blobs() {
        assert!(site.is_filled(blob).await);
        site.gets(blob).await;
    }
    assert_eq!(script.lines()[requests..], ["HEAD /v2/app/manifests/latest"]);
    script.first(blob_rule(&begun).reply(Reply::content(&begun)));
    site.gets(&begun).await;
    assert_eq!(*ranges(&script, &begun).last().unwrap(), from(250_000));
}
