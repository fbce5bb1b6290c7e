//! Completing and pruning.

use deltaport_oci::Reference;
use deltaport_oci::platform::Filter;
use deltaport_registry::image::{Failed, Node, Role, State, Tree};
use deltaport_registry::{Error, Kind};
use deltaport_testkit::sample::{self, Content, Image};
use deltaport_testkit::upstream::{Reply, Rule};
use serde_json::json;

use crate::site::*;

/// How many bytes a complete image has, its manifest included.
fn weight(image: &Image) -> u64 {
    image.blobs().chain([&image.manifest]).map(|content| content.bytes.len() as u64).sum()
}

#[tokio::test]
async fn one_platform_of_five_costs_a_fifth() {
    let equal = |seed| vec![Content::new(sample::LAYER_TAR, sample::bytes(seed, 300_000))];
    let sample = Sample::of(&["amd64", "arm64", "riscv64", "s390x", "ppc64le"], equal);
    let script = sample.upstream().await;
    let whole = Site::of(&script.url(), Filter::ALL).await;
    let completed = whole.registry.complete(&app(), &"v1".parse().unwrap(), &Filter::ALL).await.unwrap();
    assert!(completed.tree.is_complete() && completed.failed.is_empty(), "{completed:#?}");
    let all = script.sent();
    let images = sample.images.iter().chain([&sample.attestation]);
    assert_eq!(all, images.map(weight).sum::<u64>() + sample.index.bytes.len() as u64);

    let one = Site::of(&script.url(), filter("linux/arm64")).await;
    let wanted = filter("linux/arm64");
    let completed = one.registry.complete(&app(), &"v1".parse().unwrap(), &wanted).await.unwrap();
    assert!(completed.failed.is_empty() && !completed.tree.is_complete());
    let part = script.sent() - all;
    assert_eq!(part, weight(&sample.images[1]) + sample.index.bytes.len() as u64, "not a byte more");
    assert!(part * 100 <= all * 21, "{part} of {all}");
    one.pulls(&sample.images[1]).await.unwrap();
    assert_eq!(script.sent() - all, part, "all of it is here");
    use State::{ByPolicy, Present};
    assert_eq!(one.states().await, [ByPolicy, Present, ByPolicy, ByPolicy, ByPolicy, ByPolicy]);
    whole.close().await;
    one.close().await;
}

#[tokio::test]
async fn an_image_comes_with_its_attestation_and_goes_with_it() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let site = Site::of(&script.url(), Filter::ALL).await;
    let tag = "v1".parse().unwrap();
    site.registry.complete(&app(), &tag, &filter("*/amd64")).await.unwrap();
    use State::{Evicted, Missing, Present};
    assert_eq!(site.states().await, [Present, Missing, Present]);
    let node: Node = site.tree().await.root.children[2].clone();
    assert_eq!((node.role, node.about), (Role::Attestation, Some(*sample.child(0))));
    let pruned = site.registry.prune(&app(), &tag, &filter("linux/amd64")).await.unwrap();
    assert!(pruned.evicted.iter().all(|one| one.platform.as_ref().unwrap().to_string() == "linux/amd64"));
    let blobs = |image: &Image| image.blobs().map(|blob| blob.bytes.len() as u64).sum::<u64>();
    assert_eq!(pruned.bytes, blobs(&sample.images[0]) + blobs(&sample.attestation));
    assert_eq!(site.states().await, [Evicted, Missing, Evicted]);
    let again = site.registry.prune(&app(), &tag, &filter("linux/amd64")).await.unwrap();
    assert!(again.evicted.is_empty() && again.kept.is_empty() && again.bytes == 0);
    site.close().await;
}

