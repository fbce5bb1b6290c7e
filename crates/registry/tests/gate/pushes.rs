//! What is pushed.

use std::collections::BTreeSet;

use deltaport_oci::Digest;
use deltaport_registry::vend::DeltaAnswer;
use deltaport_registry::{Error, Registry};
use deltaport_store::LayerDelta;
use deltaport_testkit::sample::{self, Content, Image};
use deltaport_testkit::signer::{Signature, Signer};
use deltaport_trust::{Access, Action, Caller, Rule, Rules};
use serde_json::json;

use crate::support::*;

const NAME: &str = "own.example:5000/team/app:v1";

/// Whoever logged in may push to `team`, everyone may pull.
fn rules() -> Rules {
    let grant = |allow: &[Action], logged_in: bool| Rule {
        repositories: vec!["**".parse().unwrap()],
        allow: allow.iter().copied().collect(),
        users: BTreeSet::new(),
        groups: BTreeSet::new(),
        logged_in,
        anonymous: !logged_in,
        local: false,
    };
    let rules = vec![grant(&[Action::Pull], false), grant(&[Action::Push, Action::Pull], true)];
    let access = Access { logins: true, trust_loopback: Some(false), groups: Default::default(), rules };
    Rules::new(access).unwrap()
}

fn pusher() -> Caller {
    Caller { user: Some("anna".into()), ..Caller::default() }
}

/// Whether somebody who may push sees a manifest.
async fn is_seen(registry: &Registry, repository: &str, manifest: &Content) -> bool {
    let reference = manifest.digest.to_string().parse().unwrap();
    registry.manifest_for(&pusher(), &name(repository), &reference).await.is_ok()
}

#[tokio::test]
async fn what_is_pushed_waits_for_its_signature_and_is_served_with_it() {
    let (signer, image, team) = (Signer::new(), Image::small(1), name("team/app"));
    let site = Site::new("http://127.0.0.1:1", &signer.policy("matchRepoDigestOrExact")).await;
    site.registry.set_rules(rules());
    site.push_image(&team, &image, "v1").await;
    let digest = image.manifest.digest;

    let refusal = Site::refusal(site.pull(&team, "v1").await);
    assert_eq!((refusal.code.as_str(), refusal.name.as_str(), refusal.pushed), ("unsigned", NAME, true));
    assert!(refusal.to_string().contains(&format!("sign {NAME}@{digest}")), "{refusal}");
    assert_eq!(Site::refusal(site.pull(&team, digest).await).code, "unsigned");
    for blob in image.blobs() {
        assert!(!site.serves(&team, blob).await);
        let size = site.registry.blob_size_for(&pusher(), &team, &blob.digest).await;
        assert_eq!(size.unwrap(), blob.bytes.len() as u64, "it need not be pushed again");
    }
    assert!(is_seen(&site.registry, "team/app", &image.manifest).await, "or it could not be signed");
    let nobody = site.registry.manifest_for(&Caller::default(), &team, &"v1".parse().unwrap()).await;
    Site::refusal(nobody);
    assert_eq!(
        site.kept(&team, &digest).await,
        [(None, false, true), (Some("v1".to_owned()), false, true)],
        "judged when it came"
    );
    assert_eq!(site.counts("quarantined_manifests"), 1);

    // Signatures of others, and under other names, change nothing.
    site.push_signature(&team, &Signer::new().sign(&digest, NAME)).await;
    assert_eq!(Site::refusal(site.pull(&team, "v1").await).code, "wrong-key");
    site.push_signature(&team, &signer.sign(&digest, "own.example:5000/team/app:v2")).await;
    assert_eq!(Site::refusal(site.pull(&team, "v1").await).code, "other-name");
    // By digest, the repository is enough: the policy says so.
    assert!(site.pull(&team, digest).await.is_ok());
    site.push_signature(&team, &signer.sign(&digest, NAME)).await;
    assert_eq!(site.pull(&team, "v1").await.unwrap().digest, digest);
    for blob in image.blobs() {
        assert!(site.serves(&team, blob).await);
    }
    let kept = site.kept(&team, &digest).await;
    assert_eq!(kept, [(None, true, true), (Some("v1".to_owned()), true, true)]);
    assert_eq!(site.counts("quarantined_manifests"), 0);
}

