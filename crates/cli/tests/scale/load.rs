//! Clients of a hub: some push, move tags and delete, some pull, one asks for deltas, and all ask again when something goes
//! wrong, as clients of registries do.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::process::Server;
use deltaport_testkit::sample::{self, Content, File, Image, Random};
use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::deltas;
use crate::hub::{Hub, MANIFEST};
use crate::insistent::{Effort, Insistent, Tries, Way};
use crate::ledger::{Entry, Ledger, State};

/// How many push, and how many pull, at once.
const PUSHERS: u64 = 4;
const PULLERS: u64 = 2;
/// How long everybody waits before the next thing.
const PAUSE: Duration = Duration::from_millis(50);
/// Of how many images a pusher removes one.
const REMOVED: u64 = 4;
/// Of how many images of the first pusher one has a layer that goes to the bucket in several parts, and how long that is.
const LARGE_EVERY: u64 = 12;
const LARGE: usize = 11 << 20;

/// How often each thing was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pulled: AtomicU64,
    /// Answers of other replicas right after something was acknowledged.
    fresh: AtomicU64,
    untagged: AtomicU64,
    deleted: AtomicU64,
    pub(crate) proven: AtomicU64,
}

/// What clients share.
#[derive(Clone)]
pub(crate) struct World {
    /// Through the balancer.
    pub(crate) client: Insistent,
    /// Each replica.
    replicas: Vec<Client>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) done: Arc<Done>,
    stop: Arc<AtomicBool>,
}

/// Clients at work.
pub(crate) struct Load {
    seed: u64,
    world: World,
    clients: JoinSet<()>,
}

impl Load {
    /// Sets them to work on a hub through `balancer`.
    pub(crate) fn start(hub: &Hub, balancer: &Client, seed: u64) -> Self {
        let world = World {
            client: Insistent { client: balancer.clone(), effort: Arc::new(Effort::default()) },
            replicas: hub.replicas.iter().map(Server::client).collect(),
            ledger: Arc::default(),
            done: Arc::default(),
            stop: Arc::default(),
        };
        let mut clients = JoinSet::new();
        for number in 0..PUSHERS {
            clients.spawn(Pusher::new(&world, number, seed).push_until_the_end());
        }
        for puller in 0..PULLERS {
            clients.spawn(pull_until_the_end(world.clone(), Random::new(seed ^ (100 + puller))));
        }
        clients.spawn(deltas::ask_until_the_end(world.clone(), Random::new(seed ^ 200)));
        Self { seed, world, clients }
    }

    /// Ends them. Panics with what any of them saw.
    pub(crate) async fn stop(mut self) -> World {
        self.world.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        }
        self.world
    }
}

impl World {
    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// The same client, which asks each replica itself.
    pub(crate) fn of_each_replica(&self) -> impl Iterator<Item = Insistent> {
        let effort = &self.client.effort;
        self.replicas.iter().map(|client| Insistent { client: client.clone(), effort: Arc::clone(effort) })
    }

    /// Looks in every replica for everything that was acknowledged: what was pushed is there with its bytes, what was
    /// removed is not.
    pub(crate) async fn is_there(&self) {
        let entries = self.ledger.entries();
        assert!(!entries.is_empty(), "nothing was ever acknowledged");
        let (entries, latest) = (&entries, &self.ledger.latest());
        join_all(self.of_each_replica().map(async |client| {
            for entry in entries {
                self.holds(&client, entry).await;
            }
            for (repository, image) in latest {
                let path = format!("/v2/{repository}/manifests/latest");
                assert!(pull(&client, &path, repository, image).await, "{path} is gone");
            }
        }))
        .await;
    }

    async fn holds(&self, client: &Insistent, entry: &Entry) {
        let (state, shown) = (entry.state(), entry.path(true));
        assert_ne!(state, State::Leaving, "{shown}: nobody is at work any more");
        for (by_tag, there) in [(true, state == State::Tagged), (false, state != State::Gone)] {
            let found = pull(client, &entry.path(by_tag), &entry.repository, &entry.image).await;
            assert_eq!(found, there, "{shown}, which is {state:?}, by its {}", what(by_tag));
        }
    }

    /// Sees to it that each replica which is there answers as it must after an acknowledgement: `wanted`, or 404.
    async fn is_seen(&self, path: &str, wanted: Option<&Content>) {
        for client in &self.replicas {
            // One that is dead says nothing.
            let Ok(answer) = client.try_send(Request::get(path).header("accept", MANIFEST)).await else {
                continue;
            };
            match wanted {
                _ if answer.status >= 500 => continue,
                Some(wanted) => assert!(
                    answer.status == 200 && answer.body == wanted.bytes,
                    "{path} was acknowledged, and is {} {}",
                    answer.status,
                    answer.text()
                ),
                None => assert_eq!(answer.status, 404, "{path} was removed"),
            }
            self.done.fresh.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn what(by_tag: bool) -> &'static str {
    if by_tag { "tag" } else { "digest" }
}

/// What clients did, in figures.
impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, effort) = (&self.done, &self.client.effort);
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            f,
            "{} images acknowledged, {} tags and {} manifests of them removed; {} pulls; {} answers of other replicas right after; \
             {} moves of tags, {} deltas fetched and applied; {} requests asked again, one {} times at most; {} uploads resumed",
            self.ledger.entries().len(),
            of(&done.untagged),
            of(&done.deleted),
            of(&done.pulled),
            of(&done.fresh),
            self.ledger.moves().len(),
            of(&done.proven),
            of(&effort.again),
            of(&effort.most),
            of(&effort.resumed),
        )
    }
}

