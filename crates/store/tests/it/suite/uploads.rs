//! Uploads in several requests, by several people, with restarts in between.

use std::time::{Duration, SystemTime};

use deltaport_oci::Digest;
use deltaport_store::{Error, Options, Store};

use super::home;
use crate::common::*;

#[tokio::test]
async fn chunks_add_up_also_over_restarts() {
    let dir = home();
    let a = repository("a");
    let bytes = noise(3, 10_000_000);
    let digest = Digest::sha256(&bytes);
    let mut store = dir.open().await;
    let id = store.uploads().begin(&a, OWNER, None, 10).await.unwrap();
    assert_eq!((id.len(), store.uploads().offset(&a, &id, OWNER).await.unwrap()), (32, 0));
    let mut at = 0;
    for end in [1, 300_000, 300_001, 5_000_000, 9_999_999, 10_000_000] {
        let mut appender = store.uploads().append(&a, &id, OWNER, Some(at)).await.unwrap();
        appender.write(bytes.slice(at as usize..end)).await.unwrap();
        assert_eq!(appender.finish().await.unwrap(), end as u64);
        at = end as u64;
        store.close().await.unwrap();
        drop(store);
        if dir.has_files() {
            // What a crash leaves of a chunk that was not acknowledged.
            let path = dir.files().join("uploads").join(&id);
            let mut torn = std::fs::read(&path).unwrap();
            torn.extend_from_slice(b"torn");
            std::fs::write(&path, torn).unwrap();
        }
        dir.assert_clean();
        store = dir.open().await;
        assert_eq!(store.uploads().offset(&a, &id, OWNER).await.unwrap(), at);
    }
    assert_eq!(store.uploads().finish(&a, &id, OWNER, &digest).await.unwrap(), at);
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
    assert!(matches!(store.uploads().offset(&a, &id, OWNER).await, Err(Error::NotFound)));
    store.close().await.unwrap();
    assert_eq!(std::fs::read_dir(dir.files().join("uploads")).unwrap().count(), 0);
    dir.assert_clean();
}

#[tokio::test]
async fn one_at_a_time_in_order_and_only_its_owner() {
    let dir = home();
    let store = dir.open().await;
    let (a, uploads) = (repository("a"), store.uploads());
    let id = uploads.begin(&a, OWNER, None, 1).await.unwrap();
    assert!(matches!(uploads.begin(&a, OWNER, None, 1).await, Err(Error::TooManyUploads)));
    uploads.begin(&a, "bob", None, 1).await.unwrap();

    for (repository, id, owner) in [
        (&a, &*id, "bob"),
        (&repository("b"), &*id, OWNER),
        (&a, "0".repeat(32).as_str(), OWNER),
        (&a, "../names.db", OWNER),
    ] {
        assert!(matches!(uploads.offset(repository, id, owner).await, Err(Error::NotFound)));
        assert!(matches!(uploads.append(repository, id, owner, None).await, Err(Error::NotFound)));
        assert!(matches!(uploads.cancel(repository, id, owner).await, Err(Error::NotFound)));
        let digest = Digest::sha256(b"");
        assert!(matches!(uploads.finish(repository, id, owner, &digest).await, Err(Error::NotFound)));
    }

    let mut appender = uploads.append(&a, &id, OWNER, Some(0)).await.unwrap();
    assert!(matches!(uploads.append(&a, &id, OWNER, None).await, Err(Error::Busy)));
    assert!(matches!(uploads.append(&a, &id, "bob", None).await, Err(Error::NotFound)));
    assert!(matches!(uploads.cancel(&a, &id, OWNER).await, Err(Error::Busy)));
    appender.write(noise(1, 10)).await.unwrap();
    appender.finish().await.unwrap();
    let error = uploads.append(&a, &id, OWNER, Some(0)).await.unwrap_err();
    assert!(matches!(error, Error::OutOfOrder { offset: 10 }));
    let error = uploads.append(&a, &id, OWNER, Some(11)).await.unwrap_err();
    assert!(matches!(error, Error::OutOfOrder { offset: 10 }));
    uploads.cancel(&a, &id, OWNER).await.unwrap();
    assert!(matches!(uploads.offset(&a, &id, OWNER).await, Err(Error::NotFound)));
    store.close().await.unwrap();
    dir.assert_clean();
}

#[tokio::test]
async fn idle_uploads_make_room_for_others_of_their_owner() {
    let dir = home();
    let store = dir.open().await;
    let (a, uploads) = (repository("a"), store.uploads());
    let mut ids = Vec::new();
    for _ in 0..4 {
        let id = uploads.begin(&a, OWNER, None, 4).await.unwrap();
        let mut appender = uploads.append(&a, &id, OWNER, None).await.unwrap();
        appender.write(noise(1, 10)).await.unwrap();
        appender.finish().await.unwrap();
        ids.push(id);
    }
    let foreign = uploads.begin(&a, "bob", None, 1).await.unwrap();
    // Minutes without a touch; the one being written to is the longest idle by its row.
    let age = |id: &str, minutes: i64| {
        dir.sql(&format!("UPDATE upload SET touched = touched - {minutes} * 60000 WHERE id = '{id}'"));
    };
    for (id, minutes) in [(&ids[0], 9), (&ids[1], 6), (&ids[2], 7), (&ids[3], 4), (&foreign, 60)] {
        age(id, minutes);
    }
    let writing = uploads.append(&a, &ids[0], OWNER, None).await.unwrap();
    for ended in [&ids[2], &ids[1]] {
        assert!(uploads.offset(&a, ended, OWNER).await.is_ok());
        uploads.begin(&a, OWNER, None, 4).await.unwrap();
        assert!(matches!(uploads.offset(&a, ended, OWNER).await, Err(Error::NotFound)));
        assert!(!dir.files().join("uploads").join(ended).exists());
    }
    assert!(matches!(uploads.begin(&a, OWNER, None, 4).await, Err(Error::TooManyUploads)));
    assert_eq!(uploads.offset(&a, &ids[3], OWNER).await.unwrap(), 10, "not idle for long enough");
    assert_eq!(uploads.offset(&a, &foreign, "bob").await.unwrap(), 0);
    writing.finish().await.unwrap();
    store.close().await.unwrap();
    dir.assert_clean();
}

