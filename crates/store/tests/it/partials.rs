//! Beginnings of blobs: how far they are kept, when they are begun again, and that they never become a wrong blob.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use deltaport_oci::{Algorithm, Digest};
use deltaport_store::{Code, Error, Faults, Options, Partial, Store};

use crate::common::*;

const MIB: usize = 1 << 20;
const EIO: i32 = 5;

async fn open_partial(store: &Store, digest: &Digest) -> Partial {
    store.blobs().partial(&repository("app"), digest).await.unwrap()
}

/// Writes what is missing of `content` up to `end`, in pieces as they come from a network.
async fn write_up_to(partial: &mut Partial, content: &Bytes, end: usize) {
    // What was written before may still be on its way into the file.
    partial.is_whole().await.unwrap();
    let mut at = usize::try_from(partial.length()).unwrap();
    while at < end {
        let next = end.min(at + 100_000);
        partial.write(content.slice(at..next)).await.unwrap();
        at = next;
    }
}

/// The one record of a store, if it has been written.
fn find_record(root: &Path) -> Option<PathBuf> {
    let mut paths = fs::read_dir(root.join("partial")).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "record"))
}

fn record_path(root: &Path) -> PathBuf {
    find_record(root).expect("a record")
}

fn bytes_path(root: &Path) -> PathBuf {
    record_path(root).with_extension("")
}

/// How many bytes are recorded.
fn recorded(root: &Path) -> u64 {
    let Some(record) = find_record(root).and_then(|path| fs::read_to_string(path).ok()) else { return 0 };
    let line = record.lines().find_map(|line| line.strip_prefix("length "));
    line.unwrap().parse().unwrap()
}

fn is_empty(root: &Path) -> bool {
    fs::read_dir(root.join("partial")).unwrap().next().is_none()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // What is renamed or removed at this moment may be missing from a copy.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&entry.path(), &to.join(entry.file_name())),
            Ok(_) => drop(fs::copy(entry.path(), to.join(entry.file_name()))),
            Err(_) => {}
        }
    }
}

#[tokio::test]
async fn what_was_dropped_is_gone_on_with_by_the_next_process() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let dir = tempfile::tempdir().unwrap();
        let content = noise(1, 3 * MIB);
        let digest = Digest::of(algorithm, &content);
        let store = open(dir.path()).await;
        let mut partial = open_partial(&store, &digest).await;
        assert_eq!((partial.length(), partial.size()), (0, None));
        partial.set_size(content.len() as u64);
        write_up_to(&mut partial, &content, MIB).await;
        drop(partial);
        store.close().await.unwrap();
        drop(store);
        assert_clean(dir.path());

        let store = open(dir.path()).await;
        let mut partial = open_partial(&store, &digest).await;
        assert_eq!((partial.length(), partial.size()), (MIB as u64, Some(content.len() as u64)));
        let reader = partial.reader();
        assert_eq!(read_range(&reader, 0, MIB as u64).await.unwrap(), content[..MIB]);
        assert!(!partial.is_whole().await.unwrap());
        write_up_to(&mut partial, &content, content.len()).await;
        assert!(partial.is_whole().await.unwrap());
        assert_eq!(partial.commit().await.unwrap(), content.len() as u64);
        assert_eq!(pull_blob(&store, &repository("app"), &digest).await.unwrap(), content);
        assert_eq!(read_all(&reader).await, content, "who read along reads on");
        assert!(is_empty(dir.path()));
        store.close().await.unwrap();
        assert_clean(dir.path());
    }
}

#[tokio::test]
async fn one_has_it_and_it_belongs_to_one_repository() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let content = noise(1, 1000);
    let digest = Digest::sha256(&content);
    let mut partial = open_partial(&store, &digest).await;
    write_up_to(&mut partial, &content, 500).await;
    assert!(matches!(store.blobs().partial(&repository("app"), &digest).await, Err(Error::Busy)));
    let other = store.blobs().partial(&repository("other"), &digest).await.unwrap();
    assert_eq!(other.length(), 0);
    other.discard().await.unwrap();
    store.blobs().forget_partial(&repository("app"), &digest).await.unwrap();
    partial.close().await;
    assert_eq!(open_partial(&store, &digest).await.length(), 500, "nobody forgets what somebody works on");
    store.blobs().forget_partial(&repository("app"), &digest).await.unwrap();
}

