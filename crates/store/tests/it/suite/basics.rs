//! Each operation once, and what it says when it cannot.

use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Algorithm, Digest, Reference, media_type};
use deltaport_store::{Error, LayerDelta, Store};

use super::home;
use crate::common::*;

#[tokio::test]
async fn a_blob_is_there_after_commit_and_nowhere_before() {
    let dir = home();
    let store = dir.open().await;
    let (here, there) = (repository("a/b"), repository("c"));
    let bytes = noise(1, 3_000_000);
    let digest = Digest::sha256(&bytes);

    let mut staging = store.blobs().stage(Algorithm::Sha256).await.unwrap();
    let mut progress = staging.progress();
    staging.write(bytes.clone()).await.unwrap();
    progress.wait_for(|written| *written == 3_000_000).await.unwrap();
    let reader = staging.reader().unwrap();
    assert_eq!(read_all(&reader).await, bytes);
    assert!(store.blobs().open(&digest).await.unwrap().is_none());

    assert_eq!(store.commit(staging, &digest, &here).await.unwrap(), 3_000_000);
    assert_eq!(pull_blob(&store, &here, &digest).await.unwrap(), bytes);
    assert_eq!(read_all(&reader).await, bytes);
    assert_eq!(store.names().blob(&there, &digest).await.unwrap(), None);
    let blob = store.blobs().open(&digest).await.unwrap().unwrap();
    assert_eq!(read_range(&blob, 262_143, 262_145).await.unwrap(), bytes[262_143..262_145]);
    let end = read_range(&blob, 2_999_999, 3_000_001).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_wrong_digest_leaves_nothing() {
    let dir = home();
    let store = dir.open().await;
    let expected = Digest::sha256(b"something else");
    let mut staging = store.blobs().stage(Algorithm::Sha256).await.unwrap();
    staging.write(noise(1, 100)).await.unwrap();
    let error = store.commit(staging, &expected, &repository("a")).await.unwrap_err();
    assert!(
        matches!(error, Error::Mismatch { expected: e, actual } if e == expected && actual == Digest::sha256(&noise(1, 100)))
    );
    store.close().await.unwrap();
    assert_eq!(std::fs::read_dir(dir.files().join("staging")).unwrap().count(), 0);
    assert!(!store_has_blobs(dir.files()));
}

fn store_has_blobs(root: &std::path::Path) -> bool {
    ["sha256", "sha512"].iter().any(|a| std::fs::read_dir(root.join("blobs").join(a)).unwrap().count() > 0)
}

#[tokio::test]
async fn the_hint_of_the_algorithm_may_be_wrong() {
    let dir = home();
    let store = dir.open().await;
    let a = repository("a");
    for (hint, real) in [(Algorithm::Sha256, Algorithm::Sha512), (Algorithm::Sha512, Algorithm::Sha256)] {
        let bytes = noise(5, 70_000);
        let digest = Digest::of(real, &bytes);
        let mut staging = store.blobs().stage(hint).await.unwrap();
        staging.write(bytes.clone()).await.unwrap();
        store.commit(staging, &digest, &a).await.unwrap();
        assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);

        let id = store.uploads().begin(&a, OWNER, Some(hint), 10).await.unwrap();
        let mut appender = store.uploads().append(&a, &id, OWNER, None).await.unwrap();
        appender.write(bytes.clone()).await.unwrap();
        appender.finish().await.unwrap();
        assert_eq!(store.uploads().finish(&a, &id, OWNER, &digest).await.unwrap(), 70_000);
    }
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let dir = home();
    let store = dir.open().await;
    let (a, empty) = (repository("a"), Digest::sha256(b""));
    let id = store.uploads().begin(&a, OWNER, None, 10).await.unwrap();
    assert_eq!(store.uploads().finish(&a, &id, OWNER, &empty).await.unwrap(), 0);
    assert_eq!(pull_blob(&store, &a, &empty).await.unwrap(), b"");
}

/// A store with one image of two layers in `app`, tagged `v1` and `latest`.
async fn with_image(home: &Home) -> (Store, Vec<Digest>, Digest) {
    let store = home.open().await;
    let app = repository("app");
    let mut blobs = Vec::new();
    for seed in 0..3 {
        blobs.push(push_blob(&store, &app, noise(seed, 1000)).await.unwrap());
    }
    let manifest = image(&blobs[0], &blobs[1..], &["v1", "latest"]);
    let digest = manifest.digest;
    store.names().put_manifest(&app, manifest).await.unwrap();
    (store, blobs, digest)
}

