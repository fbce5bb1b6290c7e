//! Many clients of one transfer.

use std::sync::Arc;

use deltaport_oci::wire::ByteRange;
use deltaport_testkit::upstream::{Gate, Reply, Upstream as Script};
use futures_util::StreamExt as _;
use tokio::sync::Barrier;

use crate::site::*;

/// No clock: nothing behind the first piece is sent before every client has a byte of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_clients_cost_one_request_and_have_their_first_byte_before_the_second_piece_is_sent() {
    const CLIENTS: usize = 50;
    let (content, gate) = (some(64 << 20), Gate::new());
    let script =
        Script::start(vec![blob_rule(&content).reply(Reply::content(&content).held_after(1000, &gate))])
            .await;
    let site =
        Site::with(&script, Setup { stall: std::time::Duration::from_secs(30), ..Setup::default() }).await;
    let started = Arc::new(Barrier::new(CLIENTS + 1));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (registry, content, started) = (site.registry.clone(), content.clone(), Arc::clone(&started));
            tokio::spawn(async move {
                let body = registry.blob(&repository("app"), &content.digest).await.unwrap();
                let mut stream = body.read(ByteRange { start: 0, end: body.size() });
                let first = stream.next().await.unwrap().unwrap();
                assert!(!first.is_empty() && first.len() <= 1000);
                started.wait().await;
                let mut at = first.len();
                assert!(first == content.bytes[..at]);
                while let Some(chunk) = stream.next().await {
                    let chunk = chunk.unwrap();
                    assert!(chunk == content.bytes[at..at + chunk.len()], "client {n} at {at}");
                    at += chunk.len();
                }
                assert_eq!(at, content.bytes.len());
            })
        })
        .collect();
    started.wait().await;
    assert_eq!(script.sent(), 1000);
    gate.open();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(ranges(&script, &content), [None]);
    assert_eq!(site.upstream.received(), 64 << 20);
    assert_eq!(site.counted("upstream_received_bytes"), 64 << 20);
    eventually("nothing is left", async || site.kept() == 0).await;
    eventually("it is counted", async || site.counted("upstream_fills") == 1).await;
    assert_eq!(site.counted("upstream_resumes"), 0);
}

#[tokio::test]
async fn parts_are_readable_as_soon_as_they_have_arrived_and_the_end_when_all_is_proven() {
    let (content, gate) = (some(500_000), Gate::new());
    let script =
        Script::start(vec![blob_rule(&content).reply(Reply::content(&content).held_after(499_999, &gate))])
            .await;
    let site =
        Site::with(&script, Setup { stall: std::time::Duration::from_secs(30), ..Setup::default() }).await;
    let body = site.open("app", &content.digest).await.unwrap();
    let most = (500_000 - HELD_BACK) as u64;
    let part = async |start: u64, end: u64| {
        let mut stream = body.read(ByteRange { start, end });
        let mut received = Vec::new();
        while let Some(chunk) = stream.next().await {
            received.extend_from_slice(&chunk.unwrap());
        }
        assert!(received == content.bytes[start as usize..end as usize], "{start}..{end}");
    };
    // As a client asks for several parts in one request: each is a stream of its own.
    for (start, end) in [(100_000, 100_001), (0, 50_000), (most - 1, most), (200_000, most)] {
        part(start, end).await;
    }
    let mut behind = Box::pin(part(most, most + 1));
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut behind).await;
    assert!(early.is_err(), "a byte of the end was let go before the digest was proven");
    gate.open();
    behind.await;
    part(0, 500_000).await;
    assert_eq!(ranges(&script, &content), [None]);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_the_transfer() {
    let (content, gate) = (some(1 << 20), Gate::new());
    let script =
        Script::start(vec![blob_rule(&content).reply(Reply::content(&content).held_after(300_000, &gate))])
            .await;
    let site =
        Site::with(&script, Setup { stall: std::time::Duration::from_secs(30), ..Setup::default() }).await;
    let body = site.open("app", &content.digest).await.unwrap();
    let mut stream = body.read(ByteRange { start: 0, end: body.size() });
    assert!(stream.next().await.unwrap().is_ok());
    drop((stream, body));
    gate.open();
    eventually("the blob arrives", || site.is_filled(&content)).await;
    assert_eq!(ranges(&script, &content), [None]);
}