#[tokio::test]
async fn wrong_bytes_are_gone_and_right_ones_that_are_here_already_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (content, app) = (noise(1, 2000), repository("app"));
    let digest = Digest::sha256(&content);
    let mut partial = open_partial(&store, &digest).await;
    partial.write(noise(2, 1000)).await.unwrap();
    partial.close().await;
    let mut partial = open_partial(&store, &digest).await;
    assert_eq!(partial.length(), 1000);
    partial.write(content.slice(1000..)).await.unwrap();
    assert!(matches!(partial.commit().await, Err(Error::Mismatch { .. })));
    assert!(is_empty(dir.path()) && store.names().blob(&app, &digest).await.unwrap().is_none());

    push_blob(&store, &repository("other"), content.clone()).await.unwrap();
    let mut partial = open_partial(&store, &digest).await;
    write_up_to(&mut partial, &content, 2000).await;
    assert_eq!(partial.commit().await.unwrap(), 2000);
    assert!(is_empty(dir.path()));
    assert_eq!(pull_blob(&store, &app, &digest).await.unwrap(), content);

    let partial = open_partial(&store, &Digest::sha256(b"")).await;
    assert_eq!(partial.commit().await.unwrap(), 0, "nothing is a blob too");
    store.close().await.unwrap();
    assert_clean(dir.path());
}

#[tokio::test]
async fn a_new_beginning_leaves_those_alone_who_read_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let digest = Digest::sha256(&noise(1, 1000));
    let mut partial = open_partial(&store, &digest).await;
    partial.write(noise(2, 1000)).await.unwrap();
    assert!(!partial.is_whole().await.unwrap());
    let reader = partial.reader();
    partial.discard().await.unwrap();
    assert!(is_empty(dir.path()));
    let mut partial = open_partial(&store, &digest).await;
    assert_eq!(partial.length(), 0);
    partial.write(noise(1, 1000)).await.unwrap();
    partial.commit().await.unwrap();
    assert_eq!(read_all(&reader).await, noise(2, 1000));
}

/// A record is believed only when all of it is right, and only about a file that has what it says.
#[tokio::test]
async fn whatever_does_not_fit_begins_again() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, Option<Code>); 7] = [
        (
            "another version",
            |root| edit(root, "deltaport-partial 1", "deltaport-partial 2"),
            Some(Code::PartialDamaged),
        ),
        ("a changed line", |root| edit(root, "length 1000", "length 1001"), Some(Code::PartialDamaged)),
        ("a cut record", |root| truncate(&record_path(root), 50), Some(Code::PartialDamaged)),
        ("an empty record", |root| truncate(&record_path(root), 0), Some(Code::PartialDamaged)),
        ("a short file", |root| truncate(&bytes_path(root), 999), Some(Code::PartialDamaged)),
        ("no file", |root| fs::remove_file(bytes_path(root)).unwrap(), Some(Code::PartialOrphan)),
        ("no record", |root| fs::remove_file(record_path(root)).unwrap(), Some(Code::PartialOrphan)),
    ];
    for (what, damage, code) in damages {
        for repaired in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let content = noise(1, 2000);
            let digest = Digest::sha256(&content);
            let store = open(dir.path()).await;
            let mut partial = open_partial(&store, &digest).await;
            write_up_to(&mut partial, &content, 1000).await;
            partial.close().await;
            store.close().await.unwrap();
            drop(store);
            damage(dir.path());
            let found = check(dir.path(), repaired).findings.first().map(|finding| finding.code);
            assert_eq!(found, code, "{what}");
            let store = open(dir.path()).await;
            let mut partial = open_partial(&store, &digest).await;
            assert_eq!(partial.length(), 0, "{what}");
            write_up_to(&mut partial, &content, 2000).await;
            partial.commit().await.unwrap();
            assert_eq!(pull_blob(&store, &repository("app"), &digest).await.unwrap(), content, "{what}");
            store.close().await.unwrap();
            drop(store);
            assert_clean(dir.path());
        }
    }
}

