//! What an upstream has under a tag, and what of it is here. Nothing is stored; manifests that are here are not fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deltaport_oci::manifest::View;
use deltaport_oci::platform::{self, Filter};
use deltaport_oci::{Digest, Platform, Reference, Tag};
use deltaport_store as store;
use futures_util::{StreamExt as _, stream};

use super::Job;
use super::origin::Origin;
pub(super) use super::origin::words;
use super::plan::{Absent, Found, Here, Seen};
use super::select::COSIGN;
use crate::fill::Failure;
use crate::image::{MAX_DEPTH, MAX_MANIFESTS};
use crate::{Manifest, Registry};

/// How many questions about one tag are asked at the same time.
pub(super) const QUESTIONS: usize = 8;
/// How many bytes of manifests are held for one tag.
const MAX_HELD: usize = 64 << 20;

/// A tag that has been looked at.
pub(super) struct Survey {
    pub(super) seen: Seen,
    pub(super) here: Here,
    /// The manifests that `seen` names.
    pub(super) manifests: BTreeMap<Digest, Arc<Manifest>>,
}

/// A manifest with what it refers to.
struct Node {
    manifest: Arc<Manifest>,
    view: View,
    platform: Option<Platform>,
    role: platform::Role,
    /// Whether its platform was asked for by name.
    asked: bool,
    filter: Filter,
}

/// What was wanted, as far as it is there.
#[derive(Default)]
struct Walked {
    nodes: Vec<Node>,
    absent: Vec<Absent>,
}

impl Registry {
    /// Looks at what the upstream has under `tag`, which leads to `digest` there. `listed` are its tags, if they were
    /// asked for.
    ///
    /// Fails with a sentence; a child that the upstream does not have is no failure.
    pub(super) async fn survey(
        &self,
        job: &Job,
        tag: &Tag,
        digest: Digest,
        listed: Option<&BTreeSet<Tag>>,
    ) -> Result<Survey, String> {
        let root = self.get(job, &Reference::Digest(digest)).await?;
        let root =
            root.ok_or_else(|| format!("the tag leads to {digest}, which the upstream does not have"))?;
        // Before anything that belongs to it. In a repository of our own, what waits for its signature may come.
        if let Origin::Upstream(source) = &job.source {
            self.admit_arrival(source, &job.repository, &root, Some(tag)).await.map_err(words)?;
        }
        let walked = self.walk(job, root, &job.filter).await?;
        let subjects = walked.nodes.iter().enumerate().filter(|(at, node)| {
            *at == 0 || matches!(node.role, platform::Role::Image | platform::Role::Index)
        });
        let subjects: Vec<Digest> = subjects.map(|(_, node)| node.manifest.digest).collect();
        let mut about =
            stream::iter(subjects).map(|subject| self.about(job, subject, listed)).buffered(QUESTIONS);
        let (mut signatures, mut manifests) = (Vec::new(), BTreeMap::new());
        let mut keep = |manifest: &Arc<Manifest>| {
            manifests.insert(manifest.digest, Arc::clone(manifest));
            let held: usize = manifests.values().map(|manifest| manifest.bytes.len()).sum();
            match held > MAX_HELD || manifests.len() > MAX_MANIFESTS {
                true => Err("it has too many manifests to be mirrored".to_owned()),
                false => Ok(()),
            }
        };
        for node in &walked.nodes {
            keep(&node.manifest)?;
        }
        while let Some(found) = about.next().await {
            for (node, tag) in found? {
                keep(&node.manifest)?;
                signatures.push(node.found(tag));
            }
        }
        let image = walked.nodes.iter().map(|node| node.found(None)).collect();
        let seen = Seen { tag: tag.clone(), signatures, image, absent: walked.absent };
        let here = self.look_here(job, &seen).await.map_err(words)?;
        Ok(Survey { seen, here, manifests })
    }

