//! The real binary under concurrent pushes, killed with SIGKILL at random instants, started again, and checked: every
//! blob, manifest and tag that was acknowledged is there and digest-correct, uploads go on where they were acknowledged,
//! and `deltaport fsck` finds nothing wrong.
//!
//! `DELTAPORT_CRASH_ROUNDS` says how often (default [`ROUNDS`]), `DELTAPORT_CRASH_SEED` replays a run; a failure prints
//! its seed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deltaport_oci::Digest;
use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::process::Launch;
use deltaport_testkit::sample::{Content, Image, Random, layer};

/// Rounds when nothing else is said; enough to meet every step of a push, few enough for every run of the tests.
const ROUNDS: u64 = 12;
/// How many push at once.
const PUSHERS: u64 = 8;
/// How many things of earlier rounds are looked at again after each kill; the last round looks at all.
const SAMPLE: usize = 40;
/// The longest that a server lives in a round, in microseconds.
const LONGEST_LIFE: u64 = 600_000;

/// What the server has acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Path of a blob or manifest by digest, and its digest.
    content: Vec<(String, Digest)>,
    /// Path of a tag: what it was last acknowledged to mean, and what a request whose answer never came wanted it to.
    tags: BTreeMap<String, (Option<Digest>, Option<Digest>)>,
    /// An upload whose last chunk was acknowledged, with everything it was sent.
    uploads: Vec<(String, Vec<u8>)>,
}

type Ledger = Arc<Mutex<Acknowledged>>;

