//! What may be evicted, in which order, what goes with it and what never does; and that what takes the room adds up.

use std::time::{Duration, SystemTime};

use deltaport_oci::{Digest, RepositoryName, media_type};
use deltaport_store::{Cached, LayerDelta, NewManifest, Store, usage};

use super::home;
use crate::common::*;

/// An image of `bytes` bytes from an upstream, with a configuration that all images share.
pub(crate) async fn fetched(
    store: &Store,
    app: &RepositoryName,
    seed: u64,
    bytes: usize,
    tags: &[&str],
) -> NewManifest {
    let manifest = blobs_of(store, app, seed, bytes, tags).await;
    store.names().put_fetched(app, manifest.clone()).await.unwrap();
    // Times have milliseconds, and the order is in question.
    tokio::time::sleep(Duration::from_millis(3)).await;
    manifest
}

pub(crate) async fn blobs_of(
    store: &Store,
    app: &RepositoryName,
    seed: u64,
    bytes: usize,
    tags: &[&str],
) -> NewManifest {
    let config = push_blob(store, app, noise(1, 100)).await.unwrap();
    let layer = push_blob(store, app, noise(seed, bytes)).await.unwrap();
    image(&config, &[layer], tags)
}

fn index(children: &[&NewManifest], tags: &[&str]) -> NewManifest {
    let child = |child: &&NewManifest| {
        let (digest, size) = (child.digest, child.bytes.len());
        format!(r#"{{"mediaType":"{}","digest":"{digest}","size":{size}}}"#, media_type::OCI_MANIFEST)
    };
    let children: Vec<String> = children.iter().map(child).collect();
    let json = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, children.join(","));
    new_manifest(media_type::OCI_INDEX, &json, tags)
}

async fn oldest(store: &Store) -> Vec<Cached> {
    let later = SystemTime::now() + Duration::from_secs(1);
    store.names().oldest_cached(later, None, 100).await.unwrap()
}

pub(crate) async fn order(store: &Store) -> Vec<Digest> {
    oldest(store).await.iter().map(|cached| cached.digest).collect()
}

async fn first(store: &Store, digest: &Digest) -> Cached {
    oldest(store).await.into_iter().find(|cached| cached.digest == *digest).expect("it can be evicted")
}

async fn has(store: &Store, app: &RepositoryName, digest: &Digest) -> bool {
    let reference = deltaport_oci::Reference::Digest(*digest);
    store.names().manifest(app, &reference).await.unwrap().is_some()
}

/// Looks at what takes the room, and that it adds up.
fn room(home: &Home) -> deltaport_store::Usage {
    let usage = usage(home.path(), &home.bytes(), &home.names()).unwrap();
    assert_eq!(usage.blobs, home.blob_bytes());
    assert_eq!(usage.alone + usage.shared + usage.unheld, usage.blobs);
    assert_eq!(usage.repositories.iter().map(|held| held.alone).sum::<u64>(), usage.alone);
    usage
}

#[tokio::test]
async fn the_least_recently_used_comes_first_and_a_use_of_a_part_counts_for_the_whole() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("hub.example/app"));
    let one = fetched(&store, &app, 10, 1000, &["v1"]).await;
    let child = fetched(&store, &app, 11, 1000, &[]).await;
    let root = index(&[&child], &["v2"]);
    store.names().put_fetched(&app, root.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3)).await;
    let three = fetched(&store, &app, 12, 1000, &["v3"]).await;
    assert_eq!(order(&store).await, [one.digest, root.digest, three.digest], "the child goes with its index");

    let soon = SystemTime::now() + Duration::from_millis(10);
    let uses = vec![
        (app.clone(), one.digest, soon),
        (app.clone(), child.digest, soon + Duration::from_millis(10)),
        (repository("none"), three.digest, soon),
    ];
    store.names().note_uses(uses).await.unwrap();
    assert_eq!(order(&store).await, [three.digest, one.digest, root.digest]);
    let before = store.names().oldest_cached(soon, None, 100).await.unwrap();
    assert_eq!(before.len(), 1, "and only what was not used lately");

    // In pages, too.
    let (mut pages, mut last) = (Vec::new(), None);
    while let Some(next) =
        store.names().oldest_cached(soon + Duration::from_secs(9), last, 1).await.unwrap().pop()
    {
        pages.push(next.digest);
        last = Some(next);
    }
    assert_eq!(pages, [three.digest, one.digest, root.digest]);
}