    /// Whether all that a run would bring of the image of a stored manifest is here.
    pub(super) async fn is_whole(&self, job: &Job, root: &Arc<Manifest>) -> Result<bool, Failure> {
        let names = self.store().names();
        let mut level = vec![(Arc::clone(root), job.filter.clone())];
        for _ in 0..=MAX_DEPTH {
            let mut below = Vec::new();
            for (manifest, filter) in std::mem::take(&mut level) {
                let Some(view) = self.view_of(&manifest) else { return Ok(false) };
                let blobs = view.blobs().map(|blob| blob.digest).collect();
                if !names.absent(&job.repository, blobs).await?.is_empty() {
                    return Ok(false);
                }
                let Ok(selection) = filter.select(&view) else { return Ok(false) };
                for child in selection.kept() {
                    let digest = child.descriptor.digest;
                    match names.manifest(&job.repository, &Reference::Digest(digest)).await? {
                        Some(stored) => below.push((stored, within(child, &filter))),
                        None => match names.absence(&job.repository, &digest).await? {
                            Some(store::Absence::Upstream) => {}
                            _ => return Ok(false),
                        },
                    }
                }
            }
            if below.is_empty() {
                return Ok(true);
            }
            level = below;
        }
        Ok(false)
    }

    /// A manifest and, level by level, those in it that `filter` selects.
    async fn walk(&self, job: &Job, root: Arc<Manifest>, filter: &Filter) -> Result<Walked, String> {
        let root = self.node(root, None, platform::Role::Image, false, filter.clone())?;
        let mut walked = Walked::default();
        let (mut nothing, mut matched) = (None, filter.is_all() || !root.view.is_index());
        let mut level = vec![root];
        for _ in 0..MAX_DEPTH {
            let mut wanted = Vec::new();
            for node in std::mem::take(&mut level) {
                let kept = match node.filter.select(&node.view) {
                    Ok(selection) => selection.kept().copied().collect(),
                    Err(error) => {
                        nothing = nothing.or(Some(error));
                        Vec::new()
                    }
                };
                for child in &kept {
                    let platform =
                        child.descriptor.platform.clone().filter(|platform| !platform.is_unknown());
                    let named = platform.is_some()
                        && matches!(child.role, platform::Role::Image | platform::Role::Index);
                    let asked = node.asked || named && !node.filter.is_all();
                    matched |= named || child.role != platform::Role::Index;
                    let platform = platform.or_else(|| node.platform.clone());
                    wanted.push((
                        child.descriptor.digest,
                        platform,
                        child.role,
                        asked,
                        within(child, &node.filter),
                    ));
                }
                walked.nodes.push(node);
            }
            if walked.nodes.len() + wanted.len() > MAX_MANIFESTS {
                return Err(format!("the image consists of more than {MAX_MANIFESTS} manifests"));
            }
            let mut fetched = stream::iter(wanted)
                .map(|wanted| async {
                    let found = self.get(job, &Reference::Digest(wanted.0)).await;
                    (wanted, found)
                })
                .buffered(QUESTIONS);
            while let Some(((digest, platform, role, asked, filter), found)) = fetched.next().await {
                match found? {
                    Some(manifest) => level.push(self.node(manifest, platform, role, asked, filter)?),
                    None => walked.absent.push(Absent { digest, platform, asked }),
                }
            }
            if level.is_empty() {
                break;
            }
        }
        walked.nodes.extend(level);
        match nothing.filter(|_| !matched) {
            Some(nothing) => Err(nothing.to_string()),
            None => Ok(walked),
        }
    }

