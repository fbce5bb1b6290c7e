//! Pushing: uploads in all their forms, manifests with tags, deleting.

use bytes::Bytes;
use deltaport_oci::platform::Filter;
use deltaport_oci::{Algorithm, Digest};
use deltaport_registry::Validate;
use deltaport_testkit::http::Request;
use deltaport_testkit::sample::{self, Content, Image};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Running, Setup, begin_upload, code, push_blob, push_image, push_manifest};

async fn assert_pulls(running: &Running, location: &str, content: &Content) {
    assert_eq!(location, format!("/v2/a/blobs/{}", content.digest));
    let pulled = running.send(Request::get(location)).await;
    assert_eq!(pulled.status, 200);
    assert!(pulled.body == content.bytes);
}

#[tokio::test]
async fn a_blob_can_be_sent_in_every_way() {
    let running = Setup::new().start().await;
    let mut seed = 0;
    for (algorithm, hint) in
        [(Algorithm::Sha256, ""), (Algorithm::Sha512, ""), (Algorithm::Sha512, "?digest-algorithm=sha512")]
    {
        for way in ["whole", "put", "stream", "chunks", "last in put"] {
            seed += 1;
            let content = Content::with(algorithm, "x/y", sample::bytes(seed, 300_000));
            let bytes = &content.bytes;
            let digest = content.digest;
            let base = format!("/v2/a/blobs/uploads/{hint}");
            let begin = async || {
                let begun = running.send(Request::post(&base)).await;
                assert_eq!((begun.status, begun.header("range")), (202, Some("0-0")), "{}", begun.text());
                begun.header("location").expect("a location").to_owned()
            };
            let chunk = |request: Request, from: usize, to: usize| {
                request.header("Content-Range", format!("{from}-{}", to - 1)).body(bytes.slice(from..to))
            };
            let finished = match way {
                "whole" => {
                    running.send(Request::post(&base).query("digest", digest).body(bytes.clone())).await
                }
                "put" => {
                    running
                        .send(Request::put(&begin().await).query("digest", digest).body(bytes.clone()))
                        .await
                }
                "stream" => {
                    let pieces = [bytes.slice(..100), bytes.slice(100..)];
                    let sent = running.send(Request::patch(&begin().await).chunked(pieces)).await;
                    assert_eq!((sent.status, sent.header("range")), (202, Some("0-299999")));
                    let location = sent.header("location").expect("a location");
                    running.send(Request::put(location).query("digest", digest)).await
                }
                _ => {
                    let location = begin().await;
                    let first = running.send(chunk(Request::patch(&location), 0, 100_000)).await;
                    assert_eq!((first.status, first.header("range")), (202, Some("0-99999")));
                    let state = running.send(Request::get(&location)).await;
                    assert_eq!((state.status, state.header("range")), (204, Some("0-99999")));
                    let put = Request::put(&location).query("digest", digest);
                    if way == "chunks" {
                        let second = running.send(chunk(Request::patch(&location), 100_000, 300_000)).await;
                        assert_eq!((second.status, second.header("range")), (202, Some("0-299999")));
                        running.send(put).await
                    } else {
                        running.send(chunk(put, 100_000, 300_000)).await
                    }
                }
            };
            assert_eq!(finished.status, 201, "{way} {hint}: {}", finished.text());
            assert_eq!(finished.header("docker-content-digest"), Some(digest.to_string().as_str()));
            assert_pulls(&running, finished.header("location").expect("a location"), &content).await;
        }
    }
}

#[tokio::test]
async fn a_cancelled_upload_is_gone() {
    let running = Setup::new().start().await;
    let upload = begin_upload(&running.client, "a").await;
    assert_eq!(running.send(Request::delete(&upload)).await.status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        assert_eq!(running.send(Request::new(method, &upload)).await.status, 404, "{method}");
    }
}

