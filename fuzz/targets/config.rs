//! A configuration is read or refused with a list of mistakes, each of them on a line that exists.

#![no_main]

use std::path::Path;

use settings::{Overrides, Settings};

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
