//! What clients see when the disk fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use deltaport_store::Faults;
use deltaport_testkit::http::Request;
use deltaport_testkit::sample::{self, Content, Image};

use crate::harness::{Running, Setup, code, push_blob, push_image, push_manifest};

/// A server whose disk fails with `error` at the step `name` as soon as the switch is on.
async fn failing(name: &'static str, error: fn() -> io::Error) -> (Running, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    let on = Arc::clone(&switch);
    let faults =
        Faults::new(move |step| if step == name && on.load(Relaxed) { Err(error()) } else { Ok(()) });
    (Setup { faults, ..Setup::new() }.start().await, switch)
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_behind() {
    let (running, full) = failing("stage-write", || io::ErrorKind::StorageFull.into()).await;
    let content = Content::new("x/y", sample::bytes(1, 100_000));
    full.store(true, Relaxed);
    let refused = push_blob(&running.client, "a", &content).await;
    assert_eq!((refused.status, code(&refused).as_str()), (507, "UNAVAILABLE"), "{}", refused.text());
    let path = format!("/v2/a/blobs/{}", content.digest);
    assert_eq!(running.send(Request::get(&path)).await.status, 404);
    full.store(false, Relaxed);
    assert_eq!(push_blob(&running.client, "a", &content).await.status, 201);
    assert_eq!(running.send(Request::get(&path)).await.status, 200);
}

#[tokio::test]
async fn what_failed_inside_is_not_told() {
    let (running, broken) = failing("before-commit", || io::Error::other("/secret/path is broken")).await;
    let image = Image::small(1);
    push_image(&running.client, "a", "x", &image).await;
    broken.store(true, Relaxed);
    let refused = push_manifest(&running.client, "a", "y", &image.manifest).await;
    assert_eq!((refused.status, code(&refused).as_str()), (500, "UNKNOWN"));
    assert!(!refused.text().contains("secret"), "{}", refused.text());
    assert_eq!(running.send(Request::get("/v2/a/manifests/y")).await.status, 404);
    assert_eq!(running.send(Request::get("/v2/a/manifests/x")).await.status, 200);
    broken.store(false, Relaxed);
    assert_eq!(push_manifest(&running.client, "a", "y", &image.manifest).await.status, 201);
}
