//! Why children of an index are absent: how that comes and goes, and what eviction takes and leaves.

use std::time::{Duration, SystemTime};

use deltaport_oci::{Digest, Reference, RepositoryName, media_type};
use deltaport_store::{Absence, NewManifest, Store};

use super::home;
use crate::common::*;

fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3601)
}

/// An index of these manifests; what it refers to need not be here.
pub(crate) fn index(children: &[Digest], tags: &[&str]) -> NewManifest {
    let child = |digest: &Digest| {
        format!(r#"{{"mediaType":"{}","digest":"{digest}","size":1}}"#, media_type::OCI_MANIFEST)
    };
    let list: Vec<String> = children.iter().map(child).collect();
    let json = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, list.join(","));
    new_manifest(media_type::OCI_INDEX, &json, tags)
}

/// An image that only this number has, with one layer of 1000 bytes.
pub(crate) async fn image_of(
    store: &Store,
    app: &RepositoryName,
    number: u64,
    tags: &[&str],
) -> (NewManifest, Digest) {
    let config = push_blob(store, app, noise(2 * number, 100)).await.unwrap();
    let layer = push_blob(store, app, noise(2 * number + 1, 1000)).await.unwrap();
    (image(&config, &[layer], tags), layer)
}

pub(crate) async fn has(store: &Store, app: &RepositoryName, digest: &Digest) -> bool {
    store.names().manifest(app, &Reference::Digest(*digest)).await.unwrap().is_some()
}

#[tokio::test]
async fn a_reason_stands_until_the_child_arrives_or_no_index_asks_for_it() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("app"));
    let names = store.names();
    let (child, _) = image_of(&store, &app, 1, &[]).await;
    let digest = child.digest;
    let [one, two] = [index(&[digest], &["v1"]), index(&[digest, Digest::sha256(b"")], &["v2"])];
    let reason = || async { names.absence(&app, &digest).await.unwrap() };

    names.note_absence(&app, &digest, Absence::Upstream).await.unwrap();
    assert_eq!(reason().await, None, "no index refers to it");
    names.put_manifest(&app, one.clone()).await.unwrap();
    assert_eq!(reason().await, None, "nobody knows why");
    for absence in [Absence::Upstream, Absence::Evicted, Absence::Evicted, Absence::Upstream] {
        names.note_absence(&app, &digest, absence).await.unwrap();
        assert_eq!(reason().await, Some(absence), "the last one counts");
    }
    names.put_manifest(&app, one.clone()).await.unwrap();
    assert_eq!(reason().await, Some(Absence::Upstream), "the same index again changes nothing");
    assert_eq!(names.absence(&repository("other"), &digest).await.unwrap(), None);

    names.put_manifest(&app, child.clone()).await.unwrap();
    assert_eq!(reason().await, None, "it has arrived");
    names.note_absence(&app, &digest, Absence::Upstream).await.unwrap();
    assert_eq!(reason().await, None, "what is here is not absent");

    names.put_manifest(&app, two.clone()).await.unwrap();
    assert_eq!(names.indexes_with(&app, &digest, 9).await.unwrap(), [two.digest, one.digest]);
    assert_eq!(names.indexes_with(&app, &digest, 1).await.unwrap().len(), 1);
    assert_eq!(names.indexes_with(&app, &one.digest, 9).await.unwrap(), []);
    names.delete_manifest(&app, &digest).await.unwrap();
    assert_eq!(reason().await, None, "deleting is not evicting");
    names.note_absence(&app, &digest, Absence::Evicted).await.unwrap();
    names.delete_manifest(&app, &one.digest).await.unwrap();
    assert_eq!(reason().await, Some(Absence::Evicted), "the other index still lacks it");
    names.delete_manifest(&app, &two.digest).await.unwrap();
    assert_eq!(reason().await, None);
    store.close().await.unwrap();
    dir.assert_clean();
}

#[tokio::test]
async fn eviction_takes_children_and_gives_their_bytes_to_the_collector() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("app"));
    let names = store.names();
    let mut images = Vec::new();
    for number in 0..3 {
        let (image, layer) = image_of(&store, &app, number, &[]).await;
        names.put_manifest(&app, image.clone()).await.unwrap();
        images.push((image.digest, layer));
    }
    let children: Vec<Digest> = images.iter().map(|(digest, _)| *digest).collect();
    let root = index(&children, &["v1", "latest"]);
    names.put_manifest(&app, root.clone()).await.unwrap();

    let evicted = names.evict(&app, &root.digest, vec![children[0], children[1]]).await.unwrap();
    assert_eq!(evicted, children[..2]);
    for (number, (digest, layer)) in images.iter().enumerate() {
        assert_eq!(has(&store, &app, digest).await, number == 2);
        let reason = names.absence(&app, digest).await.unwrap();
        assert_eq!(reason, (number < 2).then_some(Absence::Evicted));
        assert!(names.blob(&app, layer).await.unwrap().is_some(), "not before its time");
    }
    store.collect(later()).await.unwrap();
    store.collect(later()).await.unwrap();
    for (number, (_, layer)) in images.iter().enumerate() {
        assert_eq!(names.blob(&app, layer).await.unwrap().is_some(), number == 2, "{number}");
    }
    let stored = names.manifest(&app, &Reference::Tag(tag("latest"))).await.unwrap().unwrap();
    assert_eq!((stored.digest, &stored.bytes), (root.digest, &root.bytes), "the index is what it was");

    assert_eq!(names.evict(&app, &root.digest, children.clone()).await.unwrap(), children[2..]);
    assert_eq!(names.evict(&app, &root.digest, children.clone()).await.unwrap(), []);
    assert!(has(&store, &app, &root.digest).await, "a tagged index stays without any child");
    store.close().await.unwrap();
    dir.assert_clean();
    if dir.is_embedded() {
        dir.rebuild();
        dir.assert_clean();
    }
    let store = dir.open().await;
    assert!(has(&store, &app, &root.digest).await && !has(&store, &app, &children[0]).await);
    let reason = store.names().absence(&app, &children[0]).await.unwrap();
    assert_eq!(reason, (!dir.is_embedded()).then_some(Absence::Evicted), "no name, so not in the journal");
}

#[tokio::test]
async fn what_another_tag_leads_to_is_not_evicted() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("app"));
    let names = store.names();
    let mut children = Vec::new();
    for (number, tags) in [(0, &[][..]), (1, &["alone"][..]), (2, &[]), (3, &[]), (4, &[])] {
        let (image, _) = image_of(&store, &app, number, tags).await;
        names.put_manifest(&app, image.clone()).await.unwrap();
        children.push(image.digest);
    }
    let [free, alone, shared, nested, old] = children[..] else { panic!("five children") };
    let root = index(&children, &["v1"]);
    let inner = index(&[nested], &[]);
    let outer = index(&[inner.digest], &["v2"]);
    for index in [root.clone(), index(&[shared], &["v3"]), inner, outer, index(&[old, free], &[])] {
        names.put_manifest(&app, index).await.unwrap();
    }
    let evicted = names.evict(&app, &root.digest, children.clone()).await.unwrap();
    assert_eq!(evicted, [free, old], "indexes without a tag hold nothing");
    for kept in [alone, shared, nested] {
        assert!(has(&store, &app, &kept).await);
    }
    assert!(names.manifest(&app, &Reference::Tag(tag("alone"))).await.unwrap().is_some());
    assert_eq!(names.evict(&app, &root.digest, vec![root.digest]).await.unwrap(), []);
    assert_eq!(names.evict(&repository("none"), &root.digest, children).await.unwrap(), []);
    store.close().await.unwrap();
    dir.assert_clean();
}
