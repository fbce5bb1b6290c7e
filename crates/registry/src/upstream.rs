//! Which local repository stands for what in another registry.
//!
//! The table is closed: a namespace that a client names is looked up here and is never a place to connect to.

use std::borrow::Cow;
use std::sync::Arc;

use deltaport_oci::RepositoryName;

use crate::Registry;

/// Where a pull is answered from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// The repository of this registry.
    pub repository: Cow<'a, RepositoryName>,
    /// The registry that it stands for, when the client named one and it is configured.
    pub namespace: Option<Arc<str>>,
}

impl Registry {
    /// The repository that answers a pull of `repository` from `namespace`, which clients with a mirror configured
    /// send as `ns` (distribution-spec, "Registry Proxying"). A namespace that is not configured changes nothing.
    pub fn locate<'a>(&self, repository: &'a RepositoryName, namespace: Option<&str>) -> Located<'a> {
        let _unconfigured = namespace;
        Located { repository: Cow::Borrowed(repository), namespace: None }
    }
}
