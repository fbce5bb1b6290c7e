//! Blobs from upstream: one transfer for all who wait, who read along while it grows.

use std::convert::Infallible;
use std::sync::Arc;

use deltaport_client::ErrorKind;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_store as store;
use tokio::sync::watch;

use super::Failure;
use super::transfer::Transfer;
use crate::flight::Flight;
use crate::pull::{Body, Filling, Progress};
use crate::upstream::{Ask, Source};
use crate::{Registry, Result};

/// How many bytes at the end of a blob are kept back until its digest is proven. Who gets a wrong blob up to there gets
/// no last byte, and knows it.
const HOLD_BACK: u64 = 64 << 10;

impl Registry {
    /// Fetches a blob that is missing here, so that it can be read while it arrives; `None` when no upstream is
    /// configured for the repository or it has none either.
    ///
    /// The transfer goes on when the caller leaves.
    pub(crate) async fn fill_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Body>> {
        let Some(source) = self.0.upstreams.source(repository) else { return Ok(None) };
        if self.is_known_absent(&source.remote, repository, digest) {
            return Ok(None);
        }
        let mut progress = match self.follow(source, repository, digest) {
            Ok(progress) => progress,
            Err(failure) => return Err(failure.into()),
        };
        let gone = || crate::Error::internal("a transfer stopped without saying why");
        let (size, end) = {
            let known = progress.wait_for(|now| now.size.is_some() || now.end.is_some()).await;
            let known = known.map_err(|_| gone())?;
            (known.size, known.end.clone())
        };
        match (end, size) {
            (Some(Ok(())), _) => Ok(self.store().blobs().open(digest).await?.map(Body::Stored)),
            (Some(Err(failure)), _) if failure.is_absence() => Ok(None),
            (Some(Err(failure)), _) => Err(failure.into()),
            (None, Some(size)) => Ok(Some(Body::Filling(Filling { size, progress }))),
            (None, None) => Err(gone()),
        }
    }

