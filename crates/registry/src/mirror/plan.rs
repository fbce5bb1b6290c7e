//! What has to be done for a tag, given what its upstream has and what is here. Pure: a plan that is shown and the steps
//! that are taken come from the same function.

use std::collections::{BTreeMap, BTreeSet};

use deltaport_oci::{Digest, Platform, Tag};
use serde::{Deserialize, Serialize};

use super::select::belongs_to_digest;

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
    /// A blob is given to the destination.
    SendBlob {
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A manifest is given to the destination.
    SendManifest {
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// What it is for, if its index says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        platform: Option<Platform>,
    },
    /// A manifest is given to the destination under a tag.
    SendTag {
        /// The tag.
        tag: Tag,
        /// The manifest's digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// What the tag pointed at before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<Digest>,
    },
}

impl Step {
    /// How many bytes of content it brings here.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Manifest { size, .. } | Self::Blob { size, .. } => *size,
            _ => 0,
        }
    }

    /// How many bytes of content it gives to the destination.
    pub fn sent(&self) -> u64 {
        match self {
            Self::SendBlob { size, .. } | Self::SendManifest { size, .. } | Self::SendTag { size, .. } => {
                *size
            }
            _ => 0,
        }
    }

    /// Whether it is about a blob: those that stand together need not wait for each other.
    pub(super) fn is_blob(&self) -> bool {
        matches!(self, Self::Blob { .. } | Self::SendBlob { .. })
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
    /// What it says something about, by its own account.
    pub(super) subject: Option<Digest>,
    /// A tag of its own that it is carried with.
    pub(super) tag: Option<Tag>,
}

impl Found {
    /// Whether its tag is that of a list of referrers, which clients keep where the registry keeps none.
    fn is_list(&self) -> bool {
        self.tag.as_ref().is_some_and(|tag| belongs_to_digest(tag) && !tag.as_str().contains('.'))
    }
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

    /// The steps that make the destination have what `seen` says, from what is `there`; what it needs is here by then. In
    /// registries nothing may refer to what is not there, so blobs come before manifests, children before their index, and
    /// the image's own manifest with its tag.
    pub(super) fn plan_there(&mut self, seen: &Seen, there: &Here) -> Vec<Step> {
        let mut steps = Vec::new();
        for signature in &seen.signatures {
            // What others have added to a list stays in it; ours are added one by one.
            let listed = signature.is_list().then_some(&signature.tag).and_then(Option::as_ref);
            if listed.is_some_and(|tag| there.tags.contains_key(tag)) {
                continue;
            }
            self.send(signature, signature.tag.as_ref(), there, &mut steps);
        }
        let wanted = !seen.absent.iter().any(|absent| absent.asked);
        for manifest in seen.image.iter().rev() {
            self.send_blobs(manifest, there, &mut steps);
        }
        for (at, manifest) in seen.image.iter().enumerate().rev() {
            let tag = Some(&seen.tag).filter(|_| at == 0 && wanted);
            self.send(manifest, tag, there, &mut steps);
        }
        steps
    }

    fn send(&mut self, found: &Found, tag: Option<&Tag>, there: &Here, steps: &mut Vec<Step>) {
        self.send_blobs(found, there, steps);
        let Found { digest, size, platform, .. } = found;
        let fresh = !there.content.contains(digest) && self.planned.content.insert(*digest);
        match tag {
            Some(tag) => {
                let was = self.planned.tags.get(tag).or_else(|| there.tags.get(tag)).copied();
                if fresh || was != Some(*digest) {
                    self.planned.tags.insert(tag.clone(), *digest);
                    steps.push(Step::SendTag { tag: tag.clone(), digest: *digest, size: *size, was });
                }
            }
            None if fresh => {
                steps.push(Step::SendManifest { digest: *digest, size: *size, platform: platform.clone() });
            }
            None => {}
        }
    }

    fn send_blobs(&mut self, found: &Found, there: &Here, steps: &mut Vec<Step>) {
        // Who has a manifest has what it needs.
        if there.content.contains(&found.digest) || self.planned.content.contains(&found.digest) {
            return;
        }
        for (digest, size) in &found.blobs {
            if !there.content.contains(digest) && self.planned.content.insert(*digest) {
                steps.push(Step::SendBlob { digest: *digest, size: *size });
            }
        }
    }

    /// Takes back what a step was to bring and did not.
    pub(super) fn forget(&mut self, step: &Step) {
        match step {
            Step::Manifest { digest, .. }
            | Step::Blob { digest, .. }
            | Step::SendManifest { digest, .. }
            | Step::SendBlob { digest, .. } => {
                self.planned.content.remove(digest);
            }
            Step::Absent { digest, .. } => {
                self.planned.absent.remove(digest);
            }
            Step::Tag { tag, .. } => {
                self.planned.tags.remove(tag);
            }
            Step::SendTag { tag, digest, .. } => {
                self.planned.content.remove(digest);
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
mod tests;
