//! `deltaport fsck`: every byte and every name checked, and mended if wanted.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use deltaport_store::{FsckOptions, Report, Severity};
use serde_json::json;

use crate::args::Fsck;
use crate::commands::progress::Line;
use crate::output::{Output, rounded};
use crate::{logging, wiring};

pub(crate) fn run(args: &Fsck, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    let data = wiring::stored_data(&args.place)?;
    let options = FsckOptions {
        root: data.clone(),
        names: wiring::stored_names(&args.place)?,
        bytes: wiring::stored_bytes(&args.place)?,
        rehash: args.rehash,
        repair: args.repair,
    };
    let line = Line::on_terminal();
    let checked = deltaport_store::fsck(&options, &|progress| {
        let percent =
            progress.bytes.saturating_mul(100).checked_div(progress.expected_bytes).unwrap_or(100).min(100);
        line.show(&format!("{percent} %, {} files, {}", progress.blobs, rounded(progress.bytes)));
    });
    line.clear();
    let report = checked.with_context(|| format!("{} could not be checked", data.display()))?;
    let good = if args.repair { report.is_mended() } else { report.is_clean() };
    if args.json {
        output.json(&json!({ "ok": good, "repair": args.repair, "report": report }))?;
    } else {
        output.text(&words(&report, args.repair))?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The report for a person: a line for each finding, then what was checked, then what to do.
fn words(report: &Report, repair: bool) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let mended = if finding.repaired { "; mended" } else { "" };
        let _ =
            writeln!(text, "{severity}: {}: {}: {}{mended}", finding.code, finding.subject, finding.detail);
    }
    if report.unnamed > 0 {
        let _ = writeln!(text, "and {} findings more", report.unnamed);
    }
    let _ = writeln!(
        text,
        "Checked {} files ({}), {} manifests, {} references, {} tags, {} links.",
        report.blobs,
        rounded(report.bytes),
        report.manifests,
        report.references,
        report.tags,
        report.links
    );
    text.push_str(match (report.is_clean(), repair, report.is_mended()) {
        (true, _, _) => "All is well.\n",
        (false, true, true) => "Everything was mended; damaged files are in quarantine/.\n",
        (false, true, false) => "Not everything could be mended.\n",
        (false, false, _) => "`deltaport fsck --repair` mends what can be mended. It deletes no file, and no object that names know.\n",
    });
    text
}
