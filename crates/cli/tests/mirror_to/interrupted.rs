//! Runs that are killed and uploads that break off: what is done is not done again.

use std::time::{Duration, Instant};

use deltaport_testkit::clients::Fault;
use deltaport_testkit::http::Request;
use deltaport_testkit::sample::{self, Content, Image, bytes};
use serde_json::{Value, json};

use crate::harness::*;

const MIB: usize = 1 << 20;

fn large(seed: u64, length: usize) -> Image {
    Image::of("amd64", vec![Content::new(sample::LAYER_TAR, bytes(seed, length))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_goes_on_where_it_was() {
    let (hub, lan) = (Party::start("").await, Party::start("").await);
    let image = large(1, 14 * MIB);
    hub.image("app", "v1", &image).await;
    let site = site(&hub, &lan, "tags = [\"v1\"]").await;
    // The third piece never arrives whole until somebody mends the line.
    let count = std::sync::atomic::AtomicUsize::new(0);
    lan.relay.breaks(Fault::Cut(10_000), move |line| {
        line.starts_with("PATCH") && count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 2
    });
    let (status, run) = report(&site, "run", "all");
    assert_eq!(status, Some(1), "{run:#}");
    assert!(run["tags"][0]["why"].as_str().unwrap().contains("unavailable"), "{run:#}");
    lan.relay.mends();
    let before = lan.relay.traffic();
    let (status, run) = report(&site, "run", "all");
    assert_eq!(status, Some(0), "{run:#}\n{}", site.log());
    let sent = (lan.relay.traffic() - before).sent;
    assert!(sent < 7 * MIB as u64, "8 MiB had arrived; {sent} bytes were sent");
    assert_eq!(lan.get("team/app", "v1").await.unwrap(), image.manifest.bytes);
    assert!(lan.has_blob("team/app", &image.layers[0].digest).await);
}

/// For each step of a plan, a process that is killed in that step and started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_at_any_step_is_ended_by_the_next() {
    let (hub, lan) = (Party::start("").await, Party::start("").await);
    let mut release = Release::new(5, 300_000);
    release.images.truncate(1);
    let mut release = Release::of(release.images, 5);
    release.bills.truncate(1);
    hub.release("app", "v1", &release).await;
    // What a step asks of one of the two: the process is killed when it does.
    let layer = release.images[0].layers[0].digest;
    let paths = [
        format!("GET /v2/app/manifests/{}", release.index.digest),
        format!("GET /v2/app/manifests/{}", release.images[0].manifest.digest),
        format!("GET /v2/app/blobs/{layer}"),
        format!("GET /v2/app/blobs/{}", release.blobs[0].digest),
        format!("HEAD /v2/TEAM/blobs/{layer}"),
        "POST /v2/TEAM/blobs/uploads/".to_owned(),
        format!("PUT /v2/TEAM/manifests/{}", release.bills[0].digest),
        format!("PUT /v2/TEAM/manifests/{}", release.signature_tag()),
        format!("PUT /v2/TEAM/manifests/{}", release.images[0].manifest.digest),
        "PUT /v2/TEAM/manifests/v1".to_owned(),
    ];
    for (number, path) in paths.into_iter().enumerate() {
        let team = format!("team/app{number}");
        let path = path.replace("TEAM", &team);
        let mut site = site_to(&hub, &lan, &team, "tags = [\"v1\"]").await;
        let party = if path.contains("/team/") { &lan } else { &hub };
        party.relay.breaks(Fault::Cut(0), {
            let path = path.clone();
            move |line| line.starts_with(&path)
        });
        let before = party.relay.requests().len();
        let rule = format!("/v2/{HUB}/app/_deltaport/mirror/all");
        let client = site.client();
        let asking = tokio::spawn(async move { client.try_send(Request::new("POST", &rule)).await });
        let deadline = Instant::now() + Duration::from_secs(30);
        while !party.relay.requests()[before..].iter().any(|line| line.starts_with(&path)) {
            assert!(Instant::now() < deadline, "{path}: {:#?}\n{}", party.relay.requests(), site.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        site.kill();
        let _broken = asking.await;
        party.relay.mends();
        // The request for the tag itself may have arrived before its connection was cut.
        let is_last = path.ends_with("/manifests/v1");
        assert!(is_last || !lan.tags(&team).await.contains(&"v1".to_owned()), "{path}: the tag comes last");
        site.start_again().await;
        let blobs = hub.relay.requests().iter().filter(|line| line.contains(&layer.to_string())).count();
        let (status, run) = report(&site, "run", "all");
        assert_eq!(status, Some(0), "{path}: {run:#}\n{}", site.log());
        assert_eq!(lan.get(&team, "v1").await.unwrap(), release.index.bytes, "{path}");
        assert_eq!(lan.get(&team, &release.signature_tag()).await.unwrap(), release.signature.bytes);
        if path.starts_with('P') {
            let after = hub.relay.requests().iter().filter(|line| line.contains(&layer.to_string())).count();
            assert_eq!(after, blobs, "{path}: the layer was here");
        }
        let (status, warm) = report(&site, "run", "all");
        assert_eq!((status, &warm["tags"][0]["outcome"]), (Some(0), &json!("unchanged")), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_moves_between_the_plan_and_the_run_is_followed_to_the_destination() {
    let (hub, lan) = (Party::start("").await, Party::start("").await);
    let (old, new) = (Image::small(1), Image::small(2));
    hub.image("app", "v1", &old).await;
    let site = site(&hub, &lan, "tags = [\"v1\"]").await;
    let digest = |report: &Value| report["tags"][0]["digest"].clone();
    let (_, plan) = report(&site, "plan", "all");
    assert_eq!(digest(&plan), json!(old.manifest.digest));
    hub.image("app", "v1", &new).await;
    let (status, run) = report(&site, "run", "all");
    assert_eq!((status, digest(&run)), (Some(0), json!(new.manifest.digest)), "{run:#}");
    assert_eq!(lan.get("team/app", "v1").await.unwrap(), new.manifest.bytes);
    hub.image("app", "v1", &old).await;
    let (_, run) = report(&site, "run", "all");
    let last = steps(&run).pop().unwrap();
    assert_eq!((&last["was"], &last["digest"]), (&json!(new.manifest.digest), &json!(old.manifest.digest)));
    assert_eq!(lan.get("team/app", "v1").await.unwrap(), old.manifest.bytes);
}
