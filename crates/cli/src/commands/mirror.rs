//! `deltaport mirror`: what the rules of a running deltaport would fetch, and to have it fetched.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use deltaport_client::{ImageAnswer, MirrorRequest};
use deltaport_registry::mirror::{
    Listed, Listing, Moving, Now, Outcome, Removal, Report, Step, TagReport, Unlisted,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::args::{Mirror, MirrorCommand, MirrorRule};
use crate::commands::delta::Remote;
use crate::commands::progress::{Bars, Transfer};
use crate::logging;
use crate::output::{Output, rounded};

/// How many characters of a digest stand for it.
const SHORT: usize = 12;

pub(crate) fn run(args: &Mirror, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    let (request, args) = match &args.command {
        MirrorCommand::Plan(args) => (MirrorRequest::Plan, args),
        MirrorCommand::Run(args) if args.now => (MirrorRequest::RunNow, &args.rule),
        MirrorCommand::Run(args) => (MirrorRequest::Run, &args.rule),
    };
    let asked = Asked::new(args)?;
    let Listing { mirrors: rules, failed } = asked.rules(&args.rules)?;
    let mut reports = Vec::new();
    for rule in &rules {
        reports.push(asked.go(request, rule)?);
    }
    match (args.json, failed.as_slice()) {
        (true, []) => output.json(&json!({ "mirrors": reports }))?,
        (true, failed) => output.json(&json!({ "mirrors": reports, "failed": failed }))?,
        (false, _) => {
            reports.iter().try_for_each(|report| output.text(&table(report)))?;
            let said = |one: &Unlisted| output.text(&format!("{}\n  error: {}\n", one.rule, one.why));
            failed.iter().try_for_each(said)?;
        }
    }
    let good = failed.is_empty() && reports.iter().all(Report::is_good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A deltaport that has rules.
struct Asked<'a> {
    remote: Remote,
    host: &'a str,
}

impl<'a> Asked<'a> {
    fn new(args: &'a MirrorRule) -> anyhow::Result<Self> {
        let host = args.host.as_str();
        Ok(Self { remote: Remote::at(host, args.host.url(args.access.plain_http), &args.access)?, host })
    }

    /// The rules that are named, or all, each with every repository that it is about.
    fn rules(&self, names: &[String]) -> anyhow::Result<Listing> {
        let host = self.host;
        let answer = self.remote.patiently(|client| client.mirrors());
        let answer = answer.with_context(|| format!("cannot ask {host}; is deltaport running there?"))?;
        let ImageAnswer::Done(body) = answer else { bail!("{host} is not a deltaport that mirrors") };
        let Listing { mirrors, failed } = read(&body)?;
        let known: BTreeSet<&str> = mirrors
            .iter()
            .map(|one| one.rule.as_str())
            .chain(failed.iter().map(|one| one.rule.as_str()))
            .collect();
        if known.is_empty() {
            bail!("{host} has no [[mirror]] in its configuration, or none that we may see");
        }
        if let Some(name) = names.iter().find(|name| !known.contains(name.as_str())) {
            let known: Vec<&str> = known.into_iter().collect();
            bail!("{host} has no mirror rule {name}; it has {}", known.join(", "));
        }
        let meant = |rule: &String| names.is_empty() || names.contains(rule);
        Ok(Listing {
            mirrors: mirrors.iter().filter(|one| meant(&one.rule)).cloned().collect(),
            failed: failed.iter().filter(|one| meant(&one.rule)).cloned().collect(),
        })
    }

    /// Has a rule planned or run, and waits for it.
    fn go(&self, request: MirrorRequest, rule: &Listed) -> anyhow::Result<Report> {
        let (host, name) = (self.host, &rule.rule);
        let mut bars = Bars::on_terminal();
        bars.show(&[], &format!("{name}: asking"), 0);
        let mut number = None;
        loop {
            let answer =
                self.remote.patiently(|client| client.mirror(request, &rule.repository, name, number));
            let answer = answer.with_context(|| {
                format!("cannot ask {host} about the mirror rule {name}; what was begun goes on there")
            })?;
            match answer {
                ImageAnswer::Done(body) => {
                    bars.clear();
                    return read(&body);
                }
                ImageAnswer::Pending(body) => {
                    let report: Report = read(&body)?;
                    number = Some(report.run);
                    let moving: Vec<Transfer> = report.moving.iter().map(transfer).collect();
                    bars.show(&moving, &progress(&report), report.received.saturating_add(report.sent));
                }
                ImageAnswer::Refused(why) => bail!("{host}: {why}"),
            }
        }
    }
}

/// What an answer says.
fn read<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body)
        .context("the registry speaks another version of this; use the deltaport that runs there")
}

/// A blob that is on its way.
fn transfer(moving: &Moving) -> Transfer {
    let Moving { digest, bytes, of, sent } = moving;
    let way = if *sent { "sending" } else { "fetching" };
    Transfer { name: format!("{way} {}", &digest.hex()[..SHORT]), bytes: *bytes, of: *of }
}

