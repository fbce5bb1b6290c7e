//! Reading objects, by stream, as a local copy, and by others at an address.

use std::io;
use std::time::{Duration, SystemTime};

use deltaport_oci::Digest;
use deltaport_oci::wire::ByteRange;
use deltaport_store::{BucketOptions, ByteStore, Error, Options, Store};
use deltaport_testkit::s3::{Fault, Kind};

use super::*;

#[tokio::test]
async fn reading_goes_on_behind_a_broken_connection() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    let bytes = noise(1, 4_000_000);
    let digest = push_blob(&store, &a, bytes.clone()).await.unwrap();
    home.server.breaks_times(3, Fault::CutAnswer(500_000), |asked| asked.kind == Kind::Get);
    let before = home.server.counts();
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
    assert_eq!((home.server.counts() - before).of(Kind::Get), 4);

    let blob = store.blobs().open(&digest).await.unwrap().unwrap();
    home.server.breaks_times(1, Fault::Stall(100_000), |asked| asked.kind == Kind::Get);
    assert_eq!(read_range(&blob, 17, 1_000_017).await.unwrap(), bytes[17..1_000_017]);
    let end = read_range(&blob, 3_999_999, 4_000_001).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn what_cannot_be_read_is_known_before_the_answer_begins() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    let digest = push_blob(&store, &a, noise(1, 1000)).await.unwrap();
    let blob = store.blobs().open(&digest).await.unwrap().unwrap();
    let all = ByteRange { start: 0, end: 1000 };
    for fault in [Fault::Status(503), Fault::Status(500), Fault::Denied] {
        home.server.breaks(fault.clone(), |_| true);
        let error = blob.begin(all).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{fault:?}: {error}");
        home.server.mends();
    }
    home.server.stop();
    assert!(matches!(blob.begin(all).await, Err(Error::Unavailable { .. })));
    home.server.start_again();
    assert!(blob.begin(all).await.is_ok());

    for (key, _) in home.server.objects(&home.bucket) {
        assert!(home.server.lose(&home.bucket, &key));
    }
    assert!(matches!(blob.begin(all).await, Err(Error::Corrupt(_))));
}

#[tokio::test]
async fn whoever_remembers_an_object_that_is_gone_finds_the_next() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    let bytes = noise(1, 100_000);
    let digest = push_blob(&store, &a, bytes.clone()).await.unwrap();
    let old = store.blobs().open(&digest).await.unwrap().unwrap();
    store.names().unlink_blob(&a, &digest).await.unwrap();
    // Whoever reads while it is collected comes to an end.
    store.collect(SystemTime::now() + Duration::from_secs(3601)).await.unwrap();
    assert!(store.blobs().open(&digest).await.unwrap().is_none());
    assert_eq!(read_all(&old).await, bytes);
    home.collect(&store).await;
    assert_eq!(home.objects(), 0);
    push_blob(&store, &a, bytes.clone()).await.unwrap();
    assert_eq!(read_all(&old).await, bytes);
}

#[tokio::test]
async fn a_copy_is_made_once_proven_and_makes_room_for_others() {
    let home = Home::new();
    let bucket = BucketOptions { scratch: 250_000, ..home.bucket_options() };
    let store = Store::open(Options { bytes: ByteStore::Bucket(Box::new(bucket)), ..home.options() });
    let (store, a) = (store.await.unwrap(), repository("a"));
    let mut digests = Vec::new();
    for seed in 0..3 {
        digests.push(push_blob(&store, &a, noise(seed, 100_000)).await.unwrap());
    }
    let copies = || std::fs::read_dir(home.root().join("copies")).unwrap().count();
    let before = home.server.counts();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let (store, digest) = (store.clone(), digests[0]);
        waiting.push(tokio::spawn(async move {
            store.blobs().open(&digest).await.unwrap().unwrap().file().await.unwrap()
        }));
    }
    let mut files = Vec::new();
    for file in waiting {
        files.push(file.await.unwrap());
    }
    assert_eq!(((home.server.counts() - before).of(Kind::Get), copies()), (1, 1));
    for digest in &digests {
        files.push(store.blobs().open(digest).await.unwrap().unwrap().file().await.unwrap());
    }
    assert_eq!(copies(), 2, "there is room for two");
    for (file, seed) in files.iter().zip([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]) {
        use std::os::unix::fs::FileExt as _;
        let mut content = vec![0; 100_000];
        file.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(content, noise(seed, 100_000));
    }
    let large = push_blob(&store, &a, noise(9, 300_000)).await.unwrap();
    let large = store.blobs().open(&large).await.unwrap().unwrap();
    assert!(matches!(large.file().await, Err(Error::NoSpace)));
    assert_eq!(copies(), 2);

    // Other bytes than those that were stored are not a copy.
    let rotten = push_blob(&store, &a, noise(10, 100_000)).await.unwrap();
    for (key, _) in home.server.objects(&home.bucket) {
        home.server.rot(&home.bucket, &key);
    }
    let rotten = store.blobs().open(&rotten).await.unwrap().unwrap();
    assert!(matches!(rotten.file().await, Err(Error::Corrupt(_))));
    store.close().await.unwrap();
    drop(store);
    let store = home.open().await;
    assert_eq!(copies(), 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_address_is_good_for_whoever_knows_it() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    let bytes = noise(1, 1000);
    let digest = push_blob(&store, &a, bytes.clone()).await.unwrap();
    let before = home.server.counts();
    let address = store.blobs().address(&digest, Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!((home.server.counts() - before).total(), 0, "nobody is asked");
    assert!(address.starts_with(&home.server.endpoint()), "{address}");
    assert!(address.contains("X-Amz-Expires=60"), "{address}");
    let none = store.blobs().address(&Digest::sha256(b"none"), Duration::from_secs(60)).await.unwrap();
    assert_eq!(none, None);
}
