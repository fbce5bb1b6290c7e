//! Pulling: what GET and HEAD answer about manifests and blobs.

use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::sample::{self, Content, Image};

use crate::harness::{Running, Setup, push_blob, push_image};

async fn blob(size: usize) -> (Running, String, Content) {
    let running = Setup::new().start().await;
    let content = Content::new("application/octet-stream", sample::bytes(1, size));
    assert_eq!(push_blob(&running.client, "a", &content).await.status, 201);
    let path = format!("/v2/a/blobs/{}", content.digest);
    (running, path, content)
}

fn assert_same_head(get: &Response, head: &Response) {
    assert_eq!(get.status, head.status);
    assert!(head.body.is_empty());
    for name in ["content-length", "content-type", "docker-content-digest", "etag", "accept-ranges"] {
        assert_eq!(get.header(name), head.header(name), "{name}");
    }
}

#[tokio::test]
async fn a_manifest_is_the_bytes_that_were_pushed() {
    let running = Setup::new().start().await;
    let image = Image::small(1);
    push_image(&running.client, "a/b", "v1", &image).await;
    let digest = image.manifest.digest.to_string();
    for reference in ["v1", &digest] {
        let path = format!("/v2/a/b/manifests/{reference}");
        // What a client accepts makes no difference: other bytes would have another digest.
        let get = running.send(Request::get(&path).header("Accept", "text/plain")).await;
        assert_eq!((get.status, &get.body), (200, &image.manifest.bytes));
        assert_eq!(get.header("content-type"), Some(image.manifest.media_type.as_str()));
        assert_eq!(get.header("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(get.header("etag"), Some(format!("\"{digest}\"").as_str()));
        assert_eq!(get.header("content-length"), Some(image.manifest.bytes.len().to_string().as_str()));
        assert_same_head(&get, &running.send(Request::head(&path)).await);
    }
}

#[tokio::test]
async fn a_registry_without_upstreams_is_nobodys_mirror_and_ignores_namespaces() {
    let (running, path, content) = blob(1000).await;
    let get = running.send(Request::get(&path).query("ns", "docker.io")).await;
    assert_eq!((get.status, get.header("oci-namespace")), (200, None));
    assert!(get.body == content.bytes);
}

#[tokio::test]
async fn a_blob_arrives_whole() {
    for size in [0, 1, 255 << 10, 3_000_000] {
        let (running, path, content) = blob(size).await;
        let get = running.send(Request::get(&path)).await;
        assert_eq!(get.status, 200);
        assert!(get.body == content.bytes, "{size} bytes");
        assert_eq!(get.header("docker-content-digest"), Some(content.digest.to_string().as_str()));
        assert_eq!(get.header("content-length"), Some(size.to_string().as_str()));
        assert_eq!(get.header("content-type"), Some("application/octet-stream"));
        assert_same_head(&get, &running.send(Request::head(&path)).await);
    }
}

#[tokio::test]
async fn known_content_is_not_sent_again() {
    let (running, path, content) = blob(100).await;
    push_image(&running.client, "a", "x", &Image::small(1)).await;
    let manifest = Image::small(1).manifest.digest;
    for (path, digest) in [(path.as_str(), content.digest), ("/v2/a/manifests/x", manifest)] {
        for method in ["GET", "HEAD"] {
            let request = Request::new(method, path).header("If-None-Match", format!("\"x\", \"{digest}\""));
            let known = running.send(request).await;
            assert_eq!((known.status, known.body.len()), (304, 0));
            assert_eq!(known.header("etag"), Some(format!("\"{digest}\"").as_str()));
            assert_eq!(known.header("content-length"), None);
            let other = Request::new(method, path).header("If-None-Match", "\"x\"");
            assert_eq!(running.send(other).await.status, 200);
        }
    }
}

