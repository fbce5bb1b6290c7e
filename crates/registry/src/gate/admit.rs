//! What callers get: the only place that decides it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use deltaport_oci::{Digest, Reference, RepositoryName, Tag};
use deltaport_store as store;
use deltaport_trust::signatures::{Demand, Image};
use deltaport_trust::{Action, Caller};

use super::judge::Case;
use super::{Court, Judged, Reach, Refusal, evidence};
use crate::fill::Failure;
use crate::upstream::Source;
use crate::{Error, Manifest, Registry, Result};

/// How many manifests are looked at that refer to a blob, the most recently stored first.
const MAX_HOLDERS: usize = 64;
/// How long it is remembered that a blob may be served.
const BLOB: Duration = Duration::from_secs(600);

impl Registry {
    /// Fails with [`Error::Refused`] unless the policy accepts a manifest under the name that it is asked for by.
    pub(crate) async fn admit(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        manifest: &Manifest,
    ) -> Result<()> {
        let Some((court, source)) = self.court(repository) else { return Ok(()) };
        let reach = source.as_ref().map_or(Reach::Here, Reach::Try);
        let case = Case { court: &court, repository, source: source.as_ref(), reach };
        let tag = tag_of(reference);
        let judged = self.judge(case, manifest, tag, 0).await?;
        match judged.accepted {
            true => Ok(()),
            false => Err(self.refuse(case, &manifest.digest, tag, &judged).into()),
        }
    }

    /// The same for a manifest that an upstream has sent, before anything is stored of it.
    pub(crate) async fn admit_arrival(
        &self,
        source: &Source,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), Failure> {
        let Some((court, _)) = self.court(repository) else { return Ok(()) };
        let case = Case { court: &court, repository, source: Some(source), reach: Reach::Must(source) };
        let judged = self.judge(case, manifest, tag, 0).await?;
        match judged.accepted {
            true => Ok(()),
            false => Err(self.refuse(case, &manifest.digest, tag, &judged)),
        }
    }

    /// Keeps the verdict on a manifest that has been stored since it was given.
    pub(crate) async fn keep_arrival(
        &self,
        source: &Source,
        repository: &RepositoryName,
        digest: &Digest,
        tag: Option<&Tag>,
    ) -> Result<(), Failure> {
        let Some((court, _)) = self.court(repository) else { return Ok(()) };
        let known = court.known.recall(&(repository.clone(), *digest, tag.cloned()));
        let Some(judged) = known.filter(|known| !known.is_evidence()) else { return Ok(()) };
        let case = Case { court: &court, repository, source: Some(source), reach: Reach::Here };
        self.keep_verdict(case, digest, tag, &judged).await
    }

    /// Whether a caller sees what waits for its signature: whoever may push to a repository of this registry's own must be
    /// able to read what is to be signed.
    pub(crate) fn may_sign(&self, caller: &Caller, repository: &RepositoryName) -> bool {
        self.0.upstreams.mirrored(repository).is_none() && self.may(caller, Action::Push, repository)
    }

    /// Fails with [`Error::Refused`] unless an accepted manifest of the repository refers to a blob, or the policy accepts
    /// everything in the repository.
    pub(crate) async fn admit_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<()> {
        let Some((court, source)) = self.court(repository) else { return Ok(()) };
        let key = (repository.clone(), *digest);
        if court.blobs.recall(&key).is_some() {
            return Ok(());
        }
        let case = Case { court: &court, repository, source: source.as_ref(), reach: Reach::Here };
        if self.is_open(&court, source.as_ref(), repository, digest) || self.is_part(case, digest).await? {
            court.blobs.remember(key, (), Instant::now() + BLOB);
            return Ok(());
        }
        for (base, target) in self.store().names().delta_between(repository, digest).await? {
            if self.is_part(case, &base).await? && self.is_part(case, &target).await? {
                return Ok(());
            }
        }
        self.metrics().denied.inc();
        Err(Error::Refused(Arc::new(Refusal {
            name: self.called(&court, source.as_ref(), repository, None),
            digest: *digest,
            blob: true,
            pushed: source.is_none(),
            scope: String::new(),
            code: "blob".to_owned(),
            why: "no manifest that the policy accepts refers to it".to_owned(),
        })))
    }

