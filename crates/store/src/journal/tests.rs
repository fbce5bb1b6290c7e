//! The journal as a file: torn ends, damage, and compaction while names change.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::collect::compact_journal;
use crate::{FsckOptions, Options, Store, fsck};

fn layout() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    (dir, layout)
}

fn change(n: u64) -> Change {
    Change::Tag {
        repository: "a/b".parse().unwrap(),
        tag: format!("t{n}").parse().unwrap(),
        digest: Digest::sha256(&n.to_le_bytes()),
    }
}

fn append(journal: &mut Journal, numbers: std::ops::RangeInclusive<u64>) {
    let lines: Vec<_> = numbers.map(|n| (n, 5, encode(&change(n)).unwrap())).collect();
    journal.append(lines.iter()).unwrap();
}

fn replayed(layout: &Layout) -> (Vec<u64>, usize) {
    let (mut numbers, mut damage) = (Vec::new(), 0);
    read(&layout.journal(), |item| {
        match item {
            Item::Entry(entry) => {
                assert_eq!(entry.change, change(entry.seq));
                numbers.push(entry.seq);
            }
            Item::Damage(_) => damage += 1,
        }
        Ok(())
    })
    .unwrap();
    (numbers, damage)
}

#[test]
fn whatever_a_crash_leaves_behind_the_last_line_is_cut() {
    let line = {
        let mut line = Vec::new();
        write_line(&mut line, 4, 5, &encode(&change(4)).unwrap()).unwrap();
        line
    };
    let tails: [&[u8]; 7] = [
        b"",
        b"\n",
        b"{",
        &line[..line.len() - 1],
        &[0; 5000],
        &[b'\n'; 3 * 262_144],
        b"{\"seq\":4,\"at\":5,\"sum\":\"0000000000000000\",\"change\":{\"op\":\"snapshot\"}}\n",
    ];
    for tail in tails {
        let (_dir, layout) = layout();
        let mut journal = Journal::open(&layout, Faults::none()).unwrap();
        append(&mut journal, 1..=3);
        drop(journal);
        let mut text = std::fs::read(layout.journal()).unwrap();
        text.extend_from_slice(tail);
        std::fs::write(layout.journal(), &text).unwrap();
        assert_eq!(replayed(&layout), (vec![1, 2, 3], 0));
        let mut journal = Journal::open(&layout, Faults::none()).unwrap();
        assert_eq!(journal.last(), 3);
        append(&mut journal, 4..=4);
        assert_eq!(replayed(&layout), (vec![1, 2, 3, 4], 0));
    }
}

#[test]
fn a_failed_append_is_written_over() {
    let (_dir, layout) = layout();
    let fail = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let faults = Faults::new({
        let fail = Arc::clone(&fail);
        move |name| match name == faults::JOURNAL_SYNCED && fail.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    });
    let mut journal = Journal::open(&layout, faults).unwrap();
    append(&mut journal, 1..=2);
    fail.store(true, std::sync::atomic::Ordering::SeqCst);
    let lines = [(3, 5, encode(&change(3)).unwrap())];
    assert!(journal.append(lines.iter()).is_err());
    assert_eq!(journal.last(), 2);
    fail.store(false, std::sync::atomic::Ordering::SeqCst);
    append(&mut journal, 3..=4);
    assert_eq!(replayed(&layout), (vec![1, 2, 3, 4], 0));
}

