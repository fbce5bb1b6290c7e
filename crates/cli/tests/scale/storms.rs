//! The database is restarted, and the bucket fails in every way that it can, while clients push and pull. No answer is
//! wrong, and everything recovers by itself.
//!
//! `DELTAPORT_STORM_SECONDS` says how long each trouble lasts (default [`SECONDS`]).

use std::time::Duration;

use deltaport_testkit::postgres;
use deltaport_testkit::s3::Fault;

use crate::hub::Hub;
use crate::load::Load;
use crate::objects::Objects;

/// How long each trouble lasts when nothing else is said.
const SECONDS: u64 = 2;
/// What chance goes by.
const SEED: u64 = 7;

fn trouble() -> Duration {
    let seconds = std::env::var("DELTAPORT_STORM_SECONDS").ok();
    Duration::from_secs(seconds.map_or(SECONDS, |text| text.parse().expect("DELTAPORT_STORM_SECONDS")))
}

/// Time for clients to see that it is over.
const CALM: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_and_comes_costs_nothing_but_time() {
    let server = postgres::Server::start();
    let database = server.database();
    let hub = Hub::over(3, Objects::kit(), &database.url()).await;
    let balancer = hub.balancer();
    let load = Load::start(&hub, &balancer.client(), SEED);
    tokio::time::sleep(CALM).await;
    server.stop();
    tokio::time::sleep(trouble()).await;
    server.start_again();
    tokio::time::sleep(CALM).await;
    // And as an administrator does it, connection by connection.
    for _ in 0..3 {
        database.disconnect_everybody();
        tokio::time::sleep(CALM / 2).await;
    }
    let world = load.stop().await;
    world.is_there().await;
    println!("{world}");
    hub.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_in_trouble_costs_nothing_but_time() {
    let hub = Hub::start(3, Objects::kit()).await;
    let (balancer, objects) = (hub.balancer(), hub.objects.counting());
    let load = Load::start(&hub, &balancer.client(), SEED);
    tokio::time::sleep(CALM).await;
    for fault in [Fault::Status(500), Fault::Status(503), Fault::Slow(Duration::from_secs(1))] {
        println!("{fault:?}");
        objects.breaks(fault, |_| true);
        tokio::time::sleep(trouble()).await;
        objects.mends();
        tokio::time::sleep(CALM).await;
    }
    println!("away");
    objects.stop();
    tokio::time::sleep(trouble()).await;
    objects.start_again();
    let torn = [
        Fault::LoseAnswer,
        Fault::Twice,
        Fault::CutRequest(1000),
        Fault::CutAnswer(1000),
        Fault::Status(500),
    ];
    println!("{torn:?}");
    objects.breaks_by_chance(SEED, 5, &torn);
    tokio::time::sleep(trouble()).await;
    objects.mends();
    let world = load.stop().await;
    world.is_there().await;
    println!("{world}");
    hub.check();
}
