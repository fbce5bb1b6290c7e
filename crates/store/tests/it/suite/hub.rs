//! What a hub makes deltas by: the past of tags, and the list of those that are to be made.

use std::time::Duration;

use deltaport_oci::{Digest, RepositoryName};
use deltaport_store::{ClaimLimits, DeltaJob, Error, LayerDelta, Store};

use super::home;
use crate::common::*;

const HOUR: Duration = Duration::from_secs(3600);
const LIMITS: ClaimLimits = ClaimLimits { kept: 16, attempts: 3 };

/// Pushes an image that only this number has, under `tags`.
pub(crate) async fn push(store: &Store, number: u64, tags: &[&str]) -> Digest {
    let app = repository("app");
    let config = push_blob(store, &app, noise(number, 100)).await.unwrap();
    let manifest = image(&config, &[], tags);
    let digest = manifest.digest;
    store.names().put_manifest(&app, manifest).await.unwrap();
    digest
}

pub(crate) async fn past(store: &Store, name: &str) -> Vec<Digest> {
    store.names().tag_past(&repository("app"), &tag(name), 100).await.unwrap()
}

#[tokio::test]
async fn a_tag_remembers_where_it_pointed() {
    let dir = home();
    let store = dir.open().await;
    let names = store.names();
    let [one, two] = [push(&store, 1, &["v", "w"]).await, push(&store, 2, &["v"]).await];
    assert_eq!(past(&store, "v").await, [one]);
    assert_eq!(past(&store, "w").await, []);
    assert_eq!(past(&store, "nowhere").await, []);
    push(&store, 2, &["v"]).await;
    assert_eq!(past(&store, "v").await, [one], "it did not move");
    push(&store, 1, &["v"]).await;
    assert_eq!(past(&store, "v").await, [two], "where it points now is not past");
    let three = push(&store, 3, &["v"]).await;
    assert_eq!(past(&store, "v").await, [one, two], "each once, the last first");
    assert_eq!(names.tag_past(&repository("app"), &tag("v"), 1).await.unwrap(), [one]);

    names.delete_manifest(&repository("app"), &two).await.unwrap();
    assert_eq!(past(&store, "v").await, [one], "what is gone is no base");
    push(&store, 2, &[]).await;
    assert_eq!(past(&store, "v").await, [one, two], "and is one when it is back");

    assert!(names.delete_tag(&repository("app"), &tag("v")).await.unwrap());
    push(&store, 3, &["v"]).await;
    assert_eq!(past(&store, "v").await, [], "the past goes with the tag");
    push(&store, 4, &["v"]).await;
    assert_eq!(past(&store, "v").await, [three]);
    names.delete_manifest(&repository("app"), &push(&store, 4, &[]).await).await.unwrap();
    store.close().await.unwrap();
    dir.assert_clean();
}

#[tokio::test]
async fn the_past_of_a_tag_has_an_end_and_is_made_again_from_the_journal() {
    let dir = home();
    let store = dir.open().await;
    let mut digests = Vec::new();
    for number in 0..20 {
        digests.push(push(&store, number, &["v"]).await);
    }
    push(&store, 10, &["v"]).await;
    let mut expected: Vec<Digest> = digests[3..].to_vec();
    expected.retain(|digest| *digest != digests[10]);
    expected.reverse();
    assert_eq!(past(&store, "v").await, expected, "16 at most, and the oldest go first");
    store.close().await.unwrap();
    drop(store);
    dir.assert_clean();
    let (before, ways): (_, &[bool]) = match dir.is_embedded() {
        true => (dir.state(), &[false, true]),
        false => (Vec::new(), &[]),
    };
    for compacted in ways.iter().copied() {
        if compacted {
            // A journal that is lost is written again from the database.
            std::fs::write(dir.path().join("journal"), "").unwrap();
            dir.open().await.close().await.unwrap();
            dir.assert_clean();
        }
        std::fs::remove_file(dir.file()).unwrap();
        assert_eq!(dir.rebuild().lost, 0);
        assert_eq!(dir.state(), before, "compacted: {compacted}");
        dir.assert_clean();
    }
    let store = dir.open().await;
    push(&store, 50, &["v"]).await;
    assert_eq!(past(&store, "v").await[0], digests[10], "it goes on behind");
}

/// A store with these many layers in `app`.
async fn with_layers(home: &Home, count: u64) -> (Store, RepositoryName, Vec<Digest>) {
    let (store, app) = (home.open().await, repository("app"));
    let mut layers = Vec::new();
    for seed in 0..count {
        layers.push(push_blob(&store, &app, noise(seed, 1000)).await.unwrap());
    }
    (store, app, layers)
}

fn job(base: Digest, target: Digest, waited: bool) -> DeltaJob {
    DeltaJob { repository: repository("app"), base, target, waited }
}

async fn put(store: &Store, job: DeltaJob) -> bool {
    store.names().put_delta_jobs(vec![job], 10).await.unwrap() == [true]
}

/// Takes up a job as who never gives it back.
async fn claim(store: &Store) -> Option<DeltaJob> {
    let (job, lease) = store.names().claim_delta_job(LIMITS, HOUR).await.unwrap()?;
    std::mem::forget(lease);
    Some(job)
}

