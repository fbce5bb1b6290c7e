//! Transfers that break off go on, in the same process and the next, from the registry's own address.

use std::time::Duration;

use deltaport_testkit::upstream::{Gate, Reply, Rule, Upstream as Script};

use crate::site::*;

/// A patience that ends a fill as soon as its upstream is down.
fn impatient() -> Setup {
    let mut setup = Setup { stall: Duration::from_millis(100), ..Setup::default() };
    setup.fill.patience = Duration::ZERO;
    setup
}

#[tokio::test]
async fn resets_cost_nothing_twice() {
    let content = some(1 << 20);
    let script =
        Script::start(vec![blob_rule(&content).reply(Reply::content(&content).reset_after(100_000))]).await;
    let site = Site::new(&script).await;
    site.gets(&content).await;
    assert_eq!(site.upstream.received(), 1 << 20);
    let asked = ranges(&script, &content);
    let expected: Vec<_> = (0..11).map(|n| from(n * 100_000).filter(|_| n > 0)).collect();
    assert_eq!(asked, expected);
    assert_eq!(site.counted("upstream_resumes"), 10);
    assert_eq!(site.counted("upstream_received_bytes"), 1 << 20);
}

#[tokio::test]
async fn a_fill_that_was_given_up_is_gone_on_with_by_the_next_client() {
    let content = some(600_000);
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::content(&content).truncated_after(250_000)),
        blob_rule(&content).times(1).reply(Reply::content(&content).stalled_after(100_000)),
        blob_rule(&content).reply(Reply::content(&content)),
    ])
    .await;
    let site = Site::with(&script, impatient()).await;
    let (received, whole) = site.get(&content).await.unwrap();
    assert!(!whole && received == content.bytes[..received.len()]);
    let (received, whole) = site.get(&content).await.unwrap();
    assert!(!whole && received == content.bytes[..received.len()] && received.len() >= 250_000);
    site.gets(&content).await;
    assert_eq!(ranges(&script, &content), [None, from(250_000), from(350_000)]);
    assert_eq!(site.upstream.received(), 600_000);
    eventually("nothing is left", async || site.kept() == 0).await;
}

#[tokio::test]
async fn a_restart_goes_on_where_the_process_ended() {
    let (content, gate) = (some(2 << 20), Gate::new());
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::content(&content).held_after(1_500_000, &gate)),
        blob_rule(&content).reply(Reply::content(&content)),
    ])
    .await;
    let site = Site::with(&script, Setup { stall: Duration::from_secs(30), ..Setup::default() }).await;
    let body = site.open("app", &content.digest).await.unwrap();
    eventually("bytes arrive", async || site.upstream.received() == 1_500_000).await;
    drop(body);
    let site = site.restarted(&script).await;
    site.gets(&content).await;
    let asked = ranges(&script, &content);
    // What had arrived a moment before may not have been written.
    let begun = (1_400_000..=1_500_000).find(|start| asked == [None, from(*start)]);
    let begun = begun.unwrap_or_else(|| panic!("{asked:?}"));
    assert_eq!(script.sent(), 1_500_000 + (2 << 20) - begun as u64);
    gate.open();
}

/// What has arrived can be read while the upstream cannot.
#[tokio::test]
async fn the_beginning_is_served_while_the_link_is_down() {
    let content = some(600_000);
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::content(&content).truncated_after(300_000)),
        blob_rule(&content).reply(Reply::status(503)),
    ])
    .await;
    let mut setup = impatient();
    setup.fill.patience = Duration::from_secs(2);
    let site = Site::with(&script, setup).await;
    for _ in 0..2 {
        let (received, whole) = site.get(&content).await.unwrap();
        assert!(!whole && received == content.bytes[..300_000], "{} bytes", received.len());
    }
    // Or does not answer at all: nobody waits for that.
    script.first(blob_rule(&content).reply(Reply::content(&content).delayed(Duration::from_secs(4))));
    let body = site.open("app", &content.digest).await.unwrap();
    let asked = ranges(&script, &content).len();
    assert_eq!(body.size(), 600_000);
    let mut stream = body.read(deltaport_oci::wire::ByteRange { start: 0, end: 300_000 });
    let first = futures_util::StreamExt::next(&mut stream).await.unwrap().unwrap();
    assert!(first == content.bytes[..first.len()] && script.sent() == 300_000, "{asked}");
}

/// Clients are told when the upstream has it no more, and do not get a beginning without an end for ever.
#[tokio::test]
async fn what_the_upstream_has_no_more_is_not_kept() {
    // Who is refused today may be let in tomorrow.
    for (status, kept) in [(404, 0), (403, 2)] {
        let content = some(600_000);
        let script = Script::start(vec![
            blob_rule(&content).times(1).reply(Reply::content(&content).truncated_after(300_000)),
            blob_rule(&content).reply(Reply::status(status)),
        ])
        .await;
        let site = Site::with(&script, impatient()).await;
        assert!(!site.get(&content).await.unwrap().1);
        let refused = site.get(&content).await.unwrap_err();
        assert_eq!(refused.kind(), deltaport_registry::Kind::NotFound);
        assert_eq!(site.kept(), kept, "{status}");
    }
}

