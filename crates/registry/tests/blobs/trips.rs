//! How many requests an update takes, over which connections: over a slow link each one that waits for another is felt.

use std::time::Duration;

use deltaport_registry::Deltas;
use deltaport_registry::upstream::TagPolicy;
use deltaport_testkit::upstream::{Asked, Reply, Rule, Upstream as Script};

use crate::deltas::Update;
use crate::site::*;

const TAG: &str = "/v2/app/manifests/latest";

/// Each time that a tag is pulled the upstream is asked.
fn looking() -> Setup {
    Setup { policy: TagPolicy { max_age: Duration::ZERO, ..TagPolicy::DEFAULT }, ..Setup::default() }
}

/// A hub whose tag is at the first image of an update, and a site that has pulled it. Both know each other.
async fn pulled(update: &Update) -> (Script, Site) {
    let script = update.upstream(manifest_rules(&update.old, "latest")).await;
    let old = &update.old;
    script.first(blob_rule(&old.config).reply(Reply::content(&old.config)));
    let site = Site::with(&script, looking()).await;
    site.pull_manifest("latest").await;
    for blob in [&old.config, &old.layers[0]] {
        site.gets(blob).await;
    }
    eventually("it is known to be a hub", async || site.upstream.is_known_hub()).await;
    (script, site)
}

/// The tag moves to the second image, of which the layer comes as a delta.
fn moves(script: &Script, update: &Update) {
    let new = &update.new;
    script.first(Rule::on("GET", TAG).reply(Reply::content(&new.manifest)));
    script.first(blob_rule(&new.config).reply(Reply::content(&new.config)));
    script.first(Rule::on("GET", &update.question()).reply(update.sent()));
}

/// What was asked after the first `before` requests, but for connections that were opened ahead.
fn asked_since(script: &Script, before: usize) -> Vec<Asked> {
    script.asked().into_iter().skip(before).filter(|asked| asked.target != "/v2/").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_the_tag_a_delta_and_the_configuration() {
    let update = Update::new();
    let (script, site) = pulled(&update).await;
    moves(&script, &update);
    let (before, connections) = (script.asked().len(), script.connections());
    let pulled = site.registry.manifest(&repository("app"), &"latest".parse().unwrap()).await.unwrap();
    site.registry.fetch_ahead(&repository("app"), &pulled.manifest);
    for blob in update.new.blobs() {
        site.gets(blob).await;
    }
    let asked = asked_since(&script, before);
    let targets: Vec<_> = asked.iter().map(Asked::line).collect();
    let expected =
        [TAG, &update.question(), &blob_path(&update.new.config)].map(|path| format!("GET {path}"));
    assert_eq!(targets, expected, "the question before the configuration, and nothing else");
    let known = format!("\"{}\"", update.old.manifest.digest);
    assert_eq!(asked[0].headers.first("if-none-match"), Some(known.as_str()));
    let question = script.asked().iter().position(|asked| asked.target == update.question()).unwrap();
    let earlier = script.asked().into_iter().take(question);
    let mut open = earlier.map(|asked| asked.connection);
    assert!(open.any(|connection| connection == asked[1].connection), "over a connection that was open");
    let opened = script.connections() - connections;
    assert!(opened <= 3, "{opened} connections more");
}

#[tokio::test]
async fn a_tag_that_has_not_moved_is_one_question_without_an_answer() {
    let update = Update::new();
    let (script, site) = pulled(&update).await;
    let known = format!("\"{}\"", update.old.manifest.digest);
    script.first(Rule::on("GET", TAG).with_header("if-none-match", &known).reply(Reply::status(304)));
    for _ in 0..3 {
        let before = script.asked().len();
        let pulled = site.registry.manifest(&repository("app"), &"latest".parse().unwrap()).await.unwrap();
        assert_eq!(pulled.digest, update.old.manifest.digest);
        assert!(!pulled.stale);
        let asked: Vec<_> = asked_since(&script, before).iter().map(Asked::line).collect();
        assert_eq!(asked, [format!("GET {TAG}")]);
    }
    // A liar: what has not changed is something else.
    let other = Reply::status(304).header("Docker-Content-Digest", &update.new.manifest.digest.to_string());
    script.first(Rule::on("GET", TAG).reply(other));
    let pulled = site.registry.manifest(&repository("app"), &"latest".parse().unwrap()).await.unwrap();
    assert!(pulled.stale && pulled.digest == update.old.manifest.digest);
}

/// HEAD spares what other registries count; whether one is a hub is not asked where no delta is wanted.
#[tokio::test]
async fn other_registries_are_asked_as_before() {
    let update = Update::new();
    for (deltas, hub, discovers) in
        [(Deltas::Always, false, 1), (Deltas::Auto, false, 1), (Deltas::Never, true, 0)]
    {
        let mut rules = manifest_rules(&update.old, "latest");
        rules.push(if hub { Rule::hub() } else { Rule::no_hub() });
        let script = Script::start(rules).await;
        let site = Site::with(&script, Setup { deltas, ..looking() }).await;
        for _ in 0..3 {
            site.pull_manifest("latest").await;
        }
        let count = |line: &str| script.lines().iter().filter(|asked| *asked == line).count();
        eventually("it is asked what it offers", async || count("GET /v2/_oci/ext/discover") == discovers)
            .await;
        assert_eq!(
            (count(&format!("HEAD {TAG}")), count(&format!("GET {TAG}")), count("GET /v2/")),
            (3, 1, 0)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(count("GET /v2/_oci/ext/discover"), discovers, "once");
    }
}
