//! Reading along with a blob that is still being fetched.

use std::time::Duration;

use deltaport_oci::Algorithm;
use deltaport_store::{Faults, Staging, Store};
use deltaport_testkit::sample;
use futures_util::StreamExt as _;
use tempfile::TempDir;

use super::*;

async fn staging() -> (TempDir, Store, Staging) {
    let home = TempDir::new().expect("a directory");
    let options = store::Options {
        root: home.path().to_owned(),
        bytes: deltaport_store::ByteStore::Directory,
        keep_free: 0,
        manifest_cache: 0,
        grace: Duration::from_secs(60),
        upload_expiry: Duration::from_secs(60),
        partial_expiry: Duration::from_secs(60),
        names: deltaport_store::NamesOptions::Directory,
        faults: Faults::none(),
    };
    let store = Store::open(options).await.expect("an empty store");
    let staging = store.blobs().stage(Algorithm::Sha256).await.expect("a staging file");
    (home, store, staging)
}

/// A body that is fetched through `staging`, and what announces its progress.
fn filling(staging: &Staging, size: u64) -> (watch::Sender<Progress>, Body) {
    let reader = Some(staging.reader().expect("a reader"));
    let (announce, progress) = watch::channel(Progress { size: Some(size), reader, ..Progress::default() });
    (announce, Body::Filling(Filling { size, progress }))
}

async fn read(body: Body, range: ByteRange) -> io::Result<Vec<u8>> {
    let mut stream = body.read(range);
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

#[tokio::test]
async fn many_read_along_and_all_get_the_same_bytes() {
    let (_home, _store, mut staging) = staging().await;
    let content = sample::bytes(1, 1_000_000);
    let (announce, body) = filling(&staging, 1_000_000);
    let ranges = [(0, 1_000_000), (0, 1), (999_999, 1_000_000), (300_000, 700_000)];
    let readers: Vec<_> = ranges
        .map(|(start, end)| (start, end, tokio::spawn(read(body.clone(), ByteRange { start, end }))))
        .into();
    let mut written = staging.progress();
    for piece in 0..10 {
        let piece = content.slice(piece * 100_000..(piece + 1) * 100_000);
        let goal = *written.borrow() + piece.len() as u64;
        staging.write(piece).await.expect("written");
        written.wait_for(|at| *at >= goal).await.expect("the file grows");
        announce.send_modify(|progress| progress.readable = goal);
    }
    for (start, end, reader) in readers {
        let bytes = reader.await.expect("no panic").expect("all bytes came");
        assert!(bytes == content[start as usize..end as usize], "{start}..{end}");
    }
}

#[tokio::test]
async fn a_transfer_that_is_given_up_is_an_error_and_not_an_end() {
    let (_home, _store, mut staging) = staging().await;
    let content = sample::bytes(1, 1000);
    let (announce, body) = filling(&staging, 2000);
    let whole = tokio::spawn(read(body.clone(), ByteRange { start: 0, end: 2000 }));
    let part = tokio::spawn(read(body, ByteRange { start: 0, end: 1000 }));
    let mut written = staging.progress();
    staging.write(content.clone()).await.expect("written");
    written.wait_for(|at| *at >= 1000).await.expect("the file grows");
    announce.send_modify(|progress| progress.readable = 1000);
    assert!(part.await.expect("no panic").expect("what was asked for came") == content);
    drop(announce);
    let error = whole.await.expect("no panic").expect_err("the rest never comes");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
