//! Manifests, blobs and deltas, and what goes wrong with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deltaport_client::{ErrorKind, LayerDelta, Options, Quota, Upstream};
use deltaport_oci::{Digest, Reference, media_type};
use deltaport_testkit::sample::{Content, bytes};
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::{LIMIT, blob_path, fetch, kind, layer, options, repository, tag, upstream};

#[tokio::test]
async fn manifests_are_what_they_were_asked_for_by() {
    let manifest = Content::new(media_type::OCI_MANIFEST, "{\"a\":1}");
    let by_tag = "/v2/library/app/manifests/latest";
    let by_digest = format!("/v2/library/app/manifests/{}", manifest.digest);
    let other = Digest::sha256(b"other");
    let script = Script::start(vec![
        Rule::on("HEAD", by_tag).reply(Reply::content(&manifest)),
        Rule::on("GET", by_tag).times(1).reply(
            Reply::status(200)
                .header("Content-Type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8")
                .body(manifest.bytes.clone()),
        ),
        Rule::on("GET", by_tag).reply(Reply::content(&manifest).header("x", "y").body(bytes(4, 10))),
        Rule::on("GET", &by_digest).times(1).reply(Reply::content(&manifest)),
        Rule::on("GET", &by_digest).reply(
            Reply::status(200)
                .header("Content-Type", media_type::OCI_MANIFEST)
                .header("Docker-Content-Digest", &other.to_string())
                .body("{}"),
        ),
    ])
    .await;
    let upstream = upstream(&script);
    let head = upstream.head_manifest(&repository(), &tag()).await.unwrap();
    assert_eq!((head.digest, head.size), (Some(manifest.digest), Some(7)));
    let found = upstream.manifest(&repository(), &tag()).await.unwrap();
    assert_eq!((found.digest, found.media_type.as_str()), (manifest.digest, media_type::OCI_MANIFEST));
    let accept = script.asked()[0].headers.first("accept").map(str::to_owned).unwrap();
    assert!(media_type::MANIFEST_ACCEPT.iter().all(|one| accept.contains(one)), "{accept}");

    let lied = upstream.manifest(&repository(), &tag()).await.unwrap_err();
    assert!(matches!(lied.kind(), ErrorKind::Mismatch { .. }), "{lied}");
    let by_digest = Reference::Digest(manifest.digest);
    assert_eq!(upstream.manifest(&repository(), &by_digest).await.unwrap().bytes, manifest.bytes);
    let lied = upstream.manifest(&repository(), &by_digest).await.unwrap_err();
    assert!(
        matches!(lied.kind(), ErrorKind::Mismatch { expected, .. } if *expected == manifest.digest),
        "{lied}"
    );
}

#[tokio::test]
async fn a_body_is_taken_up_where_it_broke_off() {
    let content = layer(5, 100_000);
    let path = blob_path(&content.digest);
    let script = Script::start(vec![
        Rule::on("GET", &path).times(1).reply(Reply::content(&content).truncated_after(40_000)),
        Rule::on("GET", &path).times(1).reply(Reply::content(&content)),
        Rule::on("GET", &path).times(1).reply(Reply::content(&content).whole()),
        Rule::on("GET", &path)
            .times(1)
            .reply(Reply::status(206).header("Content-Range", "bytes 0-9/100000").body(bytes(5, 10))),
        Rule::on("GET", &path).times(1).reply(Reply::content(&content).stalled_after(16_384)),
        Rule::on("GET", &path).reply(Reply::content(&content).delayed(Duration::from_secs(60))),
    ])
    .await;
    let mut options = options(&script);
    options.timeouts.connect = Duration::from_millis(500);
    let upstream = Upstream::new(&options).unwrap();

    let (mut received, end) = fetch(&upstream, &content.digest, 0).await;
    assert!(matches!(kind(end), ErrorKind::Unavailable { .. }));
    assert!(received.len() <= 40_000);
    let mut rest = upstream.blob(&repository(), &content.digest, received.len() as u64, LIMIT).await.unwrap();
    assert_eq!((rest.start(), rest.size()), (received.len() as u64, Some(100_000)));
    while let Some(chunk) = rest.chunk().await.unwrap() {
        received.extend_from_slice(&chunk);
    }
    assert_eq!(received, content.bytes);

    let whole = upstream.blob(&repository(), &content.digest, 50_000, LIMIT).await.unwrap();
    assert_eq!((whole.start(), whole.size()), (0, Some(100_000)), "an upstream without Range says so");
    drop(whole);
    let wrong = upstream.blob(&repository(), &content.digest, 50_000, LIMIT).await.unwrap_err();
    assert!(matches!(wrong.kind(), ErrorKind::Protocol(_)), "{wrong}");
    let (received, end) = fetch(&upstream, &content.digest, 0).await;
    assert!(received.len() <= 16_384 && matches!(kind(end), ErrorKind::Unavailable { .. }));
    let (_, end) = fetch(&upstream, &content.digest, 0).await;
    assert!(matches!(kind(end), ErrorKind::Unavailable { .. }), "no header for too long");
}

