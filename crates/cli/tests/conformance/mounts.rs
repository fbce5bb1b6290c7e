//! Mounting blobs from other repositories (end-11).

use deltaport_oci::{Algorithm, Digest};
use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::sample::{Content, bytes};

use crate::harness::{Registry, requirements};
use crate::steps::{digest, location};

fn blob(seed: u64) -> Content {
    Content::new("application/octet-stream", bytes(seed, 2000))
}

async fn mount(registry: &Registry, blob: &Digest, from: Option<&str>) -> Response {
    let request = Request::post(&registry.path("blobs/uploads/")).query("mount", blob);
    let request = match from {
        Some(from) => request.query("from", from),
        None => request,
    };
    registry.send(request).await
}

/// The answer to a mount that is not possible: an ordinary upload, which takes the blob.
async fn expect_upload_instead(registry: &Registry, response: &Response, blob: &Content) {
    assert_eq!(response.status, 202, "{}", response.text());
    registry.expect_no_blob(&blob.digest).await;
    let request = Request::put(&location(response)).query("digest", blob.digest).body(blob.bytes.clone());
    assert_eq!(registry.send(request).await.status, 201);
    registry.expect_blob(blob).await;
}

requirements! {
    /// From a repository that has it: nothing has to be sent.
    async fn a_blob_is_mounted(registry: &Registry) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let blob = blob(1).renamed(algorithm);
            let source = registry.other("source");
            source.push_blob(&blob).await;
            let response = mount(registry, &blob.digest, Some(&source.repository)).await;
            assert_eq!(response.status, 201, "{}", response.text());
            assert_eq!(digest(&response), Some(blob.digest));
            let there = registry.send(Request::get(&location(&response))).await;
            assert_eq!((there.status, &there.body), (200, &blob.bytes));
            registry.expect_blob(&blob).await;
        }
    }

    /// Without `from` the registry looks for it itself.
    async fn a_blob_is_mounted_from_anywhere(registry: &Registry) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let blob = blob(2).renamed(algorithm);
            registry.other("source").push_blob(&blob).await;
            let response = mount(registry, &blob.digest, None).await;
            assert_eq!(response.status, 201, "{}", response.text());
            registry.expect_blob(&blob).await;
        }
    }

    /// What is mounted stays when its source deletes it.
    async fn a_mounted_blob_is_independent(registry: &Registry) {
        let source = registry.other("source");
        source.push_blob(&blob(3)).await;
        assert_eq!(mount(registry, &blob(3).digest, Some(&source.repository)).await.status, 201);
        assert_eq!(source.delete(format_args!("blobs/{}", blob(3).digest)).await.status, 202);
        source.expect_no_blob(&blob(3).digest).await;
        registry.expect_blob(&blob(3)).await;
    }

    /// A blob that is nowhere becomes an upload.
    async fn what_cannot_be_mounted_is_uploaded(registry: &Registry) {
        let source = registry.other("source");
        source.push_blob(&blob(4)).await;
        let missing = mount(registry, &blob(5).digest, Some(&source.repository)).await;
        expect_upload_instead(registry, &missing, &blob(5)).await;
        let nowhere = mount(registry, &blob(6).digest, None).await;
        expect_upload_instead(registry, &nowhere, &blob(6)).await;
    }

    /// `from` names where to look: a blob that only another repository has is not mounted.
    async fn a_source_without_the_blob_gives_nothing(registry: &Registry) {
        registry.other("source").push_blob(&blob(7)).await;
        for from in [registry.other("empty").repository, "not//a//name".to_owned()] {
            let response = mount(registry, &blob(7).digest, Some(&from)).await;
            if response.status != 400 {
                assert_eq!(response.status, 202, "{}", response.text());
            }
            registry.expect_no_blob(&blob(7).digest).await;
        }
    }

    /// What is not a digest cannot be mounted.
    async fn a_malformed_digest_is_refused(registry: &Registry) {
        let request = Request::post(&registry.path("blobs/uploads/?mount=sha256:baddigeststring"));
        let response = registry.send(request).await;
        assert!(matches!(response.status, 202 | 400), "{}", response.status);
    }
}
