//! A registry whose names are in PostgreSQL: what a pull asks of it, and what is answered while it is away.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::time::Duration;

use bytes::Bytes;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_registry::tokens::AccessTokens;
use deltaport_registry::{Kind, NewManifest, Options, Registry, Trust};
use deltaport_store::{ByteStore, Faults, NamesOptions, PostgresOptions, Store};
use deltaport_testkit::postgres::{Database, Server};
use deltaport_testkit::sample::Image;
use deltaport_trust::signatures::Policy;
use deltaport_trust::tokens::{Grant, KEY_LIFE, Scopes};
use deltaport_trust::{Access, Rules};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// How many queries a pull of a manifest may cost, with everything that is done on the way.
const MOST_QUERIES: u64 = 2;

async fn open(home: &TempDir, database: &Database) -> (Registry, Store) {
    let store = Store::open(deltaport_store::Options {
        root: home.path().to_owned(),
        bytes: ByteStore::Directory,
        keep_free: 0,
        manifest_cache: 1 << 20,
        grace: Duration::from_secs(600),
        upload_expiry: Duration::from_secs(600),
        partial_expiry: Duration::from_secs(600),
        names: NamesOptions::Postgres(PostgresOptions {
            url: database.url(),
            password: None,
            tls: None,
            connections: 4,
        }),
        faults: Faults::none(),
    });
    let store = store.await.unwrap();
    let rules = Rules::new(Access::default()).unwrap();
    (Registry::new(Options::default(), store.clone(), rules), store)
}

fn app() -> RepositoryName {
    "team/app".parse().unwrap()
}

async fn push_blobs(store: &Store, image: &Image) {
    for blob in image.blobs() {
        let mut staging = store.blobs().stage(blob.digest.algorithm()).await.unwrap();
        staging.write(blob.bytes.clone()).await.unwrap();
        store.commit(staging, &blob.digest, &app()).await.unwrap();
    }
}

async fn push(
    registry: &Registry,
    image: &Image,
    reference: &str,
) -> deltaport_registry::Result<deltaport_registry::PutManifest> {
    let new = NewManifest {
        reference: reference.parse().unwrap(),
        tags: Vec::new(),
        media_type: image.manifest.media_type.clone(),
        bytes: Bytes::clone(&image.manifest.bytes),
    };
    registry.put_manifest(&app(), new).await
}

fn references(image: &Image) -> [Reference; 2] {
    ["v1".parse().unwrap(), Reference::Digest(image.manifest.digest)]
}