#[tokio::test]
async fn a_sparse_upstream_is_told_as_it_is() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    answers(&script, "GET", &sample.child(1).to_string(), Reply::status(404));
    let lost = &sample.images[0].layers[1].digest;
    script.first(Rule::on("GET", &format!("/v2/app/blobs/{lost}")).reply(Reply::status(404)));
    let site = Site::of(&script.url(), Filter::ALL).await;
    let tag = "v1".parse().unwrap();
    for (wanted, failures) in [
        ("", vec![(*sample.child(1), "linux/arm64", false), (*lost, "linux/amd64", false)]),
        ("linux/arm64", vec![(*sample.child(1), "linux/arm64", true)]),
        ("linux/amd64", vec![(*lost, "linux/amd64", true)]),
    ] {
        let completed = site.registry.complete(&app(), &tag, &filter(wanted)).await.unwrap();
        let told = |failed: &Failed| {
            assert!(failed.absent && failed.why.contains(HOST), "{failed:?}");
            (failed.digest, failed.platform.as_ref().unwrap().to_string(), failed.asked)
        };
        let expected: Vec<_> = failures.into_iter().map(|(d, p, asked)| (d, p.to_owned(), asked)).collect();
        assert_eq!(completed.failed.iter().map(told).collect::<Vec<_>>(), expected, "{wanted:?}");
    }
    assert_eq!(site.states().await[1], State::AbsentUpstream);
    assert_eq!(site.pull("v1").await.unwrap(), sample.index.bytes);
    site.close().await;
}

#[tokio::test]
async fn a_filter_that_matches_nothing_is_refused_and_fetches_nothing() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let site = Site::of(&script.url(), Filter::ALL).await;
    let tag = "v1".parse().unwrap();
    site.pull("v1").await.unwrap();
    let (sent, wanted) = (script.sent(), filter("linux/s390x windows/*"));
    let refused = [
        site.registry.complete(&app(), &tag, &wanted).await.map(|_| ()).unwrap_err(),
        site.registry.prune(&app(), &tag, &wanted).await.map(|_| ()).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), Kind::Invalid);
        let says = "nothing for linux/s390x, windows/*; it has linux/amd64, linux/arm64";
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(script.sent(), sent);
    let image = Reference::Digest(*sample.child(0));
    site.pulls(&sample.images[0]).await.unwrap();
    let refused = site.registry.prune(&app(), &image, &filter("linux/amd64")).await.unwrap_err();
    assert!(matches!(refused, Error::NotAnIndex), "{refused}");
    let completed = site.registry.complete(&app(), &image, &wanted).await.unwrap();
    assert!(completed.tree.is_complete(), "an image that is no index is for one platform, whatever that is");
    let nowhere = "v2".parse().unwrap();
    for refused in [
        site.registry.prune(&app(), &nowhere, &wanted).await.map(|_| ()).unwrap_err(),
        site.registry.image(&app(), &nowhere).await.map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(refused, Error::ManifestUnknown(_)));
    }
    site.close().await;
}

#[tokio::test]
async fn indexes_in_indexes_are_looked_into() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let outer = sample::index(&[], json!({ "manifests": [sample.index.descriptor()] }));
    for method in ["HEAD", "GET"] {
        answers(&script, method, "outer", Reply::content(&outer));
    }
    let site = Site::of(&script.url(), filter("linux/arm64")).await;
    let tag: Reference = "outer".parse().unwrap();
    let completed = site.registry.complete(&app(), &tag, &filter("linux/arm64")).await.unwrap();
    assert!(completed.failed.is_empty());
    let states = |tree: &Tree| tree.nodes().map(|node| node.state).collect::<Vec<_>>();
    use State::{ByPolicy, Evicted, Present};
    assert_eq!(states(&completed.tree), [Present, Present, ByPolicy, Present, ByPolicy]);
    let refused = site.registry.complete(&app(), &tag, &filter("linux/s390x")).await.unwrap_err();
    assert!(refused.to_string().contains("it has linux/amd64, linux/arm64"), "{refused}");
    let refused = site.registry.prune(&app(), &tag, &filter("linux/s390x")).await.unwrap_err();
    assert!(matches!(refused, Error::NothingMatches(_)), "{refused}");
    let pruned = site.registry.prune(&app(), &tag, &filter("linux/arm64")).await.unwrap();
    assert_eq!(states(&pruned.tree), [Present, Present, ByPolicy, Evicted, ByPolicy]);
    site.close().await;
}
