//! Deltas over links so slow that they are not there in time.

use std::time::Duration;

use deltaport_testkit::upstream::{Gate, Reply, Rule};

use crate::deltas::{Update, fallbacks};
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
    let before = script.sent();
    let body = site.open("app", &update.layer().digest).await.unwrap();
    let all = update.delta.bytes.len() as u64;
    eventually("the delta is there", async || script.sent() - before >= all).await;
    // How long it takes to apply is the machine's; until here nothing else was on the link.
    assert_eq!(ranges(&script, update.layer()), [] as [Option<String>; 0]);
    let (received, whole) = read(&body, 0).await;
    assert!(whole && received == update.layer().bytes);
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
    assert_eq!(ranges(&script, update.layer()), [None]);
    eventually("it is counted", async || fallbacks(&site) == 1).await;
    gate.open();
}
