//! Every limit, exceeded.

use std::time::{Duration, Instant};

use deltaport_testkit::http::{Body, Connection, Request, Response};
use deltaport_testkit::sample::{self, Content, Image};
use serde_json::json;

use crate::harness::{Running, Setup, begin_upload, code, push_blob, push_image, push_manifest};

async fn limited(limit: impl FnOnce(&mut Setup)) -> Running {
    let mut setup = Setup::new();
    limit(&mut setup);
    setup.start().await
}

fn assert_refused(answer: &Response, status: u16, expected: &str) {
    assert_eq!((answer.status, code(answer).as_str()), (status, expected), "{}", answer.text());
}

#[tokio::test]
async fn manifest_bytes() {
    let running = limited(|setup| setup.registry.limits.manifest_bytes = 1000).await;
    let index = "application/vnd.oci.image.index.v1+json";
    let body = |length: usize| {
        let empty = r#"{"schemaVersion":2,"manifests":[],"annotations":{"x":""}}"#;
        empty.replace("\"\"}", &format!("\"{}\"}}", "y".repeat(length - empty.len())))
    };
    let put = || Request::put("/v2/a/manifests/x").header("Content-Type", index);
    assert_eq!(running.send(put().body(body(1000))).await.status, 201);
    assert_refused(&running.send(put().body(body(1001))).await, 413, "MANIFEST_INVALID");
    let pieces = [body(1001).into(), "x".repeat(100_000).into()];
    assert_refused(&running.send(put().chunked(pieces)).await, 413, "MANIFEST_INVALID");
    // Refused for what it announces, before anything of it was sent.
    let mut connection = running.client.connect().await.expect("a connection");
    connection
        .write(b"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n")
        .await
        .expect("sent");
    assert_refused(&connection.response("PUT").await.expect("an answer"), 413, "MANIFEST_INVALID");
}

