//! Who is judged, and how wholes and parts depend on each other.
//!
//! A manifest that is asked for by tag is judged under that tag. One that is asked for by digest is served when it is
//! accepted by digest, or under a tag that it has, or when an index that has it is accepted for a signature of its own:
//! clients go from a tag to a digest, and from an index to an image, and expect to get what the first answer named. An index
//! that is not signed is accepted when all of its images are that are wanted here. What says something about an accepted
//! image without being one itself is served by its digest. Signatures are never judged: they are what others are judged by.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use deltaport_oci::manifest::View;
use deltaport_oci::platform::{self, Filter};
use deltaport_oci::{Digest, Reference, RepositoryName, Tag, media_type};
use deltaport_trust::signatures::{self as trust, Demand, Image};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::judged::Because;
use super::{Court, Judged, evidence};
use crate::fill::Failure;
use crate::upstream::Source;
use crate::{Manifest, Registry};

/// How far away from a manifest a signature may be to count: an index that has it, and an index that has that.
const MAX_DEPTH: u8 = 2;
/// How many indexes with an image, and how many of its tags, are looked at.
const MAX_AROUND: usize = 16;
/// How many images of an index that is not signed are looked at. An index with more has to be signed itself.
const MAX_PARTS: usize = 64;
/// How long a verdict is remembered that accepts. It counts for as long as the policy does; what certificates signed is
/// looked at again.
const ACCEPTED: Duration = Duration::from_secs(3600);
/// How long a refusal is remembered of what an upstream has, at least.
const REFUSED: Duration = Duration::from_secs(1);

/// Where signatures are looked for beside those that are here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reach<'a> {
    /// Nowhere else.
    Here,
    /// At the upstream, if it can be asked.
    Try(&'a Source),
    /// At the upstream; there is no verdict when it cannot be asked.
    Must(&'a Source),
}

impl<'a> Reach<'a> {
    fn source(self) -> Option<&'a Source> {
        match self {
            Self::Here => None,
            Self::Try(source) | Self::Must(source) => Some(source),
        }
    }
}

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) court: &'a Court,
    pub(super) repository: &'a RepositoryName,
    /// What the repository stands for; also where nothing may be asked of it.
    pub(super) source: Option<&'a Source>,
    pub(super) reach: Reach<'a>,
}

