//! What the collector removes, what it leaves alone, and that nobody is hurt while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use deltaport_oci::{Digest, Reference};
use deltaport_store::{Error, Faults, LayerDelta, Options, Store};
use tokio::sync::RwLock;

use super::home;
use crate::common::*;

fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3601)
}

#[tokio::test]
async fn only_what_nothing_refers_to_goes_and_not_before_its_time() {
    let dir = home();
    let store = dir.open().await;
    let (names, app, other) = (store.names(), repository("app"), repository("other"));
    let mut blobs = Vec::new();
    for seed in 0..5 {
        blobs.push(push_blob(&store, &app, noise(seed, 1000)).await.unwrap());
    }
    let manifest = image(&blobs[0], &[blobs[1]], &["v1"]);
    let (digest, size) = (manifest.digest, manifest.bytes.len() as u64);
    names.put_manifest(&app, manifest).await.unwrap();
    names.link_blob(&other, &blobs[1]).await.unwrap();
    names.put_manifest(&other, new_manifest_over(&blobs[1])).await.unwrap();
    names.put_layer_delta(&app, &blobs[0], &blobs[1], &LayerDelta::Blob(blobs[2])).await.unwrap();

    assert_eq!(store.collect(SystemTime::now()).await.unwrap(), Default::default());
    let collected = store.collect(later()).await.unwrap();
    assert_eq!(collected.links, 2, "{collected:?}");
    assert_eq!((collected.blobs, collected.bytes), (2, 2000));
    for (n, blob) in blobs.iter().enumerate() {
        assert_eq!(names.blob(&app, blob).await.unwrap().is_some(), n < 3, "{n}");
        assert_eq!(store.blobs().open(blob).await.unwrap().is_some(), n < 3, "{n}");
    }

    assert!(names.delete_manifest(&app, &digest).await.unwrap());
    assert!(names.blob(&app, &blobs[0]).await.unwrap().is_some());
    let links = store.collect(later()).await.unwrap().links + store.collect(later()).await.unwrap().links;
    assert_eq!(links, 3, "config, layer, and the delta that goes with them");
    assert!(!names.repository_exists(&app).await.unwrap());
    assert!(store.blobs().open(&digest).await.unwrap().is_none(), "the manifest's bytes ({size})");
    assert_eq!(pull_blob(&store, &other, &blobs[1]).await.unwrap(), noise(1, 1000));
    store.close().await.unwrap();
    assert_eq!(dir.queued(), 0);
    dir.assert_clean();
}

fn new_manifest_over(layer: &Digest) -> deltaport_store::NewManifest {
    let mut manifest = image(&Digest::sha256(b"absent"), &[*layer], &["v1"]);
    manifest.required.clear();
    manifest
}

#[tokio::test]
async fn a_blob_that_is_being_read_stays_readable() {
    let dir = home();
    let store = dir.open().await;
    let app = repository("app");
    let digest = push_blob(&store, &app, noise(1, 1_000_000)).await.unwrap();
    let blob = store.blobs().open(&digest).await.unwrap().unwrap();
    store.names().unlink_blob(&app, &digest).await.unwrap();
    assert_eq!(store.collect(later()).await.unwrap().blobs, 1);
    assert!(store.blobs().open(&digest).await.unwrap().is_none());
    assert_eq!(read_all(&blob).await, noise(1, 1_000_000));
}

#[tokio::test]
async fn pushing_again_starts_the_grace_again() {
    let dir = home();
    let store = dir.open().await;
    let app = repository("app");
    let digest = push_blob(&store, &app, noise(1, 1000)).await.unwrap();
    let before = SystemTime::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    push_blob(&store, &app, noise(1, 1000)).await.unwrap();
    let due = before + Duration::from_secs(3600) + Duration::from_millis(10);
    assert_eq!(store.collect(due).await.unwrap().links, 0);
    assert!(store.names().blob(&app, &digest).await.unwrap().is_some());
    assert_eq!(store.collect(later()).await.unwrap().links, 1);
}

