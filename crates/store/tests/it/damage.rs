//! Stores that were damaged on purpose: what a check says, what mending leaves, what a rebuild gives back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use deltaport_oci::{Digest, Reference};
use deltaport_store::{ByteStore, Code, Error, LayerDelta, NamesOptions, Rebuilt, Store, rebuild};

use crate::common::*;

/// Makes the database again.
fn again(root: &Path) -> Rebuilt {
    rebuild(root, &ByteStore::Directory, &NamesOptions::Directory).unwrap()
}

struct Sample {
    blobs: Vec<Digest>,
    manifest: Digest,
}

/// A store, closed, with an image, a second repository that shares a layer, an index, a delta and a signature.
async fn sample(root: &Path) -> Sample {
    let store = open(root).await;
    let sample = fill(&store).await;
    store.close().await.unwrap();
    drop(store);
    assert_clean(root);
    sample
}

async fn fill(store: &Store) -> Sample {
    let (names, app, other) = (store.names(), repository("app"), repository("other"));
    let mut blobs = Vec::new();
    for seed in 0..4 {
        blobs.push(push_blob(store, &app, noise(seed, 100_000)).await.unwrap());
    }
    let image_manifest = image(&blobs[0], &[blobs[1], blobs[2]], &["v1", "latest"]);
    let manifest = image_manifest.digest;
    names.put_manifest(&app, image_manifest).await.unwrap();
    names.put_layer_delta(&app, &blobs[1], &blobs[2], &LayerDelta::Blob(blobs[3])).await.unwrap();
    names.put_layer_delta(&app, &blobs[2], &blobs[1], &LayerDelta::NotWorthIt).await.unwrap();
    names.link_blob(&other, &blobs[1]).await.unwrap();
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
            {{"mediaType":"m","digest":"{manifest}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}},
            {{"mediaType":"m","digest":"{}","size":1}}]}}"#,
        Digest::sha256(b"absent")
    );
    names
        .put_manifest(&app, new_manifest("application/vnd.oci.image.index.v1+json", &index, &["multi"]))
        .await
        .unwrap();
    let signature = format!(
        r#"{{"schemaVersion":2,"artifactType":"application/signature","config":{{"mediaType":"c","digest":"{}","size":2}},"layers":[],"subject":{{"mediaType":"m","digest":"{manifest}","size":1}},"annotations":{{"a":"b"}}}}"#,
        blobs[0]
    );
    names
        .put_manifest(&app, new_manifest("application/vnd.oci.image.manifest.v1+json", &signature, &[]))
        .await
        .unwrap();
    Sample { blobs, manifest }
}

fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs").join(digest.algorithm().as_str()).join(&digest.hex()[..2]).join(digest.hex())
}

fn overwrite(path: &Path, content: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, content).unwrap();
}

fn codes(root: &Path) -> Vec<Code> {
    let mut codes: Vec<Code> = check(root, false).findings.iter().map(|finding| finding.code).collect();
    codes.dedup();
    codes
}

/// Mends, and checks that all is well afterwards.
fn mend(root: &Path) {
    let report = check(root, true);
    assert!(report.is_mended(), "{:#?}", report.findings);
    assert_clean(root);
}

#[tokio::test]
async fn a_decayed_layer_is_put_aside_and_its_names_go() {
    let dir = tempfile::tempdir().unwrap();
    let sample = sample(dir.path()).await;
    let path = blob_path(dir.path(), &sample.blobs[1]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
    let mut bytes = fs::read(&path).unwrap();
    bytes[50_000] ^= 1;
    overwrite(&path, &bytes);

    assert_eq!(codes(dir.path()), [Code::BlobCorrupt]);
    assert_eq!(codes(dir.path()), [Code::BlobCorrupt], "a check changes nothing");
    mend(dir.path());
    let kept: Vec<_> = fs::read_dir(dir.path().join("quarantine")).unwrap().collect();
    assert!(kept.iter().any(|file| fs::read(file.as_ref().unwrap().path()).unwrap() == bytes));

    let store = open(dir.path()).await;
    assert_eq!(store.names().blob(&repository("app"), &sample.blobs[1]).await.unwrap(), None);
    assert_eq!(store.names().blob(&repository("other"), &sample.blobs[1]).await.unwrap(), None);
    let v1 = Reference::Tag(tag("v1"));
    assert!(store.names().manifest(&repository("app"), &v1).await.unwrap().is_some());
    // The next push makes it whole again.
    push_blob(&store, &repository("app"), noise(1, 100_000)).await.unwrap();
    store.close().await.unwrap();
    assert_clean(dir.path());
}

#[tokio::test]
async fn a_lost_layer_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let sample = sample(dir.path()).await;
    fs::remove_file(blob_path(dir.path(), &sample.blobs[2])).unwrap();
    assert_eq!(codes(dir.path()), [Code::BlobMissing]);
    mend(dir.path());
}

