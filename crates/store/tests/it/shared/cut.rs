//! Connections to the database that break: every change is made once, and its answer is the right one.

use std::time::{Duration, Instant};

use deltaport_oci::{Digest, Reference};
use deltaport_store::{Error, NewManifest, Options, Store};

use super::way::{Break, Way};
use crate::common::*;

/// A store whose way to the database can be broken.
async fn over_a_way() -> (Home, Way, Store) {
    let home = Home::postgres();
    let way = Way::to(home.database().address());
    let names = postgres(&home.database().url_through(way.address));
    let store = Store::open(Options { names, ..home.options() }).await.unwrap();
    (home, way, store)
}

fn lone(number: u64, tags: &[&str]) -> NewManifest {
    let mut manifest = image(&Digest::sha256(&number.to_le_bytes()), &[], tags);
    manifest.required.clear();
    manifest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_commit_was_not_answered_is_made_once_and_answered_right() {
    let (home, way, store) = over_a_way().await;
    let (app, names) = (repository("app"), store.names());
    names.put_manifest(&app, lone(0, &["keeps"])).await.unwrap();
    for at in [Break::BeforeCommit, Break::AfterCommit, Break::DuringCommit] {
        for round in 1..4 {
            let breaks = way.breaks();
            way.breaks_at(at);
            names.put_manifest(&app, lone(round, &["v"])).await.unwrap();
            assert_eq!(way.breaks() - breaks, 1, "{at:?}");
            way.breaks_at(at);
            assert!(names.delete_tag(&app, &tag("v")).await.unwrap(), "{at:?}: it has done so");
            assert!(!names.delete_tag(&app, &tag("v")).await.unwrap(), "{at:?}");
            way.breaks_at(at);
            // Its row has a key, so a second one would be told.
            let upload = store.uploads().begin(&app, OWNER, None, 100).await.unwrap();
            assert_eq!(store.uploads().offset(&app, &upload, OWNER).await.unwrap(), 0);
        }
    }
    assert_eq!(home.sql("SELECT count(*) FROM upload"), ["9"]);
    assert_eq!(home.sql("SELECT count(*) FROM manifest"), ["4"]);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_remembered_is_served_also_when_nothing_says_that_the_database_is_away() {
    let (home, way, store) = over_a_way().await;
    let (app, names) = (repository("app"), store.names());
    let blob = push_blob(&store, &app, noise(1, 100)).await.unwrap();
    let manifest = image(&blob, &[], &["v"]);
    names.put_manifest(&app, manifest.clone()).await.unwrap();
    let v = Reference::Tag(tag("v"));
    names.manifest(&app, &v).await.unwrap().unwrap();
    names.blob(&app, &blob).await.unwrap().unwrap();
    way.breaks_at(Break::Silence);
    let begun = Instant::now();
    let (found, size) = tokio::join!(names.manifest(&app, &v), names.blob(&app, &blob));
    assert_eq!((found.unwrap().unwrap().digest, size.unwrap()), (manifest.digest, Some(100)));
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    // Later one asks whether the database is back, and is the only one who waits for it.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let asking = tokio::spawn({
        let (names, app, v) = (names.clone(), app.clone(), v.clone());
        async move { names.manifest(&app, &v).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    assert!(names.manifest(&app, &v).await.unwrap().is_some());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(!asking.is_finished(), "nobody asks");
    assert!(asking.await.unwrap().unwrap().is_some());
    // Nor does it hold up who starts.
    let names_there = postgres(&home.database().url_through(way.address));
    let other = home.other();
    let starting = Options { root: other.path().to_owned(), names: names_there, ..home.options() };
    assert!(matches!(Store::open(starting).await, Err(Error::Unavailable { .. })));
    way.breaks_at(Break::Nowhere);
    names.put_manifest(&app, lone(1, &["v"])).await.unwrap();
    assert_eq!(names.manifest(&app, &v).await.unwrap().unwrap().digest, lone(1, &[]).digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_goes_on_without_its_client_is_waited_for() {
    let (home, way, store) = over_a_way().await;
    home.sql(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(0.7); RETURN NULL; END $$",
    );
    home.sql(
        "CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON tag DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION linger()",
    );
    let (app, names) = (repository("app"), store.names());
    // The store has written something down when it was opened.
    home.sql("DELETE FROM outcome");
    way.breaks_at(Break::DuringCommit);
    names.put_manifest(&app, lone(1, &["v"])).await.unwrap();
    assert_eq!(way.breaks(), 1);
    assert_eq!(home.sql("SELECT count(*), min(made) FROM outcome"), ["1|1"], "it was not made twice");
    assert!(names.manifest(&app, &Reference::Tag(tag("v"))).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_way_breaks_nothing_is_lost_and_nothing_done_twice() {
    let (home, way, store) = over_a_way().await;
    let (app, names) = (repository("app"), store.names());
    names.put_manifest(&app, lone(0, &["keeps"])).await.unwrap();
    let mut random = 0x5eed_u64;
    for round in 1..80 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        way.breaks_at(Break::After(1 + random % 3000));
        let manifest = lone(round, &["v"]);
        // A break may meet the new connection, too; whoever is told to come again does.
        let put = loop {
            match names.put_manifest(&app, manifest.clone()).await {
                Err(Error::Unavailable { .. }) => {
                    tokio::time::sleep(std::time::Duration::from_millis(600)).await
                }
                other => break other,
            }
        };
        put.unwrap_or_else(|error| panic!("round {round}: {error}"));
        let found = loop {
            match names.manifest(&app, &Reference::Tag(tag("v"))).await {
                Err(Error::Unavailable { .. }) => {
                    tokio::time::sleep(std::time::Duration::from_millis(600)).await
                }
                other => break other.unwrap(),
            }
        };
        assert_eq!(found.unwrap().digest, manifest.digest, "round {round}");
    }
    assert!(way.breaks() > 20, "{}", way.breaks());
    way.breaks_at(Break::Nowhere);
    assert_eq!(home.sql("SELECT count(*) FROM manifest"), ["80"]);
    assert_eq!(names.tag_past(&app, &tag("v"), 100).await.unwrap().len(), 16);
    store.close().await.unwrap();
    home.assert_clean();
}