#[tokio::test]
async fn no_body_is_endless() {
    let digest = Digest::sha256(b"x");
    let path = blob_path(&digest);
    let huge = Reply::status(200).header("Content-Type", media_type::OCI_INDEX).body(bytes(6, 9 << 20));
    let script = Script::start(vec![
        Rule::on("GET", &path).reply(Reply::status(200).body(bytes(6, 2 << 20))),
        Rule::on("GET", "/v2/library/app/manifests/latest").reply(huge),
    ])
    .await;
    let upstream = upstream(&script);
    let refused = kind(fetch(&upstream, &digest, 0).await.1);
    assert_eq!(refused, ErrorKind::Limit { what: "the blob", limit: LIMIT });
    let refused = upstream.manifest(&repository(), &tag()).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Limit { .. }), "{refused}");
}

#[tokio::test]
async fn statuses_are_told_apart_by_what_to_do() {
    let digest = Digest::sha256(b"x");
    let path = blob_path(&digest);
    let script = Script::start(vec![]).await;
    let upstream = upstream(&script);
    for (status, retry_after, expected) in [
        (404, None, "not found"),
        (403, None, "refused: answers 403 Forbidden"),
        (429, Some(7), "unavailable: answers 429 Too Many Requests"),
        (503, Some(100_000), "unavailable: answers 503 Service Unavailable"),
        (500, None, "unavailable: answers 500 Internal Server Error"),
        (418, None, "answers 418 I'm a teapot"),
        (204, None, "answers 204 No Content"),
    ] {
        let mut reply = Reply::status(status);
        if let Some(seconds) = retry_after {
            reply = reply.header("Retry-After", &seconds.to_string());
        }
        script.first(Rule::on("GET", &path).reply(reply));
        let found = kind(fetch(&upstream, &digest, 0).await.1);
        assert_eq!(found.to_string(), expected);
        if let ErrorKind::Unavailable { retry_after: found, quota, .. } = found {
            assert_eq!(quota, status == 429);
            assert_eq!(found, retry_after.map(|seconds: u64| Duration::from_secs(seconds.min(3600))));
        }
    }
    let port = script.address().port();
    drop(script);
    let nobody = Upstream::new(&Options::new("r", format!("http://127.0.0.1:{port}"))).unwrap();
    let found = nobody.ping().await.unwrap_err();
    assert!(matches!(found.kind(), ErrorKind::Unavailable { .. }), "{found}");
}

#[tokio::test]
async fn what_an_upstream_lets_us_ask_is_known_as_it_last_said() {
    let manifest = Content::new(media_type::OCI_MANIFEST, "{}");
    let path = "/v2/library/app/manifests/latest";
    let limited = |reply: Reply, left: &str| {
        reply.header("ratelimit-limit", "100;w=21600").header("ratelimit-remaining", left)
    };
    let elsewhere =
        Script::start(vec![Rule::on("GET", "/x").reply(limited(Reply::content(&manifest), "1"))]).await;
    let redirect = Reply::status(307).header("Location", &format!("{}/x", elsewhere.url()));
    let script = Script::start(vec![
        Rule::on("GET", path).times(1).reply(limited(Reply::content(&manifest), "76;w=21600")),
        Rule::on("GET", path).times(1).reply(Reply::content(&manifest)),
        Rule::on("GET", path).times(1).reply(redirect),
        Rule::on("GET", path).reply(limited(Reply::status(429), "0;w=21600").header("Retry-After", "60")),
    ])
    .await;
    let upstream = upstream(&script);
    assert_eq!(upstream.quota(), None);
    let quota = |remaining| Some(Quota { limit: 100, window: Some(Duration::from_secs(21_600)), remaining });
    for _ in 0..3 {
        upstream.manifest(&repository(), &tag()).await.unwrap();
        assert_eq!(
            upstream.quota(),
            quota(76),
            "an answer without a word, or from elsewhere, changes nothing"
        );
    }
    let refused = upstream.manifest(&repository(), &tag()).await.unwrap_err();
    let ErrorKind::Unavailable { retry_after, quota: over, .. } = refused.kind() else { panic!("{refused}") };
    assert_eq!((*retry_after, *over), (Some(Duration::from_secs(60)), true));
    assert_eq!(upstream.quota(), quota(0));
}

