//! What the policy decided is kept with a manifest: under each of its names, through a rebuild, and no longer than it.

use std::time::{Duration, SystemTime};

use deltaport_oci::{Digest, Tag};
use deltaport_store::{MAX_VERDICT_LEN, Verdict};

use super::home;
use crate::common::*;

fn verdict(tag: Option<&str>, policy: &str, accepted: bool) -> Verdict {
    Verdict {
        tag: tag.map(|tag| tag.parse().unwrap()),
        policy: Digest::sha256(policy.as_bytes()),
        at: SystemTime::UNIX_EPOCH,
        accepted,
        text: format!(r#"{{"accepted":{accepted},"why":"a \"word\""}}"#),
    }
}

#[tokio::test]
async fn a_verdict_stays_with_its_manifest_and_goes_with_it() {
    let dir = home();
    let store = dir.open().await;
    let (app, names) = (repository("app"), store.names());
    let config = push_blob(&store, &app, noise(1, 100)).await.unwrap();
    let manifest = image(&config, &[], &["v1"]);
    let digest = manifest.digest;
    assert!(!names.put_verdict(&app, &digest, verdict(None, "old", true)).await.unwrap(), "it is not here");
    names.put_manifest(&app, manifest.clone()).await.unwrap();

    let before = SystemTime::now() - Duration::from_millis(1);
    for given in [
        verdict(None, "old", true),
        verdict(Some("v1"), "old", true),
        verdict(None, "new", false),
        verdict(Some("v2"), "new", false),
    ] {
        assert!(names.put_verdict(&app, &digest, given).await.unwrap());
    }
    let kept = names.verdicts(&app, &digest).await.unwrap();
    let told: Vec<_> = kept.iter().map(|kept| (kept.tag.as_ref().map(Tag::as_str), kept.accepted)).collect();
    assert_eq!(told, [(None, false), (Some("v1"), true), (Some("v2"), false)], "the last one of each name");
    assert!(kept.iter().all(|kept| kept.at >= before && kept.text.contains("word")), "{kept:?}");
    assert_eq!(names.refused(&Digest::sha256(b"new")).await.unwrap(), 1, "a manifest counts once");
    assert_eq!(names.refused(&Digest::sha256(b"old")).await.unwrap(), 0);
    assert_eq!(names.tags_of(&app, &digest).await.unwrap(), ["v1".parse::<Tag>().unwrap()]);

    // Pushed again, it is the same manifest.
    names.put_manifest(&app, manifest).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    dir.assert_clean();
    if dir.is_embedded() {
        dir.rebuild();
        dir.assert_clean();
    }
    let store = dir.open().await;
    assert_eq!(store.names().verdicts(&app, &digest).await.unwrap(), kept);

    assert!(store.names().delete_manifest(&app, &digest).await.unwrap());
    assert_eq!(store.names().verdicts(&app, &digest).await.unwrap(), []);
    store.close().await.unwrap();
    drop(store);
    dir.assert_clean();
}

#[tokio::test]
async fn verdicts_have_limits_and_the_longest_fits_into_the_journal() {
    let dir = home();
    let store = dir.open().await;
    let (app, names) = (repository("app"), store.names());
    let config = push_blob(&store, &app, noise(2, 100)).await.unwrap();
    let manifest = image(&config, &[], &[]);
    let digest = manifest.digest;
    names.put_manifest(&app, manifest).await.unwrap();
    let of = |text: String| Verdict { text, ..verdict(None, "p", true) };
    assert!(names.put_verdict(&app, &digest, of("\"".repeat(MAX_VERDICT_LEN))).await.unwrap());
    assert!(!names.put_verdict(&app, &digest, of("x".repeat(MAX_VERDICT_LEN + 1))).await.unwrap());
    for n in 0..70 {
        let kept =
            names.put_verdict(&app, &digest, verdict(Some(&format!("v{n}")), "p", true)).await.unwrap();
        assert_eq!(kept, n < 63, "{n}");
    }
    store.close().await.unwrap();
    drop(store);
    dir.assert_clean();
    if dir.is_embedded() {
        dir.rebuild();
        dir.assert_clean();
    }
}
