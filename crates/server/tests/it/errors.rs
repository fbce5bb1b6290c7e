//! What clients are told when something is wrong: the whole answer, so that no word of it changes unnoticed.

use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::sample::{Content, Image};

use crate::harness::{Setup, begin_upload, push_blob, push_manifest};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// An answer in one line: status, code, sentence, detail.
fn line(answer: &Response) -> String {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let json = answer.json();
    let error = &json["errors"][0];
    let text = |key: &str| error[key].as_str().expect("text").to_owned();
    let detail = error.get("detail").map(|detail| format!(" {detail}")).unwrap_or_default();
    format!("{} {}: {}{detail}", answer.status, text("code"), text("message"))
}

#[tokio::test]
async fn errors_say_what_is_wrong_and_what_to_do() {
    let running = Setup::new().start().await;
    let upload = begin_upload(&running.client, "a").await;
    let octets = |request: Request| request.body("12345");
    let image = Image::small(1);
    let manifest = |path: &str, media_type: &str, body: &str| {
        Request::put(path).header("Content-Type", media_type).body(body.to_owned())
    };
    let index = "application/vnd.oci.image.index.v1+json";
    for (request, expected) in [
        (Request::get("/"), "404 UNSUPPORTED: no such path"),
        (Request::get("/v2/a/b"), "404 UNSUPPORTED: no such path"),
        (
            Request::get("/v2/A/tags/list"),
            "400 NAME_INVALID: not a repository name; it is made of lower-case letters, digits and single separators \
             (. _ __ -), in parts joined by slashes, at most 255 bytes in all",
        ),
        (Request::get("/v2/a/tags/list"), "404 NAME_UNKNOWN: there is no such repository {\"name\":\"a\"}"),
        (Request::get("/v2/a/tags/list?n=x"), "400 UNSUPPORTED: n is not a number of entries"),
        (
            Request::get("/v2/a/manifests/.x"),
            "400 MANIFEST_INVALID: not a tag; it is made of letters, digits, underscores, dots and dashes, does not \
             begin with a dot or a dash, and has at most 128 characters",
        ),
        (
            Request::get("/v2/a/manifests/x"),
            "404 MANIFEST_UNKNOWN: there is no such manifest in this repository {\"reference\":\"x\"}",
        ),
        (
            Request::get("/v2/a/manifests/sha256:baddigeststring"),
            "400 DIGEST_INVALID: not a digest; it must be sha256: and 64, or sha512: and 128, lower-case hexadecimal \
             characters",
        ),
        (
            Request::get("/v2/a/blobs/md5:abc"),
            "400 DIGEST_INVALID: the digest's algorithm is not supported; use sha256 or sha512",
        ),
        (
            Request::get(&format!("/v2/a/blobs/{DIGEST}")),
            "404 BLOB_UNKNOWN: the blob is not in this repository \
             {\"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}",
        ),
        (
            Request::post("/v2/a/blobs/uploads/?digest-algorithm=md5"),
            "400 DIGEST_INVALID: the digest's algorithm is not supported; use sha256 or sha512",
        ),
        (
            octets(Request::post(&format!("/v2/a/blobs/uploads/?digest={DIGEST}"))),
            "400 DIGEST_INVALID: the content has the digest \
             sha256:5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5, not \
             sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855; nothing was kept \
             {\"actual\":\"sha256:5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5\",\
             \"expected\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}",
        ),
        (
            Request::get("/v2/a/blobs/uploads/0123"),
            "404 BLOB_UPLOAD_UNKNOWN: there is no such upload; it may have ended or expired, begin another one",
        ),
        (
            octets(Request::patch(&upload)).header("Content-Range", "5-9"),
            "416 BLOB_UPLOAD_INVALID: the next chunk has to begin at byte 0 {\"offset\":0}",
        ),
        (
            octets(Request::patch(&upload)).header("Content-Range", "bytes"),
            "400 BLOB_UPLOAD_INVALID: Content-Range of a chunk must be <first>-<last>, the offsets of its first and \
             last byte",
        ),
        (
            octets(Request::patch(&upload)).header("Content-Range", "0-8"),
            "400 SIZE_INVALID: 9 bytes were announced and 5 sent",
        ),
        (Request::put(&upload), "400 UNSUPPORTED: the digest of the blob is missing: add ?digest="),
        (
            manifest("/v2/a/manifests/x", "text/plain", "{}"),
            "400 MANIFEST_INVALID: \"text/plain\" is not the media type of a manifest that is stored here; an OCI or \
             Docker (schema 2) manifest or index is",
        ),
        (
            manifest("/v2/a/manifests/x", index, r#"{"schemaVersion":1,"manifests":[]}"#),
            "400 MANIFEST_INVALID: schemaVersion must be 2",
        ),
        (
            manifest("/v2/a/manifests/x?tag=-", index, "{}"),
            "400 MANIFEST_INVALID: not a tag; it is made of letters, digits, underscores, dots and dashes, does not \
             begin with a dot or a dash, and has at most 128 characters",
        ),
        (
            Request::post("/v2/a/tags/list"),
            "405 UNSUPPORTED: this path does not support that method; it supports GET, HEAD",
        ),
        (
            Request::get("/v2/a/_deltaport/delta/layer"),
            "400 UNSUPPORTED: the wanted layer is missing: add ?to=",
        ),
    ] {
        let shown = format!("{} {}", request.method, request.target);
        assert_eq!(line(&running.send(request).await), expected, "{shown}");
    }
    let missing = push_manifest(&running.client, "a", "x", &image.manifest).await;
    let mut digests: Vec<_> = image.blobs().map(|blob| blob.digest).collect();
    digests.sort_unstable();
    assert_eq!(
        (missing.status, missing.json()["errors"][0]["code"].as_str()),
        (400, Some("MANIFEST_BLOB_UNKNOWN"))
    );
    assert_eq!(missing.json()["errors"][0]["detail"]["digests"], serde_json::json!(digests));
}

#[tokio::test]
async fn errors_carry_the_headers_that_help() {
    let running = Setup::new().start().await;
    let wrong_method = running.send(Request::delete("/v2/a/tags/list")).await;
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, Some("GET, HEAD")));

    let blob = Content::new("application/octet-stream", "0123456789");
    assert_eq!(push_blob(&running.client, "a", &blob).await.status, 201);
    let outside = Request::get(&format!("/v2/a/blobs/{}", blob.digest)).header("Range", "bytes=10-");
    let outside = running.send(outside).await;
    assert_eq!((outside.status, outside.header("content-range")), (416, Some("bytes */10")));

    let upload = begin_upload(&running.client, "a").await;
    let chunk = |range: &str| Request::patch(&upload).header("Content-Range", range).body("12345");
    assert_eq!(running.send(chunk("0-4")).await.status, 202);
    let put = Request::put(&upload).query("digest", blob.digest).header("Content-Range", "0-4").body("12345");
    for request in [chunk("0-4"), chunk("6-10"), put] {
        let answer = running.send(request).await;
        assert_eq!(answer.status, 416);
        assert_eq!((answer.header("location"), answer.header("range")), (Some(upload.as_str()), Some("0-4")));
    }
    let put = Request::put(&upload).query("digest", Content::new("", "1234512345").digest);
    let put = put.header("Content-Range", "5-9").body("12345");
    assert_eq!(running.send(put).await.status, 201, "what was out of order is no obstacle");
}

