//! `deltaport demo`: what it shows is what the product promises, so its figures are held here.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::process::{Command, Output};

use serde_json::Value;

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deltaport")).arg("demo").args(arguments).output().unwrap()
}

fn figures(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(figures: &Value, of: &str, name: &str) -> u64 {
    figures[of][name].as_u64().unwrap_or_else(|| panic!("no {name} in {figures}"))
}

#[test]
fn an_update_with_deltas_is_a_fraction_of_one_without() {
    let figures = figures(&demo(&["--rate", "200Mbit", "--rtt", "20ms", "--json"]));
    let size = figures["image"]["size"].as_u64().unwrap();
    let without = number(&figures, "without_deltas", "received");
    let with = number(&figures, "with_deltas", "received");
    assert!(size > 5 << 20 && without >= size, "{figures}");
    // The delta has about 1 KiB; the rest is heads and the manifest.
    assert!(with < 16 << 10, "{figures}");
}

#[test]
fn a_link_that_breaks_delays_an_update_and_nothing_else() {
    let figures = figures(&demo(&["--rate", "200Mbit", "--rtt", "2ms", "--reset-every", "1MiB", "--json"]));
    assert!(number(&figures, "without_deltas", "resets") >= 5, "{figures}");
    let size = figures["image"]["size"].as_u64().unwrap();
    let without = number(&figures, "without_deltas", "received");
    // What a reset swallows is asked for again, and nothing else is.
    assert!(without < size + size / 4, "{figures}");
}

#[test]
fn the_table_is_for_people_and_mistakes_are_told() {
    let shown = demo(&["--rate", "1Gbit", "--rtt", "1ms"]);
    let table = String::from_utf8(shown.stdout).unwrap();
    assert!(table.contains("without deltas") && table.contains("x less"), "{table}");
    assert!(shown.stderr.is_empty(), "a pipe is kept quiet");
    for (arguments, says) in [
        (&["--from", "oci:nowhere"][..], "--to"),
        (&["--from", "oci:nowhere", "--to", "oci:nowhere"], "no OCI image layout"),
        (&["--from", "a", "--to", "b"], "oci:DIR"),
        (&["--rate", "fast"], "whole number and a unit"),
    ] {
        let refused = demo(arguments);
        assert!(!refused.status.success(), "{arguments:?}");
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(told.contains(says), "{arguments:?}: {told}");
    }
}