#[tokio::test]
async fn there_is_no_way_around() {
    let (signer, team, other) = (Signer::new(), name("team/app"), name("free/app"));
    let policy = json!({
        "default": [signer.requirement("matchRepository")],
        "transports": { "docker": { "own.example:5000/free": [{ "type": "insecureAcceptAnything" }] } },
    });
    let site = Site::new("http://127.0.0.1:1", &policy).await;
    site.registry.set_rules(rules());
    let (good, bad) = (Image::small(2), Image::small(3));
    site.push_image(&team, &good, "good").await;
    site.push_signature(&team, &signer.sign(&good.manifest.digest, "own.example:5000/team/app")).await;
    site.push_image(&team, &bad, "bad").await;
    assert!(site.pull(&team, "good").await.is_ok());
    let layer = &bad.layers[0];

    // A repository where everything is accepted does not get it from there.
    for from in [Some(&team), None] {
        assert!(!site.registry.mount(&pusher(), &other, &layer.digest, from).await.unwrap());
    }
    assert!(site.registry.mount(&pusher(), &other, &good.layers[0].digest, Some(&team)).await.unwrap());
    // An index that is not signed makes nothing of it better, nor does a referrer of something good.
    let index = sample::index(&[&good.manifest, &bad.manifest], json!({}));
    site.push(&team, &index, "index").await;
    assert!(matches!(site.pull(&team, "index").await, Err(Error::Refused(_))));
    assert!(matches!(site.pull(&team, bad.manifest.digest).await, Err(Error::Refused(_))));
    let about = json!({ "subject": good.manifest.descriptor() });
    let runnable = sample::manifest(&bad.config, &bad.layers, about);
    site.push(&team, &runnable, "about").await;
    assert!(matches!(site.pull(&team, "about").await, Err(Error::Refused(_))));
    assert!(matches!(site.pull(&team, runnable.digest).await, Err(Error::Refused(_))));
    // A list of materials is no image: it is served with the image that it is about, and by digest alone.
    let materials = Content::new("text/spdx", "materials");
    site.push_blob(&team, &sample::empty_config()).await;
    site.push_blob(&team, &materials).await;
    let artifact = sample::artifact("text/spdx", Some(&good.manifest), &materials);
    site.push(&team, &artifact, "materials").await;
    assert!(site.pull(&team, artifact.digest).await.is_ok());
    assert!(matches!(site.pull(&team, "materials").await, Err(Error::Refused(_))));
    // What looks like a signature and names a layer as its configuration.
    let payload = Content::new("application/vnd.dev.cosign.simplesigning.v1+json", "{}");
    let large = Content::new(sample::LAYER_TAR, sample::bytes(5, 300_000));
    let disguise = Image::of("amd64", vec![large.clone()]);
    site.push_image(&team, &disguise, "disguise").await;
    site.push_blob(&team, &payload).await;
    let mut config = large.descriptor();
    config["size"] = json!(10);
    let fake = sample::manifest(&bad.config, &[payload], json!({ "config": config }));
    site.push(&team, &fake, "sha256-fake.sig").await;
    assert!(!site.serves(&team, &large).await);
    assert!(!site.serves(&team, layer).await);
}

#[tokio::test]
async fn no_delta_leads_to_what_waits_or_from_it() {
    let (signer, team) = (Signer::new(), name("team/app"));
    let site = Site::new("http://127.0.0.1:1", &signer.policy("matchRepository")).await;
    let (old, new) = (Image::small(6), Image::small(7));
    site.push_image(&team, &old, "v1").await;
    site.push_image(&team, &new, "v2").await;
    let (base, target) = (old.layers[0].digest, new.layers[0].digest);
    let delta = Content::new("x/y", "a delta");
    site.push_blob(&team, &delta).await;
    let known = LayerDelta::Blob(delta.digest);
    site.store.names().put_layer_delta(&team, &base, &target, &known).await.unwrap();
    let offered = || async { site.registry.layer_delta(&team, &target, &[base]).await.unwrap() };
    let ready = DeltaAnswer::Ready { delta: delta.digest, size: delta.bytes.len() as u64 };

    let sign = |digest: &Digest| signer.sign(digest, "own.example:5000/team/app");
    for signed in [&old, &new] {
        assert_eq!(offered().await, DeltaAnswer::None);
        assert!(!site.serves(&team, &delta).await);
        assert!(site.registry.layer_deltas(&team, &target).await.unwrap().is_empty());
        let signature: Signature = sign(&signed.manifest.digest);
        site.push_signature(&team, &signature).await;
    }
    assert_eq!(offered().await, ready);
    assert!(site.serves(&team, &delta).await);
}

#[tokio::test]
async fn an_index_is_signed_after_its_images_are_there() {
    let (signer, team) = (Signer::new(), name("team/app"));
    let site = Site::new("http://127.0.0.1:1", &signer.policy("matchRepoDigestOrExact")).await;
    let images = [8, 9].map(Image::small);
    for image in &images {
        site.push_image(&team, image, image.manifest.digest).await;
    }
    let index = sample::index(&[&images[0].manifest, &images[1].manifest], json!({}));
    site.push(&team, &index, "v1").await;
    assert!(matches!(site.pull(&team, images[0].manifest.digest).await, Err(Error::Refused(_))));
    site.push_signature(&team, &signer.sign(&index.digest, NAME)).await;
    assert!(site.pull(&team, "v1").await.is_ok());
    for image in &images {
        assert!(site.pull(&team, image.manifest.digest).await.is_ok());
        assert!(site.serves(&team, &image.layers[1]).await);
    }
}

#[tokio::test]
async fn pushes_need_not_be_judged() {
    let (signer, team, image) = (Signer::new(), name("team/app"), Image::small(10));
    let site = Site::new("http://127.0.0.1:1", &signer.policy("matchExact")).await;
    let lenient = deltaport_registry::Trust { judge_pushes: false, ..trust(&signer.policy("matchExact")) };
    site.registry.set_trust(Some(lenient));
    site.push_image(&team, &image, "v1").await;
    assert!(site.pull(&team, "v1").await.is_ok());
    assert!(site.serves(&team, &image.layers[0]).await);
    assert_eq!(site.kept(&team, &image.manifest.digest).await, []);
}