#[tokio::test]
async fn json_depth() {
    let running = limited(|setup| setup.registry.limits.json_depth = 5).await;
    let put = async |depth: usize| {
        let nested = format!("{}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        let body = format!(r#"{{"schemaVersion":2,"manifests":[],"x":{nested}}}"#);
        let request = Request::put("/v2/a/manifests/x")
            .header("Content-Type", "application/vnd.oci.image.index.v1+json");
        running.send(request.body(body)).await
    };
    assert_eq!(put(5).await.status, 201);
    assert_refused(&put(6).await, 400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn references() {
    let running = limited(|setup| {
        setup.registry.limits.references = 4;
        setup.registry.validate = deltaport_registry::Validate::None;
    })
    .await;
    let children: Vec<_> = (0..3).map(|seed| Image::small(seed).manifest).collect();
    let children: Vec<_> = children.iter().collect();
    let index = |count: usize| sample::index(&children[..count], json!({}));
    assert_eq!(push_manifest(&running.client, "a", "x", &index(2)).await.status, 201);
    assert_refused(&push_manifest(&running.client, "a", "x", &index(3)).await, 400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn blob_bytes() {
    let running = limited(|setup| setup.registry.limits.blob_bytes = 1000).await;
    let content = |length: usize| Content::new("x/y", sample::bytes(length as u64, length));
    assert_eq!(push_blob(&running.client, "a", &content(1000)).await.status, 201);
    assert_refused(&push_blob(&running.client, "a", &content(1001)).await, 413, "SIZE_INVALID");
    let upload = begin_upload(&running.client, "a").await;
    let chunks = [content(600).bytes, content(600).bytes];
    assert_refused(&running.send(Request::patch(&upload).chunked(chunks)).await, 413, "SIZE_INVALID");
    let upload = begin_upload(&running.client, "a").await;
    assert_eq!(running.send(Request::patch(&upload).body(content(900).bytes)).await.status, 202);
    assert_refused(
        &running.send(Request::patch(&upload).body(content(101).bytes)).await,
        413,
        "SIZE_INVALID",
    );
    assert_eq!(running.send(Request::patch(&upload).body(content(100).bytes)).await.status, 202);
    // A client that sends on regardless still gets to read the answer.
    let huge = Request::post("/v2/a/blobs/uploads/").query("digest", content(1).digest);
    assert_refused(&running.send(huge.body(vec![0; 8 << 20])).await, 413, "SIZE_INVALID");
}

#[tokio::test]
async fn page() {
    let running = limited(|setup| setup.registry.limits.page = 2).await;
    for tag in ["a", "b", "c"] {
        push_image(&running.client, "a", tag, &Image::small(1)).await;
    }
    for query in ["", "?n=3", "?n=18446744073709551615", "?n=99999999999999999999999999"] {
        let answer = running.send(Request::get(&format!("/v2/a/tags/list{query}"))).await;
        assert_eq!(answer.json()["tags"], json!(["a", "b"]), "{query}");
        assert!(answer.header("link").expect("a link").contains("last=b"), "{query}");
    }
}

#[tokio::test]
async fn uploads_per_caller() {
    let running = limited(|setup| setup.registry.limits.uploads_per_caller = 2).await;
    let first = begin_upload(&running.client, "a").await;
    begin_upload(&running.client, "b").await;
    let refused = running.send(Request::post("/v2/c/blobs/uploads/")).await;
    assert_refused(&refused, 429, "TOOMANYREQUESTS");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(running.send(Request::delete(&first)).await.status, 204);
    begin_upload(&running.client, "c").await;
}

#[tokio::test]
async fn tags_per_put() {
    let running = limited(|setup| setup.registry.limits.tags_per_put = 10).await;
    let image = Image::small(1);
    push_image(&running.client, "a", "x", &image).await;
    let put = async |count: usize| {
        let query: String = (0..count).map(|n| format!("&tag=t{n}")).collect();
        let reference = format!("{}?{}", image.manifest.digest, &query[1..]);
        push_manifest(&running.client, "a", &reference, &image.manifest).await
    };
    assert_eq!(put(10).await.status, 201);
    assert_refused(&put(11).await, 414, "MANIFEST_INVALID");
}

#[tokio::test]
async fn header_bytes() {
    let running = limited(|setup| setup.limits.header_bytes = 16 << 10).await;
    let with = |length: usize| Request::get("/v2/").header("X-Long", "x".repeat(length));
    assert_eq!(running.send(with(8 << 10)).await.status, 200);
    assert_eq!(running.send(with(32 << 10)).await.status, 431);
    let mut many = Request::get("/v2/");
    for n in 0..200 {
        many = many.header(&format!("X-{n}"), "x");
    }
    assert_eq!(running.send(many).await.status, 431);
}

#[tokio::test]
async fn connections() {
    let running = limited(|setup| setup.limits.connections = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut connection = running.client.connect().await.expect("a connection");
        connection.send(&Request::get("/healthz")).await.expect("sent");
        assert_eq!(connection.response("GET").await.expect("an answer").status, 200);
        held.push(connection);
    }
    let waiting = tokio::spawn({
        let client = running.client.clone();
        async move { client.send(Request::get("/healthz")).await.status }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "a third connection was served");
    held.pop();
    assert_eq!(waiting.await.expect("an answer"), 200);
}

/// How long the server lets a connection live on which `act` happens over and over.
async fn lifetime(
    running: &Running,
    mut act: impl AsyncFnMut(&mut Connection) -> std::io::Result<()>,
) -> Duration {
    let mut connection = running.client.connect().await.expect("a connection");
    let begun = Instant::now();
    while act(&mut connection).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the connection lives on");
    }
    begun.elapsed()
}

#[tokio::test]
async fn header_timeout() {
    let running = limited(|setup| setup.limits.header_timeout = Duration::from_millis(300)).await;
    let trickle = async |connection: &mut Connection| {
        connection.write(b"G").await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    };
    let lived = lifetime(&running, trickle).await;
    assert!(lived >= Duration::from_millis(250), "{lived:?}");
}

#[tokio::test]
async fn idle_timeout() {
    let running = limited(|setup| setup.limits.idle_timeout = Duration::from_millis(300)).await;
    for requests in [0, 1] {
        let mut connection = running.client.connect().await.expect("a connection");
        for _ in 0..requests {
            connection.send(&Request::get("/healthz")).await.expect("sent");
            assert_eq!(connection.response("GET").await.expect("an answer").status, 200);
        }
        let begun = Instant::now();
        connection.response("GET").await.expect_err("the connection ends");
        assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    }
}

fn slow(setup: &mut Setup) {
    setup.limits.progress_interval = Duration::from_millis(400);
    setup.limits.progress_bytes = 1000;
}

#[tokio::test]
async fn a_request_body_that_crawls() {
    let running = limited(slow).await;
    let upload = begin_upload(&running.client, "a").await;
    let mut begun = false;
    let crawl = async |connection: &mut Connection| {
        if !begun {
            begun = true;
            let body = Request { body: Body::Sized(vec![0; 100_000].into()), ..Request::patch(&upload) };
            connection.send_head(&body).await?;
        }
        connection.write(b"x").await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    };
    let lived = lifetime(&running, crawl).await;
    assert!(lived >= Duration::from_millis(350), "{lived:?}");
    let state = running.send(Request::get(&upload)).await;
    assert_eq!(state.status, 204, "the upload is still there to be continued");
}

#[tokio::test]
async fn a_reader_that_does_not_read() {
    let running = limited(slow).await;
    let content = Content::new("x/y", sample::bytes(1, 64 << 20));
    assert_eq!(push_blob(&running.client, "a", &content).await.status, 201);
    let mut connection = running.client.connect().await.expect("a connection");
    connection.send(&Request::get(&format!("/v2/a/blobs/{}", content.digest))).await.expect("sent");
    let deadline = Instant::now() + Duration::from_secs(30);
    while running.metric("deltaport_http_connections").await > 1.0 {
        assert!(Instant::now() < deadline, "the connection lives on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    connection.response("GET").await.expect_err("the rest never comes");
}

#[tokio::test]
async fn a_reader_that_takes_its_time_is_served() {
    let running = limited(slow).await;
    let content = Content::new("x/y", sample::bytes(1, 2 << 20));
    assert_eq!(push_blob(&running.client, "a", &content).await.status, 201);
    let upload = begin_upload(&running.client, "a").await;
    let mut connection = running.client.connect().await.expect("a connection");
    let request = Request::patch(&upload).body(content.bytes.slice(..30_000));
    connection.send_head(&request).await.expect("sent");
    for piece in content.bytes[..30_000].chunks(1000) {
        connection.write(piece).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(connection.response("PATCH").await.expect("an answer").status, 202);
}
