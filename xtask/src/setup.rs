//! What the tests need from Debian: installed when root, named exactly when not.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::command::exists;

/// Programs that the build and the tests run, or headers that they include, and the Debian package of each. They all come
/// without recommendations.
const PROGRAMS: [(&str, &str); 7] = [
    ("cc", "gcc"),               // SQLite, zstd and the TLS provider have parts in C
    ("c++", "g++"),              // the runtime of the fuzz targets is C++
    ("git", "git"),              // which files are the repository's
    ("python3", "python3-venv"), // a second S3 service is written in it
    // A third one is built here, and these parts of it need not be.
    ("pkg-config", "pkgconf"),
    ("/usr/include/sodium.h", "libsodium-dev"),
    ("/usr/include/zstd.h", "libzstd-dev"),
];

/// The same for the clients, as lines of package and program; their tests read it too.
const CLIENTS: &str = include_str!("../client-packages");

/// Where Debian asks whether a package may start its service.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing. Fails when it cannot, and says which command would.
pub(crate) fn run() -> Result<()> {
    let missing = missing_packages();
    if missing.is_empty() {
        println!("nothing is missing");
        return Ok(());
    }
    let by_hand = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if command::output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("some programs that the tests run are missing; install them as root with\n  {by_hand}");
    }
    if !exists("apt-get") {
        bail!(
            "some programs that the tests run are missing; on Debian this would install them:\n  {by_hand}"
        );
    }
    install(&missing)?;
    match missing_packages()[..] {
        [] => Ok(()),
        ref still => bail!("installed, but not where they are looked for: {}", still.join(" ")),
    }
}

fn install(packages: &[&str]) -> Result<()> {
    let _quiet = NoServices::new()?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    command::run(apt().args(["update", "--quiet"]))?;
    command::run(apt().args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages))
}

fn missing_packages() -> Vec<&'static str> {
    let clients = CLIENTS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (package, program) = line.split_once(' ')?;
        Some((program.trim(), package))
    });
    let mut missing: Vec<_> = PROGRAMS
        .into_iter()
        .chain(clients)
        .filter(|(program, _)| !exists(program))
        .map(|(_, package)| package)
        .collect();
    missing.dedup();
    missing
}

/// While it lives, packages that are installed start no daemons: tests start their own, with their own storage.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn new() -> Result<Self> {
        let ours = !Path::new(SERVICE_POLICY).exists();
        if ours {
            let refuse = "#!/bin/sh\n# Packages are being installed for tests; start nothing.\nexit 101\n";
            std::fs::write(SERVICE_POLICY, refuse).context(SERVICE_POLICY)?;
            let runnable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(SERVICE_POLICY, runnable).context(SERVICE_POLICY)?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(SERVICE_POLICY)
        {
            println!("remove {SERVICE_POLICY} by hand, it keeps packages from starting services: {error}");
        }
    }
}
