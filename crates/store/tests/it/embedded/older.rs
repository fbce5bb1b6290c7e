//! What only names in a directory have: databases of older programs, and a journal to make a new one from.

use std::time::Duration;

use deltaport_store::Absence;

use super::home;
use super::suite::absences::{has, image_of, index};
use super::suite::hub::{past, push};
use super::suite::leases::is_free;
use super::suite::space::{blobs_of, fetched, order};
use crate::common::*;

#[tokio::test]
async fn a_database_without_reasons_is_brought_up_to_date() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("app"));
    let (here, _) = image_of(&store, &app, 1, &[]).await;
    let (gone, _) = image_of(&store, &app, 2, &[]).await;
    let root = index(&[here.digest, gone.digest], &["v1"]);
    for manifest in [here.clone(), root.clone()] {
        store.names().put_manifest(&app, manifest).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let names = rusqlite::Connection::open(dir.path().join("names.db")).unwrap();
    let back = "DROP TABLE lease; DROP TABLE slot; DROP INDEX delta_job_by_end; ALTER TABLE delta_job DROP COLUMN holder; ALTER TABLE delta_job DROP COLUMN until; DROP TABLE mirrored; DROP TABLE note; DROP TABLE outgoing; DROP TABLE verdict; DROP TABLE cached; DROP TRIGGER absence_ended; DROP TRIGGER absence_forgotten; DROP TABLE absence; PRAGMA user_version = 2";
    names.execute_batch(WITHOUT_BUCKETS).unwrap();
    names.execute_batch(back).unwrap();
    drop(names);

    let store = dir.open().await;
    let names = store.names();
    assert!(has(&store, &app, &here.digest).await && has(&store, &app, &root.digest).await);
    assert_eq!(names.absence(&app, &gone.digest).await.unwrap(), None);
    names.note_absence(&app, &gone.digest, Absence::Upstream).await.unwrap();
    assert_eq!(names.evict(&app, &root.digest, vec![here.digest]).await.unwrap(), [here.digest]);
    assert_eq!(names.absence(&app, &gone.digest).await.unwrap(), Some(Absence::Upstream));
    store.close().await.unwrap();
    dir.assert_clean();
}

#[tokio::test]
async fn a_database_without_a_past_is_brought_up_to_date() {
    let dir = home();
    let store = dir.open().await;
    let [one, two] = [push(&store, 1, &["v"]).await, push(&store, 2, &["v"]).await];
    store.close().await.unwrap();
    drop(store);
    let names = rusqlite::Connection::open(dir.path().join("names.db")).unwrap();
    names.execute_batch(WITHOUT_BUCKETS).unwrap();
    names
        .execute_batch(
            "DROP TABLE lease; DROP TABLE slot; DROP TABLE mirrored; DROP TABLE note; DROP TABLE outgoing; DROP TABLE verdict; DROP TABLE cached; DROP TRIGGER absence_ended; DROP TRIGGER absence_forgotten; DROP TABLE absence;
             DROP TRIGGER delta_job_collected; DROP TABLE tag_past; DROP TABLE delta_job; PRAGMA user_version = 1",
        )
        .unwrap();
    drop(names);
    let store = dir.open().await;
    assert_eq!(past(&store, "v").await, []);
    push(&store, 3, &["v"]).await;
    assert_eq!(past(&store, "v").await, [two]);
    store.close().await.unwrap();
    drop(store);
    // The journal knows more than that database ever did, which is no damage.
    dir.assert_clean();
    dir.rebuild();
    assert_eq!(past(&dir.open().await, "v").await, [two, one]);
}

#[tokio::test]
async fn where_a_manifest_came_from_survives_a_rebuild() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("hub.example/app"));
    let cached = fetched(&store, &app, 50, 1000, &["v1"]).await;
    let pushed = blobs_of(&store, &app, 51, 1000, &["v2"]).await;
    store.names().put_manifest(&app, pushed).await.unwrap();
    let bytes = store.names().cached_bytes().await.unwrap();
    store.close().await.unwrap();
    drop(store);
    dir.assert_clean();
    dir.rebuild();
    dir.assert_clean();
    let store = dir.open().await;
    assert_eq!(order(&store).await, [cached.digest]);
    assert_eq!(store.names().cached_bytes().await.unwrap(), bytes);
}

#[tokio::test]
async fn nobody_holds_anything_in_a_directory_that_is_opened_anew() {
    let dir = home();
    let store = dir.open().await;
    let hour = Duration::from_secs(3600);
    std::mem::forget(store.names().lease("collect", hour).await.unwrap().unwrap());
    assert!(store.names().begin_slot("nightly", 100).await.unwrap());
    store.close().await.unwrap();
    drop(store);
    assert_clean(dir.path());
    let store = dir.open().await;
    assert!(is_free(&store, "collect").await);
    assert_eq!(store.names().slot("nightly").await.unwrap(), None);
}
