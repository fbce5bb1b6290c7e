//! Two replicas on one database and one bucket: what one acknowledges the other sees, and whatever they do at once ends as
//! if it had been done one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use deltaport_oci::{Digest, Reference};
use deltaport_store::{ClaimLimits, DeltaJob, Error, NewManifest, Store};
use futures_util::future::join_all;
use tempfile::TempDir;

use crate::common::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Two replicas.
struct Pair {
    home: Home,
    _other: TempDir,
    stores: [Store; 2],
}

impl Pair {
    async fn open() -> Self {
        let home = Home::hub();
        let other = home.other();
        let stores = [home.open().await, home.open_other(&other).await];
        Self { home, _other: other, stores }
    }

    /// Closes both and looks at every row and object.
    async fn assert_sound(self) {
        for store in &self.stores {
            store.close().await.unwrap();
        }
        assert_sound(&self.home);
    }
}

/// Fails unless rows agree with each other, and objects with rows.
fn assert_sound(home: &Home) {
    for (wrong, sql) in [
        (
            "said to be here or not, and the other is true",
            "SELECT manifest, position FROM reference WHERE present <> CASE
                 WHEN kind IN ('config', 'layer') AND EXISTS (SELECT 1 FROM repository_blob AS l
                     WHERE l.repository = reference.repository AND l.digest = reference.digest) THEN 1
                 WHEN kind IN ('manifest', 'subject') AND EXISTS (SELECT 1 FROM manifest AS m
                     WHERE m.repository = reference.repository AND m.digest = reference.digest) THEN 1
                 ELSE 0 END",
        ),
        (
            "never collected",
            "SELECT digest FROM blob WHERE NOT EXISTS (SELECT 1 FROM repository_blob AS l WHERE l.digest = blob.digest)
                 AND NOT EXISTS (SELECT 1 FROM manifest AS m WHERE m.digest = blob.digest)
                 AND NOT EXISTS (SELECT 1 FROM review AS r WHERE r.repository = 0 AND r.digest = blob.digest)",
        ),
        (
            "never unlinked",
            "SELECT l.digest FROM repository_blob AS l WHERE NOT EXISTS (SELECT 1 FROM reference AS r
                     WHERE r.repository = l.repository AND r.digest = l.digest AND kind IN ('config', 'layer'))
                 AND NOT EXISTS (SELECT 1 FROM review AS r WHERE r.repository = l.repository AND r.digest = l.digest)",
        ),
        (
            "empty",
            "SELECT name FROM repository AS r WHERE NOT EXISTS (SELECT 1 FROM repository_blob WHERE repository = r.id)
                 AND NOT EXISTS (SELECT 1 FROM manifest WHERE repository = r.id)",
        ),
        ("changes that are doubted", "SELECT id FROM outcome WHERE made = 0"),
    ] {
        assert_eq!(home.sql(sql), [""; 0], "{wrong}");
    }
    let objects = home.objects();
    for place in home.sql("SELECT place FROM blob WHERE place IS NOT NULL") {
        assert!(objects.iter().any(|object| object.ends_with(&place)), "{place} of {objects:?}");
    }
}

fn later() -> SystemTime {
    SystemTime::now() + 2 * HOUR
}

async fn tagged(store: &Store, name: &str) -> Option<Digest> {
    let found = store.names().manifest(&repository("app"), &Reference::Tag(tag(name))).await.unwrap();
    found.map(|manifest| manifest.digest)
}

