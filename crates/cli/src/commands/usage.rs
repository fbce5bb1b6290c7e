//! `deltaport usage`: what takes the room.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use deltaport_store::Usage;

use crate::args;
use crate::output::{Output, rounded};
use crate::{logging, wiring};

pub(crate) fn run(args: &args::Usage, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    let data = wiring::stored_data(&args.place)?;
    let (bytes, names) = (wiring::stored_bytes(&args.place)?, wiring::stored_names(&args.place)?);
    let usage = deltaport_store::usage(&data, &bytes, &names)
        .with_context(|| format!("cannot tell what takes the room in {}", data.display()))?;
    match args.json {
        true => output.json(&serde_json::to_value(&usage)?)?,
        false => output.text(&words(&usage))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A table for a person, the largest repository first.
fn words(usage: &Usage) -> String {
    let mut held: Vec<_> = usage.repositories.iter().collect();
    held.sort_by_key(|held| std::cmp::Reverse(held.alone.saturating_add(held.shared)));
    let width =
        held.iter().map(|held| held.repository.as_str().len()).max().unwrap_or(0).max("repository".len());
    let mut text = String::new();
    let mut row = |name: &str, blobs: &str, alone: &str, shared: &str| {
        let _ = writeln!(text, "{name:width$}  {blobs:>8}  {alone:>8}  {shared:>8}");
    };
    row("repository", "blobs", "alone", "shared");
    for held in held {
        let (alone, shared) = (rounded(held.alone), rounded(held.shared));
        row(held.repository.as_str(), &held.blobs.to_string(), &alone, &shared);
    }
    let places = &usage.places;
    let _ = writeln!(
        text,
        "\nBlobs take {}: {} of one repository alone, {} shared (each once), {} of none, which go when they are \
         collected.\n{} of it came from upstreams and nobody pushed it.\nBesides: names and journal {}, uploads {}, \
         beginnings of blobs {}, quarantine {}.",
        rounded(usage.blobs),
        rounded(usage.alone),
        rounded(usage.shared),
        rounded(usage.unheld),
        rounded(usage.cached),
        rounded(places.names),
        rounded(places.uploads),
        rounded(places.partial),
        rounded(places.quarantine),
    );
    text
}