#[tokio::test]
async fn an_image_goes_with_all_that_is_its_own_and_its_bytes_go_at_once() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("hub.example/app"));
    let names = store.names();
    let alone = fetched(&store, &app, 20, 4000, &[]).await;
    let shared = fetched(&store, &app, 21, 5000, &[]).await;
    let tagged = fetched(&store, &app, 22, 6000, &["mine"]).await;
    let root = index(&[&alone, &shared, &tagged], &["v1", "v1.0"]);
    let other = index(&[&shared], &["v2"]);
    for manifest in [&root, &other] {
        names.put_fetched(&app, manifest.clone()).await.unwrap();
    }
    let delta = push_blob(&store, &app, noise(23, 700)).await.unwrap();
    let [from, to] = [&alone, &shared].map(|image| image.view.layers[0].digest);
    names.put_layer_delta(&app, &from, &to, &LayerDelta::Blob(delta)).await.unwrap();
    assert_eq!(room(&dir).cached, dir.blob_bytes());

    let before = names.cached_bytes().await.unwrap();
    let evicted = names.evict_cached(first(&store, &root.digest).await).await.unwrap().unwrap();
    assert_eq!(evicted.manifests, [root.digest, alone.digest]);
    assert_eq!(evicted.tags, 2);
    let gone = 4000 + 700 + (root.bytes.len() + alone.bytes.len()) as u64;
    assert_eq!(evicted.bytes, gone, "the layer, the delta from it, and both manifests");
    assert_eq!(names.cached_bytes().await.unwrap(), before - gone);
    assert!(has(&store, &app, &shared.digest).await && has(&store, &app, &tagged.digest).await);
    assert_eq!(room(&dir).unheld, gone);

    let collected = store.collect(SystemTime::now()).await.unwrap();
    assert_eq!(collected.bytes, gone, "no grace for what nobody pushes");
    assert_eq!(room(&dir).unheld, 0);
    for digest in [other.digest, tagged.digest] {
        names.evict_cached(first(&store, &digest).await).await.unwrap().unwrap();
    }
    store.collect(SystemTime::now()).await.unwrap();
    assert_eq!((dir.blob_bytes(), names.cached_bytes().await.unwrap()), (0, 0));
    assert!(!names.repository_exists(&app).await.unwrap());
    store.close().await.unwrap();
    drop(store);
    dir.assert_clean();
}

#[tokio::test]
async fn what_was_pushed_is_never_evicted() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("app"));
    let names = store.names();
    // Pushed, and then an upstream was found to have it too.
    let pushed = blobs_of(&store, &app, 30, 1000, &["v1"]).await;
    names.put_manifest(&app, pushed.clone()).await.unwrap();
    names.put_fetched(&app, pushed.clone()).await.unwrap();
    // Fetched, and then pushed.
    let again = fetched(&store, &app, 31, 2000, &["v2"]).await;
    names.put_manifest(&app, again.clone()).await.unwrap();
    // Pushed, and an index from upstream refers to it; so does a manifest to its layer.
    let root = index(&[&pushed], &["v3"]);
    names.put_fetched(&app, root.clone()).await.unwrap();
    assert_eq!(order(&store).await, [root.digest]);
    assert_eq!(names.cached_bytes().await.unwrap(), root.bytes.len() as u64);

    let evicted = names.evict_cached(first(&store, &root.digest).await).await.unwrap().unwrap();
    assert_eq!(evicted.manifests, [root.digest]);
    assert_eq!(order(&store).await, []);
    store.collect(SystemTime::now()).await.unwrap();
    for image in [&pushed, &again] {
        assert!(has(&store, &app, &image.digest).await);
        assert!(pull_blob(&store, &app, &image.view.layers[0].digest).await.is_some());
    }
    store.close().await.unwrap();
    drop(store);
    dir.assert_clean();
}

#[tokio::test]
async fn what_has_been_used_or_tagged_since_it_was_found_stays() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("hub.example/app"));
    let names = store.names();
    let image = fetched(&store, &app, 40, 1000, &["v1"]).await;

    let found = first(&store, &image.digest).await;
    let soon = SystemTime::now() + Duration::from_millis(10);
    names.note_uses(vec![(app.clone(), image.digest, soon)]).await.unwrap();
    assert_eq!(names.evict_cached(found).await.unwrap(), None);

    let found = first(&store, &image.digest).await;
    names.put_fetched(&app, NewManifest { tags: vec![tag("v2")], ..image.clone() }).await.unwrap();
    assert_eq!(names.evict_cached(found).await.unwrap(), None);

    let found = first(&store, &image.digest).await;
    names.put_fetched(&app, index(&[&image], &["all"])).await.unwrap();
    assert_eq!(names.evict_cached(found).await.unwrap(), None);
    assert!(has(&store, &app, &image.digest).await);
}

#[tokio::test]
async fn what_takes_the_room_adds_up() {
    let dir = home();
    let store = dir.open().await;
    let (hub, own) = (repository("hub.example/app"), repository("own"));
    fetched(&store, &hub, 60, 3000, &["v1"]).await;
    let mine = blobs_of(&store, &own, 60, 3000, &["v1"]).await;
    store.names().put_manifest(&own, mine.clone()).await.unwrap();
    fetched(&store, &hub, 61, 7000, &["v2"]).await;
    push_blob(&store, &own, noise(62, 11)).await.unwrap();
    store.names().unlink_blob(&own, &Digest::sha256(&noise(62, 11))).await.unwrap();
    let mut staging = store.blobs().stage(deltaport_oci::Algorithm::Sha256).await.unwrap();
    staging.write(noise(63, 500)).await.unwrap();
    // Bytes that are taken reach the file a moment later.
    staging.progress().wait_for(|written| *written == 500).await.unwrap();

    // Beside the open store.
    let usage = room(&dir);
    let manifest = mine.bytes.len() as u64;
    let of = |name: &str| usage.repositories.iter().find(|held| held.repository.as_str() == name).unwrap();
    assert_eq!((usage.shared, usage.unheld), (3000 + 100 + manifest, 11), "each once");
    assert_eq!((of("own").alone, of("own").shared), (0, usage.shared));
    assert_eq!((of("hub.example/app").alone, of("hub.example/app").shared), (7000 + manifest, usage.shared));
    assert_eq!(usage.cached, 7000 + manifest, "the rest was pushed, too");
    assert_eq!(usage.places.names > 0, dir.has_names());
    assert!(usage.places.uploads >= 500, "{usage:?}");
    drop(staging);
    assert!(
        !matches!(dir.names(), deltaport_store::NamesOptions::Directory)
            || deltaport_store::usage(&dir.path().join("elsewhere"), &dir.bytes(), &dir.names()).is_err()
    );
}
