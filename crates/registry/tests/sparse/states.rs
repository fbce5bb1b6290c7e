//! What a child of an index can be, and what clients get of it.

use std::time::{Duration, SystemTime};

use deltaport_oci::platform::Filter;
use deltaport_oci::{Digest, Reference};
use deltaport_registry::image::{Role, State, Tree};
use deltaport_registry::{Error, Kind};
use deltaport_testkit::sample::{Content, Image};
use deltaport_testkit::upstream::{Reply, Rule};

use crate::site::*;

#[tokio::test]
async fn every_state_of_a_child_and_the_ways_between_them() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let (amd64, arm64) = (&sample.images[0], &sample.images[1]);
    let script = sample.upstream().await;
    let url = script.url();
    let mut site = Site::of(&url, Filter::ALL).await;
    site.pull("v1").await.unwrap();
    let [tag, all] = ["v1".parse::<Reference>().unwrap(), "v1".parse().unwrap()];
    let arm = "linux/arm64";
    use State::{AbsentUpstream, ByPolicy, Evicted, Missing, Present};

    /// What happens, and the state of the child for arm64 after it.
    enum Event {
        /// Its manifest is asked for; the reason why it is not served, if it is not.
        Asked(Option<&'static str>),
        Completed,
        Pruned,
        /// The upstream has it, or not.
        Upstream(bool),
        /// The site is started with these platforms, in front of the upstream or of nothing.
        Started(&'static str, bool),
        Deleted,
        Collected,
    }
    use Event::{Asked, Collected, Completed, Deleted, Pruned, Started, Upstream};
    let events = [
        (Asked(None), Present),
        (Pruned, Evicted),
        (Collected, Evicted),
        (Asked(None), Present),
        (Deleted, Missing),
        (Completed, Present),
        (Upstream(false), Present),
        (Asked(None), Present),
        (Collected, Present),
        (Pruned, Evicted),
        (Asked(Some("absent-upstream")), AbsentUpstream),
        (Completed, AbsentUpstream),
        (Upstream(true), AbsentUpstream),
        (Asked(None), Present),
        (Pruned, Evicted),
        (Started("", false), Evicted),
        (Asked(Some("offline")), Evicted),
        (Completed, Evicted),
        (Started("linux/amd64", false), ByPolicy),
        (Asked(Some("by-policy")), ByPolicy),
        (Started("linux/amd64", true), ByPolicy),
        (Asked(Some("by-policy")), ByPolicy),
        (Completed, Present),
        (Asked(None), Present),
        (Pruned, ByPolicy),
        (Asked(Some("by-policy")), ByPolicy),
        (Started("linux/s390x", true), ByPolicy),
        (Asked(Some("by-policy")), ByPolicy),
        (Started("linux/arm64", true), Evicted),
        (Asked(None), Present),
        (Pruned, Evicted),
        (Upstream(false), Evicted),
        (Completed, AbsentUpstream),
        (Started("", false), AbsentUpstream),
        (Asked(Some("offline")), AbsentUpstream),
        (Started("", true), AbsentUpstream),
        (Upstream(true), AbsentUpstream),
        (Completed, Present),
    ];
    assert_eq!(site.states().await, [Missing, Missing, Missing], "only the index was asked for");
    for (number, (event, after)) in events.into_iter().enumerate() {
        match event {
            Asked(None) => site.pulls(arm64).await.unwrap(),
            Asked(Some(reason)) => {
                let refused = site.pull(&arm64.manifest.digest.to_string()).await.unwrap_err();
                let expected = detail(&arm64.manifest.digest, arm, reason);
                assert_eq!(told(&refused), (Kind::NotFound, "MANIFEST_UNKNOWN", expected), "{number}");
            }
            Completed => {
                site.registry.complete(&app(), &all, &filter(arm)).await.unwrap();
            }
            Pruned => {
                let pruned = site.registry.prune(&app(), &tag, &filter(arm)).await.unwrap();
                assert_eq!(pruned.evicted.len(), 1, "{number}");
                assert!(pruned.upstream && pruned.bytes > 0);
            }
            Upstream(there) => {
                let reply = if there { Reply::content(&arm64.manifest) } else { Reply::status(404) };
                answers(&script, "GET", &arm64.manifest.digest.to_string(), reply);
            }
            Started(platforms, online) => {
                site = site.now(if online { &url } else { NOWHERE }, filter(platforms));
            }
            Deleted => {
                let digest = Reference::Digest(arm64.manifest.digest);
                site.registry.delete_manifest(&app(), &digest).await.unwrap();
            }
            Collected => {
                let later = SystemTime::now() + Duration::from_secs(601);
                site.store.collect(later).await.unwrap();
                site.store.collect(later).await.unwrap();
            }
        }
        assert_eq!(site.states().await[1], after, "{number}");
        let index = site.registry.image(&app(), &tag).await.unwrap().root;
        assert_eq!((index.digest, index.role), (sample.index.digest, Role::Index));
    }
    assert_eq!(site.pull("v1").await.unwrap(), sample.index.bytes, "byte for byte");
    assert_eq!(site.states().await[0], Missing, "nobody asked for {}", amd64.manifest.digest);
    site.close().await;
}

#[tokio::test]
async fn blobs_of_a_child_are_told_about_like_the_child() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let mut site = Site::of(&script.url(), Filter::ALL).await;
    site.pull("v1").await.unwrap();
    let arm64 = &sample.images[1];
    site.pull(&arm64.manifest.digest.to_string()).await.unwrap();
    let layer = &arm64.layers[0].digest;
    for (url, platforms, reason) in [
        (NOWHERE, "", "offline"),
        (NOWHERE, "linux/amd64", "by-policy"),
        (&script.url(), "linux/amd64", "by-policy"),
    ] {
        site = site.now(url, filter(platforms));
        let expected = (Kind::NotFound, "BLOB_UNKNOWN", detail(layer, "linux/arm64", reason));
        assert_eq!(told(&site.registry.blob(&app(), layer).await.unwrap_err()), expected);
        assert_eq!(told(&site.registry.blob_size(&app(), layer).await.unwrap_err()), expected);
    }
    assert_eq!(site.tree().await.root.children[1].blobs.unwrap().present_count, 0);
    site = site.now(&script.url(), Filter::ALL);
    let path = format!("/v2/app/blobs/{layer}");
    script.first(Rule::on("GET", &path).times(1).reply(Reply::status(404)));
    let expected = (Kind::NotFound, "BLOB_UNKNOWN", detail(layer, "linux/arm64", "absent-upstream"));
    assert_eq!(told(&site.registry.blob(&app(), layer).await.unwrap_err()), expected);
    site.pulls(arm64).await.unwrap();
    site.close().await;
}

