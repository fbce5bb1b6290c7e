//! Layers that come as deltas over a link that breaks, and deltas that take too long.

use std::io::Cursor;
use std::time::Duration;

use deltaport_oci::media_type;
use deltaport_testkit::sample::{self, Content, Image};
use deltaport_testkit::upstream::{Gate, Reply, Rule, Upstream as Script};

use crate::site::*;

pub(crate) const ASK: &str = "/v2/app/_deltaport/delta/layer";

/// A layer, its next version, and the delta between them.
pub(crate) struct Update {
    pub(crate) old: Image,
    pub(crate) new: Image,
    pub(crate) delta: Content,
}

impl Update {
    pub(crate) fn new() -> Self {
        Self::of_every(20)
    }

    /// One in which one of so many files has changed.
    pub(crate) fn of_every(one_in: u64) -> Self {
        let files = sample::files(3, 100, 40_000);
        let (old, new) = (sample::layer_of(&files), sample::layer_of(&sample::changed(&files, 4, one_in)));
        let made = deltaport_delta::create(
            &mut [Cursor::new(&old.bytes)],
            &mut Cursor::new(&new.bytes),
            || Ok(Cursor::new(Vec::new())),
            &deltaport_delta::Options::default(),
            |_| (),
        );
        let delta = Content::new("application/octet-stream", made.unwrap().bytes);
        Self { old: Image::of("amd64", vec![old]), new: Image::of("amd64", vec![new]), delta }
    }

    pub(crate) fn layer(&self) -> &Content {
        &self.new.layers[0]
    }

    /// The question for the delta by somebody who wants it with the answer.
    pub(crate) fn question(&self) -> String {
        let escape = |content: &Content| content.digest.to_string().replace(':', "%3A");
        let (to, from) = (escape(self.layer()), escape(&self.old.layers[0]));
        // As many bytes as would spare something.
        format!("{ASK}?to={to}&from={from}&inline={}", self.layer().bytes.len() - 1)
    }

    /// The delta as the answer to that.
    pub(crate) fn sent(&self) -> Reply {
        Reply::content(&Content { media_type: media_type::LAYER_DELTA.to_owned(), ..self.delta.clone() })
            .whole()
    }

    /// The upstream: the manifests of both, the old layer, and the answers to the question for a delta.
    pub(crate) async fn upstream(&self, rules: impl IntoIterator<Item = Rule>) -> Script {
        let mut all: Vec<_> = rules.into_iter().collect();
        all.extend([Rule::hub(), Rule::base()]);
        all.extend(manifest_rules(&self.old, "one"));
        all.extend(manifest_rules(&self.new, "two"));
        let old = &self.old.layers[0];
        all.push(blob_rule(old).reply(Reply::content(old)));
        all.push(Rule::on("GET", ASK).reply(Reply::status(307).header("Location", &blob_path(&self.delta))));
        Script::start(all).await
    }

    /// A site that holds the old image, knows that it has a hub, and has been asked for the manifest of the new image.
    pub(crate) async fn site(&self, script: &Script, setup: Setup) -> Site {
        let site = Site::with(script, setup).await;
        site.pull_manifest("one").await;
        site.gets(&self.old.layers[0]).await;
        eventually("it is known to be a hub", async || site.upstream.is_known_hub()).await;
        site.pull_manifest("two").await;
        site
    }
}

/// How many layers were fetched whole after all, besides the old one, for which there was no base.
pub(crate) fn fallbacks(site: &Site) -> u64 {
    site.counted("upstream_delta_fallbacks") - 1
}

#[tokio::test]
async fn a_delta_goes_on_where_it_broke_off_after_a_restart_too() {
    let update = Update::new();
    let gate = Gate::new();
    let half = update.delta.bytes.len() / 2;
    let script = update
        .upstream([
            blob_rule(&update.delta).times(1).reply(Reply::content(&update.delta).truncated_after(1000)),
            blob_rule(&update.delta).times(1).reply(Reply::content(&update.delta).held_after(half, &gate)),
            blob_rule(&update.delta).reply(Reply::content(&update.delta)),
        ])
        .await;
    let setup = Setup { stall: Duration::from_secs(30), ..Setup::default() };
    let site = update.site(&script, setup).await;
    let before = script.sent();
    let body = site.open("app", &update.layer().digest).await.unwrap();
    eventually("half of the delta", async || script.sent() - before == 1000 + half as u64).await;
    eventually("it is written", async || {
        let files = std::fs::read_dir(site.root().join("partial")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).any(|len| len == 1000 + half as u64)
    })
    .await;
    let site = site.restarted(&script).await;
    drop(body);
    site.gets(update.layer()).await;
    assert_eq!(ranges(&script, &update.delta), [None, from(1000), from(1000 + half)]);
    assert_eq!(
        script.sent() - before,
        (Rule::HUB.len() + update.delta.bytes.len()) as u64,
        "the delta once, and nothing of the layer"
    );
    eventually("a delta is not kept", async || site.kept() == 0).await;
    assert_eq!(site.counted("upstream_deltas_applied"), 1);
    gate.open();
}

