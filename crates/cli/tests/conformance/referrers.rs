//! What refers to a manifest (end-12a, 12b).

use deltaport_oci::Algorithm;
use deltaport_testkit::http::Request;
use deltaport_testkit::sample::{Content, Image, artifact, bytes, empty_config, index, manifest};
use serde_json::{Value, json};

use crate::harness::{Registry, requirements};
use crate::steps::{expect_error, next_page};

fn blob() -> Content {
    Content::new("example/blob", bytes(1, 100))
}

/// Pushes a manifest that refers to `subject`; the answer has to recognise it.
async fn push_referrer(registry: &Registry, referrer: &Content, subject: &Content) {
    let response = registry.put_manifest(referrer.digest, referrer).await;
    assert_eq!(response.status, 201, "{}", response.text());
    assert_eq!(response.header("oci-subject"), Some(subject.digest.to_string().as_str()));
}

/// Pushes what artifacts consist of.
async fn push_parts(registry: &Registry) {
    registry.push_blob(&empty_config()).await;
    registry.push_blob(&blob()).await;
}

fn digests(list: &[Value]) -> Vec<String> {
    let mut digests: Vec<_> =
        list.iter().map(|one| one["digest"].as_str().expect("text").to_owned()).collect();
    digests.sort();
    digests
}

