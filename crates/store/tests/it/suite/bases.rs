//! Which layers a delta may start from, and in which order they are offered.

use deltaport_oci::{Digest, RepositoryName};
use deltaport_store::Store;

use super::home;
use crate::common::*;

/// Pushes an image with these layers, all of them here, and returns their digests.
async fn push(store: &Store, repository: &RepositoryName, layers: &[u64], tags: &[&str]) -> Vec<Digest> {
    let config = push_blob(store, repository, noise(layers.iter().sum::<u64>() + 1000, 50)).await.unwrap();
    let mut digests = Vec::new();
    for layer in layers {
        digests.push(push_blob(store, repository, noise(*layer, 500)).await.unwrap());
    }
    store.names().put_manifest(repository, image(&config, &digests, tags)).await.unwrap();
    digests
}

async fn bases(store: &Store, repository: &RepositoryName, target: &Digest) -> Vec<Digest> {
    let layers = store.names().delta_bases(repository, target, 100).await.unwrap();
    layers.into_iter().map(|layer| layer.digest).collect()
}

#[tokio::test]
async fn what_the_tag_pointed_at_before_comes_first() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("app"));
    let one = push(&store, &app, &[1, 2], &["stable"]).await;
    let other = push(&store, &app, &[3, 4], &["edge"]).await;
    let two = push(&store, &app, &[1, 5], &["stable"]).await;
    let three = push(&store, &app, &[1, 6], &["stable"]).await;
    push(&store, &app, &[7], &["edge"]).await;
    // The last image of the tag, then the one before it, then what was stored last.
    let found = bases(&store, &app, &three[1]).await;
    assert_eq!(found[..3], [two[0], two[1], one[1]], "{found:?}");
    assert!(found.contains(&other[0]) && !found.contains(&three[1]));
    let distinct: std::collections::HashSet<_> = found.iter().collect();
    assert_eq!(distinct.len(), found.len());
}

#[tokio::test]
async fn images_on_the_same_layers_are_kin() {
    let dir = home();
    let (store, app, tool, alien) =
        (dir.open().await, repository("app"), repository("tool"), repository("alien"));
    let mine = push(&store, &app, &[1, 2], &["v"]).await;
    let kin = push(&store, &tool, &[1, 3], &["v"]).await;
    push(&store, &alien, &[4, 5], &["v"]).await;
    let found = store.names().kin_layers(&app, &mine[1], 100).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|(name, layer)| (name, layer.digest)).collect();
    assert_eq!(found, [(tool, kin[1])], "what both have is no base for the rest");
    assert_eq!(store.names().images_with(&app, &mine[1], 10).await.unwrap().len(), 1);
    assert_eq!(store.names().images_with(&app, &kin[1], 10).await.unwrap(), []);
}
