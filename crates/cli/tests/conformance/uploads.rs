//! Pushing blobs (end-4a, 4b, 4c, 5, 6, 13).

use bytes::Bytes;
use deltaport_oci::{Algorithm, Digest};
use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::sample::{Content, bytes};

use crate::harness::{Registry, requirements};
use crate::steps::{digest, expect_error, location};

/// The ways to push a blob.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// One POST with everything (end-4b).
    Post,
    /// POST, then PUT with everything.
    PostPut,
    /// POST, one PATCH with `Content-Range`, PUT.
    Chunk,
    /// POST, one PATCH of unknown length, PUT: what skopeo, podman and docker do.
    Stream,
    /// POST, PATCHes, and the last chunk in the PUT.
    LastInPut,
}

const WAYS: [Way; 5] = [Way::Post, Way::PostPut, Way::Chunk, Way::Stream, Way::LastInPut];

fn blob(seed: u64) -> Content {
    Content::new("application/octet-stream", bytes(seed, 3000))
}

/// A chunk that begins at byte `start`.
fn chunk(upload: &str, start: usize, bytes: Bytes) -> Request {
    let request = Request::patch(upload).header("Content-Type", "application/octet-stream");
    if bytes.is_empty() {
        return request;
    }
    request.header("Content-Range", content_range(start, &bytes)).body(bytes)
}

fn content_range(start: usize, bytes: &[u8]) -> String {
    format!("{start}-{}", start + bytes.len() - 1)
}

/// Sends a chunk that has to be taken, and returns where to go on.
async fn send_chunk(registry: &Registry, upload: &str, start: usize, bytes: Bytes) -> String {
    let end = start + bytes.len();
    let response = registry.send(chunk(upload, start, bytes)).await;
    assert_eq!(response.status, 202, "{}", response.text());
    if end > 0 {
        assert_eq!(response.header("range"), Some(format!("0-{}", end - 1).as_str()));
    }
    location(&response)
}

/// Pushes `bytes` as `digest` and returns the last response.
async fn push(registry: &Registry, way: Way, digest: &Digest, bytes: &Bytes) -> Response {
    let uploads = registry.path("blobs/uploads/");
    let close = |upload: &str| Request::put(upload).query("digest", digest);
    match way {
        Way::Post => {
            let request = Request::post(&uploads).query("digest", digest).body(bytes.clone());
            registry.send(request.header("Content-Type", "application/octet-stream")).await
        }
        Way::PostPut => {
            let upload = registry.begin_upload().await;
            registry.send(close(&upload).body(bytes.clone())).await
        }
        Way::Chunk => {
            let upload = registry.begin_upload().await;
            let upload = send_chunk(registry, &upload, 0, bytes.clone()).await;
            registry.send(close(&upload)).await
        }
        Way::Stream => {
            let upload = registry.begin_upload().await;
            let pieces = bytes.chunks(1000).map(Bytes::copy_from_slice);
            let response = registry.send(Request::patch(&upload).chunked(pieces)).await;
            assert_eq!(response.status, 202, "{}", response.text());
            registry.send(close(&location(&response))).await
        }
        Way::LastInPut => {
            let mut upload = registry.begin_upload().await;
            let (first, last) = (bytes.slice(..bytes.len() / 2), bytes.slice(bytes.len() / 2..));
            if !first.is_empty() {
                upload = send_chunk(registry, &upload, 0, first.clone()).await;
            }
            let request = close(&upload).body(last.clone());
            if last.is_empty() {
                return registry.send(request).await;
            }
            registry.send(request.header("Content-Range", content_range(first.len(), &last))).await
        }
    }
}

/// Pushes a blob that has to be taken, and looks at it from every side.
async fn expect_pushed(registry: &Registry, way: Way, blob: &Content) {
    let response = push(registry, way, &blob.digest, &blob.bytes).await;
    assert_eq!(response.status, 201, "{way:?}: {}", response.text());
    assert_eq!(digest(&response), Some(blob.digest), "{way:?}");
    let there = registry.send(Request::get(&location(&response))).await;
    assert_eq!((there.status, &there.body), (200, &blob.bytes), "{way:?}: at its location");
    registry.expect_blob(blob).await;
}

