//! `deltaport delta push`: the deltas between two images of a registry, published beside the new one.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use deltaport_delta::{self as engine, Error};
use deltaport_oci::delta_artifact::{self, LayerDelta};
use deltaport_oci::{Digest, media_type};
use serde_json::{Value, json};

use super::layers::{self, Layer, Need};
use super::remote::{Found, Remote};
use super::{NOT_WORTH_IT, percent, words};
use crate::args::DeltaPush;
use crate::commands::progress::Line;
use crate::output::{Output, rounded};

pub(super) fn run(args: &DeltaPush, output: &mut Output) -> anyhow::Result<ExitCode> {
    if args.from.host != args.to.host {
        bail!("both images have to be in the same registry; copy the old one to {} first", args.to.host);
    }
    let line = Line::on_terminal();
    let push = Push { args, remote: Remote::of(&args.to, &args.access)?, line: &line };
    line.begin("Looking for the images");
    let found = push.remote.images(&args.from).and_then(|old| Ok((old, push.remote.images(&args.to)?)));
    line.clear();
    let (old, new) = found?;
    let mut published = Vec::new();
    for image in &new {
        let done = push.image(image, older(&old, image, new.len()));
        line.clear();
        let done = done?;
        if !args.json {
            output.text(&done.words(args))?;
        }
        published.push(done);
    }
    if args.json {
        output.json(&json!({ "images": published.iter().map(Published::json).collect::<Vec<_>>() }))?;
    }
    Ok(exit_code(&published))
}

/// The image that a new one most likely replaces: whoever names two single images wants them compared, otherwise it is the
/// one for the same platform.
fn older<'a>(old: &'a [Found], new: &Found, count: usize) -> Option<&'a Found> {
    match (old, count) {
        ([only], 1) => Some(only),
        _ => old
            .iter()
            .find(|old| old.image.platform == new.image.platform)
            .or_else(|| old.iter().find(|old| old.image.may_be_older(&new.image))),
    }
}

struct Push<'a> {
    args: &'a DeltaPush,
    remote: Remote,
    line: &'a Line,
}

/// What became of an image.
struct Published {
    digest: Digest,
    platform: Option<String>,
    /// Without one, no delta is worth it or none is needed.
    artifact: Option<Digest>,
    layers: Vec<Outcome>,
}

/// What became of a layer.
struct Outcome {
    target: Layer,
    verdict: Verdict,
}

enum Verdict {
    Made(Box<LayerDelta>),
    /// The old image has the layer.
    Held,
    /// No old layer is promising.
    NoBase,
    NotWorthIt,
}

impl Push<'_> {
    /// Makes the deltas to the layers of one image, and publishes them.
    fn image(&self, new: &Found, old: Option<&Found>) -> anyhow::Result<Published> {
        let old_images: Vec<_> = old.iter().map(|old| old.image.clone()).collect();
        let plan = layers::plan(&old_images, std::slice::from_ref(&new.image));
        let (mut layers, count) = (Vec::new(), plan.len());
        for (number, (target, need)) in plan.into_iter().enumerate() {
            let prefix = format!("Layer {} of {count}, {}", number + 1, rounded(target.size));
            let verdict = match need {
                Need::Nothing => Verdict::Held,
                Need::Delta(bases) => match bases.first() {
                    None => Verdict::NoBase,
                    Some(base) => self.layer(base, &target, &prefix)?,
                },
            };
            layers.push(Outcome { target, verdict });
        }
        let artifact = match old {
            Some(old) => self.publish(new, &old.manifest.digest, &layers)?,
            None => None,
        };
        Ok(Published { digest: new.manifest.digest, platform: new.platform(), artifact, layers })
    }

    /// Makes the delta to one layer and gives it to the registry.
    fn layer(&self, base: &Layer, target: &Layer, prefix: &str) -> anyhow::Result<Verdict> {
        let fetch = |repository, layer: &Layer, which| {
            let show = |at: u64| {
                let percent = at.saturating_mul(100).checked_div(layer.size).unwrap_or(100);
                self.line.show(&format!("{prefix}: fetching the {which} layer, {percent} %"));
            };
            self.remote
                .blob(repository, &layer.digest, layer.size, &show)
                .with_context(|| format!("cannot fetch the {which} layer {}", layer.digest))
        };
        let mut old = [fetch(&self.args.from.repository, base, "old")?];
        let mut new = fetch(&self.args.to.repository, target, "new")?;
        let options = self.args.effort.options(target.digest.algorithm());
        let show = |stage| self.line.begin(&format!("{prefix}: {}", words(stage)));
        let made = match engine::create(&mut old, &mut new, tempfile::tempfile, &options, show) {
            Ok(delta) => Bytes::from(delta.bytes),
            Err(Error::NotWorthIt { .. }) => return Ok(Verdict::NotWorthIt),
            Err(error) => {
                let target = target.digest;
                return Err(anyhow::Error::new(error).context(format!("no delta of {target} was made")));
            }
        };
        self.line.begin(&format!("{prefix}: pushing the delta, {}", rounded(made.len() as u64)));
        self.remote.push_blob(&self.args.to.repository, &made).context("cannot push a delta")?;
        let (delta, size) = (Digest::sha256(&made), made.len() as u64);
        let made = LayerDelta { base: base.digest, target: target.digest, delta, size };
        Ok(Verdict::Made(Box::new(made)))
    }

    /// Publishes the deltas that were made, if any.
    fn publish(&self, new: &Found, from: &Digest, layers: &[Outcome]) -> anyhow::Result<Option<Digest>> {
        let deltas: Vec<LayerDelta> = layers.iter().filter_map(Outcome::delta).copied().collect();
        if deltas.is_empty() {
            return Ok(None);
        }
        let repository = &self.args.to.repository;
        let publish = || {
            self.remote.push_blob(repository, &Bytes::from_static(delta_artifact::EMPTY_CONFIG))?;
            let manifest = delta_artifact::manifest(&new.manifest, from, &deltas);
            self.remote.publish(repository, &new.manifest.digest, media_type::OCI_MANIFEST, manifest)
        };
        publish().map(Some).with_context(|| format!("cannot publish the deltas to {}", new.manifest.digest))
    }
}

