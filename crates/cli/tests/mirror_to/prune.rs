//! Removing what a rule does not want any more, and never more than it may.

use deltaport_testkit::http::Request;
use deltaport_testkit::process::Server;
use deltaport_testkit::sample::Image;
use serde_json::{Value, json};

use crate::harness::*;

fn removals(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = report["removals"].as_array().cloned().unwrap_or_default();
    all.iter().map(|removal| (text(&removal["place"]), text(&removal["tag"]))).collect()
}

async fn here(site: &Server) -> Vec<String> {
    let list = site.client().send(Request::get(&format!("/v2/{HUB}/app/tags/list"))).await;
    serde_json::from_value(list.json()["tags"].clone()).unwrap()
}

async fn remove(party: &Party, repository: &str, tag: &str) {
    let request = Request::delete(&format!("/v2/{repository}/manifests/{tag}"));
    assert_eq!(party.server.client().send(request).await.status, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_upstream_has_no_more_is_removed_here_and_there_and_what_others_put_there_stays() {
    let (hub, lan) = (Party::start("").await, Party::start("").await);
    let release = Release::new(1, 20_000);
    hub.release("app", "1.0", &release).await;
    for (seed, tag) in [(2, "1.1"), (3, "1.2"), (4, "1.3")] {
        hub.image("app", tag, &Image::small(seed)).await;
    }
    let site = site(&hub, &lan, "tags = [\"1.*\"]\nprune = true\nprune_cap = \"50%\"").await;
    let (status, run) = report(&site, "run", "all");
    assert_eq!(status, Some(0), "{run:#}");
    assert!(removals(&run).is_empty());
    // Somebody else's, and one of ours that somebody else has moved.
    let theirs = Image::small(50);
    lan.image("team/app", "1.9-theirs", &theirs).await;
    lan.image("team/app", "1.1", &theirs).await;
    for tag in ["1.0", "1.1"] {
        remove(&hub, "app", tag).await;
    }

    let (status, plan) = report(&site, "plan", "all");
    assert_eq!(status, Some(0), "{plan:#}");
    let pair = |place: &str, tag: &str| (place.to_owned(), tag.to_owned());
    let (at_site, at_lan, signature) =
        (format!("{HUB}/app"), format!("{LAN}/team/app"), release.signature_tag());
    let expected = [
        pair(&at_site, "1.0"),
        pair(&at_site, "1.1"),
        pair(&at_site, &signature),
        pair(&at_lan, "1.0"),
        pair(&at_lan, &signature),
    ];
    assert_eq!(removals(&plan), expected, "{plan:#}");
    assert_eq!(here(&site).await, ["1.0", "1.1", "1.2", "1.3", &signature], "to plan changes nothing");
    let (status, run) = report(&site, "run", "all");
    assert_eq!((status, removals(&run)), (Some(0), expected.to_vec()), "{run:#}");
    assert_eq!(here(&site).await, ["1.2", "1.3"]);
    assert_eq!(lan.tags("team/app").await, ["1.1", "1.2", "1.3", "1.9-theirs"]);
    assert_eq!(lan.get("team/app", "1.1").await.unwrap(), theirs.manifest.bytes);
    // The image went with its tag; nobody is asked whether it is there.
    let show = format!("{}/{HUB}/app@{}", site.address(), release.index.digest);
    assert!(!site.launch().run(&["image", "show", &show]).0.success());
    let (_, run) = report(&site, "run", "all");
    assert!(removals(&run).is_empty(), "{run:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_removed_when_it_is_more_than_the_cap() {
    let (hub, lan) = (Party::start("").await, Party::start("").await);
    for seed in 1..=4 {
        hub.image("app", &format!("v{seed}"), &Image::small(seed)).await;
    }
    let rule = "tags = [\"v*\"]\nprune = true\nprune_cap = \"1\"";
    let mut site = site(&hub, &lan, rule).await;
    assert_eq!(mirror(&site, "run", &[]).0, Some(0));
    for tag in ["v1", "v2"] {
        remove(&hub, "app", tag).await;
    }
    let (status, text) = mirror(&site, "run", &[]);
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains("2 of 4 tags") && text.contains("a run may remove 1: nothing is removed"),
        "{text}"
    );
    assert!(text.contains("to remove: v1"), "{text}");
    assert_eq!((here(&site).await.len(), lan.tags("team/app").await.len()), (4, 4));

    // An upstream that does not answer removes nothing either, and what was brought is remembered.
    site.kill();
    site.start_again().await;
    hub.image("app", "v2", &Image::small(2)).await;
    let (status, run) = report(&site, "run", "all");
    assert_eq!(status, Some(0), "{run:#}");
    assert_eq!(here(&site).await, ["v2", "v3", "v4"]);
    drop(hub);
    let (status, run) = report(&site, "run", "all");
    assert_eq!((status, removals(&run).len()), (Some(1), 0), "{run:#}");
    assert_eq!(here(&site).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_is_named_and_gone_is_removed_only_by_a_rule_that_prunes() {
    let (hub, lan) = (Party::start("").await, Party::start("").await);
    hub.image("app", "v1", &Image::small(1)).await;
    let both = "tags = [\"v1\"]\nprune = true\nprune_cap = \"100%\"";
    let site = site(&hub, &lan, both).await;
    assert_eq!(mirror(&site, "run", &[]).0, Some(0));
    remove(&hub, "app", "v1").await;
    let (status, run) = report(&site, "run", "all");
    assert_eq!((status, &run["tags"][0]["outcome"]), (Some(0), &json!("gone")), "{run:#}");
    assert!(lan.tags("team/app").await.is_empty());
}