fn edit(root: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(record_path(root)).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(record_path(root), text.replace(from, to)).unwrap();
}

fn truncate(path: &Path, len: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[tokio::test]
async fn what_is_behind_the_record_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let content = noise(1, 3000);
    let digest = Digest::sha256(&content);
    let mut partial = open_partial(&store, &digest).await;
    write_up_to(&mut partial, &content, 1000).await;
    partial.close().await;
    let mut bytes = fs::read(bytes_path(dir.path())).unwrap();
    bytes.extend_from_slice(&[0; 500]);
    fs::write(bytes_path(dir.path()), bytes).unwrap();
    let mut partial = open_partial(&store, &digest).await;
    assert_eq!(partial.length(), 1000);
    write_up_to(&mut partial, &content, 3000).await;
    partial.commit().await.unwrap();
    assert_eq!(pull_blob(&store, &repository("app"), &digest).await.unwrap(), content);
}

/// Bytes that have changed on the disk are found by the digest, and by a check before that.
#[tokio::test]
async fn rotten_bytes_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let content = noise(1, 2000);
    let digest = Digest::sha256(&content);
    let store = open(dir.path()).await;
    let mut partial = open_partial(&store, &digest).await;
    write_up_to(&mut partial, &content, 1000).await;
    partial.close().await;
    store.close().await.unwrap();
    drop(store);
    let mut bytes = fs::read(bytes_path(dir.path())).unwrap();
    bytes[500] ^= 1;
    fs::write(bytes_path(dir.path()), bytes).unwrap();
    assert_eq!(check(dir.path(), false).findings[0].code, Code::PartialDamaged);
    assert!(check(dir.path(), true).is_mended());
    assert!(is_empty(dir.path()), "both files are put aside");
    assert_clean(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_four_mebibytes_are_recorded_while_more_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let content = noise(1, 9 * MIB);
    let digest = Digest::sha256(&content);
    let mut partial = open_partial(&store, &digest).await;
    write_up_to(&mut partial, &content, 3 * MIB).await;
    assert!(!partial.is_whole().await.unwrap());
    assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 1, "no record yet");
    for boundary in [4, 8] {
        write_up_to(&mut partial, &content, (boundary + 1) * MIB - 1).await;
        eventually("a record", || recorded(dir.path()) >= (boundary * MIB) as u64).await;
    }
    // A power cut now: the files as they are, in another place.
    let copied = tempfile::tempdir().unwrap();
    copy(&dir.path().join("partial"), &copied.path().join("partial"));
    let length = recorded(copied.path());
    let other = open(copied.path()).await;
    let mut after = open_partial(&other, &digest).await;
    assert_eq!(after.length(), length);
    write_up_to(&mut after, &content, content.len()).await;
    after.commit().await.unwrap();
    assert_eq!(pull_blob(&other, &repository("app"), &digest).await.unwrap(), content);
    // A store that closes records what has arrived, and nothing more is taken.
    store.close().await.unwrap();
    assert_eq!(recorded(dir.path()), (9 * MIB - 1) as u64);
    assert!(partial.write(content.slice(..1)).await.is_err());
}