    /// Whether the policy accepts everything in a repository.
    fn is_open(
        &self,
        court: &Court,
        source: Option<&Source>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> bool {
        let Ok(name) = court.name(source, repository, None) else { return false };
        let demand = court.trust.policy.demand(Image { name: &name, digest: *digest, within: &[] });
        matches!(demand, Demand::Nothing(verdict) if verdict.is_accepted())
    }

    /// Whether an accepted manifest of the repository refers to a blob.
    async fn is_part(&self, case: Case<'_>, digest: &Digest) -> Result<bool> {
        let names = self.store().names();
        for holder in names.images_with(case.repository, digest, MAX_HOLDERS).await? {
            let Some(stored) = names.manifest(case.repository, &Reference::Digest(holder)).await? else {
                continue;
            };
            if !self.judge(case, &stored, None, 0).await?.accepted {
                continue;
            }
            let is_evidence =
                self.view_of(&stored).is_some_and(|view| evidence::is_evidence(&stored.bytes, &view));
            let size = names.blob(case.repository, digest).await?;
            // What claims to be a signature must not lead to the layers of something else.
            if !is_evidence || size.is_none_or(|size| size <= evidence::largest_blob()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Judges what was pushed, so that the verdict is there before anybody asks; with a signature, what it is about.
    pub(crate) async fn judge_push(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        tags: &[Tag],
        subject: Option<&Digest>,
    ) {
        let Some((court, source)) = self.court(repository) else { return };
        let case = Case { court: &court, repository, source: source.as_ref(), reach: Reach::Here };
        let mut about: Vec<Digest> = tags.iter().filter_map(signed_by_tag).collect();
        about.extend(subject);
        let judged = async {
            self.judge_stored(case, digest).await?;
            for image in &about {
                self.judge_stored(case, image).await?;
            }
            self.count_quarantined(&court).await
        };
        if let Err(failure) = judged.await {
            // Whoever asks for it has it judged again.
            tracing::warn!(%repository, %digest, %failure, "what was pushed could not be judged");
        }
    }

    /// Judges a manifest that is here under each of its names.
    pub(super) async fn judge_stored(&self, case: Case<'_>, digest: &Digest) -> Result<(), Failure> {
        let (names, repository) = (self.store().names(), case.repository);
        let Some(stored) = names.manifest(repository, &Reference::Digest(*digest)).await? else {
            return Ok(());
        };
        for tag in names.tags_of(repository, digest).await? {
            self.judge(case, &stored, Some(&tag), 0).await?;
        }
        self.judge(case, &stored, None, 0).await?;
        Ok(())
    }

    /// Writes a verdict down beside its manifest, if that is here.
    pub(super) async fn keep_verdict(
        &self,
        case: Case<'_>,
        digest: &Digest,
        tag: Option<&Tag>,
        judged: &Judged,
    ) -> Result<(), Failure> {
        let verdict = store::Verdict {
            tag: tag.cloned(),
            policy: case.court.trust.id,
            at: SystemTime::now(),
            accepted: judged.accepted,
            text: judged.to_text(),
        };
        self.store().names().put_verdict(case.repository, digest, verdict).await?;
        Ok(())
    }

    /// Counts and logs a verdict that was given just now.
    pub(super) fn tell(&self, case: Case<'_>, digest: &Digest, tag: Option<&Tag>, judged: &Judged) {
        let name = self.called(case.court, case.source, case.repository, tag);
        if judged.accepted {
            self.metrics().accepted.inc();
            tracing::debug!(name, %digest, scope = judged.scope(), "accepted");
        } else {
            self.metrics().refused(judged.code());
            tracing::warn!(name, %digest, scope = judged.scope(), reason = judged.code(), why = judged.why(), "refused");
        }
    }

    fn refuse(&self, case: Case<'_>, digest: &Digest, tag: Option<&Tag>, judged: &Judged) -> Failure {
        self.metrics().denied.inc();
        Failure::Refused(Arc::new(Refusal {
            name: self.called(case.court, case.source, case.repository, tag),
            digest: *digest,
            blob: false,
            pushed: case.source.is_none(),
            scope: judged.scope().to_owned(),
            code: judged.code().to_owned(),
            why: judged.why().to_owned(),
        }))
    }

    /// What something is called where it comes from, for people.
    fn called(
        &self,
        court: &Court,
        source: Option<&Source>,
        repository: &RepositoryName,
        tag: Option<&Tag>,
    ) -> String {
        court.name(source, repository, tag).map_or_else(|_| repository.to_string(), |name| name.to_string())
    }
}

fn tag_of(reference: &Reference) -> Option<&Tag> {
    match reference {
        Reference::Tag(tag) => Some(tag),
        Reference::Digest(_) => None,
    }
}

/// The digest that signatures under a tag are about.
fn signed_by_tag(tag: &Tag) -> Option<Digest> {
    let (algorithm, hex) = tag.as_str().strip_suffix(".sig")?.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}
