//! Names in PostgreSQL and bytes in a bucket: what replicas share, the suite over it, and replicas beside each other.

#[path = "suite/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "the same suite for another place")]
mod suite;

use std::time::{Duration, SystemTime};

use deltaport_oci::Digest;
use deltaport_store::{Error, Options, Store};
use tempfile::TempDir;

use crate::common::*;

fn home() -> Home {
    Home::hub()
}

/// The part size of these stores.
const PART: u64 = 5 << 20;

/// Replicas over the same database and bucket, each with a directory of its own.
async fn replicas<const N: usize>(home: &Home) -> [(TempDir, Store); N] {
    let mut stores = Vec::new();
    for _ in 0..N {
        let directory = home.other();
        let store = home.open_other(&directory).await;
        stores.push((directory, store));
    }
    stores.try_into().unwrap()
}

#[tokio::test]
async fn chunks_of_one_upload_may_come_to_any_replica() {
    let home = home();
    let [(_a, one), (_b, two), (_c, three)] = replicas(&home).await;
    let a = repository("a");
    let bytes = noise(1, 17_000_000);
    let digest = Digest::sha256(&bytes);
    let id = one.uploads().begin(&a, OWNER, None, 10).await.unwrap();
    let mut at = 0;
    let stores = [&two, &three, &one];
    for (n, end) in [70_000, 4_000_000, 6_000_000, 6_000_001, 16_000_000, 17_000_000].into_iter().enumerate()
    {
        let store = stores[n % 3];
        assert_eq!(store.uploads().offset(&a, &id, OWNER).await.unwrap(), at as u64);
        let mut appender = store.uploads().append(&a, &id, OWNER, Some(at as u64)).await.unwrap();
        for other in stores {
            assert!(matches!(other.uploads().append(&a, &id, OWNER, None).await, Err(Error::Busy)));
        }
        appender.write(bytes.slice(at..end)).await.unwrap();
        assert_eq!(appender.finish().await.unwrap(), end as u64);
        at = end;
    }
    assert_eq!(three.uploads().finish(&a, &id, OWNER, &digest).await.unwrap(), at as u64);
    for store in stores {
        assert_eq!(pull_blob(store, &a, &digest).await.unwrap(), bytes);
    }
    // What one stores, all see at once.
    two.names().put_manifest(&a, image(&digest, &[digest], &["v1"])).await.unwrap();
    for store in stores {
        assert!(store.names().tags(&a, None, 10).await.unwrap().is_some());
        store.collect(SystemTime::now() + Duration::from_secs(60)).await.unwrap();
        store.close().await.unwrap();
    }
    assert_eq!((home.objects().len(), home.unfinished()), (1, 0));
    home.assert_clean();
}

#[test]
fn another_goes_on_for_a_replica_that_died() {
    let home = home();
    let a = repository("a");
    let bytes = noise(2, 18_000_000);
    let digest = Digest::sha256(&bytes);
    let build =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (dying, living) = (build(), build());
    let directory = home.other();
    let options = Options { root: directory.path().to_owned(), ..home.options() };
    let id = {
        let (a, bytes) = (a.clone(), bytes.clone());
        let (sender, begun) = std::sync::mpsc::channel();
        dying.spawn(async move {
            let store = Store::open(options).await.unwrap();
            let id = store.uploads().begin(&a, OWNER, None, 10).await.unwrap();
            let mut appender = store.uploads().append(&a, &id, OWNER, None).await.unwrap();
            appender.write(bytes.slice(..12_000_000)).await.unwrap();
            while store.uploads().offset(&a, &id, OWNER).await.unwrap() < PART {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            sender.send(id).unwrap();
            std::future::pending::<()>().await;
            drop(appender);
        });
        begun.recv().unwrap()
    };
    // It stops in the middle of a chunk: nothing is given back.
    dying.shutdown_timeout(Duration::from_millis(100));
    living.block_on(async {
        let [(_a, store)] = replicas::<1>(&home).await;
        let uploads = store.uploads();
        assert!(matches!(uploads.append(&a, &id, OWNER, None).await, Err(Error::Busy)), "the lease stands");
        home.sql("UPDATE upload SET until = 1");
        let at = uploads.offset(&a, &id, OWNER).await.unwrap();
        assert!(at == PART || at == 2 * PART, "{at}");
        let mut appender = uploads.append(&a, &id, OWNER, Some(at)).await.unwrap();
        appender.write(bytes.slice(at as usize..)).await.unwrap();
        assert_eq!(appender.commit(&a, &digest).await.unwrap(), 18_000_000);
        assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
        store.collect(SystemTime::now() + Duration::from_secs(60)).await.unwrap();
        store.close().await.unwrap();
    });
    assert_eq!(home.unfinished(), 0);
    home.assert_clean();
}

#[tokio::test]
async fn pushes_and_collectors_on_all_replicas_lose_nothing() {
    let home = home();
    // Without a grace, the collector is after everything.
    let options = |directory: &TempDir| Options {
        grace: Duration::ZERO,
        root: directory.path().to_owned(),
        ..home.options()
    };
    let (one, two) = (home.other(), home.other());
    let (a, b) = (Store::open(options(&one)).await.unwrap(), Store::open(options(&two)).await.unwrap());
    let name = repository("a");
    let mut tasks = Vec::new();
    for (n, store) in [(0, a.clone()), (1, b.clone())] {
        let name = name.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..12 {
                // Both push the same, and both take it away again.
                let blob = loop {
                    let blob = push_blob(&store, &name, noise(round % 3, 20_000)).await.unwrap();
                    let manifest = image(&blob, &[], &[&format!("v{n}")]);
                    match store.names().put_manifest(&name, manifest).await {
                        Ok(()) => break blob,
                        // The collector was there between the two.
                        Err(Error::Missing(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                };
                assert_eq!(pull_blob(&store, &name, &blob).await.unwrap(), noise(round % 3, 20_000));
                if round % 4 == 3 {
                    store.names().delete_tag(&name, &tag(&format!("v{n}"))).await.unwrap();
                }
                store.collect(SystemTime::now() + Duration::from_secs(60)).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for store in [a, b] {
        store.close().await.unwrap();
    }
    home.assert_clean();
}

#[tokio::test]
async fn what_another_replica_collected_and_stored_again_is_found() {
    let home = home();
    let [(_a, one), (_b, two)] = replicas(&home).await;
    let a = repository("a");
    let digest = push_blob(&one, &a, noise(1, 100_000)).await.unwrap();
    assert_eq!(pull_blob(&two, &a, &digest).await.unwrap(), noise(1, 100_000));
    one.names().unlink_blob(&a, &digest).await.unwrap();
    assert_eq!(pull_blob(&two, &a, &digest).await, None);
    for hours in [1, 2] {
        one.collect(SystemTime::now() + Duration::from_secs(hours * 3601)).await.unwrap();
    }
    assert_eq!(home.objects(), [""; 0]);
    push_blob(&one, &a, noise(1, 100_000)).await.unwrap();
    assert_eq!(pull_blob(&two, &a, &digest).await.unwrap(), noise(1, 100_000));
}
