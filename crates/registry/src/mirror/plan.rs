//! What has to be done for a tag, given what its upstream has and what is here. Pure: a plan that is shown and the steps
//! that are taken come from the same function.

use std::collections::{BTreeMap, BTreeSet};

use deltaport_oci::{Digest, Platform, Tag};
use serde::{Deserialize, Serialize};

/// One thing to do, in the order in which it is done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// A manifest is stored.
    Manifest {
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// What it is for, if its index says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        platform: Option<Platform>,
    },
    /// A blob is fetched, by delta if that is sooner.
    Blob {
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// It is written down that the upstream does not have a child of the index.
    Absent {
        /// Its digest.
        digest: Digest,
        /// What it is for, if its index says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        platform: Option<Platform>,
    },
    /// A tag is pointed at a manifest.
    Tag {
        /// The tag.
        tag: Tag,
        /// The manifest's digest.
        digest: Digest,
        /// What it pointed at before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<Digest>,
    },
}

impl Step {
    /// How many bytes of content it brings.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Manifest { size, .. } | Self::Blob { size, .. } => *size,
            Self::Absent { .. } | Self::Tag { .. } => 0,
        }
    }
}

/// What the upstream has under a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) tag: Tag,
    /// What says something about the image and its wanted children: signatures, attestations, other referrers.
    pub(super) signatures: Vec<Found>,
    /// The manifest under the tag, and in front of what they contain, the wanted ones within it.
    pub(super) image: Vec<Found>,
    /// Wanted children that the upstream does not have.
    pub(super) absent: Vec<Absent>,
}

/// A manifest of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
    /// Its configuration and layers, with their sizes.
    pub(super) blobs: Vec<(Digest, u64)>,
    /// A tag of its own that it is carried with.
    pub(super) tag: Option<Tag>,
}

/// A child that the upstream does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Absent {
    pub(super) digest: Digest,
    pub(super) platform: Option<Platform>,
    /// Whether its platform was asked for.
    pub(super) asked: bool,
}

/// What is in the local repository, of that which is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Here {
    /// Manifests and blobs.
    pub(super) content: BTreeSet<Digest>,
    /// What is known to be absent upstream.
    pub(super) absent: BTreeSet<Digest>,
    pub(super) tags: BTreeMap<Tag, Digest>,
}

/// Plans one tag after the other: what an earlier tag brings, a later one finds.
#[derive(Debug, Default)]
pub(super) struct Planner {
    planned: Here,
}

impl Planner {
    /// The steps that make the repository have what `seen` says, from what is `here`. Signatures come first, so that
    /// there is no moment at which a tag leads to an image without them; the tag comes last, so that it leads to the old
    /// image until the new one is complete. Where a child is absent whose platform was asked for, the tag stays.
    pub(super) fn plan(&mut self, seen: &Seen, here: &Here) -> Vec<Step> {
        let mut steps = Vec::new();
        for signature in &seen.signatures {
            self.add_manifest(signature, here, &mut steps);
            self.add_blobs(signature, here, &mut steps);
            if let Some(tag) = &signature.tag {
                self.add_tag(tag, signature.digest, here, &mut steps);
            }
        }
        for manifest in &seen.image {
            self.add_manifest(manifest, here, &mut steps);
        }
        for Absent { digest, platform, .. } in &seen.absent {
            if !here.absent.contains(digest) && self.planned.absent.insert(*digest) {
                steps.push(Step::Absent { digest: *digest, platform: platform.clone() });
            }
        }
        for manifest in &seen.image {
            self.add_blobs(manifest, here, &mut steps);
        }
        if let Some(root) = seen.image.first()
            && !seen.absent.iter().any(|absent| absent.asked)
        {
            self.add_tag(&seen.tag, root.digest, here, &mut steps);
        }
        steps
    }

    /// Takes back what a step was to bring and did not.
    pub(super) fn forget(&mut self, step: &Step) {
        match step {
            Step::Manifest { digest, .. } | Step::Blob { digest, .. } => {
                self.planned.content.remove(digest);
            }
            Step::Absent { digest, .. } => {
                self.planned.absent.remove(digest);
            }
            Step::Tag { tag, .. } => {
                self.planned.tags.remove(tag);
            }
        }
    }

    fn add_manifest(&mut self, found: &Found, here: &Here, steps: &mut Vec<Step>) {
        let Found { digest, size, platform, .. } = found;
        if !here.content.contains(digest) && self.planned.content.insert(*digest) {
            steps.push(Step::Manifest { digest: *digest, size: *size, platform: platform.clone() });
        }
    }

