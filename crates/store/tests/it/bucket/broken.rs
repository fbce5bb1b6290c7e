//! A service that fails, is slow, loses answers, or is away for a while.

use std::time::{Duration, SystemTime};

use deltaport_oci::Digest;
use deltaport_store::{BucketOptions, Error, check_bucket};
use deltaport_testkit::s3::{Fault, Kind};

use super::*;

#[tokio::test]
async fn lost_answers_and_repeated_requests_change_nothing() {
    for fault in [Fault::LoseAnswer, Fault::Twice, Fault::Status(500), Fault::Status(503)] {
        for kind in [Kind::Put, Kind::Create, Kind::Part, Kind::Complete] {
            let home = Home::new();
            let (store, a) = (home.open().await, repository("a"));
            home.server.breaks_times(1, fault.clone(), move |asked| asked.kind == kind);
            for (seed, len) in [(1, 100_000), (2, 6_000_000)] {
                let bytes = noise(seed, len);
                let digest = push_in_two(&store, "a", &bytes).await;
                assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes, "{fault:?} {kind:?}");
            }
            let bytes = noise(3, 6_000_000);
            home.server.breaks_times(1, fault.clone(), move |asked| asked.kind == kind);
            let digest = push_blob(&store, &a, bytes.clone()).await.unwrap();
            assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes, "{fault:?} {kind:?}");
        }
    }
}

#[tokio::test]
async fn a_torn_part_is_sent_again() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    home.server.breaks_times(2, Fault::CutRequest(1_000_000), |asked| asked.kind == Kind::Part);
    let bytes = noise(1, 11_000_000);
    let digest = push_in_two(&store, "a", &bytes).await;
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
}

#[tokio::test]
async fn while_it_is_away_nothing_is_wrong_and_then_all_goes_on() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    let kept = push_blob(&store, &a, noise(1, 1000)).await.unwrap();
    for away in [true, false] {
        match away {
            true => home.server.stop(),
            false => home.server.breaks(Fault::Status(503), |_| true),
        }
        let error = push_blob(&store, &a, noise(3, 1000)).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        let blob = store.blobs().open(&kept).await.unwrap().unwrap();
        assert!(read_range(&blob, 0, 1000).await.is_err());
        // Names are not in the bucket.
        store.names().put_manifest(&a, image(&kept, &[kept], &["v1"])).await.unwrap();
        // What waits to be removed waits longer.
        store.collect(SystemTime::now() + Duration::from_secs(60)).await.unwrap();
        match away {
            true => home.server.start_again(),
            false => home.server.mends(),
        }
    }
    assert_eq!(pull_blob(&store, &a, &kept).await.unwrap(), noise(1, 1000));
    push_blob(&store, &a, noise(3, 1000)).await.unwrap();
    home.collect(&store).await;
    assert_eq!(home.objects(), 1, "what nothing refers to is gone");
}