#[tokio::test]
async fn what_arrived_before_a_broken_connection_can_be_continued() {
    let running = Setup::new().start().await;
    let content = Content::new("x/y", sample::bytes(1, 200_000));
    let upload = begin_upload(&running.client, "a").await;
    let mut connection = running.client.connect().await.expect("a connection");
    connection.send_head(&Request::patch(&upload).body(content.bytes.clone())).await.expect("sent");
    connection.write(&content.bytes[..150_000]).await.expect("sent");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    connection.reset().expect("broken");

    let mut offset = 0;
    for _ in 0..100 {
        let state = running.send(Request::get(&upload)).await;
        let range = state.header("range").expect("a range");
        let last: usize = range.strip_prefix("0-").and_then(|last| last.parse().ok()).expect("0-N");
        offset = last + 1;
        if offset > 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!((2..=150_000).contains(&offset), "{offset}");
    let rest = Request::put(&upload).query("digest", content.digest);
    let rest = rest.header("Content-Range", format!("{offset}-199999")).body(content.bytes.slice(offset..));
    let finished = running.send(rest).await;
    assert_eq!(finished.status, 201, "{}", finished.text());
    assert_pulls(&running, finished.header("location").expect("a location"), &content).await;
}

#[tokio::test]
async fn a_blob_in_one_request_that_breaks_off_leaves_nothing_behind() {
    let mut setup = Setup::new();
    setup.registry.limits.uploads_per_caller = 1;
    let running = setup.start().await;
    let content = Content::new("x/y", sample::bytes(1, 200_000));
    for reset in [true, false] {
        let mut connection = running.client.connect().await.expect("a connection");
        let post = Request::post("/v2/a/blobs/uploads/").query("digest", content.digest);
        connection.send_head(&post.body(content.bytes.clone())).await.expect("sent");
        connection.write(&content.bytes[..150_000]).await.expect("sent");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        match reset {
            true => connection.reset().expect("broken"),
            false => drop(connection),
        }
    }
    // Long enough for the end of the connections to be noticed.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    begin_upload(&running.client, "a").await;
    for directory in ["uploads", "staging"] {
        let left = std::fs::read_dir(running.file("data").join(directory)).expect("a directory").count();
        assert_eq!(left, 0, "{directory}");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it_or_an_answer() {
    let running = Setup::new().start().await;
    let content = Content::new("x/y", "12345");
    let upload = format!("/v2/a/blobs/uploads/?digest={}", content.digest);
    for (method, path, answers) in [
        ("POST", upload.as_str(), &["100 Continue", "201 Created"][..]),
        ("PUT", "/v2/a/tags/list", &["405 Method"]),
    ] {
        let mut stream = TcpStream::connect(running.client.address()).await.expect("a connection");
        let head = Request::new(method, path).header("Expect", "100-continue").body(content.bytes.clone());
        stream.write_all(head.render_head("localhost").as_bytes()).await.expect("sent");
        for answer in answers {
            let mut received = [0; 4096];
            let length = stream.read(&mut received).await.expect("an answer");
            let text = String::from_utf8_lossy(&received[..length]);
            assert!(text.starts_with(&format!("HTTP/1.1 {answer}")), "{text}");
            stream.write_all(&content.bytes).await.expect("sent");
        }
    }
}

#[tokio::test]
async fn a_manifest_pushed_by_digest_gets_its_tags() {
    let running = Setup::new().start().await;
    let image = Image::small(1);
    push_image(&running.client, "a", "first", &image).await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let manifest = image.manifest.renamed(algorithm);
        let tags: Vec<_> = (0..10).map(|n| format!("{algorithm}-{n}")).collect();
        let query: String = tags.iter().map(|tag| format!("&tag={tag}")).collect();
        let reference = format!("{}?{}", manifest.digest, &query[1..]);
        let put = push_manifest(&running.client, "a", &reference, &manifest).await;
        assert_eq!(put.status, 201, "{}", put.text());
        assert_eq!(put.headers.all("oci-tag").collect::<Vec<_>>(), tags);
        assert_eq!(put.header("docker-content-digest"), Some(manifest.digest.to_string().as_str()));
        for tag in &tags {
            let pulled = running.send(Request::get(&format!("/v2/a/manifests/{tag}"))).await;
            assert_eq!(pulled.header("docker-content-digest"), Some(manifest.digest.to_string().as_str()));
        }
    }
}

#[tokio::test]
async fn the_answer_names_the_subject() {
    let running = Setup::new().start().await;
    let (subject, blob) = (Image::small(1).manifest, Content::new("x/y", "signature"));
    let artifact = sample::artifact("application/vnd.example", Some(&subject), &blob);
    for content in [&blob, &sample::empty_config()] {
        assert_eq!(push_blob(&running.client, "a", content).await.status, 201);
    }
    let put = push_manifest(&running.client, "a", &artifact.digest.to_string(), &artifact).await;
    assert_eq!((put.status, put.header("oci-subject")), (201, Some(subject.digest.to_string().as_str())));
    assert_eq!(put.header("location"), Some(format!("/v2/a/manifests/{}", artifact.digest).as_str()));
}

#[tokio::test]
async fn what_must_be_there_is_a_setting() {
    let (here, missing) = (Image::small(1), Image::small(2));
    let index = sample::index(&[&here.manifest, &missing.manifest], json!({}));
    for (validate, index_status, image_status) in [
        (Validate::All, 400, 400),
        (Validate::Platforms(Filter::new(vec!["linux/amd64".parse().expect("a platform")])), 201, 400),
        (Validate::Platforms(Filter::new(vec!["linux/arm64".parse().expect("a platform")])), 400, 400),
        (Validate::None, 201, 201),
    ] {
        let mut setup = Setup::new();
        setup.registry.validate = validate.clone();
        let running = setup.start().await;
        push_image(&running.client, "a", "here", &here).await;
        let put = push_manifest(&running.client, "a", "index", &index).await;
        assert_eq!(put.status, index_status, "{validate:?} {}", put.text());
        if put.status == 400 {
            assert_eq!(code(&put), "MANIFEST_BLOB_UNKNOWN");
            assert_eq!(put.json()["errors"][0]["detail"]["digests"], json!([missing.manifest.digest]));
        }
        let put = push_manifest(&running.client, "a", "image", &missing.manifest).await;
        assert_eq!(put.status, image_status, "{validate:?} {}", put.text());
    }
}

#[tokio::test]
async fn what_is_deleted_is_gone_at_once() {
    let running = Setup::new().start().await;
    let image = Image::small(1);
    push_image(&running.client, "a", "one", &image).await;
    push_image(&running.client, "a", "two", &image).await;
    push_image(&running.client, "b", "one", &image).await;
    let status = async |method: &str, path: &str| running.send(Request::new(method, path)).await.status;
    let by_digest = format!("/v2/a/manifests/{}", image.manifest.digest);
    assert_eq!(status("DELETE", "/v2/a/manifests/one").await, 202);
    assert_eq!(status("GET", "/v2/a/manifests/one").await, 404);
    assert_eq!(status("GET", &by_digest).await, 200, "a tag is not its manifest");
    assert_eq!(status("DELETE", &by_digest).await, 202);
    for path in [by_digest.as_str(), "/v2/a/manifests/two"] {
        assert_eq!((status("GET", path).await, status("DELETE", path).await), (404, 404), "{path}");
    }
    let blob = format!("blobs/{}", image.config.digest);
    assert_eq!(status("DELETE", &format!("/v2/a/{blob}")).await, 202);
    assert_eq!(status("DELETE", &format!("/v2/a/{blob}")).await, 404);
    assert_eq!(status("GET", &format!("/v2/a/{blob}")).await, 404);
    assert_eq!(status("GET", &format!("/v2/b/{blob}")).await, 200, "another repository keeps it");
    assert_eq!(status("GET", "/v2/b/manifests/one").await, 200);
}

#[tokio::test]
async fn a_large_manifest_is_taken() {
    let running = Setup::new().start().await;
    let blob = Content::new("x/y", "layer");
    push_blob(&running.client, "a", &blob).await;
    push_blob(&running.client, "a", &sample::empty_config()).await;
    let text = "x".repeat(4 << 20);
    let manifest =
        sample::manifest(&sample::empty_config(), &[blob], json!({ "annotations": { "large": text } }));
    let put = push_manifest(&running.client, "a", "large", &manifest).await;
    assert_eq!(put.status, 201, "{}", put.text());
    let pulled = running.send(Request::get("/v2/a/manifests/large")).await;
    assert!(pulled.body == manifest.bytes);
}

#[tokio::test]
async fn a_media_type_may_have_parameters() {
    let running = Setup::new().start().await;
    let image = Image::small(1);
    push_image(&running.client, "a", "x", &image).await;
    let put = Request::put("/v2/a/manifests/y")
        .header("Content-Type", format!("{}; charset=utf-8", image.manifest.media_type))
        .body(image.manifest.bytes.clone());
    assert_eq!(running.send(put).await.status, 201);
    let pulled = running.send(Request::get("/v2/a/manifests/y")).await;
    assert_eq!(pulled.header("content-type"), Some(image.manifest.media_type.as_str()));
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let running = Setup::new().start().await;
    let empty = Content::new("x/y", Bytes::new());
    let begun = begin_upload(&running.client, "a").await;
    assert_eq!(running.send(Request::put(&begun).query("digest", Digest::sha256(b""))).await.status, 201);
    assert_eq!(push_blob(&running.client, "b", &empty).await.status, 201);
    let outside = Request::get(&format!("/v2/b/blobs/{}", empty.digest)).header("Range", "bytes=0-0");
    assert_eq!(running.send(outside).await.status, 416);
}