/// A manifest that only this number has, and that needs nothing.
fn lone(number: u64, tags: &[&str]) -> NewManifest {
    let mut manifest = image(&Digest::sha256(&number.to_le_bytes()), &[], tags);
    manifest.required.clear();
    manifest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_acknowledges_the_other_sees() {
    let pair = Pair::open().await;
    let app = repository("app");
    for round in 0..20 {
        let [here, there] = [&pair.stores[round % 2], &pair.stores[(round + 1) % 2]];
        let blob = push_blob(here, &app, noise(round as u64, 1000)).await.unwrap();
        assert_eq!(pull_blob(there, &app, &blob).await.unwrap(), noise(round as u64, 1000));
        let manifest = image(&blob, &[], &["v"]);
        here.names().put_manifest(&app, manifest.clone()).await.unwrap();
        assert_eq!(tagged(there, "v").await, Some(manifest.digest), "right after the push");
        assert_eq!(tagged(here, "v").await, Some(manifest.digest));
        if round % 5 == 4 {
            assert!(there.names().delete_tag(&app, &tag("v")).await.unwrap());
            assert_eq!(tagged(here, "v").await, None);
        }
        if round % 7 == 6 {
            assert!(here.names().delete_manifest(&app, &manifest.digest).await.unwrap());
            let by_digest = Reference::Digest(manifest.digest);
            assert!(there.names().manifest(&app, &by_digest).await.unwrap().is_none());
            assert!(there.names().unlink_blob(&app, &blob).await.unwrap());
            assert_eq!(here.names().blob(&app, &blob).await.unwrap(), None);
        }
    }
    pair.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_costs_one_query_and_its_bytes_come_once() {
    let pair = Pair::open().await;
    let (app, [here, there]) = (repository("app"), &pair.stores);
    let mut manifest = lone(1, &["v"]);
    here.names().put_manifest(&app, manifest.clone()).await.unwrap();
    let references = [Reference::Tag(tag("v")), Reference::Digest(manifest.digest)];
    for reference in &references {
        let found = there.names().manifest(&app, reference).await.unwrap().unwrap();
        assert_eq!(found.bytes, manifest.bytes);
    }
    // Nobody changes bytes, so nobody sees that these are others unless they are sent again.
    pair.home.sql("UPDATE manifest SET bytes = 'x'");
    let before = there.names().statements();
    for round in 0..5 {
        for reference in &references {
            let found = there.names().manifest(&app, reference).await.unwrap().unwrap();
            assert_eq!(found.bytes, manifest.bytes, "{round}");
        }
    }
    assert_eq!(there.names().statements() - before, 10, "one each");

    manifest = lone(2, &["v"]);
    here.names().put_manifest(&app, manifest.clone()).await.unwrap();
    let before = there.names().statements();
    let found = there.names().manifest(&app, &references[0]).await.unwrap().unwrap();
    assert_eq!((found.digest, &found.bytes), (manifest.digest, &manifest.bytes));
    assert_eq!(there.names().statements() - before, 1, "also when it has moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_everybody_pushes_goes_from_one_to_the_next() {
    let pair = Pair::open().await;
    let app = repository("app");
    let pushes = (0..16).map(|n| {
        let (store, app) = (&pair.stores[n % 2], &app);
        async move { store.names().put_manifest(app, lone(n as u64, &["v"])).await }
    });
    for pushed in join_all(pushes).await {
        pushed.unwrap();
    }
    let mut seen: BTreeSet<Digest> =
        pair.stores[0].names().tag_past(&app, &tag("v"), 16).await.unwrap().into_iter().collect();
    assert_eq!(seen.len(), 15, "each has moved it once");
    seen.extend(tagged(&pair.stores[1], "v").await);
    assert_eq!(seen, (0..16).map(|n| lone(n, &[]).digest).collect());
    pair.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_delete_the_same_one_has_done_it() {
    let pair = Pair::open().await;
    let app = repository("app");
    pair.stores[0].names().put_manifest(&app, lone(0, &["v"])).await.unwrap();
    for round in 0..10 {
        pair.stores[0].names().put_manifest(&app, lone(1, &["w"])).await.unwrap();
        let deletes = (0..8).map(|n| {
            let (names, app) = (pair.stores[n % 2].names(), &app);
            async move {
                match round % 2 {
                    0 => names.delete_tag(app, &tag("w")).await,
                    _ => names.delete_manifest(app, &lone(1, &[]).digest).await,
                }
            }
        });
        let done = join_all(deletes).await.into_iter().filter(|deleted| *deleted.as_ref().unwrap());
        assert_eq!(done.count(), 1, "{round}");
    }
    pair.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_linked_while_it_is_collected_is_there_or_was_not_linked() {
    let pair = Pair::open().await;
    let (app, [here, there]) = (repository("app"), &pair.stores);
    let (mut linked, mut took) = (0, Duration::ZERO);
    for round in 0..20 {
        let bytes = noise(round, 5000);
        let blob = push_blob(here, &repository("gone"), bytes.clone()).await.unwrap();
        let collect = async {
            let begun = Instant::now();
            here.collect(later()).await.unwrap();
            here.collect(later()).await.unwrap();
            begun.elapsed()
        };
        // At any time while it is collected, which on a busy machine takes long.
        let wait = took.mul_f64(round as f64 / 20.0);
        let link = async {
            tokio::time::sleep(wait).await;
            there.names().link_blob(&app, &blob).await.unwrap()
        };
        let was_linked = if round == 0 {
            // In time for certain.
            let was_linked = link.await;
            took = collect.await;
            was_linked
        } else {
            let (collected, was_linked) = tokio::join!(collect, link);
            took = collected;
            was_linked
        };
        linked += u32::from(was_linked);
        if was_linked {
            // The collector that is under way may still unlink it: nothing refers to it.
            there.names().link_blob(&app, &blob).await.unwrap();
        }
        let here = pull_blob(here, &app, &blob).await;
        assert!(here.is_none_or(|found| found == bytes), "{round}");
    }
    assert!(linked > 0, "it was never linked in time");
    pair.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_beside_the_collector_is_whole() {
    let pair = Pair::open().await;
    let (app, [here, there]) = (repository("app"), &pair.stores);
    let bytes = noise(1, 5000);
    for round in 0..15 {
        let collect = here.collect(SystemTime::now() + HOUR / 2);
        let push = async {
            let blob = push_blob(there, &app, bytes.clone()).await.unwrap();
            there.names().put_manifest(&app, image(&blob, &[], &["v"])).await.unwrap();
            blob
        };
        let (collected, blob) = tokio::join!(collect, push);
        collected.unwrap();
        assert_eq!(pull_blob(here, &app, &blob).await.unwrap(), bytes, "{round}");
        here.names().delete_manifest(&app, &image(&blob, &[], &[]).digest).await.unwrap();
        here.names().unlink_blob(&app, &blob).await.unwrap();
        there.collect(later()).await.unwrap();
    }
    pair.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_job_is_claimed_once() {
    let pair = Pair::open().await;
    let app = repository("app");
    let mut layers = Vec::new();
    for seed in 0..6 {
        layers.push(push_blob(&pair.stores[0], &app, noise(seed, 100)).await.unwrap());
    }
    let mut jobs = Vec::new();
    for base in &layers {
        for target in layers.iter().filter(|target| *target != base) {
            jobs.push(DeltaJob { repository: app.clone(), base: *base, target: *target, waited: false });
        }
    }
    pair.stores[0].names().put_delta_jobs(jobs.clone(), 100).await.unwrap();
    let limits = ClaimLimits { kept: 100, attempts: 3 };
    let claims = (0..6).map(|n| {
        let names = pair.stores[n % 2].names();
        async move {
            let mut claimed = Vec::new();
            while let Some((job, lease)) = names.claim_delta_job(limits, HOUR).await.unwrap() {
                std::mem::forget(lease);
                claimed.push((job.base, job.target));
            }
            claimed
        }
    });
    let mut claimed: Vec<_> = join_all(claims).await.into_iter().flatten().collect();
    claimed.sort_unstable();
    let mut expected: Vec<_> = jobs.iter().map(|job| (job.base, job.target)).collect();
    expected.sort_unstable();
    assert_eq!(claimed, expected);
}

/// Numbers that a seed gives.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// One of the things that anybody may do, with few names, so that it meets what others do.
async fn anything(store: &Store, random: &mut Random) -> Result<(), Error> {
    let (names, app) = (store.names(), repository(["one", "two"][random.below(2) as usize]));
    let blob = |n: u64| noise(n, 200 + n as usize);
    let digest = |n: u64| Digest::sha256(&blob(n));
    let (one, two) = (random.below(4), random.below(4));
    let tag_name = ["v", "w"][random.below(2) as usize];
    match random.below(10) {
        0..3 => push_blob(store, &app, blob(one)).await.map(|_| ()),
        3..5 => names.put_manifest(&app, image(&digest(one), &[digest(two)], &[tag_name])).await,
        5 => names.delete_manifest(&app, &image(&digest(one), &[digest(two)], &[]).digest).await.map(|_| ()),
        6 => names.delete_tag(&app, &tag(tag_name)).await.map(|_| ()),
        7 => names.unlink_blob(&app, &digest(one)).await.map(|_| ()),
        8 => names.link_blob(&app, &digest(one)).await.map(|_| ()),
        _ => store.collect(later()).await.map(|_| ()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_at_once_could_have_happened_one_after_the_other() {
    for seed in 1..=3_u64 {
        let pair = Pair::open().await;
        let workers = (0..6_u64).map(|worker| {
            let store = pair.stores[(worker % 2) as usize].clone();
            async move {
                let mut random = Random(seed * 1000 + worker * 7919 + 1);
                for step in 0..25 {
                    match anything(&store, &mut random).await {
                        Ok(()) | Err(Error::Missing(_)) => {}
                        Err(error) => panic!("seed {seed}, worker {worker}, step {step}: {error}"),
                    }
                }
            }
        });
        for worked in join_all(workers.map(tokio::spawn)).await {
            worked.unwrap();
        }
        // Both say the same, and what is tagged can be pulled as far as it is said to be here.
        let mut said: Vec<BTreeMap<String, Option<Digest>>> = Vec::new();
        for store in &pair.stores {
            let mut tags = BTreeMap::new();
            for name in store.names().repositories(None, 10).await.unwrap().items {
                for number in 0..4 {
                    let blob = Digest::sha256(&noise(number, 200 + number as usize));
                    let held = store.names().blob(&name, &blob).await.unwrap();
                    assert_eq!(pull_blob(store, &name, &blob).await.map(|b| b.len() as u64), held);
                }
                for tag in ["v", "w"].map(tag) {
                    let found = store.names().manifest(&name, &Reference::Tag(tag.clone())).await.unwrap();
                    tags.insert(format!("{name}:{tag}"), found.map(|manifest| manifest.digest));
                }
            }
            said.push(tags);
        }
        assert_eq!(said[0], said[1], "seed {seed}");
        pair.assert_sound().await;
    }
}
