//! The rules of the repository that a compiler does not know: each is a function that returns what breaks it. They
//! are tests (`cargo test -p xtask`) and the verb `deps`.

mod crates;
mod text;

use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{cargo, output};

/// What breaks a rule, one sentence each.
type Offences = Vec<String>;

/// A rule by its name.
type Rule = (&'static str, fn() -> Result<Offences>);

const RULES: [Rule; 8] = [
    ("dependencies point one way", crates::dependencies_point_one_way),
    ("heavy dependencies have one owner", crates::heavy_dependencies_have_one_owner),
    ("pure crates know no runtime", crates::pure_crates_know_no_runtime),
    ("there is one TLS stack", crates::there_is_one_tls_stack),
    ("every dependency has a reason", crates::every_dependency_has_a_reason),
    ("files stay readable", text::files_stay_readable),
    ("no paths of one machine", text::no_paths_of_one_machine),
    ("no test is switched off", text::no_test_is_switched_off),
];

/// Checks every rule and prints what breaks one.
pub(crate) fn run() -> Result<()> {
    let mut broken = 0;
    for (name, rule) in RULES {
        let offences = rule().with_context(|| format!("cannot check that {name}"))?;
        println!("{:<4} {name}", if offences.is_empty() { "ok" } else { "NO" });
        for offence in &offences {
            println!("       {offence}");
        }
        broken += usize::from(!offences.is_empty());
    }
    if broken > 0 {
        bail!("{broken} of {} rules are broken", RULES.len());
    }
    Ok(())
}

/// What cargo knows about the workspace and its dependencies on this platform; asked once.
pub(crate) fn metadata() -> Result<&'static Value> {
    static METADATA: OnceLock<Value> = OnceLock::new();
    if let Some(value) = METADATA.get() {
        return Ok(value);
    }
    let version = output(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let json = output(&mut cargo([
        "metadata",
        "--quiet",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        host,
    ]))?;
    Ok(METADATA.get_or_init(|| serde_json::from_str(&json).unwrap_or_default()))
}

/// Whether a package of the metadata belongs to this repository.
pub(crate) fn is_ours(package: &Value) -> bool {
    package["source"].is_null()
}

/// The packages of the metadata.
fn packages() -> Result<impl Iterator<Item = &'static Value>> {
    Ok(metadata()?["packages"].as_array().context("cargo metadata lists no packages")?.iter())
}

/// A text of the metadata; empty when there is none.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(rule: fn() -> Result<Offences>) {
        std::env::set_current_dir(crate::command::root()).unwrap();
        let offences = rule().unwrap();
        assert!(offences.is_empty(), "\n{}", offences.join("\n"));
    }

    #[test]
    fn dependencies_point_one_way() {
        holds(crates::dependencies_point_one_way);
    }

    #[test]
    fn heavy_dependencies_have_one_owner() {
        holds(crates::heavy_dependencies_have_one_owner);
    }

    #[test]
    fn pure_crates_know_no_runtime() {
        holds(crates::pure_crates_know_no_runtime);
    }

    #[test]
    fn there_is_one_tls_stack() {
        holds(crates::there_is_one_tls_stack);
    }

    #[test]
    fn every_dependency_has_a_reason() {
        holds(crates::every_dependency_has_a_reason);
    }

    #[test]
    fn files_stay_readable() {
        holds(text::files_stay_readable);
    }

    #[test]
    fn no_paths_of_one_machine() {
        holds(text::no_paths_of_one_machine);
    }

    #[test]
    fn no_test_is_switched_off() {
        holds(text::no_test_is_switched_off);
    }

    #[test]
    fn every_rule_is_a_test() {
        let source = include_str!("mod.rs");
        for (name, _) in RULES {
            let function = name.to_lowercase().replace(' ', "_");
            assert!(source.contains(&format!("    fn {function}()")), "no test runs {name:?}");
        }
    }
}
