//! The scripted upstream and the raw client, against each other.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::{Reply, Rule, Upstream};
use crate::http::{Client, Request};
use crate::sample::{Content, bytes};

const BLOB: &str = "/v2/a/blobs/b";

async fn start(rules: Vec<Rule>) -> (Upstream, Client) {
    let upstream = Upstream::start(rules).await;
    let client = Client::plain(upstream.address());
    (upstream, client)
}

#[tokio::test]
async fn the_script_goes_through_its_states() {
    let (upstream, client) = start(vec![
        Rule::on("GET", "/token").reply(Reply::status(200).body("{}")).then("token given"),
        Rule::on("GET", BLOB)
            .in_state("token given")
            .with_header("authorization", "Bearer t")
            .times(1)
            .reply(Reply::status(200).body("content")),
        Rule::on("GET", BLOB).reply(Reply::status(401).header("WWW-Authenticate", "Bearer realm=\"x\"")),
    ])
    .await;
    let authorized = || Request::get(BLOB).header("Authorization", "Bearer t");
    let refused = client.send(authorized()).await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer realm=\"x\"")));
    assert_eq!(client.send(Request::get("/token").query("scope", "a")).await.status, 200);
    assert_eq!(client.send(authorized()).await.text(), "content");
    assert_eq!(client.send(authorized()).await.status, 401);
    assert_eq!(client.send(Request::delete("/elsewhere")).await.status, 501);
    assert_eq!(upstream.lines()[1], "GET /token?scope=a");
    let scripted: Vec<bool> = upstream.asked().iter().map(|asked| asked.scripted).collect();
    assert_eq!(scripted, [true, true, true, true, false]);
}

#[tokio::test]
async fn bodies_arrive_whole_in_every_framing() {
    let (upstream, client) = start(vec![Rule::on("PUT", "/x")]).await;
    let chunks = [bytes(1, 10), bytes(2, 70_000)];
    client.send(Request::put("/x").chunked(chunks.clone())).await;
    client.send(Request::put("/x").body(chunks.concat())).await;
    client.send(Request::put("/x")).await;
    let bodies: Vec<_> = upstream.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, [chunks.concat(), chunks.concat(), Vec::new()]);
}

#[tokio::test]
async fn ranges_are_parts_of_the_content() {
    let content = Content::new("a/b", bytes(3, 1000));
    let (upstream, client) = start(vec![Rule::on("GET", BLOB).reply(Reply::content(&content))]).await;
    let part = client.send(Request::get(BLOB).header("Range", "bytes=990-")).await;
    assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 990-999/1000")));
    assert_eq!(part.body, content.bytes[990..]);
    assert_eq!(client.send(Request::get(BLOB).header("Range", "bytes=1000-")).await.status, 416);
    let whole = client.send(Request::get(BLOB)).await;
    assert_eq!((whole.status, &whole.body), (200, &content.bytes));
    assert_eq!(whole.header("Docker-Content-Digest"), Some(content.digest.to_string().as_str()));
    assert_eq!(upstream.sent(), 1010);
}

#[tokio::test]
async fn faults_look_like_what_they_are() {
    let reply = || Reply::status(200).body(bytes(4, 100_000));
    let (upstream, client) = start(vec![
        Rule::on("GET", "/closed").reply(reply().truncated_after(50_000)),
        Rule::on("GET", "/reset").reply(reply().reset_after(50_000)),
        Rule::on("GET", "/late").reply(reply().delayed(Duration::from_millis(100))),
        Rule::on("GET", "/stalled").reply(reply().stalled_after(50_000)),
    ])
    .await;
    let closed = client.try_send(Request::get("/closed")).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::UnexpectedEof);
    let reset = client.try_send(Request::get("/reset")).await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    assert_eq!(upstream.sent(), 100_000);
    let started = Instant::now();
    assert_eq!(client.send(Request::get("/late")).await.body.len(), 100_000);
    assert!(started.elapsed() >= Duration::from_millis(100));
    let stalled = tokio::time::timeout(Duration::from_millis(200), client.try_send(Request::get("/stalled")));
    assert!(stalled.await.is_err());
    assert_eq!(upstream.sent(), 250_000);
}

#[tokio::test]
async fn one_connection_takes_request_after_request() {
    let (upstream, client) = start(vec![Rule::on("GET", BLOB).reply(Reply::status(200).body("yes"))]).await;
    upstream.first(Rule::on("HEAD", BLOB).reply(Reply::status(200).body("yes")));
    let mut connection = client.connect().await.unwrap();
    for method in ["GET", "HEAD", "GET"] {
        connection.send(&Request::new(method, BLOB)).await.unwrap();
        let response = connection.response(method).await.unwrap();
        assert_eq!(response.header("content-length"), Some("3"));
        assert_eq!(response.body, if method == "HEAD" { "" } else { "yes" });
    }
    connection.reset().unwrap();
}
