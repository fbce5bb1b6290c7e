//! Who takes part: everybody does one thing, again and again, until it is over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use deltaport_testkit::clients::Fault;
use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::sample::Random;

use crate::ledger::{Side, count};
use crate::pull::{Pulled, pull};
use crate::push::{Sample, delete, push};
use crate::{HOST, World};

/// The repository that a rule mirrors.
pub(crate) const MIRRORED: &str = "app0";
/// How many repositories the upstream has whose tags move.
const REPOSITORIES: u64 = 3;
/// How many tags a repository has.
const TAGS: u64 = 4;
/// How many images are kept whose upstream is gone. They are looked at again and again, and never go.
const KEPT: usize = 12;
/// How long everybody but those who transfer waits before they do it again.
const PAUSE: Duration = Duration::from_millis(50);

/// Somebody who takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Actor {
    /// Pushes to tags of its own at the site, deletes them, and pulls them.
    Owner(u64),
    /// Pushes to the upstream and deletes there.
    Publisher,
    /// Pulls through the site.
    Reader,
    /// Sees to it that images are at the site whose upstream is gone, and that they stay.
    Keeper,
    /// Has the site mirror.
    Mirrorer,
    /// Evicts, as if everything had been used long ago.
    Evicter,
    /// Collects, at the site and at the upstream.
    Collector,
    /// Breaks the link, and mends it.
    Breaker,
    /// Stops the site and starts it again.
    Starter,
}

/// A time at which everything was used, and pushed, long ago.
pub(crate) fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

/// The path at the site for one at the upstream.
pub(crate) fn through(path: &str) -> String {
    path.replacen("/v2/", &format!("/v2/{HOST}/"), 1)
}

impl Actor {
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<Self> = (0..3).map(Self::Owner).collect();
        all.extend([Self::Publisher, Self::Reader, Self::Reader, Self::Keeper, Self::Mirrorer]);
        all.extend([Self::Evicter, Self::Collector, Self::Breaker, Self::Starter]);
        all
    }

    pub(crate) async fn act(self, world: Arc<World>, mut random: Random) {
        let client = world.site.read().await.as_ref().expect("it is there").client();
        while world.ledger.goes_on() {
            match self {
                Self::Owner(number) => own(&world, &client, number, &mut random).await,
                Self::Publisher => publish(&world, &mut random).await,
                Self::Reader => read(&world, &client, &mut random).await,
                Self::Keeper => keep(&world, &client, &mut random).await,
                Self::Mirrorer => mirror(&world, &client).await,
                Self::Evicter => evict(&world).await,
                Self::Collector => collect(&world).await,
                Self::Breaker => break_link(&world, &mut random).await,
                Self::Starter => start_again(&world, &mut random).await,
            }
        }
    }
}

/// Nobody else writes to these tags, so what they mean is known but for the time between a request and its answer.
async fn own(world: &World, client: &Client, number: u64, random: &mut Random) {
    let ledger = &world.ledger;
    let (repository, tag) = (format!("own/{number}"), format!("t{}", random.below(TAGS)));
    let path = format!("/v2/{repository}/manifests/{tag}");
    match random.below(6) {
        0 => {
            ledger.asked(Side::Site, &path, None);
            if delete(client, &path).await.is_some() {
                ledger.acknowledged(Side::Site, &path, None);
                count(&ledger.done.deleted);
            }
        }
        1 | 2 => {
            let sample = Sample::any(random);
            let digest = sample.top().digest;
            ledger.asked(Side::Site, &path, Some(digest));
            if push(client, &repository, &tag, &sample).await == Some(201) {
                ledger.acknowledged(Side::Site, &path, Some(digest));
                count(&ledger.done.pushed);
            }
        }
        _ => {
            let meant = ledger.meant(Side::Site, &path);
            match pull(client, &path).await {
                Pulled::Whole(digest) => {
                    assert!(meant.contains(&Some(digest)), "{path}: {digest}, not {meant:?}");
                    count(&ledger.done.pulled);
                }
                Pulled::Absent => assert!(meant.contains(&None), "{path} is gone, and was {meant:?}"),
                Pulled::Part(status, part) => panic!("{status} for {part}, which {path} needs"),
                Pulled::Silence => {}
            }
        }
    }
}

