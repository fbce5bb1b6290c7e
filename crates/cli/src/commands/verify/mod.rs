//! `deltaport verify`: whether a policy lets an image in.

mod signatures;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use deltaport_oci::{Descriptor, Digest};
use deltaport_trust::signatures::{
    Demand, Ground, Image, ImageName, Policy, Refused, Signature, Time, Verdict,
};
use serde_json::{Value, json};

use crate::args::{Layers, Verify};
use crate::commands::layout;
use crate::output::Output;
use crate::policy;
use signatures::Signatures;

/// The most manifests that are judged: an index with its images.
const MAX_MANIFESTS: usize = 4096;

pub(crate) fn run(args: &Verify, output: &mut Output) -> anyhow::Result<ExitCode> {
    let Layers::Image { layout, tag } = &args.image else {
        bail!("IMAGE has to be an image in an OCI image layout, oci:DIR[:TAG]");
    };
    let policy = policy::load(&args.policy)?.accepting_nameless(args.accept_nameless);
    let name = name(args.name.as_ref(), tag.as_deref())?;
    let entries = layout::all_entries(layout)?;
    let images = layout::choose(signatures::but_signatures(layout, &entries), tag.as_deref())
        .with_context(|| format!("in {}", layout.display()))?;
    let mut court = Court {
        policy: &policy,
        name: &name,
        layout,
        signatures: Signatures::new(layout, entries),
        now: SystemTime::now(),
        verdicts: Vec::new(),
    };
    for image in &images {
        court.judge(image, &mut Vec::new())?;
    }
    let verdicts = court.verdicts;
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
    layout: &'a Path,
    signatures: Signatures<'a>,
    now: SystemTime,
    verdicts: Vec<(Digest, Verdict)>,
}

impl Court<'_> {
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
                let documents = self.signatures.of(&signed)?;
                self.policy.judge(image, &documents, self.now)
            }
        };
        self.verdicts.push((digest, verdict));
        // What is not here, of a sparse index, is judged all the same: its digest is known.
        if !layout::blob_path(self.layout, &digest).exists() {
            return Ok(());
        }
        let (_, view) = layout::manifest(self.layout, descriptor)?;
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
