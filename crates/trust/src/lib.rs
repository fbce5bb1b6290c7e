//! May we? Pure decisions: access rules and passwords now, image signatures later. No input or output, no clock.
//! (Contract; being built.)
#![allow(unused_variables, missing_debug_implementations, clippy::todo)]
use deltaport_oci::RepositoryName;
use std::sync::Arc;

/// What somebody wants to do with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read.
    Pull,
    /// Write.
    Push,
    /// Remove.
    Delete,
}

/// Who asks, as far as the server could establish it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Caller {
    /// The user that logged in; `None` is anonymous.
    pub user: Option<Arc<str>>,
    /// Whether the request comes from this machine, directly (no proxy, no browser page).
    pub local: bool,
}

/// Who may do what where.
#[derive(Clone, Debug)]
pub struct Rules {}
impl Rules {
    /// The decision; the only function in deltaport that makes it.
    pub fn allows(&self, caller: &Caller, action: Action, repository: &RepositoryName) -> bool {
        todo!()
    }
}
/// A parsed htpasswd file.
#[derive(Clone)]
pub struct Passwords {}
