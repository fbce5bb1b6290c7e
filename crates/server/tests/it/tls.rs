//! TLS: both protocols, and certificates that change.

use std::time::{Duration, Instant};

use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::sample::{self, Content};
use deltaport_testkit::tls::Certificates;

use crate::harness::{Setup, push_blob};

fn setup(certificates: &Certificates) -> Setup {
    Setup { certificates: Some(certificates.clone()), ..Setup::new() }
}

#[tokio::test]
async fn blobs_travel_through_tls() {
    let running = setup(&Certificates::new()).start().await;
    let content = Content::new("x/y", sample::bytes(1, 3_000_000));
    assert_eq!(push_blob(&running.client, "a", &content).await.status, 201);
    let pulled = running.send(Request::get(&format!("/v2/a/blobs/{}", content.digest))).await;
    assert!(pulled.body == content.bytes);
}

#[tokio::test]
async fn plain_http_is_told_so_where_tls_is_spoken() {
    let running = setup(&Certificates::new()).start().await;
    let plain = Client::plain(running.client.address());
    let login = Request::get("/v2/").basic("alice", "secret");
    let answer = plain.try_send(login).await.expect("an answer that a client can show");
    assert_eq!((answer.status, answer.header("www-authenticate")), (400, None));
    assert!(answer.text().contains("https"), "{}", answer.text());
    assert_eq!(running.send(Request::get("/v2/")).await.status, 200);
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart() {
    let (old, new) = (Certificates::new(), Certificates::new());
    let running = setup(&old).start().await;
    let mut open = running.client.connect().await.expect("a connection");
    let with = |certificates: &Certificates| Client::tls(running.client.address(), certificates.client());
    assert!(with(&new).try_send(Request::get("/v2/")).await.is_err());

    // The key comes a moment after its certificate: until then the two do not fit, and the old pair stays.
    std::fs::write(running.file("server.crt"), &new.certificate_pem).expect("a file");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(with(&old).send(Request::get("/v2/")).await.status, 200);
    std::fs::write(running.file("server.key"), &new.key_pem).expect("a file");
    let deadline = Instant::now() + Duration::from_secs(20);
    while with(&new).try_send(Request::get("/v2/")).await.is_err() {
        assert!(Instant::now() < deadline, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(with(&old).try_send(Request::get("/v2/")).await.is_err());
    open.send(&Request::get("/v2/")).await.expect("sent");
    assert_eq!(open.response("GET").await.expect("an answer").status, 200, "open connections go on");

    std::fs::write(running.file("server.crt"), "not a certificate").expect("a file");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(with(&new).send(Request::get("/v2/")).await.status, 200, "a damaged file changes nothing");
}
