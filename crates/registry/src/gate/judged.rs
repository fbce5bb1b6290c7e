//! Verdicts as they are remembered, kept and told.

use std::fmt;
use std::time::{Duration, SystemTime};

use deltaport_oci::{Digest, Tag};
use deltaport_store as store;
use deltaport_trust::signatures as trust;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How long a verdict is believed that rests on a certificate, which may have expired since.
const CERTIFIED: Duration = Duration::from_secs(3600);

/// A verdict on a manifest under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) accepted: bool,
    /// Whether what a manifest refers to is accepted with it: not where an index was accepted for its parts.
    pub(crate) whole: bool,
    /// As it is kept: the verdict as `trust` writes it, with what else counted.
    text: Value,
}

/// What counted beside the signatures of the manifest itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Because<'a> {
    /// It is in this index.
    Index(&'a Digest),
    /// It is accepted under this tag.
    Tag(&'a Tag),
    /// It is about this image.
    About(&'a Digest),
}

impl Judged {
    pub(super) fn new(verdict: &trust::Verdict) -> Self {
        // A verdict has nothing in it that JSON does not have.
        let text = serde_json::to_value(verdict).unwrap_or_default();
        Self { accepted: verdict.is_accepted(), whole: true, text }
    }

    /// What has no name that a policy could speak of.
    pub(super) fn nameless() -> Self {
        let reason =
            json!({ "code": "name", "message": "its repository has a longer name than images may have" });
        Self { accepted: false, whole: true, text: json!({ "accepted": false, "reason": reason }) }
    }

    /// It is a signature, and no image.
    pub(super) fn evidence() -> Self {
        Self { accepted: true, whole: true, text: json!({ "accepted": true, "evidence": true }) }
    }

    /// Whether it is a signature, about which nothing is decided.
    pub(super) fn is_evidence(&self) -> bool {
        self.text["evidence"] == true
    }

    /// An index is accepted because of all those of its images.
    pub(super) fn by_parts(parts: &[Self]) -> Option<Self> {
        let mut text = parts.first().filter(|_| parts.iter().all(|part| part.accepted))?.text.clone();
        text["parts"] = json!(parts.len());
        Some(Self { accepted: true, whole: false, text })
    }

    /// The same for something that is accepted because this is.
    pub(super) fn because(&self, because: Because<'_>) -> Self {
        let mut text = self.text.clone();
        match because {
            Because::Index(index) => text["index"] = json!(index),
            Because::Tag(tag) => text["tagged"] = json!(tag.as_str()),
            Because::About(image) => text["about"] = json!(image),
        }
        Self { text, ..self.clone() }
    }

    /// A verdict that was kept, if it may still be believed: one that accepts, unless it rests on a certificate.
    pub(super) fn kept(kept: &store::Verdict, now: SystemTime) -> Option<Self> {
        let text: Value = serde_json::from_str(&kept.text).ok().filter(|_| kept.accepted)?;
        let grounds = text["grounds"].as_array().into_iter().flatten();
        let certified = grounds.clone().any(|ground| ground["signer"]["certificate"].is_string());
        let fresh = now.duration_since(kept.at).is_ok_and(|age| age < CERTIFIED);
        (!certified || fresh).then(|| Self { accepted: true, whole: text["parts"].is_null(), text })
    }

    /// As it is kept: without the other signatures where they make it too long.
    pub(super) fn to_text(&self) -> String {
        let text = self.text.to_string();
        if text.len() <= store::MAX_VERDICT_LEN {
            return text;
        }
        let mut short = self.text.clone();
        if let Some(fields) = short.as_object_mut() {
            fields.remove("others");
        }
        let text = short.to_string();
        if text.len() <= store::MAX_VERDICT_LEN {
            return text;
        }
        let reason = json!({ "code": self.code(), "message": "the reason is too long to be kept" });
        json!({ "accepted": self.accepted, "scope": self.scope(), "reason": reason }).to_string()
    }

    /// Whether this is what was kept, but for the time.
    pub(super) fn is(&self, kept: &store::Verdict) -> bool {
        kept.accepted == self.accepted && kept.text == self.to_text()
    }

    /// Whether the policy speaks of this very manifest.
    pub(super) fn is_meant(&self) -> bool {
        self.scope().contains('@')
    }

    /// Which part of the policy counted.
    pub(super) fn scope(&self) -> &str {
        self.text["scope"].as_str().unwrap_or_default()
    }

    /// The word for the reason of a refusal.
    pub(super) fn code(&self) -> &str {
        self.text["reason"]["code"].as_str().unwrap_or_default()
    }

    /// The reason of a refusal.
    pub(super) fn why(&self) -> &str {
        self.text["reason"]["message"].as_str().unwrap_or_default()
    }
}

/// What was decided about a manifest, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Verdict {
    /// Under which tag; `None` is by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// When, in seconds since 1970.
    pub at: u64,
    /// The digest of the policy.
    pub policy: Digest,
    /// Whether that is the policy now.
    pub current: bool,
    /// The verdict itself: `accepted`, `scope`, and `grounds` or `reason`.
    #[serde(flatten)]
    pub verdict: serde_json::Map<String, Value>,
}

impl Verdict {
    pub(super) fn new(kept: store::Verdict, policy: Option<&Digest>) -> Self {
        let since = kept.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let verdict = serde_json::from_str(&kept.text).unwrap_or_default();
        let current = policy == Some(&kept.policy);
        Self { tag: kept.tag, at: since.as_secs(), policy: kept.policy, current, verdict }
    }
}

/// Why something is not served that is here, or could be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it is called where it comes from.
    pub name: String,
    /// The manifest or blob.
    pub digest: Digest,
    /// Whether it is a blob.
    pub blob: bool,
    /// Whether it was pushed here.
    pub pushed: bool,
    /// Which part of the policy counted.
    pub scope: String,
    /// A word for the reason, see [`trust::Reason::code`].
    pub code: String,
    /// The reason.
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, digest, blob, pushed, scope, code, why } = self;
        let what = if *blob { "a blob of " } else { "" };
        write!(f, "{what}{name} is not accepted here: {why}")?;
        if !scope.is_empty() {
            write!(f, " ({scope} of the policy)")?;
        }
        match code.as_str() {
            "rejected" | "unsupported" => {
                f.write_str("; whoever runs this registry decides that (trust.policy)")
            }
            _ if *blob => f.write_str("; `deltaport verify` tells more about its image"),
            _ if *pushed => write!(
                f,
                "; it waits here for its signature: sign {name}@{digest} with a key of the policy, and push that"
            ),
            _ => write!(f, "; `deltaport verify {name}` tells more"),
        }
    }
}

impl Refusal {
    /// The facts, for programs.
    pub(crate) fn detail(&self) -> Value {
        json!({ "digest": self.digest, "name": self.name, "scope": self.scope, "reason": self.code })
    }
}