impl Outcome {
    fn delta(&self) -> Option<&LayerDelta> {
        match &self.verdict {
            Verdict::Made(delta) => Some(delta),
            _ => None,
        }
    }

    fn json(&self) -> Value {
        let Layer { digest, size, .. } = &self.target;
        let mut value = json!({ "target": { "digest": digest, "size": size } });
        value["outcome"] = match &self.verdict {
            Verdict::Made(made) => {
                value["base"] = json!({ "digest": made.base });
                value["delta"] = json!({ "digest": made.delta, "size": made.size });
                "made"
            }
            Verdict::Held => "held",
            Verdict::NoBase => "no-base",
            Verdict::NotWorthIt => "not-worth-it",
        }
        .into();
        value
    }

    fn words(&self) -> String {
        let Layer { digest, size, .. } = &self.target;
        match &self.verdict {
            Verdict::Made(delta) => {
                let LayerDelta { base, size: made, .. } = &**delta;
                format!(
                    "{digest}: {made} bytes, {} of the layer's {size}, from {base}",
                    percent(*made, *size)
                )
            }
            Verdict::Held => format!("{digest}: no delta needed, the old image has this layer"),
            Verdict::NoBase => format!("{digest}: no delta, no old layer is near its {size} bytes"),
            Verdict::NotWorthIt => format!("{digest}: a delta of its {size} bytes is not worth it"),
        }
    }
}

impl Published {
    fn json(&self) -> Value {
        json!({
            "digest": self.digest,
            "platform": self.platform,
            "artifact": self.artifact,
            "layers": self.layers.iter().map(Outcome::json).collect::<Vec<_>>(),
        })
    }

    fn words(&self, args: &DeltaPush) -> String {
        let (host, repository) = (&args.to.host, &args.to.repository);
        let platform = self.platform.as_ref().map_or(String::new(), |platform| format!(" ({platform})"));
        let mut text = format!("{host}/{repository}@{}{platform}\n", self.digest);
        for layer in &self.layers {
            text.push_str(&format!("  {}\n", layer.words()));
        }
        text.push_str(&match &self.artifact {
            Some(artifact) => format!("  published as {host}/{repository}@{artifact}\n"),
            None => "  nothing to publish\n".to_owned(),
        });
        text
    }
}

/// That of a run that came to its end: whether anything was published, or nothing was needed.
fn exit_code(images: &[Published]) -> ExitCode {
    let mut layers = images.iter().flat_map(|image| &image.layers);
    let made = images.iter().any(|image| image.artifact.is_some());
    let held = layers.all(|layer| matches!(layer.verdict, Verdict::Held));
    if made || held { ExitCode::SUCCESS } else { ExitCode::from(NOT_WORTH_IT) }
}
