//! Fuzzing with libFuzzer on a stable compiler.
//!
//! The targets are a workspace of their own (fuzz/), built with the coverage flags that libFuzzer needs. Address
//! checking would need a nightly compiler and finds nothing in code without `unsafe`; overflow checks and assertions
//! are on. Inputs that were found interesting stay in fuzz/corpus/, those that break something in fuzz/artifacts/.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Builds the targets from the versions that the product is built from, and returns where they are. A target triple is named so that the flags do not reach build
/// scripts and procedural macros.
fn build() -> Result<PathBuf> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let directory =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from).join("fuzz");
    take_versions(&directory)?;
    let mut command = cargo(["build", "--release", "--manifest-path", "fuzz/Cargo.toml"]);
    command.args(["--target", host, "--bins", "--target-dir"]).arg(&directory);
    command::run(command.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
    Ok(directory.join(host).join("release"))
}

/// Makes the product's Cargo.lock that of the fuzz targets, when it has changed since the last time; cargo adds the two
/// packages that only they have.
fn take_versions(directory: &Path) -> Result<()> {
    let (ours, last) =
        (std::fs::read("Cargo.lock").context("Cargo.lock")?, directory.join("Cargo.lock.product"));
    if Path::new("fuzz/Cargo.lock").exists() && std::fs::read(&last).is_ok_and(|last| last == ours) {
        return Ok(());
    }
    std::fs::create_dir_all(directory).context("the target directory")?;
    std::fs::write("fuzz/Cargo.lock", &ours).context("fuzz/Cargo.lock")?;
    std::fs::write(&last, &ours).context("the target directory")
}

/// Runs one target on its seeds and on what earlier runs found. What libFuzzer says is shown only when it fails.
fn fuzz(binary: &Path, target: &str, seconds: u32) -> Result<()> {
    let corpus = Path::new("fuzz/corpus").join(target);
    let artifacts = Path::new("fuzz/artifacts").join(target);
    for directory in [&corpus, &artifacts] {
        std::fs::create_dir_all(directory).with_context(|| format!("{}", directory.display()))?;
    }
    plant(target, &corpus)?;
    let mut command = Command::new(binary);
    command.arg(&corpus).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg("-print_final_stats=1");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {target}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{}\n{said}", output.status);
    }
    let figure = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
        line.map_or("?", |rest| rest.trim_start_matches(':').trim())
    };
    let reached =
        said.lines().rfind(|line| line.contains(" cov: ")).and_then(|line| line.split(" cov: ").nth(1));
    println!(
        "{target:<18} {:>10} runs {:>6} edges {:>6} new inputs",
        figure("number_of_executed_units"),
        reached.and_then(|rest| rest.split_whitespace().next()).unwrap_or("?"),
        figure("new_units_added"),
    );
    Ok(())
}

/// Puts the seeds of a target into its corpus: one for each line of its file in fuzz/seeds/, in which `\n` stands for
/// a line break and `\0` for the byte zero.
fn plant(target: &str, corpus: &Path) -> Result<()> {
    let path = Path::new("fuzz/seeds").join(target).with_extension("txt");
    let Ok(seeds) = std::fs::read_to_string(&path) else { return Ok(()) };
    for (number, seed) in seeds.lines().enumerate() {
        let seed = seed.replace("\\n", "\n").replace("\\0", "\0");
        std::fs::write(corpus.join(format!("seed-{number}")), seed).context("fuzz/corpus")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_any_order() {
        let parse = |text: &str| {
            let arguments: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            Options::parse(&arguments)
        };
        assert_eq!(parse("").unwrap(), Options::BRIEF);
        let both = Options { seconds: 60, target: Some("name".to_owned()) };
        assert_eq!(parse("--target name --seconds 60").unwrap(), both);
        for wrong in ["--seconds", "--seconds many", "--minutes 1", "name"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_target_is_built() {
        let root = command::root();
        std::env::set_current_dir(&root).unwrap();
        let manifest = std::fs::read_to_string("fuzz/Cargo.toml").unwrap();
        let targets = targets().unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
        for target in targets {
            assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target}");
        }
    }
}