#[test]
fn damage_in_the_middle_is_told_and_the_rest_is_read() {
    let (_dir, layout) = layout();
    let mut journal = Journal::open(&layout, Faults::none()).unwrap();
    append(&mut journal, 1..=5);
    let text = std::fs::read_to_string(layout.journal()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let damaged = lines[2].replace("\"at\":5", "\"at\":6");
    std::fs::write(layout.journal(), [lines[0], lines[1], &damaged, lines[3], lines[4], ""].join("\n"))
        .unwrap();
    assert_eq!(replayed(&layout), (vec![1, 2, 4, 5], 1));
    std::fs::write(layout.journal(), [lines[0], lines[1], lines[3], lines[4], ""].join("\n")).unwrap();
    assert_eq!(replayed(&layout), (vec![1, 2, 4, 5], 1));
}

proptest! {
    #[test]
    fn no_line_panics(line in ".{0,200}") {
        prop_assert_eq!(read_line(line.as_bytes()), None);
    }
}

fn options(layout: &Layout, faults: Faults) -> Options {
    Options {
        root: layout.root().to_owned(),
        bytes: crate::ByteStore::Directory,
        keep_free: 0,
        manifest_cache: 1 << 20,
        grace: Duration::from_secs(3600),
        upload_expiry: Duration::from_secs(3600),
        partial_expiry: Duration::from_secs(3600),
        names: crate::NamesOptions::Directory,
        faults,
    }
}

/// Links and unlinks a blob many times, so that most of the journal is history.
async fn make_history(store: &Store, name: &str, rounds: usize) {
    let repository: RepositoryName = name.parse().unwrap();
    let bytes = Bytes::copy_from_slice(name.as_bytes());
    let digest = Digest::sha256(&bytes);
    for _ in 0..rounds {
        let mut staging = store.blobs().stage(deltaport_oci::Algorithm::Sha256).await.unwrap();
        staging.write(bytes.clone()).await.unwrap();
        store.commit(staging, &digest, &repository).await.unwrap();
        store.names().unlink_blob(&repository, &digest).await.unwrap();
    }
    let mut staging = store.blobs().stage(deltaport_oci::Algorithm::Sha256).await.unwrap();
    staging.write(bytes).await.unwrap();
    store.commit(staging, &digest, &repository).await.unwrap();
}

fn assert_clean(layout: &Layout) {
    let report = fsck(
        &FsckOptions {
            bytes: crate::ByteStore::Directory,
            rehash: false,
            root: layout.root().to_owned(),
            names: crate::NamesOptions::Directory,
            repair: false,
        },
        &|_| {},
    )
    .unwrap();
    assert_eq!(report.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_forgets_history_and_nothing_else_while_names_change() {
    let (_dir, layout) = layout();
    let store = Store::open(options(&layout, Faults::none())).await.unwrap();
    make_history(&store, "first", 20).await;
    let before = std::fs::metadata(layout.journal()).unwrap().len();
    compact_journal(&store.core, 0).await.unwrap();
    let after = std::fs::metadata(layout.journal()).unwrap().len();
    assert!(after * 10 < before, "{before} to {after}");

    let mut writers = tokio::task::JoinSet::new();
    for n in 0..4 {
        let store = store.clone();
        writers.spawn(async move { make_history(&store, &format!("writer/{n}"), 10).await });
    }
    while !writers.is_empty() {
        // Every time, however little there is to forget.
        store
            .core
            .database
            .change(|tx| crate::names::database::set_journal_base(tx.connection, 0))
            .await
            .unwrap();
        compact_journal(&store.core, 0).await.unwrap();
        while let Some(done) = writers.try_join_next() {
            done.unwrap();
        }
    }
    store.close().await.unwrap();
    drop(store);
    assert_clean(&layout);
    let store = Store::open(options(&layout, Faults::none())).await.unwrap();
    make_history(&store, "last", 1).await;
    store.close().await.unwrap();
    drop(store);
    assert_clean(&layout);
}

#[tokio::test]
async fn a_compaction_that_fails_loses_nothing() {
    for point in [faults::JOURNAL_REPLACE, faults::JOURNAL_REPLACED] {
        let (_dir, layout) = layout();
        let faults = Faults::new(move |name| match name == point {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        });
        let store = Store::open(options(&layout, faults)).await.unwrap();
        make_history(&store, "first", 5).await;
        assert!(compact_journal(&store.core, 0).await.is_err());
        make_history(&store, "second", 2).await;
        store.close().await.unwrap();
        drop(store);
        assert_clean(&layout);
        Store::open(options(&layout, Faults::none())).await.unwrap().close().await.unwrap();
        assert!(!layout.new_journal().exists());
        assert_clean(&layout);
    }
}