/// Pushes the same content in each way into a repository of its own, under both algorithms.
async fn expect_pushed_in_every_way(registry: &Registry, content: &Content) {
    for way in WAYS {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let registry = registry.other(&format!("{way:?}-{algorithm}").to_lowercase());
            expect_pushed(&registry, way, &content.renamed(algorithm)).await;
        }
    }
}

requirements! {
    /// end-4b: one request.
    async fn a_blob_in_one_post(registry: &Registry) {
        expect_pushed(registry, Way::Post, &blob(1)).await;
        expect_pushed(registry, Way::Post, &blob(2).renamed(Algorithm::Sha512)).await;
    }

    /// end-4a and end-6: the usual two.
    async fn a_blob_in_post_and_put(registry: &Registry) {
        expect_pushed(registry, Way::PostPut, &blob(1)).await;
        expect_pushed(registry, Way::PostPut, &blob(2).renamed(Algorithm::Sha512)).await;
    }

    /// end-5: one chunk.
    async fn a_blob_in_one_chunk(registry: &Registry) {
        expect_pushed(registry, Way::Chunk, &blob(1)).await;
        expect_pushed(registry, Way::Chunk, &blob(2).renamed(Algorithm::Sha512)).await;
    }

    /// A stream: PATCH without `Content-Range` and without a length.
    async fn a_blob_in_a_stream(registry: &Registry) {
        expect_pushed(registry, Way::Stream, &blob(1)).await;
        expect_pushed(registry, Way::Stream, &blob(2).renamed(Algorithm::Sha512)).await;
    }

    /// Chunks, the last of them with the PUT.
    async fn the_last_chunk_in_the_put(registry: &Registry) {
        expect_pushed(registry, Way::LastInPut, &blob(1)).await;
        expect_pushed(registry, Way::LastInPut, &blob(2).renamed(Algorithm::Sha512)).await;
    }

    /// Three chunks, each at the location that the one before named; after each the upload says how far it is.
    async fn a_blob_in_three_chunks(registry: &Registry) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let blob = blob(3).renamed(algorithm);
            let mut upload = registry.begin_upload().await;
            for start in [0, 1000, 2000] {
                upload = send_chunk(registry, &upload, start, blob.bytes.slice(start..start + 1000)).await;
                let state = registry.send(Request::get(&upload)).await;
                assert_eq!(state.status, 204, "{}", state.text());
                assert_eq!(state.header("range"), Some(format!("0-{}", start + 999).as_str()));
                upload = location(&state);
            }
            let response = registry.send(Request::put(&upload).query("digest", blob.digest)).await;
            assert_eq!(response.status, 201, "{}", response.text());
            registry.expect_blob(&blob).await;
        }
    }

    /// No bytes at all are content too.
    async fn the_empty_blob(registry: &Registry) {
        expect_pushed_in_every_way(registry, &Content::new("x/y", "")).await;
    }

    /// The configuration of most artifacts.
    async fn the_blob_of_an_empty_object(registry: &Registry) {
        expect_pushed_in_every_way(registry, &Content::new("x/y", "{}")).await;
    }

    /// Pushing what is there already succeeds.
    async fn a_blob_pushed_twice(registry: &Registry) {
        for way in WAYS {
            expect_pushed(registry, way, &blob(4)).await;
        }
    }

    /// Bytes that do not have the announced digest are refused and not kept under any name.
    async fn a_wrong_digest_is_refused_in_every_way(registry: &Registry) {
        let (announced, sent) = (blob(5), blob(6));
        for way in WAYS {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let digest = announced.renamed(algorithm).digest;
                let response = push(registry, way, &digest, &sent.bytes).await;
                expect_error(&response, 400, "DIGEST_INVALID");
                registry.expect_no_blob(&digest).await;
            }
        }
        registry.expect_no_blob(&sent.digest).await;
    }

    /// The closing PUT has to say a digest, and one that parses.
    async fn a_missing_or_malformed_digest_is_refused(registry: &Registry) {
        for digest in ["", "sha256:baddigeststring", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
            let upload = registry.begin_upload().await;
            let request = Request::put(&upload).query("digest", digest).body(blob(7).bytes);
            expect_error(&registry.send(request).await, 400, "DIGEST_INVALID");
        }
        let upload = registry.begin_upload().await;
        assert_eq!(registry.send(Request::put(&upload).body(blob(7).bytes)).await.status, 400);
        let request = Request::post(&registry.path("blobs/uploads/?digest=sha256:baddigeststring"));
        expect_error(&registry.send(request.body(blob(7).bytes)).await, 400, "DIGEST_INVALID");
    }

    /// Every upload has a location of its own.
    async fn locations_are_unique(registry: &Registry) {
        assert_ne!(registry.begin_upload().await, registry.begin_upload().await);
    }

    /// A chunk that does not begin where the upload ends is refused; the upload says where to go on, and does.
    async fn a_chunk_out_of_order_is_refused(registry: &Registry) {
        let blob = blob(8);
        let upload = registry.begin_upload().await;
        let early = registry.send(chunk(&upload, 1000, blob.bytes.slice(1000..2000))).await;
        assert_eq!(early.status, 416, "a first chunk that is not the first");
        let upload = send_chunk(registry, &upload, 0, blob.bytes.slice(..1000)).await;
        for start in [0, 500, 2000] {
            let response = registry.send(chunk(&upload, start, blob.bytes.slice(start..start + 1000))).await;
            assert_eq!(response.status, 416, "a chunk at {start}");
        }
        let state = registry.send(Request::get(&upload)).await;
        assert_eq!((state.status, state.header("range")), (204, Some("0-999")));
        let upload = send_chunk(registry, &location(&state), 1000, blob.bytes.slice(1000..)).await;
        let response = registry.send(Request::put(&upload).query("digest", blob.digest)).await;
        assert_eq!(response.status, 201);
        registry.expect_blob(&blob).await;
    }

    /// The same for a last chunk that comes with the PUT; the upload lives on.
    async fn a_last_chunk_out_of_order_is_refused(registry: &Registry) {
        let blob = blob(9);
        let upload = registry.begin_upload().await;
        let upload = send_chunk(registry, &upload, 0, blob.bytes.slice(..1000)).await;
        let last = blob.bytes.slice(1000..);
        let put = |upload: &str, start| {
            let request = Request::put(upload).query("digest", blob.digest);
            request.header("Content-Range", content_range(start, &last)).body(last.clone())
        };
        assert_eq!(registry.send(put(&upload, 2000)).await.status, 416);
        let state = registry.send(Request::get(&upload)).await;
        assert_eq!((state.status, state.header("range")), (204, Some("0-999")));
        assert_eq!(registry.send(put(&location(&state), 1000)).await.status, 201);
        registry.expect_blob(&blob).await;
    }

    /// A `Content-Range` that contradicts the length of the chunk, or is none.
    async fn a_chunk_that_contradicts_itself_is_refused(registry: &Registry) {
        let upload = registry.begin_upload().await;
        for range in ["0-98", "0-100", "99-0", "first-last"] {
            let request = Request::patch(&upload).header("Content-Range", range).body(bytes(1, 100));
            let status = registry.send(request).await.status;
            assert!(matches!(status, 400 | 416), "{range}: {status}");
        }
        let state = registry.send(Request::get(&upload)).await;
        assert_eq!(state.status, 204, "the upload is still there");
        assert!(matches!(state.header("range"), None | Some("0-0")), "and has nothing: {:?}", state.header("range"));
    }

    /// end-4c: the algorithm may be announced; it is a hint and no promise.
    async fn the_algorithm_may_be_announced(registry: &Registry) {
        for (hint, actual) in [
            (Algorithm::Sha512, Algorithm::Sha512),
            (Algorithm::Sha256, Algorithm::Sha256),
            (Algorithm::Sha512, Algorithm::Sha256),
        ] {
            let request = Request::post(&registry.path("blobs/uploads/")).query("digest-algorithm", hint);
            let response = registry.send(request).await;
            assert_eq!(response.status, 202, "{}", response.text());
            let blob = blob(10).renamed(actual);
            let request = Request::put(&location(&response)).query("digest", blob.digest).body(blob.bytes.clone());
            assert_eq!(registry.send(request).await.status, 201, "{hint} then {actual}");
            registry.expect_blob(&blob).await;
        }
    }

    /// end-4c: an algorithm that is not supported.
    async fn an_unknown_algorithm_is_refused(registry: &Registry) {
        for algorithm in ["md5", "SHA256", "../.."] {
            let request = Request::post(&registry.path("blobs/uploads/")).query("digest-algorithm", algorithm);
            expect_error(&registry.send(request).await, 400, "DIGEST_INVALID");
        }
    }

    /// Chunks without an announced algorithm may end in a sha512.
    async fn sha512_need_not_be_announced(registry: &Registry) {
        let blob = blob(11).renamed(Algorithm::Sha512);
        let upload = registry.begin_upload().await;
        let upload = send_chunk(registry, &upload, 0, blob.bytes.slice(..1700)).await;
        let upload = send_chunk(registry, &upload, 1700, blob.bytes.slice(1700..)).await;
        let response = registry.send(Request::put(&upload).query("digest", blob.digest)).await;
        assert_eq!(response.status, 201, "{}", response.text());
        registry.expect_blob(&blob).await;
    }

    /// An upload that nobody began.
    async fn an_unknown_upload(registry: &Registry) {
        let upload = registry.path("blobs/uploads/00000000000000000000000000000000");
        for request in [
            Request::get(&upload),
            Request::patch(&upload).body("x"),
            Request::put(&upload).query("digest", blob(1).digest).body(blob(1).bytes),
            Request::delete(&upload),
        ] {
            expect_error(&registry.send(request).await, 404, "BLOB_UPLOAD_UNKNOWN");
        }
    }

    /// An upload belongs to its repository: its identifier opens nothing in another one.
    async fn an_upload_of_another_repository_is_unknown(registry: &Registry) {
        let upload = registry.begin_upload().await;
        let stolen = upload.replace(&registry.repository, &registry.other("elsewhere").repository);
        assert_ne!(upload, stolen);
        expect_error(&registry.send(Request::get(&stolen)).await, 404, "BLOB_UPLOAD_UNKNOWN");
        expect_error(&registry.send(Request::patch(&stolen).body("x")).await, 404, "BLOB_UPLOAD_UNKNOWN");
    }

    /// An upload ends with its PUT.
    async fn a_finished_upload_is_gone(registry: &Registry) {
        let upload = registry.begin_upload().await;
        let request = Request::put(&upload).query("digest", blob(12).digest).body(blob(12).bytes);
        assert_eq!(registry.send(request).await.status, 201);
        expect_error(&registry.send(Request::get(&upload)).await, 404, "BLOB_UPLOAD_UNKNOWN");
    }

    /// A connection that breaks in the middle of a chunk costs what was under way, not the upload.
    async fn an_upload_is_resumed_after_the_connection_broke(registry: &Registry) {
        let blob = Content::new("x/y", bytes(13, 300_000));
        let upload = registry.begin_upload().await;
        let upload = send_chunk(registry, &upload, 0, blob.bytes.slice(..100_000)).await;
        let mut request = chunk(&upload, 100_000, blob.bytes.slice(100_000..));
        if registry.setup == crate::harness::Setup::PasswordsAndTls {
            request = request.basic(crate::harness::ALICE.0, crate::harness::ALICE.1);
        }
        let mut connection = registry.client.connect().await.expect("the server listens");
        connection.send_head(&request).await.expect("it takes requests");
        connection.write(&blob.bytes[100_000..200_000]).await.expect("it takes bytes");
        connection.reset().expect("our socket");
        // The server may not have noticed yet, and holds the upload until then.
        let offset = loop {
            let state = registry.send(Request::get(&upload)).await;
            assert_eq!(state.status, 204, "{}", state.text());
            let last = state.header("range").and_then(|range| range.strip_prefix("0-")).expect("a range");
            let offset = last.parse::<usize>().expect("a number") + 1;
            assert!((100_000..=200_000).contains(&offset), "{offset}");
            let response = registry.send(chunk(&upload, offset, blob.bytes.slice(offset..))).await;
            match response.status {
                202 => break offset,
                409 | 416 | 423 | 429 => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                status => panic!("{status} from {offset}: {}", response.text()),
            }
        };
        let response = registry.send(Request::put(&upload).query("digest", blob.digest)).await;
        assert_eq!(response.status, 201, "resumed at {offset}: {}", response.text());
        registry.expect_blob(&blob).await;
    }
}
