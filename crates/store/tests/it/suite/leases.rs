//! What only one may do at a time, and what is done once for each time that it is due.

use std::time::Duration;

use deltaport_store::{ClaimLimits, DeltaJob, LayerDelta, Store};
use tokio::time::{Instant, sleep};

use super::home;
use crate::common::*;

/// Short enough to be waited for, and long enough for a disk that is slow.
const LIFE: Duration = Duration::from_millis(1200);

pub(crate) async fn is_free(store: &Store, name: &str) -> bool {
    let taken = store.names().lease(name, LIFE).await.unwrap();
    match taken {
        Some(lease) => {
            lease.give_back().await;
            true
        }
        None => false,
    }
}

#[tokio::test]
async fn a_lease_is_one_holders_until_it_is_given_back_or_ends() {
    let dir = home();
    let store = dir.open().await;
    let names = store.names();
    let mut lease = names.lease("collect", LIFE).await.unwrap().unwrap();
    assert!(names.lease("collect", LIFE).await.unwrap().is_none());
    assert!(is_free(&store, "review").await, "another one");
    assert_eq!(lease.hold(async { 7 }).await, Some(7));
    assert!(!is_free(&store, "collect").await);
    lease.give_back().await;
    assert!(is_free(&store, "collect").await);

    drop(names.lease("collect", LIFE).await.unwrap().unwrap());
    let deadline = Instant::now() + LIFE / 2;
    while !is_free(&store, "collect").await {
        assert!(Instant::now() < deadline, "what is dropped is given back");
    }

    // Who dies gives nothing back.
    std::mem::forget(names.lease("collect", LIFE).await.unwrap().unwrap());
    assert!(!is_free(&store, "collect").await);
    sleep(LIFE).await;
    assert!(is_free(&store, "collect").await);
}

#[tokio::test]
async fn who_works_for_long_keeps_it() {
    let dir = home();
    let store = dir.open().await;
    let mut lease = store.names().lease("collect", LIFE).await.unwrap().unwrap();
    let work = lease.hold(sleep(LIFE * 3));
    let others = async {
        for _ in 0..10 {
            sleep(LIFE / 4).await;
            assert!(!is_free(&store, "collect").await);
        }
    };
    assert_eq!(tokio::join!(work, others).0, Some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stood_still_for_too_long_stops_once_somebody_else_has_it() {
    let dir = home();
    let store = dir.open().await;
    let mut lease = store.names().lease("collect", LIFE).await.unwrap().unwrap();
    let working = tokio::spawn(async move {
        let work = async {
            // As a machine that was suspended.
            std::thread::sleep(LIFE * 2);
            std::future::pending::<()>().await;
        };
        lease.hold(work).await
    });
    sleep(LIFE + LIFE / 4).await;
    let other = store.names().lease("collect", LIFE * 10).await.unwrap().unwrap();
    assert_eq!(working.await.unwrap(), None);
    assert!(!is_free(&store, "collect").await, "what is lost is not given back");
    drop(other);
}

#[tokio::test]
async fn a_delta_whose_maker_died_is_made_by_another_and_one_that_rests_is_not() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("app"));
    let base = push_blob(&store, &app, noise(1, 1000)).await.unwrap();
    let target = push_blob(&store, &app, noise(2, 1000)).await.unwrap();
    let (names, limits) = (store.names(), ClaimLimits { kept: 4, attempts: 3 });
    let job = DeltaJob { repository: app, base, target, waited: true };
    assert!(!names.has_delta_jobs().await.unwrap());
    names.put_delta_jobs(vec![job.clone()], 10).await.unwrap();
    assert!(names.has_delta_jobs().await.unwrap());

    let (_, died) = names.claim_delta_job(limits, LIFE).await.unwrap().unwrap();
    std::mem::forget(died);
    assert!(names.claim_delta_job(limits, LIFE).await.unwrap().is_none());
    sleep(LIFE).await;
    let (again, lease) = names.claim_delta_job(limits, LIFE).await.unwrap().unwrap();
    assert_eq!(again, job);
    lease.rest(LIFE * 2).await.unwrap();
    sleep(LIFE + LIFE / 4).await;
    assert!(names.claim_delta_job(limits, LIFE).await.unwrap().is_none(), "it rests");
    sleep(LIFE).await;
    let (_, lease) = names.claim_delta_job(limits, LIFE).await.unwrap().unwrap();
    names.end_delta_job(&job, &lease.holder()).await.unwrap();
    drop(lease);
    assert!(!names.has_delta_jobs().await.unwrap());
}

