//! What a run tells: how far it is, what became of each tag, and what it removed.

use deltaport_oci::{Digest, Tag};
use serde::{Deserialize, Serialize};

use super::Listed;
use super::moving::Moving;
use super::plan::Step;
use crate::image::Failed;

/// What a run did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Report {
    /// The rule, and the places that it means.
    #[serde(flatten)]
    pub rule: Listed,
    /// The number of the run: counted from the start of the process, or, among replicas, from a random one.
    pub run: u64,
    /// Whether nothing was done, only looked at.
    pub planned: bool,
    /// Whether it is over.
    pub done: bool,
    /// How many tags it is about, as soon as that is known.
    pub wanted: usize,
    /// How many bytes the upstream has sent meanwhile, whoever wanted them.
    pub received: u64,
    /// How many bytes of blobs and manifests were given to the destination.
    #[serde(default)]
    pub sent: u64,
    /// What is being done, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Now>,
    /// The blobs that are on their way, while it goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moving: Vec<Moving>,
    /// When it goes on, by the clock on the wall, if it is outside its hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_until: Option<String>,
    /// The tags that it has been through.
    pub tags: Vec<TagReport>,
    /// Tags that the rule does not want any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<Removal>,
    /// What the destination cannot hold as it is, in sentences; no failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Why it could not be done at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Why nothing was removed, or would be, though there is something to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

impl Report {
    pub(super) fn begin(rule: Listed, run: u64, planned: bool) -> Self {
        Self {
            rule,
            run,
            planned,
            done: false,
            wanted: 0,
            received: 0,
            sent: 0,
            now: None,
            moving: Vec::new(),
            rests_until: None,
            tags: Vec::new(),
            removals: Vec::new(),
            notes: Vec::new(),
            failed: None,
            kept: None,
        }
    }

    /// Whether everything is as the rule wants it, or would be after a run.
    pub fn is_good(&self) -> bool {
        self.done
            && self.failed.is_none()
            && self.kept.is_none()
            && self.tags.iter().all(|tag| tag.outcome != Outcome::Failed)
            && self.removals.iter().all(|removal| removal.why.is_none())
    }
}

/// The tag that a run is at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Now {
    /// The tag.
    pub tag: Tag,
    /// How many bytes of its steps are done.
    pub bytes: u64,
    /// How many they have, without deltas; 0 while it is looked at.
    pub of: u64,
}

/// What became of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TagReport {
    /// The tag.
    pub tag: Tag,
    /// How it ended.
    pub outcome: Outcome,
    /// What the upstream says that it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What was done, or would be; of a run that failed, up to where it did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The bytes of all manifests and blobs that the steps bring here, without deltas.
    pub bytes: u64,
    /// The same with the deltas that the upstream has; in plans alone, and only where it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with_deltas: Option<u64>,
    /// The bytes of all manifests and blobs that the steps give to the destination.
    #[serde(default)]
    pub to_send: u64,
    /// What was wanted and could not be had. Children that the upstream does not have are among it, also where that is
    /// no failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Failed>,
    /// Why it failed, if that is not about one thing that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How it went with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// There is nothing to do.
    Unchanged,
    /// The steps would be taken.
    Planned,
    /// The steps were taken.
    Mirrored,
    /// The upstream has it no more, and neither will be here what the rule once brought.
    Gone,
    /// Something could not be had. The tag is where it was.
    Failed,
}

impl TagReport {
    pub(super) fn new(tag: &Tag, outcome: Outcome) -> Self {
        Self {
            tag: tag.clone(),
            outcome,
            digest: None,
            steps: Vec::new(),
            bytes: 0,
            with_deltas: None,
            to_send: 0,
            missing: Vec::new(),
            why: None,
        }
    }

    pub(super) fn failed(tag: &Tag, why: String) -> Self {
        Self { why: Some(why), ..Self::new(tag, Outcome::Failed) }
    }
}

/// A tag that a rule has brought and does not want any more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Removal {
    /// Where it is: a repository of this registry, or the destination.
    pub place: String,
    /// The tag.
    pub tag: Tag,
    /// What it leads to.
    pub digest: Digest,
    /// Whether it was removed.
    pub done: bool,
    /// Why it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
