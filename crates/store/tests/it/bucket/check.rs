//! Checking a bucket against the names, and mending.

use std::time::Duration;

use deltaport_oci::Digest;
use deltaport_store::{Code, Error, FsckOptions, NamesOptions, Report, Store, fsck, rebuild};

use super::*;

fn check_bytes(home: &Home, repair: bool, rehash: bool) -> Result<Report, Error> {
    let options = FsckOptions {
        root: home.root().to_owned(),
        names: NamesOptions::Directory,
        bytes: home.options().bytes,
        rehash,
        repair,
    };
    fsck(&options, &|_| {})
}

fn codes(report: &Report) -> Vec<Code> {
    report.findings.iter().map(|finding| finding.code).collect()
}

/// A store with an image of two blobs, an upload that ends in an object, and small pages in lists.
async fn filled() -> (Home, Vec<Digest>, String) {
    let home = Home::new();
    home.server.page(2);
    let (store, a) = (home.open().await, repository("a"));
    let mut blobs = Vec::new();
    for seed in 0..5 {
        blobs.push(push_blob(&store, &a, noise(seed, 10_000)).await.unwrap());
    }
    store.names().put_manifest(&a, image(&blobs[0], &blobs[1..], &["v1"])).await.unwrap();
    let id = store.uploads().begin(&a, OWNER, None, 10).await.unwrap();
    let mut appender = store.uploads().append(&a, &id, OWNER, None).await.unwrap();
    appender.write(noise(9, 6_000_000)).await.unwrap();
    appender.finish().await.unwrap();
    close(store).await;
    (home, blobs, id)
}

async fn close(store: Store) {
    store.close().await.unwrap();
}

/// The key of the object of a blob.
fn key(home: &Home, digest: &Digest) -> String {
    let names = rusqlite::Connection::open(home.root().join("names.db")).unwrap();
    let place: String = names
        .query_row("SELECT place FROM blob WHERE digest = ?1", [digest.to_string()], |row| row.get(0))
        .unwrap();
    format!("hub/one/objects/{place}")
}

#[tokio::test]
async fn a_bucket_that_is_whole_is_clean() {
    let (home, _, _) = filled().await;
    for rehash in [false, true] {
        let report = check_bytes(&home, false, rehash).unwrap();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        assert_eq!((report.blobs, report.bytes, report.tags), (5, 50_000, 1));
    }
}

#[tokio::test]
async fn what_is_lost_is_told_and_its_names_are_taken_away() {
    let (home, blobs, id) = filled().await;
    assert!(home.server.lose(&home.bucket, &key(&home, &blobs[2])));
    let tail =
        home.server.objects(&home.bucket).into_iter().find(|(_, len)| *len == 6_000_000 - PART).unwrap().0;
    assert!(home.server.lose(&home.bucket, &tail));
    let report = check_bytes(&home, false, false).unwrap();
    assert_eq!(codes(&report), [Code::BlobMissing, Code::UploadDamaged], "{:#?}", report.findings);
    assert_eq!(report.findings[0].subject, blobs[2].to_string());
    assert!(report.findings[0].detail.contains("held by a"), "{:#?}", report.findings);
    assert!(check_bytes(&home, true, false).unwrap().is_mended());
    let report = check_bytes(&home, false, true).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let store = home.open().await;
    let a = repository("a");
    assert_eq!(store.names().blob(&a, &blobs[2]).await.unwrap(), None);
    assert!(matches!(store.uploads().offset(&a, &id, OWNER).await, Err(Error::NotFound)));
    assert_eq!(pull_blob(&store, &a, &blobs[1]).await.unwrap(), noise(1, 10_000));
    push_blob(&store, &a, noise(2, 10_000)).await.unwrap();
    home.tidy(&store).await;
    assert_eq!(home.server.unfinished(&home.bucket), 0, "the parts of the upload are gone");
}

#[tokio::test]
async fn other_bytes_are_found_when_they_are_read() {
    let (home, blobs, _) = filled().await;
    assert!(home.server.rot(&home.bucket, &key(&home, &blobs[3])));
    assert!(check_bytes(&home, false, false).unwrap().is_clean(), "size and name are right");
    let report = check_bytes(&home, true, true).unwrap();
    assert_eq!(codes(&report), [Code::BlobCorrupt], "{:#?}", report.findings);
    assert!(report.is_mended());
    let report = check_bytes(&home, false, true).unwrap();
    assert_eq!(codes(&report), [Code::BlobOrphan], "it is there to be looked at: {:#?}", report.findings);
}

#[tokio::test]
async fn what_nothing_refers_to_is_told_and_goes_when_it_is_old() {
    let (home, _, _) = filled().await;
    let tail = |(_, len): &(String, u64)| *len == 6_000_000 - PART;
    let orphan = home.server.objects(&home.bucket).into_iter().find(tail).unwrap().0;
    home.alter("UPDATE upload SET tail = NULL");
    let report = check_bytes(&home, true, false).unwrap();
    assert_eq!(codes(&report), [Code::BlobOrphan], "{:#?}", report.findings);
    assert_eq!((&*report.findings[0].subject, report.findings[0].repaired), (&*orphan, false), "too young");
    home.server.age(Duration::from_secs(25 * 3600));
    assert!(check_bytes(&home, true, false).unwrap().is_mended());
    assert!(check_bytes(&home, false, false).unwrap().is_clean());
    let store = home.open().await;
    let before = home.objects();
    home.tidy(&store).await;
    assert_eq!(home.objects(), before - 1);
    assert!(home.server.object(&home.bucket, &orphan).is_none());
}

#[tokio::test]
async fn with_the_wrong_bucket_nothing_is_mended() {
    let (home, blobs, _) = filled().await;
    let mut elsewhere = home.bucket_options();
    elsewhere.prefix = "hub/two".to_owned();
    let options = FsckOptions {
        root: home.root().to_owned(),
        names: NamesOptions::Directory,
        bytes: ByteStore::Bucket(Box::new(elsewhere)),
        rehash: false,
        repair: true,
    };
    assert!(matches!(fsck(&options, &|_| {}), Err(Error::Unusable(_))));
    assert!(
        matches!(
            rebuild(home.root(), &home.options().bytes, &NamesOptions::Directory),
            Err(Error::Unusable(_))
        ),
        "names cannot be made of objects"
    );
    // Nor does a store open that would look for the bytes in the wrong place.
    let there = Store::open(crate::common::options(home.root())).await;
    assert!(matches!(there, Err(Error::Unusable(_))));
    let store = home.open().await;
    assert_eq!(pull_blob(&store, &repository("a"), &blobs[0]).await.unwrap(), noise(0, 10_000));
    drop(store);

    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    push_blob(&store, &repository("a"), noise(1, 10)).await.unwrap();
    close(store).await;
    let options = Options { root: dir.path().to_owned(), ..home.options() };
    assert!(matches!(Store::open(options).await, Err(Error::Unusable(_))));
}