#[tokio::test]
async fn manifests_are_found_by_tag_and_by_digest() {
    let dir = home();
    let (store, blobs, digest) = with_image(&dir).await;
    let app = repository("app");
    let names = store.names();
    for _ in 0..2 {
        for reference in [Reference::Digest(digest), Reference::Tag(tag("v1")), Reference::Tag(tag("latest"))]
        {
            let found = names.manifest(&app, &reference).await.unwrap().unwrap();
            assert_eq!(found.bytes, image(&blobs[0], &blobs[1..], &[]).bytes);
            assert_eq!((found.digest, &*found.media_type), (digest, media_type::OCI_MANIFEST));
        }
    }
    let page = names.tags(&app, None, 1).await.unwrap().unwrap();
    assert_eq!((page.items, page.more), (vec![tag("latest")], true));
    let page = names.tags(&app, Some("latest"), 1).await.unwrap().unwrap();
    assert_eq!((page.items, page.more), (vec![tag("v1")], false));
    assert!(names.tags(&repository("none"), None, 1).await.unwrap().is_none());

    assert!(names.delete_tag(&app, &tag("v1")).await.unwrap());
    assert!(!names.delete_tag(&app, &tag("v1")).await.unwrap());
    assert!(names.manifest(&app, &Reference::Tag(tag("v1"))).await.unwrap().is_none());
    assert!(names.manifest(&app, &Reference::Digest(digest)).await.unwrap().is_some());

    assert!(names.delete_manifest(&app, &digest).await.unwrap());
    assert!(!names.delete_manifest(&app, &digest).await.unwrap());
    assert!(names.manifest(&app, &Reference::Tag(tag("latest"))).await.unwrap().is_none());
    assert!(names.manifest(&app, &Reference::Digest(digest)).await.unwrap().is_none());
    assert!(names.repository_exists(&app).await.unwrap());
    for blob in &blobs {
        assert!(names.unlink_blob(&app, blob).await.unwrap());
    }
    assert!(!names.repository_exists(&app).await.unwrap());
}

#[tokio::test]
async fn what_a_manifest_requires_must_be_there() {
    let dir = home();
    let (store, blobs, _) = with_image(&dir).await;
    let absent = Digest::sha256(b"absent");
    let app = repository("app");
    let manifest = image(&blobs[0], &[blobs[1], absent], &["v2"]);
    let digest = manifest.digest;
    let error = store.names().put_manifest(&app, manifest).await.unwrap_err();
    assert!(matches!(error, Error::Missing(missing) if missing == [absent]));
    assert!(store.names().manifest(&app, &Reference::Digest(digest)).await.unwrap().is_none());
    assert!(store.names().manifest(&app, &Reference::Tag(tag("v2"))).await.unwrap().is_none());
    // The same blobs in another repository are not in this one.
    let error =
        store.names().put_manifest(&repository("other"), image(&blobs[0], &[], &[])).await.unwrap_err();
    assert!(matches!(error, Error::Missing(missing) if missing == [blobs[0]]));
    assert!(!store.names().repository_exists(&repository("other")).await.unwrap());
}

#[tokio::test]
async fn blobs_are_linked_from_repository_to_repository() {
    let dir = home();
    let (store, blobs, _) = with_image(&dir).await;
    let (names, other) = (store.names(), repository("other/one"));
    assert!(names.link_blob(&other, &blobs[0]).await.unwrap());
    assert!(!names.link_blob(&other, &Digest::sha256(b"absent")).await.unwrap());
    assert_eq!(names.blob(&other, &blobs[0]).await.unwrap(), Some(1000));
    assert_eq!(names.repositories_with(&blobs[0], 10).await.unwrap(), [repository("app"), other.clone()]);
    let page = names.repositories(None, 1).await.unwrap();
    assert_eq!((page.items, page.more), (vec![repository("app")], true));
    let page = names.repositories(Some("app"), 1).await.unwrap();
    assert_eq!((page.items, page.more), (vec![other.clone()], false));
    assert!(names.unlink_blob(&other, &blobs[0]).await.unwrap());
    assert!(!names.unlink_blob(&other, &blobs[0]).await.unwrap());
    assert_eq!(names.blob(&other, &blobs[0]).await.unwrap(), None);
}

#[tokio::test]
async fn referrers_are_filtered_and_paged() {
    let dir = home();
    let (store, _, subject) = with_image(&dir).await;
    let (names, app) = (store.names(), repository("app"));
    let mut expected = Vec::new();
    for n in 0..6 {
        let kind = if n % 2 == 0 { "application/sbom" } else { "application/signature" };
        let json = format!(
            r#"{{"schemaVersion":2,"artifactType":"{kind}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{}","size":2}},"layers":[],"subject":{{"mediaType":"m","digest":"{subject}","size":1}},"annotations":{{"n":"{n}"}}}}"#,
            Digest::sha256(b"{}")
        );
        let manifest = new_manifest(media_type::OCI_MANIFEST, &json, &[]);
        expected.push(manifest.view.referrer(manifest.digest, manifest.bytes.len() as u64));
        names.put_manifest(&app, manifest).await.unwrap();
    }
    expected.sort_by_key(|descriptor| descriptor.digest);
    let all = names.referrers(&app, &subject, None, None, 100).await.unwrap();
    assert_eq!((&all.items, all.more), (&expected, false));
    let some = names.referrers(&app, &subject, None, Some(&expected[1].digest), 3).await.unwrap();
    assert_eq!((&some.items[..], some.more), (&expected[2..5], true));
    let sboms = names.referrers(&app, &subject, Some("application/sbom"), None, 100).await.unwrap();
    assert_eq!(sboms.items.len(), 3);
    assert!(sboms.items.iter().all(|d| d.artifact_type.as_deref() == Some("application/sbom")));
    let none = names.referrers(&repository("nowhere"), &subject, None, None, 100).await.unwrap();
    assert!(none.items.is_empty() && !none.more);
}

