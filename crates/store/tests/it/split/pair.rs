//! Bytes and names that do not belong together: they are not opened, and nothing is done to either.

use std::fs;
use std::path::Path;

use deltaport_store::{Code, Error, FsckOptions, NamesOptions, Options, Store, fsck};
use tempfile::TempDir;

use super::places;
use crate::common::*;

/// A store in three places below one directory, with a blob in it.
async fn filled(home: &Path, seed: u64) -> Options {
    let options = places(&home.join("data"), Some(&home.join("bytes")), Some(&home.join("names.db")));
    let store = Store::open(options.clone()).await.unwrap();
    push_blob(&store, &repository("a"), noise(seed, 1000)).await.unwrap();
    store.close().await.unwrap();
    options
}

/// Panics unless the store does not open, for a reason with these words.
async fn refused(options: &Options, why: &str) {
    let error = Store::open(options.clone()).await.unwrap_err();
    assert!(matches!(&error, Error::Unusable(text) if text.contains(why)), "{error}");
}

async fn opens(options: &Options, seed: u64) {
    let store = Store::open(options.clone()).await.unwrap();
    let digest = deltaport_oci::Digest::sha256(&noise(seed, 1000));
    assert!(pull_blob(&store, &repository("a"), &digest).await.is_some());
    store.close().await.unwrap();
}

fn check(options: &Options, repair: bool) -> Result<Vec<Code>, Error> {
    let (root, names, bytes) = (options.root.clone(), options.names.clone(), options.bytes.clone());
    let report = fsck(&FsckOptions { root, names, bytes, rehash: false, repair }, &|_| {})?;
    Ok(report.findings.iter().map(|finding| finding.code).collect())
}

#[tokio::test]
async fn a_disk_that_is_not_mounted_is_no_empty_directory() {
    let home = TempDir::new().unwrap();
    let options = filled(home.path(), 1).await;
    let (bytes, away) = (home.path().join("bytes"), home.path().join("away"));
    fs::rename(&bytes, &away).unwrap();
    refused(&options, "is its disk mounted").await;
    // Nothing was made that a repair could take for a store without bytes.
    assert!(matches!(check(&options, true), Err(Error::Unusable(_))));
    fs::remove_dir_all(&bytes).unwrap();
    fs::rename(&away, &bytes).unwrap();
    opens(&options, 1).await;

    // When it is lost for good, that has to be said.
    fs::remove_dir_all(&bytes).unwrap();
    fs::create_dir_all(bytes.join("blobs")).unwrap();
    assert!(check(&options, true).unwrap().contains(&Code::BlobMissing));
    Store::open(options.clone()).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn the_bytes_of_others_are_left_alone() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (ours, theirs) = (filled(one.path(), 1).await, filled(two.path(), 2).await);
    let mixed = Options { bytes: theirs.bytes.clone(), ..ours.clone() };
    refused(&mixed, "do not belong together").await;
    assert!(matches!(check(&mixed, true), Err(Error::Unusable(_))));
    // New names beside old bytes.
    let new = Options { names: NamesOptions::File(one.path().join("new.db")), ..theirs.clone() };
    let new = Options { root: one.path().join("new"), ..new };
    refused(&new, "no names of them").await;
    opens(&ours, 1).await;
    opens(&theirs, 2).await;
}

#[tokio::test]
async fn one_blob_tells_where_there_is_no_number() {
    let home = TempDir::new().unwrap();
    let options = filled(home.path(), 1).await;
    let pair = home.path().join("bytes/pair");
    let number = fs::read(&pair).unwrap();
    fs::remove_file(&pair).unwrap();
    opens(&options, 1).await;
    assert_eq!(fs::read(&pair).unwrap(), number);
    let forget = || {
        let names = rusqlite::Connection::open(home.path().join("names.db")).unwrap();
        names.execute("DELETE FROM setting WHERE name = 'pair'", []).unwrap()
    };
    // The database comes from a backup.
    assert_eq!(forget(), 1);
    opens(&options, 1).await;
    assert_eq!(fs::read(&pair).unwrap(), number);
    // An older version has made both.
    assert_eq!(forget(), 1);
    fs::remove_file(&pair).unwrap();
    opens(&options, 1).await;
    assert!(pair.exists());
    fs::write(&pair, "what is this").unwrap();
    refused(&options, "is damaged").await;
}

#[tokio::test]
async fn a_second_process_with_a_directory_of_its_own_is_refused_the_names() {
    let home = Home::postgres().and_files();
    let store = home.open().await;
    let other = TempDir::new().unwrap();
    let second = Options { names: home.names(), ..options(other.path()) };
    // Before anything was pushed, and afterwards.
    refused(&second, "do not belong together").await;
    push_blob(&store, &repository("a"), noise(1, 1000)).await.unwrap();
    refused(&second, "they share a bucket").await;
    push_blob(&store, &repository("a"), noise(2, 1000)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    home.assert_clean();
    // Whoever stands by may take the directory over.
    let standby = Options { root: other.path().to_owned(), ..home.options() };
    let store = Store::open(standby).await.unwrap();
    assert!(
        pull_blob(&store, &repository("a"), &deltaport_oci::Digest::sha256(&noise(1, 1000))).await.is_some()
    );
    store.close().await.unwrap();
}

#[tokio::test]
async fn of_two_that_begin_at_once_one_is_refused() {
    let home = Home::postgres();
    let other = TempDir::new().unwrap();
    let second = Options { names: home.names(), ..options(other.path()) };
    let (one, two) = tokio::join!(Store::open(home.options()), Store::open(second));
    let refused = usize::from(one.is_err()) + usize::from(two.is_err());
    assert_eq!(refused, 1, "{one:?} {two:?}");
    for store in [one, two].into_iter().flatten() {
        store.close().await.unwrap();
    }
}