/// While a slow disk syncs, bytes go on arriving, and the next sync is for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_do_not_hold_up_the_writing_and_are_put_together() {
    let dir = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let (gate, wait) = std::sync::mpsc::channel::<()>();
    let faults = Faults::new({
        let (syncs, wait) = (Arc::clone(&syncs), Mutex::new(wait));
        move |name| {
            if name == "partial-sync" {
                syncs.fetch_add(1, Ordering::SeqCst);
                let _ = wait.lock().unwrap().recv();
            }
            Ok(())
        }
    });
    let store = Store::open(Options { faults, ..options(dir.path()) }).await.unwrap();
    let content = noise(1, 33 * MIB);
    let digest = Digest::sha256(&content);
    let mut partial = open_partial(&store, &digest).await;
    write_up_to(&mut partial, &content, 5 * MIB).await;
    eventually("a sync", || syncs.load(Ordering::SeqCst) == 1).await;
    // The disk is stuck; everything goes into the file all the same.
    write_up_to(&mut partial, &content, content.len()).await;
    assert!(partial.is_whole().await.unwrap());
    assert_eq!(syncs.load(Ordering::SeqCst), 1);
    drop(gate);
    partial.close().await;
    assert_eq!(syncs.load(Ordering::SeqCst), 2);
    assert_eq!(recorded(dir.path()), content.len() as u64);
}

/// A disk that fails at each step: nothing is recorded that is not durable, nobody gets wrong bytes, and when the disk
/// works again the transfer goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_disk_costs_no_more_than_what_was_not_recorded() {
    for (point, kept, writable) in
        [("stage-write", MIB, false), ("partial-sync", MIB, false), ("partial-record", MIB, true)]
    {
        let dir = tempfile::tempdir().unwrap();
        let failing = Arc::new(Mutex::new(""));
        let faults = Faults::new({
            let failing = Arc::clone(&failing);
            move |name| match *failing.lock().unwrap() == name {
                true => Err(std::io::Error::from_raw_os_error(EIO)),
                false => Ok(()),
            }
        });
        let store = Store::open(Options { faults, ..options(dir.path()) }).await.unwrap();
        let content = noise(1, 6 * MIB);
        let digest = Digest::sha256(&content);
        let mut partial = open_partial(&store, &digest).await;
        write_up_to(&mut partial, &content, MIB).await;
        partial.close().await;
        *failing.lock().unwrap() = point;
        let mut partial = open_partial(&store, &digest).await;
        let mut written = Ok(());
        for at in 1..6 {
            written = written.and(partial.write(content.slice(at * MIB..(at + 1) * MIB)).await);
        }
        if writable {
            assert!(written.is_ok() && partial.is_whole().await.unwrap(), "{point}");
        } else {
            let told = tokio::time::timeout(Duration::from_secs(20), async {
                while partial.is_whole().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
            assert!(told.await.is_ok(), "{point}: nobody is told");
            assert!(matches!(partial.write(content.slice(..1)).await, Err(Error::Io(_))), "{point}");
        }
        partial.close().await;
        assert_eq!(recorded(dir.path()), kept as u64, "{point}");
        *failing.lock().unwrap() = "";
        let mut partial = open_partial(&store, &digest).await;
        assert_eq!(partial.length(), kept as u64, "{point}");
        write_up_to(&mut partial, &content, content.len()).await;
        partial.commit().await.unwrap();
        assert_eq!(pull_blob(&store, &repository("app"), &digest).await.unwrap(), content);
        store.close().await.unwrap();
        assert_clean(dir.path());
    }
}

/// Every step of becoming a blob may fail, and can be done again without another byte.
#[tokio::test]
async fn a_commit_that_fails_is_done_again() {
    for point in [
        "blob-sync",
        "blob-mark",
        "blob-rename",
        "blob-renamed",
        "dir-synced",
        "before-commit",
        "journal-append",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let failing = Arc::new(Mutex::new(point));
        let faults = Faults::new({
            let failing = Arc::clone(&failing);
            move |name| match *failing.lock().unwrap() == name {
                true => Err(std::io::Error::from_raw_os_error(EIO)),
                false => Ok(()),
            }
        });
        let store = Store::open(Options { faults, ..options(dir.path()) }).await.unwrap();
        let content = noise(1, 1000);
        let digest = Digest::sha256(&content);
        let mut partial = open_partial(&store, &digest).await;
        write_up_to(&mut partial, &content, 1000).await;
        assert!(matches!(partial.commit().await, Err(Error::Io(_))), "{point}");
        *failing.lock().unwrap() = "";
        let mut partial = open_partial(&store, &digest).await;
        // After a failed sync nothing is believed, and a file that has been moved already is no beginning any more.
        write_up_to(&mut partial, &content, 1000).await;
        partial.commit().await.unwrap();
        assert_eq!(pull_blob(&store, &repository("app"), &digest).await.unwrap(), content, "{point}");
        store.close().await.unwrap();
        assert_clean(dir.path());
        assert!(is_empty(dir.path()), "{point}");
    }
}

/// At every step of recording, the process may end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_leaves_a_beginning_or_none() {
    for point in [
        "stage-create",
        "stage-write",
        "partial-sync",
        "partial-record",
        "blob-sync",
        "blob-mark",
        "blob-rename",
        "blob-renamed",
        "dir-synced",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let copies = Arc::new(Mutex::new(Vec::new()));
        let faults = Faults::new({
            let (copies, root) = (Arc::clone(&copies), dir.path().to_owned());
            move |name| {
                if name == point {
                    let to = tempfile::tempdir().unwrap();
                    for part in ["blobs", "partial", "staging"] {
                        copy(&root.join(part), &to.path().join(part));
                    }
                    copies.lock().unwrap().push(to);
                }
                Ok(())
            }
        });
        let store = Store::open(Options { faults, ..options(dir.path()) }).await.unwrap();
        let content = noise(1, 5 * MIB);
        let digest = Digest::sha256(&content);
        for end in [MIB, 5 * MIB] {
            let mut partial = open_partial(&store, &digest).await;
            write_up_to(&mut partial, &content, end).await;
            partial.close().await;
        }
        open_partial(&store, &digest).await.commit().await.unwrap();
        let copies = std::mem::take(&mut *copies.lock().unwrap());
        assert!(!copies.is_empty(), "{point}");
        for root in copies {
            let store = open(root.path()).await;
            let mut partial = open_partial(&store, &digest).await;
            write_up_to(&mut partial, &content, content.len()).await;
            partial.commit().await.unwrap_or_else(|error| panic!("{point}: {error}"));
            assert_eq!(pull_blob(&store, &repository("app"), &digest).await.unwrap(), content, "{point}");
            store.close().await.unwrap();
            assert_clean(root.path());
        }
    }
}

