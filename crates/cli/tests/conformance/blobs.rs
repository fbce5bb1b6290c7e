//! Downloading blobs (end-2).

use deltaport_oci::Algorithm;
use deltaport_testkit::http::Request;
use deltaport_testkit::sample::{Content, bytes};

use crate::harness::{Registry, requirements};
use crate::steps::expect_error;

fn blob(seed: u64) -> Content {
    Content::new("application/octet-stream", bytes(seed, 5000))
}

requirements! {
    /// A blob that is nowhere, under either algorithm, in a repository that does not exist and in one that does.
    async fn a_missing_blob_is_unknown(registry: &Registry) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            registry.expect_no_blob(&blob(1).renamed(algorithm).digest).await;
        }
        registry.push_blob(&blob(2)).await;
        registry.expect_no_blob(&blob(1).digest).await;
    }

    /// GET and HEAD answer with the bytes, their length and their digest.
    async fn a_blob_is_served_as_it_was_pushed(registry: &Registry) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let blob = blob(3).renamed(algorithm);
            registry.push_blob(&blob).await;
            registry.expect_blob(&blob).await;
        }
    }

    /// A blob in one repository is not in another, although the bytes are stored.
    async fn a_blob_is_in_its_repository_only(registry: &Registry) {
        registry.push_blob(&blob(4)).await;
        registry.other("elsewhere").expect_no_blob(&blob(4).digest).await;
    }

    /// What is not a digest names no blob.
    async fn a_malformed_digest_is_refused(registry: &Registry) {
        for digest in ["sha256:baddigeststring", "md5:d41d8cd98f00b204e9800998ecf8427e", "latest"] {
            let response = registry.get(format_args!("blobs/{digest}")).await;
            expect_error(&response, 400, "DIGEST_INVALID");
        }
    }

    /// Blobs never change: a client that has one is told so.
    async fn a_blob_that_the_client_has_is_not_sent_again(registry: &Registry) {
        let blob = blob(5);
        registry.push_blob(&blob).await;
        let path = registry.path(format_args!("blobs/{}", blob.digest));
        let etag = registry.send(Request::get(&path)).await.header("etag").expect("an ETag").to_owned();
        assert!(etag.starts_with('"'), "a strong one: {etag}");
        let response = registry.send(Request::get(&path).header("If-None-Match", &etag)).await;
        assert_eq!((response.status, response.body.len()), (304, 0));
        assert_eq!(response.header("etag"), Some(etag.as_str()));
        let response = registry.send(Request::get(&path).header("If-None-Match", "\"other\"")).await;
        assert_eq!((response.status, response.body.len()), (200, 5000));
    }

    /// A client that means another registry (`ns`) is not answered with what has the same name here.
    async fn the_content_of_another_registry_is_not_found(registry: &Registry) {
        let blob = blob(6);
        registry.push_blob(&blob).await;
        let path = registry.path(format_args!("blobs/{}", blob.digest));
        let response = registry.send(Request::get(&path).query("ns", "registry.invalid")).await;
        expect_error(&response, 404, "NAME_UNKNOWN");
    }

    /// Names that the grammar does not have (specification, "Pulling manifests").
    async fn a_malformed_repository_name_is_refused(registry: &Registry) {
        for name in ["UPPER", "a//b", "a..b", "-a", "a/_b", "%2e%2e"] {
            let registry = registry.in_repository(name);
            expect_error(&registry.get(format_args!("blobs/{}", blob(1).digest)).await, 400, "NAME_INVALID");
            expect_error(&registry.get("tags/list").await, 400, "NAME_INVALID");
        }
    }
}