#[tokio::test]
async fn jobs_are_taken_up_in_turn_and_whoever_waits_comes_first() {
    let dir = home();
    let (store, _, layers) = with_layers(&dir, 4).await;
    let [a, b, c, d] = layers[..] else { panic!("four layers") };
    assert_eq!(claim(&store).await, None);
    let ahead = vec![job(a, d, false), job(b, d, false), job(c, d, false)];
    assert_eq!(
        store.names().put_delta_jobs(ahead, 2).await.unwrap(),
        [true, true, false],
        "there is room for two"
    );
    assert!(put(&store, job(c, d, true)).await, "another urgency");
    assert!(put(&store, job(b, d, true)).await);
    assert!(put(&store, job(b, d, false)).await, "it stays as urgent as it is");
    for expected in [job(c, d, true), job(b, d, true)] {
        assert_eq!(claim(&store).await, Some(expected));
    }
    let (last, lease) = store.names().claim_delta_job(LIMITS, HOUR).await.unwrap().unwrap();
    assert_eq!(last, job(a, d, false));
    assert_eq!(claim(&store).await, None);
    assert!(put(&store, job(a, d, true)).await, "it is being made");
    assert_eq!(claim(&store).await, None, "once");

    lease.give_back().await;
    let (last, lease) = store.names().claim_delta_job(LIMITS, HOUR).await.unwrap().unwrap();
    assert_eq!(last, job(a, d, false));
    store.names().end_delta_job(&last, &lease.holder()).await.unwrap();
    store.names().put_layer_delta(&repository("app"), &b, &d, &LayerDelta::NotWorthIt).await.unwrap();
    assert!(put(&store, job(b, d, true)).await, "what is known needs no job");
    assert_eq!(claim(&store).await, None);
    assert!(!put(&store, job(Digest::sha256(b"absent"), d, true)).await);
}

#[tokio::test]
async fn jobs_survive_a_restart_but_not_forever() {
    let dir = home();
    let (mut store, _, layers) = with_layers(&dir, 3).await;
    let [a, b, c] = layers[..] else { panic!("three layers") };
    assert!(put(&store, job(a, c, true)).await && put(&store, job(b, c, false)).await);
    // Whoever claims the first one dies of it each time.
    for _ in 0..LIMITS.attempts {
        assert_eq!(claim(&store).await, Some(job(a, c, true)));
        store.close().await.unwrap();
        drop(store);
        dir.assert_clean();
        if !dir.has_names() {
            // Another replica may have it, so it stays claimed until its lease ends.
            dir.sql("UPDATE delta_job SET until = 0");
        }
        store = dir.open().await;
    }
    assert_eq!(claim(&store).await, Some(job(b, c, false)));
    assert_eq!(claim(&store).await, None);
}

#[tokio::test]
async fn jobs_go_with_either_layer() {
    let dir = home();
    let (store, app, layers) = with_layers(&dir, 5).await;
    let [a, b, c, d, e] = layers[..] else { panic!("five layers") };
    for (base, target) in [(a, b), (b, c), (d, e)] {
        assert!(put(&store, job(base, target, false)).await);
    }
    assert!(store.names().unlink_blob(&app, &b).await.unwrap());
    assert_eq!(claim(&store).await, Some(job(d, e, false)));
    assert_eq!(claim(&store).await, None);
    // One that is being made goes too: its delta is of no use any more.
    assert!(store.names().unlink_blob(&app, &e).await.unwrap());
    let known = store.names().put_layer_delta(&app, &d, &e, &LayerDelta::NotWorthIt).await;
    assert!(matches!(known, Err(Error::Missing(_))));
    for layer in [a, c, d] {
        assert!(store.names().unlink_blob(&app, &layer).await.unwrap());
    }
    assert!(!store.names().repository_exists(&app).await.unwrap());
    store.close().await.unwrap();
    dir.assert_clean();
}

#[tokio::test]
async fn what_is_being_made_counts_as_kept() {
    let dir = home();
    let (store, app, layers) = with_layers(&dir, 5).await;
    let limits = ClaimLimits { kept: 2, ..LIMITS };
    for base in &layers[1..] {
        assert!(put(&store, job(*base, layers[0], true)).await);
    }
    let names = store.names();
    names.put_layer_delta(&app, &layers[1], &layers[0], &LayerDelta::Blob(layers[4])).await.unwrap();
    let (claimed, _lease) = names.claim_delta_job(limits, HOUR).await.unwrap().unwrap();
    assert_eq!(claimed, job(layers[2], layers[0], true));
    assert!(names.claim_delta_job(limits, HOUR).await.unwrap().is_none(), "one is kept, one is being made");
    names.put_layer_delta(&app, &layers[2], &layers[0], &LayerDelta::NotWorthIt).await.unwrap();
    assert!(put(&store, job(layers[3], layers[0], true)).await);
    assert!(names.claim_delta_job(limits, HOUR).await.unwrap().is_some(), "that one takes no room");
}
