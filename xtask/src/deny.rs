//! What is built in, looked at by `cargo deny` as deny.toml says: licences, bans, sources, and known holes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{cargo, run, tools};

/// The version that is installed. It is built into the target directory, once for a clone.
const VERSION: &str = "0.20.2";
/// How long the database of holes may take to come, in seconds.
const PATIENCE: &str = "120";

/// Licences, bans and sources. Needs nothing but Cargo.lock and the packages in it.
pub(crate) fn run_offline() -> Result<()> {
    run(Command::new(tool()?).args(["--locked", "check", "bans", "licenses", "sources"]))
}

/// Known holes. Their database is fetched from where it is kept; `false` when it cannot be had, and nothing is known.
pub(crate) fn advisories() -> Result<bool> {
    let tool = tool()?;
    let mut fetch = Command::new("timeout");
    if run(fetch.arg(PATIENCE).arg(&tool).args(["fetch", "db"])).is_err() {
        println!("NOT CHECKED: the database of advisories cannot be reached from here");
        return Ok(false);
    }
    run(Command::new(tool).args(["--offline", "check", "advisories"]))?;
    Ok(true)
}

/// Where cargo-deny is, after it was built if it has to be.
fn tool() -> Result<PathBuf> {
    let root = tools()?.join(format!("cargo-deny-{VERSION}"));
    let tool = root.join("bin/cargo-deny");
    if !tool.is_file() {
        // Without optimisation it is built in a minute, and runs for seconds.
        let mut install = cargo(["install", "cargo-deny", "--version", VERSION, "--locked", "--debug"]);
        run(install.arg("--root").arg(&root).arg("--target-dir").arg(root.join("build")))?;
        // What it was built of is many times larger than what came of it.
        std::fs::remove_dir_all(root.join("build")).context("cannot tidy up after building cargo-deny")?;
    }
    Ok(tool)
}
