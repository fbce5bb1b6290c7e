//! `deltaport delta create`: the delta of a layer, or those of an image.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use deltaport_delta::{self as engine, Blob, Delta, Error, MAX_BASES, Options, Stage};
use deltaport_oci::Algorithm;
use serde_json::{Value, json};

use super::files::{Named, Place};
use super::layers::{self, Image, Layer, Need};
use super::{Described, NOT_WORTH_IT, blob_json, blob_of, percent, words};
use crate::args::{DeltaCreate, Layers};
use crate::commands::progress::Line;
use crate::output::{Output, rounded};

pub(super) fn run(args: &DeltaCreate, output: &mut Output) -> anyhow::Result<ExitCode> {
    let (files, images) = bases(&args.bases)?;
    let line = Line::on_terminal();
    let made = match &args.target {
        Layers::File(target) => layer(args, target, files, &images, &line),
        Layers::Image { layout, tag } => {
            let new = layers::images(layout, tag.as_deref())?;
            return image(args, &files, &images, &new, &line, output);
        }
    };
    line.clear();
    let made = made?;
    if args.json {
        output.json(&made.json())?;
    } else {
        output.line(&made.words())?;
    }
    Ok(exit_code(&[made]))
}

/// The bases that are files, in the order in which they were given, and the images.
fn bases(given: &[Layers]) -> anyhow::Result<(Vec<PathBuf>, Vec<Image>)> {
    let (mut files, mut images) = (Vec::new(), Vec::new());
    for layers in given {
        match layers {
            Layers::File(path) => files.push(path.clone()),
            Layers::Image { layout, tag } => images.extend(layers::images(layout, tag.as_deref())?),
        }
    }
    if files.len() > MAX_BASES {
        bail!("a delta has at most {MAX_BASES} bases, and {} were given; leave some out", files.len());
    }
    Ok((files, images))
}

/// Makes the delta of a layer in a file.
fn layer(
    args: &DeltaCreate,
    target: &Path,
    mut files: Vec<PathBuf>,
    images: &[Image],
    line: &Line,
) -> anyhow::Result<Outcome> {
    let place = Place::of(&args.out)?;
    let described = || blob_of(target, Algorithm::Sha256);
    if !images.is_empty() {
        let Blob { digest, size } = described()?;
        let target = Layer { digest, size, path: target.to_owned() };
        add(&mut files, layers::of_similar_size(images, &target))?;
    }
    if files.is_empty() {
        return Ok(Outcome { target: described()?, verdict: Verdict::NoBase });
    }
    let made = make(args, &files, target, Algorithm::Sha256, &place, &|stage| line.begin(words(stage)))?;
    match made {
        Some(delta) => Outcome::written(&delta, &place),
        None => Ok(Outcome { target: described()?, verdict: Verdict::NotWorthIt }),
    }
}

/// Makes a delta of each layer of the new images that the old ones do not have.
fn image(
    args: &DeltaCreate,
    files: &[PathBuf],
    old: &[Image],
    new: &[Image],
    line: &Line,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let plan = layers::plan(old, new);
    plan.iter()
        .filter(|(_, need)| *need != Need::Nothing)
        .try_for_each(|(layer, _)| must_be_intact(layer))?;
    fs::create_dir_all(&args.out).with_context(|| {
        format!("cannot make the directory {}, which takes the deltas", args.out.display())
    })?;
    let (mut outcomes, count) = (Vec::new(), plan.len());
    for (number, (layer, need)) in plan.into_iter().enumerate() {
        let show = |stage| {
            line.begin(&format!("Layer {} of {count}, {}: {}", number + 1, rounded(layer.size), words(stage)))
        };
        let outcome = layer_of_image(args, files, &layer, need, &show);
        line.clear();
        let outcome = outcome?;
        if !args.json {
            output.line(&outcome.words())?;
        }
        outcomes.push(outcome);
    }
    if args.json {
        output.json(&json!({ "layers": outcomes.iter().map(Outcome::json).collect::<Vec<_>>() }))?;
    }
    Ok(exit_code(&outcomes))
}

fn layer_of_image(
    args: &DeltaCreate,
    files: &[PathBuf],
    layer: &Layer,
    need: Need,
    show: &dyn Fn(Stage),
) -> anyhow::Result<Outcome> {
    let target = Blob { digest: layer.digest, size: layer.size };
    let mut bases = files.to_vec();
    match need {
        Need::Nothing => return Ok(Outcome { target, verdict: Verdict::Held }),
        Need::Delta(candidates) => add(&mut bases, candidates)?,
    }
    if bases.is_empty() {
        return Ok(Outcome { target, verdict: Verdict::NoBase });
    }
    let place = Place::of(&args.out.join(format!("{}.delta", layer.digest.hex())))?;
    let Some(delta) = make(args, &bases, &layer.path, layer.digest.algorithm(), &place, show)? else {
        return Ok(Outcome { target, verdict: Verdict::NotWorthIt });
    };
    Outcome::written(&delta, &place)
}

