//! What a run sends keeps to the hours of its rule and to its cap, as what it fetches does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deltaport_client as client;
use deltaport_oci::RepositoryName;
use deltaport_registry::mirror::timetable::Windows;
use deltaport_registry::mirror::{Clock, Destination, Hours, Report, Repositories, Request, Rule, Selection};
use deltaport_registry::{Options, Registry, Upstream};
use deltaport_store::{Faults, Store};
use deltaport_testkit::sample::{self, Content, Image, bytes};
use deltaport_trust::{Access, Rules};
use serde_json::json;

use crate::harness::*;

const MIB: usize = 1 << 20;

/// Whether it is night where the site is.
static NIGHT: AtomicBool = AtomicBool::new(true);

/// A site in this process, with a clock of its own, that mirrors `app` of the hub to `team/app` of `lan` at night.
async fn at_night(home: &std::path::Path, hub: &Party, lan: &Party) -> Registry {
    let store = Store::open(deltaport_store::Options {
        root: home.to_owned(),
        bytes: deltaport_store::ByteStore::Directory,
        keep_free: 0,
        manifest_cache: MIB,
        grace: Duration::from_secs(3600),
        upload_expiry: Duration::from_secs(3600),
        partial_expiry: Duration::from_secs(3600),
        names: deltaport_store::NamesOptions::Directory,
        faults: Faults::none(),
    });
    let upstream = |host: &str, party: &Party| {
        Upstream::new(client::Upstream::new(&client::Options::new(host, party.url())).unwrap())
    };
    let tags = Selection { patterns: vec!["v1".parse().unwrap()], ..Selection::default() };
    let to = Destination::Registry { host: LAN.to_owned(), repository: "team/app".parse().unwrap() };
    let rule = Rule {
        to: Some(to),
        hours: Hours { windows: Windows::new(vec!["22:00-05:00".parse().unwrap()]), ..Hours::default() },
        bandwidth: Some(4 << 20),
        ..Rule::new("all", HUB, Repositories::One("app".parse().unwrap()), tags)
    };
    let time = || match NIGHT.load(Ordering::SeqCst) {
        true => "2026-01-01T23:00:00Z".parse().unwrap(),
        false => "2026-01-02T12:00:00Z".parse().unwrap(),
    };
    let options = Options {
        upstreams: vec![upstream(HUB, hub), upstream(LAN, lan)],
        mirrors: vec![rule],
        clock: Clock(time),
        ..Options::default()
    };
    let rules = Rules::new(Access { trust_loopback: Some(true), ..Access::default() }).unwrap();
    Registry::new(options, store.await.unwrap(), rules)
}

async fn run(site: &Registry, patience: Duration) -> Report {
    let repository: RepositoryName = format!("{HUB}/app").parse().unwrap();
    Box::pin(site.mirror(&repository, "all", Request::Run, None, patience)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_breaks_off_when_the_hours_end_and_goes_on_in_the_next_ones() {
    let (hub, lan) = (Party::start("").await, Party::start("").await);
    let image = Image::of("amd64", vec![Content::new(sample::LAYER_TAR, bytes(1, 18 * MIB))]);
    hub.image("app", "v1", &image).await;
    let home = tempfile::tempdir().unwrap();
    let site = at_night(home.path(), &hub, &lan).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    // In the middle of the second piece.
    while lan.asked("PATCH", "/blobs/uploads/") < 2 {
        let report = run(&site, Duration::ZERO).await;
        assert!(!report.done && Instant::now() < deadline, "{report:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    NIGHT.store(false, Ordering::SeqCst);
    let mut before = None;
    // What was on its way when the hours ended may still arrive.
    while before != Some(lan.relay.traffic()) {
        assert!(Instant::now() < deadline);
        before = Some(lan.relay.traffic());
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let (resting, sent) = (run(&site, Duration::ZERO).await, lan.relay.traffic().sent);
    assert!(!resting.done && resting.rests_until.is_some(), "{resting:?}");
    assert!(sent < 9 * MIB as u64, "{sent} bytes were sent by then");
    assert!(lan.tags("team/app").await.is_empty());
    NIGHT.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let report = run(&site, Duration::from_secs(60)).await;
    assert!(report.is_good(), "{report:?}");
    assert_eq!(lan.get("team/app", "v1").await.unwrap(), image.manifest.bytes);
    let again = lan.relay.traffic().sent - sent;
    assert!(again < 15 * MIB as u64, "4 MiB and more had arrived; {again} bytes were sent");
    assert!(
        began.elapsed() > Duration::from_millis(1500),
        "the cap holds for what is sent: {:?}",
        began.elapsed()
    );
    // Fetched and sent once each, at 4 MiB a second and not at half of that.
    assert_eq!(hub.asked("GET", "/blobs/"), 2, "{:?}", json!(hub.relay.requests()));
}
