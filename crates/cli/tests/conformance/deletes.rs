//! Deleting tags, manifests and blobs (end-9, end-10). What was deleted is gone with the answer.

use deltaport_oci::Algorithm;
use deltaport_testkit::sample::{Content, Image, bytes};

use crate::harness::{Registry, requirements};
use crate::steps::expect_error;

requirements! {
    /// A tag goes, what it pointed to stays.
    async fn a_deleted_tag_leaves_its_manifest(registry: &Registry) {
        let image = Image::small(1);
        registry.push_image("one", &image).await;
        registry.push_manifest("two", &image.manifest).await;
        assert_eq!(registry.delete("manifests/one").await.status, 202);
        registry.expect_no_manifest("one").await;
        assert_eq!(registry.tags().await, ["two"]);
        registry.expect_manifest("two", &image.manifest).await;
        registry.expect_manifest(image.manifest.digest, &image.manifest).await;
    }

    /// A manifest goes with every tag on it, and with no other.
    async fn a_deleted_manifest_takes_its_tags(registry: &Registry) {
        let (image, other) = (Image::small(2), Image::small(3));
        registry.push_image("one", &image).await;
        registry.push_manifest("two", &image.manifest).await;
        registry.push_image("other", &other).await;
        assert_eq!(registry.delete(format_args!("manifests/{}", image.manifest.digest)).await.status, 202);
        for reference in ["one", "two", &image.manifest.digest.to_string()] {
            registry.expect_no_manifest(reference).await;
        }
        assert_eq!(registry.tags().await, ["other"]);
        registry.expect_manifest("other", &other.manifest).await;
    }

    /// A blob goes from its repository.
    async fn a_deleted_blob_is_gone(registry: &Registry) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let blob = Content::with(algorithm, "a/b", bytes(4, 1000));
            registry.push_blob(&blob).await;
            assert_eq!(registry.delete(format_args!("blobs/{}", blob.digest)).await.status, 202);
            registry.expect_no_blob(&blob.digest).await;
        }
    }

    /// Other repositories keep what they have.
    async fn a_delete_is_in_one_repository(registry: &Registry) {
        let (image, other) = (Image::small(5), registry.other("elsewhere"));
        for registry in [registry, &other] {
            registry.push_image("latest", &image).await;
        }
        let layer = &image.layers[0];
        assert_eq!(registry.delete(format_args!("blobs/{}", layer.digest)).await.status, 202);
        assert_eq!(registry.delete(format_args!("manifests/{}", image.manifest.digest)).await.status, 202);
        other.expect_blob(layer).await;
        other.expect_manifest("latest", &image.manifest).await;
        assert_eq!(other.tags().await, ["latest"]);
    }

    /// What is not there cannot be deleted.
    async fn deleting_the_unknown(registry: &Registry) {
        let image = Image::small(6);
        for _ in 0..2 {
            let manifest = registry.delete(format_args!("manifests/{}", image.manifest.digest)).await;
            expect_error(&manifest, 404, "MANIFEST_UNKNOWN");
            expect_error(&registry.delete("manifests/unknown").await, 404, "MANIFEST_UNKNOWN");
            let blob = registry.delete(format_args!("blobs/{}", image.config.digest)).await;
            expect_error(&blob, 404, "BLOB_UNKNOWN");
            registry.push_image("other", &Image::small(7)).await;
        }
        let bad = registry.delete("blobs/sha256:baddigeststring").await;
        expect_error(&bad, 400, "DIGEST_INVALID");
    }

    /// What was deleted can be pushed again.
    async fn what_was_deleted_comes_back(registry: &Registry) {
        let image = Image::small(8);
        for _ in 0..2 {
            registry.push_image("latest", &image).await;
            registry.expect_manifest("latest", &image.manifest).await;
            assert_eq!(registry.delete(format_args!("manifests/{}", image.manifest.digest)).await.status, 202);
            for blob in image.blobs() {
                assert_eq!(registry.delete(format_args!("blobs/{}", blob.digest)).await.status, 202);
                registry.expect_no_blob(&blob.digest).await;
            }
            registry.expect_no_manifest("latest").await;
        }
    }
}