impl Registry {
    /// The verdict on a manifest under a tag or by its digest: the one that is known, or else a new one.
    pub(super) fn judge<'a>(
        &'a self,
        case: Case<'a>,
        manifest: &'a Manifest,
        tag: Option<&'a Tag>,
        depth: u8,
    ) -> BoxFuture<'a, Result<Arc<Judged>, Failure>> {
        async move {
            let Case { court, repository, source, .. } = case;
            let key = (repository.clone(), manifest.digest, tag.cloned());
            if let Some(known) = court.known.recall(&key) {
                return Ok(known);
            }
            let kept = self.store().names().verdicts(repository, &manifest.digest).await?;
            let kept = kept.into_iter().find(|kept| kept.tag.as_ref() == tag);
            let now = SystemTime::now();
            let believed = kept.as_ref().filter(|kept| kept.policy == court.trust.id);
            let judged = match believed.and_then(|kept| Judged::kept(kept, now)) {
                Some(judged) => Arc::new(judged),
                None => {
                    let judged = Arc::new(self.try_case(case, manifest, tag, depth).await?);
                    if !judged.is_evidence() {
                        self.tell(case, &manifest.digest, tag, &judged);
                        if !believed.is_some_and(|kept| judged.is(kept)) {
                            self.keep_verdict(case, &manifest.digest, tag, &judged).await?;
                        }
                    }
                    judged
                }
            };
            // What was pushed is accepted the moment that its signature comes.
            let life = match (judged.accepted, source) {
                (true, _) => Some(ACCEPTED),
                (false, Some(source)) if depth == 0 && !matches!(case.reach, Reach::Here) => {
                    Some(source.remote.policy.negative_age.clamp(REFUSED, ACCEPTED))
                }
                (false, _) => None,
            };
            if let Some(life) = life {
                court.known.remember(key, Arc::clone(&judged), Instant::now() + life);
            }
            Ok(judged)
        }
        .boxed()
    }

    async fn try_case(
        &self,
        case: Case<'_>,
        manifest: &Manifest,
        tag: Option<&Tag>,
        depth: u8,
    ) -> Result<Judged, Failure> {
        let view = self.view_of(manifest);
        if view.as_ref().is_some_and(|view| evidence::is_evidence(&manifest.bytes, view)) {
            return Ok(Judged::evidence());
        }
        let own = self.judge_alone(case, &manifest.digest, tag).await?;
        if own.accepted || own.is_meant() || depth >= MAX_DEPTH {
            return Ok(own);
        }
        if tag.is_none()
            && let Some(judged) = self.judge_around(case, manifest, view.as_ref(), depth).await?
        {
            return Ok(judged);
        }
        match view.filter(View::is_index) {
            Some(view) => Ok(self.judge_parts(case, &view, tag).await?.unwrap_or(own)),
            None => Ok(own),
        }
    }

    /// By its own signatures.
    async fn judge_alone(
        &self,
        case: Case<'_>,
        digest: &Digest,
        tag: Option<&Tag>,
    ) -> Result<Judged, Failure> {
        let Case { court, repository, source, reach } = case;
        // Repositories have longer names here than images may have elsewhere.
        let Ok(name) = court.name(source, repository, tag) else { return Ok(Judged::nameless()) };
        let (policy, now) = (&court.trust.policy, SystemTime::now());
        let image = Image { name: &name, digest: *digest, within: &[] };
        if let Demand::Nothing(verdict) = policy.demand(image) {
            return Ok(Judged::new(&verdict));
        }
        let mut verdict = self.verdict_here(policy, image, repository, now).await?;
        let Some(source) = reach.source() else { return Ok(Judged::new(&verdict)) };
        for referrers in [false, true] {
            if verdict.is_accepted() {
                break;
            }
            let fetched = match referrers {
                false => self.fetch_signatures(source, repository, digest).await,
                true => self.fetch_referrers(source, repository, digest).await,
            };
            match (fetched, reach) {
                (Ok(()), _) => verdict = self.verdict_here(policy, image, repository, now).await?,
                (Err(failure), Reach::Try(_)) => {
                    tracing::info!(%repository, %digest, %failure, "signatures cannot be looked for at the upstream");
                    break;
                }
                (Err(failure), _) => return Err(failure),
            }
        }
        Ok(Judged::new(&verdict))
    }

    async fn verdict_here(
        &self,
        policy: &trust::Policy,
        image: Image<'_>,
        repository: &RepositoryName,
        now: SystemTime,
    ) -> Result<trust::Verdict, Failure> {
        let documents = self.signatures_here(repository, &image.digest).await?;
        Ok(policy.judge(image, &documents, now))
    }

    /// By what leads to it: its tags, the indexes that have it, the image that it is about.
    async fn judge_around(
        &self,
        case: Case<'_>,
        manifest: &Manifest,
        view: Option<&View>,
        depth: u8,
    ) -> Result<Option<Judged>, Failure> {
        let (names, repository) = (self.store().names(), case.repository);
        for tag in names.tags_of(repository, &manifest.digest).await?.iter().take(MAX_AROUND) {
            let judged = self.judge(case, manifest, Some(tag), depth + 1).await?;
            if judged.accepted {
                return Ok(Some(judged.because(Because::Tag(tag))));
            }
        }
        // What leads here was fetched with its signatures.
        let here = Case { reach: Reach::Here, ..case };
        for index in names.indexes_with(repository, &manifest.digest, MAX_AROUND).await? {
            let Some(stored) = names.manifest(repository, &Reference::Digest(index)).await? else { continue };
            let judged = self.judge(here, &stored, None, depth + 1).await?;
            if judged.accepted && judged.whole {
                return Ok(Some(judged.because(Because::Index(&index))));
            }
            if judged.accepted {
                // The index was accepted for its images; this may be one of them, under the index's name.
                for tag in names.tags_of(repository, &index).await?.iter().take(MAX_AROUND) {
                    let judged = self.judge_alone(here, &manifest.digest, Some(tag)).await?;
                    if judged.accepted {
                        return Ok(Some(judged.because(Because::Index(&index))));
                    }
                }
            }
        }
        let about = view.filter(|view| is_artifact(view)).and_then(|view| view.subject.as_ref());
        if let Some(about) = about
            && let Some(stored) = names.manifest(repository, &Reference::Digest(about.digest)).await?
        {
            let judged = self.judge(here, &stored, None, depth + 1).await?;
            if judged.accepted {
                return Ok(Some(judged.because(Because::About(&about.digest))));
            }
        }
        Ok(None)
    }

    /// By the images that are in it: each of those that are wanted, under the name of the whole.
    async fn judge_parts(
        &self,
        case: Case<'_>,
        view: &View,
        tag: Option<&Tag>,
    ) -> Result<Option<Judged>, Failure> {
        static EVERYTHING: Filter = Filter::ALL;
        let filter = case.source.map_or(&EVERYTHING, |source| &source.remote.platforms);
        let Ok(selection) = filter.select(view) else { return Ok(None) };
        let images = selection.kept().filter(|child| matches!(child.role, platform::Role::Image));
        let mut images: Vec<Digest> = images.map(|child| child.descriptor.digest).collect();
        if case.source.is_none() {
            // Of what is pushed in part, the part counts that is here.
            let absent = self.store().names().absent(case.repository, images.clone()).await?;
            images.retain(|image| !absent.contains(image));
        }
        if images.is_empty() || images.len() > MAX_PARTS {
            return Ok(None);
        }
        let mut parts = Vec::with_capacity(images.len());
        for image in images {
            let judged = self.judge_alone(case, &image, tag).await?;
            if !judged.accepted {
                return Ok(None);
            }
            parts.push(judged);
        }
        Ok(Judged::by_parts(&parts))
    }
}

/// Whether it says something about an image without being one that could be run.
fn is_artifact(view: &View) -> bool {
    let config = view.config.as_ref().map(|config| config.media_type.as_str());
    !view.is_index() && !matches!(config, None | Some(media_type::OCI_CONFIG | media_type::DOCKER_CONFIG))
}