#[tokio::test]
async fn only_what_is_wanted_is_fetched_ahead() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let site = Site::of(&script.url(), Filter::ALL).await;
    site.pull("v1").await.unwrap();
    for image in [&sample.images[1], &sample.images[0]] {
        site.pull(&image.manifest.digest.to_string()).await.unwrap();
    }
    let site = site.now(&script.url(), filter("linux/amd64"));
    for image in [&sample.images[1], &sample.images[0]] {
        let digest = Reference::Digest(image.manifest.digest);
        let pulled = site.registry.manifest(&app(), &digest).await.unwrap();
        site.registry.fetch_ahead(&app(), &pulled.manifest);
    }
    let present = |tree: Tree, child: usize| tree.root.children[child].blobs.unwrap().present_count;
    while present(site.tree().await, 0) < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(present(site.tree().await, 1), 0);
    let asked = script.lines();
    let unwanted = |blob: &Content| asked.iter().any(|line| line.ends_with(&blob.digest.to_string()));
    assert!(!sample.images[1].blobs().any(unwanted), "{asked:#?}");
    site.close().await;
}

#[tokio::test]
async fn what_an_image_without_an_index_needs_is_not_judged_by_platform() {
    let sample = Sample::new(&["amd64", "arm64"]);
    let script = sample.upstream().await;
    let site = Site::of(&script.url(), filter("linux/amd64")).await;
    let other = Image::of("s390x", vec![sample.images[1].layers[0].clone()]);
    has(&script, &other);
    // No index here names it.
    site.pulls(&sample.images[1]).await.unwrap();
    site.pull("v1").await.unwrap();
    site.pulls(&other).await.unwrap();
    let refused = site.pull(&Digest::sha256(b"nothing").to_string()).await.unwrap_err();
    assert!(matches!(refused, Error::Upstream { .. }), "the script says nothing about it: {refused}");
    site.close().await;
}
