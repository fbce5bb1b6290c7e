//! Replicas are killed at random instants while clients push, pull and delete through the balancer, deltas are made and
//! fetched behind every tag that moves, and an upstream is mirrored.
//!
//! What was acknowledged is there in every replica, and what was removed is not; clients that ask again succeed. Jobs are
//! neither lost nor done twice to effect: a delta has one row and one object whoever made it, a rule was run once for each
//! time by somebody who had its lease, no blob was fetched again from the upstream unless who fetched it had died, and when
//! what nothing refers to has been collected, the bucket holds what names say and nothing else.
//!
//! `DELTAPORT_KILLS` says how often (default [`ROUNDS`]), `DELTAPORT_KILLS_SEED` replays a run as far as instants can be
//! replayed; a failure prints its seed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deltaport_testkit::sample::Random;

use crate::hub::Hub;
use crate::load::Load;
use crate::objects::Objects;
use crate::source::Source;

/// Rounds when nothing else is said.
const ROUNDS: u64 = 6;
/// The longest that all replicas live in a round, in milliseconds.
const LONGEST_LIFE: u64 = 700;
/// How long a job may take when nobody is killed any more: longer than the lease of a dead replica.
const LEASES: Duration = Duration::from_secs(180);
/// The collector runs beside everything. Who is kept waiting by dead replicas for longer than bytes stay that nothing refers
/// to is told so, as manifests are taken only when they are complete.
const COLLECT: &str = "[collect]\ninterval = \"3s\"\ngrace = \"30s\"\n\
                       [[repository]]\nnames = [\"**\"]\nvalidate = \"all\"\n";

fn number(name: &str, default: impl FnOnce() -> u64) -> u64 {
    std::env::var(name).map_or_else(|_| default(), |text| text.parse().expect(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_done_twice_when_replicas_are_killed() {
    let rounds = number("DELTAPORT_KILLS", || ROUNDS);
    let seed = number("DELTAPORT_KILLS_SEED", || {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    });
    println!("{rounds} rounds, DELTAPORT_KILLS_SEED={seed}");
    let (mut random, begun) = (Random::new(seed), Instant::now());
    let tell = |what: &str| println!("{:>6.1} s: {what}", begun.elapsed().as_secs_f64());
    let mut source = Source::start(seed).await;
    let objects = Objects::start().in_parts_of("5MiB");
    let (history, mut hub) = Hub::watched(3, objects, &(source.rules() + COLLECT)).await;
    let balancer = hub.balancer();
    let load = Load::start(&hub, &balancer.client(), seed);
    for round in 0..rounds {
        source.publish(round).await;
        tokio::time::sleep(Duration::from_millis(random.below(LONGEST_LIFE))).await;
        let victim = usize::try_from(random.below(3)).expect("a replica");
        let asked = source.asked();
        hub.replicas[victim].kill();
        hub.replicas[victim].start_again().await;
        source.killed(asked);
    }
    tell("the last replica was killed");
    let world = load.stop().await;
    tell("clients have ended");
    history.wait_for_tags(&source.tags(), LEASES).await;
    tell(&format!("{} tags mirrored", source.tags().len()));
    let deltas = history.wait_for_deltas(LEASES).await;
    tell(&format!("{deltas} deltas, no job is left"));
    history.is_in_order(&world.ledger.promised());
    let proven = world.deltas_are_there(LEASES, &history.not_worth_it()).await;
    tell(&format!("{proven} deltas fetched from each replica and applied"));
    world.is_there().await;
    tell("everything that was acknowledged is in each replica");
    source.is_mirrored(&world).await;
    let (fetched, again) = source.was_asked_once();
    tell(&format!("{fetched} blobs fetched from upstream, {again} again after a kill"));
    hub.check();
    let objects = history.is_collected(&hub);
    hub.check();
    tell(&format!("{objects} objects, each of them named"));
    println!("{world}\n{}", history.figures());
}
