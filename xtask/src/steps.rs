//! The steps of the gate, in the order of how soon they fail, and the table at its end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, exists, run};
use crate::{deny, fuzz, garage, moto, rules, setup};

/// The test target with real clients. It is kept apart because it needs Debian packages that other tests do not.
const CLIENTS: &str = "clients";

/// One step: its verb and what it does. What it asks may be out of reach: then `false` comes back, and it has not passed.
type Step = (&'static str, fn() -> Result<bool>);

const STEPS: [Step; 12] = [
    ("setup", || setup::run().map(done)),
    ("fmt", || fmt().map(done)),
    ("deps", || rules::run().map(done)),
    ("clippy", || clippy().map(done)),
    ("deny", || deny::run_offline().map(done)),
    ("advisories", deny::advisories),
    ("unit", || unit().map(done)),
    ("moto", moto::run_tests),
    ("garage", garage::run_tests),
    ("doc", || doc().map(done)),
    ("fuzz", || fuzz_briefly().map(done)),
    ("clients", || clients().map(done)),
];

fn done((): ()) -> bool {
    true
}

/// Runs every step, also after one has failed, prints the table and fails when any step did.
pub(crate) fn all() -> Result<()> {
    let mut rows: Vec<(&str, Result<bool>, Duration)> = Vec::new();
    for (name, step) in STEPS {
        println!("\n=== {name}");
        let started = Instant::now();
        let result = step();
        if let Err(error) = &result {
            println!("{name} failed: {error:#}");
        }
        rows.push((name, result, started.elapsed()));
    }
    println!("\n{:<10} {:<11} {:>8}", "step", "result", "seconds");
    for (name, result, took) in &rows {
        let word = match result {
            Ok(true) => "passed",
            Ok(false) => "not checked",
            Err(_) => "FAILED",
        };
        println!("{name:<10} {word:<11} {:>8.1}", took.as_secs_f64());
    }
    let passed = rows.iter().filter(|(_, result, _)| matches!(result, Ok(true))).count();
    let failed = rows.iter().filter(|(_, result, _)| result.is_err()).count();
    println!("{passed} steps passed, {failed} failed, {} not checked", rows.len() - passed - failed);
    if failed > 0 {
        bail!("the gate is closed: {failed} of {} steps failed", rows.len());
    }
    Ok(())
}

pub(crate) fn fmt() -> Result<()> {
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    run(&mut cargo(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))
}

pub(crate) fn clippy() -> Result<()> {
    run(&mut cargo(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

pub(crate) fn doc() -> Result<()> {
    run(cargo(["doc", "--locked", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Every test but those with real clients. The whole workspace is selected each time, so that features, and with
/// them everything that was built, stay the same.
pub(crate) fn unit() -> Result<()> {
    let targets = test_targets()?;
    if exists("cargo-nextest") {
        let mut arguments = vec!["nextest", "run", "--locked", "--workspace", "--no-fail-fast"];
        let all_but_clients = format!("not binary(={CLIENTS})");
        if targets.iter().any(|target| target == CLIENTS) {
            arguments.extend(["-E", &all_but_clients]);
        }
        run(&mut cargo(arguments))?;
    } else {
        let mut arguments = vec!["test", "--locked", "--workspace", "--no-fail-fast", "--lib", "--bins"];
        for target in targets.iter().filter(|target| *target != CLIENTS) {
            arguments.extend(["--test", target]);
        }
        run(&mut cargo(arguments))?;
    }
    run(&mut cargo(["test", "--locked", "--workspace", "--doc", "--quiet"]))
}

/// The tests with real clients, one at a time: each brings daemons and storage of its own.
pub(crate) fn clients() -> Result<()> {
    if !test_targets()?.iter().any(|target| target == CLIENTS) {
        bail!("there is no test target named {CLIENTS:?}");
    }
    run(&mut cargo([
        "test",
        "--locked",
        "--workspace",
        "--no-fail-fast",
        "--test",
        CLIENTS,
        "--",
        "--test-threads=1",
    ]))
}

fn fuzz_briefly() -> Result<()> {
    fuzz::run(&fuzz::Options::BRIEF)
}

/// The names of the integration tests of every crate.
fn test_targets() -> Result<Vec<String>> {
    let metadata = rules::metadata()?;
    let mut names = Vec::new();
    for package in metadata["packages"].as_array().context("packages")? {
        if !rules::is_ours(package) {
            continue;
        }
        for target in package["targets"].as_array().context("targets")? {
            if target["kind"][0] == "test" {
                names.push(target["name"].as_str().context("name")?.to_owned());
            }
        }
    }
    Ok(names)
}