/// The narrowest place: the collector has decided that bytes go and is about to remove their file, and the same bytes
/// are pushed again.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn bytes_that_are_pushed_while_they_are_collected_stay() {
    let dir = home();
    let about_to = Arc::new(tokio::sync::Notify::new());
    let faults = Faults::new({
        let about_to = Arc::clone(&about_to);
        move |name| {
            if name == "collect-unlink" {
                about_to.notify_one();
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        }
    });
    let store = Store::open(Options { grace: Duration::ZERO, faults, ..dir.options() }).await.unwrap();
    let (app, bytes) = (repository("app"), noise(1, 5000));
    for _ in 0..5 {
        let digest = push_blob(&store, &app, bytes.clone()).await.unwrap();
        store.names().unlink_blob(&app, &digest).await.unwrap();
        let collector = tokio::spawn({
            let store = store.clone();
            // What time it is by the clock of the database, the collector knows as of when it hears the answer, and on a busy
            // machine that may be a while: then it was unlinked later than now, and nothing would be due.
            let now = SystemTime::now() + Duration::from_secs(60);
            async move { store.collect(now).await.unwrap().blobs }
        });
        about_to.notified().await;
        push_blob(&store, &app, bytes.clone()).await.unwrap();
        assert_eq!(collector.await.unwrap(), 1);
        // Linked after the collector had looked at links.
        assert_eq!(pull_blob(&store, &app, &digest).await.unwrap(), bytes);
    }
    store.close().await.unwrap();
    drop(store);
    dir.assert_clean();
}

/// Several tasks push, delete, mount and check the same few images while the collector runs all the time without any
/// grace. Whatever a task was told is there, and nobody deletes, must be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_live_blob_is_lost_while_everything_happens_at_once() {
    const WRITERS: u64 = 5;
    const ROUNDS: u64 = 12;
    let dir = home();
    // Where a push and the collector could meet, they get time to.
    let faults = Faults::new(|name| {
        if ["collect-unlink", "blob-renamed", "blob-rename"].contains(&name) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    });
    let store = Store::open(Options { grace: Duration::ZERO, faults, ..dir.options() }).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));

    // Who lost a race against the collector once goes on while it rests, or nobody would ever come to an end.
    let rest = Arc::new(RwLock::new(()));

    let collector = tokio::spawn({
        let (store, stop, rest) = (store.clone(), Arc::clone(&stop), Arc::clone(&rest));
        async move {
            let mut removed = 0;
            while !stop.load(Ordering::Relaxed) {
                let _working = rest.write().await;
                removed += store.collect(SystemTime::now()).await.unwrap().blobs;
            }
            removed
        }
    });
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, rest) = (store.clone(), Arc::clone(&rest));
            tokio::spawn(async move { soak(&store, writer, ROUNDS, &rest).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let removed = collector.await.unwrap();
    assert!(removed > 0, "the collector had nothing to do");

    // Everything that still has a name is whole, and the queue drains.
    for _ in 0..3 {
        store.collect(SystemTime::now() + Duration::from_secs(1)).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    assert_eq!(dir.queued(), 0);
    dir.assert_clean();
}

/// Pushes images whose blobs others push and delete too, into a repository of its own, then verifies what it was told.
async fn soak(store: &Store, writer: u64, rounds: u64, rest: &RwLock<()>) {
    let (own, shared) = (repository(&format!("own/{writer}")), repository("shared"));
    let names = store.names();
    for round in 0..rounds {
        // Few seeds, so that writers meet at the same digests.
        let seeds = [round % 5, (round + writer) % 5, 5 + (round * writer) % 3];
        let mut calm = None;
        let manifest = loop {
            let mut digests = Vec::new();
            for seed in seeds {
                let digest = Digest::sha256(&noise(seed, 5000));
                let mounted = seed % 2 == 0 && names.link_blob(&own, &digest).await.unwrap();
                if !mounted {
                    push_blob(store, &own, noise(seed, 5000)).await.unwrap();
                }
                digests.push(digest);
            }
            let manifest = image(&digests[0], &digests[1..], &[&format!("r{}", round % 3)]);
            match names.put_manifest(&own, manifest.clone()).await {
                Ok(()) => break manifest,
                // Without grace the collector may have been faster than the manifest. A client pushes again.
                Err(Error::Missing(_)) => calm = Some(rest.read().await),
                Err(error) => panic!("{error}"),
            };
        };
        drop(calm);
        // From here on this image is referenced in a repository that nobody else touches.
        for blob in manifest.view.blobs() {
            let bytes = pull_blob(store, &own, &blob.digest).await.expect("a referenced blob is linked");
            assert_eq!(Digest::sha256(&bytes), blob.digest);
        }
        let found = names.manifest(&own, &Reference::Digest(manifest.digest)).await.unwrap();
        assert_eq!(found.expect("an acknowledged manifest").bytes, manifest.bytes);
        let in_shared = push_blob(store, &shared, noise(seeds[2], 5000)).await.unwrap();
        if round % 4 == 3 {
            assert!(names.delete_manifest(&own, &manifest.digest).await.unwrap());
            names.unlink_blob(&shared, &in_shared).await.unwrap();
        }
    }
}
