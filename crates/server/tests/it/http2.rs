//! HTTP/2, which clients choose inside TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deltaport_testkit::sample::{self, Content};
use deltaport_testkit::tls::Certificates;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::{Running, Setup, push_blob};

/// A server with one blob, and a connection to it.
async fn connected(setup: Setup, size: usize) -> (Running, SendRequest<Full<Bytes>>, Content) {
    let certificates = Certificates::new();
    let mut config = (*certificates.client()).clone();
    let running = Setup { certificates: Some(certificates), ..setup }.start().await;
    let content = Content::new("x/y", sample::bytes(1, size));
    assert_eq!(push_blob(&running.client, "a", &content).await.status, 201);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(running.client.address()).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    (running, sender, content)
}

fn get(content: &Content) -> Request<Full<Bytes>> {
    let uri = format!("https://localhost/v2/a/blobs/{}", content.digest);
    Request::get(uri).version(Version::HTTP_2).body(Full::default()).expect("a request")
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let (running, sender, content) = connected(Setup::new(), 1_000_000).await;
    let pulls: Vec<_> = (0..20)
        .map(|_| {
            let (mut sender, request) = (sender.clone(), get(&content));
            tokio::spawn(async move {
                let answer = sender.send_request(request).await.expect("an answer");
                assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
                answer.into_body().collect().await.expect("a body").to_bytes()
            })
        })
        .collect();
    for pull in pulls {
        assert!(pull.await.expect("no panic") == content.bytes);
    }
    // A body that comes in, and one that is refused for what it announces.
    let mut sender = sender;
    let post = |body: &Content| {
        let uri = format!("https://localhost/v2/b/blobs/uploads/?digest={}", content.digest);
        Request::post(uri).body(Full::new(body.bytes.clone())).expect("a request")
    };
    let pushed = sender.send_request(post(&content)).await.expect("an answer");
    assert_eq!(pushed.status(), StatusCode::CREATED);
    let wrong = sender.send_request(post(&Content::new("x/y", "other"))).await.expect("an answer");
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    drop(running);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_does_not_live_for_ever() {
    let mut setup = Setup::new();
    setup.limits.progress_interval = Duration::from_millis(300);
    setup.limits.progress_bytes = 1000;
    let (running, mut sender, content) = connected(setup, 16 << 20).await;
    let answer = sender.send_request(get(&content)).await.expect("an answer");
    let deadline = Instant::now() + Duration::from_secs(30);
    while running.metric("deltaport_http_connections").await > 1.0 {
        assert!(Instant::now() < deadline, "the connection lives on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    answer.into_body().collect().await.expect_err("the rest never comes");
}