/// Somebody with a repository of his own.
struct Pusher {
    world: World,
    number: u64,
    repository: String,
    random: Random,
    files: Vec<File>,
}

impl Pusher {
    fn new(world: &World, number: u64, seed: u64) -> Self {
        Self {
            world: world.clone(),
            number,
            repository: format!("team/app-{number}"),
            random: Random::new(seed ^ (300 + number)),
            files: sample::files(seed ^ number, 12, 6_000),
        }
    }

    /// Pushes images, each a little other than the one before, under a tag of its own and one that moves.
    async fn push_until_the_end(mut self) {
        for count in 0_u64.. {
            if !self.world.goes_on() {
                return;
            }
            self.push(count).await;
            if self.random.below(REMOVED) == 0 {
                self.remove(count).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn push(&mut self, count: u64) {
        self.files = sample::changed(&self.files, self.random.next_u64(), 6);
        // No two images are the same.
        self.files[0] = File::new("etc/version", format!("{} {count}", self.repository));
        let mut layers = vec![sample::layer_of(&self.files)];
        if self.number == 0 && count % LARGE_EVERY == 1 {
            layers.push(Content::new(sample::LAYER_TAR, sample::bytes(self.random.next_u64(), LARGE)));
        }
        let image = Image::of("amd64", layers);
        let tag = format!("v{count}");
        self.push_image(&image, &tag).await;
        self.world.ledger.add(Entry::new(&self.repository, &tag, image.clone()));
        self.push_image(&image, "latest").await;
        self.world.ledger.moved(&self.repository, &image);
    }

    async fn push_image(&mut self, image: &Image, tag: &str) {
        let client = self.world.client.clone();
        let path = format!("/v2/{}/manifests/{tag}", self.repository);
        let mut tries = Tries::of(&client.effort);
        loop {
            for blob in image.blobs() {
                let way = Way::any(&mut self.random, blob.bytes.len());
                client.push_blob(&self.repository, blob, way).await;
            }
            let put =
                || Request::put(&path).header("content-type", MANIFEST).body(image.manifest.bytes.clone());
            let answer = client.insist(&[201, 400, 404], put).await;
            if answer.status == 201 {
                break;
            }
            // Who was kept waiting for longer than bytes stay that nothing refers to begins anew.
            assert!(answer.text().contains("BLOB_UNKNOWN"), "{path}: {}", answer.text());
            tries.again(&path, &answer.text()).await;
        }
        self.world.is_seen(&path, Some(&image.manifest)).await;
    }

    /// Removes the tag or the manifest of an image that is not the last.
    async fn remove(&mut self, count: u64) {
        let (last, repository) = (format!("v{count}"), self.repository.clone());
        let is_old = |entry: &Entry| {
            entry.repository == repository && entry.tag != last && entry.state() == State::Tagged
        };
        let Some(entry) = self.world.ledger.any(&mut self.random, is_old) else { return };
        let by_tag = self.random.below(2) == 0;
        let path = entry.path(by_tag);
        entry.set(State::Leaving);
        // Whoever has to ask again may be told that it is gone.
        self.world.client.insist(&[202, 404], || Request::delete(&path)).await;
        let (state, count) = match by_tag {
            true => (State::Untagged, &self.world.done.untagged),
            false => (State::Gone, &self.world.done.deleted),
        };
        entry.set(state);
        count.fetch_add(1, Ordering::Relaxed);
        self.world.is_seen(&entry.path(true), None).await;
        self.world.is_seen(&entry.path(false), by_tag.then_some(&entry.image.manifest)).await;
    }
}

/// Pulls what was acknowledged, by tag and by digest, again and again.
async fn pull_until_the_end(world: World, mut random: Random) {
    while world.goes_on() {
        let is_there = |entry: &Entry| matches!(entry.state(), State::Tagged | State::Untagged);
        let Some(entry) = world.ledger.any(&mut random, is_there) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let before = entry.state();
        let path = entry.path(before == State::Tagged && random.below(2) == 0);
        let found = pull(&world.client, &path, &entry.repository, &entry.image).await;
        assert!(found || entry.state() > before, "{path} is gone");
        world.done.pulled.fetch_add(u64::from(found), Ordering::Relaxed);
    }
}

/// Pulls an image, whose bytes must be those that were pushed; `false` when it is not there.
pub(crate) async fn pull(client: &Insistent, path: &str, repository: &str, image: &Image) -> bool {
    let found = client.insist(&[200, 404], || Request::get(path).header("accept", MANIFEST)).await;
    if found.status == 404 {
        return false;
    }
    assert_eq!(found.body, image.manifest.bytes, "{path}");
    for blob in image.blobs() {
        let target = format!("/v2/{repository}/blobs/{}", blob.digest);
        let found = client.insist(&[200, 404], || Request::get(&target)).await;
        if found.status == 404 {
            return false;
        }
        assert!(found.body == blob.bytes, "{target} has other bytes");
    }
    true
}