    /// The size of a blob that is missing here, without fetching it; `None` as for [`Registry::fill_blob`].
    pub(crate) async fn size_upstream(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>> {
        let Some(source) = self.0.upstreams.source(repository) else { return Ok(None) };
        if self.is_known_absent(&source.remote, repository, digest) {
            return Ok(None);
        }
        source.may_ask(Ask::Blob)?;
        let referenced = self.store().names().referenced(repository, digest).await?;
        let head = source.remote.client.head_blob(&source.repository, digest).await;
        source.remote.note(Ask::Blob, &head);
        let head = head.map_err(Failure::Upstream);
        self.0.fills.answers.note(&source.remote, repository, &Reference::Digest(*digest), &head);
        let head = match head {
            Ok(size) => size,
            Err(failure) if failure.is_absence() => return Ok(None),
            Err(failure) => return Err(failure.into()),
        };
        Ok(head.or(referenced.map(|referenced| referenced.size)))
    }

    /// Joins the transfer of a blob, or starts it.
    fn follow(
        &self,
        source: Source,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<watch::Receiver<Progress>, Failure> {
        let (sender, receiver) = watch::channel(Progress::default());
        // By repository too: what one upstream sends must not be read by those who may only ask another.
        match self.0.fills.blobs.join((repository.clone(), *digest), || receiver) {
            Flight::Joined(progress) => Ok(progress),
            Flight::Full => Err(Failure::Busy),
            Flight::Started(progress, guard) => {
                let (registry, repository, digest) = (self.clone(), repository.clone(), *digest);
                tokio::spawn(async move {
                    let fill = Fill { registry, source, repository, digest, progress: sender };
                    fill.run().await;
                    drop(guard);
                });
                Ok(progress)
            }
        }
    }
}

/// A blob that is being fetched.
pub(super) struct Fill {
    pub(super) registry: Registry,
    pub(super) source: Source,
    /// Its local repository.
    pub(super) repository: RepositoryName,
    pub(super) digest: Digest,
    pub(super) progress: watch::Sender<Progress>,
}

impl Fill {
    async fn run(self) {
        let (host, metrics) = (self.source.remote.client.host(), self.registry.metrics());
        let end = self.fetch().await;
        match &end {
            Ok(()) => metrics.filled(host),
            Err(failure) if failure.is_absence() => {}
            Err(failure) => {
                tracing::warn!(repository = %self.repository, digest = %self.digest, %failure, "a blob did not arrive");
                metrics.fill_failed(host);
            }
        }
        let reference = Reference::Digest(self.digest);
        self.registry.0.fills.answers.note(&self.source.remote, &self.repository, &reference, &end);
        self.progress.send_modify(|progress| progress.end = Some(end));
    }

    async fn fetch(&self) -> Result<(), Failure> {
        let names = self.registry.store().names();
        // It may have arrived between the caller's look and this one.
        if names.blob(&self.repository, &self.digest).await?.is_some()
            && self.registry.store().blobs().open(&self.digest).await?.is_some()
        {
            return Ok(());
        }
        self.source.may_ask(Ask::Blob)?;
        if self.link().await? {
            return Ok(());
        }
        let fetching = Arc::clone(&self.registry.0.fills.fetching);
        let _permit = fetching.acquire_owned().await.map_err(|_| Failure::Busy)?;
        let referenced = names.referenced(&self.repository, &self.digest).await?;
        let size = referenced.as_ref().map(|referenced| referenced.size);
        if let Some(size) = size.filter(|_| referenced.is_some_and(|referenced| referenced.layer))
            && self.by_delta(size).await
        {
            return Ok(());
        }
        self.whole(size).await
    }

    /// Takes a blob that another repository holds, if the upstream has it in this one too.
    async fn link(&self) -> Result<bool, Failure> {
        let store = self.registry.store();
        let Some(blob) = store.blobs().open(&self.digest).await? else { return Ok(false) };
        let remote = &self.source.remote;
        let head = remote.client.head_blob(&self.source.repository, &self.digest).await;
        remote.note(Ask::Blob, &head);
        match head {
            Ok(_) => {
                let linked = store.names().link_blob(&self.repository, &self.digest).await?;
                if linked {
                    self.registry.metrics().deduplicated(remote.client.host(), blob.size());
                }
                Ok(linked)
            }
            // Not every registry answers HEAD.
            Err(error) if matches!(error.kind(), ErrorKind::Protocol(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Fetches the whole blob and lets others read along.
    async fn whole(&self, size: Option<u64>) -> Result<(), Failure> {
        let options = self.registry.options();
        let store = self.registry.store();
        let mut staging = store.blobs().stage(self.digest.algorithm()).await?;
        let (arrived, reader) = (staging.progress(), staging.reader()?);
        let transfer = Transfer {
            source: &self.source,
            digest: &self.digest,
            size,
            limit: size.unwrap_or(options.limits.blob_bytes),
            patience: options.fill.patience,
            committed: self.progress.borrow().size.is_some(),
            metrics: self.registry.metrics(),
        };
        let begun = |size| {
            // Of no bytes none can be held back: whoever were told of them would have the whole, wrong or right.
            if size == 0 {
                return;
            }
            self.announce(|progress| {
                progress.size = Some(size);
                progress.reader = Some(reader.clone());
            });
        };
        tokio::select! {
            fetched = transfer.run(&mut staging, begun) => fetched?,
            never = self.follow_staging(arrived) => match never {},
        };
        let size = store.commit(staging, &self.digest, &self.repository).await?;
        self.proven(reader, size);
        Ok(())
    }

    /// Announces what arrives, but for the end.
    async fn follow_staging(&self, mut arrived: watch::Receiver<u64>) -> Infallible {
        while arrived.changed().await.is_ok() {
            let bytes = *arrived.borrow_and_update();
            self.announce(|progress| {
                let most = progress.size.unwrap_or(0).saturating_sub(HOLD_BACK);
                progress.readable = progress.readable.max(bytes.min(most));
            });
        }
        std::future::pending().await
    }

    /// Lets go of everything: `reader` holds the blob.
    pub(super) fn proven(&self, reader: store::Blob, size: u64) {
        self.announce(|progress| {
            progress.size = Some(size);
            progress.reader = Some(reader);
            progress.readable = size;
        });
    }

    pub(super) fn announce(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }
}
