//! Bytes, names and the rest in three places, two of them on another file system than the first: the suite, every
//! combination of places, who may use which at the same time, and what is said of places that cannot be used.

mod pair;
#[path = "suite/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "the same suite for another place")]
mod suite;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use deltaport_oci::Digest;
use deltaport_store::{ByteStore, Code, Error, NamesOptions, Options, Store, check_directory, check_file};

use crate::common::*;

fn home() -> Home {
    Home::split()
}

/// An options' value with everything below `root` that is not said to be elsewhere.
fn places(root: &Path, bytes: Option<&Path>, names: Option<&Path>) -> Options {
    Options {
        bytes: bytes.map_or(ByteStore::Directory, |path| ByteStore::Elsewhere(path.to_owned())),
        names: names.map_or(NamesOptions::Directory, |path| NamesOptions::File(path.to_owned())),
        ..options(root)
    }
}

/// Pushes a blob in two chunks, with the store closed in between.
async fn push_over_a_restart(home: &Home) -> Digest {
    let (a, bytes) = (repository("a"), noise(7, 300_000));
    let store = home.open().await;
    let id = store.uploads().begin(&a, OWNER, None, 10).await.unwrap();
    let mut appender = store.uploads().append(&a, &id, OWNER, Some(0)).await.unwrap();
    appender.write(bytes.slice(..100_000)).await.unwrap();
    appender.finish().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = home.open().await;
    let mut appender = store.uploads().append(&a, &id, OWNER, Some(100_000)).await.unwrap();
    appender.write(bytes.slice(100_000..)).await.unwrap();
    let digest = Digest::sha256(&bytes);
    appender.commit(&a, &digest).await.unwrap();
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
    store.close().await.unwrap();
    digest
}

#[tokio::test]
async fn every_combination_of_places_is_a_store() {
    for (name, home) in [
        ("a directory and a file", Home::split()),
        ("a directory and PostgreSQL", Home::postgres().and_files()),
        ("a bucket and a file", Home::split().and_bucket()),
        ("a directory, and names with the data", Home::embedded().and_files()),
    ] {
        let digest = push_over_a_restart(&home).await;
        home.assert_clean();
        let usage = deltaport_store::usage(home.path(), &home.bytes(), &home.names()).unwrap();
        assert_eq!(usage.blobs, 300_000, "{name}");
        let elsewhere = matches!(home.bytes(), ByteStore::Elsewhere(_));
        for directory in ["blobs", "staging", "uploads", "partial"] {
            assert_eq!(home.path().join(directory).exists(), !elsewhere, "{name}: {directory}");
        }
        assert_eq!(
            home.path().join("names.db").exists(),
            matches!(home.names(), NamesOptions::Directory),
            "{name}"
        );
        let store = home.open().await;
        assert!(pull_blob(&store, &repository("a"), &digest).await.is_some(), "{name}");
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn room_is_counted_where_the_bytes_are() {
    let home = home();
    let store = home.open().await;
    let free = |path: &Path| {
        let stat = rustix::fs::statvfs(path).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let told = store.free_disk().await.unwrap().unwrap();
    let (there, elsewhere) = (free(home.files()), free(home.path()));
    // Others write, too.
    assert!(told.abs_diff(there) < 1 << 30, "{told} {there} {elsewhere}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_a_check_puts_aside_stays_on_its_file_system() {
    let home = home();
    let digest = push_over_a_restart(&home).await;
    // A line behind the one that is damaged, which would be taken for a torn end.
    let store = home.open().await;
    push_blob(&store, &repository("a"), noise(9, 10)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let blob = home.files().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&blob, noise(8, 300_000)).unwrap();
    let journal = fs::read_to_string(home.path().join("journal")).unwrap();
    fs::write(home.path().join("journal"), journal.replacen("link", "knot", 1)).unwrap();
    let codes: Vec<Code> = home.check(true).findings.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&Code::BlobCorrupt) && codes.contains(&Code::JournalDamaged), "{codes:?}");
    home.assert_clean();
    let aside = |root: &Path| fs::read_dir(root.join("quarantine")).unwrap().count();
    assert_eq!((aside(home.files()), aside(home.path())), (1, 1));
    let usage = deltaport_store::usage(home.path(), &home.bytes(), &home.names()).unwrap();
    assert!(usage.places.quarantine > 300_000, "both count: {usage:?}");
}

#[tokio::test]
async fn nothing_is_open_twice_whatever_it_is_called() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let (bytes, names) = (at("bytes"), at("names/names.db"));
    let store = Store::open(places(&at("one"), Some(&bytes), Some(&names))).await.unwrap();
    symlink(&bytes, at("same bytes")).unwrap();
    symlink(&names, at("same names")).unwrap();
    let refused = [
        ("its bytes", places(&at("two"), Some(&bytes), None)),
        ("a link to its bytes", places(&at("two"), Some(&at("same bytes")), None)),
        ("its bytes as data", options(&bytes)),
        ("its names", places(&at("two"), None, Some(&names))),
        ("a link to its names", places(&at("two"), None, Some(&at("same names")))),
        ("the directory of its names as data", options(&at("names"))),
        ("its data", places(&at("one"), Some(&at("two")), Some(&at("two.db")))),
    ];
    for (what, options) in refused {
        let error = Store::open(options).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::InUse { .. }), "{what}: {text}");
        assert!(text.contains(&format!("process {}", std::process::id())), "{what}: {text}");
    }
    // Another file beside it is another matter.
    let beside = places(&at("three"), None, Some(&at("names/other.db")));
    let other = Store::open(beside.clone()).await.unwrap();
    assert!(matches!(Store::open(beside).await, Err(Error::InUse { .. })));
    other.close().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn new_directories_have_the_permissions_of_the_data_directory() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let options = places(&at("data"), Some(&at("a/bytes")), Some(&at("b/names.db")));
    Store::open(options).await.unwrap().close().await.unwrap();
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode();
    for made in ["a", "a/bytes", "a/bytes/blobs", "b"] {
        assert_eq!(mode(made), mode("data"), "{made}");
    }
}

