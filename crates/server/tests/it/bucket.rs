//! A registry whose bytes are in a bucket: who is sent there, and what clients are told when it is away.

use std::time::Duration;

use deltaport_server::Redirect;
use deltaport_store::{BucketOptions, ByteStore, Credentials};
use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::s3::{self, Fault, Kind, Server};
use deltaport_testkit::sample::{self, Content, Image};

use crate::harness::{Running, Setup, push_blob, push_image};

/// A bucket of a service.
pub(crate) fn bucket(server: &Server) -> ByteStore {
    ByteStore::Bucket(Box::new(BucketOptions {
        endpoint: Some(server.endpoint()),
        region: Some(s3::REGION.to_owned()),
        path_style: true,
        credentials: Credentials::Key { id: s3::ACCESS_KEY.to_owned(), secret: s3::SECRET_KEY.to_owned() },
        part_size: 5 << 20,
        retries: 1,
        retry_for: Duration::from_secs(1),
        ..BucketOptions::new(server.bucket())
    }))
}

/// Who is sent to it, for a minute.
pub(crate) fn redirect(networks: &[&str]) -> Option<Redirect> {
    let networks: Vec<_> = networks.iter().map(|network| network.parse().expect("a network")).collect();
    (!networks.is_empty()).then(|| Redirect { networks, life: Duration::from_secs(60) })
}

/// A registry on a bucket, from which those in `networks` are sent there.
async fn start(networks: &[&str]) -> (Server, Running) {
    let server = Server::start();
    let setup = Setup { bytes: bucket(&server), redirect: redirect(networks), ..Setup::new() };
    (server, setup.start().await)
}

#[tokio::test]
async fn who_can_reach_the_bucket_is_sent_there() {
    let (server, running) = start(&["10.0.0.0/8", "127.0.0.0/8"]).await;
    let content = Content::new("application/octet-stream", sample::bytes(1, 200_000));
    assert_eq!(push_blob(&running.client, "a", &content).await.status, 201);
    let path = format!("/v2/a/blobs/{}", content.digest);

    let before = server.counts();
    let answer = running.send(Request::get(&path)).await;
    assert_eq!((answer.status, answer.body.len()), (307, 0));
    let head = running.send(Request::head(&path)).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("200000")));
    assert_eq!((server.counts() - before).total(), 0, "the bucket is asked by the client alone");

    let location = answer.header("location").unwrap();
    let target = location.strip_prefix(&server.endpoint()).expect("it leads to the bucket");
    let bucket = Client::plain(server.address());
    let got = bucket.send(Request::get(target)).await;
    assert!(got.status == 200 && got.body == content.bytes, "{}", got.status);
    let part = bucket.send(Request::get(target).header("Range", "bytes=10-19")).await;
    assert_eq!((part.status, &part.body[..]), (206, &content.bytes[10..20]));
    let other = bucket.send(Request::get(target.split('?').next().unwrap())).await;
    assert_eq!(other.status, 403, "the address is what lets a client in");
    let changed = target.replace("X-Amz-Expires=60", "X-Amz-Expires=6000");
    assert_eq!(bucket.send(Request::get(&changed)).await.status, 403);

    // Content of which a client knows the digest need not be fetched again, and what is not here is not there either.
    let known = Request::get(&path).header("If-None-Match", format!("\"{}\"", content.digest));
    assert_eq!(running.send(known).await.status, 304);
    let none = format!("/v2/a/blobs/{}", Content::new("x", sample::bytes(2, 10)).digest);
    assert_eq!(running.send(Request::get(&none)).await.status, 404);
    let elsewhere = path.replace("/a/", "/b/");
    assert_eq!(running.send(Request::get(&elsewhere)).await.status, 404);
}

#[tokio::test]
async fn all_others_get_the_bytes_from_here() {
    for networks in [&[][..], &["10.0.0.0/8"][..]] {
        let (_server, running) = start(networks).await;
        let image = Image::small(1);
        push_image(&running.client, "a", "v1", &image).await;
        for content in image.layers.iter().chain([&image.config]) {
            let answer = running.send(Request::get(&format!("/v2/a/blobs/{}", content.digest))).await;
            assert!(answer.status == 200 && answer.body == content.bytes);
        }
    }
}

#[tokio::test]
async fn while_the_bucket_is_away_clients_are_told_to_come_back() {
    let (server, running) = start(&[]).await;
    let content = Content::new("application/octet-stream", sample::bytes(1, 200_000));
    assert_eq!(push_blob(&running.client, "a", &content).await.status, 201);
    let path = format!("/v2/a/blobs/{}", content.digest);
    server.breaks(Fault::Status(503), |asked| asked.kind != Kind::Other);
    for request in [Request::get(&path), Request::get(&path).header("Range", "bytes=1-2")] {
        let answer = running.send(request).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{}", answer.text());
    }
    assert_eq!(running.send(Request::head(&path)).await.status, 200);
    let other = Content::new("application/octet-stream", sample::bytes(2, 200_000));
    let pushed = push_blob(&running.client, "a", &other).await;
    assert_eq!((pushed.status, pushed.header("retry-after")), (503, Some("5")), "{}", pushed.text());
    server.mends();
    assert!(running.send(Request::get(&path)).await.body == content.bytes);
    assert_eq!(push_blob(&running.client, "a", &other).await.status, 201);
}
