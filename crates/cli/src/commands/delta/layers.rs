//! Layers of images, and which old one a new one is compared with.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::bail;
use deltaport_oci::manifest::View;
use deltaport_oci::{Descriptor, Digest, Platform};

use crate::commands::layout;

/// How many images, one for each platform, a name may stand for.
pub(super) const MAX_IMAGES: usize = 256;
/// How many old layers a new one is compared with at most. More of them take more time than they save.
const MAX_CANDIDATES: usize = 4;
/// How many times as large as the new layer, or as small, an old one may be to be compared.
const MAX_RATIO: u64 = 8;

/// A layer that an image has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Where it should be in a layout; empty when it is in a registry.
    pub(super) path: PathBuf,
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) platform: Option<Platform>,
    /// Lowest first.
    pub(super) layers: Vec<Layer>,
}

/// The images that a tag of a layout stands for; without a tag, the only one that the layout has.
pub(super) fn images(layout: &Path, tag: Option<&str>) -> anyhow::Result<Vec<Image>> {
    let mut images = Vec::new();
    for descriptor in &layout::entries(layout, tag)? {
        collect(layout, descriptor, 1, &mut images)?;
    }
    if images.is_empty() {
        bail!("{} has no image there", layout.display());
    }
    Ok(images)
}

/// Adds the image of a manifest, or those of an index.
fn collect(
    layout: &Path,
    descriptor: &Descriptor,
    depth: usize,
    images: &mut Vec<Image>,
) -> anyhow::Result<()> {
    // What says something about an image, such as how it was built, is listed as an image for no platform.
    if descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown") {
        return Ok(());
    }
    let (_, view) = layout::manifest(layout, descriptor)?;
    if images.len() >= MAX_IMAGES || depth > layout::MAX_DEPTH {
        bail!("{} has more images than {MAX_IMAGES}, or indexes in indexes", layout.display());
    }
    if view.is_index() {
        return view.manifests.iter().try_for_each(|child| collect(layout, child, depth + 1, images));
    }
    let platform = descriptor.platform.clone().or_else(|| configured_platform(layout, &view));
    // All blobs but the configuration.
    let layers = view.blobs().skip(usize::from(view.config.is_some())).map(|layer| Layer {
        digest: layer.digest,
        size: layer.size,
        path: layout::blob_path(layout, &layer.digest),
    });
    images.push(Image { platform, layers: layers.collect() });
    Ok(())
}

/// The platform that the configuration of an image names, if it does.
fn configured_platform(layout: &Path, view: &View) -> Option<Platform> {
    let config = layout::read(&layout::blob_path(layout, &view.config.as_ref()?.digest)).ok()?;
    let platform: Platform = serde_json::from_slice(&config).ok()?;
    (!platform.os.is_empty()).then_some(platform)
}

/// What a layer of a new image needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: the old image has it.
    Nothing,
    /// A delta from these old layers, the most promising first; from none when none is promising.
    Delta(Vec<Layer>),
}

/// Says what each layer of the new images needs, each layer once, lowest first.
pub(super) fn plan(old: &[Image], new: &[Image]) -> Vec<(Layer, Need)> {
    let held: HashSet<Digest> = layers_of(old).map(|layer| layer.digest).collect();
    let mut seen = HashSet::new();
    let mut plan = Vec::new();
    for image in new {
        let comparable: Vec<&Image> = match (old, new) {
            // Whoever names two single images wants them compared.
            ([only], [_]) => vec![only],
            _ => old.iter().filter(|old| old.may_be_older(image)).collect(),
        };
        for (place, layer) in image.layers.iter().enumerate() {
            if !seen.insert(layer.digest) {
                continue;
            }
            let need = if held.contains(&layer.digest) {
                Need::Nothing
            } else {
                Need::Delta(candidates(&comparable, image, place))
            };
            plan.push((layer.clone(), need));
        }
    }
    plan
}

impl Image {
    /// Whether this may be an older image for the same platform.
    pub(super) fn may_be_older(&self, new: &Self) -> bool {
        match (&self.platform, &new.platform) {
            (Some(old), Some(new)) => old.is_same(new),
            _ => true,
        }
    }
}

fn layers_of(images: &[Image]) -> impl Iterator<Item = &Layer> {
    images.iter().flat_map(|image| &image.layers)
}

/// The old layers that the one at `place` of a new image most likely comes from. Those come first that are not in the
/// new image any more, then those that stand at the same place, counted from the bottom or from the top, then those of a
/// similar size.
fn candidates(old: &[&Image], new: &Image, place: usize) -> Vec<Layer> {
    let (target, from_top) = (&new.layers[place], new.layers.len() - place);
    let mut ranked = Vec::new();
    for image in old {
        for (old_place, layer) in image.layers.iter().enumerate() {
            let gone = !new.layers.iter().any(|kept| kept.digest == layer.digest);
            let same_place = old_place == place || image.layers.len() - old_place == from_top;
            ranked.push(((Reverse(gone), Reverse(same_place), ratio(layer.size, target.size)), layer));
        }
    }
    most_promising(ranked, target)
}

