//! Another policy: what is here is judged again, from what is here.

use std::time::Duration;

use deltaport_testkit::sample::Image;
use deltaport_testkit::signer::Signer;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::*;

/// Judges everything once, as the background does.
async fn reviewed(site: &Site) {
    let stop = CancellationToken::new();
    let review = tokio::spawn({
        let (registry, stop) = (site.registry.clone(), stop.clone());
        async move { registry.review(stop).await }
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.cancel();
    review.await.unwrap();
}

#[tokio::test]
async fn another_policy_counts_at_once_and_for_everything_without_the_upstream() {
    let (old, new, image) = (Signer::new(), Signer::new(), Image::small(1));
    let (digest, signed) = (image.manifest.digest, "registry.example/app:v1");
    let script = upstream().await;
    has_image(&script, &image, "v1");
    has_signature(&script, &old.sign(&digest, signed));
    let site = Site::new(&script.url(), &old.policy("matchRepository")).await;
    assert!(site.pull(&app(), "v1").await.is_ok());
    assert!(site.serves(&app(), &image.layers[0]).await);
    drop(script);

    // The key is replaced by another; nobody can be asked.
    site.registry.set_trust(Some(trust(&new.policy("matchRepository"))));
    assert_eq!(Site::refusal(site.pull(&app(), digest).await).code, "wrong-key");
    assert_eq!(
        Site::refusal(site.pull(&app(), "v1").await).code,
        "wrong-key",
        "stale, and refused all the same"
    );
    assert!(!site.serves(&app(), &image.layers[0]).await);
    // Both keys count while they are exchanged.
    let both = json!({ "default": [{
        "type": "sigstoreSigned",
        "keyDatas": [old.requirement("")["keyData"], new.requirement("")["keyData"]],
        "signedIdentity": { "type": "matchRepository" },
    }] });
    site.registry.set_trust(Some(trust(&both)));
    assert!(site.pull(&app(), digest).await.is_ok());
    assert!(site.serves(&app(), &image.layers[0]).await);

    // And what nobody asks for is judged, too.
    site.registry.set_trust(Some(trust(&json!({ "default": [{ "type": "reject" }] }))));
    let current = |kept: &(Option<String>, bool, bool)| kept.2;
    assert!(!site.kept(&app(), &digest).await.iter().any(current));
    reviewed(&site).await;
    let kept = site.kept(&app(), &digest).await;
    assert_eq!(kept, [(None, false, true), (Some("v1".to_owned()), false, true)]);
    assert_eq!(site.counts("quarantined_manifests"), 1);
    // Without a policy everything is served again.
    site.registry.set_trust(None);
    assert!(site.pull(&app(), digest).await.is_ok());
}

#[tokio::test]
async fn a_verdict_outlives_the_process() {
    let (signer, image) = (Signer::new(), Image::small(2));
    let script = upstream().await;
    has_image(&script, &image, "v1");
    has_signature(&script, &signer.sign(&image.manifest.digest, "registry.example/app:v1"));
    let policy = signer.policy("matchRepository");
    let site = Site::new(&script.url(), &policy).await;
    assert!(site.pull(&app(), "v1").await.is_ok());
    assert!(site.pull(&app(), image.manifest.digest).await.is_ok());
    let Site { registry, store, home } = site;
    store.close().await.unwrap();
    drop((registry, store));

    let (registry, store) = open(home.path(), "http://127.0.0.1:1").await;
    registry.set_trust(Some(trust(&policy)));
    let site = Site { registry, store, home };
    // Its signature is gone, and the upstream; what was accepted by this policy stays so.
    let tag = signer.sign(&image.manifest.digest, "x").tag;
    site.registry.delete_manifest(&app(), &tag.parse().unwrap()).await.unwrap();
    assert!(site.pull(&app(), image.manifest.digest).await.is_ok());
    assert_eq!(site.counts("verdicts_accepted_total"), 0, "nothing was judged again");
}