#[tokio::test]
async fn a_pushed_blob_replaces_a_truncated_one() {
    let dir = tempfile::tempdir().unwrap();
    let sample = sample(dir.path()).await;
    overwrite(&blob_path(dir.path(), &sample.blobs[2]), b"short");
    let store = open(dir.path()).await;
    push_blob(&store, &repository("app"), noise(2, 100_000)).await.unwrap();
    store.close().await.unwrap();
    assert_clean(dir.path());
}

#[tokio::test]
async fn a_manifest_is_kept_twice_and_mended_from_the_other_copy() {
    let dir = tempfile::tempdir().unwrap();
    let sample = sample(dir.path()).await;
    let before = state(dir.path());
    overwrite(&blob_path(dir.path(), &sample.manifest), b"{}");
    assert_eq!(codes(dir.path()), [Code::BlobCorrupt]);
    mend(dir.path());
    fs::remove_file(blob_path(dir.path(), &sample.manifest)).unwrap();
    assert_eq!(codes(dir.path()), [Code::BlobMissing]);
    mend(dir.path());
    sql(dir.path(), "UPDATE manifest SET bytes = x'7b7d' WHERE subject IS NULL");
    assert_eq!(codes(dir.path()), [Code::ManifestCorrupt]);
    mend(dir.path());
    assert_eq!(state(dir.path()), before);

    sql(dir.path(), "UPDATE manifest SET bytes = x'7b7d'");
    overwrite(&blob_path(dir.path(), &sample.manifest), b"{}");
    mend(dir.path());
    let store = open(dir.path()).await;
    let found = store.names().manifest(&repository("app"), &Reference::Tag(tag("v1"))).await.unwrap();
    assert!(found.is_none(), "nothing is served that is not what its digest says");
}

fn sql(root: &Path, statement: &str) {
    let names = rusqlite::Connection::open(root.join("names.db")).unwrap();
    names.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    names.execute_batch(statement).unwrap();
}

#[tokio::test]
async fn wrong_rows_are_found_and_mended() {
    for (statement, code) in [
        ("UPDATE blob SET size = size + 1 WHERE digest = (SELECT max(digest) FROM blob)", Code::BlobSize),
        ("UPDATE reference SET present = 1 - present", Code::PresenceWrong),
        (
            "UPDATE reference SET digest = 'sha256:' || printf('%064d', 1) WHERE kind = 'layer'",
            Code::ReferencesWrong,
        ),
        ("DELETE FROM reference WHERE kind = 'subject'", Code::ReferencesWrong),
        ("UPDATE manifest SET artifact_type = 'x' WHERE subject IS NOT NULL", Code::ReferencesWrong),
        ("UPDATE tag SET digest = 'sha256:' || printf('%064d', 1)", Code::TagDangling),
        ("INSERT INTO repository (name) VALUES ('empty')", Code::RepositoryEmpty),
        (
            "INSERT INTO layer_delta VALUES (1, 'sha256:' || printf('%064d', 1), 'sha256:' || printf('%064d', 2), NULL, 0)",
            Code::DeltaDangling,
        ),
        ("INSERT INTO tag_past VALUES (1, 'gone', 'sha256:' || printf('%064d', 1), 5)", Code::PastDangling),
        (
            "INSERT INTO delta_job (repository, base, target, waited, asked)
             VALUES (1, 'sha256:' || printf('%064d', 1), 'sha256:' || printf('%064d', 2), 0, 5)",
            Code::DeltaJobDangling,
        ),
        ("INSERT INTO absence VALUES (1, 'sha256:' || printf('%064d', 1), 'evicted')", Code::AbsenceDangling),
        ("DELETE FROM review", Code::ReviewMissing),
        ("DELETE FROM blob WHERE digest = (SELECT digest FROM repository_blob LIMIT 1)", Code::BlobOrphan),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let sample = fill(&store).await;
        push_blob(&store, &repository("unreferenced"), noise(77, 10)).await.unwrap();
        store.close().await.unwrap();
        drop((store, sample));
        sql(dir.path(), statement);
        let found = codes(dir.path());
        assert!(found.contains(&code), "{statement}: {found:?}");
        mend(dir.path());
    }
}

