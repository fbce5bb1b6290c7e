//! Uploads that go to a bucket in parts, and are gone on with by whoever holds the lease.

use std::time::{Duration, SystemTime};

use deltaport_oci::{Algorithm, Digest};
use deltaport_store::{BucketOptions, ByteStore, Error, Options, Store};
use deltaport_testkit::s3::{Fault, Kind};

use super::*;

#[tokio::test]
async fn a_push_of_64_mib_takes_six_requests_and_a_pull_one() {
    let home = Home::new();
    let bucket = BucketOptions { part_size: 16 << 20, ..home.bucket_options() };
    let store = Store::open(Options { bytes: ByteStore::Bucket(Box::new(bucket)), ..home.options() });
    let store = store.await.unwrap();
    let a = repository("a");
    let bytes = noise(1, 64 << 20);

    let before = home.server.counts();
    let digest = push_in_two(&store, "a", &bytes).await;
    let asked = home.server.counts() - before;
    assert!(asked.total() <= 6, "{asked:?}");

    let before = home.server.counts();
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
    let asked = home.server.counts() - before;
    assert_eq!((asked.of(Kind::Get), asked.total()), (1, 1), "{asked:?}");

    // All in the last request.
    let bytes = noise(2, 64 << 20);
    let before = home.server.counts();
    let id = store.uploads().begin(&a, OWNER, None, 10).await.unwrap();
    let mut appender = store.uploads().append(&a, &id, OWNER, None).await.unwrap();
    for chunk in pieces(&bytes) {
        appender.write(chunk).await.unwrap();
    }
    appender.commit(&a, &Digest::sha256(&bytes)).await.unwrap();
    let asked = home.server.counts() - before;
    assert!(asked.total() <= 6, "{asked:?}");
    assert_eq!(pull_blob(&store, &a, &Digest::sha256(&bytes)).await.unwrap(), bytes);

    // What is fetched goes up when it is proven.
    let bytes = noise(3, 64 << 20);
    let before = home.server.counts();
    let mut staging = store.blobs().stage(Algorithm::Sha256).await.unwrap();
    for chunk in pieces(&bytes) {
        staging.write(chunk).await.unwrap();
    }
    store.commit(staging, &Digest::sha256(&bytes), &a).await.unwrap();
    let asked = home.server.counts() - before;
    assert!(asked.total() <= 6, "{asked:?}");
    assert_eq!(pull_blob(&store, &a, &Digest::sha256(&bytes)).await.unwrap(), bytes);
}

#[tokio::test]
async fn small_blobs_are_one_request_and_manifests_none() {
    let home = Home::new();
    let store = home.open().await;
    let a = repository("a");
    for len in [0, 1, 60_000, 70_000, 3_000_000] {
        let bytes = noise(len as u64, len);
        let before = home.server.counts();
        let digest = push_in_two(&store, "a", &bytes).await;
        let asked = home.server.counts() - before;
        assert_eq!((asked.of(Kind::Put), asked.total()), (1, 1), "{len}: {asked:?}");
        assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
    }
    let before = home.server.counts();
    let blob = push_blob(&store, &a, noise(9, 1000)).await.unwrap();
    let again = push_blob(&store, &repository("b"), noise(9, 1000)).await.unwrap();
    let asked = home.server.counts() - before;
    assert_eq!((asked.total(), blob), (1, again), "what is here is not sent again: {asked:?}");
    let before = home.server.counts();
    let manifest = image(&blob, &[blob], &["v1"]);
    let (digest, bytes) = (manifest.digest, manifest.bytes.clone());
    store.names().put_manifest(&a, manifest).await.unwrap();
    let opened = store.blobs().open(&digest).await.unwrap().unwrap();
    assert_eq!(read_all(&opened).await, bytes, "a manifest can be read as a blob all the same");
    assert_eq!(read_range(&opened, 1, 3).await.unwrap(), bytes[1..3]);
    assert_eq!((home.server.counts() - before).total(), 0);

    // The same bytes as a blob are an object of their own.
    let before = home.objects();
    assert_eq!(push_blob(&store, &a, bytes.clone()).await.unwrap(), digest);
    assert_eq!(home.objects(), before + 1);
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
}

