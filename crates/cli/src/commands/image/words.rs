//! What is told of images to people.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use deltaport_oci::Platform;
use deltaport_registry::Verdict;
use deltaport_registry::image::{Evicted, Failed, Node, Pruned, Role, State, Tree};

use serde_json::Value;

use crate::args::ImageName;
use crate::output::rounded;

/// A row for each manifest, and what the states mean that occur.
pub(super) fn tree(image: &ImageName, tree: &Tree) -> String {
    let mut text = format!("{}\n", called(image));
    let mut rows = Vec::new();
    add_rows(&tree.root, &tree.root, 0, &mut rows);
    let width =
        |column: fn(&Row) -> &str| rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0);
    let (what, state, size) = (width(|row| &row.what), width(|row| &row.state), width(|row| &row.size));
    for row in &rows {
        let _ =
            writeln!(text, "  {:what$}  {:state$}  {:>size$}  {}", row.what, row.state, row.size, row.digest);
    }
    add_verdicts(tree, &mut text);
    let states: BTreeSet<&str> = tree.nodes().filter_map(|node| meaning(node.state)).collect();
    if states.is_empty() && tree.is_complete() {
        text.push_str("Everything is here.\n");
    }
    for meaning in states {
        let _ = writeln!(text, "{meaning}");
    }
    text
}

/// A line for each verdict of the policy, under the manifests that they are on.
fn add_verdicts(tree: &Tree, text: &mut String) {
    if tree.nodes().all(|node| node.verdicts.is_empty()) {
        return;
    }
    text.push_str("The policy has decided:\n");
    for node in tree.nodes().filter(|node| !node.verdicts.is_empty()) {
        let _ = writeln!(text, "  {}", node.digest);
        for verdict in &node.verdicts {
            let _ = writeln!(text, "    {}", decided(verdict));
        }
    }
}

