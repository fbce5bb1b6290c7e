//! A configuration is read or refused with a list of mistakes, each of them on a line that exists.

#![no_main]

use std::path::Path;

use settings::{Overrides, Settings};

// What the settings take from crates that would bring the same along stands here under the names of those.
extern crate self as deltaport_client;
extern crate self as deltaport_registry;

/// Says that there is a helper of any name.
pub enum CredentialSource {
    Helper(String),
}

impl CredentialSource {
    pub fn check(&self) -> Result<(), String> {
        let Self::Helper(_) = self;
        Ok(())
    }
}

#[allow(dead_code)]
#[path = "../../crates/registry/src/upstream/policy.rs"]
mod policy;

pub mod upstream {
    pub use crate::policy::TagPattern;
}

// By path: as a crate it would bring the whole product, with its TLS and its database, into the fuzz targets.
#[allow(dead_code, unused_imports)]
#[path = "../../crates/cli/src/settings/mod.rs"]
mod settings;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match Settings::read(text, Path::new("/etc"), &Overrides::default()) {
        Ok(_) => {}
        Err(problems) => {
            assert!(!problems.is_empty());
            let lines = text.lines().count().max(1) + 1;
            assert!(
                problems.iter().all(|problem| problem.line.is_none_or(|line| (1..=lines).contains(&line)))
            );
        }
    }
});
