//! A real registry with images in `team/app`.

use deltaport_testkit::http::Request;
use deltaport_testkit::process::Server;
use deltaport_testkit::sample::{self, Content, Image};

/// A blocking command beside a server in this process.
pub(crate) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

pub(crate) async fn push_manifest(server: &Server, reference: &str, manifest: &Content) {
    let path = format!("/v2/team/app/manifests/{reference}");
    let put = Request::put(&path).header("Content-Type", &manifest.media_type);
    assert_eq!(server.client().send(put.body(manifest.bytes.clone())).await.status, 201);
}

pub(crate) async fn push(server: &Server, tag: &str, image: &Image) {
    for blob in image.blobs() {
        let upload = Request::post("/v2/team/app/blobs/uploads/").query("digest", blob.digest);
        assert_eq!(server.client().send(upload.body(blob.bytes.clone())).await.status, 201);
    }
    push_manifest(server, tag, &image.manifest).await;
}

pub(crate) async fn fetch(server: &Server, path: &str) -> Vec<u8> {
    let reply = server.client().send(Request::get(path)).await;
    assert_eq!(reply.status, 200, "{path}");
    reply.body.to_vec()
}

/// Layers of `count` files, of which two are others in the next version.
pub(crate) fn pair_of(seed: u64, count: usize) -> [Content; 2] {
    let mut files = sample::files(seed, count, 1_000);
    let old = sample::layer_of(&files);
    files[3..5].clone_from_slice(&sample::files(seed + 1, count, 1_000)[3..5]);
    [old, sample::layer_of(&files)]
}

/// A layer and its next version.
pub(crate) fn pair(seed: u64) -> [Content; 2] {
    pair_of(seed, 30)
}