async fn publish(world: &World, random: &mut Random) {
    let (ledger, client) = (&world.ledger, world.hub.client());
    let (repository, tag) =
        (format!("app{}", random.below(REPOSITORIES)), format!("t{}", random.below(TAGS)));
    let path = format!("/v2/{repository}/manifests/{tag}");
    if random.below(5) == 0 {
        ledger.asked(Side::Upstream, &path, None);
        delete(&client, &path).await.expect("the upstream is always there");
        ledger.acknowledged(Side::Upstream, &path, None);
    } else {
        let sample = Sample::any(random);
        let digest = sample.top().digest;
        ledger.asked(Side::Upstream, &path, Some(digest));
        while push(&client, &repository, &tag, &sample).await != Some(201) {}
        ledger.acknowledged(Side::Upstream, &path, Some(digest));
    }
    tokio::time::sleep(Duration::from_millis(random.below(400))).await;
}

/// The upstream moves its tags meanwhile, the link breaks, and images are evicted, so not everything comes. What comes
/// is right.
async fn read(world: &World, client: &Client, random: &mut Random) {
    let ledger = &world.ledger;
    let path = format!("/v2/app{}/manifests/t{}", random.below(REPOSITORIES), random.below(TAGS));
    match pull(client, &through(&path)).await {
        Pulled::Whole(digest) => {
            assert!(ledger.ever_meant(&path, &digest), "{path} was never {digest}");
            count(&ledger.done.pulled_through);
        }
        Pulled::Absent | Pulled::Silence => {}
        Pulled::Part(..) => count(&ledger.done.unavailable),
    }
}

/// An image that is at the site in full after it was deleted at the upstream cannot be had again, and has to stay.
async fn keep(world: &World, client: &Client, random: &mut Random) {
    let ledger = &world.ledger;
    for path in ledger.kept() {
        let pulled = pull(client, &path).await;
        let here = matches!(pulled, Pulled::Whole(_) | Pulled::Silence);
        assert!(here, "{path} is all there is of it: {pulled:?}");
    }
    if ledger.kept().len() < KEPT {
        let (hub, sample) = (world.hub.client(), Sample::any(random));
        while push(&hub, "gone", "once", &sample).await != Some(201) {}
        let path = format!("/v2/gone/manifests/{}", sample.top().digest);
        let _whole = pull(client, &through(&path)).await;
        delete(&hub, &path).await.expect("the upstream is always there");
        if let Pulled::Whole(_) = pull(client, &through(&path)).await {
            ledger.keep(through(&path));
            count(&ledger.done.kept);
        }
    }
    tokio::time::sleep(PAUSE * 4).await;
}

async fn mirror(world: &World, client: &Client) {
    let path = format!("/v2/{HOST}/{MIRRORED}/_deltaport/mirror/soak");
    if let Ok(answer) = client.try_send(Request::post(&path)).await {
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        if answer.status == 200 && answer.json()["failed"].is_null() {
            count(&world.ledger.done.mirrored);
        }
    }
    tokio::time::sleep(PAUSE * 4).await;
}

async fn evict(world: &World) {
    if let Some(site) = &*world.site.read().await {
        let evicted = site.registry.evict(later()).await.expect("there is nothing wrong with the store");
        world.ledger.done.evicted.fetch_add(evicted.images, Ordering::Relaxed);
    }
    tokio::time::sleep(PAUSE).await;
}

async fn collect(world: &World) {
    let now = SystemTime::now();
    let at_hub = world.hub.store.collect(now).await.expect("there is nothing wrong with the store");
    if let Some(site) = &*world.site.read().await {
        let collected = site.store.collect(now).await.expect("there is nothing wrong with the store");
        world.ledger.done.collected.fetch_add(collected.blobs + at_hub.blobs, Ordering::Relaxed);
    }
    tokio::time::sleep(PAUSE).await;
}

/// One request in three is broken while it is broken.
async fn break_link(world: &World, random: &mut Random) {
    tokio::time::sleep(Duration::from_millis(500 + random.below(1500))).await;
    let fault = match random.below(3) {
        0 => Fault::Corrupt,
        1 => Fault::Refuse,
        _ => Fault::Cut(random.below(2000)),
    };
    let mut which = Random::new(random.next_u64());
    let which = std::sync::Mutex::new(move || which.below(3) == 0);
    world.link.breaks(fault, move |_| which.lock().is_ok_and(|mut which| which()));
    tokio::time::sleep(Duration::from_millis(random.below(500))).await;
    world.link.mends();
}

async fn start_again(world: &World, random: &mut Random) {
    tokio::time::sleep(Duration::from_millis(2000 + random.below(6000))).await;
    let mut site = world.site.write().await;
    if let Some(stopped) = site.take() {
        *site = Some(stopped.start_again().await);
        count(&world.ledger.done.restarts);
    }
}
