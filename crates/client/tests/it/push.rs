//! Giving blobs, manifests and lists of referrers to a registry.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use deltaport_client::{Error, ErrorKind, Pushed, Upstream};
use deltaport_oci::{Descriptor, Digest, media_type};
use deltaport_testkit::sample::{self, Content, bytes};
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};
use futures_util::stream::{self, Stream};
use serde_json::{Value, json};

use crate::harness::{authorizations, blob_path, layer, repository, tag, upstream};

const UPLOADS: &str = "/v2/library/app/blobs/uploads/";

/// The content in pieces, as from a file.
fn pieces(content: &Content) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let pieces: Vec<_> =
        content.bytes.chunks(10_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces)
}

async fn push(upstream: &Upstream, content: &Content) -> Result<Pushed, Error> {
    let size = content.bytes.len() as u64;
    upstream.push_blob(&repository(), &content.digest, size, || pieces(content)).await
}

/// A registry without the blob that takes uploads at `place`.
async fn taking(content: &Content, place: &str) -> Script {
    let path = blob_path(&content.digest);
    let script = Script::start(vec![Rule::on("HEAD", &path).reply(Reply::status(404))]).await;
    let place = place.replace("HOME", &script.url());
    script.first(Rule::on("POST", UPLOADS).reply(Reply::status(202).header("Location", &place)));
    script
}

#[tokio::test]
async fn a_blob_that_is_there_is_not_sent() {
    let content = layer(1, 1000);
    let script =
        Script::start(vec![Rule::on("HEAD", &blob_path(&content.digest)).reply(Reply::content(&content))])
            .await;
    assert_eq!(push(&upstream(&script), &content).await.unwrap(), Pushed::Present);
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test]
async fn a_blob_goes_where_the_registry_wants_it() {
    let content = layer(2, 123_456);
    let digest = content.digest.to_string().replace(':', "%3A");
    for (place, target) in [
        (
            "/v2/library/app/blobs/uploads/1?_state=a%2Fb",
            "/v2/library/app/blobs/uploads/1?_state=a%2Fb&digest=",
        ),
        ("HOME/elsewhere/1", "/elsewhere/1?digest="),
        ("1", "/v2/library/app/blobs/uploads/1?digest="),
    ] {
        let script = taking(&content, place).await;
        let target = format!("{target}{digest}");
        script.first(Rule::on("PUT", &target).reply(Reply::status(201)));
        assert_eq!(push(&upstream(&script), &content).await.unwrap(), Pushed::Uploaded, "{place}");
        let put = script.asked().pop().unwrap();
        assert_eq!((put.body, put.headers.first("content-length")), (content.bytes.clone(), Some("123456")));
    }
    let empty = Content::new(media_type::OCTET_STREAM, "");
    let script = taking(&empty, "/upload").await;
    script.first(Rule::on("PUT", "/upload").reply(Reply::status(201)));
    push(&upstream(&script), &empty).await.unwrap();
    assert_eq!(script.asked().pop().unwrap().headers.first("content-length"), Some("0"));
}

#[tokio::test]
async fn nobody_has_uploads_and_credentials_sent_elsewhere() {
    let content = layer(3, 100);
    let thief = Script::start(vec![]).await;
    let port = thief.address().port();
    for place in [
        format!("{}/upload", thief.url()),
        format!("http://localhost:{port}/upload"),
        "https://127.0.0.1/upload".to_owned(),
        "http://169.254.169.254/upload".to_owned(),
        "//user:pw@127.0.0.1/upload".to_owned(),
    ] {
        let script = taking(&content, &place).await;
        let refused = push(&upstream(&script), &content).await.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Protocol(_)), "{place}: {refused}");
        assert!(!refused.to_string().contains("pw"), "{refused}");
    }
    assert!(thief.asked().is_empty());
    // Nor is an upload sent on by a redirect.
    let script = taking(&content, "/upload").await;
    let to = Reply::status(307).header("Location", &format!("{}/upload", thief.url()));
    script.first(Rule::on("PUT", "/upload").reply(to));
    let refused = push(&upstream(&script), &content).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Protocol(_)), "{refused}");
    assert!(thief.asked().is_empty());
}