#[tokio::test]
async fn files_that_do_not_belong_are_found() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path()).await;
    let orphan = noise(99, 1000);
    let path = blob_path(dir.path(), &Digest::sha256(&orphan));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, &orphan).unwrap();
    fs::write(dir.path().join("blobs/sha256/readme"), "x").unwrap();
    fs::write(dir.path().join("uploads").join("0".repeat(32)), "x").unwrap();
    let mut found = codes(dir.path());
    found.sort_by_key(|code| code.as_str());
    assert_eq!(found, [Code::BlobOrphan, Code::StrayFile, Code::UploadOrphan]);
    let report = check(dir.path(), true);
    assert!(report.is_mended() && !report.is_clean());
    let store = open(dir.path()).await;
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3601);
    assert_eq!(store.collect(later).await.unwrap().blobs, 1);
    store.close().await.unwrap();
    assert_clean(dir.path());
}

#[tokio::test]
async fn a_damaged_journal_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path()).await;
    let journal = dir.path().join("journal");
    let text = fs::read_to_string(&journal).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();

    let damaged = lines[3].replace("sha256:", "sha256;");
    lines[3] = &damaged;
    fs::write(&journal, lines.join("\n") + "\n").unwrap();
    assert_eq!(codes(dir.path()), [Code::JournalDamaged, Code::JournalMismatch]);
    mend(dir.path());

    // One line left out in the middle.
    lines.remove(3);
    fs::write(&journal, lines.join("\n") + "\n").unwrap();
    assert_eq!(codes(dir.path()), [Code::JournalDamaged, Code::JournalMismatch]);
    mend(dir.path());

    // Cut in the middle of a line, or gone: what the store itself puts right when it opens.
    for keep in [text.len() / 2, 0] {
        fs::write(&journal, &text[..keep]).unwrap();
        assert_eq!(codes(dir.path()), [Code::JournalMismatch]);
        open(dir.path()).await.close().await.unwrap();
        assert_clean(dir.path());
    }
}

#[tokio::test]
async fn a_rebuilt_database_says_what_the_old_one_said() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path()).await;
    let before = state(dir.path());
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(dir.path().join(format!("names.db{suffix}")));
    }
    let refused = Store::open(options(dir.path())).await.unwrap_err();
    assert!(matches!(&refused, Error::Unusable(text) if text.contains("rebuild")), "{refused}");
    let rebuilt = again(dir.path());
    assert_eq!((rebuilt.manifests, rebuilt.tags, rebuilt.links, rebuilt.lost), (3, 3, 5, 0), "{rebuilt:?}");
    assert_eq!(rebuilt.set_aside, None);
    assert_eq!(state(dir.path()), before);
    assert_clean(dir.path());

    // A database full of noise is noticed, set aside, and replaced.
    fs::write(dir.path().join("names.db"), noise(1, 100_000)).unwrap();
    assert_eq!(codes(dir.path()), [Code::DatabaseDamaged]);
    let rebuilt = again(dir.path());
    assert!(fs::read(rebuilt.set_aside.unwrap()).unwrap() == noise(1, 100_000));
    assert_eq!(state(dir.path()), before);
    assert_clean(dir.path());

    // And it works on.
    let store = open(dir.path()).await;
    push_blob(&store, &repository("app"), noise(50, 1000)).await.unwrap();
    store.close().await.unwrap();
    assert_clean(dir.path());
}

#[tokio::test]
async fn a_rebuild_says_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let sample = sample(dir.path()).await;
    fs::remove_file(blob_path(dir.path(), &sample.blobs[1])).unwrap();
    fs::remove_file(blob_path(dir.path(), &sample.manifest)).unwrap();
    let rebuilt = again(dir.path());
    // Two links, the manifest with two tags, two deltas.
    assert_eq!(rebuilt.lost, 7, "{rebuilt:#?}");
    assert_clean(dir.path());
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path()).await;
    let copy = fs::read(dir.path().join("names.db")).unwrap();
    let store = open(dir.path()).await;
    push_blob(&store, &repository("app"), noise(50, 1000)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    fs::write(dir.path().join("names.db"), copy).unwrap();
    let refused = Store::open(options(dir.path())).await.unwrap_err();
    assert!(matches!(&refused, Error::Unusable(text) if text.contains("rebuild")), "{refused}");
    again(dir.path());
    assert_clean(dir.path());
}

#[tokio::test]
async fn a_delta_that_is_its_own_base_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let app = repository("app");
    let base = push_blob(&store, &app, noise(1, 100)).await.unwrap();
    let target = push_blob(&store, &app, noise(2, 100)).await.unwrap();
    store.names().put_layer_delta(&app, &base, &target, &LayerDelta::Blob(base)).await.unwrap();
    store.close().await.unwrap();
    assert_clean(dir.path());
}
