//! Deltas over links so slow that they are not there in time.

use std::time::{Duration, Instant};

use deltaport_oci::wire::ByteRange;
use deltaport_testkit::upstream::{Gate, Reply, Rule};
use futures_util::StreamExt as _;

use crate::deltas::{Update, assert_came_once, fallbacks};
use crate::site::*;

/// A delta comes in pieces, one after the other, and takes longer than one may; but it comes.
#[tokio::test]
async fn a_delta_that_comes_steadily_is_waited_for() {
    let update = Update::of_every(2);
    let pieces = update.delta.bytes.len().div_ceil(16 << 10);
    assert!(pieces > 15 && update.delta.bytes.len() < update.layer().bytes.len(), "{pieces}");
    let script = update
        .upstream([
            Rule::on("GET", &update.question()).reply(update.sent().slowly(Duration::from_millis(200))),
            blob_rule(update.layer()).reply(Reply::content(update.layer())),
        ])
        .await;
    let mut setup = Setup { stall: Duration::from_secs(30), ..Setup::default() };
    // Less than those pieces take; a quarter of it, in which one has to come, is more than three of them take.
    setup.fill.delta_deadline = Duration::from_millis(2800);
    let site = update.site(&script, setup).await;
    let began = Instant::now();
    let body = site.open("app", &update.layer().digest).await.unwrap();
    let (received, whole) = read(&body, 0).await;
    assert!(whole && received == update.layer().bytes);
    assert!(began.elapsed() > Duration::from_millis(2800), "the delta was there in time");
    // Clients have had first bytes meanwhile, and nothing else of the layer was on the link.
    assert_eq!(ranges(&script, update.layer()), [Some("bytes=0-65535".to_owned())]);
    assert_eq!(fallbacks(&site), 0);
}

/// One that comes steadily for a while and then stands still is overtaken.
#[tokio::test]
async fn a_delta_that_stops_coming_is_not_waited_for() {
    let update = Update::new();
    let gate = Gate::new();
    let most = update.delta.bytes.len() - 100;
    let script = update
        .upstream([
            Rule::on("GET", &update.question()).reply(update.sent().held_after(most, &gate)),
            blob_rule(update.layer()).reply(Reply::content(update.layer())),
        ])
        .await;
    let mut setup = Setup { stall: Duration::from_secs(30), ..Setup::default() };
    setup.fill.delta_deadline = Duration::from_millis(400);
    let site = update.site(&script, setup).await;
    site.gets(update.layer()).await;
    assert_came_once(&script, update.layer());
    eventually("it is counted", async || fallbacks(&site) == 1).await;
    gate.open();
}

/// While a delta comes slowly, who asks for the layer has first bytes, which are those of the layer.
#[tokio::test]
async fn first_bytes_are_there_before_a_delta_is() {
    let update = Update::of_every(2);
    let gate = Gate::new();
    let all = update.delta.bytes.len();
    let script = update
        .upstream([
            Rule::on("GET", &update.question())
                .reply(update.sent().slowly(Duration::from_millis(50)).held_after(all - 10, &gate)),
            blob_rule(update.layer()).reply(Reply::content(update.layer())),
        ])
        .await;
    let mut setup = Setup { stall: Duration::from_secs(30), ..Setup::default() };
    setup.fill.delta_deadline = Duration::from_millis(400);
    let site = update.site(&script, setup).await;
    let body = site.open("app", &update.layer().digest).await.unwrap();
    let mut stream = body.read(ByteRange { start: 0, end: update.layer().bytes.len() as u64 });
    let first = stream.next().await.unwrap().unwrap();
    assert!(!first.is_empty() && update.layer().bytes.starts_with(&first));
    assert_eq!(ranges(&script, update.layer())[0], Some("bytes=0-65535".to_owned()));
    gate.open();
    let mut received = first.to_vec();
    while let Some(chunk) = stream.next().await {
        received.extend_from_slice(&chunk.unwrap());
    }
    assert!(received == update.layer().bytes);
}
