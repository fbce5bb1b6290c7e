//! Disks that fail: an error is told, nothing half-written stays, and the store goes on when the disk does.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use deltaport_oci::{Digest, Reference};
use deltaport_store::{Error, Faults, Options, Result, Store};

use crate::common::*;

/// The system's numbers for a full disk and for one that cannot be read or written.
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// Which step fails at the moment, and with what.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Option<(&'static str, i32)>>>);

impl Disk {
    fn set(&self, failure: Option<(&'static str, i32)>) {
        *self.0.lock().unwrap() = failure;
    }

    fn faults(&self) -> Faults {
        let disk = self.clone();
        Faults::new(move |name| match *disk.0.lock().unwrap() {
            Some((point, error)) if point == name => Err(io::Error::from_raw_os_error(error)),
            _ => Ok(()),
        })
    }
}

/// Pushes an image by every way there is.
async fn push_everything(store: &Store, seed: u64) -> Result<Digest> {
    let app = repository("app");
    let config = push_blob(store, &app, noise(seed, 300_000)).await?;
    let bytes = noise(seed + 1, 600_000);
    let layer = Digest::sha256(&bytes);
    let id = store.uploads().begin(&app, OWNER, None, 1000).await?;
    for part in [bytes.slice(..200_000), bytes.slice(200_000..)] {
        let mut appender = store.uploads().append(&app, &id, OWNER, None).await?;
        appender.write(part).await?;
        appender.finish().await?;
    }
    store.uploads().finish(&app, &id, OWNER, &layer).await?;
    let id = store.uploads().begin(&app, OWNER, None, 1000).await?;
    let mut appender = store.uploads().append(&app, &id, OWNER, None).await?;
    appender.write(noise(seed + 2, 100_000)).await?;
    let other = Digest::sha256(&noise(seed + 2, 100_000));
    appender.commit(&app, &other).await?;
    let manifest = image(&config, &[layer, other], &["latest"]);
    let digest = manifest.digest;
    store.names().put_manifest(&app, manifest).await?;
    Ok(digest)
}

fn unproven(root: &Path) -> usize {
    let marker = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("commit.");
    std::fs::read_dir(root.join("staging"))
        .unwrap()
        .filter(|e| !marker(&e.as_ref().unwrap().file_name()))
        .count()
}

#[tokio::test]
async fn every_step_may_fail() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let open_failing =
        async || Store::open(Options { faults: disk.faults(), ..options(dir.path()) }).await.unwrap();
    let mut store = open_failing().await;
    let first = push_everything(&store, 1).await.unwrap();
    let mut seed = 10;
    for point in Faults::POINTS {
        for error in [ENOSPC, EIO] {
            seed += 10;
            disk.set(Some((point, error)));
            let pushed = push_everything(&store, seed).await;
            let told = match &pushed {
                Ok(_) => false,
                Err(Error::NoSpace) => error == ENOSPC,
                Err(Error::Io(_)) => error == EIO,
                Err(error) => panic!("{point}: {error}"),
            };
            let harmless = [
                "blob-unmark",
                "collect-unlink",
                "collect-unlinked",
                "journal-replace",
                "journal-replaced",
                "partial-sync",
                "partial-record",
            ];
            assert_eq!(pushed.is_err(), !harmless.contains(point), "{point}");
            assert_eq!(told, pushed.is_err(), "{point}: {pushed:?}");

            // What was there before is still served.
            let found = store.names().manifest(&repository("app"), &Reference::Digest(first)).await.unwrap();
            assert!(found.is_some(), "{point}");

            // And as soon as the disk works again, everything does.
            disk.set(None);
            let digest =
                push_everything(&store, seed).await.unwrap_or_else(|error| panic!("{point}: {error}"));
            let latest = Reference::Tag(tag("latest"));
            let found = store.names().manifest(&repository("app"), &latest).await.unwrap().unwrap();
            assert_eq!(found.digest, digest, "{point}");
        }
        store.close().await.unwrap();
        assert_eq!(unproven(dir.path()), 0, "{point}");
        drop(store);
        let report = check(dir.path(), false);
        assert!(report.is_clean(), "{point}: {:#?}", report.findings);
        store = open_failing().await;
    }
    store.close().await.unwrap();
    assert_clean(dir.path());
}

#[tokio::test]
async fn a_collector_that_fails_goes_on_later() {
    for point in [
        "before-commit",
        "after-commit",
        "collect-unlink",
        "collect-unlinked",
        "journal-append",
        "journal-synced",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let store = Store::open(Options { faults: disk.faults(), ..options(dir.path()) }).await.unwrap();
        let app = repository("app");
        for seed in 0..3 {
            push_blob(&store, &app, noise(seed, 1000)).await.unwrap();
        }
        let later = SystemTime::now() + Duration::from_secs(3601);
        disk.set(Some((point, EIO)));
        assert!(matches!(store.collect(later).await, Err(Error::Io(_))), "{point}");
        assert!(matches!(store.collect(later).await, Err(Error::Io(_)) | Ok(_)), "{point}");
        disk.set(None);
        store.collect(later).await.unwrap();
        store.collect(later).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        assert_eq!(queued(dir.path()), 0, "{point}");
        assert_clean(dir.path());
        assert_eq!(check(dir.path(), false).blobs, 0, "{point}");
    }
}

/// Futures that are dropped at some point of their life, as a server does when a connection breaks.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_futures_leave_no_half_states() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for seed in 0..60_u64 {
        let patience = Duration::from_micros(seed * 400);
        let _ = tokio::time::timeout(patience, push_everything(&store, 10 * seed)).await;
        let later = SystemTime::now();
        let _ = tokio::time::timeout(patience, store.collect(later)).await;
        let _ = tokio::time::timeout(patience, store.names().delete_tag(&repository("app"), &tag("latest")))
            .await;
    }
    // Nothing is locked: the same digests can all be pushed.
    for seed in [0, 100, 500, 590] {
        push_everything(&store, seed).await.unwrap();
    }
    store.collect(SystemTime::now() + Duration::from_secs(7200)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert_eq!(std::fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0);
    assert_clean(dir.path());
}

/// A process without special rights could not open a read-only file to go on with it.
#[tokio::test]
async fn an_upload_stays_writable_until_it_is_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let store = Store::open(Options { faults: disk.faults(), ..options(dir.path()) }).await.unwrap();
    let (a, bytes) = (repository("a"), noise(1, 1000));
    let digest = Digest::sha256(&bytes);
    let id = store.uploads().begin(&a, OWNER, None, 1).await.unwrap();
    let mut appender = store.uploads().append(&a, &id, OWNER, None).await.unwrap();
    appender.write(bytes).await.unwrap();
    appender.finish().await.unwrap();
    disk.set(Some(("blob-rename", EIO)));
    assert!(matches!(store.uploads().finish(&a, &id, OWNER, &digest).await, Err(Error::Io(_))));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("uploads").join(&id)) & 0o200, 0o200);
    disk.set(None);
    store.uploads().finish(&a, &id, OWNER, &digest).await.unwrap();
    let hex = digest.hex();
    assert_eq!(mode(&dir.path().join("blobs/sha256").join(&hex[..2]).join(&hex)), 0o444);
}