#[tokio::test]
async fn a_token_to_push_is_asked_for_and_renewed_before_the_content_is_sent_again() {
    let content = layer(4, 50_000);
    let script = taking(&content, "/upload").await;
    let challenge = format!("Bearer realm=\"{}/token\",scope=\"repository:library/app:pull\"", script.url());
    let refuse = || Reply::status(401).header("WWW-Authenticate", &challenge);
    let token = |token: &str| Reply::status(200).body(format!("{{\"token\":\"{token}\"}}"));
    script.first(Rule::on("HEAD", &blob_path(&content.digest)).times(1).reply(refuse()));
    script.first(Rule::on("GET", "/token").reply(token("two")));
    script.first(Rule::on("GET", "/token").times(1).reply(token("one")));
    script.first(Rule::on("PUT", "/upload").reply(refuse()));
    script.first(
        Rule::on("PUT", "/upload").with_header("authorization", "Bearer two").reply(Reply::status(201)),
    );
    assert_eq!(push(&upstream(&script), &content).await.unwrap(), Pushed::Uploaded);
    let sent = authorizations(&script);
    let scope = "GET /token?scope=repository%3Alibrary%2Fapp%3Apull%2Cpush";
    assert_eq!(sent.iter().filter(|(line, _)| line == scope).count(), 2, "{sent:?}");
    let (basic, one, two) = ("Basic dXNlcjpzZWNyZXQ=", "Bearer one", "Bearer two");
    let headers: Vec<_> = sent.iter().map(|(_, value)| value.as_deref().unwrap_or_default()).collect();
    assert_eq!(headers, ["", basic, one, one, one, basic, two]);
    assert_eq!(script.asked().pop().unwrap().body, content.bytes);
}

#[tokio::test]
async fn what_goes_wrong_with_an_upload() {
    let content = layer(5, 200_000);
    let script = taking(&content, "/upload").await;
    let upstream = upstream(&script);
    for (status, expected) in [
        (403, "refused: answers 403 Forbidden"),
        (429, "unavailable: answers 429 Too Many Requests"),
        (400, "answers 400 Bad Request"),
        (202, "answers 202 Accepted"),
    ] {
        script.first(Rule::on("PUT", "/upload").reply(Reply::status(status)));
        let error = push(&upstream, &content).await.unwrap_err();
        assert_eq!(error.kind().to_string(), expected);
    }
    let broken =
        || stream::iter([Ok(Bytes::from_static(b"begun")), Err(io::Error::other("the disk is gone"))]);
    let error = upstream.push_blob(&repository(), &content.digest, 200_000, broken).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    script.first(Rule::on("POST", UPLOADS).reply(Reply::status(404)));
    let error = push(&upstream, &content).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_upload_takes_as_long_as_it_moves() {
    let content = layer(6, 100_000);
    let script = taking(&content, "/upload").await;
    script.first(Rule::on("PUT", "/upload").reply(Reply::status(201)));
    let mut options = crate::harness::options(&script);
    options.timeouts.connect = Duration::from_millis(200);
    options.timeouts.header = Duration::from_millis(200);
    options.timeouts.stall = Duration::from_millis(200);
    let upstream = Upstream::new(&options).unwrap();
    let slowly = |pause: u64| {
        let bytes = content.bytes.clone();
        stream::unfold(0, move |at| {
            let piece = bytes.slice(at..(at + 20_000).min(bytes.len()));
            async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                (!piece.is_empty()).then(|| (Ok(piece.clone()), at + piece.len()))
            }
        })
    };
    let size = content.bytes.len() as u64;
    let pushed = upstream.push_blob(&repository(), &content.digest, size, || slowly(250)).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded, "it takes twice the limit");
    let stalled =
        upstream.push_blob(&repository(), &content.digest, size, || slowly(60_000)).await.unwrap_err();
    assert!(matches!(stalled.kind(), ErrorKind::Unavailable { .. }), "{stalled}");
}

