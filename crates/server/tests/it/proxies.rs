//! Clients behind a proxy: what goes by their address goes by theirs, and not by the proxy's or by one that they made up.

use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::s3::Server;
use deltaport_testkit::sample::{self, Content};
use deltaport_trust::{Action, Rule};

use crate::bucket;
use crate::harness::{PASSWORD, Running, Setup, grant, push_blob};

const ALL: [Action; 3] = [Action::Pull, Action::Push, Action::Delete];

/// A server that believes proxies on this machine. Everybody may pull, and `anna` everything.
fn setup() -> Setup {
    let public = Rule {
        repositories: vec!["**".parse().expect("a pattern")],
        allow: [Action::Pull].into(),
        anonymous: true,
        ..Rule::default()
    };
    let rules = vec![grant("anna", &ALL, "**"), public];
    Setup { trusted_proxies: vec!["127.0.0.1"], ..Setup::rules(&["anna"], rules) }
}

async fn status(client: &Client, path: &str, forwarded: &str) -> u16 {
    client.send(Request::get(path).header("X-Forwarded-For", forwarded)).await.status
}

#[tokio::test]
async fn a_client_behind_a_proxy_is_sent_to_the_bucket_if_it_reaches_it() {
    for (trusted, statuses) in [(vec!["127.0.0.1"], [307, 200, 200, 200]), (vec![], [200; 4])] {
        let server = Server::start();
        let (bytes, redirect) = (bucket::bucket(&server), bucket::redirect(&["10.0.0.0/8"]));
        let running = Setup { bytes, redirect, trusted_proxies: trusted, ..setup() }.start().await;
        let anna = running.client.logged_in("anna", PASSWORD);
        let content = Content::new("application/octet-stream", sample::bytes(1, 1000));
        assert_eq!(push_blob(&anna, "a", &content).await.status, 201);
        let path = format!("/v2/a/blobs/{}", content.digest);
        let forwarded = ["10.1.2.3", "192.0.2.1", "10.1.2.3, 192.0.2.1", "10.1.2.3, unknown"];
        for (forwarded, expected) in forwarded.into_iter().zip(statuses) {
            assert_eq!(status(&running.client, &path, forwarded).await, expected, "{forwarded}");
        }
        // Only what the proxy says last, over all lines.
        let lines =
            Request::get(&path).header("X-Forwarded-For", "10.1.2.3").header("X-Forwarded-For", "192.0.2.1");
        assert_eq!(running.send(lines).await.status, 200);
        let other = Request::get(&path).header("Forwarded", "for=10.1.2.3").header("X-Real-IP", "10.1.2.3");
        assert_eq!(running.send(other).await.status, 200);
    }
}

/// Uses up what an address behind the proxy may guess.
async fn guess(running: &Running, forwarded: &str) -> u16 {
    let mut last = 0;
    for n in 0..14 {
        let guesses = running.client.logged_in("anna", &format!("guess {n}"));
        last = status(&guesses, "/v2/", forwarded).await;
    }
    last
}

#[tokio::test]
async fn who_guesses_behind_a_proxy_locks_out_nobody_else() {
    let running = setup().start().await;
    let anna = running.client.logged_in("anna", PASSWORD);
    // A new address in front each time, which the client made up, is of no use.
    assert_eq!(guess(&running, "198.51.100.77, 192.0.2.1").await, 429);
    assert_eq!(status(&anna, "/v2/", "203.0.113.5, 192.0.2.1").await, 429);
    assert_eq!(status(&anna, "/v2/", "192.0.2.2").await, 200);

    let lines = running.audited(15).await;
    for line in &lines[..14] {
        assert_eq!(line["peer"], "192.0.2.1", "{line}");
        assert!(line["via"].as_str().expect("the proxy").starts_with("127.0.0.1:"), "{line}");
    }
}

#[tokio::test]
async fn nobody_becomes_local_through_a_proxy() {
    let running = Setup { trusted_proxies: vec!["127.0.0.1"], ..Setup::new() }.start().await;
    for forwarded in ["127.0.0.1", "::1", "192.0.2.1", "unknown", ""] {
        assert_eq!(status(&running.client, "/v2/a/tags/list", forwarded).await, 401, "{forwarded}");
    }
    assert_eq!(running.send(Request::get("/v2/a/tags/list")).await.status, 404);
}
