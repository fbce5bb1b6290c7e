//! The database is away: what is remembered is served, changes fail and leave nothing half-done, and when it is back
//! everything goes on by itself.

use std::time::{Duration, Instant};

use deltaport_oci::{Digest, Reference};
use deltaport_store::{Error, NewManifest, Store};
use deltaport_testkit::postgres;

use crate::common::*;

fn lone(number: u64, tags: &[&str]) -> NewManifest {
    let mut manifest = image(&Digest::sha256(&number.to_le_bytes()), &[], tags);
    manifest.required.clear();
    manifest
}

fn is_away<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Unavailable { .. }))
}

/// Waits until the store changes names again.
async fn until_it_is_back(store: &Store) {
    let begun = Instant::now();
    while let Err(error) = store.names().put_manifest(&repository("app"), lone(99, &["back"])).await {
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_remembered_is_served_and_changes_come_again() {
    let server = postgres::Server::start();
    let home = Home::over(server.database());
    let store = home.open().await;
    let (app, names) = (repository("app"), store.names());
    let blob = push_blob(&store, &app, noise(1, 1000)).await.unwrap();
    let pulled = image(&blob, &[], &["v"]);
    names.put_manifest(&app, pulled.clone()).await.unwrap();
    names.put_manifest(&app, lone(2, &["w"])).await.unwrap();
    let (v, w) = (Reference::Tag(tag("v")), Reference::Tag(tag("w")));
    names.manifest(&app, &v).await.unwrap().unwrap();
    assert_eq!(pull_blob(&store, &app, &blob).await.unwrap(), noise(1, 1000));

    for _ in 0..2 {
        server.stop();
        let begun = Instant::now();
        for reference in [&v, &Reference::Digest(pulled.digest)] {
            let found = names.manifest(&app, reference).await.unwrap().unwrap();
            assert_eq!(found.bytes, pulled.bytes);
        }
        assert_eq!(pull_blob(&store, &app, &blob).await.unwrap(), noise(1, 1000));
        assert!(is_away(names.manifest(&app, &w).await), "nobody has pulled it here");
        assert!(is_away(names.tags(&app, None, 10).await));
        assert!(is_away(names.put_manifest(&app, lone(3, &["v"])).await));
        assert!(is_away(names.delete_tag(&app, &tag("v")).await));
        assert!(is_away(push_blob(&store, &app, noise(2, 1000)).await));
        assert!(is_away(store.uploads().begin(&app, OWNER, None, 10).await));
        store.ready().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for long: {:?}", begun.elapsed());

        server.start_again();
        until_it_is_back(&store).await;
        assert_eq!(names.manifest(&app, &v).await.unwrap().unwrap().digest, pulled.digest, "not deleted");
        assert!(names.manifest(&app, &Reference::Digest(lone(3, &[]).digest)).await.unwrap().is_none());
        assert_eq!(names.blob(&app, &Digest::sha256(&noise(2, 1000))).await.unwrap(), None);
    }
    store.close().await.unwrap();
    // What a push has left without a row is known to the marker.
    home.open().await.close().await.unwrap();
    home.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_must_not_be_written_to_is_as_good_as_away() {
    let home = Home::postgres();
    let store = home.open().await;
    let app = repository("app");
    store.names().put_manifest(&app, lone(0, &["v"])).await.unwrap();
    // As after a failover, on the standby or before it has been promoted.
    let name = home.database().name();
    home.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    home.database().disconnect_everybody();
    let begun = Instant::now();
    assert!(is_away(store.names().put_manifest(&app, lone(1, &["v"])).await));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let found = store.names().manifest(&app, &Reference::Tag(tag("v"))).await.unwrap().unwrap();
    assert_eq!(found.digest, lone(0, &[]).digest, "it can be read");
    home.sql(&format!("BEGIN READ WRITE; ALTER DATABASE {name} RESET default_transaction_read_only; COMMIT"));
    home.database().disconnect_everybody();
    until_it_is_back(&store).await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_go_on_while_changes_wait() {
    let home = Home::postgres();
    let store = home.open().await;
    let app = repository("app");
    store.names().put_manifest(&app, lone(0, &["v"])).await.unwrap();
    let holding = std::thread::scope(|scope| {
        // As a backup or an index that is being made might.
        let hold = scope.spawn(|| {
            home.sql("BEGIN; LOCK TABLE tag IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(2); COMMIT");
        });
        std::thread::sleep(Duration::from_millis(500));
        let pushes: Vec<_> = (1..30)
            .map(|number| {
                let (store, app) = (store.clone(), app.clone());
                tokio::spawn(async move { store.names().put_manifest(&app, lone(number, &["v"])).await })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        assert!(!hold.is_finished());
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let begun = Instant::now();
                for _ in 0..20 {
                    let v = Reference::Tag(tag("v"));
                    assert!(store.names().manifest(&app, &v).await.unwrap().is_some());
                }
                assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
            });
        });
        assert!(!hold.is_finished(), "nobody has waited for the lock");
        pushes
    });
    for pushed in holding {
        pushed.await.unwrap().unwrap();
    }
    store.close().await.unwrap();
    home.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_is_restarted_under_load_loses_nothing_that_was_acknowledged() {
    let server = postgres::Server::start();
    let home = Home::over(server.database());
    let store = home.open().await;
    let app = repository("app");
    let pushing = (0..4_u64).map(|worker| {
        let (store, app) = (store.clone(), app.clone());
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0..60 {
                let manifest = lone(worker * 1000 + number, &[&format!("w{worker}")]);
                match store.names().put_manifest(&app, manifest.clone()).await {
                    Ok(()) => acknowledged.push(manifest.digest),
                    Err(Error::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                    Err(error) => panic!("{error}"),
                }
            }
            acknowledged
        })
    });
    let pushing: Vec<_> = pushing.collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::block_in_place(|| {
            server.stop();
            server.start_again();
        });
    }
    let mut count = 0;
    for (worker, pushed) in pushing.into_iter().enumerate() {
        let acknowledged = pushed.await.unwrap();
        count += acknowledged.len();
        for digest in &acknowledged {
            let found = store.names().manifest(&app, &Reference::Digest(*digest)).await.unwrap();
            assert!(found.is_some(), "{digest}");
        }
        let tagged = Reference::Tag(tag(&format!("w{worker}")));
        let tagged = store.names().manifest(&app, &tagged).await.unwrap().map(|manifest| manifest.digest);
        assert_eq!(tagged, acknowledged.last().copied(), "what was last acknowledged");
    }
    assert!(count > 100, "{count}");
    assert_eq!(home.sql("SELECT count(*) FROM manifest"), [count.to_string()], "and nothing else is there");
    store.close().await.unwrap();
    home.open().await.close().await.unwrap();
    home.assert_clean();
}