/// A layer came whole, or its first bytes and then the rest: whether a delta still came when first bytes were due is a
/// matter of how fast the machine is.
#[track_caller]
pub(crate) fn assert_came_once(script: &Script, layer: &Content) {
    let part = |range: &str| Some(range.to_owned());
    let asked = ranges(script, layer);
    assert!(asked == [None] || asked == [part("bytes=0-65535"), part("bytes=65536-")], "{asked:?}");
}

/// The layer is asked for beside a delta that does not come, and is there first.
#[tokio::test]
async fn a_delta_that_takes_too_long_is_overtaken_by_the_layer() {
    let update = Update::new();
    let gate = Gate::new();
    let script = update
        .upstream([
            blob_rule(&update.delta).reply(Reply::content(&update.delta).held_after(1000, &gate)),
            blob_rule(update.layer()).reply(Reply::content(update.layer())),
        ])
        .await;
    let mut setup = Setup { stall: Duration::from_secs(30), ..Setup::default() };
    setup.fill.delta_deadline = Duration::from_millis(300);
    let site = update.site(&script, setup).await;
    site.gets(update.layer()).await;
    assert_eq!(ranges(&script, &update.delta).len(), 1);
    assert_came_once(&script, update.layer());
    eventually("it is counted", async || fallbacks(&site) == 1).await;
    eventually("nothing is left of either", async || site.kept() == 0).await;
    gate.open();
}

/// Both are on their way; the delta is there first. Who has read the beginning of the layer reads on in what the delta has
/// made, unless that beginning was wrong.
#[tokio::test]
async fn a_late_delta_may_still_be_there_first() {
    for right in [true, false] {
        let update = Update::new();
        let (delta_gate, layer_gate) = (Gate::new(), Gate::new());
        let layer = update.layer();
        let mut sent = layer.clone();
        if !right {
            let mut bytes = sent.bytes.to_vec();
            bytes[10] ^= 1;
            sent.bytes = bytes.into();
        }
        let script = update
            .upstream([
                blob_rule(&update.delta).reply(Reply::content(&update.delta).held_after(1000, &delta_gate)),
                blob_rule(layer).reply(Reply::content(&sent).held_after(300_000, &layer_gate)),
            ])
            .await;
        let mut setup = Setup { stall: Duration::from_secs(30), ..Setup::default() };
        setup.fill.delta_deadline = Duration::from_millis(200);
        let site = update.site(&script, setup).await;
        let body = site.open("app", &layer.digest).await.unwrap();
        let mut stream = body.read(deltaport_oci::wire::ByteRange { start: 0, end: body.size() });
        let mut received = futures_util::StreamExt::next(&mut stream).await.unwrap().unwrap().to_vec();
        delta_gate.open();
        let whole = loop {
            match futures_util::StreamExt::next(&mut stream).await {
                None => break true,
                Some(Ok(chunk)) => received.extend_from_slice(&chunk),
                Some(Err(_)) => break false,
            }
        };
        assert_eq!(whole, right);
        assert!(!right || received == layer.bytes);
        let (received, whole) = read(&body, 0).await;
        assert!(whole && received == layer.bytes, "who had read nothing gets it");
        eventually("nothing is left", async || site.kept() == 0).await;
        assert_eq!(site.counted("upstream_deltas_applied"), 1);
        assert_eq!(fallbacks(&site), 0);
        layer_gate.open();
    }
}

/// A delta that is not what its digest says ends in the whole layer, and is not gone on with later.
#[tokio::test]
async fn a_wrong_delta_is_dropped() {
    let update = Update::new();
    let mut wrong = update.delta.bytes.to_vec();
    wrong[1500] ^= 1;
    let script = update
        .upstream([
            blob_rule(&update.delta).times(1).reply(Reply::content(&update.delta).truncated_after(1000)),
            blob_rule(&update.delta)
                .reply(Reply::content(&Content { bytes: wrong.into(), ..update.delta.clone() })),
            blob_rule(update.layer()).reply(Reply::content(update.layer())),
        ])
        .await;
    let site = update.site(&script, Setup::default()).await;
    site.gets(update.layer()).await;
    assert_eq!(ranges(&script, &update.delta), [None, from(1000)]);
    assert_eq!(fallbacks(&site), 1);
    eventually("nothing is left", async || site.kept() == 0).await;
}

/// Most of the layer is here already: a delta that is larger than what is missing is no gain.
#[tokio::test]
async fn a_layer_that_is_almost_here_is_not_asked_for_as_a_delta() {
    let update = Update::new();
    let layer = update.layer();
    let most = layer.bytes.len() - 100_000;
    let script = update
        .upstream([
            Rule::on("GET", ASK).times(1).reply(Reply::status(404)),
            blob_rule(layer).times(1).reply(Reply::content(layer).truncated_after(most)),
            blob_rule(layer).reply(Reply::content(layer)),
        ])
        .await;
    let mut setup = Setup::default();
    setup.fill.patience = Duration::ZERO;
    let site = update.site(&script, setup).await;
    assert!(!site.get(layer).await.unwrap().1);
    site.gets(layer).await;
    let asked = script.lines().iter().filter(|line| line.contains("_deltaport")).count();
    assert_eq!((asked, ranges(&script, layer)), (1, vec![None, from(most)]));
}
