//! Cancelling uploads (end-14).

use deltaport_testkit::http::Request;
use deltaport_testkit::sample::{Content, bytes};

use crate::harness::{Registry, requirements};
use crate::steps::{expect_error, location};

requirements! {
    /// A fresh upload and one with bytes in it are gone at once, for every request.
    async fn a_cancelled_upload_is_gone(registry: &Registry) {
        for sent in [0, 700] {
            let mut upload = registry.begin_upload().await;
            if sent > 0 {
                let response = registry.send(Request::patch(&upload).body(bytes(1, sent))).await;
                assert_eq!(response.status, 202);
                upload = location(&response);
            }
            let cancelled = registry.send(Request::delete(&upload)).await;
            assert_eq!((cancelled.status, cancelled.body.len()), (204, 0));
            for method in ["GET", "DELETE", "PATCH"] {
                expect_error(&registry.send(Request::new(method, &upload)).await, 404, "BLOB_UPLOAD_UNKNOWN");
            }
            let blob = Content::new("x/y", bytes(1, sent));
            let closed = registry.send(Request::put(&upload).query("digest", blob.digest)).await;
            expect_error(&closed, 404, "BLOB_UPLOAD_UNKNOWN");
        }
    }

    /// Cancelling one upload leaves the others alone.
    async fn other_uploads_go_on(registry: &Registry) {
        let (one, two) = (registry.begin_upload().await, registry.begin_upload().await);
        assert_eq!(registry.send(Request::delete(&one)).await.status, 204);
        let blob = Content::new("x/y", bytes(2, 100));
        let request = Request::put(&two).query("digest", blob.digest).body(blob.bytes.clone());
        assert_eq!(registry.send(request).await.status, 201);
        registry.expect_blob(&blob).await;
    }
}