#[tokio::test]
async fn what_one_upstream_sent_is_not_gone_on_with_from_another_repository() {
    let content = some(300_000);
    let other = format!("/v2/other/blobs/{}", content.digest);
    let script = Script::start(vec![
        blob_rule(&content).reply(Reply::content(&content).truncated_after(100_000)),
        Rule::on("GET", &other).reply(Reply::content(&content)),
    ])
    .await;
    let site = Site::with(&script, impatient()).await;
    assert!(!site.get(&content).await.unwrap().1);
    let (received, whole) = read(&site.open("other", &content.digest).await.unwrap(), 0).await;
    assert!(whole && received == content.bytes);
    let asked = script.asked();
    let last = asked.iter().find(|asked| asked.target == other).unwrap();
    assert!(last.headers.first("range").is_none());
}

/// 401 with a challenge, a token, and the token no longer valid when the connection breaks.
#[tokio::test]
async fn a_token_that_expires_on_the_way_is_renewed() {
    let content = some(600_000);
    let script = Script::start(vec![]).await;
    let challenge = format!("Bearer realm=\"{}/token\",service=\"s\"", script.url());
    let token =
        |token: &str| Reply::status(200).body(format!("{{\"token\":\"{token}\",\"expires_in\":3600}}"));
    let with = |token: &str| blob_rule(&content).with_header("authorization", &format!("Bearer {token}"));
    // Each goes before those above it.
    for rule in [
        blob_rule(&content).reply(Reply::status(401).header("WWW-Authenticate", &challenge)),
        with("two").reply(Reply::content(&content)),
        with("one").times(1).reply(Reply::content(&content).truncated_after(200_000)),
        Rule::on("GET", "/token").reply(token("two")),
        Rule::on("GET", "/token").times(1).reply(token("one")),
    ] {
        script.first(rule);
    }
    let site = Site::new(&script).await;
    site.gets(&content).await;
    let asked = ranges(&script, &content);
    assert_eq!(asked, [None, None, from(200_000), from(200_000)], "asked again with a new token");
    assert_eq!(site.counted("upstream_received_bytes"), 600_000);
}

/// The address that a registry redirects to is good for a moment only; every attempt begins at the registry.
#[tokio::test]
async fn a_redirect_is_followed_anew_each_time() {
    for gone in [403, 404, 410, 503] {
        let content = some(600_000);
        let storage = Script::start(vec![
            Rule::on("GET", "/1").times(1).reply(Reply::content(&content).truncated_after(200_000)),
            Rule::on("GET", "/2").reply(Reply::status(gone)),
            Rule::on("GET", "/3").reply(Reply::content(&content)),
        ])
        .await;
        let to = |n: u32| Reply::status(307).header("Location", &format!("{}/{n}", storage.url()));
        let script = Script::start(vec![
            blob_rule(&content).times(1).reply(to(1)),
            blob_rule(&content).times(2).reply(to(2)),
            blob_rule(&content).reply(to(3)),
        ])
        .await;
        let site = Site::new(&script).await;
        site.gets(&content).await;
        assert_eq!(storage.lines(), ["GET /1", "GET /2", "GET /2", "GET /3"], "{gone}");
        assert_eq!(storage.asked()[3].headers.first("range"), Some("bytes=200000-"));
        assert_eq!(storage.sent(), 600_000);
    }
}

/// An upstream that is gone for longer than anybody waits, and comes back.
#[tokio::test]
async fn patience_is_a_time_without_bytes_and_no_number_of_attempts() {
    let content = some(400_000);
    let script = Script::start(vec![
        blob_rule(&content).times(1).reply(Reply::content(&content).truncated_after(100_000)),
        blob_rule(&content).times(4).reply(Reply::status(502)),
        blob_rule(&content).times(1).reply(Reply::content(&content).truncated_after(1)),
        blob_rule(&content).times(2).reply(Reply::status(429)),
        blob_rule(&content).reply(Reply::content(&content)),
    ])
    .await;
    let mut setup = Setup::default();
    setup.fill.patience = Duration::from_secs(60);
    let site = Site::with(&script, setup).await;
    site.gets(&content).await;
    assert_eq!(site.upstream.received(), 400_000);
    assert_eq!(ranges(&script, &content).len(), 9);
}

#[tokio::test]
async fn a_slow_drip_is_progress() {
    let content = some(200_000);
    let script = Script::start(vec![
        blob_rule(&content).reply(Reply::content(&content).slowly(Duration::from_millis(60))),
    ])
    .await;
    let mut setup = impatient();
    setup.stall = Duration::from_millis(500);
    let site = Site::with(&script, setup).await;
    site.gets(&content).await;
    assert_eq!(ranges(&script, &content), [None]);
}
