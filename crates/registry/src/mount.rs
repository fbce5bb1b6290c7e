//! Mounts: a blob that another repository holds comes into this one without being sent.

use deltaport_oci::{Digest, RepositoryName};
use deltaport_trust::{Action, Caller};

use crate::{Registry, Result};

/// How many repositories that hold a blob are considered when the caller does not say from which one it comes.
const MOUNT_CANDIDATES: usize = 256;

impl Registry {
    /// Links a blob into `repository` from one that `caller` may pull from: `from`, or any. `false` when there is none,
    /// which is the same answer for a blob that does not exist and for one that the caller may not see.
    pub async fn mount(
        &self,
        caller: &Caller,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<bool> {
        self.check_own(repository)?;
        let names = self.store().names();
        let found = match from {
            Some(from) => self.may(caller, Action::Pull, from) && names.blob(from, digest).await?.is_some(),
            None => {
                let holders = names.repositories_with(digest, MOUNT_CANDIDATES).await?;
                holders.iter().any(|holder| self.may(caller, Action::Pull, holder))
            }
        };
        let mounted = found && names.link_blob(repository, digest).await?;
        if mounted {
            self.metrics().mounts.inc();
        }
        Ok(mounted)
    }
}
