//! Deltas that come with the answer to the question for them, and those that somebody else wants too.

use std::time::Duration;

use deltaport_testkit::sample::Content;
use deltaport_testkit::upstream::{Gate, Reply, Rule, Upstream as Script};

use crate::deltas::{ASK, Update, fallbacks};
use crate::site::*;

fn patient() -> Setup {
    Setup { stall: Duration::from_secs(30), ..Setup::default() }
}

/// What was asked for a layer or a delta, in order: `ask` for the question alone, `send` for one that wants the delta with
/// the answer, and the range of every request for the delta as a blob.
fn asked(script: &Script, update: &Update) -> Vec<String> {
    let place = blob_path(&update.delta);
    let name = |asked: &deltaport_testkit::upstream::Asked| match &asked.target {
        target if *target == update.question() => Some("send".to_owned()),
        target if target.starts_with(&format!("{ASK}?to={}", escaped(update.layer()))) => {
            Some("ask".to_owned())
        }
        target if *target == place => Some(asked.headers.first("range").unwrap_or("all").to_owned()),
        _ => None,
    };
    script.asked().iter().filter_map(name).collect()
}

fn escaped(content: &Content) -> String {
    content.digest.to_string().replace(':', "%3A")
}

#[tokio::test]
async fn a_delta_comes_with_the_answer_and_goes_on_as_a_blob_where_it_broke_off() {
    let update = Update::new();
    let question = update.question();
    let whole = Rule::on("GET", &question).reply(update.sent());
    let broken = || Rule::on("GET", &question).reply(update.sent().truncated_after(1000));
    let rest = || blob_rule(&update.delta).reply(Reply::content(&update.delta));
    for (rules, expected) in [
        (vec![whole], vec!["send"]),
        (vec![broken(), rest()], vec!["send", "bytes=1000-"]),
        // A hub that only names it.
        (vec![rest()], vec!["send", "all"]),
    ] {
        let script = update.upstream(rules).await;
        let site = update.site(&script, Setup::default()).await;
        let before = (script.sent(), site.counted("upstream_received_bytes"));
        site.gets(update.layer()).await;
        assert_eq!(asked(&script, &update), expected);
        let bytes = update.delta.bytes.len() as u64;
        assert_eq!(script.sent() - before.0, bytes, "the delta once, and nothing of the layer");
        assert_eq!(site.counted("upstream_received_bytes") - before.1, bytes);
        assert_eq!((site.counted("upstream_deltas_applied"), fallbacks(&site)), (1, 0));
        eventually("a delta is not kept", async || site.kept() == 0).await;
    }
}

#[tokio::test]
async fn what_came_with_an_answer_is_gone_on_with_after_a_restart() {
    let update = Update::new();
    let gate = Gate::new();
    let half = update.delta.bytes.len() / 2;
    let script = update
        .upstream([
            Rule::on("GET", &update.question()).reply(update.sent().held_after(half, &gate)),
            blob_rule(&update.delta).reply(Reply::content(&update.delta)),
        ])
        .await;
    let site = update.site(&script, patient()).await;
    let before = script.sent();
    let body = site.open("app", &update.layer().digest).await.unwrap();
    eventually("half of it is written", async || {
        let files = std::fs::read_dir(site.root().join("partial")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).any(|len| len == half as u64)
    })
    .await;
    let site = site.restarted(&script).await;
    drop(body);
    site.gets(update.layer()).await;
    // What is kept may be the beginning of this delta, so it is only to be named.
    assert_eq!(asked(&script, &update), ["send", "ask", &format!("bytes={half}-")]);
    let hub = Rule::HUB.len() as u64;
    assert_eq!(script.sent() - before, hub + update.delta.bytes.len() as u64, "nothing twice");
    gate.open();
}

