//! Starting, watching, stopping.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use deltaport_server::{BindError, Options, Server};
use deltaport_testkit::http::Request;
use deltaport_testkit::sample::{self, Content};

use crate::harness::{Setup, begin_upload, push_blob};

#[tokio::test]
async fn requests_in_progress_end_before_the_server_does() {
    let running = Setup::new().start().await;
    let content = Content::new("x/y", sample::bytes(1, 100_000));
    let upload = begin_upload(&running.client, "a").await;
    let mut connection = running.client.connect().await.expect("a connection");
    let put = Request::put(&upload).query("digest", content.digest).body(content.bytes.clone());
    connection.send_head(&put).await.expect("sent");
    connection.write(&content.bytes[..50_000]).await.expect("sent");
    let mut idle = running.client.connect().await.expect("a connection");
    idle.send(&Request::get("/healthz")).await.expect("sent");
    assert_eq!(idle.response("GET").await.expect("an answer").status, 200);

    running.stop.cancel();
    idle.response("GET").await.expect_err("a connection that nobody uses is closed at once");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!running.running.is_finished());
    running.client.connect().await.expect_err("nobody is accepted any more");
    connection.write(&content.bytes[50_000..]).await.expect("sent");
    assert_eq!(connection.response("PUT").await.expect("an answer").status, 201);
    assert!(running.running.await.expect("the server ends"), "everything ended in time");
}

#[tokio::test]
async fn the_grace_is_not_for_ever() {
    let mut setup = Setup::new();
    setup.limits.shutdown_grace = Duration::from_millis(200);
    let running = setup.start().await;
    let upload = begin_upload(&running.client, "a").await;
    let mut connection = running.client.connect().await.expect("a connection");
    connection.send_head(&Request::patch(&upload).body("12345")).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    running.stop.cancel();
    assert!(!running.running.await.expect("the server ends"), "a request was cut off");
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn plain_http_beyond_this_machine_has_to_be_said() {
    let running = Setup::new().start().await;
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let options = |insecure_http| Options { insecure_http, ..Options::new(everywhere) };
    let refused = Server::bind(options(false), running.registry.clone()).await;
    assert!(matches!(refused, Err(BindError::PlainHttp(_))), "{refused:?}");
    Server::bind(options(true), running.registry.clone()).await.expect("said");
    let taken = Options { listen: running.client.address(), ..options(false) };
    let refused = Server::bind(taken, running.registry.clone()).await;
    assert!(matches!(refused, Err(BindError::Listen { .. })), "{refused:?}");
}

#[tokio::test]
async fn it_says_how_it_is() {
    let running = Setup::new().start().await;
    let content = Content::new("x/y", sample::bytes(1, 1000));
    push_blob(&running.client, "a", &content).await;
    running.send(Request::get(&format!("/v2/a/blobs/{}", content.digest))).await;
    running.send(Request::get("/v2/a/tags/list")).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(running.send(Request::get(path)).await.status, 200, "{path}");
        assert_eq!(running.send(Request::head(path)).await.status, 200, "{path}");
        assert_eq!(running.send(Request::post(path)).await.status, 405, "{path}");
    }
    assert_eq!(running.metric("deltaport_uploads_finished_total").await, 1.0);
    assert!(running.metric("deltaport_http_body_received_bytes_total").await >= 1000.0);
    assert!(running.metric("deltaport_http_body_sent_bytes_total").await >= 1000.0);
    let text = running.send(Request::get("/metrics")).await.text();
    assert!(text.contains("# TYPE deltaport_"), "{text}");
    let metrics =
        String::from_utf8(running.send(Request::get("/metrics")).await.body.to_vec()).expect("text");
    for line in [
        r#"deltaport_http_requests_total{route="uploads",method="POST",status="201"} 1"#,
        r#"deltaport_http_requests_total{route="blob",method="GET",status="200"} 1"#,
        r#"deltaport_http_request_seconds_count{route="blob"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    running.store.close().await.expect("the store closes");
    assert_eq!(running.send(Request::get("/readyz")).await.status, 503);
    assert_eq!(running.send(Request::get("/healthz")).await.status, 200);
}
