//! Manifests whose content is not all here. Whether they are taken is a setting; a missing subject always is.

use deltaport_oci::media_type;
use deltaport_testkit::http::Response;
use deltaport_testkit::sample::{Content, Image, artifact, bytes, empty_config, index, manifest};
use serde_json::json;

use crate::harness::{Registry, Setup, requirements};
use crate::steps::{expect_error, strings};

/// Taken as it is, or refused with the digests that are missing: by configuration.
async fn expect_by_setting(
    registry: &Registry,
    response: &Response,
    manifest: &Content,
    missing: &[&Content],
) {
    if registry.setup != Setup::Validated {
        assert_eq!(response.status, 201, "{}", response.text());
        registry.expect_manifest("sparse", manifest).await;
        registry.expect_manifest(manifest.digest, manifest).await;
        return;
    }
    assert!(matches!(response.status, 400 | 404), "{}", response.status);
    expect_error(response, response.status, "MANIFEST_BLOB_UNKNOWN");
    let mut named = Vec::new();
    for error in response.json()["errors"].as_array().expect("a list") {
        match &error["detail"] {
            list @ serde_json::Value::Array(_) => named.extend(strings(list)),
            detail if detail["digests"].is_array() => named.extend(strings(&detail["digests"])),
            detail => named.push(detail["digest"].as_str().expect("a digest").to_owned()),
        }
    }
    let mut expected: Vec<String> = missing.iter().map(|content| content.digest.to_string()).collect();
    expected.sort();
    named.sort();
    assert_eq!(named, expected);
    registry.expect_no_manifest("sparse").await;
    registry.expect_no_manifest(manifest.digest).await;
}

requirements! {
    /// An image whose second layer was never pushed.
    async fn an_image_with_a_missing_layer(registry: &Registry) {
        let image = Image::small(1);
        registry.push_blob(&image.config).await;
        registry.push_blob(&image.layers[0]).await;
        let response = registry.put_manifest("sparse", &image.manifest).await;
        expect_by_setting(registry, &response, &image.manifest, &[&image.layers[1]]).await;
        registry.expect_no_blob(&image.layers[1].digest).await;
    }

    /// An image of which nothing is here.
    async fn an_image_with_everything_missing(registry: &Registry) {
        let image = Image::small(2);
        let response = registry.put_manifest("sparse", &image.manifest).await;
        let missing: Vec<_> = image.blobs().collect();
        expect_by_setting(registry, &response, &image.manifest, &missing).await;
    }

    /// An index of which only one platform is here: what a mirror of one platform holds.
    async fn an_index_with_a_missing_child(registry: &Registry) {
        let (here, missing) = (Image::small(3), Image::small(4));
        registry.push_image("here", &here).await;
        let index = index(&[&here.manifest, &missing.manifest], json!({}));
        let response = registry.put_manifest("sparse", &index).await;
        expect_by_setting(registry, &response, &index, &[&missing.manifest]).await;
        registry.expect_no_manifest(missing.manifest.digest).await;
    }

    /// A layer that only another repository has is missing here.
    async fn content_of_another_repository_does_not_count(registry: &Registry) {
        let image = Image::small(5);
        registry.other("elsewhere").push_image("latest", &image).await;
        let response = registry.put_manifest("sparse", &image.manifest).await;
        let missing: Vec<_> = image.blobs().collect();
        expect_by_setting(registry, &response, &image.manifest, &missing).await;
    }

    /// The missing part may come later.
    async fn a_sparse_image_is_completed(registry: &Registry) {
        let image = Image::small(6);
        let _ = registry.put_manifest("sparse", &image.manifest).await;
        registry.push_image("sparse", &image).await;
        registry.expect_manifest("sparse", &image.manifest).await;
        for blob in image.blobs() {
            registry.expect_blob(blob).await;
        }
    }

    /// A subject need not be here, under any setting.
    async fn a_missing_subject_is_taken(registry: &Registry) {
        let (subject, blob) = (Image::small(7).manifest, Content::new("a/b", bytes(7, 100)));
        registry.push_blob(&empty_config()).await;
        registry.push_blob(&blob).await;
        let artifact = artifact("example/signature", Some(&subject), &blob);
        registry.push_manifest("early", &artifact).await;
        registry.expect_manifest("early", &artifact).await;
    }

    /// A layer that is kept elsewhere by design (its descriptor has URLs) need not be here, under any setting.
    async fn a_nondistributable_layer_is_not_missed(registry: &Registry) {
        registry.push_blob(&empty_config()).await;
        let layer = Content::new("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", bytes(8, 10));
        let mut descriptor = layer.descriptor();
        descriptor["urls"] = json!(["https://example.com/layer"]);
        let manifest = manifest(&empty_config(), &[], json!({ "layers": [descriptor] }));
        registry.push_manifest("foreign", &manifest).await;
        registry.expect_manifest("foreign", &manifest).await;
        assert_eq!(manifest.media_type, media_type::OCI_MANIFEST);
    }
}
