//! Clients of a hub: some push, some pull, and all ask again when something goes wrong, as clients of registries do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deltaport_testkit::http::{Client, Request, Response};
use deltaport_testkit::sample::{self, Content, Image, Random};
use tokio::task::JoinSet;

use crate::hub::{Hub, MANIFEST};

/// How many push, and how many pull, at once.
const PUSHERS: u64 = 4;
const PULLERS: u64 = 2;
/// How long a client goes on asking again. Only a hang takes this long.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long it waits before it asks again.
const PAUSE: Duration = Duration::from_millis(50);

/// What was acknowledged: a repository, a tag that never moves again, and the image.
type Ledger = Arc<Mutex<Vec<(String, String, Image)>>>;

/// Clients at work.
pub(crate) struct Load {
    seed: u64,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
    ledger: Ledger,
    pulled: Arc<AtomicU64>,
    again: Arc<AtomicU64>,
}

impl Load {
    /// Sets them to work through `client`.
    pub(crate) fn start(client: &Client, seed: u64) -> Self {
        let mut load = Self {
            seed,
            stop: Arc::default(),
            clients: JoinSet::new(),
            ledger: Ledger::default(),
            pulled: Arc::default(),
            again: Arc::default(),
        };
        for pusher in 0..PUSHERS {
            let (client, ledger, stop) =
                (load.insistent(client), Arc::clone(&load.ledger), Arc::clone(&load.stop));
            load.clients.spawn(async move { push_until(&stop, &client, pusher, seed, &ledger).await });
        }
        for puller in 0..PULLERS {
            let (client, ledger, stop) =
                (load.insistent(client), Arc::clone(&load.ledger), Arc::clone(&load.stop));
            let (pulled, random) = (Arc::clone(&load.pulled), Random::new(seed ^ puller));
            load.clients.spawn(async move { pull_until(&stop, &client, random, &ledger, &pulled).await });
        }
        load
    }

    /// Ends them, looks in every replica for everything that was acknowledged, and tells in figures what they did.
    pub(crate) async fn end(mut self, hub: &Hub) -> String {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        }
        let ledger = self.ledger.lock().unwrap().clone();
        for replica in &hub.replicas {
            let client = self.insistent(&replica.client());
            for (repository, tag, image) in &ledger {
                client.pull(repository, tag, image).await;
            }
        }
        assert!(!ledger.is_empty(), "seed {}: nothing was ever acknowledged", self.seed);
        let (pulled, again) = (self.pulled.load(Ordering::Relaxed), self.again.load(Ordering::Relaxed));
        format!(
            "{} images acknowledged and there, {pulled} pulls, {again} requests asked again",
            ledger.len()
        )
    }

    fn insistent(&self, client: &Client) -> Insistent {
        Insistent { client: client.clone(), again: Arc::clone(&self.again) }
    }
}

/// Pushes images, each a little other than the one before, under a tag of its own and one that moves.
async fn push_until(stop: &AtomicBool, client: &Insistent, pusher: u64, seed: u64, ledger: &Ledger) {
    let repository = format!("team/app-{pusher}");
    let mut files = sample::files(seed ^ pusher, 20, 20_000);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        files = sample::changed(&files, seed ^ count, 10);
        let image = Image::of("amd64", vec![sample::layer_of(&files)]);
        let tag = format!("v{count}");
        for blob in image.blobs() {
            client.push_blob(&repository, blob).await;
        }
        for tag in [&*tag, "latest"] {
            let put = || {
                let put = Request::put(&format!("/v2/{repository}/manifests/{tag}"));
                put.header("content-type", MANIFEST).body(image.manifest.bytes.clone())
            };
            client.insist(&[201], put).await;
        }
        ledger.lock().unwrap().push((repository.clone(), tag, image));
        count += 1;
    }
}

/// Pulls what was acknowledged, again and again.
async fn pull_until(
    stop: &AtomicBool,
    client: &Insistent,
    mut random: Random,
    ledger: &Ledger,
    pulled: &AtomicU64,
) {
    while !stop.load(Ordering::Relaxed) {
        let chosen = {
            let ledger = ledger.lock().unwrap();
            let at = usize::try_from(random.below(ledger.len().max(1) as u64)).unwrap();
            ledger.get(at).cloned()
        };
        match chosen {
            Some((repository, tag, image)) => {
                client.pull(&repository, &tag, &image).await;
                pulled.fetch_add(1, Ordering::Relaxed);
            }
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A client that asks again whatever went wrong.
struct Insistent {
    client: Client,
    /// How often it asked again.
    again: Arc<AtomicU64>,
}

impl Insistent {
    /// Asks until the status is one of `wanted`. Panics when it is another that is not of a server in trouble.
    async fn insist(&self, wanted: &[u16], request: impl Fn() -> Request) -> Response {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = match self.client.try_send(request()).await {
                Ok(answer) if wanted.contains(&answer.status) => return answer,
                Ok(answer) if answer.status < 500 => {
                    panic!("{:?} was answered {}: {}", request().target, answer.status, answer.text())
                }
                Ok(answer) => answer.text(),
                Err(error) => error.to_string(),
            };
            assert!(Instant::now() < deadline, "{:?} fails again and again: {said}", request().target);
            self.again.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Pushes a blob in two chunks, from the start again when anything goes wrong with its upload.
    async fn push_blob(&self, repository: &str, blob: &Content) {
        let deadline = Instant::now() + PATIENCE;
        let there = format!("/v2/{repository}/blobs/{}", blob.digest);
        while self.insist(&[200, 404], || Request::head(&there)).await.status == 404 {
            assert!(Instant::now() < deadline, "{there} cannot be pushed");
            if self.try_push_blob(repository, blob).await.is_none() {
                self.again.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn try_push_blob(&self, repository: &str, blob: &Content) -> Option<()> {
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let begun = self.insist(&[202], || Request::post(&uploads)).await;
        let mut place = begun.header("location")?.to_owned();
        for chunk in blob.bytes.chunks(blob.bytes.len().div_ceil(2).max(1)) {
            let chunk = Request::patch(&place).body(blob.bytes.slice_ref(chunk));
            let sent = self.client.try_send(chunk).await.ok().filter(|sent| sent.status == 202)?;
            place = sent.header("location")?.to_owned();
        }
        let done = self.client.try_send(Request::put(&place).query("digest", blob.digest)).await;
        done.ok().filter(|done| done.status == 201).map(|_| ())
    }

    /// Pulls an image, whose bytes must be those that were pushed.
    async fn pull(&self, repository: &str, tag: &str, image: &Image) {
        let manifest = format!("/v2/{repository}/manifests/{tag}");
        let found = self.insist(&[200], || Request::get(&manifest).header("accept", MANIFEST)).await;
        assert_eq!(found.body, image.manifest.bytes, "{manifest}");
        for blob in image.blobs() {
            let target = format!("/v2/{repository}/blobs/{}", blob.digest);
            let found = self.insist(&[200], || Request::get(&target)).await;
            assert!(found.body == blob.bytes, "{target} has other bytes");
        }
    }
}
