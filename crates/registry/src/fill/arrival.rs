//! A delta on its way in.
//!
//! It is a blob of the repository like others, so a client may want it at the same time: another site, for which this one
//! is the hub. There is one transfer of it then too, in which everybody takes part, whoever has begun it.

use std::sync::Mutex;
use std::time::Duration;

use deltaport_oci::{Digest, RepositoryName};
use deltaport_store as store;
use deltaport_store::Partial;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Failure;
use super::blobs::{Fill, Following};
use super::delta::{Fallback, Found};
use super::pace::{Coming, Pace};
use super::transfer::Transfer;
use crate::flight::{Flight, Guard};
use crate::pull::Progress;

/// How long the transfer of a delta may go without a new byte. Shorter than for a whole blob: there is another way.
const PATIENCE: Duration = Duration::from_secs(20);

/// A delta that is being fetched for the layer that is made of it. What has come of it is kept when this is dropped.
pub(super) struct Arrival {
    /// The delta as others see it who want it.
    fill: Fill,
    partial: Partial,
    duty: Guard<(RepositoryName, Digest), Following>,
}

impl Fill {
    /// Fetches a delta of at most `most` bytes, behind what there is of it, or waits for somebody who is at it already.
    pub(super) async fn fetch_delta(
        &self,
        found: Found,
        most: u64,
        place: &mut Option<Arrival>,
        pace: &Pace,
    ) -> Result<store::Blob, Fallback> {
        // It would wait for itself.
        if found.digest == self.digest {
            return Err(Fallback::Unasked);
        }
        let (sender, receiver) = watch::channel(Progress::default());
        let following = (receiver, self.claim.clone());
        let key = (self.repository.clone(), found.digest);
        match self.registry.0.fills.blobs.join(key, || following) {
            Flight::Joined(following) => {
                pace.follow(Coming::Elsewhere(following.0.clone()));
                self.follow_delta(&found.digest, following, most).await
            }
            Flight::Full => Err(Fallback::Fetch(Failure::Busy)),
            Flight::Started(_, duty) => {
                let partial = self.registry.store().blobs().partial(&self.repository, &found.digest).await?;
                pace.follow(Coming::Here(partial.reader(), found.size.or(partial.size())));
                let fill = Self {
                    registry: self.registry.clone(),
                    source: self.source.clone(),
                    repository: self.repository.clone(),
                    digest: found.digest,
                    claim: self.claim.clone(),
                    began: Instant::now(),
                    intention: Mutex::default(),
                    progress: sender,
                };
                place.insert(Arrival { fill, partial, duty }).receive(found, most).await
            }
        }
    }

    /// Waits for a delta that somebody else fetches.
    async fn follow_delta(
        &self,
        digest: &Digest,
        (mut progress, claim): Following,
        most: u64,
    ) -> Result<store::Blob, Fallback> {
        claim.follow(&self.claim);
        let is_over = |now: &Progress| now.is_proven() || now.end.is_some();
        let now = progress.wait_for(is_over).await.map(|now| now.clone());
        let now = now.map_err(|_| Fallback::Fetch(Failure::Lost))?;
        let delta = match (now.reader.as_ref().filter(|_| now.is_proven()), now.end) {
            (Some(delta), _) => delta.clone(),
            (None, Some(Err(failure))) => return Err(Fallback::Fetch(failure)),
            // It was here already.
            (None, _) => self.registry.store().blobs().open(digest).await?.ok_or(Fallback::NotOffered)?,
        };
        if delta.size() > most { Err(Fallback::NotSooner) } else { Ok(delta) }
    }
}

impl Arrival {
    async fn receive(&mut self, found: Found, most: u64) -> Result<store::Blob, Fallback> {
        let Self { fill, partial, .. } = self;
        if partial.length() == 0 || !partial.is_whole().await? {
            let mut transfer = Transfer::new(fill, partial.length(), most);
            transfer.size = partial.size();
            transfer.patience = PATIENCE;
            transfer.under_way = found.sent;
            fill.receive(&mut transfer, partial).await.map_err(Fallback::Fetch)?;
        }
        if !partial.is_whole().await? {
            return Err(Fallback::Damaged);
        }
        let (reader, size) = (partial.reader(), partial.length());
        fill.announce(|progress| progress.prove(reader.clone(), size));
        Ok(reader)
    }

    /// Ends it and removes what has come of it, which is of no use.
    pub(super) async fn discard(self) {
        let Self { fill, partial, duty } = self;
        if let Err(error) = partial.discard().await {
            tracing::warn!(digest = %fill.digest, %error, "a delta could not be removed");
        }
        fill.go_on_for_others(duty);
    }

    /// Ends it and keeps what has come of it for the next attempt.
    pub(super) async fn close(self) {
        let Self { fill, partial, duty } = self;
        partial.close().await;
        fill.go_on_for_others(duty);
    }

    /// Ends it because the layer is here.
    pub(super) async fn settle(self) {
        if self.fill.is_missed() { self.close().await } else { self.discard().await }
    }
}

impl Fill {
    /// Whether somebody waits for more of the blob than there is.
    fn is_missed(&self) -> bool {
        // One receiver is for those who may still join.
        self.progress.receiver_count() > 1 && !self.progress.borrow().is_proven()
    }

    fn go_on_for_others(self, duty: Guard<(RepositoryName, Digest), Following>) {
        if self.is_missed() {
            tokio::spawn(self.run(duty));
        }
    }
}