#[tokio::test]
async fn the_end_of_a_chunk_is_not_fetched_where_it_came_from() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    let bytes = noise(7, 7_000_000);
    let before = home.server.counts();
    let digest = push_in_two(&store, "a", &bytes).await;
    let asked = home.server.counts() - before;
    // Two parts, their beginning and end, and the end of the chunk, which had to be safe before it was acknowledged.
    assert_eq!((asked.of(Kind::Get), asked.total()), (0, 5), "{asked:?}");
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
}

#[tokio::test]
async fn chunks_of_any_size_add_up_also_over_restarts() {
    let home = Home::new();
    let a = repository("a");
    let bytes = noise(3, 17_000_000);
    let part = PART as usize;
    let mut store = home.open().await;
    let id = store.uploads().begin(&a, OWNER, None, 10).await.unwrap();
    let mut at = 0;
    let ends = [
        0,
        1,
        2,
        60_000,
        300_000,
        part - 1,
        part,
        part + 1,
        2 * part,
        3 * part + 5,
        3 * part + 100_000,
        bytes.len(),
    ];
    for end in ends {
        let mut appender = store.uploads().append(&a, &id, OWNER, Some(at as u64)).await.unwrap();
        for chunk in pieces(&bytes.slice(at..end)) {
            appender.write(chunk).await.unwrap();
        }
        assert_eq!(appender.finish().await.unwrap(), end as u64);
        at = end;
        assert_eq!(store.uploads().offset(&a, &id, OWNER).await.unwrap(), at as u64);
        store.close().await.unwrap();
        drop(store);
        store = home.open().await;
    }
    let digest = Digest::sha256(&bytes);
    assert!(store.blobs().open(&digest).await.unwrap().is_none());
    assert_eq!(store.uploads().finish(&a, &id, OWNER, &digest).await.unwrap(), at as u64);
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
    assert!(matches!(store.uploads().offset(&a, &id, OWNER).await, Err(Error::NotFound)));
    home.tidy(&store).await;
    assert_eq!((home.objects(), home.server.unfinished(&home.bucket)), (1, 0), "ends of chunks are gone");
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
}

#[tokio::test]
async fn the_hint_of_the_algorithm_may_be_wrong() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    for len in [70_000, 6_000_000] {
        let bytes = noise(5, len);
        let digest = Digest::of(Algorithm::Sha512, &bytes);
        let id = store.uploads().begin(&a, OWNER, Some(Algorithm::Sha256), 10).await.unwrap();
        let mut appender = store.uploads().append(&a, &id, OWNER, None).await.unwrap();
        appender.write(bytes.clone()).await.unwrap();
        appender.finish().await.unwrap();
        assert_eq!(store.uploads().finish(&a, &id, OWNER, &digest).await.unwrap(), len as u64);
        assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);

        let wrong = Digest::of(Algorithm::Sha512, b"something else");
        let id = store.uploads().begin(&a, OWNER, None, 10).await.unwrap();
        let mut appender = store.uploads().append(&a, &id, OWNER, None).await.unwrap();
        appender.write(bytes.clone()).await.unwrap();
        let error = appender.commit(&a, &wrong).await.unwrap_err();
        assert!(matches!(error, Error::Mismatch { actual, .. } if actual == digest), "{error}");
        assert!(store.blobs().open(&wrong).await.unwrap().is_none());
    }
    home.tidy(&store).await;
    assert_eq!(home.objects(), 2);
}

#[tokio::test]
async fn what_comes_to_nothing_leaves_nothing() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    let (uploads, wrong) = (store.uploads(), Digest::sha256(b"wrong"));
    for len in [1000, 100_000, 6_000_000] {
        for way in ["cancel", "mismatch", "mismatch at once", "expire"] {
            let id = uploads.begin(&a, OWNER, None, 100).await.unwrap();
            let mut appender = uploads.append(&a, &id, OWNER, None).await.unwrap();
            appender.write(noise(1, len)).await.unwrap();
            let ended = match way {
                "mismatch at once" => appender.commit(&a, &wrong).await.map(|_| ()),
                way => {
                    appender.finish().await.unwrap();
                    match way {
                        "cancel" => uploads.cancel(&a, &id, OWNER).await,
                        "mismatch" => uploads.finish(&a, &id, OWNER, &wrong).await.map(|_| ()),
                        _ => Ok(()),
                    }
                }
            };
            match way {
                "cancel" => ended.unwrap(),
                "expire" => continue,
                _ => assert!(matches!(ended, Err(Error::Mismatch { .. })), "{ended:?}"),
            }
            assert!(matches!(uploads.offset(&a, &id, OWNER).await, Err(Error::NotFound)), "{way}");
        }
    }
    let later = SystemTime::now() + Duration::from_secs(3601);
    assert_eq!(store.collect(later).await.unwrap().uploads, 3);
    home.collect(&store).await;
    assert_eq!((home.objects(), home.server.unfinished(&home.bucket)), (0, 0));
}

