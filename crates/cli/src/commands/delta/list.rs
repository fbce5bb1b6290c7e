//! `deltaport delta list`: the deltas that there are to the layers of an image: published beside it, or made by a hub.

use std::process::ExitCode;

use anyhow::Context as _;
use deltaport_oci::delta_artifact::{self, LayerDelta};
use deltaport_oci::{Descriptor, Digest, Reference, media_type};
use serde_json::{Value, json};

use super::percent;
use super::remote::{Found, Remote};
use crate::args::{DeltaList, ImageName};
use crate::commands::progress::Line;
use crate::output::Output;

/// How many artifacts about one image are looked at.
const MAX_ARTIFACTS: usize = 64;

pub(super) fn run(args: &DeltaList, output: &mut Output) -> anyhow::Result<ExitCode> {
    let remote = Remote::of(&args.image, &args.access)?;
    let line = Line::on_terminal();
    line.begin("Asking the registry");
    let listed = remote
        .images(&args.image)
        .and_then(|images| images.iter().map(|image| Listed::of(image, &args.image, &remote)).collect());
    line.clear();
    let listed: Vec<Listed> = listed?;
    if args.json {
        output.json(&json!({ "images": listed.iter().map(Listed::json).collect::<Vec<_>>() }))?;
    } else {
        listed.iter().try_for_each(|image| output.text(&image.words(&args.image)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An image for one platform, with what there is of deltas to it.
struct Listed {
    digest: Digest,
    platform: Option<String>,
    /// Its layers and their sizes, lowest first.
    layers: Vec<(Digest, u64)>,
    deltas: Vec<Available>,
    /// Artifacts that cannot be read, and why.
    broken: Vec<(Digest, String)>,
    /// How many artifacts were not looked at.
    unread: usize,
}

/// A delta, and the artifact that names it; without one, it is what the registry has made for those who ask.
struct Available {
    artifact: Option<Digest>,
    delta: LayerDelta,
}

impl Listed {
    fn of(image: &Found, name: &ImageName, remote: &Remote) -> anyhow::Result<Self> {
        let mut listed = Self {
            digest: image.manifest.digest,
            platform: image.platform(),
            layers: image.view.layers.iter().map(|layer| (layer.digest, layer.size)).collect(),
            deltas: Vec::new(),
            broken: Vec::new(),
            unread: 0,
        };
        let repository = &name.repository;
        let artifacts = remote
            .referrers(repository, &listed.digest, media_type::DELTA_ARTIFACT)
            .with_context(|| format!("cannot list what refers to {}", listed.digest))?;
        listed.unread = artifacts.len().saturating_sub(MAX_ARTIFACTS);
        for Descriptor { digest: artifact, .. } in artifacts.iter().take(MAX_ARTIFACTS) {
            match remote.manifest(repository, &Reference::Digest(*artifact)) {
                Ok((_, view)) => listed.deltas.extend(
                    delta_artifact::deltas(&view).map(|delta| Available { artifact: Some(*artifact), delta }),
                ),
                Err(error) => listed.broken.push((*artifact, format!("{error:#}"))),
            }
        }
        // A delta to a layer that the image does not have is of no use for it.
        let layers = &listed.layers;
        listed.deltas.retain(|published| layers.iter().any(|(layer, _)| *layer == published.delta.target));
        for (layer, _) in layers {
            let made = remote
                .made(repository, layer)
                .with_context(|| format!("cannot ask what deltas there are to {layer}"))?;
            for delta in made {
                if !listed.deltas.iter().any(|known| known.delta == delta) {
                    listed.deltas.push(Available { artifact: None, delta });
                }
            }
        }
        Ok(listed)
    }

    fn to<'a>(&'a self, layer: &'a Digest) -> impl Iterator<Item = &'a Available> {
        self.deltas.iter().filter(move |available| available.delta.target == *layer)
    }

    fn json(&self) -> Value {
        let layers = self.layers.iter().map(|(layer, size)| {
            let delta = |Available { artifact, delta }: &Available| {
                let LayerDelta { base, delta, size: bytes, .. } = delta;
                json!({
                    "base": base,
                    "digest": delta,
                    "size": bytes,
                    "percent": hundredths(*bytes, *size),
                    "artifact": artifact,
                })
            };
            json!({ "digest": layer, "size": size, "deltas": self.to(layer).map(delta).collect::<Vec<_>>() })
        });
        let broken = self.broken.iter().map(|(artifact, why)| json!({ "artifact": artifact, "error": why }));
        json!({
            "digest": self.digest,
            "platform": self.platform,
            "layers": layers.collect::<Vec<_>>(),
            "broken": broken.collect::<Vec<_>>(),
            "unread": self.unread,
        })
    }

    fn words(&self, name: &ImageName) -> String {
        let platform = self.platform.as_ref().map_or(String::new(), |platform| format!(" ({platform})"));
        let mut text = format!("{}/{}@{}{platform}\n", name.host, name.repository, self.digest);
        for (layer, size) in &self.layers {
            let none = if self.to(layer).next().is_none() { ", no deltas" } else { "" };
            text.push_str(&format!("  {layer}: {size} bytes{none}\n"));
            for Available { artifact, delta: LayerDelta { base, delta, size: bytes, .. } } in self.to(layer) {
                let share = percent(*bytes, *size);
                let made = if artifact.is_none() { ", made by the hub" } else { "" };
                text.push_str(&format!("    from {base}: {delta}, {bytes} bytes, {share}{made}\n"));
            }
        }
        for (artifact, why) in &self.broken {
            text.push_str(&format!("  {artifact} cannot be read: {why}\n"));
        }
        if self.unread > 0 {
            text.push_str(&format!("  {} artifacts more were not looked at\n", self.unread));
        }
        text
    }
}

/// A share in percent, with two digits behind the point.
fn hundredths(part: u64, whole: u64) -> f64 {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    f64::from(u32::try_from(hundredths).unwrap_or(u32::MAX)) / 100.0
}