fn number(name: &str, default: impl FnOnce() -> u64) -> u64 {
    std::env::var(name).map_or_else(|_| default(), |text| text.parse().expect(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    nothing_is_lost("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_bytes_and_names_elsewhere() {
    // Beside the configuration, in directories that are not there yet.
    nothing_is_lost("[storage]\nblobs = \"large/bytes\"\nmetadata = \"fast/of images.db\"\n").await;
}

/// Kills a server over and over, with its data in places that `storage` says.
#[allow(clippy::print_stdout, reason = "the helper of a test prints what replays it")]
async fn nothing_is_lost(storage: &str) {
    let rounds = number("DELTAPORT_CRASH_ROUNDS", || ROUNDS);
    let seed = number("DELTAPORT_CRASH_SEED", || {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
    });
    println!("{rounds} rounds, DELTAPORT_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let ledger = Ledger::default();
    // Whoever is killed in the middle of an upload leaves it behind, in every round.
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    let data = launch.data();
    let config = format!("data = '{}'\n[limits]\nuploads_per_caller = 10000\n{storage}", data.display());
    let launch = launch.config(&config);
    let mut server = launch.start().await;
    for round in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let pushers: Vec<_> = (0..PUSHERS)
            .map(|pusher| {
                let seed = random.next_u64();
                tokio::spawn(push(server.client(), pusher, seed, Arc::clone(&ledger), Arc::clone(&stop)))
            })
            .collect();
        tokio::time::sleep(Duration::from_micros(random.below(LONGEST_LIFE))).await;
        server.kill();
        stop.store(true, Ordering::Relaxed);
        for pusher in pushers {
            pusher.await.expect("a pusher ends with the server");
        }
        if round % 10 == 0 {
            fsck_is_clean(&server);
        }
        server.start_again().await;
        check(&server.client(), &ledger, &mut random, SAMPLE).await;
    }
    check(&server.client(), &ledger, &mut random, usize::MAX).await;
    assert!(server.terminate().success(), "{}", server.log());
    fsck_is_clean(&server);
    let ledger = ledger.lock().expect("no panic");
    println!("{} blobs and manifests, {} tags acknowledged", ledger.content.len(), ledger.tags.len());
    assert!(!ledger.content.is_empty(), "no push ever got through: the test has shown nothing");
}

fn fsck_is_clean(server: &deltaport_testkit::process::Server) {
    let config = server.launch().home().join("config.toml");
    let (status, text) =
        server.launch().run(&["fsck", "--config", config.to_str().expect("a plain name"), "--json"]);
    assert!(status.success(), "fsck: {status}\n{text}");
}

/// Pushes images until the server is gone.
async fn push(client: Client, pusher: u64, seed: u64, ledger: Ledger, stop: Arc<AtomicBool>) {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Relaxed) {
        // Repositories and tags are few, so that they are written again and again; content is new or pushed before.
        let repository = format!("crash/{pusher}/{}", random.below(3));
        let tag = format!("t{}", random.below(3));
        let big = random.below(8) == 0;
        let layers = vec![
            layer(random.below(500), 3000),
            layer(random.next_u64(), if big { 700_000 } else { 20_000 }),
        ];
        if push_image(&client, &repository, &tag, &Image::of("amd64", layers), &mut random, &ledger)
            .await
            .is_none()
        {
            // The server is dying or dead; the round ends when it is.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// `None` as soon as an answer does not come.
async fn push_image(
    client: &Client,
    repository: &str,
    tag: &str,
    image: &Image,
    random: &mut Random,
    ledger: &Ledger,
) -> Option<()> {
    for blob in image.blobs() {
        push_blob(client, repository, blob, random.below(2) == 0, ledger).await?;
    }
    let path = format!("/v2/{repository}/manifests/{tag}");
    let manifest = &image.manifest;
    // Only this task writes to this tag, so between the request and its answer there are two right values.
    let before = {
        let mut ledger = ledger.lock().expect("no panic");
        let entry = ledger.tags.entry(path.clone()).or_default();
        entry.1 = Some(manifest.digest);
        entry.0
    };
    let request =
        Request::put(&path).header("Content-Type", &manifest.media_type).body(manifest.bytes.clone());
    let response = client.try_send(request).await.ok()?;
    assert_eq!(response.status, 201, "{path} (was {before:?}): {}", response.text());
    let mut ledger = ledger.lock().expect("no panic");
    ledger.tags.insert(path, (Some(manifest.digest), None));
    ledger.content.push((format!("/v2/{repository}/manifests/{}", manifest.digest), manifest.digest));
    Some(())
}

async fn push_blob(
    client: &Client,
    repository: &str,
    blob: &Content,
    chunked: bool,
    ledger: &Ledger,
) -> Option<()> {
    let begun = client.try_send(Request::post(&format!("/v2/{repository}/blobs/uploads/"))).await.ok()?;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let mut location = begun.header("location")?.to_owned();
    let mut rest = blob.bytes.clone();
    if chunked {
        let first = rest.split_to(rest.len() / 2);
        let answer = client.try_send(Request::patch(&location).body(first.clone())).await.ok()?;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.header("location")?.clone_into(&mut location);
        ledger.lock().expect("no panic").uploads.push((location.clone(), first.to_vec()));
    }
    let request = Request::put(&location).query("digest", blob.digest).body(rest);
    let finished = client.try_send(request).await;
    // Whether or not the answer comes, from here on the upload may be gone.
    ledger.lock().expect("no panic").uploads.retain(|(upload, _)| *upload != location);
    let finished = finished.ok()?;
    assert_eq!(finished.status, 201, "{}", finished.text());
    let path = format!("/v2/{repository}/blobs/{}", blob.digest);
    ledger.lock().expect("no panic").content.push((path, blob.digest));
    Some(())
}

/// Looks at every tag and upload, and at the newest and some other content.
async fn check(client: &Client, ledger: &Ledger, random: &mut Random, sample: usize) {
    let (content, tags, uploads) = {
        let mut ledger = ledger.lock().expect("no panic");
        (ledger.content.clone(), ledger.tags.clone(), std::mem::take(&mut ledger.uploads))
    };
    let newest = content.iter().rev().take(sample);
    let some = (0..sample.min(content.len())).map(|_| &content[random.below(content.len() as u64) as usize]);
    let chosen: Vec<_> =
        if sample >= content.len() { content.iter().collect() } else { newest.chain(some).collect() };
    for (path, digest) in chosen {
        let response = client.send(Request::get(path)).await;
        assert_eq!(response.status, 200, "{path} was acknowledged and is gone: {}", response.text());
        assert_eq!(Digest::sha256(&response.body), *digest, "{path} has other bytes");
    }
    for (path, (acknowledged, sent)) in tags {
        let response = client.send(Request::get(&path)).await;
        if response.status == 404 && acknowledged.is_none() {
            continue;
        }
        assert_eq!(response.status, 200, "{path} was acknowledged and is gone: {}", response.text());
        let found = Some(Digest::sha256(&response.body));
        assert!(
            found == acknowledged || found == sent,
            "{path}: {found:?}, not {acknowledged:?} or {sent:?}"
        );
        ledger.lock().expect("no panic").tags.insert(path, (found, None));
    }
    for (location, first) in uploads {
        finish_upload(client, &location, &first).await;
    }
}

/// An upload whose chunk was acknowledged goes on behind that chunk.
async fn finish_upload(client: &Client, location: &str, first: &[u8]) {
    let status = client.send(Request::get(location)).await;
    assert_eq!(status.status, 204, "{location} was acknowledged and is gone: {}", status.text());
    assert_eq!(status.header("range"), Some(&*format!("0-{}", first.len() - 1)), "{location}");
    let location = status.header("location").expect("a location");
    let last = b"the rest".as_slice();
    let digest = Digest::sha256(&[first, last].concat());
    let response = client.send(Request::put(location).query("digest", digest).body(last.to_vec())).await;
    assert_eq!(response.status, 201, "{location}: {}", response.text());
}
