//! Thousands of fills over a link whose faults a seed decides: no wrong byte ever, and no byte fetched twice without cause.
//!
//! `DELTAPORT_LINK_SEED` replays one seed, `DELTAPORT_LINK_FILLS` says how many fills; a failure names its seed.

use std::time::Duration;

use deltaport_oci::wire::ByteRange;
use deltaport_registry::pull::Body;
use deltaport_testkit::sample::{Content, Random};
use deltaport_testkit::upstream::{Reply, Upstream as Script};

use crate::site::*;

/// The seeds begin here; each fill has one.
const SEED: u64 = 0x5eed;
/// How many fills, when nothing else is said: enough to meet everything, few enough for every run of the tests.
const FILLS: u64 = 400;
/// How many of them share a site and an upstream, and go on at the same time.
const AT_ONCE: u64 = 200;
/// How often a client comes back before the test gives up. Each attempt meets at most a few faults.
const ATTEMPTS: usize = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What one fill costs beyond its bytes, and why.
struct Plan {
    content: Content,
    replies: Vec<Reply>,
    /// Bytes that may come again: for an upstream that cannot resume, and for wrong ones.
    excused: u64,
}

/// Makes up to eight faulty answers; the upstream is well behind them.
fn plan(seed: u64) -> Plan {
    let mut random = Random::new(seed);
    let size = match random.below(4) {
        0 => random.below(2000),
        1 => HELD_BACK as u64 + random.below(3),
        _ => random.below(400_000),
    };
    let size = usize::try_from(size).unwrap().max(1);
    let content = Content::new("application/octet-stream", random.bytes(size));
    let mut excused = 0;
    let wrong = || {
        let mut bytes = content.bytes.to_vec();
        bytes[size / 2] ^= 0x10;
        Content { bytes: bytes.into(), ..content.clone() }
    };
    let replies = (0..random.below(9))
        .map(|_| {
            let cut = usize::try_from(random.below(size as u64 + 1)).unwrap();
            match random.below(12) {
                0..=2 => Reply::content(&content).reset_after(cut),
                3..=4 => Reply::content(&content).truncated_after(cut),
                5 => Reply::content(&content).stalled_after(cut),
                6 => Reply::status([408, 500, 502, 503, 504][random.below(5) as usize]),
                7 => {
                    excused += size as u64;
                    Reply::content(&content).whole().truncated_after(cut)
                }
                8 => {
                    // Not what was asked for, or no answer to it; asked without a range, all of it comes.
                    excused += size as u64;
                    Reply::status(206).header("Content-Range", "bytes 1-2/3").body("xx")
                }
                9 => {
                    excused += size as u64;
                    Reply::status(416)
                }
                10 => {
                    // Bytes that are wrong spoil everything up to the proof, and one more time after it.
                    excused += 2 * size as u64;
                    Reply::content(&wrong()).truncated_after(cut)
                }
                _ => Reply::content(&content).slowly(Duration::from_millis(1)),
            }
        })
        .collect();
    Plan { content, replies, excused }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wrong_byte_ever_and_none_twice_without_cause() {
    if let Some(seed) = number("DELTAPORT_LINK_SEED") {
        return fills(seed, 1).await;
    }
    let count = number("DELTAPORT_LINK_FILLS").unwrap_or(FILLS);
    for first in (0..count).step_by(AT_ONCE as usize) {
        fills(SEED + first, AT_ONCE.min(count - first)).await;
    }
}

/// What the upstream is called for one seed, so that what it costs is counted for itself.
fn host(seed: u64) -> String {
    format!("seed{seed}.example")
}

/// Runs the fills of some seeds over one upstream.
async fn fills(first: u64, count: u64) {
    let plans: Vec<_> = (first..first + count).map(|seed| (seed, plan(seed))).collect();
    let rules = plans.iter().flat_map(|(_, plan)| {
        let faulty = plan.replies.iter().map(|reply| blob_rule(&plan.content).times(1).reply(reply.clone()));
        faulty.chain([blob_rule(&plan.content).reply(Reply::content(&plan.content))])
    });
    let script = Script::start(rules.collect()).await;
    let mut setup = Setup { stall: Duration::from_millis(80), in_memory: true, ..Setup::default() };
    setup.fill.patience = Duration::from_millis(200);
    setup.fill.concurrent = 200;
    setup.hosts = plans.iter().map(|(seed, _)| host(*seed)).collect();
    let site = Site::with(&script, setup).await;
    let mut clients = tokio::task::JoinSet::new();
    for (seed, plan) in &plans {
        let (registry, content, seed) = (site.registry.clone(), plan.content.clone(), *seed);
        clients.spawn(async move { pull(&registry, &content, seed).await });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    for ((seed, plan), upstream) in plans.iter().zip(&site.upstreams) {
        let (size, received) = (plan.content.bytes.len() as u64, upstream.received());
        assert!(
            received >= size && received <= size + plan.excused,
            "seed {seed}: {received} bytes for {size}, {} more excused",
            plan.excused
        );
    }
    eventually("nothing is left", async || site.kept() == 0).await;
}

/// A client that tries until it has the whole blob, and goes on where its connection broke, now and then.
async fn pull(registry: &deltaport_registry::Registry, content: &Content, seed: u64) {
    let mut random = Random::new(!seed);
    let name = format!("{}/app", host(seed)).parse().unwrap();
    for _ in 0..ATTEMPTS {
        let Ok(body) = registry.blob(&name, &content.digest).await else { continue };
        let size = content.bytes.len() as u64;
        assert_eq!(body.size(), size, "seed {seed}");
        let start = if random.below(3) == 0 { random.below(size) } else { 0 };
        let mut stream = body.read(ByteRange { start, end: size });
        let mut received = Vec::new();
        let whole = loop {
            match futures_util::StreamExt::next(&mut stream).await {
                None => break true,
                Some(Ok(chunk)) => received.extend_from_slice(&chunk),
                Some(Err(_)) => break false,
            }
        };
        assert!(whole || received.len() as u64 + start < size, "seed {seed}: all of it, and then an error");
        if whole {
            let expected = &content.bytes[usize::try_from(start).unwrap()..];
            assert!(received == expected, "seed {seed}: a whole wrong blob from {start}");
            if matches!(body, Body::Stored(_)) {
                return;
            }
        }
    }
    panic!("seed {seed}: it never arrived");
}