#[tokio::test]
async fn a_manifest_is_sent_as_it_is_and_the_answer_says_whether_its_subject_was_seen() {
    let manifest = Content::new(media_type::OCI_MANIFEST, "{\"a\": 1}");
    let (path, subject) = ("/v2/library/app/manifests/latest", Digest::sha256(b"subject"));
    let script = Script::start(vec![
        Rule::on("PUT", path).times(1).reply(Reply::status(201).header("OCI-Subject", &subject.to_string())),
        Rule::on("PUT", path).times(1).reply(Reply::status(201)),
        Rule::on("PUT", path).reply(Reply::status(413)),
    ])
    .await;
    let upstream = upstream(&script);
    let push = async || {
        upstream.push_manifest(&repository(), &tag(), &manifest.media_type, manifest.bytes.clone()).await
    };
    assert_eq!(push().await.unwrap(), Some(subject));
    assert_eq!(push().await.unwrap(), None);
    assert!(matches!(push().await.unwrap_err().kind(), ErrorKind::Protocol(_)));
    let put = &script.asked()[0];
    assert_eq!(put.headers.first("content-type"), Some(media_type::OCI_MANIFEST));
    assert_eq!(put.body, manifest.bytes);
}

fn descriptor(seed: u64) -> Descriptor {
    let content = Content::new(media_type::OCI_MANIFEST, bytes(seed, 100));
    let mut value = content.descriptor();
    value["artifactType"] = json!("application/vnd.deltaport.delta.v1");
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn a_referrer_is_added_to_the_list_under_a_tag_and_nothing_else_changes() {
    let subject = Digest::sha256(b"subject");
    let path = format!("/v2/library/app/manifests/sha256-{}", subject.hex());
    let (mine, other) = (descriptor(1), descriptor(2));
    let list = |referrers: &[&Descriptor]| {
        let more = json!({ "annotations": { "kept": "yes" }, "unknown": [1] });
        let mut index: Value = serde_json::from_slice(&sample::index(&[], more).bytes).unwrap();
        index["manifests"] = json!(referrers);
        Reply::content(&Content::new(media_type::OCI_INDEX, index.to_string()))
    };
    let script = Script::start(vec![
        Rule::on("GET", &path).times(1).reply(Reply::status(404)),
        Rule::on("GET", &path).times(1).reply(list(&[&other])),
        Rule::on("GET", &path).reply(list(&[&other, &mine])),
        Rule::on("PUT", &path).reply(Reply::status(201)),
    ])
    .await;
    let client = upstream(&script);
    client.list_referrer(&repository(), &subject, &mine).await.unwrap();
    let written: Vec<Value> = script
        .asked()
        .iter()
        .filter(|asked| asked.method == "PUT")
        .map(|asked| serde_json::from_slice(&asked.body).unwrap())
        .collect();
    assert_eq!(written.len(), 2, "somebody else overwrote the first");
    assert_eq!(written[0]["manifests"], json!([mine]));
    assert_eq!(written[1]["manifests"], json!([other, mine]));
    assert_eq!((&written[1]["annotations"]["kept"], &written[1]["unknown"]), (&json!("yes"), &json!([1])));

    // One who always overwrites, and something that is no list.
    let always = Script::start(vec![
        Rule::on("GET", &path).reply(list(&[&other])),
        Rule::on("PUT", &path).reply(Reply::status(201)),
    ])
    .await;
    let error = upstream(&always).list_referrer(&repository(), &subject, &mine).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable { .. }), "{error}");
    let image = Content::new(media_type::OCI_MANIFEST, "{\"schemaVersion\":2}");
    let strange = Script::start(vec![Rule::on("GET", &path).reply(Reply::content(&image))]).await;
    let error = upstream(&strange).list_referrer(&repository(), &subject, &mine).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Protocol(_)), "{error}");
}
