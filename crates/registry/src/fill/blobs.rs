//! Blobs from upstream: one transfer for all who wait, who read along while it grows.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use deltaport_client::ErrorKind;
use deltaport_oci::wire::ByteRange;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_store as store;
use deltaport_store::Partial;
use futures_util::StreamExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Failure;
use super::arrival::Arrival;
use super::link::{Claim, Class, Terms};
use super::pace::Pace;
use super::questions::Intention;
use super::transfer::Transfer;
use crate::flight::Flight;
use crate::pull::{Body, Filling, Progress};
use crate::upstream::{Ask, Deltas, Source};
use crate::{Registry, Result};

/// How many bytes at the end of a blob are kept back until its digest is proven. Who gets a wrong blob up to there gets
/// no last byte, and knows it.
const HOLD_BACK: u64 = 64 << 10;
/// How often a blob is fetched that has made room for others before it could be opened.
const ATTEMPTS: usize = 3;
/// How long an upstream may take to answer before what has been kept of an earlier transfer is served. It is asked first:
/// when it says that it has nothing (any more), clients are told, and can ask elsewhere.
const HEAD_START: Duration = Duration::from_secs(1);

/// What those have who wait for a blob that is being fetched: how it goes, and its claim to the link.
pub(super) type Following = (watch::Receiver<Progress>, Claim);

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
        let gone = || crate::Error::internal("a transfer stopped without saying why");
        for _ in 0..ATTEMPTS {
            let mut progress = self.follow(
                source.clone(),
                repository,
                digest,
                Claim::new(repository.clone(), Class::Client),
            )?;
            let (size, end) = {
                let known = progress.wait_for(|now| now.size.is_some() || now.end.is_some()).await;
                let known = known.map_err(|_| gone())?;
                (known.size, known.end.clone())
            };
            match (end, size) {
                (Some(Ok(())), _) => {
                    if let Some(blob) = self.store().blobs().open(digest).await? {
                        return Ok(Some(Body::Stored(blob)));
                    }
                }
                (Some(Err(failure)), _) if failure.is_absence() => return Ok(None),
                (Some(Err(failure)), _) => return Err(failure.into()),
                (None, Some(size)) => return Ok(Some(Body::Filling(Filling { size, progress }))),
                (None, None) => return Err(gone()),
            }
        }
        Err(Failure::Busy.into())
    }

    /// Fetches a blob that is missing here, behind what clients wait for; returns when it is here. `false` as
    /// [`Registry::fill_blob`] says `None`.
    pub(crate) async fn bring_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
        self.bring(repository, digest, Claim::new(repository.clone(), Class::Ahead)).await
    }

    /// The same for a mirror rule, behind everything else and on its terms.
    pub(crate) async fn mirror_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        terms: &Arc<Terms>,
    ) -> Result<bool> {
        terms.gate.opened().await;
        self.bring(repository, digest, Claim::for_mirror(repository.clone(), Arc::clone(terms))).await
    }

    async fn bring(&self, repository: &RepositoryName, digest: &Digest, claim: Claim) -> Result<bool> {
        let Some(source) = self.0.upstreams.source(repository) else { return Ok(false) };
        if self.is_known_absent(&source.remote, repository, digest) {
            return Ok(false);
        }
        let mut progress = self.follow(source, repository, digest, claim)?;
        let end = progress.wait_for(|now| now.end.is_some()).await.ok().and_then(|now| now.end.clone());
        match end {
            Some(Ok(())) => Ok(true),
            Some(Err(failure)) if failure.is_absence() => Ok(false),
            Some(Err(failure)) => Err(failure.into()),
            None => Err(crate::Error::internal("a transfer stopped without saying why")),
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

    /// Joins the transfer of a blob, or starts it; either way it is at least as urgent as `claim` from now on.
    pub(super) fn follow(
        &self,
        source: Source,
        repository: &RepositoryName,
        digest: &Digest,
        claim: Claim,
    ) -> Result<watch::Receiver<Progress>, Failure> {
        let (sender, receiver) = watch::channel(Progress::default());
        // By repository too: what one upstream sends must not be read by those who may only ask another.
        match self.0.fills.blobs.join((repository.clone(), *digest), || (receiver, claim.clone())) {
            Flight::Joined((progress, under_way)) => {
                under_way.follow(&claim);
                Ok(progress)
            }
            Flight::Full => Err(Failure::Busy),
            Flight::Started((progress, _), guard) => {
                let (registry, repository, digest) = (self.clone(), repository.clone(), *digest);
                let began = Instant::now();
                let asks = source.remote.deltas != Deltas::Never && source.remote.client.is_known_hub();
                let intention = asks.then(|| self.0.fills.questions.intend(&repository));
                let intention = Mutex::new(intention);
                tokio::spawn(async move {
                    let progress = sender;
                    let fill =
                        Fill { registry, source, repository, digest, claim, began, intention, progress };
                    fill.run(guard).await;
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
    /// Its claim to the link.
    pub(super) claim: Claim,
    /// When the first client began to wait.
    pub(super) began: Instant,
    /// Held as long as it may be about to ask for a delta.
    pub(super) intention: Mutex<Option<Intention>>,
    pub(super) progress: watch::Sender<Progress>,
}

impl Fill {
    /// `duty` is what keeps others from fetching it too. It ends before they are told of the end, so that whoever asks
    /// again is not told of the same failure.
    pub(super) async fn run<D>(self, duty: D) {
        let (host, metrics) = (self.source.remote.client.host(), self.registry.metrics());
        let end = self.fetch().await;
        drop(duty);
        match &end {
            Ok(()) => {
                metrics.filled(host);
                let size = self.progress.borrow().size;
                self.registry.note_arrived(size.unwrap_or(0));
            }
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
        let (store, names) = (self.registry.store(), self.registry.store().names());
        // It may have arrived between the caller's look and this one.
        if names.blob(&self.repository, &self.digest).await?.is_some()
            && store.blobs().open(&self.digest).await?.is_some()
        {
            return Ok(());
        }
        self.source.may_ask(Ask::Blob)?;
        if self.link().await? {
            store.blobs().forget_partial(&self.repository, &self.digest).await?;
            return Ok(());
        }
        let referenced = names.referenced(&self.repository, &self.digest).await?;
        let layer = referenced.as_ref().filter(|referenced| referenced.layer).map(|layer| layer.size);
        let size = referenced.map(|referenced| referenced.size);

        let mut whole = Some(store.blobs().partial(&self.repository, &self.digest).await?);
        let mut delta = None;
        let fetched = match layer {
            Some(size) => Box::pin(self.soonest(size, &mut delta, &mut whole)).await,
            None => self.whole(size, &mut whole).await,
        };
        if let Some(left) = whole {
            match fetched {
                Ok(()) => {
                    if let Err(error) = left.discard().await {
                        tracing::warn!(digest = %self.digest, %error, "what is left of a transfer could not be removed");
                    }
                }
                Err(_) => left.close().await,
            }
        }
        if let Some(left) = delta {
            if fetched.is_ok() { left.settle().await } else { left.close().await }
        }
        fetched
    }

    /// Lets those go who wait until a question for a delta is out.
    pub(super) fn has_asked(&self) {
        drop(self.intention.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Takes a blob that another repository holds, if the upstream has it in this one too.
    async fn link(&self) -> Result<bool, Failure> {
        let store = self.registry.store();
        let Some(blob) = store.blobs().open(&self.digest).await? else { return Ok(false) };
        self.has_asked();
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

    /// Fetches a layer as a delta, or whole: when there is no delta, when it fails, and beside it when it takes longer
    /// than clients should wait for a first byte. The delta and the layer each have a partial of their own, which is left
    /// where the other way has brought the layer.
    async fn soonest(
        &self,
        size: u64,
        delta: &mut Option<Arrival>,
        whole: &mut Option<Partial>,
    ) -> Result<(), Failure> {
        let missing = size.saturating_sub(whole.as_ref().map_or(0, Partial::length));
        let pace = Pace::default();
        let mut by_delta = pin!(self.by_delta(size, missing, delta, &pace));
        let came = {
            let given_up = Notify::new();
            let mut meanwhile = pin!(self.meanwhile(size, missing, &pace, &given_up, whole));
            let came = tokio::select! {
                biased;
                came = &mut by_delta => Some(came),
                () = &mut meanwhile => None,
            };
            if came == Some(false) {
                given_up.notify_one();
                meanwhile.await;
            }
            came
        };
        match came {
            Some(true) => return Ok(()),
            Some(false) => return self.whole(Some(size), whole).await,
            None => {}
        }
        tracing::info!(digest = %self.digest, "a delta takes long; the layer is fetched beside it");
        let mut fetched = pin!(self.whole(Some(size), whole));
        tokio::select! {
            biased;
            came = &mut by_delta => if came { Ok(()) } else { fetched.await },
            fetched = &mut fetched => match fetched {
                Ok(()) => {
                    self.registry.metrics().delta_fallback(self.source.remote.client.host(), "slow");
                    Ok(())
                }
                Err(failure) => if by_delta.await { Ok(()) } else { Err(failure) },
            }
        }
    }

    /// Fetches the whole blob, behind what there is of it, and lets others read along.
    ///
    /// When bytes that came in pieces turn out wrong, or what the upstream says contradicts them, everything is fetched
    /// once more from the beginning: one of the pieces may have been bad. Bytes that came in one answer are what the
    /// upstream has.
    async fn whole(&self, size: Option<u64>, place: &mut Option<Partial>) -> Result<(), Failure> {
        self.has_asked();
        self.registry.0.fills.questions.go_first(&self.repository).await;
        let mut again = false;
        loop {
            let partial = match place.take() {
                Some(partial) => partial,
                None => self.registry.store().blobs().partial(&self.repository, &self.digest).await?,
            };
            let (pieced, failure) = match self.attempt(size, place.insert(partial)).await {
                Ok(pieced) => match self.commit(place).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => (pieced, failure),
                },
                Err(failed) => failed,
            };
            let begin_again = pieced && !again && failure.is_contradiction();
            if (begin_again || failure.is_gone())
                && let Some(partial) = place.take()
            {
                partial.discard().await?;
            }
            if !begin_again {
                return Err(failure);
            }
            tracing::warn!(digest = %self.digest, %failure, "a blob is fetched again from its beginning");
            again = true;
            self.announce(|progress| {
                (progress.readable, progress.reader) = (0, None);
                progress.version += 1;
            });
        }
    }

    /// Fetches what is missing; whether the bytes then come from more than one answer. A failure tells that too.
    async fn attempt(&self, size: Option<u64>, partial: &mut Partial) -> Result<bool, (bool, Failure)> {
        let options = self.registry.options();
        // What a client has been told counts, then the manifest; what an earlier attempt has been told counts least.
        let size = self.progress.borrow().size.or(size).or(partial.size());
        // Only then is it known how much there is: what came before may still be on its way to the file.
        let whole = partial.is_whole().await.map_err(|error| (true, error.into()))?;
        let (at, limit) = (partial.length(), size.unwrap_or(options.limits.blob_bytes));
        if at > 0 && (at >= limit || whole) {
            return Ok(true);
        }
        let mut transfer = Transfer::new(self, at, limit);
        transfer.size = size;
        transfer.patience = options.fill.patience;
        transfer.rests = true;
        transfer.committed = self.progress.borrow().size.is_some();
        let fetched = self.receive(&mut transfer, partial).await;
        fetched.map(|()| transfer.is_pieced()).map_err(|failure| (transfer.is_pieced(), failure))
    }

    /// Runs a transfer of the blob to its end, and lets others read along.
    pub(super) async fn receive(
        &self,
        transfer: &mut Transfer<'_>,
        partial: &mut Partial,
    ) -> Result<(), Failure> {
        let (arrived, reader) = (partial.progress(), partial.reader());
        let kept = transfer.size.filter(|_| partial.length() > 0);
        let begun = |size| self.show(size, &reader);
        tokio::select! {
            fetched = transfer.run(partial, begun) => fetched,
            never = self.follow_arriving(arrived) => match never {},
            never = self.show_what_is_kept(kept, &reader) => match never {},
        }
    }

    /// Proves what has arrived and makes it the blob. Wrong bytes are gone then.
    async fn commit(&self, place: &mut Option<Partial>) -> Result<(), Failure> {
        let Some(partial) = place.take() else { return Err(Failure::Busy) };
        let reader = partial.reader();
        let size = partial.commit().await?;
        self.announce(|progress| progress.prove(reader, size));
        Ok(())
    }

    /// Lets others read what is in `reader`, but for the end.
    pub(super) fn show(&self, size: u64, reader: &store::Blob) {
        // Of no bytes none can be held back: whoever were told of them would have the whole, wrong or right.
        if size == 0 {
            return;
        }
        self.announce(|progress| {
            progress.size = Some(size);
            progress.reader = Some(reader.clone());
            progress.readable = progress.readable.max(reader.size().min(size.saturating_sub(HOLD_BACK)));
        });
    }

    /// Lets others read what there is when the upstream does not answer soon.
    async fn show_what_is_kept(&self, size: Option<u64>, reader: &store::Blob) -> Infallible {
        tokio::time::sleep(HEAD_START).await;
        if let Some(size) = size {
            self.show(size, reader);
        }
        std::future::pending().await
    }

    /// Announces what arrives, but for the end.
    async fn follow_arriving(&self, mut arrived: watch::Receiver<u64>) -> Infallible {
        while arrived.changed().await.is_ok() {
            let bytes = *arrived.borrow_and_update();
            self.announce(|progress| {
                let most = progress.size.unwrap_or(0).saturating_sub(HOLD_BACK);
                progress.readable = progress.readable.max(bytes.min(most));
            });
        }
        std::future::pending().await
    }

    /// Lets go of everything: `reader` holds the blob, and came another way than what has been shown so far, if anything.
    /// Who has read nothing but the same bytes reads on.
    pub(super) async fn prove_other(&self, reader: store::Blob, size: u64) {
        let mut same = 0;
        loop {
            let (shown, readable) = {
                let progress = self.progress.borrow();
                (progress.reader.clone(), progress.readable)
            };
            let Some(shown) = shown.filter(|_| readable > same) else { break };
            if !are_same(&shown, &reader, ByteRange { start: same, end: readable }).await {
                tracing::warn!(digest = %self.digest, "wrong bytes of a blob were shown; who has read them is cut off");
                self.announce(|progress| progress.version += 1);
                break;
            }
            same = readable;
        }
        self.announce(|progress| progress.prove(reader, size));
    }

    pub(super) fn announce(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }
}

/// Whether two files have the same bytes there. One that cannot be read has others.
async fn are_same(one: &store::Blob, other: &store::Blob, range: ByteRange) -> bool {
    let mut ends = [one.read(range), other.read(range)];
    let mut rests = [Bytes::new(), Bytes::new()];
    let mut left = range.len();
    while left > 0 {
        for (stream, rest) in ends.iter_mut().zip(&mut rests) {
            if rest.is_empty() {
                match stream.next().await {
                    Some(Ok(chunk)) => *rest = chunk,
                    _ => return false,
                }
            }
        }
        let [one, other] = &mut rests;
        let count = one.len().min(other.len());
        if one.split_to(count) != other.split_to(count) {
            return false;
        }
        left -= count as u64;
    }
    true
}
