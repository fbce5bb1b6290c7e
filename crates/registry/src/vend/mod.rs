//! Deltas between layers, offered to other registries.
//!
//! A delta that is made is an ordinary blob of the repository. The asker never waits for one: what is not made yet is
//! made in the background (`jobs`), and the answer is "ask again".

mod jobs;
mod moved;

use std::time::Duration;

use deltaport_oci::delta_artifact::LayerDelta as Made;
use deltaport_oci::{Digest, RepositoryName};
use deltaport_store::LayerDelta;

use crate::{Error, Registry, Result};

pub(crate) use jobs::Jobs;

/// How many of the offered bases are looked at.
const MAX_BASES: usize = 16;
/// A base that is this many times larger or smaller than the layer has little in common with it.
const MAX_RATIO: u64 = 8;
/// How many deltas to one layer a repository keeps, those that are being made included. No more are made, until some go
/// with their bases.
const MAX_KEPT: usize = 16;
/// When to ask again for a delta that is being made.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The answer to somebody who holds old layers and wants a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeltaAnswer {
    /// The delta is a blob of the same repository.
    Ready {
        /// Its digest.
        delta: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// It is being made; ask again after this time.
    Pending(Duration),
    /// There is none, and asking again will not change that soon.
    None,
}

impl Registry {
    /// Offers a delta to the layer `to` of `repository` from one of the layers `from`, which the asker holds, the best
    /// first. Whatever is not a layer of an image in the repository counts as unknown: the answer says nothing about other
    /// repositories, and no deltas are made between blobs that somebody pushed for that purpose only.
    pub async fn layer_delta(
        &self,
        repository: &RepositoryName,
        to: &Digest,
        from: &[Digest],
    ) -> Result<DeltaAnswer> {
        let names = self.store().names();
        let Some(size) = self.layer(repository, to).await? else { return Ok(DeltaAnswer::None) };
        let mut promising = None;
        for base in from.iter().take(MAX_BASES).filter(|base| *base != to) {
            let Some(base_size) = self.layer(repository, base).await? else { continue };
            match names.layer_delta(repository, base, to).await? {
                Some(LayerDelta::Blob(delta)) => {
                    self.metrics().deltas_offered.inc();
                    return self.offer(repository, delta).await;
                }
                Some(LayerDelta::NotWorthIt) => {}
                None if self.is_promising(base_size, size) => promising = promising.or(Some(*base)),
                None => {}
            }
        }
        let Some(base) = promising else { return Ok(DeltaAnswer::None) };
        if names.layer_deltas_kept(repository, to).await? >= MAX_KEPT {
            // The last that there was room for may be this one, made since it was looked for.
            return Ok(match names.layer_delta(repository, &base, to).await? {
                Some(LayerDelta::Blob(delta)) => self.offer(repository, delta).await?,
                Some(LayerDelta::NotWorthIt) | None => DeltaAnswer::None,
            });
        }
        let coming = self.make_now(repository, &base, to).await?;
        Ok(if coming { DeltaAnswer::Pending(ASK_AGAIN) } else { DeltaAnswer::None })
    }

    /// The deltas to the layer `to` of `repository` that have been made. None is made because somebody looks.
    pub async fn layer_deltas(&self, repository: &RepositoryName, to: &Digest) -> Result<Vec<Made>> {
        let names = self.store().names();
        let mut made = Vec::new();
        if self.layer(repository, to).await?.is_none() {
            return Ok(made);
        }
        for (base, delta) in names.layer_deltas(repository, to, MAX_KEPT).await? {
            if let Some(size) = names.blob(repository, &delta).await? {
                made.push(Made { base, target: *to, delta, size });
            }
        }
        Ok(made)
    }

    /// Offers a delta that is here. One that has been collected in the meantime is none.
    async fn offer(&self, repository: &RepositoryName, delta: Digest) -> Result<DeltaAnswer> {
        let size = self.store().names().blob(repository, &delta).await?;
        Ok(size.map_or(DeltaAnswer::None, |size| DeltaAnswer::Ready { delta, size }))
    }

    /// The size in bytes of a layer that a manifest of `repository` refers to, and that is here and may be served.
    async fn layer(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>> {
        let names = self.store().names();
        let referenced = names.referenced(repository, digest).await?;
        if !referenced.is_some_and(|referenced| referenced.layer) {
            return Ok(None);
        }
        match self.admit_blob(repository, digest).await {
            Ok(()) => Ok(names.blob(repository, digest).await?),
            Err(Error::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether layers of these sizes, in bytes, may have a delta worth making.
    fn is_promising(&self, base: u64, target: u64) -> bool {
        let (small, large) = (base.min(target), base.max(target));
        large <= self.options().delta.maximum_layer && large / MAX_RATIO <= small
    }
}