#[tokio::test]
async fn what_comes_late_of_who_has_lost_a_lease_has_no_effect() {
    let dir = home();
    let (store, app) = (dir.open().await, repository("app"));
    let base = push_blob(&store, &app, noise(1, 1000)).await.unwrap();
    let target = push_blob(&store, &app, noise(2, 1000)).await.unwrap();
    let (names, limits) = (store.names(), ClaimLimits { kept: 4, attempts: 3 });
    let job = DeltaJob { repository: app.clone(), base, target, waited: true };
    names.put_delta_jobs(vec![job.clone()], 10).await.unwrap();

    let (_, late) = names.claim_delta_job(limits, LIFE).await.unwrap().unwrap();
    let too_late = late.holder();
    std::mem::forget(late);
    sleep(LIFE).await;
    let (_, lease) = names.claim_delta_job(limits, LIFE * 100).await.unwrap().unwrap();
    assert!(!names.put_made_delta(&job, &too_late, &LayerDelta::Blob(base)).await.unwrap());
    names.end_delta_job(&job, &too_late).await.unwrap();
    assert_eq!(names.layer_delta(&app, &base, &target).await.unwrap(), None);
    assert!(names.has_delta_jobs().await.unwrap(), "it is another's");
    assert!(names.put_made_delta(&job, &lease.holder(), &LayerDelta::NotWorthIt).await.unwrap());
    assert!(!names.has_delta_jobs().await.unwrap());
    assert!(!names.put_made_delta(&job, &too_late, &LayerDelta::Blob(base)).await.unwrap());
    assert_eq!(names.layer_delta(&app, &base, &target).await.unwrap(), Some(LayerDelta::NotWorthIt));

    assert!(names.begin_slot("mirror", 1).await.unwrap());
    names.end_slot("mirror", 1).await.unwrap();
    let done = names.slot("mirror").await.unwrap();
    sleep(LIFE / 4).await;
    names.end_slot("mirror", 1).await.unwrap();
    assert_eq!(names.slot("mirror").await.unwrap(), done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_claims_at_the_same_time_gets_another_job_and_only_one_gets_a_lease() {
    const JOBS: u64 = 24;
    let dir = home();
    let (store, app) = (dir.open().await, repository("app"));
    let target = push_blob(&store, &app, noise(100, 1000)).await.unwrap();
    let mut jobs = Vec::new();
    for seed in 0..JOBS {
        let base = push_blob(&store, &app, noise(seed, 1000)).await.unwrap();
        jobs.push(DeltaJob { repository: app.clone(), base, target, waited: false });
    }
    store.names().put_delta_jobs(jobs, 100).await.unwrap();
    let hour = Duration::from_secs(3600);
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = store.clone();
        workers.spawn(async move {
            let limits = ClaimLimits { kept: 100, attempts: 3 };
            let mut bases = Vec::new();
            while let Some((job, lease)) = store.names().claim_delta_job(limits, hour).await.unwrap() {
                bases.push(job.base);
                std::mem::forget(lease);
            }
            let lease = store.names().lease("once", hour).await.unwrap();
            (bases, lease.map(std::mem::forget).is_some())
        });
    }
    let ended = workers.join_all().await;
    let mut bases: Vec<_> = ended.iter().flat_map(|(bases, _)| bases.clone()).collect();
    assert_eq!(bases.len() as u64, JOBS);
    bases.sort_unstable();
    bases.dedup();
    assert_eq!(bases.len() as u64, JOBS, "each was claimed once");
    assert_eq!(ended.iter().filter(|(_, held)| *held).count(), 1);
}

#[tokio::test]
async fn what_is_due_is_done_once_and_taken_up_again_until_it_is() {
    let dir = home();
    let store = dir.open().await;
    let names = store.names();
    assert_eq!(names.slot("nightly").await.unwrap(), None);
    assert!(names.begin_slot("nightly", 100).await.unwrap());
    assert!(names.begin_slot("nightly", 100).await.unwrap(), "whoever began it may be dead");
    assert_eq!(names.slot("nightly").await.unwrap().unwrap().done, None);
    names.end_slot("nightly", 100).await.unwrap();
    assert!(names.slot("nightly").await.unwrap().unwrap().done.is_some());
    for due in [100, 99] {
        assert!(!names.begin_slot("nightly", due).await.unwrap(), "{due}");
    }
    assert!(names.begin_slot("nightly", 200).await.unwrap());
    names.end_slot("nightly", 100).await.unwrap();
    assert_eq!(names.slot("nightly").await.unwrap().unwrap().done, None, "that is another one");
    assert!(!names.begin_slot("nightly", 100).await.unwrap());
    assert!(names.begin_slot("other", 100).await.unwrap());
}