#[tokio::test]
async fn a_wrong_delta_that_was_sent_ends_in_the_whole_layer() {
    let update = Update::new();
    let mut wrong = update.delta.bytes.to_vec();
    wrong[1500] ^= 1;
    let typed = |reply: Reply| reply.header("Content-Type", "application/vnd.deltaport.layer-delta.v1");
    for reply in [
        update.sent().body(wrong),
        // The layer itself is no delta to the layer.
        typed(Reply::status(200).header("Docker-Content-Digest", &update.layer().digest.to_string()))
            .body("x"),
        typed(Reply::status(200)).body("nameless"),
        typed(Reply::content(update.layer())).whole(),
    ] {
        let whole = blob_rule(update.layer()).reply(Reply::content(update.layer()));
        let script = update.upstream([Rule::on("GET", &update.question()).reply(reply), whole]).await;
        let site = update.site(&script, Setup::default()).await;
        site.gets(update.layer()).await;
        assert_eq!((site.counted("upstream_deltas_applied"), fallbacks(&site)), (0, 1));
        eventually("nothing is left", async || site.kept() == 0).await;
    }
}

/// The site is itself the hub of another site, which asks for the delta as a blob.
#[tokio::test]
async fn a_delta_that_somebody_else_wants_too_comes_once() {
    let update = Update::new();
    let half = update.delta.bytes.len() / 2;
    for layer_first in [true, false] {
        let gate = Gate::new();
        let script = update
            .upstream([
                Rule::on("GET", &update.question())
                    .times(usize::from(layer_first))
                    .reply(update.sent().held_after(half, &gate)),
                blob_rule(&update.delta).reply(Reply::content(&update.delta).held_after(half, &gate)),
            ])
            .await;
        let site = update.site(&script, patient()).await;
        let before = script.sent();
        let [first, second] =
            if layer_first { [update.layer(), &update.delta] } else { [&update.delta, update.layer()] };
        let first_body = site.open("app", &first.digest).await.unwrap();
        eventually("it is on its way", async || script.sent() - before >= half as u64).await;
        let second_body = site.open("app", &second.digest);
        let (second_body, ()) = tokio::join!(second_body, async {
            eventually("both are asked for", async || {
                layer_first || asked(&script, &update).contains(&"send".to_owned())
            })
            .await;
            gate.open();
        });
        for (body, content) in [(first_body, first), (second_body.unwrap(), second)] {
            let (received, whole) = read(&body, 0).await;
            assert!(whole && received == content.bytes);
        }
        let expected = if layer_first { vec!["send"] } else { vec!["all", "send"] };
        assert_eq!(asked(&script, &update), expected);
        assert_eq!((site.counted("upstream_deltas_applied"), fallbacks(&site)), (1, 0));
        eventually("nothing is left", async || site.kept() == 0).await;
    }
}

/// The whole layer overtakes a delta that stands still; who waits for the delta itself gets it all the same.
#[tokio::test]
async fn a_delta_that_is_given_up_goes_on_for_others() {
    let update = Update::new();
    let gate = Gate::new();
    let script = update
        .upstream([
            Rule::on("GET", &update.question()).reply(update.sent().held_after(1000, &gate)),
            blob_rule(&update.delta).reply(Reply::content(&update.delta)),
            blob_rule(update.layer()).reply(Reply::content(update.layer())),
        ])
        .await;
    let mut setup = patient();
    setup.fill.delta_deadline = Duration::from_secs(1);
    let site = update.site(&script, setup).await;
    let layer = site.open("app", &update.layer().digest).await.unwrap();
    let delta = site.open("app", &update.delta.digest).await.unwrap();
    let ((layer, layer_whole), (delta, delta_whole)) = tokio::join!(read(&layer, 0), read(&delta, 0));
    assert!(layer_whole && layer == update.layer().bytes);
    assert!(delta_whole && delta == update.delta.bytes);
    assert_eq!(asked(&script, &update), ["send", "bytes=1000-"]);
    eventually("it is counted", async || fallbacks(&site) == 1).await;
    eventually("nothing is left", async || site.kept() == 0).await;
    gate.open();
}