/// Waits until what a push sets going in the background is over.
async fn quiet(store: &Store) {
    let mut before = u64::MAX;
    while std::mem::replace(&mut before, store.names().statements()) != before {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A policy that wants a signature of everything but `team/`.
fn policy() -> Trust {
    let text = json!({
        "default": [{ "type": "reject" }],
        "transports": { "docker": { "own.example/team": [{ "type": "insecureAcceptAnything" }] } },
    })
    .to_string();
    Trust {
        policy: Policy::read(text.as_bytes(), |path| Err(format!("no {path}"))).unwrap(),
        id: Digest::sha256(text.as_bytes()),
        name: "own.example".to_owned(),
        judge_pushes: true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_of_a_manifest_asks_the_database_at_most_twice() {
    let (home, database) = (tempfile::tempdir().unwrap(), Database::new());
    let (registry, store) = open(&home, &database).await;
    let image = Image::small(1);
    push_blobs(&store, &image).await;
    push(&registry, &image, "v1").await.unwrap();
    quiet(&store).await;
    for judged in [false, true] {
        if judged {
            // Whoever asks first under a new policy has it judged, and the verdict written down.
            registry.set_trust(Some(policy()));
            for reference in references(&image) {
                registry.manifest(&app(), &reference).await.unwrap();
            }
        }
        // One that was started just now, and remembers nothing.
        let rules = Rules::new(Access::default()).unwrap();
        let started = Registry::new(Options::default(), store.clone(), rules);
        started.set_trust(judged.then(policy));
        quiet(&store).await;
        for (who, registry) in [("it", &registry), ("one that was started", &started), ("that one", &started)]
        {
            for reference in references(&image) {
                let before = store.names().statements();
                let pulled = registry.manifest(&app(), &reference).await.unwrap();
                assert_eq!(pulled.bytes, image.manifest.bytes);
                let asked = store.names().statements() - before;
                let most = if judged { MOST_QUERIES } else { 1 };
                assert!(asked <= most, "{who}, {reference}, judged {judged}: {asked}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_what_was_pulled_is_served_and_pushes_are_told_to_come_again() {
    let server = Server::start();
    let (home, database) = (tempfile::tempdir().unwrap(), server.database());
    let (registry, store) = open(&home, &database).await;
    let (image, next) = (Image::small(1), Image::small(2));
    for image in [&image, &next] {
        push_blobs(&store, image).await;
    }
    push(&registry, &image, "v1").await.unwrap();
    for reference in references(&image) {
        registry.manifest(&app(), &reference).await.unwrap();
    }
    for blob in image.blobs() {
        registry.blob(&app(), &blob.digest).await.unwrap();
    }

    server.stop();
    for reference in references(&image) {
        let pulled = registry.manifest(&app(), &reference).await.unwrap();
        assert_eq!(pulled.bytes, image.manifest.bytes);
    }
    for blob in image.blobs() {
        assert_eq!(registry.blob(&app(), &blob.digest).await.unwrap().size(), blob.bytes.len() as u64);
    }
    let kind = |error: deltaport_registry::Error| error.kind();
    assert_eq!(push(&registry, &next, "v1").await.map_err(kind).unwrap_err(), Kind::Unavailable);
    let elsewhere = "v2".parse().unwrap();
    assert_eq!(registry.manifest(&app(), &elsewhere).await.map_err(kind).unwrap_err(), Kind::Unavailable);

    server.start_again();
    let mut left = 100;
    while let Err(error) = push(&registry, &next, "v1").await {
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(left > 0, "{error}");
        left -= 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let pulled = registry.manifest(&app(), &references(&image)[0]).await.unwrap();
    assert_eq!(pulled.bytes, next.manifest.bytes, "what is remembered is believed no more");
    store.close().await.unwrap();
}

/// Has the keys that tokens are signed with be as old as keys get.
fn age_keys(store: &Store) {
    let aged = store.secrets().secret("token-keys").update(|keys| {
        let mut keys: serde_json::Value = serde_json::from_slice(&keys.unwrap()).unwrap();
        for key in keys["keys"].as_array_mut().unwrap() {
            key["since"] = json!(key["since"].as_u64().unwrap() - KEY_LIFE);
        }
        Ok::<_, std::io::Error>((Some(keys.to_string().into_bytes()), ()))
    });
    aged.unwrap();
}

/// What a token says of the key that has signed it.
fn key_of(token: &str) -> &str {
    token.split('.').next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_signs_tokens_when_every_replica_knows_it() {
    let (home, database) = (tempfile::tempdir().unwrap(), Database::new());
    let (_, store) = open(&home, &database).await;
    let grant =
        Grant { user: Some("anna".into()), scopes: Scopes::requested(["repository:a:pull"]).unwrap() };
    let opening = store.clone();
    let replicas = tokio::task::spawn_blocking(move || {
        let first = AccessTokens::open(&opening.secrets(), "hub");
        age_keys(&opening);
        // This one finds that a new key is due, and makes it; the first has not looked yet.
        [first, AccessTokens::open(&opening.secrets(), "hub")]
    });
    let replicas = replicas.await.unwrap();
    let before = replicas[0].issue(&grant).unwrap();
    let stop = CancellationToken::new();
    let honoured = |token: &str| replicas.iter().all(|replica| replica.verify(token) == Ok(grant.clone()));
    assert!(honoured(&replicas[1].issue(&grant).unwrap()), "before the first has looked");
    let rotating = replicas.clone().map(|replica| tokio::spawn(replica.rotate(stop.clone())));
    let mut left = 200;
    loop {
        let tokens = replicas.each_ref().map(|replica| replica.issue(&grant).unwrap());
        assert!(tokens.iter().all(|token| honoured(token)), "while they learn it");
        if tokens.iter().all(|token| key_of(token) != key_of(&before)) {
            break;
        }
        assert!(left > 0, "the new key never signs");
        left -= 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(honoured(&before), "what the old key has signed is good until it expires");
    stop.cancel();
    for rotating in rotating {
        rotating.await.unwrap();
    }
}