#[tokio::test]
async fn one_range_of_a_blob() {
    let (running, path, content) = blob(600_000).await;
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=500-1499", 500, 1500),
        ("bytes=599999-", 599_999, 600_000),
        ("bytes=-500", 599_500, 600_000),
        ("bytes=1000-700000", 1000, 600_000),
        ("bytes=0-4,5-9", 0, 10),
    ] {
        let part = running.send(Request::get(&path).header("Range", range)).await;
        assert_eq!(part.status, 206, "{range}");
        assert!(part.body == content.bytes[start..end], "{range}");
        let expected = format!("bytes {start}-{}/600000", end - 1);
        assert_eq!(part.header("content-range"), Some(expected.as_str()));
        assert_eq!(part.header("content-length"), Some((end - start).to_string().as_str()));
        assert_eq!(part.header("docker-content-digest"), Some(content.digest.to_string().as_str()));
    }
    for range in ["bytes=500-0", "bytes=600000-", "bytes=-0"] {
        let outside = running.send(Request::get(&path).header("Range", range)).await;
        assert_eq!(
            (outside.status, outside.header("content-range")),
            (416, Some("bytes */600000")),
            "{range}"
        );
    }
    for ignored in ["lines=1-2", "bytes=x"] {
        let whole = running.send(Request::get(&path).header("Range", ignored)).await;
        assert_eq!((whole.status, whole.body.len()), (200, 600_000), "{ignored}");
    }
    let head = running.send(Request::head(&path).header("Range", "bytes=0-0")).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("600000")));
}

#[tokio::test]
async fn a_range_of_content_that_changed_is_the_whole() {
    let (running, path, content) = blob(1000).await;
    for (condition, status) in [
        (format!("\"{}\"", content.digest), 206),
        ("\"other\"".to_owned(), 200),
        ("Wed, 21 Oct 2015 07:28:00 GMT".to_owned(), 200),
    ] {
        let request = Request::get(&path).header("Range", "bytes=0-9").header("If-Range", &condition);
        assert_eq!(running.send(request).await.status, status, "{condition}");
    }
}

#[tokio::test]
async fn several_ranges_come_as_multipart() {
    let (running, path, content) = blob(600_000).await;
    let ranges = [(0, 5), (100, 400_000), (599_990, 600_000)];
    let answer = running.send(Request::get(&path).header("Range", "bytes=100-399999,0-4,-10")).await;
    assert_eq!(answer.status, 206);
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    let media_type = answer.header("content-type").expect("a media type");
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").expect("a boundary");
    let mut expected = Vec::new();
    for (index, (start, end)) in ranges.into_iter().enumerate() {
        let before = if index == 0 { "" } else { "\r\n" };
        let head = format!(
            "{before}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {start}-{}/600000\r\n\r\n",
            end - 1
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&content.bytes[start..end]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(answer.body == expected);
    let again = running.send(Request::get(&path).header("Range", "bytes=0-4,10-11")).await;
    assert_ne!(
        again.header("content-type"),
        Some(media_type),
        "a boundary that can be foreseen can be forged"
    );
}

#[tokio::test]
async fn a_namespace_is_accepted_on_pulls() {
    let (running, path, _) = blob(10).await;
    let answer = running.send(Request::get(&path).query("ns", "registry.example.com")).await;
    assert_eq!((answer.status, answer.header("oci-namespace")), (200, None));
}

#[tokio::test]
async fn the_base_path_says_what_this_is() {
    let running = Setup::new().start().await;
    let base = running.send(Request::get("/v2/")).await;
    assert_eq!((base.status, base.header("docker-distribution-api-version")), (200, Some("registry/2.0")));
    assert_eq!(base.header("x-sparse-manifest-support"), Some("false"));
    let mut setup = Setup::new();
    setup.registry.validate = deltaport_registry::Validate::None;
    let base = setup.start().await.send(Request::get("/v2/")).await;
    assert_eq!(base.header("x-sparse-manifest-support"), Some("true"));
}