    fn add_blobs(&mut self, found: &Found, here: &Here, steps: &mut Vec<Step>) {
        for (digest, size) in &found.blobs {
            if !here.content.contains(digest) && self.planned.content.insert(*digest) {
                steps.push(Step::Blob { digest: *digest, size: *size });
            }
        }
    }

    fn add_tag(&mut self, tag: &Tag, digest: Digest, here: &Here, steps: &mut Vec<Step>) {
        let was = self.planned.tags.get(tag).or_else(|| here.tags.get(tag)).copied();
        if was != Some(digest) {
            self.planned.tags.insert(tag.clone(), digest);
            steps.push(Step::Tag { tag: tag.clone(), digest, was });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn found(name: &str, blobs: &[&str], tag: Option<&str>) -> Found {
        Found {
            digest: digest(name),
            size: 1,
            platform: None,
            blobs: blobs.iter().map(|blob| (digest(blob), 10)).collect(),
            tag: tag.map(|tag| tag.parse().unwrap()),
        }
    }

    fn seen(tag: &str) -> Seen {
        Seen {
            tag: tag.parse().unwrap(),
            signatures: vec![found("signature", &["payload"], Some("sha256-x.sig"))],
            image: vec![found("index", &[], None), found("image", &["config", "layer"], None)],
            absent: Vec::new(),
        }
    }

    /// A step as a word and the name of what it is about.
    fn words(steps: &[Step]) -> Vec<String> {
        let names = ["signature", "payload", "index", "image", "config", "layer", "gone"];
        let name = |of: &Digest| names.into_iter().find(|name| digest(name) == *of).unwrap_or("?");
        let word = |step: &Step| match step {
            Step::Manifest { digest, .. } => format!("manifest {}", name(digest)),
            Step::Blob { digest, .. } => format!("blob {}", name(digest)),
            Step::Absent { digest, .. } => format!("absent {}", name(digest)),
            Step::Tag { tag, digest, was } => {
                format!("tag {tag} {}{}", name(digest), if was.is_some() { " moved" } else { "" })
            }
        };
        steps.iter().map(word).collect()
    }

    #[test]
    fn signatures_come_first_and_the_tag_last() {
        let steps = Planner::default().plan(&seen("v1"), &Here::default());
        let expected = [
            "manifest signature",
            "blob payload",
            "tag sha256-x.sig signature",
            "manifest index",
            "manifest image",
            "blob config",
            "blob layer",
            "tag v1 index",
        ];
        assert_eq!(words(&steps), expected);
        assert_eq!(steps.iter().map(Step::bytes).sum::<u64>(), 33);
    }

    #[test]
    fn what_is_here_or_planned_is_not_done_again() {
        let mut here = Here::default();
        here.content.extend(["signature", "payload", "index", "image", "config"].map(digest));
        here.tags.insert("sha256-x.sig".parse().unwrap(), digest("signature"));
        here.tags.insert("v1".parse().unwrap(), digest("old"));
        let mut planner = Planner::default();
        assert_eq!(words(&planner.plan(&seen("v1"), &here)), ["blob layer", "tag v1 index moved"]);
        assert_eq!(words(&planner.plan(&seen("v2"), &here)), ["tag v2 index"]);
        let layer = Step::Blob { digest: digest("layer"), size: 10 };
        planner.forget(&layer);
        assert_eq!(words(&planner.plan(&seen("v2"), &here)), ["blob layer"], "it did not come with v1");
    }

    #[test]
    fn a_child_that_is_absent_is_written_down_and_keeps_the_tag_when_it_was_asked_for() {
        let mut sparse = seen("v1");
        sparse.absent.push(Absent { digest: digest("gone"), platform: None, asked: false });
        let steps = words(&Planner::default().plan(&sparse, &Here::default()));
        assert!(steps.contains(&"absent gone".to_owned()) && steps.contains(&"tag v1 index".to_owned()));
        sparse.absent[0].asked = true;
        let steps = words(&Planner::default().plan(&sparse, &Here::default()));
        assert!(!steps.contains(&"tag v1 index".to_owned()), "{steps:?}");
        let here = Here { absent: [digest("gone")].into(), ..Here::default() };
        assert!(!words(&Planner::default().plan(&sparse, &here)).contains(&"absent gone".to_owned()));
    }
}
