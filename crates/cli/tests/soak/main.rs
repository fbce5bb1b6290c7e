//! Push, pull, mirror, evict and collect, all at the same time and over a link that breaks, with restarts in between: no
//! wrong byte is served, nothing that was acknowledged is lost, nothing that cannot be had again is evicted, and what
//! is stored is as it must be at the end.
//!
//! `DELTAPORT_SOAK_SECONDS` says how long (default [`SECONDS`]), `DELTAPORT_SOAK_SEED` repeats what is done, though not
//! the order in which it happens; a failure prints its seed. `DELTAPORT_SOAK_HOME` names a directory that keeps what
//! is stored, and what has to hold of it, so that the next run goes on where this one ends: another restart, of
//! everything.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

mod actors;
mod home;
mod ledger;
mod node;
mod pull;
mod push;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deltaport_client as client;
use deltaport_registry::mirror::Selection;
use deltaport_registry::{Options, Upstream, mirror};
use deltaport_testkit::clients::Relay;
use deltaport_testkit::sample::Random;
use tokio::sync::RwLock;

use actors::Actor;
use home::Home;
use ledger::{Ledger, Side};
use node::{Node, is_clean};
use pull::{Pulled, pull};

/// How long when nothing else is said: enough for everything to have happened many times.
const SECONDS: u64 = 30;
/// How many times as long when not everything has happened by then.
const PATIENCE: u64 = 5;
/// The name of the upstream.
pub(crate) const HOST: &str = "hub.example";
/// The room for what comes from it, in bytes: a part of what it has.
const CAP: u64 = 600_000;
/// How long the site may take to have everything when the link is whole again.
const RECOVERY: Duration = Duration::from_secs(120);

/// Everything that takes part.
pub(crate) struct World {
    pub(crate) hub: Node,
    /// `None` for as long as it is being started again.
    pub(crate) site: RwLock<Option<Node>>,
    pub(crate) link: Relay,
    pub(crate) ledger: Ledger,
}

fn number(name: &str, default: impl FnOnce() -> u64) -> u64 {
    std::env::var(name).map_or_else(|_| default(), |text| text.parse().expect(name))
}

/// What the site is told: it mirrors one repository and pulls the others through.
fn site_options(link: &Relay) -> Options {
    let url = format!("http://{}", link.address());
    let mut upstream = Upstream::new(client::Upstream::new(&client::Options::new(HOST, url)).unwrap());
    upstream.policy.max_age = Duration::ZERO;
    upstream.policy.negative_age = Duration::ZERO;
    let tags = Selection { patterns: vec!["*".parse().unwrap()], ..Selection::default() };
    let repository = mirror::Repositories::One(actors::MIRRORED.parse().unwrap());
    let rule = mirror::Rule::new("soak", HOST, repository, tags);
    let mut options = Options { upstreams: vec![upstream], mirrors: vec![rule], ..Options::default() };
    options.space.cached = Some(CAP);
    options.collect.interval = Duration::from_secs(3600);
    options
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_everything_happens_at_once() {
    let seconds = number("DELTAPORT_SOAK_SECONDS", || SECONDS);
    let seed = number("DELTAPORT_SOAK_SEED", || {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
    });
    println!("{seconds} s, DELTAPORT_SOAK_SEED={seed}");
    let home = Home::from_environment();
    let ledger = home.ledger();
    println!("after {} s in {} runs", ledger.seconds, ledger.runs);
    let hub = Node::start(&home.hub(), Options::default()).await;
    let link = Relay::to(hub.address());
    let site = Node::start(&home.site(), site_options(&link)).await;
    holds(&site, &ledger).await;
    let world = Arc::new(World { hub, site: RwLock::new(Some(site)), link, ledger });

    let mut random = Random::new(seed);
    let actors = Actor::all();
    let acting: Vec<_> = actors
        .into_iter()
        .map(|actor| tokio::spawn(actor.act(Arc::clone(&world), Random::new(random.next_u64()))))
        .collect();
    let begun = Instant::now();
    let long_enough = || match begun.elapsed().as_secs() {
        elapsed if elapsed < seconds => false,
        // A slow machine may not have come to everything by then.
        elapsed => elapsed > seconds * PATIENCE || world.ledger.done.is_everything(),
    };
    while !long_enough() && !acting.iter().any(|one| one.is_finished()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.ledger.stop();
    for one in acting {
        one.await.expect("nobody saw anything wrong");
    }
    world.link.mends();
    home.keep(&world.ledger, seconds);
    let done = &world.ledger.done;
    println!("{done:?}, {:?}", world.link.traffic());
    for (what, often) in done.all() {
        assert!(often.load(Ordering::Relaxed) > 0, "{what}: never, so the test has shown nothing about it");
    }
    recovers(&world).await;
    let World { hub, site, link, ledger } = Arc::into_inner(world).expect("everybody has left");
    let site = site.into_inner().expect("it is there").start_again().await;
    // From here on the upstream is gone.
    is_clean(&hub.stop().await);
    drop(link);
    holds(&site, &ledger).await;
    evicts_nothing(&site).await;
    holds(&site, &ledger).await;
    is_clean(&site.stop().await);
}

/// When the link is whole, everything that the upstream has comes through the site.
async fn recovers(world: &World) {
    let deadline = Instant::now() + RECOVERY;
    let site = world.site.read().await;
    let site = site.as_ref().expect("it is there");
    for path in world.ledger.paths(Side::Upstream) {
        let meant = world.ledger.meant(Side::Upstream, &path);
        loop {
            // What was asked for in time may be what there was then, however long it took.
            let late = Instant::now() > deadline;
            let pulled = pull(&site.client(), &actors::through(&path)).await;
            let right = match &pulled {
                Pulled::Whole(digest) => meant.contains(&Some(*digest)),
                Pulled::Absent => meant.contains(&None),
                Pulled::Part(..) | Pulled::Silence => false,
            };
            if right {
                break;
            }
            assert!(!late, "{path}: {pulled:?}, not {meant:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What was pushed is what the site has, and what cannot be had again is still there.
async fn holds(site: &Node, ledger: &Ledger) {
    for path in ledger.paths(Side::Site) {
        let meant = ledger.meant(Side::Site, &path);
        let right = match pull(&site.client(), &path).await {
            Pulled::Whole(digest) => meant.contains(&Some(digest)),
            Pulled::Absent => meant.contains(&None),
            other => panic!("{path}: {other:?}"),
        };
        assert!(right, "{path} is not {meant:?}");
    }
    for path in ledger.kept() {
        let pulled = pull(&site.client(), &path).await;
        assert!(matches!(pulled, Pulled::Whole(_)), "{path} is all there is of it: {pulled:?}");
    }
}

/// With an upstream that does not answer, nothing can be had again.
async fn evicts_nothing(site: &Node) {
    let evicted = site.registry.evict(actors::later()).await.unwrap();
    assert_eq!(evicted.images, 0, "{evicted:?}");
    site.store.collect(actors::later()).await.unwrap();
}