#[tokio::test]
async fn places_that_cannot_be_used_are_told_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::write(at("text"), "Dear diary, today I was taken for a database.").unwrap();
    fs::create_dir(at("directory")).unwrap();
    symlink(at("nowhere"), at("link")).unwrap();
    for (path, why) in [
        (at("text"), "it is a file, and a directory is needed"),
        (at("text/below"), "is a file"),
        (at("link"), "leads nowhere"),
        ("/proc/deltaport/bytes".into(), "/proc cannot be written to"),
        ("/proc".into(), "cannot be written to"),
    ] {
        let told = check_directory(&path).unwrap_err().to_string();
        assert!(told.contains(why) && told.starts_with(path.to_str().unwrap()), "{told}");
        let opened = Store::open(places(&at("data"), Some(&path), None)).await.unwrap_err();
        assert_eq!(opened.to_string(), told);
    }
    for (path, why) in [
        (at("text"), "no database of SQLite"),
        (at("directory"), "it is a directory, and a file is needed"),
        (at("text/below"), "is a file"),
        (at("link"), "leads nowhere"),
        ("/dev/null".into(), "no ordinary file"),
        ("/proc/names.db".into(), "/proc cannot be written to"),
    ] {
        let told = check_file(&path).unwrap_err().to_string();
        assert!(told.contains(why) && told.starts_with(path.to_str().unwrap()), "{told}");
        let opened = Store::open(places(&at("data"), None, Some(&path))).await.unwrap_err();
        assert_eq!(opened.to_string(), told);
    }
    check_directory(&at("directory")).unwrap();
    check_directory(&at("not/yet/there")).unwrap();
    check_file(&at("not/yet/there.db")).unwrap();
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 3, "nothing was made");

    // Two that do not go together.
    for names in ["bytes", "bytes/staging/names.db", "bytes/blobs/names.db"] {
        let options = places(&at("data"), Some(&at("bytes")), Some(&at(names)));
        let refused = Store::open(options).await.unwrap_err();
        assert!(matches!(&refused, Error::Unusable(text) if text.contains(names)), "{refused}");
    }
}
