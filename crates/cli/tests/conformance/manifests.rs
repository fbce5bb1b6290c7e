//! Pushing and pulling manifests (end-3, 7a, 7b).

use deltaport_oci::{Algorithm, media_type};
use deltaport_testkit::http::Request;
use deltaport_testkit::sample::{Content, Image, empty_config, index, manifest};
use serde_json::json;

use crate::harness::{Registry, requirements};
use crate::steps::{digest, expect_error, location};

/// A manifest of about `size` bytes.
fn large(size: usize) -> Content {
    let annotations = json!({ "annotations": { "org.example.filler": "x".repeat(size) } });
    manifest(&empty_config(), &[], annotations)
}

requirements! {
    /// By tag and by digest, in a repository that does not exist and in one that does.
    async fn a_missing_manifest_is_unknown(registry: &Registry) {
        let missing = Image::small(1).manifest;
        for _ in 0..2 {
            registry.expect_no_manifest("latest").await;
            registry.expect_no_manifest(missing.digest).await;
            registry.expect_no_manifest(missing.renamed(Algorithm::Sha512).digest).await;
            registry.push_image("other", &Image::small(2)).await;
        }
    }

    /// What is neither a tag nor a digest.
    async fn a_malformed_reference_is_refused(registry: &Registry) {
        let manifest = Image::small(1).manifest;
        let put = registry.put_manifest("sha256:baddigeststring", &manifest).await;
        expect_error(&put, 400, "DIGEST_INVALID");
        let got = registry.get("manifests/sha256:baddigeststring").await;
        assert!(matches!(got.status, 400 | 404), "{}", got.status);
        for tag in [".hidden", "-dash", &"t".repeat(129)] {
            let put = registry.put_manifest(tag, &manifest).await;
            assert!(matches!(put.status, 400 | 404), "{tag}: {}", put.status);
            let got = registry.get(format_args!("manifests/{tag}")).await;
            assert!(matches!(got.status, 400 | 404), "{tag}: {}", got.status);
        }
    }

    /// end-7a: the answer names the digest and a location where the manifest is.
    async fn a_manifest_is_pushed_and_pulled_by_tag(registry: &Registry) {
        let image = Image::small(3);
        registry.push_image("first", &image).await;
        let response = registry.put_manifest("latest", &image.manifest).await;
        assert_eq!(response.status, 201);
        assert_eq!(digest(&response), Some(image.manifest.digest));
        let there = registry.send(Request::get(&location(&response))).await;
        assert_eq!((there.status, &there.body), (200, &image.manifest.bytes));
        registry.expect_manifest("latest", &image.manifest).await;
        registry.expect_manifest(image.manifest.digest, &image.manifest).await;
    }

    /// Under the digest that the client chose, also sha512, without a tag.
    async fn a_manifest_is_pushed_and_pulled_by_digest(registry: &Registry) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let image = Image::small(4);
            let registry = registry.other(algorithm.as_str());
            for blob in image.blobs() {
                registry.push_blob(blob).await;
            }
            let manifest = image.manifest.renamed(algorithm);
            registry.push_manifest(manifest.digest, &manifest).await;
            registry.expect_manifest(manifest.digest, &manifest).await;
            assert_eq!(registry.tags().await, Vec::<String>::new());
        }
    }

    /// The bytes are kept as they came: spaces, order of fields, unknown fields, a trailing line break.
    async fn a_manifest_is_kept_byte_for_byte(registry: &Registry) {
        let config = empty_config();
        registry.push_blob(&config).await;
        let text = format!(
            "{{ \"zzz\" : [ 1.0, 1e3, \"\\u00e9\" ],\n\t\"layers\": [],\r\n  \"config\":{},\n \"schemaVersion\" : 2 }}\n",
            config.descriptor()
        );
        let manifest = Content::new(media_type::OCI_MANIFEST, text);
        registry.push_manifest("odd", &manifest).await;
        registry.expect_manifest("odd", &manifest).await;
    }

    /// The media type is served as it was pushed, whichever of the four it is, and without parameters.
    async fn the_media_type_is_kept(registry: &Registry) {
        let config = empty_config();
        registry.push_blob(&config).await;
        for media_type in media_type::MANIFEST_ACCEPT {
            let fields = if media_type::is_index(media_type) {
                json!({ "schemaVersion": 2, "manifests": [] })
            } else {
                json!({ "schemaVersion": 2, "config": config.descriptor(), "layers": [] })
            };
            let manifest = Content::new(media_type, format!("{fields}{}", " ".repeat(media_type.len())));
            let request = Request::put(&registry.path("manifests/kind")).body(manifest.bytes.clone());
            let response = registry.send(request.header("Content-Type", format!("{media_type}; charset=utf-8"))).await;
            assert_eq!(response.status, 201, "{media_type}: {}", response.text());
            registry.expect_manifest("kind", &manifest).await;
        }
    }

    /// The same bytes may be pushed again.
    async fn a_manifest_pushed_twice(registry: &Registry) {
        let image = Image::small(5);
        registry.push_image("latest", &image).await;
        registry.push_image("latest", &image).await;
        registry.expect_manifest("latest", &image.manifest).await;
    }

    /// A tag moves to what was pushed last; what it pointed to stays.
    async fn a_tag_moves(registry: &Registry) {
        let (old, new) = (Image::small(6), Image::small(7));
        registry.push_image("latest", &old).await;
        registry.push_image("latest", &new).await;
        registry.expect_manifest("latest", &new.manifest).await;
        registry.expect_manifest(old.manifest.digest, &old.manifest).await;
    }

    /// Bytes that do not have the digest they are pushed under.
    async fn a_wrong_digest_is_refused(registry: &Registry) {
        let image = Image::small(8);
        for blob in image.blobs() {
            registry.push_blob(blob).await;
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let other = Image::small(9).manifest.renamed(algorithm).digest;
            expect_error(&registry.put_manifest(other, &image.manifest).await, 400, "DIGEST_INVALID");
            registry.expect_no_manifest(other).await;
        }
        registry.expect_no_manifest(image.manifest.digest).await;
    }

    /// end-7b: tags along with a digest, all of them or none; the answer names each.
    async fn tags_are_set_along_with_a_digest(registry: &Registry) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let registry = registry.other(algorithm.as_str());
            let image = Image::small(10);
            for blob in image.blobs() {
                registry.push_blob(blob).await;
            }
            let manifest = image.manifest.renamed(algorithm);
            let tags: Vec<String> = (10..22).map(|n| format!("tag-{n}")).collect();
            let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
            let reference = format!("{}?{}", manifest.digest, query.join("&"));
            let response = registry.put_manifest(reference, &manifest).await;
            assert_eq!(response.status, 201, "{}", response.text());
            assert_eq!(digest(&response), Some(manifest.digest));
            let mut named: Vec<&str> = response.headers.all("oci-tag").flat_map(|tag| tag.split(", ")).collect();
            named.sort_unstable();
            assert_eq!(named, tags);
            assert_eq!(registry.tags().await, tags);
            for tag in ["tag-10", "tag-21"] {
                registry.expect_manifest(tag, &manifest).await;
            }
        }
    }

    /// end-7b: a tag that is none, and more tags than are taken, leave nothing behind.
    async fn wrong_or_too_many_tags_are_refused(registry: &Registry) {
        let image = Image::small(11);
        for blob in image.blobs() {
            registry.push_blob(blob).await;
        }
        let digest = image.manifest.digest;
        let wrong = registry.put_manifest(format!("{digest}?tag=good&tag=.bad"), &image.manifest).await;
        assert_eq!(wrong.status, 400, "{}", wrong.text());
        let many: Vec<String> = (0..1000).map(|n| format!("tag={n}")).collect();
        let many = registry.put_manifest(format!("{digest}?{}", many.join("&")), &image.manifest).await;
        assert_eq!(many.status, 414, "{}", many.text());
        registry.expect_no_manifest(digest).await;
        registry.expect_no_manifest("good").await;
    }

    /// Manifests of 4 MiB are taken; what is much larger is refused before it is kept.
    async fn large_manifests(registry: &Registry) {
        registry.push_blob(&empty_config()).await;
        let largest = large((4 << 20) - 500);
        assert!(largest.bytes.len() > (4 << 20) - 400 && largest.bytes.len() <= 4 << 20);
        registry.push_manifest("large", &largest).await;
        registry.expect_manifest("large", &largest).await;
        let response = registry.put_manifest("larger", &large(32 << 20)).await;
        assert_eq!(response.status, 413, "{}", response.text());
        registry.expect_no_manifest("larger").await;
    }

    /// What is no manifest, or two kinds of manifest at once (CVE-2021-41190), is not stored as one.
    async fn what_is_no_manifest_is_refused(registry: &Registry) {
        let config = empty_config();
        registry.push_blob(&config).await;
        let both = json!({ "schemaVersion": 2, "config": config.descriptor(), "layers": [], "manifests": [] });
        let lying = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "config": config.descriptor(), "layers": [] });
        let old = json!({ "schemaVersion": 1, "config": config.descriptor(), "layers": [] });
        let bad = json!({ "schemaVersion": 2, "config": { "mediaType": "a/b", "digest": "sha256:bad", "size": 2 }, "layers": [] });
        let deep = format!("{{\"schemaVersion\":2,\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        for text in [both.to_string(), lying.to_string(), old.to_string(), bad.to_string(), deep, String::new(), "[]".to_owned()] {
            let manifest = Content::new(media_type::OCI_MANIFEST, text);
            expect_error(&registry.put_manifest("bad", &manifest).await, 400, "MANIFEST_INVALID");
        }
        let good = manifest(&config, &[], json!({}));
        for media_type in ["text/plain", media_type::OCI_INDEX, ""] {
            let other = Content { media_type: media_type.to_owned(), ..good.clone() };
            let status = registry.put_manifest("bad", &other).await.status;
            assert!(matches!(status, 400 | 415), "as {media_type:?}: {status}");
        }
        registry.expect_no_manifest("bad").await;
    }

    /// A client that has the manifest is told that it is still that one.
    async fn a_manifest_that_the_client_has_is_not_sent_again(registry: &Registry) {
        let (old, new) = (Image::small(12), Image::small(13));
        registry.push_image("latest", &old).await;
        let path = registry.path("manifests/latest");
        let etag = registry.send(Request::get(&path)).await.header("etag").expect("an ETag").to_owned();
        let again = registry.send(Request::get(&path).header("If-None-Match", &etag)).await;
        assert_eq!((again.status, again.body.len()), (304, 0));
        assert_eq!(digest(&again), Some(old.manifest.digest));
        registry.push_image("latest", &new).await;
        let moved = registry.send(Request::get(&path).header("If-None-Match", &etag)).await;
        assert_eq!((moved.status, &moved.body), (200, &new.manifest.bytes));
    }

    /// Whatever the client accepts, it gets what was pushed: anything else would have another digest.
    async fn what_the_client_accepts_changes_nothing(registry: &Registry) {
        let image = Image::small(14);
        registry.push_image("one", &image).await;
        let index = index(&[&image.manifest], json!({}));
        registry.push_manifest("many", &index).await;
        for accept in ["*/*", media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST] {
            let request = Request::get(&registry.path("manifests/many")).header("Accept", accept);
            let response = registry.send(request).await;
            assert_eq!((response.status, &response.body), (200, &index.bytes), "{accept}");
        }
    }

    /// A client that means another registry (`ns`) is not answered with what has the same name here.
    async fn the_manifest_of_another_registry_is_not_found(registry: &Registry) {
        let image = Image::small(15);
        registry.push_image("latest", &image).await;
        let request = Request::get(&registry.path("manifests/latest")).query("ns", "registry.invalid");
        expect_error(&registry.send(request).await, 404, "NAME_UNKNOWN");
    }
}