#[tokio::test]
async fn a_manifest_that_is_known_is_not_sent_again() {
    let (old, new) =
        (Content::new(media_type::OCI_MANIFEST, "{}"), Content::new(media_type::OCI_MANIFEST, "{ }"));
    let path = "/v2/library/app/manifests/latest";
    let known = format!("\"{}\"", old.digest);
    let script = Script::start(vec![
        Rule::on("GET", path).with_header("if-none-match", &known).times(1).reply(Reply::status(304)),
        Rule::on("GET", path).times(1).reply(Reply::content(&old)),
        Rule::on("GET", path).times(1).reply(Reply::content(&new)),
        Rule::on("GET", path)
            .times(1)
            .reply(Reply::status(304).header("Docker-Content-Digest", &new.digest.to_string())),
        Rule::on("GET", path).times(1).reply(Reply::status(404)),
        Rule::on("GET", path).reply(Reply::status(304)),
    ])
    .await;
    let upstream = upstream(&script);
    let ask = async || upstream.manifest_unless(&repository(), &tag(), &old.digest).await;
    assert_eq!(ask().await, Ok(None));
    for content in [&old, &new] {
        assert_eq!(ask().await.unwrap().map(|manifest| manifest.digest), Some(content.digest));
    }
    assert!(
        matches!(ask().await.unwrap_err().kind(), ErrorKind::Protocol(_)),
        "something else has not changed"
    );
    assert!(matches!(ask().await.unwrap_err().kind(), ErrorKind::NotFound));
    let unasked = upstream.manifest(&repository(), &tag()).await.unwrap_err();
    assert!(matches!(unasked.kind(), ErrorKind::Protocol(_)), "nobody has said what is known");
}

#[tokio::test]
async fn connections_to_a_hub_are_opened_ahead_and_to_others_not() {
    let script = Script::start(vec![
        Rule::hub().times(1),
        Rule::no_hub(),
        Rule::on("GET", "/v2/").reply(Reply::status(401).body("{}")),
    ])
    .await;
    let connections = |opened: usize, asked: usize| {
        assert_eq!((script.connections(), script.asked().len()), (opened, asked), "{:?}", script.lines());
    };
    let hub = upstream(&script);
    assert!(!hub.is_known_hub());
    hub.prepare().await;
    assert!(hub.is_known_hub());
    connections(1, 1);
    hub.prepare().await;
    connections(2, 3);
    hub.prepare().await;
    connections(2, 3);
    let other = upstream(&script);
    for _ in 0..3 {
        other.prepare().await;
        assert!(!other.is_known_hub());
    }
    connections(3, 4);
}

const DELTA_PATH: &str = "/v2/library/app/_deltaport/delta/layer";

