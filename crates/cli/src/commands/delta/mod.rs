//! `deltaport delta`: deltas as files, made and applied by hand, and published beside images.

mod apply;
mod create;
mod files;
mod inspect;
mod layers;
mod list;
mod push;
mod remote;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use deltaport_delta::{Blob, Error, Header, Stage};
use serde_json::{Value, json};

use self::files::Named;
use crate::args::{Delta, DeltaCommand};
use crate::logging;
use crate::output::Output;

pub(crate) use self::remote::Remote;

/// What scripts are told when whole layers should be sent. No other command exits with it.
const NOT_WORTH_IT: u8 = 4;

pub(crate) fn run(args: &Delta, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    match &args.command {
        DeltaCommand::Create(args) => create::run(args, output),
        DeltaCommand::Apply(args) => apply::run(args, output),
        DeltaCommand::Inspect(args) => inspect::run(args, output),
        DeltaCommand::Push(args) => push::run(args, output),
        DeltaCommand::List(args) => list::run(args, output),
    }
}

/// What a delta in a file says about itself.
struct Described {
    header: Header,
    /// How many bytes the header takes.
    header_size: u64,
    /// How many bytes the whole delta has.
    size: u64,
}

impl Described {
    /// Reads the header, and compares the size of the file with what the header announces.
    fn read(path: &Path) -> anyhow::Result<Self> {
        let mut file = Named::open(path)?;
        let header = deltaport_delta::inspect(&mut file).map_err(|error| damaged(path, error))?;
        let (header_size, size) = (file.position()?, file.len()?);
        let sections = header.sections.by_name();
        let announced = sections.iter().fold(header_size, |sum, (_, size)| sum.saturating_add(*size));
        if size < announced {
            let path = path.display();
            anyhow::bail!("{path} is cut off: it has {size} of {announced} bytes; fetch it again");
        }
        Ok(Self { header, header_size, size })
    }

    /// All of it, for programs.
    fn json(&self) -> Value {
        let Header { kind, bases, target, old_len, new_len, recipe, sections, .. } = &self.header;
        let bases: Vec<Value> = bases
            .iter()
            .map(|base| {
                let mut value = blob_json(&base.blob);
                value["form"] = base.form.as_str().into();
                value
            })
            .collect();
        let mut by_section = json!({ "header": self.header_size });
        for (name, size) in sections.by_name() {
            by_section[name] = size.into();
        }
        json!({
            "kind": kind.as_str(),
            "recipe": recipe.as_ref().map(ToString::to_string),
            "size": self.size,
            "target": blob_json(target),
            "bases": bases,
            "old_content": old_len,
            "new_content": new_len,
            "sections": by_section,
        })
    }
}

fn blob_json(blob: &Blob) -> Value {
    json!({ "digest": blob.digest.to_string(), "size": blob.size })
}

/// What to do about an error of a delta that was read from `path`.
fn damaged(path: &Path, error: Error) -> anyhow::Error {
    let advice = match &error {
        Error::Format(_) | Error::OutputMismatch(_) | Error::Limit { .. } => {
            format!("{} cannot be used; fetch it again, or the whole layer", path.display())
        }
        _ => format!("{} could not be applied", path.display()),
    };
    anyhow::Error::new(error).context(advice)
}

/// How many threads the machine can run.
fn threads_of_machine() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// The digest and size of a file.
fn blob_of(path: &Path, algorithm: deltaport_oci::Algorithm) -> anyhow::Result<Blob> {
    let mut file = Named::open(path)?;
    files::blob(&mut file, algorithm).with_context(|| format!("cannot read {}", path.display()))
}

/// With one digit behind the point.
fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Open => "opening the layers",
        Stage::Recipe => "looking for what compressed the new one",
        Stage::Unfold => "opening compressed files inside",
        Stage::Match => "looking for what is alike",
        Stage::Code => "writing the delta",
        Stage::Prove => "applying it to prove it",
        _ => "working",
    }
}