    /// What says something about `subject`: cosign's tags, the list of referrers that clients keep under a tag, and the
    /// registry's own list; each with what it contains. Deltas between layers are not among it: they are a way to the
    /// image, and were taken or not.
    async fn about(
        &self,
        job: &Job,
        subject: Digest,
        listed: Option<&BTreeSet<Tag>>,
    ) -> Result<Vec<(Node, Option<Tag>)>, String> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for ending in COSIGN.into_iter().chain([""]) {
            let hex = subject.hex();
            let hex = hex.get(..64).unwrap_or(&hex);
            let Ok(tag) = format!("{}-{hex}{ending}", subject.algorithm()).parse::<Tag>() else { continue };
            if listed.is_some_and(|listed| !listed.contains(&tag)) {
                continue;
            }
            let Some(digest) = self.head(job, &Reference::Tag(tag.clone())).await? else { continue };
            seen.insert(digest);
            self.add_about(job, digest, Some(tag), &mut found).await?;
        }
        for referrer in self.referrers_upstream(job, &subject).await? {
            if seen.insert(referrer) {
                self.add_about(job, referrer, None, &mut found).await?;
            }
        }
        Ok(found)
    }

    /// Adds a manifest with all that it contains. One that a list names and that is not there is left out: there is
    /// nothing to carry.
    async fn add_about(
        &self,
        job: &Job,
        digest: Digest,
        tag: Option<Tag>,
        found: &mut Vec<(Node, Option<Tag>)>,
    ) -> Result<(), String> {
        let Some(manifest) = self.get(job, &Reference::Digest(digest)).await? else {
            tracing::warn!(repository = %job.repository, %digest, "the upstream names a referrer that it does not have");
            return Ok(());
        };
        let mut walked = self.walk(job, manifest, &Filter::ALL).await?.nodes.into_iter();
        let first = walked.next();
        // What it contains is stored before it is tagged.
        found.extend(walked.map(|node| (node, None)));
        found.extend(first.map(|node| (node, tag)));
        Ok(())
    }

    fn node(
        &self,
        manifest: Arc<Manifest>,
        platform: Option<Platform>,
        role: platform::Role,
        asked: bool,
        filter: Filter,
    ) -> Result<Node, String> {
        let view = View::parse(&manifest.media_type, &manifest.bytes, self.manifest_limits())
            .map_err(|error| format!("the upstream sends something else than a manifest: {error}"))?;
        Ok(Node { manifest, view, platform, role, asked, filter })
    }

    /// What is here of what was seen.
    async fn look_here(&self, job: &Job, seen: &Seen) -> Result<Here, Failure> {
        let names = self.store().names();
        let mut here = Here::default();
        let mut tags: BTreeSet<&Tag> = BTreeSet::from([&seen.tag]);
        for found in seen.signatures.iter().chain(&seen.image) {
            tags.extend(&found.tag);
            if names.manifest(&job.repository, &Reference::Digest(found.digest)).await?.is_some() {
                here.content.insert(found.digest);
            }
            let blobs: Vec<Digest> = found.blobs.iter().map(|(digest, _)| *digest).collect();
            let absent: BTreeSet<Digest> =
                names.absent(&job.repository, blobs.clone()).await?.into_iter().collect();
            here.content.extend(blobs.into_iter().filter(|digest| !absent.contains(digest)));
        }
        for Absent { digest, .. } in &seen.absent {
            if names.absence(&job.repository, digest).await? == Some(store::Absence::Upstream) {
                here.absent.insert(*digest);
            }
        }
        for tag in tags {
            if let Some(stored) = names.manifest(&job.repository, &Reference::Tag(tag.clone())).await? {
                here.tags.insert(tag.clone(), stored.digest);
            }
        }
        Ok(here)
    }
}

impl Node {
    fn found(&self, tag: Option<Tag>) -> Found {
        Found {
            digest: self.manifest.digest,
            size: self.manifest.bytes.len() as u64,
            platform: self.platform.clone(),
            blobs: self.view.blobs().map(|blob| (blob.digest, blob.size)).collect(),
            subject: self.view.subject.as_ref().map(|subject| subject.digest),
            tag,
        }
    }
}

/// What is wanted within a child: in an index for a platform that is wanted, everything is.
fn within(child: &platform::Child<'_>, filter: &Filter) -> Filter {
    let platform = child.descriptor.platform.as_ref().filter(|platform| !platform.is_unknown());
    match child.role {
        platform::Role::Image | platform::Role::Index if platform.is_some() => Filter::ALL,
        _ => filter.clone(),
    }
}