#[tokio::test]
async fn what_nobody_goes_on_with_expires() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (old, held) = (Digest::sha256(&noise(1, 1000)), Digest::sha256(&noise(2, 1000)));
    for (digest, seed) in [(old, 1), (held, 2)] {
        let mut partial = open_partial(&store, &digest).await;
        partial.write(noise(seed, 1000).slice(..500)).await.unwrap();
        partial.close().await;
    }
    let keeping = open_partial(&store, &held).await;
    let later = SystemTime::now() + Duration::from_secs(3601);
    assert_eq!(store.collect(SystemTime::now()).await.unwrap().partials, 0);
    assert_eq!(store.collect(later).await.unwrap().partials, 1);
    assert_eq!(open_partial(&store, &old).await.length(), 0, "it is gone");
    assert_eq!(keeping.length(), 500);
    keeping.close().await;
    assert_eq!(open_partial(&store, &held).await.length(), 500, "somebody was at it");
}

#[tokio::test]
async fn what_is_kept_for_a_repository_is_known_unless_somebody_works_on_it() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).await;
    let content = Bytes::from(vec![7; 1000]);
    let digest = Digest::sha256(&content);
    let keeps = async |name: &str| store.blobs().keeps_partials(&repository(name)).await.unwrap();
    assert!(!keeps("app").await);
    let mut partial = open_partial(&store, &digest).await;
    write_up_to(&mut partial, &content, 500).await;
    partial.close().await;
    assert_eq!((keeps("app").await, keeps("other").await), (true, false));
    let partial = open_partial(&store, &digest).await;
    assert!(!keeps("app").await, "somebody is at it");
    partial.discard().await.unwrap();
    assert!(!keeps("app").await);
}
