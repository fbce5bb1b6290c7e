//! Indexes that are pushed.

use deltaport_oci::platform::Filter;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_registry::image::State;
use deltaport_registry::{Error, NewManifest, Options, Registry, Validate};
use deltaport_testkit::sample::{Content, Image};
use deltaport_trust::{Access, Rules};

use crate::site::*;

/// Pushes what `validate` lets pass; whether it did.
async fn push(site: &Site, name: &str, content: &Content, tag: &str) -> bool {
    let manifest = NewManifest {
        reference: tag.parse().unwrap(),
        tags: Vec::new(),
        media_type: content.media_type.clone(),
        bytes: content.bytes.clone(),
    };
    match site.registry.put_manifest(&name.parse().unwrap(), manifest).await {
        Ok(put) => put.digest == content.digest,
        Err(Error::MissingReferences(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn push_image(site: &Site, name: &str, image: &Image) {
    for blob in image.blobs() {
        let mut staging = site.store.blobs().stage(blob.digest.algorithm()).await.unwrap();
        staging.write(blob.bytes.clone()).await.unwrap();
        site.store.commit(staging, &blob.digest, &name.parse().unwrap()).await.unwrap();
    }
    assert!(push(site, name, &image.manifest, &image.manifest.digest.to_string()).await);
}

#[tokio::test]
async fn what_is_pushed_is_pruned_on_purpose_only_and_comes_back_by_pushing() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let site = Site::own(Validate::None).await;
    push_image(&site, "own", &sample.images[0]).await;
    assert!(push(&site, "own", &sample.index, "v1").await);
    let (own, tag): (RepositoryName, Reference) = ("own".parse().unwrap(), "v1".parse().unwrap());
    let states = || async {
        let tree = site.registry.image(&own, &tag).await.unwrap();
        tree.root.children.iter().map(|child| child.state).collect::<Vec<_>>()
    };
    let reason = |digest: Digest| {
        let (registry, own) = (site.registry.clone(), own.clone());
        async move {
            let refused = registry.manifest(&own, &Reference::Digest(digest)).await.unwrap_err();
            told(&refused).2
        }
    };
    use State::{Evicted, Missing, Present};
    assert_eq!(states().await, [Present, Missing, Missing]);
    assert_eq!(reason(*sample.child(1)).await, detail(sample.child(1), "linux/arm64", "missing"));
    let attestation = sample.attestation.manifest.digest;
    let about = detail(&attestation, "linux/amd64", "missing");
    assert_eq!(reason(attestation).await, about, "it is for the platform of its image");
    let completed = site.registry.complete(&own, &tag, &Filter::ALL).await.unwrap();
    assert_eq!(completed.failed.len(), 2);
    assert!(completed.failed.iter().all(|failed| !failed.absent && failed.why.contains("push it")));

    let pruned = site.registry.prune(&own, &tag, &filter("linux/amd64")).await.unwrap();
    assert!(!pruned.upstream && pruned.evicted.len() == 1);
    assert_eq!(states().await, [Evicted, Missing, Missing], "and the tag stays with none");
    assert_eq!(reason(*sample.child(0)).await, detail(sample.child(0), "linux/amd64", "evicted"));
    push_image(&site, "own", &sample.images[0]).await;
    assert_eq!(states().await, [Present, Missing, Missing]);
    site.close().await;
}

#[tokio::test]
async fn what_must_be_there_is_said_per_repository() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path()).await;
    let patterns = |text: &str| vec![text.parse().unwrap()];
    let options = Options {
        validate: Validate::None,
        validate_in: vec![
            (patterns("strict/loose"), Validate::None),
            (patterns("strict/**"), Validate::All),
            (patterns("arm/*"), Validate::Platforms(filter("*/arm64"))),
        ],
        ..Options::default()
    };
    let registry = Registry::new(options, store.clone(), Rules::new(Access::default()).unwrap());
    let site = Site { registry, store, home };
    for (repository, with_amd64, with_arm64, with_all) in [
        ("any", true, true, true),
        ("strict/a", false, false, true),
        ("strict/a/b", false, false, true),
        ("strict/loose", true, true, true),
        ("arm/a", false, true, true),
    ] {
        for (name, images, expected) in [
            ("amd64", &[&sample.images[0]][..], with_amd64),
            ("arm64", &[&sample.images[1]], with_arm64),
            ("all", &[&sample.images[0], &sample.images[1], &sample.attestation], with_all),
        ] {
            // Each in a repository of its own that the pattern means, with nothing of the others.
            for image in images {
                push_image(&site, repository, image).await;
            }
            assert_eq!(push(&site, repository, &sample.index, "v1").await, expected, "{repository} {name}");
            for image in images {
                let digest = Reference::Digest(image.manifest.digest);
                site.registry.delete_manifest(&repository.parse().unwrap(), &digest).await.unwrap();
            }
        }
    }
    site.close().await;
}