requirements! {
    /// Never 404: not for a repository that does not exist, nor for a manifest that does not.
    async fn nothing_refers_to_the_unknown(registry: &Registry) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let subject = Image::small(1).manifest.renamed(algorithm);
            assert!(registry.referrers(&subject.digest, "").await.1.is_empty());
        }
        registry.push_image("latest", &Image::small(1)).await;
        assert!(registry.referrers(&Image::small(1).manifest.digest, "").await.1.is_empty());
        assert!(registry.referrers(&Image::small(2).manifest.digest, "").await.1.is_empty());
    }

    /// What is not a digest has no referrers.
    async fn a_malformed_digest_is_refused(registry: &Registry) {
        for digest in ["sha256:baddigeststring", "latest"] {
            expect_error(&registry.get(format_args!("referrers/{digest}")).await, 400, "DIGEST_INVALID");
        }
    }

    /// Artifacts and indexes, each with its kind, size and annotations.
    async fn referrers_are_described(registry: &Registry) {
        let image = Image::small(3);
        registry.push_image("latest", &image).await;
        push_parts(registry).await;
        let subject = &image.manifest;
        let signature = artifact("example/signature", Some(subject), &blob());
        let about = json!({ "subject": subject.descriptor(), "artifactType": "example/sbom", "annotations": { "a": "b" } });
        let children = index(&[subject], about);
        for referrer in [&signature, &children] {
            push_referrer(registry, referrer, subject).await;
        }
        let (_, list) = registry.referrers(&subject.digest, "").await;
        assert_eq!(list.len(), 2);
        for (referrer, kind, key, value) in [
            (&signature, "example/signature", "org.example.kind", "example/signature"),
            (&children, "example/sbom", "a", "b"),
        ] {
            let digest = referrer.digest.to_string();
            let descriptor = list.iter().find(|one| one["digest"] == digest.as_str()).expect("it is listed");
            assert_eq!(descriptor["mediaType"], referrer.media_type.as_str());
            assert_eq!(descriptor["size"], referrer.bytes.len());
            assert_eq!(descriptor["artifactType"], kind);
            assert_eq!(descriptor["annotations"][key], value);
        }
    }

    /// An image manifest without `artifactType` is of the kind of its configuration.
    async fn the_kind_may_come_from_the_configuration(registry: &Registry) {
        let subject = Image::small(4).manifest;
        let config = Content::new("application/vnd.example.config.v1+json", "{}");
        registry.push_blob(&config).await;
        let referrer = manifest(&config, &[], json!({ "subject": subject.descriptor() }));
        push_referrer(registry, &referrer, &subject).await;
        let (_, list) = registry.referrers(&subject.digest, "").await;
        assert_eq!(list[0]["artifactType"], config.media_type.as_str());
    }

    /// end-12b: those of one kind; the answer says that it was filtered.
    async fn referrers_are_filtered(registry: &Registry) {
        let subject = Image::small(5).manifest;
        push_parts(registry).await;
        let one = artifact("example/one", Some(&subject), &blob());
        let other = Content::new("example/blob", bytes(2, 100));
        registry.push_blob(&other).await;
        let same = artifact("example/one", Some(&subject), &other);
        let two = artifact("example/two+json", Some(&subject), &blob());
        for referrer in [&one, &same, &two] {
            push_referrer(registry, referrer, &subject).await;
        }
        let mut ones = vec![one.digest.to_string(), same.digest.to_string()];
        ones.sort();
        for (kind, expected) in [
            ("example/one", ones.clone()),
            ("example%2Fone", ones),
            ("example/two%2Bjson", vec![two.digest.to_string()]),
            ("example/three", vec![]),
        ] {
            let (response, list) = registry.referrers(&subject.digest, &format!("?artifactType={kind}")).await;
            assert_eq!(response.header("oci-filters-applied"), Some("artifactType"), "{kind}");
            assert_eq!(digests(&list), expected, "{kind}");
        }
        let (response, list) = registry.referrers(&subject.digest, "").await;
        assert_eq!((response.header("oci-filters-applied"), list.len()), (None, 3));
    }

    /// Page after page, by the links; a filter holds on every page.
    async fn referrers_come_in_pages(registry: &Registry) {
        let subject = Image::small(6).manifest;
        push_parts(registry).await;
        let mut expected = Vec::new();
        for n in 0..5 {
            let more = json!({ "subject": subject.descriptor(), "artifactType": "example/page", "annotations": { "n": n.to_string() } });
            let referrer = manifest(&empty_config(), &[blob()], more);
            push_referrer(registry, &referrer, &subject).await;
            expected.push(referrer.digest.to_string());
        }
        expected.sort();
        for query in ["?n=2", "?n=2&artifactType=example/page"] {
            let mut target = Some(registry.path(format_args!("referrers/{}{query}", subject.digest)));
            let mut all = Vec::new();
            while let Some(current) = target {
                let response = registry.send(Request::get(&current)).await;
                assert_eq!(response.status, 200, "{}", response.text());
                let list = response.json()["manifests"].as_array().expect("a list").clone();
                assert!(list.len() <= 2);
                if query.contains("artifactType") {
                    assert_eq!(response.header("oci-filters-applied"), Some("artifactType"));
                }
                all.extend(list);
                target = next_page(&response);
            }
            assert_eq!(digests(&all), expected, "{query}");
        }
    }

    /// A list that would be larger than a manifest may be comes in pages without being asked to.
    async fn a_very_long_list_comes_in_pages(registry: &Registry) {
        let subject = Image::small(7).manifest;
        push_parts(registry).await;
        let mut expected = Vec::new();
        for n in 0..5 {
            let filler = "x".repeat(1 << 20);
            let more = json!({ "subject": subject.descriptor(), "artifactType": "example/large", "annotations": { "n": n.to_string(), "filler": filler } });
            let referrer = manifest(&empty_config(), &[], more);
            push_referrer(registry, &referrer, &subject).await;
            expected.push(referrer.digest.to_string());
        }
        expected.sort();
        let mut target = Some(registry.path(format_args!("referrers/{}", subject.digest)));
        let mut all = Vec::new();
        while let Some(current) = target {
            let response = registry.send(Request::get(&current)).await;
            assert!(response.body.len() <= (4 << 20) + 4096, "{}", response.body.len());
            all.extend(response.json()["manifests"].as_array().expect("a list").clone());
            target = next_page(&response);
        }
        assert_eq!(digests(&all), expected);
    }

    /// Deleted at once.
    async fn a_deleted_referrer_is_not_listed(registry: &Registry) {
        let subject = Image::small(8).manifest;
        push_parts(registry).await;
        let referrer = artifact("example/gone", Some(&subject), &blob());
        push_referrer(registry, &referrer, &subject).await;
        assert_eq!(registry.referrers(&subject.digest, "").await.1.len(), 1);
        assert_eq!(registry.delete(format_args!("manifests/{}", referrer.digest)).await.status, 202);
        assert!(registry.referrers(&subject.digest, "").await.1.is_empty());
    }

    /// A subject that is named by sha512 is another subject than the same bytes by sha256.
    async fn a_subject_is_what_it_is_named(registry: &Registry) {
        let subject = Image::small(9).manifest.renamed(Algorithm::Sha512);
        push_parts(registry).await;
        let referrer = artifact("example/long", Some(&subject), &blob());
        push_referrer(registry, &referrer, &subject).await;
        assert_eq!(registry.referrers(&subject.digest, "").await.1.len(), 1);
        assert!(registry.referrers(&Image::small(9).manifest.digest, "").await.1.is_empty());
    }
}
