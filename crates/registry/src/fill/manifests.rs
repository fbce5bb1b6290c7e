//! Manifests from upstream: looked at with HEAD, and fetched when they are not here yet; at a hub in one request.

use std::sync::Arc;
use std::time::Duration;

use deltaport_client as client;
use deltaport_client::ErrorKind;
use deltaport_oci::manifest::View;
use deltaport_oci::{Reference, RepositoryName, Tag};
use deltaport_store as store;
use tokio::sync::watch;

use super::{Failure, before};
use crate::flight::{Flight, Guard};
use crate::upstream::{Ask, Deltas, Source};
use crate::{Manifest, Registry, Result};

/// How long one look at an upstream may take altogether. Clients wait for less; what comes later is for the next.
const LONGEST_LOOK: Duration = Duration::from_secs(120);

/// What a look at an upstream came to, once it has.
pub(super) type Looked = Option<Result<Arc<Manifest>, Failure>>;

/// A manifest that somebody wants.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) source: Source,
    /// Its local repository.
    pub(super) repository: RepositoryName,
    pub(super) reference: Reference,
    /// What is here of that name.
    pub(super) stored: Option<Arc<Manifest>>,
    /// Whether that may be served when the upstream does not answer.
    pub(super) spare: bool,
}

impl Registry {
    /// Looks, or waits for somebody who is looking already. A look goes on when nobody waits for it any more: on a slow
    /// link it may be the only way to ever learn of a new manifest.
    pub(super) async fn look_once(&self, wanted: &Wanted) -> Result<Arc<Manifest>, Failure> {
        let (sender, receiver) = watch::channel(None);
        let key = (wanted.repository.clone(), wanted.reference.clone());
        let mut looked = match self.0.fills.manifests.join(key, || receiver) {
            Flight::Joined(looked) => looked,
            Flight::Started(looked, guard) => {
                tokio::spawn(self.clone().look_to_the_end(wanted.clone(), sender, guard));
                looked
            }
            Flight::Full => return Err(Failure::Busy),
        };
        let found = looked.wait_for(Option::is_some).await;
        found.ok().and_then(|found| found.clone()).unwrap_or(Err(Failure::Lost))
    }

    async fn look_to_the_end(
        self,
        wanted: Wanted,
        looked: watch::Sender<Looked>,
        guard: Guard<(RepositoryName, Reference), watch::Receiver<Looked>>,
    ) {
        let remote = &wanted.source.remote;
        let found = match tokio::time::timeout(LONGEST_LOOK, Box::pin(self.look(&wanted))).await {
            Ok(found) => found,
            Err(_) => Err(Failure::Slow(remote.client.host().into())),
        };
        self.0.fills.answers.note(remote, &wanted.repository, &wanted.reference, &found);
        self.note_gone(&wanted, &found).await;
        looked.send_replace(Some(found));
        drop(guard);
    }

    /// Remembers what the upstream does not have (any more), so that it can be told why an index lacks it.
    async fn note_gone(&self, wanted: &Wanted, found: &Result<Arc<Manifest>, Failure>) {
        let (Reference::Digest(digest), Err(failure)) = (&wanted.reference, found) else { return };
        if !failure.is_gone() {
            return;
        }
        let names = self.store().names();
        if let Err(error) = names.note_absence(&wanted.repository, digest, store::Absence::Upstream).await {
            tracing::warn!(repository = %wanted.repository, %digest, %error, "cannot note that upstream lacks a manifest");
        }
    }

    async fn look(&self, wanted: &Wanted) -> Result<Arc<Manifest>, Failure> {
        let Wanted { source, repository, reference, stored, .. } = wanted;
        let Reference::Tag(tag) = reference else { return self.fetch(wanted).await };
        // HEAD is for what registries count. A hub does not, and over a slow link one question instead of two is felt.
        if source.remote.client.is_known_hub() {
            return Box::pin(before(self.fetch(wanted), || self.warm_up(source))).await;
        }
        source.may_ask(Ask::Head)?;
        let head = source.remote.client.head_manifest(&source.repository, reference);
        let head = before(head, || self.warm_up(source)).await;
        source.remote.note(Ask::Head, &head);
        let digest = match head {
            Ok(head) => head.digest,
            // Not every registry answers HEAD.
            Err(error) if matches!(error.kind(), ErrorKind::Protocol(_)) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(digest) = digest {
            if let Some(stored) = stored.as_ref().filter(|stored| stored.digest == digest) {
                return Ok(Arc::clone(stored));
            }
            let known = self.store().names().manifest(repository, &Reference::Digest(digest)).await?;
            if let Some(known) = known {
                self.keep_manifest(wanted, &known, Some(tag)).await?;
                return Ok(known);
            }
        }
        self.fetch(wanted).await
    }

    /// Makes an upstream that may have deltas ready for what comes after the manifest, meanwhile.
    fn warm_up(&self, source: &Source) {
        let remote = &source.remote;
        if remote.deltas != Deltas::Never && !remote.is_paused() {
            let client = remote.client.clone();
            tokio::spawn(async move { client.prepare().await });
        }
    }

    /// Fetches a manifest, unless it is the one that is stored, and stores it.
    async fn fetch(&self, wanted: &Wanted) -> Result<Arc<Manifest>, Failure> {
        let Wanted { source, reference, stored, spare, .. } = wanted;
        source.may_ask(Ask::Manifest)?;
        if *spare && source.remote.is_exhausted() {
            return Err(Failure::Exhausted(source.remote.client.host().into()));
        }
        let client = &source.remote.client;
        let fetched = match stored {
            Some(stored) => client.manifest_unless(&source.repository, reference, &stored.digest).await,
            None => client.manifest(&source.repository, reference).await.map(Some),
        };
        source.remote.note(Ask::Manifest, &fetched);
        let client::Manifest { digest, media_type, bytes } = match (fetched?, stored) {
            (Some(fetched), _) => fetched,
            (None, Some(stored)) => return Ok(Arc::clone(stored)),
            // It was asked for without a condition.
            (None, None) => return Err(Failure::Lost),
        };
        self.metrics().received(source.remote.client.host(), bytes.len() as u64);
        let manifest = Arc::new(Manifest { digest, media_type: media_type.into(), bytes });
        let tag = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        self.keep_manifest(wanted, &manifest, tag).await?;
        Ok(manifest)
    }

    /// Stores a manifest, whether what it refers to is here or not, and points a tag at it; unless the policy refuses it.
    async fn keep_manifest(
        &self,
        wanted: &Wanted,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), Failure> {
        let limits = self.manifest_limits();
        let view = View::parse(&manifest.media_type, &manifest.bytes, limits).map_err(|error| {
            let upstream = wanted.source.remote.client.host().into();
            Failure::Manifest { upstream, error: Arc::new(error) }
        })?;
        if view.is_index()
            && let Err(nothing) = wanted.source.remote.platforms.select(&view)
        {
            // Its clients get the index, and not found for everything in it.
            tracing::warn!(repository = %wanted.repository, reference = %wanted.reference, %nothing, "nothing of an index is wanted of its upstream");
        }
        let (source, repository) = (&wanted.source, &wanted.repository);
        self.admit_arrival(source, repository, manifest, tag).await?;
        let new = store::NewManifest {
            digest: manifest.digest,
            bytes: manifest.bytes.clone(),
            view,
            tags: tag.into_iter().cloned().collect(),
            required: Vec::new(),
        };
        self.store().names().put_fetched(repository, new).await?;
        self.keep_arrival(source, repository, &manifest.digest, tag).await
    }
}