/// The layers of all `images` that a layer most likely comes from which is in no image, by its size.
pub(super) fn of_similar_size(images: &[Image], target: &Layer) -> Vec<Layer> {
    let ranked = layers_of(images).map(|layer| (ratio(layer.size, target.size), layer)).collect();
    most_promising(ranked, target)
}

/// The first few by rank that can be compared: not of another size altogether, and named by the algorithm that the
/// delta names its bases by.
fn most_promising<K: Ord>(mut ranked: Vec<(K, &Layer)>, target: &Layer) -> Vec<Layer> {
    ranked.sort_by(|one, other| one.0.cmp(&other.0));
    let mut seen = HashSet::new();
    ranked
        .into_iter()
        .map(|(_, layer)| layer)
        .filter(|layer| layer.digest.algorithm() == target.digest.algorithm())
        .filter(|layer| is_similar(layer.size, target.size) && seen.insert(layer.digest))
        .take(MAX_CANDIDATES)
        .cloned()
        .collect()
}

fn is_similar(one: u64, other: u64) -> bool {
    one.max(other) <= one.min(other).saturating_mul(MAX_RATIO)
}

/// How many times as large as the other the larger one is, in 1024ths.
fn ratio(one: u64, other: u64) -> u128 {
    (u128::from(one.max(other)) << 10) / u128::from(one.min(other).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(platform: &str, layers: &[(&str, u64)]) -> Image {
        let layer = |(content, size): &(&str, u64)| Layer {
            digest: Digest::sha256(content.as_bytes()),
            size: *size,
            path: content.into(),
        };
        Image { platform: platform.parse().ok(), layers: layers.iter().map(layer).collect() }
    }

    /// What each layer needs, as `name: bases`.
    fn planned(old: &[Image], new: &[Image]) -> Vec<String> {
        let names = |layers: &[Layer]| -> Vec<String> {
            layers.iter().map(|layer| layer.path.display().to_string()).collect()
        };
        plan(old, new)
            .into_iter()
            .map(|(layer, need)| match need {
                Need::Nothing => format!("{}: held", layer.path.display()),
                Need::Delta(bases) => format!("{}: {}", layer.path.display(), names(&bases).join(" ")),
            })
            .collect()
    }

    #[test]
    fn a_layer_is_compared_with_what_it_replaces_first() {
        let old = [image("", &[("base", 50), ("deps", 20), ("app", 10)])];
        let new = [image("", &[("base", 50), ("deps 2", 21), ("app 2", 11)])];
        assert_eq!(planned(&old, &new), ["base: held", "deps 2: deps app base", "app 2: app deps base"]);
        // A layer more at the bottom: places are counted from the top as well.
        let new = [image("", &[("base 2", 50), ("tools", 30), ("deps 2", 21), ("app 2", 11)])];
        assert_eq!(
            planned(&old, &new),
            [
                "base 2: base deps app",
                "tools: deps base app",
                "deps 2: deps app base",
                "app 2: app deps base"
            ]
        );
    }

    #[test]
    fn only_a_few_of_a_like_size_are_compared() {
        let old = [image("", &[("a", 10), ("b", 20), ("c", 40), ("d", 80), ("e", 81), ("f", 15), ("g", 1)])];
        assert_eq!(planned(&old, &[image("", &[("new", 10)])]), ["new: a f b c"]);
        assert_eq!(planned(&old, &[image("", &[("new", 1000)])]), ["new: "]);
        let target = image("", &[("new", 80)]).layers[0].clone();
        let similar: Vec<u64> = of_similar_size(&old, &target).iter().map(|layer| layer.size).collect();
        assert_eq!(similar, [80, 81, 40, 20]);
        assert!(is_similar(0, 0) && !is_similar(0, 1) && is_similar(u64::MAX, u64::MAX / 2));
    }

    #[test]
    fn images_are_compared_by_platform() {
        let old = [image("linux/amd64", &[("a", 10)]), image("linux/arm64", &[("b", 10)])];
        let new = [
            image("linux/arm64/v8", &[("b 2", 10), ("both", 10)]),
            image("linux/amd64", &[("a 2", 10), ("both", 10)]),
        ];
        assert_eq!(planned(&old, &new), ["b 2: b", "both: b", "a 2: a"]);
        assert_eq!(planned(&old, &[image("linux/riscv64", &[("c", 10)])]), ["c: "]);
        assert_eq!(planned(&old, &[image("", &[("c", 10)])]), ["c: a b"]);
        assert_eq!(planned(&old[..1], &[image("linux/riscv64", &[("c", 10)])]), ["c: a"]);
    }
}