#[tokio::test]
async fn what_arrived_before_the_connection_broke_is_kept() {
    let dir = home();
    let store = dir.open().await;
    let (a, bytes) = (repository("a"), noise(2, 6_000_000));
    let id = store.uploads().begin(&a, OWNER, None, 1).await.unwrap();
    let mut appender = store.uploads().append(&a, &id, OWNER, None).await.unwrap();
    appender.write(bytes.slice(..5_000_000)).await.unwrap();
    drop(appender);
    let offset = loop {
        match store.uploads().append(&a, &id, OWNER, None).await {
            Ok(mut appender) => {
                let offset = store.uploads().offset(&a, &id, OWNER).await.unwrap();
                appender.write(bytes.slice(offset as usize..)).await.unwrap();
                appender.finish().await.unwrap();
                break offset;
            }
            Err(Error::Busy) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(offset, 5_000_000);
    store.uploads().finish(&a, &id, OWNER, &Digest::sha256(&bytes)).await.unwrap();
}

#[tokio::test]
async fn a_wrong_digest_ends_an_upload() {
    let dir = home();
    let store = dir.open().await;
    let (a, uploads, wrong) = (repository("a"), store.uploads(), Digest::sha256(b"wrong"));
    for at_once in [false, true] {
        let id = uploads.begin(&a, OWNER, None, 1).await.unwrap();
        let mut appender = uploads.append(&a, &id, OWNER, None).await.unwrap();
        appender.write(noise(1, 1000)).await.unwrap();
        let error = if at_once {
            appender.commit(&a, &wrong).await.unwrap_err()
        } else {
            appender.finish().await.unwrap();
            uploads.finish(&a, &id, OWNER, &wrong).await.unwrap_err()
        };
        assert!(matches!(error, Error::Mismatch { .. }));
        assert!(matches!(uploads.offset(&a, &id, OWNER).await, Err(Error::NotFound)));
    }
    let id = uploads.begin(&a, OWNER, None, 1).await.unwrap();
    let mut appender = uploads.append(&a, &id, OWNER, None).await.unwrap();
    appender.write(noise(1, 1000)).await.unwrap();
    let digest = Digest::sha256(&noise(1, 1000));
    assert_eq!(appender.commit(&a, &digest).await.unwrap(), 1000);
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), noise(1, 1000));
    store.close().await.unwrap();
    assert_eq!(std::fs::read_dir(dir.files().join("uploads")).unwrap().count(), 0);
    dir.assert_clean();
}

#[tokio::test]
async fn abandoned_uploads_expire() {
    let dir = home();
    let store = dir.open().await;
    let (a, uploads) = (repository("a"), store.uploads());
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = uploads.begin(&a, OWNER, None, 10).await.unwrap();
        let mut appender = uploads.append(&a, &id, OWNER, None).await.unwrap();
        appender.write(noise(1, 1000)).await.unwrap();
        appender.finish().await.unwrap();
        ids.push(id);
    }
    assert_eq!(store.collect(SystemTime::now()).await.unwrap().uploads, 0);
    let busy = uploads.append(&a, &ids[2], OWNER, None).await.unwrap();
    let later = SystemTime::now() + Duration::from_secs(3601);
    assert_eq!(store.collect(later).await.unwrap().uploads, 2);
    assert!(matches!(uploads.offset(&a, &ids[0], OWNER).await, Err(Error::NotFound)));
    assert_eq!(uploads.offset(&a, &ids[2], OWNER).await.unwrap(), 1000);
    drop(busy);
    store.close().await.unwrap();
    let left = usize::from(dir.has_files());
    assert_eq!(std::fs::read_dir(dir.files().join("uploads")).unwrap().count(), left);
}

#[tokio::test]
async fn free_space_is_kept() {
    let dir = home();
    let stat = rustix::fs::statvfs(dir.files()).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    let a = repository("a");

    let full = Options { keep_free: 2 * free, ..dir.options() };
    let store = Store::open(full).await.unwrap();
    assert!(matches!(store.ready().await, Err(Error::NoSpace)));
    assert!(matches!(push_blob(&store, &a, noise(1, 10)).await, Err(Error::NoSpace)));
    assert!(matches!(store.uploads().begin(&a, OWNER, None, 1).await, Err(Error::NoSpace)));
    store.close().await.unwrap();
    drop(store);

    // Others write to this disk too, so the limit is only roughly where it should be.
    let nearly = Options { keep_free: free - (32 << 20), ..dir.options() };
    let store = Store::open(nearly).await.unwrap();
    let result = push_blob(&store, &a, noise(1, 128 << 20)).await;
    assert!(matches!(result, Err(Error::NoSpace)), "{result:?}");
    store.close().await.unwrap();
    assert_eq!(std::fs::read_dir(dir.files().join("staging")).unwrap().count(), 0);
    dir.assert_clean();
}