#[tokio::test]
async fn layers_and_deltas() {
    let dir = home();
    let (store, blobs, _) = with_image(&dir).await;
    let (names, app) = (store.names(), repository("app"));
    let newer = push_blob(&store, &app, noise(9, 1000)).await.unwrap();
    let delta = push_blob(&store, &app, noise(10, 100)).await.unwrap();
    names.put_manifest(&app, image(&blobs[0], &[newer, blobs[1]], &["v2"])).await.unwrap();
    let none = Digest::sha256(b"a layer that is not here");
    let layers = names.delta_bases(&app, &none, 10).await.unwrap();
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    assert_eq!(digests, [newer, blobs[1], blobs[2]]);
    assert_eq!(names.delta_bases(&app, &none, 1).await.unwrap().len(), 1);

    let referenced = async |blob: Digest| names.referenced(&app, &blob).await.unwrap();
    let layer = referenced(newer).await.unwrap();
    assert!(layer.layer && layer.size > 0, "{layer:?}");
    assert!(!referenced(blobs[0]).await.unwrap().layer);
    assert_eq!(referenced(delta).await, None, "here, but no manifest says so");

    assert_eq!(names.layer_delta(&app, &blobs[1], &newer).await.unwrap(), None);
    names.put_layer_delta(&app, &blobs[1], &newer, &LayerDelta::NotWorthIt).await.unwrap();
    assert_eq!(names.layer_delta(&app, &blobs[1], &newer).await.unwrap(), Some(LayerDelta::NotWorthIt));
    names.put_layer_delta(&app, &blobs[1], &newer, &LayerDelta::Blob(delta)).await.unwrap();
    assert_eq!(names.layer_delta(&app, &blobs[1], &newer).await.unwrap(), Some(LayerDelta::Blob(delta)));
    let absent = Digest::sha256(b"absent");
    let error = names.put_layer_delta(&app, &absent, &newer, &LayerDelta::NotWorthIt).await.unwrap_err();
    assert!(matches!(error, Error::Missing(missing) if missing == [absent]));
    assert!(names.unlink_blob(&app, &newer).await.unwrap());
    assert_eq!(names.layer_delta(&app, &blobs[1], &newer).await.unwrap(), None);
}

#[tokio::test]
async fn whatever_stands_in_a_manifest_is_kept() {
    let dir = home();
    let store = dir.open().await;
    let (app, subject) = (repository("app"), Digest::sha256(b"subject"));
    for (number, text) in
        ["\\u0000", "\\ud83d\\ude00", "\\u001f'\\\";--", "\\u00e9\\u0301", "%s$1?1"].iter().enumerate()
    {
        let json = format!(
            r#"{{"schemaVersion":2,"artifactType":"a/{number}{text}","config":{{"mediaType":"c{text}","digest":"{}","size":1}},"layers":[],"subject":{{"mediaType":"m{text}","digest":"{subject}","size":1}},"annotations":{{"k{text}":"v{text}"}}}}"#,
            Digest::sha256(b"config")
        );
        let view = View::parse(media_type::OCI_MANIFEST, json.as_bytes(), Limits::DEFAULT).unwrap();
        let (wanted, annotations) = (view.artifact_type.clone(), view.annotations.clone());
        let manifest = new_manifest(media_type::OCI_MANIFEST, &json, &[]);
        store.names().put_manifest(&app, manifest.clone()).await.unwrap();
        let found = store.names().referrers(&app, &subject, wanted.as_deref(), None, 10).await.unwrap();
        assert_eq!(found.items.len(), 1, "{text}");
        assert_eq!(
            (found.items[0].digest, &found.items[0].annotations),
            (manifest.digest, &annotations),
            "{text}"
        );
    }
    store.close().await.unwrap();
    drop(store);
    dir.assert_clean();
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = home();
    let (store, blobs, digest) = with_image(&dir).await;
    let second = Store::open(options(dir.path())).await;
    assert!(matches!(second, Err(Error::InUse { .. })), "two stores on one directory");
    store.close().await.unwrap();
    assert!(store.names().tags(&repository("app"), None, 1).await.is_err());
    drop(store);
    let store = dir.open().await;
    let app = repository("app");
    let found = store.names().manifest(&app, &Reference::Tag(tag("v1"))).await.unwrap().unwrap();
    assert_eq!(found.digest, digest);
    for (seed, blob) in (0..).zip(&blobs) {
        assert_eq!(pull_blob(&store, &app, blob).await.unwrap(), noise(seed, 1000));
    }
    store.ready().await.unwrap();
}