#[tokio::test]
async fn one_at_a_time_until_the_lease_runs_out() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    let uploads = store.uploads();
    let id = uploads.begin(&a, OWNER, None, 1).await.unwrap();
    let bytes = noise(4, 12_000_000);
    let digest = Digest::sha256(&bytes);

    // One who stands still: all that comes of him later is refused.
    let mut zombie = uploads.append(&a, &id, OWNER, None).await.unwrap();
    assert!(matches!(uploads.append(&a, &id, OWNER, None).await, Err(Error::Busy)));
    assert!(matches!(uploads.finish(&a, &id, OWNER, &digest).await, Err(Error::Busy)));
    assert!(matches!(uploads.cancel(&a, &id, OWNER).await, Err(Error::Busy)));
    assert!(matches!(uploads.append(&a, &id, "bob", None).await, Err(Error::NotFound)));
    zombie.write(bytes.slice(..11_000_000)).await.unwrap();
    // The first part is recorded as soon as the second is full.
    while uploads.offset(&a, &id, OWNER).await.unwrap() < PART {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(home.alter("UPDATE upload SET until = 1"), 1);

    // Another goes on where the record ends.
    let at = uploads.offset(&a, &id, OWNER).await.unwrap();
    let mut heir = uploads.append(&a, &id, OWNER, Some(at)).await.unwrap();
    assert!(matches!(zombie.finish().await, Err(Error::Busy)));
    heir.write(bytes.slice(at as usize..)).await.unwrap();
    assert_eq!(heir.finish().await.unwrap(), 12_000_000);
    assert_eq!(uploads.finish(&a, &id, OWNER, &digest).await.unwrap(), 12_000_000);
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
    home.tidy(&store).await;
    assert_eq!((home.objects(), home.server.unfinished(&home.bucket)), (1, 0));
}

#[tokio::test]
async fn who_was_given_up_cannot_put_his_bytes_under_anothers_digest() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    let uploads = store.uploads();
    let id = uploads.begin(&a, OWNER, None, 1).await.unwrap();
    let (wrong, right) = (noise(1, 6_000_000), noise(2, 6_000_000));
    let digest = Digest::sha256(&right);

    // His first part is on its way for so long that another takes the upload over and sends that part, too.
    home.server.breaks_times(1, Fault::Slow(Duration::from_secs(3)), |asked| asked.kind == Kind::Part);
    let mut zombie = uploads.append(&a, &id, OWNER, None).await.unwrap();
    zombie.write(wrong.clone()).await.unwrap();
    while home.server.counts().of(Kind::Part) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    home.alter("UPDATE upload SET until = 1");
    let mut heir = uploads.append(&a, &id, OWNER, Some(0)).await.unwrap();
    heir.write(right.clone()).await.unwrap();
    assert_eq!(heir.finish().await.unwrap(), 6_000_000);
    assert!(
        matches!(zombie.finish().await, Err(Error::Busy)),
        "his part is there now, in the place of the other"
    );
    let error = uploads.finish(&a, &id, OWNER, &digest).await.unwrap_err();
    assert!(matches!(error, Error::NotFound), "{error}");
    assert!(store.blobs().open(&digest).await.unwrap().is_none());
    assert!(store.blobs().open(&Digest::sha256(&wrong)).await.unwrap().is_none());

    assert_eq!(push_in_two(&store, "a", &right).await, digest);
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), right);
    home.tidy(&store).await;
    assert_eq!((home.objects(), home.server.unfinished(&home.bucket)), (1, 0));
}