/// Adds what is there of the layers that an image had.
fn add(files: &mut Vec<PathBuf>, candidates: Vec<Layer>) -> anyhow::Result<()> {
    for layer in candidates.into_iter().filter(|layer| layer.path.is_file()) {
        must_be_intact(&layer)?;
        files.push(layer.path);
    }
    files.truncate(MAX_BASES);
    Ok(())
}

/// Fails when a layout does not have what it says. A delta to or from that would be of no use.
fn must_be_intact(layer: &Layer) -> anyhow::Result<()> {
    let Layer { digest, size, path } = layer;
    fs::metadata(path)
        .with_context(|| format!("the layer {digest} is not in the layout: {}", path.display()))?;
    if blob_of(path, digest.algorithm())? != (Blob { digest: *digest, size: *size }) {
        bail!("{} is damaged: it is not what its name says; copy the image again", path.display());
    }
    Ok(())
}

/// Makes a delta and writes it; `None` when it is not worth it.
fn make(
    args: &DeltaCreate,
    bases: &[PathBuf],
    target: &Path,
    algorithm: Algorithm,
    place: &Place,
    show: &dyn Fn(Stage),
) -> anyhow::Result<Option<Delta>> {
    let options = args.effort.options(algorithm);
    let mut new = Named::open(target)?;
    let mut old = bases.iter().map(|path| Named::open(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let delta = match engine::create(&mut old, &mut new, || place.scratch(), &options, show) {
        Ok(delta) => delta,
        Err(Error::NotWorthIt { .. }) => return Ok(None),
        Err(error) => {
            let target = target.display();
            return Err(anyhow::Error::new(error).context(format!("no delta of {target} was made")));
        }
    };
    place.write(|file| Ok(file.write_all(&delta.bytes)?))?;
    Ok(Some(delta))
}

/// What became of a layer.
struct Outcome {
    target: Blob,
    verdict: Verdict,
}

enum Verdict {
    Made {
        path: PathBuf,
        described: Box<Described>,
    },
    /// The old image has the layer.
    Held,
    /// No old layer is promising.
    NoBase,
    NotWorthIt,
}

impl Outcome {
    /// That of a delta which was written, as it is read back.
    fn written(delta: &Delta, place: &Place) -> anyhow::Result<Self> {
        let path = place.path().to_owned();
        let described = Box::new(Described::read(&path)?);
        Ok(Self { target: delta.header.target, verdict: Verdict::Made { path, described } })
    }

    fn json(&self) -> Value {
        let (name, mut value) = match &self.verdict {
            Verdict::Made { path, described } => {
                let mut value = described.json();
                value["file"] = path.display().to_string().into();
                ("made", value)
            }
            Verdict::Held => ("held", json!({})),
            Verdict::NoBase => ("no-base", json!({})),
            Verdict::NotWorthIt => ("not-worth-it", json!({})),
        };
        value["outcome"] = name.into();
        value["target"] = blob_json(&self.target);
        value
    }

    fn words(&self) -> String {
        let Blob { digest, size } = &self.target;
        match &self.verdict {
            Verdict::Made { path, described } => {
                let Described { header, size: delta, .. } = &**described;
                let how = header.recipe.as_ref().map_or(String::new(), |recipe| format!(" ({recipe})"));
                format!(
                    "{}: {delta} bytes, {} of the layer's {size}; {}{how}, from {}",
                    path.display(),
                    percent(*delta, *size),
                    header.kind.as_str(),
                    match header.bases.len() {
                        1 => "1 base".to_owned(),
                        count => format!("{count} bases"),
                    },
                )
            }
            Verdict::Held => format!("{digest}: no delta needed, the old image has this layer"),
            Verdict::NoBase => {
                format!("{digest}: no delta, no old layer is near its {size} bytes; send the layer")
            }
            Verdict::NotWorthIt => {
                let worth = Options::default().worth_percent;
                format!(
                    "{digest}: a delta is not worth it, above {worth} % of the layer's {size} bytes; send the layer"
                )
            }
        }
    }
}

/// That of a run that came to its end: whether there is anything to send besides whole layers.
fn exit_code(outcomes: &[Outcome]) -> ExitCode {
    let made = outcomes.iter().any(|outcome| matches!(outcome.verdict, Verdict::Made { .. }));
    let held = outcomes.iter().all(|outcome| matches!(outcome.verdict, Verdict::Held));
    if made || held { ExitCode::SUCCESS } else { ExitCode::from(NOT_WORTH_IT) }
}