#[tokio::test]
async fn an_upload_goes_on_when_the_service_is_back() {
    let home = Home::new();
    let (store, a) = (home.open().await, repository("a"));
    let bytes = noise(2, 13_000_000);
    let digest = Digest::sha256(&bytes);
    let id = store.uploads().begin(&a, OWNER, None, 10).await.unwrap();
    let mut appender = store.uploads().append(&a, &id, OWNER, None).await.unwrap();
    appender.write(bytes.slice(..5_500_000)).await.unwrap();
    appender.finish().await.unwrap();
    // Another process has no local file of what came last.
    store.close().await.unwrap();
    drop(store);
    let store = home.open().await;
    let uploads = store.uploads();

    // A chunk that cannot be kept: what was acknowledged stands.
    home.server.breaks(Fault::Status(503), |_| true);
    let error = match uploads.append(&a, &id, OWNER, None).await {
        Ok(_) => panic!("the end of the last chunk cannot be read"),
        Err(error) => error,
    };
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    home.server.mends();
    let mut appender = uploads.append(&a, &id, OWNER, Some(5_500_000)).await.unwrap();
    home.server.breaks(Fault::Status(503), |_| true);
    let mut failed = None;
    for chunk in pieces(&bytes.slice(5_500_000..)) {
        if let Err(error) = appender.write(chunk).await {
            failed = Some(error);
            break;
        }
    }
    let error = match failed {
        Some(error) => error,
        None => appender.finish().await.unwrap_err(),
    };
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    home.server.mends();

    let at = loop {
        let at = uploads.offset(&a, &id, OWNER).await.unwrap();
        match uploads.append(&a, &id, OWNER, Some(at)).await {
            Ok(mut appender) => {
                appender.write(bytes.slice(at as usize..)).await.unwrap();
                appender.finish().await.unwrap();
                break at;
            }
            Err(Error::Busy | Error::OutOfOrder { .. }) => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(at >= 5_500_000, "{at}");
    home.server.breaks(Fault::Status(500), |asked| asked.kind == Kind::Complete);
    let error = uploads.finish(&a, &id, OWNER, &digest).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    home.server.mends();
    assert_eq!(uploads.finish(&a, &id, OWNER, &digest).await.unwrap(), 13_000_000);
    assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes);
}

#[tokio::test]
async fn whatever_breaks_by_chance_nothing_wrong_is_acknowledged() {
    let faults = [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Slow(Duration::from_millis(200)),
        Fault::CutRequest(3_000),
        Fault::CutAnswer(3_000),
        Fault::LoseAnswer,
        Fault::Twice,
    ];
    for seed in [1, 2, 3, 0xdead_beef] {
        println!("seed {seed}");
        let home = Home::new();
        let (store, a) = (home.open().await, repository("a"));
        home.server.breaks_by_chance(seed, 3, &faults);
        let mut acknowledged = Vec::new();
        for (n, len) in [1000, 70_000, 6_000_000, 11_000_000, 70_000, 1000].into_iter().enumerate() {
            let bytes = noise(seed + n as u64, len);
            let digest = Digest::sha256(&bytes);
            let Ok(id) = store.uploads().begin(&a, OWNER, None, 100).await else { continue };
            for _ in 0..10 {
                let Ok(at) = store.uploads().offset(&a, &id, OWNER).await else { break };
                match store.uploads().append(&a, &id, OWNER, Some(at)).await {
                    Ok(mut appender) => {
                        let written = appender.write(bytes.slice(at as usize..)).await;
                        if written.is_err() || appender.finish().await.is_err() {
                            continue;
                        }
                    }
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                }
                if store.uploads().finish(&a, &id, OWNER, &digest).await.is_ok() {
                    acknowledged.push((digest, bytes));
                    break;
                }
            }
        }
        home.server.mends();
        assert!(!acknowledged.is_empty(), "seed {seed}: nothing came through");
        for (digest, bytes) in acknowledged {
            assert_eq!(pull_blob(&store, &a, &digest).await.unwrap(), bytes, "seed {seed}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_bucket_is_said_in_a_sentence() {
    let home = Home::new();
    let good = home.bucket_options();
    check_bucket(&good).await.unwrap();
    assert_eq!((home.objects(), home.server.unfinished(&home.bucket)), (0, 0), "it leaves nothing");
    let credentials = |id: &str, secret: &str| deltaport_store::Credentials::Key {
        id: id.to_owned(),
        secret: secret.to_owned(),
    };
    let said = async |options: BucketOptions| check_bucket(&options).await.unwrap_err().to_string();
    let other = BucketOptions { bucket: "nothing".to_owned(), ..good.clone() };
    assert!(said(other).await.contains("there is no bucket nothing"));
    let other = BucketOptions { region: Some("elsewhere-1".to_owned()), ..good.clone() };
    let sentence = said(other).await;
    assert!(sentence.contains("region"), "{sentence}");
    let other = BucketOptions { credentials: credentials("nobody", "x"), ..good.clone() };
    let sentence = said(other).await;
    assert!(sentence.contains("does not know the access key"), "{sentence}");
    let other =
        BucketOptions { credentials: credentials(deltaport_testkit::s3::ACCESS_KEY, "x"), ..good.clone() };
    let sentence = said(other).await;
    assert!(sentence.contains("secret"), "{sentence}");
    home.server.breaks(Fault::Skewed, |_| true);
    assert!(said(good.clone()).await.contains("clock"));
    home.server.mends();
    for (kind, what) in [
        (Kind::Put, "write objects"),
        (Kind::Get, "read objects"),
        (Kind::List, "list objects"),
        (Kind::Delete, "delete objects"),
        (Kind::Complete, "in parts"),
        (Kind::Abort, "give up"),
    ] {
        home.server.breaks(Fault::Denied, move |asked| asked.kind == kind);
        let sentence = said(good.clone()).await;
        assert!(sentence.contains("may not") && sentence.contains(what), "{kind:?}: {sentence}");
        home.server.mends();
    }
    home.server.stop();
    let sentence = said(good).await;
    assert!(sentence.contains("cannot be reached"), "{sentence}");
}
