//! Replicas are killed at random instants while clients push and pull through the balancer and deltas are made behind
//! every tag that moves. What was acknowledged is there in every replica, and clients that ask again succeed.
//!
//! `DELTAPORT_KILLS` says how often (default [`ROUNDS`]), `DELTAPORT_KILLS_SEED` replays a run as far as instants can be
//! replayed; a failure prints its seed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deltaport_testkit::sample::Random;

use crate::hub::Hub;
use crate::load::Load;
use crate::objects::Objects;

/// Rounds when nothing else is said.
const ROUNDS: u64 = 6;
/// The longest that all replicas live in a round, in milliseconds.
const LONGEST_LIFE: u64 = 700;
/// How long a job may take when nobody is killed any more: longer than its lease.
const LEASES: Duration = Duration::from_secs(180);

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
    let mut hub = Hub::start(3, Objects::start()).await;
    let balancer = hub.balancer();
    let load = Load::start(&balancer.client(), seed);
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(random.below(LONGEST_LIFE))).await;
        let victim = usize::try_from(random.below(3)).expect("a replica");
        hub.replicas[victim].kill();
        hub.replicas[victim].start_again().await;
    }
    println!("{}", load.end(&hub).await);
    println!("{} deltas, no job is left", hub.wait_for_deltas(LEASES).await);
    hub.check();
}
