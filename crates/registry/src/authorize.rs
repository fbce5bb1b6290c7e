//! May this caller do that? The only place that asks the rules.

use deltaport_oci::RepositoryName;
use deltaport_trust::tokens::Scopes;
use deltaport_trust::{Action, Caller};

use crate::{Error, Registry, Result};

impl Registry {
    /// Decides whether `caller` may do `action` to `repository`; without a repository, whether the caller may use the
    /// registry at all (its base path and its lists, which show only what the caller may pull).
    ///
    /// It runs before anything is looked up, so a refusal is the same whether the thing exists or not.
    pub fn authorize(
        &self,
        caller: &Caller,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<()> {
        let granted = match repository {
            Some(repository) => self.may(caller, action, repository),
            None => self.0.rules.load().admits(caller),
        };
        if granted { Ok(()) } else { Err(Error::Denied) }
    }

    /// What of `asked` a token for `caller` may be for. `host` is what the client calls this registry.
    ///
    /// Clients ask for tokens by the names that they know. Which repository such a name stands for may depend on the
    /// registry that a later request means, so that a token is for all of them; that request is asked about for itself.
    pub fn scopes(&self, caller: &Caller, asked: Scopes, host: Option<&str>) -> Scopes {
        caller.scopes(asked, &self.0.rules.load(), |name| self.names_of(name, host))
    }

    /// The same question where a refusal is not an error: a list that leaves things out, a mount that becomes an
    /// upload.
    pub(crate) fn may(&self, caller: &Caller, action: Action, repository: &RepositoryName) -> bool {
        self.0.rules.load().allows(caller, action, repository)
    }
}