/// How far a run is, in one line.
fn progress(report: &Report) -> String {
    let Report { rule, tags, wanted, received, sent, now, rests_until, .. } = report;
    let mut text = format!("{}: {} of {wanted} tags, {} received", rule.rule, tags.len(), rounded(*received));
    if rule.to.is_some() {
        let _ = write!(text, ", {} sent", rounded(*sent));
    }
    match now {
        Some(Now { tag, of: 0, .. }) => {
            let _ = write!(text, "; looking at {tag}");
        }
        Some(Now { tag, bytes, of }) => {
            let under_way = report.moving.iter().map(|moving| moving.bytes).fold(*bytes, u64::saturating_add);
            let _ = write!(text, "; {tag}: {} of {}", rounded(under_way), rounded(*of));
        }
        None => {}
    }
    if let Some(until) = rests_until {
        let _ = write!(text, "; rests until {until}");
    }
    text
}

/// A row for each tag that is not as it was, what is missing, what is removed, and the sum.
fn table(report: &Report) -> String {
    let Listed { rule, repository, source, to } = &report.rule;
    let on = to.as_ref().map_or(String::new(), |to| format!(" and on to {to}"));
    let mut text = format!("{rule}: {source} to {repository}{on}\n");
    if let Some(why) = &report.failed {
        let _ = writeln!(text, "  error: {why}");
        return text;
    }
    let changed = || report.tags.iter().filter(|tag| tag.outcome != Outcome::Unchanged);
    let width = changed().map(|tag| tag.tag.as_str().len()).max().unwrap_or(0);
    for tag in changed() {
        let _ = writeln!(text, "  {:width$}  {:8}  {}", tag.tag.as_str(), word(tag.outcome), what(tag));
        if let Some(why) = &tag.why {
            let _ = writeln!(text, "  {:width$}  error: {why}", "");
        }
    }
    for tag in &report.tags {
        for missing in &tag.missing {
            let kind = if missing.absent && !missing.asked && tag.outcome != Outcome::Failed {
                "warning"
            } else {
                "error"
            };
            let platform = missing.platform.as_ref().map_or(String::new(), |platform| format!("{platform} "));
            let _ = writeln!(text, "  {kind}: {}: {platform}{}: {}", tag.tag, missing.digest, missing.why);
        }
    }
    for Removal { place, tag, done, why, .. } in &report.removals {
        let _ = match (why, done) {
            (Some(why), _) => writeln!(text, "  error: {tag} cannot be removed from {place}: {why}"),
            (None, true) => writeln!(text, "  removed {tag} from {place}"),
            (None, false) => writeln!(text, "  to remove: {tag} from {place}"),
        };
    }
    for note in &report.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    if let Some(why) = &report.kept {
        let _ = writeln!(text, "  error: {why}");
    }
    text.push_str(&sum(report));
    text
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unchanged => "unchanged",
        Outcome::Planned => "to do",
        Outcome::Mirrored => "mirrored",
        Outcome::Gone => "gone",
        Outcome::Failed => "failed",
    }
}

/// What was done for a tag, in few words.
fn what(tag: &TagReport) -> String {
    let count = |wanted: fn(&Step) -> bool| tag.steps.iter().filter(|step| wanted(step)).count();
    let blobs = count(|step| matches!(step, Step::Blob { .. }));
    let manifests = count(|step| matches!(step, Step::Manifest { .. }));
    let bytes = tag.steps.iter().map(Step::bytes).sum();
    let mut text = format!("{manifests} manifests, {blobs} blobs, {}", rounded(bytes));
    if let Some(less) = tag.with_deltas {
        let _ = write!(text, " ({} by delta)", rounded(less));
    }
    let sent: u64 = tag.steps.iter().map(Step::sent).sum();
    if sent > 0 {
        let _ = write!(text, "; to the destination {}", rounded(sent));
    }
    text
}

fn sum(report: &Report) -> String {
    let count = |outcome| report.tags.iter().filter(|tag| tag.outcome == outcome).count();
    let (unchanged, failed) = (count(Outcome::Unchanged), count(Outcome::Failed));
    let steps = || report.tags.iter().flat_map(|tag| &tag.steps);
    let bytes: u64 = steps().map(Step::bytes).sum();
    let (verb, done) = match report.planned {
        true => ("to do", count(Outcome::Planned)),
        false => ("mirrored", count(Outcome::Mirrored)),
    };
    let mut text =
        format!("  {done} {verb}, {unchanged} unchanged, {failed} failed; {} of content", rounded(bytes));
    if report.planned {
        if report.tags.iter().any(|tag| tag.with_deltas.is_some()) {
            let less = report.tags.iter().map(|tag| tag.with_deltas.unwrap_or(tag.bytes)).sum();
            let _ = write!(text, ", {} by delta", rounded(less));
        }
        if report.rule.to.is_some() {
            let _ = write!(text, ", {} to send", rounded(steps().map(Step::sent).sum()));
        }
    } else {
        let _ = write!(text, ", {} received", rounded(report.received));
        if report.rule.to.is_some() {
            let _ = write!(text, ", {} sent", rounded(report.sent));
        }
    }
    text.push('\n');
    text
}