/// A verdict in one line.
fn decided(verdict: &Verdict) -> String {
    let field = |path: &[&str]| {
        let (first, rest) = path.split_first()?;
        let value = rest.iter().try_fold(verdict.verdict.get(*first)?, |value, key| value.get(*key))?;
        value.as_str().map(str::to_owned)
    };
    let name = verdict.tag.as_ref().map_or("by digest".to_owned(), |tag| format!("as {tag}"));
    let accepted = verdict.verdict.get("accepted") == Some(&true.into());
    let mut text = format!("{name}: {}", if accepted { "accepted" } else { "refused" });
    if let Some(scope) = field(&["scope"]) {
        let _ = write!(text, " by {scope}");
    }
    if let Some(why) = field(&["reason", "message"]) {
        let _ = write!(text, ": {why}");
    }
    let grounds = verdict.verdict.get("grounds").and_then(Value::as_array).into_iter().flatten();
    for signer in grounds.filter_map(|ground| ground.get("signer")) {
        for (kind, words) in [("key", "key"), ("certificate", "certificate")] {
            if let Some(signer) = signer.get(kind).and_then(Value::as_str) {
                let _ = write!(text, ", signed with {words} {signer}");
            }
        }
    }
    for (key, words) in
        [("index", "with the index"), ("tagged", "as it is"), ("about", "with what it is about,")]
    {
        if let Some(other) = field(&[key]) {
            let _ = write!(text, ", {words} {other}");
        }
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(verdict.at);
    let _ = write!(text, "; {}", httpdate::fmt_http_date(at));
    if !verdict.current {
        text.push_str(", by another policy than now");
    }
    text
}

/// How far an image is, in one line.
pub(super) fn progress(tree: &Tree) -> String {
    let (here, all) =
        tree.nodes().filter_map(|node| node.blobs).fold((0_u64, 0_u64), |(here, all), blobs| {
            (here.saturating_add(blobs.present_bytes), all.saturating_add(blobs.bytes))
        });
    format!("{} of {} are here", rounded(here), rounded(all))
}

/// The tree, and what is not in it although it was wanted.
pub(super) fn completed(image: &ImageName, now: &Tree, failed: &[Failed]) -> String {
    let mut text = tree(image, now);
    for Failed { digest, platform, asked, absent, why } in failed {
        let kind = if *absent && !asked { "note" } else { "error" };
        let _ = writeln!(text, "{kind}: {}{digest}: {why}", for_platform(platform.as_ref()));
    }
    if failed.iter().any(|failed| !failed.absent) {
        text.push_str("What has come is kept; give the same command again to go on.\n");
    }
    text
}

/// What went, what stayed, and how it comes back.
pub(super) fn pruned(image: &ImageName, pruned: &Pruned) -> String {
    let mut text = String::new();
    let row = |text: &mut String, verb: &str, Evicted { digest, platform }: &Evicted, why: &str| {
        let _ = writeln!(text, "{verb} {}{digest}{why}", for_platform(platform.as_ref()));
    };
    for gone in &pruned.evicted {
        row(&mut text, "removed", gone, "");
    }
    for kept in &pruned.kept {
        row(&mut text, "kept", kept, ": another tag leads to it");
    }
    if pruned.evicted.is_empty() {
        let _ = writeln!(text, "There was nothing left to remove of {}.", called(image));
        return text;
    }
    let _ = writeln!(
        text,
        "The collector takes {} of blobs when collect.grace is over, as far as no other repository has them.",
        rounded(pruned.bytes)
    );
    text.push_str(match pruned.upstream {
        true => "It comes from the upstream again when a client asks for it.\n",
        false => "It has no upstream: it comes back only when it is pushed again.\n",
    });
    text
}

fn called(ImageName { host, repository, reference }: &ImageName) -> String {
    match reference {
        deltaport_oci::Reference::Tag(tag) => format!("{host}/{repository}:{tag}"),
        deltaport_oci::Reference::Digest(digest) => format!("{host}/{repository}@{digest}"),
    }
}

fn for_platform(platform: Option<&Platform>) -> String {
    platform.map_or(String::new(), |platform| format!("{platform} "))
}

/// A manifest in the table.
struct Row {
    what: String,
    state: String,
    size: String,
    digest: String,
}

fn add_rows(node: &Node, parent: &Node, depth: usize, rows: &mut Vec<Row>) {
    rows.push(Row {
        what: format!("{:indent$}{}", "", what(node, parent), indent = 2 * depth),
        state: state(node.state).to_owned(),
        size: size(node),
        digest: node.digest.to_string(),
    });
    for child in &node.children {
        add_rows(child, node, depth + 1, rows);
    }
}

/// What a manifest is in its index.
fn what(node: &Node, parent: &Node) -> String {
    let platform = node.platform.as_ref().filter(|platform| !platform.is_unknown());
    let version = |platform: &Platform| match platform.os_version.as_str() {
        "" => platform.to_string(),
        version => format!("{platform} ({version})"),
    };
    let named = platform.map(version);
    match node.role {
        Role::Image => named.unwrap_or_else(|| "image".to_owned()),
        Role::Index => named.map_or("index".to_owned(), |platform| format!("index for {platform}")),
        Role::Other => named.unwrap_or_else(|| "for no platform".to_owned()),
        Role::Attestation => {
            let about = parent.children.iter().find(|image| Some(image.digest) == node.about);
            let about = about.and_then(|image| image.platform.as_ref()).map(version);
            about.map_or("attestation".to_owned(), |platform| format!("attestation of {platform}"))
        }
    }
}

/// How large it is, with everything that it needs, as far as that is known.
fn size(node: &Node) -> String {
    match node.blobs {
        Some(blobs) if blobs.present_count < blobs.count => {
            format!("{} of {}", rounded(blobs.present_bytes), rounded(blobs.bytes))
        }
        Some(blobs) => rounded(blobs.bytes),
        None if node.state == State::Present => rounded(node.size),
        None => "-".to_owned(),
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Present => "present",
        State::Missing => "missing",
        State::ByPolicy => "by policy",
        State::Evicted => "evicted",
        State::AbsentUpstream => "absent upstream",
    }
}

/// What a state means, and what can be done.
fn meaning(state: State) -> Option<&'static str> {
    match state {
        State::Present => None,
        State::Missing => Some("missing: nobody has asked for it or pushed it yet"),
        State::ByPolicy => Some(
            "by policy: its platform is not wanted of the upstream (platforms); `deltaport image complete` fetches it",
        ),
        State::Evicted => Some(
            "evicted: it was removed here; it comes when a client asks for it, or with `deltaport image complete`, if \
             there is an upstream",
        ),
        State::AbsentUpstream => Some("absent upstream: the upstream does not have it either"),
    }
}
