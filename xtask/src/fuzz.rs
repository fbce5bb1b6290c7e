//! Fuzzing with libFuzzer on a stable compiler.
//!
//! The targets are a workspace of their own (fuzz/), built with the coverage flags that libFuzzer needs. Address
//! checking would need a nightly compiler and finds nothing in code without `unsafe`; overflow checks and assertions
//! are on. Inputs that were found interesting stay in fuzz/corpus/, those that break something in fuzz/artifacts/.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::command::{cargo, output};

/// What makes a binary report to libFuzzer which edges and comparisons an input reached.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// An input that takes longer is a finding, in seconds.
const TIMEOUT: u32 = 10;
/// A target that takes more memory is a finding, in MiB.
const MEMORY: u32 = 1024;

/// What to fuzz, and for how long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Seconds per target.
    seconds: u32,
    /// One target; all of them when `None`.
    target: Option<String>,
}

impl Options {
    /// Long enough to see that a target still works and has not become wrong in an obvious way.
    pub(crate) const BRIEF: Self = Self { seconds: 5, target: None };

    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::BRIEF;
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let value = rest.next().with_context(|| format!("{argument} wants a value"))?;
            match argument.as_str() {
                "--seconds" => options.seconds = value.parse().context("--seconds wants a number")?,
                "--target" => options.target = Some(value.clone()),
                other => bail!("fuzz takes --seconds and --target, not {other}"),
            }
        }
        Ok(options)
    }
}

/// Builds every target and runs the chosen ones, each for its time.
pub(crate) fn run(options: &Options) -> Result<()> {
    let targets = targets()?;
    if let Some(chosen) = &options.target
        && !targets.contains(chosen)
    {
        bail!("there is no fuzz target {chosen:?}; there are {}", targets.join(", "));
    }
    let binaries = build()?;
    let mut failed = Vec::new();
    for target in targets.iter().filter(|name| options.target.as_ref().is_none_or(|chosen| chosen == *name)) {
        if let Err(error) = fuzz(&binaries.join(target), target, options.seconds) {
            println!("{target} failed: {error:#}\nthe input is in fuzz/artifacts/{target}/");
            failed.push(target.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("fuzz targets failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The names of the targets: one file each.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("fuzz/targets").context("fuzz/targets")? {
        let path = entry?.path();
        if let (Some(name), Some("rs")) = (path.file_stem(), path.extension().and_then(|end| end.to_str())) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds the targets and returns where they are. A target triple is named so that the flags do not reach build
/// scripts and procedural macros.
fn build() -> Result<PathBuf> {
    let version = output(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let directory =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from).join("fuzz");
    let mut command = cargo(["build", "--locked", "--release", "--manifest-path", "fuzz/Cargo.toml"]);
    command.args(["--target", host, "--bins", "--target-dir"]).arg(&directory);
    command::run(command.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
    Ok(directory.join(host).join("release"))
}

/// Runs one target on its seeds and on what earlier runs found.
fn fuzz(binary: &Path, target: &str, seconds: u32) -> Result<()> {
    let corpus = Path::new("fuzz/corpus").join(target);
    let artifacts = Path::new("fuzz/artifacts").join(target);
    for directory in [&corpus, &artifacts] {
        std::fs::create_dir_all(directory).with_context(|| format!("{}", directory.display()))?;
    }
    let seeds = Path::new("fuzz/seeds").join(target);
    let mut command = std::process::Command::new(binary);
    command.arg(&corpus).args(seeds.is_dir().then_some(&seeds));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-verbosity=0", "-print_final_stats=1"]);
    command::run(&mut command)
}
