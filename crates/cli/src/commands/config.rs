//! `deltaport config`: what can be configured, and whether a configuration is good.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use crate::args::{Config, ConfigCheck, ConfigCommand, ConfigReference};
use crate::output::{Output, complain};
use crate::settings::{self, Overrides, Problem, Problems, ReferenceFormat, Settings};
use crate::{places, wiring};

pub(crate) fn run(args: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    match &args.command {
        ConfigCommand::Check(args) => check(args, output),
        ConfigCommand::Reference(args) => reference(args, output),
    }
}

fn reference(args: &ConfigReference, output: &mut Output) -> anyhow::Result<ExitCode> {
    let format = match (args.markdown, args.json) {
        (true, _) => ReferenceFormat::Markdown,
        (_, true) => ReferenceFormat::Json,
        _ => ReferenceFormat::Toml,
    };
    output.text(&settings::reference(format))?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &ConfigCheck, output: &mut Output) -> anyhow::Result<ExitCode> {
    match checked(args) {
        Ok(settings) if args.json => {
            let notes: Vec<&str> = places::who_can_share(&settings).into_iter().collect();
            output.json(&json!({ "ok": true, "settings": settings, "notes": notes }))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(settings) => {
            let file = args.config.as_deref().map_or("no file".to_owned(), |file| file.display().to_string());
            output.line(&format!("# {file}: good. With it, this is in effect:"))?;
            if let Some(note) = places::who_can_share(&settings) {
                output.line(&format!("# {note}"))?;
            }
            output.text(&toml::to_string(&settings).context("cannot show the settings as TOML")?)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) if args.json => {
            output.json(&json!({ "ok": false, "file": problems.file, "problems": problems.problems }))?;
            Ok(ExitCode::FAILURE)
        }
        Err(problems) => {
            complain(&anyhow::Error::new(problems));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The settings, if they, the files that they name and the services that they lead to can be used.
fn checked(args: &ConfigCheck) -> Result<Settings, Problems> {
    let file = args.config.as_deref();
    let settings = Settings::load(file, &Overrides::default())?;
    let mut errors = wiring::files_that_cannot_be_used(&settings);
    if errors.is_empty() && !args.offline {
        errors = places::that_cannot_be_used(&settings);
    }
    let problems: Vec<Problem> = errors
        .into_iter()
        .map(|error| Problem { line: None, column: None, message: format!("{error:#}") })
        .collect();
    if problems.is_empty() {
        return Ok(settings);
    }
    Err(Problems { file: args.config.clone(), problems })
}
