//! A second S3 service under hubs of several replicas: moto, written in Python by others than those who wrote the first.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{cargo, run, tools};

/// What is installed, with everything that it needs, each at one version.
const REQUIREMENTS: &str = "xtask/moto-requirements";
/// How long that may take, in seconds.
const PATIENCE: &str = "300";
/// The version, for the name of the directory.
const VERSION: &str = "5.2.5";

/// Runs the tests of hubs over it; `false` when it cannot be had, and nothing is known.
pub(crate) fn run_tests() -> Result<bool> {
    let Some(program) = tool()? else {
        println!("NOT CHECKED: moto cannot be installed from here");
        return Ok(false);
    };
    let mut test = cargo([
        "test",
        "--locked",
        "--workspace",
        "--test",
        "scale",
        "--",
        "replicas::",
        "proxied::",
        "walkthrough::",
    ]);
    run(test.env("DELTAPORT_TEST_S3", format!("moto:{}", program.display())))?;
    Ok(true)
}

/// Where moto's server is, after it was installed if it has to be.
fn tool() -> Result<Option<PathBuf>> {
    let root = tools()?.join(format!("moto-{VERSION}"));
    let program = root.join("bin/moto_server");
    if program.is_file() {
        return Ok(Some(program));
    }
    run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&root))?;
    let mut install = Command::new("timeout");
    install.arg(PATIENCE).arg(root.join("bin/pip")).args([
        "install",
        "--quiet",
        "--no-deps",
        "--requirement",
    ]);
    if run(install.arg(REQUIREMENTS)).is_err() {
        // Half of it must not be taken for the whole next time.
        std::fs::remove_dir_all(&root).context("cannot tidy up after installing moto")?;
        return Ok(None);
    }
    Ok(Some(program))
}
