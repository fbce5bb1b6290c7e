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
            Some(from) => {
                self.may(caller, Action::Pull, from)
                    && names.blob(from, digest).await?.is_some()
                    && self.admit_blob(from, digest).await.is_ok()
            }
            None => self.is_held(caller, digest).await?,
        };
        let mounted = found && names.link_blob(repository, digest).await?;
        if mounted {
            self.metrics().mounts.inc();
        }
        Ok(mounted)
    }

    /// Whether a repository from which `caller` may pull holds a blob that is served there.
    async fn is_held(&self, caller: &Caller, digest: &Digest) -> Result<bool> {
        for holder in self.store().names().repositories_with(digest, MOUNT_CANDIDATES).await? {
            if self.may(caller, Action::Pull, &holder) && self.admit_blob(&holder, digest).await.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
