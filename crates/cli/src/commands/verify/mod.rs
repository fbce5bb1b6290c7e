//! `deltaport verify`: whether a policy lets an image in.

mod registry;
mod signatures;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use deltaport_oci::manifest::View;
use deltaport_oci::{Descriptor, Digest, media_type};
use deltaport_trust::signatures::{
    Demand, Document, Ground, Image, ImageName, Policy, Refused, Signature, Time, Verdict,
};
use serde_json::{Value, json};

use crate::args::{Signed, Verify};
use crate::commands::layout;
use crate::output::Output;
use crate::{logging, policy};
use registry::Registry;
use signatures::Signatures;

/// The most manifests that are judged: an index with its images.
const MAX_MANIFESTS: usize = 4096;

/// Where an image and its signatures are.
trait Place {
    /// What a manifest means; `None` when it is not there.
    fn manifest(&self, descriptor: &Descriptor) -> anyhow::Result<Option<View>>;

    /// The signatures of these manifests, and what there is instead of those that cannot be read.
    fn signatures(&mut self, digests: &[Digest]) -> anyhow::Result<Vec<Document>>;
}

pub(crate) fn run(args: &Verify, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    let policy = policy::load(&args.policy)?.accepting_nameless(args.accept_nameless);
    let (name, verdicts) = match &args.image {
        Signed::Layout { layout, tag } => in_layout(args, &policy, layout, tag.as_deref())?,
        Signed::Registry { image, name } => {
            let name = args.name.clone().unwrap_or_else(|| name.clone());
            let mut place = Registry::of(image, &args.access)?;
            let root = place.root()?;
            let verdicts = Court::new(&policy, &name, &mut place).judge_all(&[root])?;
            (name, verdicts)
        }
    };
    let accepted = !verdicts.is_empty() && verdicts.iter().all(|(_, verdict)| verdict.is_accepted());
    if args.json {
        let manifests: Vec<Value> = verdicts
            .iter()
            .map(|(digest, verdict)| described(digest, verdict))
            .collect::<anyhow::Result<_>>()?;
        output.json(&json!({
            "accepted": accepted,
            "name": name.to_string(),
            "manifests": manifests,
            "notes": policy.notes(),
        }))?;
    } else {
        for note in policy.notes() {
            output.line(&format!("note: {note}"))?;
        }
        for (digest, verdict) in &verdicts {
            output.text(&words(digest, verdict))?;
        }
    }
    Ok(if accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The verdicts on an image in an OCI image layout.
fn in_layout(
    args: &Verify,
    policy: &Policy,
    layout: &Path,
    tag: Option<&str>,
) -> anyhow::Result<(ImageName, Vec<(Digest, Verdict)>)> {
    let name = name(args.name.as_ref(), tag)?;
    let entries = layout::all_entries(layout)?;
    let images = layout::choose(signatures::but_signatures(layout, &entries), tag)
        .with_context(|| format!("in {}", layout.display()))?;
    let mut place = Signatures::new(layout, entries);
    let verdicts = Court::new(policy, &name, &mut place).judge_all(&images)?;
    Ok((name, verdicts))
}

/// What the image is called at its source: what was said, or else the tag, when that is a full name.
fn name(said: Option<&ImageName>, tag: Option<&str>) -> anyhow::Result<ImageName> {
    if let Some(said) = said {
        return Ok(said.clone());
    }
    let full = tag.filter(|tag| tag.contains('/')).and_then(|tag| ImageName::parse(tag).ok());
    full.context(
        "the policy judges images by where they come from; add --name, as in --name r.example/app:1.0",
    )
}

/// What stays the same while the manifests of an image are judged.
struct Court<'a> {
    policy: &'a Policy,
    name: &'a ImageName,
    place: &'a mut dyn Place,
    now: SystemTime,
    verdicts: Vec<(Digest, Verdict)>,
}

impl<'a> Court<'a> {
    fn new(policy: &'a Policy, name: &'a ImageName, place: &'a mut dyn Place) -> Self {
        Self { policy, name, place, now: SystemTime::now(), verdicts: Vec::new() }
    }

    fn judge_all(mut self, images: &[Descriptor]) -> anyhow::Result<Vec<(Digest, Verdict)>> {
        images.iter().try_for_each(|image| self.judge(image, &mut Vec::new()))?;
        Ok(self.verdicts)
    }

    /// Judges a manifest and, if it is an index, what is in it. `within` are the indexes above.
    fn judge(&mut self, descriptor: &Descriptor, within: &mut Vec<Digest>) -> anyhow::Result<()> {
        let digest = descriptor.digest;
        if self.verdicts.len() >= MAX_MANIFESTS || within.len() > layout::MAX_DEPTH {
            bail!("the image has more than {MAX_MANIFESTS} manifests, or indexes in indexes in indexes");
        }
        let image = Image { name: self.name, digest, within };
        let verdict = match self.policy.demand(image) {
            Demand::Nothing(verdict) => verdict,
            Demand::Signatures => {
                let signed: Vec<Digest> = within.iter().copied().chain([digest]).collect();
                let documents = self.place.signatures(&signed)?;
                self.policy.judge(image, &documents, self.now)
            }
        };
        self.verdicts.push((digest, verdict));
        if !media_type::is_index(&descriptor.media_type) {
            return Ok(());
        }
        // What is not here, of a sparse index, is judged all the same: its digest is known.
        let Some(view) = self.place.manifest(descriptor)? else { return Ok(()) };
        within.push(digest);
        for child in &view.manifests {
            self.judge(child, within)?;
        }
        within.pop();
        Ok(())
    }
}

/// A verdict for people.
fn words(digest: &Digest, verdict: &Verdict) -> String {
    let mut text = String::new();
    match verdict {
        Verdict::Accepted(accepted) => {
            let _ = writeln!(text, "accepted {digest}, by {} of the policy", accepted.scope);
            for ground in &accepted.grounds {
                let _ = match ground {
                    Ground::Signature(signature) => writeln!(text, "  {}", signed(signature)),
                    _ => writeln!(text, "  no signature is asked for"),
                };
            }
        }
        Verdict::Refused(Refused { scope, reason, others }) => {
            let _ = writeln!(text, "refused  {digest}, by {scope} of the policy\n  {reason}");
            for other in others {
                let _ = writeln!(text, "  another signature: {other}");
            }
        }
    }
    text
}

fn signed(signature: &Signature) -> String {
    let Signature { signer, digest, name, time } = signature;
    let name = name.as_ref().map_or(String::new(), |name| format!(" as {name}"));
    let time = match time {
        Time::Logged(time) => format!(", logged {}", httpdate::fmt_http_date(*time)),
        Time::Claimed(time) => format!(", by its own account {}", httpdate::fmt_http_date(*time)),
        _ => String::new(),
    };
    format!("{digest} signed{name} by {signer}{time}")
}

/// A verdict for programs.
fn described(digest: &Digest, verdict: &Verdict) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(verdict)?;
    value["digest"] = json!(digest);
    Ok(value)
}
