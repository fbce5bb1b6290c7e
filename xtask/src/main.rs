//! The chores of this repository: `cargo xtask <verb>`.
//!
//! `cargo xtask test` is the gate. On a fresh Debian with Rust it installs what the tests need, runs every one of them
//! and ends with a table. Each of its steps is a verb of its own. This program depends on little, so that the gate
//! begins to run within seconds of a clone.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for the terminal

mod command;
mod deny;
mod fuzz;
mod garage;
mod moto;
mod rules;
mod setup;
mod steps;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
cargo xtask <verb>

  test                 everything below in this order, and a table of what passed: the gate
  setup                install the Debian packages that the tests need (as root), or say which are missing
  fmt                  the sources are formatted
  deps                 the rules of the repository: who may depend on whom, reasons, sizes
  deny                 licences, bans and sources of everything that is built in, by cargo-deny
  advisories           known holes in it, likewise; says so when their database cannot be reached
  clippy               no warnings
  unit                 every test except those with real clients; with cargo-nextest when it is there
  moto                 hubs of several replicas over a second S3 service; says so when it cannot be installed
  garage               the store and hubs over a third one, built from its sources; says so when it cannot be
  doc                  the documentation builds without warnings
  fuzz [--seconds N]   every fuzz target for N seconds (default 5); --target NAME for one of them
  clients              pushes and pulls with real, unmodified clients
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    std::env::set_current_dir(command::root()).context("the repository is not where it was built")?;
    let (verb, rest) =
        arguments.split_first().map_or(("help", &[][..]), |(verb, rest)| (verb.as_str(), rest));
    if verb == "fuzz" {
        return fuzz::run(&fuzz::Options::parse(rest)?);
    }
    if let [first, ..] = rest {
        bail!("{verb} takes no arguments, but {first:?} was given\n\n{USAGE}");
    }
    match verb {
        "test" => steps::all(),
        "setup" => setup::run(),
        "fmt" => steps::fmt(),
        "deps" => rules::run(),
        "deny" => deny::run_offline(),
        "advisories" => deny::advisories().map(drop),
        "clippy" => steps::clippy(),
        "unit" => steps::unit(),
        "moto" => moto::run_tests().map(drop),
        "garage" => garage::run_tests().map(drop),
        "doc" => steps::doc(),
        "clients" => steps::clients(),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("there is no verb {other:?}\n\n{USAGE}"),
    }
}