#[tokio::test]
async fn what_arrived_before_the_connection_broke_is_kept() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    for len in [50_000, 5_000_000, 6_000_000] {
        let bytes = noise(len as u64, len + 10);
        let id = store.uploads().begin(&a, OWNER, None, 10).await.unwrap();
        let mut appender = store.uploads().append(&a, &id, OWNER, None).await.unwrap();
        appender.write(bytes.slice(..len)).await.unwrap();
        drop(appender);
        loop {
            match store.uploads().append(&a, &id, OWNER, Some(len as u64)).await {
                Ok(mut appender) => {
                    appender.write(bytes.slice(len..)).await.unwrap();
                    appender.commit(&a, &Digest::sha256(&bytes)).await.unwrap();
                    break;
                }
                Err(Error::Busy | Error::OutOfOrder { .. }) => {
                    tokio::time::sleep(Duration::from_millis(5)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(pull_blob(&store, &a, &Digest::sha256(&bytes)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn two_who_finish_the_same_blob_leave_one_object() {
    let home = Home::new();
    let store = home.open().await;
    let bytes = noise(6, 7_000_000);
    let mut pushes = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let (store, bytes) = (store.clone(), bytes.clone());
        pushes.push(tokio::spawn(async move { push_in_two(&store, name, &bytes).await }));
    }
    for push in pushes {
        push.await.unwrap();
    }
    home.tidy(&store).await;
    assert_eq!(home.objects(), 1);
    for name in ["a", "b", "c", "d"] {
        assert_eq!(pull_blob(&store, &repository(name), &Digest::sha256(&bytes)).await.unwrap(), bytes);
    }
    for name in ["a", "b", "c", "d"] {
        store.names().unlink_blob(&repository(name), &Digest::sha256(&bytes)).await.unwrap();
    }
    home.collect(&store).await;
    assert_eq!(home.objects(), 0);
    assert!(store.blobs().open(&Digest::sha256(&bytes)).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_uploads_share_little_memory() {
    let home = Home::new();
    // Less than two parts: they have to take turns, and none may wait for another that waits.
    let bucket = BucketOptions { memory: PART + 1, ..home.bucket_options() };
    let store = Store::open(Options { bytes: ByteStore::Bucket(Box::new(bucket)), ..home.options() });
    let store = store.await.unwrap();
    let mut pushes = Vec::new();
    for seed in 0..8 {
        let store = store.clone();
        pushes.push(tokio::spawn(async move {
            let (name, bytes) = (format!("r{seed}"), noise(seed, 6_000_000 + seed as usize));
            match seed % 2 {
                0 => push_in_two(&store, &name, &bytes).await,
                _ => push_blob(&store, &repository(&name), bytes.clone()).await.unwrap(),
            }
        }));
    }
    for (seed, push) in (0..).zip(pushes) {
        let digest = push.await.unwrap();
        let pulled = pull_blob(&store, &repository(&format!("r{seed}")), &digest).await.unwrap();
        assert_eq!(pulled, noise(seed, 6_000_000 + seed as usize));
    }
}

#[tokio::test]
async fn what_was_fetched_in_part_goes_up_when_it_is_whole() {
    let home = Home::new();
    let a = repository("a");
    let bytes = noise(1, 7_000_000);
    let digest = Digest::sha256(&bytes);
    let store = home.open().await;
    let mut partial = store.blobs().partial(&a, &digest).await.unwrap();
    partial.write(bytes.slice(..5_000_000)).await.unwrap();
    partial.close().await;
    store.close().await.unwrap();
    drop(store);
    assert_eq!(home.objects(), 0, "only what is proven goes up");

    let store = home.open().await;
    let mut partial = store.blobs().partial(&a, &digest).await.unwrap();
    assert_eq!(partial.length(), 5_000_000);
    partial.write(bytes.slice(5_000_000..)).await.unwrap();
    assert!(partial.is_whole().await.unwrap());
    let reader = partial.reader();
    // The bucket is away: what has been fetched is not lost.
    home.server.breaks(Fault::Status(503), |_| true);
    assert!(matches!(partial.commit().await, Err(Error::Unavailable { .. })));
    assert_eq!(read_all(&reader).await, bytes, "whoever reads along goes on");
    home.server.mends();
    let partial = store.blobs().partial(&a, &digest).await.unwrap();
    assert_eq!(partial.length(), 7_000_000);
    assert_eq!(partial.commit().await.unwrap(), 7_000_000);
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
    assert_eq!(std::fs::read_dir(home.root().join("partial")).unwrap().count(), 0);
    home.tidy(&store).await;
    assert_eq!((home.objects(), home.server.unfinished(&home.bucket)), (1, 0));
    assert_eq!(store.free_disk().await.unwrap(), None, "blobs take no disk here");
}
