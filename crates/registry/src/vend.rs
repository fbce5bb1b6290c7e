//! Deltas between layers, offered to other registries.

use std::time::Duration;

use deltaport_oci::{Digest, RepositoryName};

use crate::{Registry, Result};

/// The answer to somebody who holds old layers and wants a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeltaAnswer {
    /// The delta is this blob of the same repository.
    Ready(Digest),
    /// It is being made; ask again after this time.
    Pending(Duration),
    /// There is none and there will be none.
    None,
}

impl Registry {
    /// Offers a delta to the layer `to` of `repository` from one of the layers `from`, which the asker holds.
    pub async fn layer_delta(
        &self,
        repository: &RepositoryName,
        to: &Digest,
        from: &[Digest],
    ) -> Result<DeltaAnswer> {
        let _not_offered = (repository, to, from);
        Ok(DeltaAnswer::None)
    }
}
