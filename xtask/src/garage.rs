//! A third S3 service, and one that people run: Garage, built from its sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{cargo, run, tools};

/// The version, which is also the one in deploy/compose.yaml.
const VERSION: &str = "2.5.0";
/// How long building it may take, in seconds. A processor that has nothing else to do needs some five minutes.
const PATIENCE: &str = "2400";
/// The parts whose speed is felt: hashes of what is stored, and the database.
const OPTIMIZED: [&str; 4] = ["blake2", "lmdb-master-sys", "md-5", "sha2"];

/// The tests of the store that run over it: the suite that every place passes, and replicas.
const OF_THE_STORE: [&str; 3] = ["bucket::suite::", "scale::", "shared::replicas::"];
/// The tests of whole hubs.
const OF_HUBS: [&str; 4] =
    ["check_bucket::credentials_that_a_service_refuses", "proxied::", "replicas::", "walkthrough::"];

/// Runs the tests over it; `false` when it cannot be had, and nothing is known.
pub(crate) fn run_tests() -> Result<bool> {
    let Some(program) = tool()? else {
        println!("NOT CHECKED: Garage cannot be built from here");
        return Ok(false);
    };
    let service = format!("garage:{}", program.display());
    for (target, tests) in [("it", &OF_THE_STORE[..]), ("scale", &OF_HUBS)] {
        let mut test = cargo(["test", "--locked", "--workspace", "--test", target, "--"]);
        // Leases are in the database alone.
        run(test.args(["--skip", "suite::leases::"]).args(tests).env("DELTAPORT_TEST_S3", &service))?;
    }
    Ok(true)
}

/// Where the program is, after it was built if it has to be: once for a target directory and a version.
fn tool() -> Result<Option<PathBuf>> {
    let root = tools()?.join(format!("garage-{VERSION}"));
    let program = root.join("bin/garage");
    if program.is_file() {
        return Ok(Some(program));
    }
    let objects = root.join("build");
    let built = run(build(&root).env("CARGO_TARGET_DIR", &objects)).is_ok();
    // Nobody builds it twice, and it takes a gigabyte.
    if objects.exists() {
        std::fs::remove_dir_all(&objects).context("cannot tidy up after building Garage")?;
    }
    Ok(built.then_some(program))
}

/// What builds it as cheaply as it goes: one database, libraries of the system, no telemetry, no debug information, and only
/// what is [`OPTIMIZED`] made fast.
fn build(root: &Path) -> Command {
    let mut build = Command::new("timeout");
    build.arg(PATIENCE).arg(cargo([]).get_program()).args(["install", "garage", "--version", VERSION]);
    build
        .args(["--locked", "--debug", "--no-default-features", "--features", "lmdb,system-libs", "--root"])
        .arg(root);
    build.args(["--config", "profile.dev.debug=false", "--config", "profile.dev.opt-level=0"]);
    for package in OPTIMIZED {
        build.args(["--config", &format!("profile.dev.package.{package}.opt-level=2")]);
    }
    build
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tested_is_what_is_deployed() {
        let compose = std::fs::read_to_string(crate::command::root().join("deploy/compose.yaml")).unwrap();
        assert!(compose.contains(&format!("garage:v{VERSION}\n")), "deploy/compose.yaml has another version");
    }
}
