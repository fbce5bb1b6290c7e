//! Where the content of a rule comes from: an upstream, or an OCI image layout. Only questions are asked here; blobs come
//! when a step says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use deltaport_client as client;
use deltaport_client::ErrorKind;
use deltaport_oci::{Digest, Reference, Tag, media_type};

use super::Job;
use super::layout::Layout;
use crate::fill::Failure;
use crate::upstream::{Ask, Source};
use crate::{Manifest, Registry};

/// How long one question may take. Nobody waits at a connection for it, and links are slow.
const LONGEST_QUESTION: Duration = Duration::from_secs(120);

/// Where content comes from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// Another registry, through which clients pull the same.
    Upstream(Source),
    /// A directory.
    Layout(Arc<Layout>),
}

impl Origin {
    /// What it is called in sentences.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Upstream(source) => source.remote.client.host().to_owned(),
            Self::Layout(layout) => layout.to_string(),
        }
    }

    /// How many bytes it has sent since the start of the process, whoever wanted them.
    pub(super) fn received(&self) -> u64 {
        match self {
            Self::Upstream(source) => source.remote.client.received(),
            Self::Layout(layout) => layout.read(),
        }
    }
}

impl Registry {
    /// What the origin says about `reference` without sending it; `None` when it has none.
    pub(super) async fn head(&self, job: &Job, reference: &Reference) -> Result<Option<Digest>, String> {
        let source = match &job.source {
            Origin::Upstream(source) => source,
            Origin::Layout(layout) => return layout.resolve(reference).await,
        };
        let remote = &source.remote;
        source.may_ask(Ask::Head).map_err(words)?;
        let head = in_time(source, remote.client.head_manifest(&source.repository, reference)).await?;
        remote.note(Ask::Head, &head);
        match head {
            Ok(client::ManifestHead { digest: Some(digest), .. }) => Ok(Some(digest)),
            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(None),
            // Not every registry answers HEAD, or says the digest.
            Err(error) if !matches!(error.kind(), ErrorKind::Protocol(_)) => Err(error.to_string()),
            _ => Ok(self.get(job, reference).await?.map(|manifest| manifest.digest)),
        }
    }

    /// A manifest, from here or from the origin; `None` when neither has it.
    pub(super) async fn get(
        &self,
        job: &Job,
        reference: &Reference,
    ) -> Result<Option<Arc<Manifest>>, String> {
        if matches!(reference, Reference::Digest(_)) {
            let stored = self.store().names().manifest(&job.repository, reference).await;
            if let Some(stored) = stored.map_err(|error| error.to_string())? {
                return Ok(Some(stored));
            }
        }
        let source = match &job.source {
            Origin::Upstream(source) => source,
            Origin::Layout(layout) => return layout.manifest(reference).await,
        };
        let remote = &source.remote;
        source.may_ask(Ask::Manifest).map_err(words)?;
        if remote.is_exhausted() {
            return Err(words(Failure::Exhausted(remote.client.host().into())));
        }
        let fetched = in_time(source, remote.client.manifest(&source.repository, reference)).await?;
        remote.note(Ask::Manifest, &fetched);
        match fetched {
            Ok(client::Manifest { digest, media_type, bytes }) => {
                self.metrics().received(remote.client.host(), bytes.len() as u64);
                Ok(Some(Arc::new(Manifest { digest, media_type: media_type.into(), bytes })))
            }
            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Which tags the origin has.
    pub(super) async fn tags_upstream(&self, job: &Job) -> Result<BTreeSet<Tag>, String> {
        let source = match &job.source {
            Origin::Upstream(source) => source,
            Origin::Layout(layout) => return layout.tags().await,
        };
        source.may_ask(Ask::Manifest).map_err(words)?;
        let tags = in_time(source, source.remote.client.tags(&source.repository)).await?;
        Ok(tags.map_err(|error| error.to_string())?.into_iter().collect())
    }

    /// Which manifests of the origin say something about `subject`. Deltas between layers are not among them: they are a
    /// way to the image, and were taken or not.
    pub(super) async fn referrers_upstream(
        &self,
        job: &Job,
        subject: &Digest,
    ) -> Result<Vec<Digest>, String> {
        let source = match &job.source {
            Origin::Upstream(source) => source,
            Origin::Layout(layout) => return layout.referrers(subject).await,
        };
        source.may_ask(Ask::Manifest).map_err(words)?;
        let referrers = source.remote.client.referrers(&source.repository, subject, None);
        let referrers = in_time(source, referrers).await?.map_err(|error| error.to_string())?;
        let about = referrers
            .into_iter()
            .filter(|referrer| referrer.artifact_type.as_deref() != Some(media_type::DELTA_ARTIFACT));
        Ok(about.map(|referrer| referrer.digest).collect())
    }

    /// A blob that is only looked at, if it has at most `limit` bytes and the origin has it.
    pub(super) async fn small_blob(
        &self,
        job: &Job,
        digest: &Digest,
        limit: u64,
    ) -> Result<Option<Bytes>, String> {
        let source = match &job.source {
            Origin::Upstream(source) => source,
            Origin::Layout(layout) => return layout.small_blob(digest, limit).await,
        };
        let remote = &source.remote;
        source.may_ask(Ask::Blob).map_err(words)?;
        let asked = remote.client.blob(&source.repository, digest, 0, limit).await;
        remote.note(Ask::Blob, &asked);
        let (mut body, mut bytes) = (asked.map_err(|error| error.to_string())?, BytesMut::new());
        while let Some(chunk) = body.chunk().await.map_err(|error| error.to_string())? {
            bytes.extend_from_slice(&chunk);
        }
        self.metrics().received(remote.client.host(), bytes.len() as u64);
        Ok(Some(bytes.freeze()))
    }

    /// Has a blob of the origin come here; `false` when it has none.
    pub(super) async fn take_in(&self, job: &Job, digest: &Digest) -> Result<bool, String> {
        match &job.source {
            Origin::Upstream(_) => {
                let came = self.mirror_blob(&job.repository, digest, &job.terms).await;
                came.map_err(|error| crate::image::words(&error))
            }
            Origin::Layout(layout) => layout.give(self.store(), &job.repository, digest).await,
        }
    }
}

/// Waits for an answer, not forever.
async fn in_time<T>(source: &Source, answer: impl Future<Output = T>) -> Result<T, String> {
    let slow = || words(Failure::Slow(source.remote.client.host().into()));
    tokio::time::timeout(LONGEST_QUESTION, answer).await.map_err(|_| slow())
}

/// What a failure says: whoever mirrors may read the log as well.
pub(super) fn words(failure: Failure) -> String {
    failure.to_string()
}
