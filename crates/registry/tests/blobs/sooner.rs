//! What is sooner: deltas that were published, whole layers where the link is fast, and blobs that nobody has asked for
//! yet.

use std::time::Duration;

use deltaport_oci::{Reference, media_type};
use deltaport_registry::Deltas;
use deltaport_testkit::sample::{Content, Image, layer};
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};
use serde_json::json;

use crate::deltas::Update;
use crate::site::*;

/// The artifact in which a delta is published, as docs/delta-artifacts.md says.
fn artifact(update: &Update) -> Content {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": media_type::DELTA_ARTIFACT,
        "config": { "mediaType": media_type::OCI_EMPTY, "digest": Content::new("", "{}").digest, "size": 2 },
        "layers": [{
            "mediaType": media_type::LAYER_DELTA,
            "digest": update.delta.digest,
            "size": update.delta.bytes.len(),
            "annotations": {
                "vnd.deltaport.delta.base": update.old.layers[0].digest,
                "vnd.deltaport.delta.target": update.layer().digest,
            },
        }],
        "subject": {
            "mediaType": media_type::OCI_MANIFEST,
            "digest": update.new.manifest.digest,
            "size": update.new.manifest.bytes.len(),
        },
        "annotations": { "vnd.deltaport.delta.from": update.old.manifest.digest },
    });
    Content::new(media_type::OCI_MANIFEST, manifest.to_string())
}

fn list_of(artifact: &Content) -> Content {
    let list = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [{
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": media_type::DELTA_ARTIFACT,
            "digest": artifact.digest,
            "size": artifact.bytes.len(),
        }],
    });
    Content::new(media_type::OCI_INDEX, list.to_string())
}

/// A registry that makes no deltas and has both images, but not the new layer: that has to come as a delta.
async fn registry(update: &Update, rules: Vec<Rule>) -> Script {
    let artifact = artifact(update);
    let mut all = rules;
    all.extend(manifest_rules(&update.old, "one"));
    all.extend(manifest_rules(&update.new, "two"));
    all.extend([
        Rule::no_hub(),
        blob_rule(&update.old.layers[0]).reply(Reply::content(&update.old.layers[0])),
        Rule::on("GET", &format!("/v2/app/manifests/{}", artifact.digest)).reply(Reply::content(&artifact)),
        blob_rule(&update.delta).reply(Reply::content(&update.delta)),
    ]);
    Script::start(all).await
}

#[tokio::test]
async fn a_published_delta_is_found_at_any_registry() {
    let update = Update::new();
    let subject = update.new.manifest.digest;
    let list = list_of(&artifact(&update));
    let referrers = format!("/v2/app/referrers/{subject}");
    let tag = format!("/v2/app/manifests/{}-{}", subject.algorithm(), subject.hex());
    for rules in [
        vec![Rule::on("GET", &referrers).reply(Reply::content(&list))],
        vec![
            Rule::on("GET", &referrers).reply(Reply::status(404)),
            Rule::on("GET", &tag).reply(Reply::content(&list)),
        ],
    ] {
        let script = registry(&update, rules).await;
        let site = Site::new(&script).await;
        site.pull_manifest("one").await;
        site.gets(&update.old.layers[0]).await;
        site.pull_manifest("two").await;
        site.gets(update.layer()).await;
        assert_eq!(site.counted("upstream_deltas_applied"), 1);
        assert!(!script.lines().iter().any(|line| line.contains("_deltaport/delta")), "it makes none");
    }
}

#[tokio::test]
async fn what_is_published_may_be_nonsense_and_the_layer_comes_whole() {
    let update = Update::new();
    let referrers = format!("/v2/app/referrers/{}", update.new.manifest.digest);
    let artifact = artifact(&update);
    let (list, lie) = (list_of(&artifact), list_of(&Content::new("", "something else")));
    for rules in [
        vec![Rule::on("GET", &referrers).reply(Reply::status(500))],
        vec![Rule::on("GET", &referrers).reply(Reply::content(&lie))],
        vec![
            Rule::on("GET", &referrers).reply(Reply::content(&list)),
            blob_rule(&update.delta).reply(Reply::status(200).body(&b"no delta"[..])),
        ],
        vec![
            Rule::on("GET", &referrers).reply(Reply::content(&list)),
            Rule::on("GET", &format!("/v2/app/manifests/{}", artifact.digest))
                .reply(Reply::status(200).header("Content-Type", media_type::OCI_MANIFEST).body("{")),
        ],
    ] {
        let script = registry(&update, rules).await;
        script.first(blob_rule(update.layer()).reply(Reply::content(update.layer())));
        let site = Site::new(&script).await;
        site.pull_manifest("one").await;
        site.gets(&update.old.layers[0]).await;
        site.pull_manifest("two").await;
        site.gets(update.layer()).await;
        assert_eq!(site.counted("upstream_deltas_applied"), 0);
    }
}

/// That nobody asks where the link is fast is measured and not tested: it depends on the machine.
#[tokio::test]
async fn a_delta_is_asked_for_where_the_link_is_slow_unless_it_must_not_be() {
    let (old, new) = (layer(1, 3 << 20), layer(2, 3 << 20));
    let (old, new) = (Image::of("amd64", vec![old]), Image::of("amd64", vec![new]));
    let mut rules = manifest_rules(&old, "one");
    rules.extend(manifest_rules(&new, "two"));
    rules.push(Rule::hub());
    // A megabyte a second, or less.
    let slow = |content: &Content| Reply::content(content).slowly(Duration::from_millis(10));
    rules.extend([&old, &new].map(|image| blob_rule(&image.layers[0]).reply(slow(&image.layers[0]))));
    for (deltas, asks) in [(Deltas::Auto, true), (Deltas::Always, true), (Deltas::Never, false)] {
        let script = Script::start(rules.clone()).await;
        let site = Site::with(&script, Setup { deltas, ..Setup::default() }).await;
        for (tag, image) in [("one", &old), ("two", &new)] {
            site.pull_manifest(tag).await;
            site.gets(&image.layers[0]).await;
        }
        let asked = script.lines().iter().any(|line| line.contains("_deltaport/delta"));
        assert_eq!(asked, asks, "{deltas:?}: {:?}", script.lines());
    }
}

#[tokio::test]
async fn the_blobs_of_an_image_come_before_they_are_asked_for() {
    let image = Image::of("amd64", vec![layer(1, 100_000), layer(2, 200_000)]);
    let mut rules = manifest_rules(&image, "latest");
    rules.extend(image.blobs().map(|blob| blob_rule(blob).reply(Reply::content(blob))));
    let script = Script::start(rules).await;
    let site = Site::new(&script).await;
    let pulled = site.registry.manifest(&repository("app"), &"latest".parse().unwrap()).await.unwrap();
    site.registry.fetch_ahead(&repository("app"), &pulled.manifest);
    let blobs = async || script.lines().iter().filter(|line| line.contains("/blobs/")).count();
    eventually("all blobs", async || site.counted("upstream_fills") == 3).await;
    assert_eq!(blobs().await, 3);
    for blob in image.blobs() {
        site.gets(blob).await;
    }
    // Twice: the first time it is found that nothing is missing, the second time it is known.
    for _ in 0..2 {
        site.registry.fetch_ahead(&repository("app"), &pulled.manifest);
    }
    drop(script);
    let again = Reference::Digest(image.manifest.digest);
    site.registry.manifest(&repository("app"), &again).await.unwrap();
    assert_eq!(site.counted("upstream_fills"), 3);
}
