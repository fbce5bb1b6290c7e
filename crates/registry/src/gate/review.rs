//! Judging again what is here, when the policy has changed.

use std::time::Duration;

use deltaport_oci::{Digest, Reference, RepositoryName};
use tokio_util::sync::CancellationToken;

use super::judge::Case;
use super::{Court, Reach, Verdict};
use crate::fill::Failure;
use crate::{Registry, Result};

/// How often it is looked whether the policy has changed.
const LOOK: Duration = Duration::from_secs(1);
/// What the lease is called of who judges.
const LEASE: &str = "review";
/// How many names are read at once.
const PAGE: usize = 256;

impl Registry {
    /// Judges everything that has a tag again after each change of the policy, one manifest at a time and without asking
    /// any upstream, until `stop`. What is asked for meanwhile is judged first. Of several replicas one does so at a time;
    /// the next finds the verdicts of the last.
    pub async fn review(&self, stop: CancellationToken) {
        let mut reviewed = None;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let Some(court) = self.0.gate.court() else {
                reviewed = None;
                continue;
            };
            if reviewed == Some(court.trust.id) {
                continue;
            }
            match stop.run_until_cancelled(self.alone(LEASE, Box::pin(self.review_all(&court)))).await {
                Some(Ok(Some(Ok(count)))) => {
                    tracing::info!(tags = count, policy = %court.trust.id, "everything here was judged by the policy");
                    reviewed = Some(court.trust.id);
                }
                Some(Ok(None)) => {
                    let pause = tokio::time::sleep(self.options().replicas.lease);
                    stop.run_until_cancelled(pause).await;
                }
                Some(Ok(Some(Err(failure)))) => {
                    tracing::warn!(%failure, "not everything could be judged by the policy; it is tried again");
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "nothing could be judged by the policy; it is tried again");
                }
                None => return,
            }
        }
    }

    /// Judges every tag; how many there are.
    async fn review_all(&self, court: &Court) -> Result<u64, Failure> {
        let (names, mut count, mut last) = (self.store().names(), 0, None::<RepositoryName>);
        loop {
            let page = names.repositories(last.as_ref().map(RepositoryName::as_str), PAGE).await?;
            for repository in &page.items {
                count += self.review_repository(court, repository).await?;
            }
            last = page.items.last().cloned();
            if !page.more || last.is_none() {
                break;
            }
        }
        self.count_quarantined(court).await?;
        Ok(count)
    }

    async fn review_repository(&self, court: &Court, repository: &RepositoryName) -> Result<u64, Failure> {
        let source = self.0.upstreams.source(repository);
        if self.court(repository).is_none() {
            return Ok(0);
        }
        let case = Case { court, repository, source: source.as_ref(), reach: Reach::Here };
        let (names, mut count, mut last) = (self.store().names(), 0, String::new());
        while let Some(page) = names.tags(repository, Some(&last), PAGE).await? {
            for tag in &page.items {
                if let Some(stored) = names.manifest(repository, &Reference::Tag(tag.clone())).await? {
                    self.judge(case, &stored, Some(tag), 0).await?;
                    self.judge(case, &stored, None, 0).await?;
                    count += 1;
                }
            }
            match page.items.last() {
                Some(tag) if page.more => last = tag.as_str().to_owned(),
                _ => break,
            }
        }
        Ok(count)
    }

    /// Counts what is here and not served.
    pub(super) async fn count_quarantined(&self, court: &Court) -> Result<(), Failure> {
        let count = self.store().names().refused(&court.trust.id).await?;
        self.metrics().quarantined.set(i64::try_from(count).unwrap_or(i64::MAX));
        Ok(())
    }

    /// What was decided about a manifest, under each of its names.
    pub async fn verdicts(&self, repository: &RepositoryName, digest: &Digest) -> Result<Vec<Verdict>> {
        let kept = self.store().names().verdicts(repository, digest).await?;
        let policy = self.0.gate.court().map(|court| court.trust.id);
        Ok(kept.into_iter().map(|kept| Verdict::new(kept, policy.as_ref())).collect())
    }
}
