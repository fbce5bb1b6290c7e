//! Deltas between layers, offered to other registries.
//!
//! A delta that is made is an ordinary blob of the repository. The asker never waits for one: what is not made yet is
//! made in the background (`jobs`), and the answer is "ask again".

mod jobs;
mod moved;

use std::time::Duration;

use deltaport_oci::{Digest, RepositoryName};
use deltaport_store::LayerDelta;

use crate::{Registry, Result};

pub(crate) use jobs::Jobs;

/// How many of the offered bases are looked at.
const MAX_BASES: usize = 16;
/// A base that is this many times larger or smaller than the layer has little in common with it.
const MAX_RATIO: u64 = 8;
/// When to ask again for a delta that is being made.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The answer to somebody who holds old layers and wants a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeltaAnswer {
    /// The delta is this blob of the same repository.
    Ready(Digest),
    /// It is being made; ask again after this time.
    Pending(Duration),
    /// There is none, and asking again will not change that soon.
    None,
}

impl Registry {
    /// Offers a delta to the layer `to` of `repository` from one of the layers `from`, which the asker holds, the best
    /// first. Whatever the repository does not hold counts as unknown, so the answer says nothing about others.
    pub async fn layer_delta(
        &self,
        repository: &RepositoryName,
        to: &Digest,
        from: &[Digest],
    ) -> Result<DeltaAnswer> {
        let names = self.store().names();
        let Some(size) = names.blob(repository, to).await? else { return Ok(DeltaAnswer::None) };
        let mut promising = None;
        for base in from.iter().take(MAX_BASES).filter(|base| *base != to) {
            let Some(base_size) = names.blob(repository, base).await? else { continue };
            match names.layer_delta(repository, base, to).await? {
                Some(LayerDelta::Blob(delta)) => {
                    self.metrics().deltas_offered.inc();
                    return Ok(DeltaAnswer::Ready(delta));
                }
                Some(LayerDelta::NotWorthIt) => {}
                None if self.is_promising(base_size, size) => promising = promising.or(Some(*base)),
                None => {}
            }
        }
        let Some(base) = promising else { return Ok(DeltaAnswer::None) };
        let started = self.make_delta(repository, &base, to);
        Ok(if started { DeltaAnswer::Pending(ASK_AGAIN) } else { DeltaAnswer::None })
    }

    /// Whether layers of these sizes, in bytes, may have a delta worth making.
    fn is_promising(&self, base: u64, target: u64) -> bool {
        let (small, large) = (base.min(target), base.max(target));
        large <= self.options().delta.maximum_layer && large / MAX_RATIO <= small
    }
}
