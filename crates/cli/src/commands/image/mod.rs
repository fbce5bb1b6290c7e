//! `deltaport image`: what a running deltaport has of an image, and to have more of it or less.
//!
//! The commands ask over the network even on the same machine: the process that serves the data is the only one that may
//! change them, and what it says is what clients get.

mod words;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use deltaport_client::{ImageAnswer, ImageRequest};
use deltaport_oci::Reference;
use deltaport_oci::platform::Pattern;
use deltaport_registry::image::{Failed, Pruned, Tree};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::args::{Access, Image, ImageCommand, ImageComplete, ImageName, ImagePrune, ImageShow};
use crate::commands::delta::Remote;
use crate::commands::progress::Line;
use crate::logging;
use crate::output::Output;

pub(crate) fn run(args: &Image, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    match &args.command {
        ImageCommand::Show(args) => show(args, output),
        ImageCommand::Complete(args) => complete(args, output),
        ImageCommand::Prune(args) => prune(args, output),
    }
}

fn show(args: &ImageShow, output: &mut Output) -> anyhow::Result<ExitCode> {
    let asked = Asked::new(&args.image, &args.access, &[])?;
    let (tree, value): (Tree, Value) = read(&asked.once(ImageRequest::Show)?)?;
    match args.json {
        true => output.json(&value)?,
        false => output.text(&words::tree(&args.image, &tree))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What completing an image has come to so far.
#[derive(Deserialize)]
struct SoFar {
    tree: Option<Tree>,
    failed: Vec<Failed>,
}

fn complete(args: &ImageComplete, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut asked = Asked::new(&args.image, &args.access, &args.platforms)?;
    let line = Line::on_terminal();
    line.begin("Asking the registry");
    let answer = loop {
        match asked.once(ImageRequest::Complete) {
            Ok(ImageAnswer::Pending(body)) => {
                let (so_far, _): (SoFar, Value) = read(&ImageAnswer::Done(body))?;
                if let Some(tree) = so_far.tree {
                    line.begin(&words::progress(&tree));
                    // A tag may move meanwhile; what was begun is completed.
                    asked.image.reference = Reference::Digest(tree.root.digest);
                }
            }
            other => break other,
        }
    };
    line.clear();
    let (SoFar { tree, failed }, value): (SoFar, Value) = read(&answer?)?;
    let good = failed.iter().all(|failed| failed.absent && !failed.asked);
    match (args.json, &tree) {
        (true, _) => output.json(&json!({ "tree": value["tree"], "failed": value["failed"] }))?,
        (false, Some(tree)) => output.text(&words::completed(&args.image, tree, &failed))?,
        (false, None) => bail!("{} says nothing about the image", args.image.host),
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn prune(args: &ImagePrune, output: &mut Output) -> anyhow::Result<ExitCode> {
    let asked = Asked::new(&args.image, &args.access, &args.platforms)?;
    let (pruned, value): (Pruned, Value) = read(&asked.once(ImageRequest::Prune)?)?;
    match args.json {
        true => output.json(&value)?,
        false => output.text(&words::pruned(&args.image, &pruned))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A deltaport that is asked about an image.
struct Asked {
    remote: Remote,
    image: ImageName,
    platforms: Vec<String>,
}

impl Asked {
    /// Fails when the registry is no deltaport.
    fn new(image: &ImageName, access: &Access, platforms: &[Pattern]) -> anyhow::Result<Self> {
        let remote = Remote::of(image, access)?;
        let found = remote.patiently(|client| client.discover());
        let found =
            found.with_context(|| format!("cannot ask {}; is deltaport running there?", image.host))?;
        if !found.images {
            bail!("{} is not a deltaport that can tell what it has of an image", image.host);
        }
        Ok(Self {
            remote,
            image: image.clone(),
            platforms: platforms.iter().map(ToString::to_string).collect(),
        })
    }

    fn once(&self, request: ImageRequest) -> anyhow::Result<ImageAnswer> {
        let ImageName { host, repository, reference } = &self.image;
        let answer =
            self.remote.patiently(|client| client.image(request, repository, reference, &self.platforms));
        match answer.with_context(|| format!("cannot ask {host} about {repository}, {reference}"))? {
            ImageAnswer::Refused(why) => bail!("{host}/{repository}, {reference}: {why}"),
            answer => Ok(answer),
        }
    }
}

/// What an answer says, and as it stands there.
fn read<T: DeserializeOwned>(answer: &ImageAnswer) -> anyhow::Result<(T, Value)> {
    let (ImageAnswer::Done(body) | ImageAnswer::Pending(body)) = answer else { bail!("it was refused") };
    let value: Value = serde_json::from_slice(body).context("the registry sends something else than JSON")?;
    let read = T::deserialize(&value);
    Ok((
        read.context("the registry speaks another version of this; use the deltaport that runs there")?,
        value,
    ))
}
