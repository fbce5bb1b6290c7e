//! Replicas are killed at random instants while clients push and pull through the balancer, deltas are made behind every
//! tag that moves, and an upstream is mirrored. What was acknowledged is there in every replica, and clients that ask again succeed.
//!
//! `DELTAPORT_KILLS` says how often (default [`ROUNDS`]), `DELTAPORT_KILLS_SEED` replays a run as far as instants can be
//! replayed; a failure prints its seed.

use std::slice;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deltaport_testkit::process::Launch;
use deltaport_testkit::sample::Random;

use crate::hub::{Hub, push};
use crate::load::Load;
use crate::objects::Objects;

/// Rounds when nothing else is said.
const ROUNDS: u64 = 6;
/// The longest that all replicas live in a round, in milliseconds.
const LONGEST_LIFE: u64 = 700;
/// How long a job may take when nobody is killed any more: longer than its lease.
const LEASES: Duration = Duration::from_secs(180);

/// What is mirrored meanwhile, a tag for each round.
const MIRRORED: &str = "source.example/lib/app";

fn number(name: &str, default: impl FnOnce() -> u64) -> u64 {
    std::env::var(name).map_or_else(|_| default(), |text| text.parse().expect(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_replicas_are_killed() {
    let rounds = number("DELTAPORT_KILLS", || ROUNDS);
    let seed = number("DELTAPORT_KILLS_SEED", || {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    });
    println!("{rounds} rounds, DELTAPORT_KILLS_SEED={seed}");
    let mut random = Random::new(seed);
    let source =
        Launch::new(env!("CARGO_BIN_EXE_deltaport")).config("public_upstreams = false\n").start().await;
    let upstream = source.client();
    let mirror = format!(
        "[[upstream]]\nhost = \"source.example\"\nurl = \"http://{}\"\n[[mirror]]\nname = \"all\"\n\
         source = \"source.example/lib/app\"\ntags = [\"*\"]\nevery = \"1s\"\n",
        source.address()
    );
    let mut hub = Hub::start_with(3, Objects::start(), &mirror).await;
    let balancer = hub.balancer();
    let load = Load::start(&balancer.client(), seed);
    for round in 0..rounds {
        push(slice::from_ref(&upstream), "lib/app", &format!("v{round}"), seed ^ round, 300_000).await;
        tokio::time::sleep(Duration::from_millis(random.below(LONGEST_LIFE))).await;
        let victim = usize::try_from(random.below(3)).expect("a replica");
        hub.replicas[victim].kill();
        hub.replicas[victim].start_again().await;
    }
    println!("{}", load.end(&hub).await);
    let deadline = Instant::now() + LEASES;
    while hub.tags(MIRRORED) < usize::try_from(rounds).expect("a few") {
        assert!(Instant::now() < deadline, "of {rounds} tags {} were mirrored", hub.tags(MIRRORED));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{rounds} tags mirrored");
    println!("{} deltas, no job is left", hub.wait_for_deltas(LEASES).await);
    hub.check();
}