#[tokio::test]
async fn an_error_to_head_has_no_body() {
    let running = Setup::new().start().await;
    for path in
        ["/v2/a/manifests/x".to_owned(), format!("/v2/a/blobs/{DIGEST}"), "/v2/A/tags/list".to_owned()]
    {
        let (get, head) = (running.send(Request::get(&path)).await, running.send(Request::head(&path)).await);
        assert_eq!(head.status, get.status);
        assert!(head.body.is_empty());
        assert_eq!(head.header("content-length"), get.header("content-length"));
    }
}

#[tokio::test]
async fn wrong_bytes_leave_nothing_behind() {
    let running = Setup::new().start().await;
    let (right, wrong) = (Content::new("", "right"), Content::new("", "wrong"));
    let base = "/v2/a/blobs/uploads/";
    let whole = Request::post(base).query("digest", right.digest).body(wrong.bytes.clone());
    assert_eq!(running.send(whole).await.status, 400);
    let upload = begin_upload(&running.client, "a").await;
    assert_eq!(running.send(Request::patch(&upload).body(wrong.bytes.clone())).await.status, 202);
    assert_eq!(running.send(Request::put(&upload).query("digest", right.digest)).await.status, 400);
    assert_eq!(running.send(Request::get(&upload)).await.status, 404, "the upload is gone");
    for content in [&right, &wrong] {
        assert_eq!(running.send(Request::get(&format!("/v2/a/blobs/{}", content.digest))).await.status, 404);
    }
    let image = Image::small(1);
    let put = push_manifest(&running.client, "a", &right.digest.to_string(), &image.manifest).await;
    assert_eq!(put.status, 400);
    assert_eq!(running.send(Request::get("/v2/a/tags/list")).await.status, 404, "no repository came of it");
}
