//! The dependency rule (ARCHITECTURE.md, "The picture"): which crate may know which.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{Offences, is_ours, packages, text};
use crate::command::{cargo, output};

/// The allowed edges between our crates, complete. A new one needs a decision record in docs/decisions/.
const EDGES: [(&str, &[&str]); 11] = [
    ("deltaport-oci", &[]),
    ("deltaport-delta", &["deltaport-oci"]),
    ("deltaport-trust", &["deltaport-oci"]),
    ("deltaport-store", &["deltaport-oci"]),
    ("deltaport-client", &["deltaport-oci"]),
    (
        "deltaport-registry",
        &["deltaport-oci", "deltaport-delta", "deltaport-trust", "deltaport-store", "deltaport-client"],
    ),
    ("deltaport-server", &["deltaport-oci", "deltaport-registry", "deltaport-trust"]),
    ("deltaport-acme", &[]),
    (
        "deltaport",
        &[
            "deltaport-oci",
            "deltaport-delta",
            "deltaport-trust",
            "deltaport-store",
            "deltaport-client",
            "deltaport-registry",
            "deltaport-server",
            "deltaport-acme",
        ],
    ),
    ("deltaport-testkit", &["deltaport-oci"]),
    ("xtask", &[]),
];

/// What tests may use besides.
const TESTKIT: &str = "deltaport-testkit";

/// Edges that only tests may have: a server is tested over a real store.
const TEST_EDGES: [(&str, &str); 1] = [("deltaport-server", "deltaport-store")];

/// Dependencies that shape the crate that has them, and the crates that may: what makes `store` the only one that
/// knows SQL, `client` and `acme` the only ones that dial out, `server` the only one that accepts.
const OWNERS: [(&str, &[&str]); 13] = [
    ("argon2", &["deltaport-trust"]),
    ("bcrypt", &["deltaport-trust"]),
    ("clap", &["deltaport"]),
    ("hyper", &["deltaport-server", "deltaport-testkit"]),
    ("hyper-util", &["deltaport-server", "deltaport-testkit"]),
    ("reqwest", &["deltaport-acme", "deltaport-client"]),
    ("rusqlite", &["deltaport-store"]),
    ("rustls", &["deltaport", "deltaport-server", "deltaport-store", "deltaport-testkit"]),
    ("sha2", &["deltaport-oci", "deltaport-store"]),
    ("tokio-rustls", &["deltaport-server", "deltaport-store", "deltaport-testkit"]),
    ("toml", &["deltaport"]),
    ("tracing-subscriber", &["deltaport"]),
    ("zstd", &["deltaport-delta"]),
];

/// Crates that do no input or output, and what would let them.
const PURE: [&str; 3] = ["deltaport-oci", "deltaport-delta", "deltaport-trust"];
const RUNTIMES: [&str; 6] = ["tokio", "hyper", "reqwest", "mio", "socket2", "rusqlite"];

/// TLS stacks and crypto providers besides rustls with aws-lc-rs.
const OTHER_TLS: [&str; 6] = ["ring", "openssl", "openssl-sys", "native-tls", "boring", "graviola"];

pub(super) fn dependencies_point_one_way() -> Result<Offences> {
    let mut offences = Offences::new();
    for package in packages()?.filter(|package| is_ours(package)) {
        let from = text(package, "name");
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == from) else {
            offences.push(format!("{from} is a new crate: list what it may depend on"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = text(dependency, "name");
            let for_tests = dependency["kind"] == "dev"
                && (to == TESTKIT || from == "deltaport" || TEST_EDGES.contains(&(from, to)));
            if dependency["path"].is_string() && !allowed.contains(&to) && !for_tests {
                offences.push(format!("{from} -> {to} is not an allowed edge"));
            }
        }
    }
    Ok(offences)
}

pub(super) fn heavy_dependencies_have_one_owner() -> Result<Offences> {
    let mut offences = Offences::new();
    for package in packages()?.filter(|package| is_ours(package)) {
        let from = text(package, "name");
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = text(dependency, "name");
            let Some((_, owners)) = OWNERS.iter().find(|(name, _)| *name == to) else { continue };
            if dependency["kind"].is_null() && !owners.contains(&from) {
                offences.push(format!("{from} -> {to}: only {} may depend on it", owners.join(" and ")));
            }
        }
    }
    Ok(offences)
}

pub(super) fn pure_crates_know_no_runtime() -> Result<Offences> {
    let mut offences = Offences::new();
    for pure in PURE {
        let tree = everything_below(pure)?;
        for runtime in RUNTIMES.iter().filter(|name| tree.contains(**name)) {
            offences
                .push(format!("{pure} pulls {runtime}; ask `cargo tree -p {pure} -e normal -i {runtime}`"));
        }
    }
    Ok(offences)
}

pub(super) fn there_is_one_tls_stack() -> Result<Offences> {
    let listed = output(&mut cargo([
        "tree",
        "--quiet",
        "--locked",
        "-p",
        "deltaport",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "-f",
        "{p}",
    ]))?;
    let versions = listed.lines().map(|line| line.trim_end_matches(" (*)"));
    let rustls: BTreeSet<_> = versions.filter(|line| line.starts_with("rustls v")).collect();
    let mut offences = Offences::new();
    if rustls.len() != 1 {
        offences.push(format!("the binary has {} versions of rustls: {rustls:?}", rustls.len()));
    }
    let tree = names(&listed);
    for other in OTHER_TLS.iter().filter(|name| tree.contains(**name)) {
        offences
            .push(format!("the binary pulls {other}; ask `cargo tree -p deltaport -e normal -i {other}`"));
    }
    Ok(offences)
}

pub(super) fn every_dependency_has_a_reason() -> Result<Offences> {
    let manifest = std::fs::read_to_string("Cargo.toml")?;
    let table = manifest.split("\n[workspace.dependencies]\n").nth(1).unwrap_or_default();
    let table = table.split("\n[").next().unwrap_or_default();
    let mut offences = Offences::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split_once(" =").map_or(line, |(name, _)| name);
        let reason = line.rsplit_once("# ").map_or("", |(_, reason)| reason.trim());
        if !line.contains("{ path = ") && reason.is_empty() {
            offences.push(format!("Cargo.toml: {name} has no comment that says what it is for"));
        }
    }
    if table.lines().count() < 10 {
        offences.push("Cargo.toml: the table of workspace dependencies was not found".to_owned());
    }
    Ok(offences)
}

/// The names of everything that ends up in `package`, without what only its tests use.
fn everything_below(package: &str) -> Result<BTreeSet<String>> {
    let listed = output(&mut cargo([
        "tree", "--quiet", "--locked", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}",
    ]))?;
    Ok(names(&listed))
}

fn names(listed: &str) -> BTreeSet<String> {
    listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}