#[tokio::test]
async fn deltas_are_named_pending_or_none() {
    let (to, from, delta) = (Digest::sha256(b"to"), Digest::sha256(b"from"), Digest::sha256(b"delta"));
    let script = Script::start(vec![]).await;
    let upstream = upstream(&script);
    let ask = async |reply: Reply| {
        script.first(Rule::on("GET", DELTA_PATH).reply(reply));
        upstream.layer_delta(&repository(), &to, &[from, to], 0).await
    };
    let at = |location: String| Reply::status(307).header("Location", &location);
    let named = async |reply: Reply| match ask(reply).await.unwrap() {
        LayerDelta::Named { digest, size } => (digest, size),
        other => panic!("{other:?}"),
    };
    assert_eq!(named(at(blob_path(&delta))).await, (delta, None));
    let sized = |size| at(blob_path(&delta)).header("Deltaport-Delta-Size", size);
    assert_eq!(named(sized("1234")).await, (delta, Some(1234)));
    assert_eq!(named(sized("a lot")).await, (delta, None));
    let absolute = format!("{}{}", script.url(), blob_path(&delta));
    assert_eq!(named(at(absolute)).await, (delta, None));
    for (reply, seconds) in [(Reply::status(202).header("Retry-After", "3"), 3), (Reply::status(202), 2)] {
        let pending = ask(reply).await.unwrap();
        assert!(matches!(pending, LayerDelta::Pending(pause) if pause == Duration::from_secs(seconds)));
    }
    for status in [404, 405, 400] {
        assert!(matches!(ask(Reply::status(status)).await.unwrap(), LayerDelta::None));
    }
    for location in ["http://other.example/v2/library/app/blobs/x", "/v2/other/blobs/x", "/"] {
        let location = location.replace("/x", &format!("/{delta}"));
        let refused = ask(at(location)).await.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Protocol(_)), "{refused}");
    }
    let asked = script.asked().pop().unwrap().target;
    let escape = |digest: &Digest| digest.to_string().replace(':', "%3A");
    assert_eq!(asked, format!("{DELTA_PATH}?to={}&from={}&from={}", escape(&to), escape(&from), escape(&to)));
}

#[tokio::test]
async fn a_delta_may_be_the_answer_itself_if_it_was_asked_for_and_says_what_it_is() {
    let (to, from, delta) = (Digest::sha256(b"to"), Digest::sha256(b"from"), layer(8, 1000));
    let script = Script::start(vec![]).await;
    let upstream = upstream(&script);
    let ask = async |reply: Reply, inline| {
        script.first(Rule::on("GET", DELTA_PATH).reply(reply));
        upstream.layer_delta(&repository(), &to, &[from], inline).await
    };
    let sent = || {
        let digest = delta.digest.to_string();
        Reply::status(200).header("Docker-Content-Digest", &digest).body(delta.bytes.clone())
    };
    let typed = |reply: Reply| reply.header("Content-Type", media_type::LAYER_DELTA);
    let LayerDelta::Sent { digest, mut body } = ask(typed(sent()), 1000).await.unwrap() else {
        panic!("it was sent")
    };
    assert_eq!((digest, body.start(), body.size()), (delta.digest, 0, Some(1000)));
    let mut received = Vec::new();
    while let Some(chunk) = body.chunk().await.unwrap() {
        received.extend_from_slice(&chunk);
    }
    assert_eq!(received, delta.bytes);
    assert!(script.asked().pop().unwrap().target.ends_with("&inline=1000"));

    let too_large = ask(typed(sent()), 999).await.unwrap_err();
    assert_eq!(*too_large.kind(), ErrorKind::Limit { what: "the blob", limit: 999 });
    let nameless = Reply::status(200).body(delta.bytes.clone());
    for (reply, inline) in [(typed(sent()), 0), (sent(), 1000), (typed(nameless), 1000)] {
        let refused = ask(reply, inline).await.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Protocol(_)), "{refused}");
    }
}

#[test]
fn an_address_is_a_scheme_and_a_host() {
    for (url, good) in [
        ("https://r.example", true),
        ("http://r.example:5000/", true),
        ("https://[::1]:5000", true),
        ("r.example", false),
        ("ftp://r.example", false),
        ("https://r.example/v2", false),
        ("https://user:pw@r.example", false),
        ("https://r.example?x", false),
        ("", false),
    ] {
        assert_eq!(Upstream::new(&Options::new("r", url)).is_ok(), good, "{url}");
    }
    let mut options = Options::new("r", "https://r.example");
    options.ca = Some(b"-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n".to_vec());
    assert!(Upstream::new(&options).is_err());
}

/// A server that hangs up on some of its connections when it has read a request, counted from 0, and answers the others.
async fn hangs_up_on(broken: &'static [usize]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            if !broken.contains(&number) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
            }
        }
    });
    (url, count)
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_made_anew_once() {
    let (url, count) = hangs_up_on(&[0, 2, 3]).await;
    let upstream = Upstream::new(&Options::new("registry.example", url)).unwrap();
    let digest = Digest::sha256(b"x");
    assert_eq!(upstream.head_blob(&repository(), &digest).await, Ok(Some(1000)));
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let broken = upstream.head_blob(&repository(), &digest).await.unwrap_err();
    assert!(matches!(broken.kind(), ErrorKind::Unavailable { .. }), "{broken}");
    assert_eq!(count.load(Ordering::SeqCst), 4, "once, and no more often");
}
