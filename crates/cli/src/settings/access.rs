//! What an operator can say about who comes, what they may do, and what is written of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use deltaport_trust::{Action, Pattern};
use serde::Serialize;

use super::Span;

/// `[access]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Access {
    /// The password file.
    pub htpasswd: Option<PathBuf>,
    /// Whether clients are asked to take tokens.
    pub tokens: bool,
    /// Where clients reach this registry.
    pub url: Option<String>,
    /// Who is counted by name.
    pub counted_users: BTreeSet<String>,
    /// Whether callers on this machine may do everything; `None` depends on the others.
    pub trust_loopback: Option<bool>,
    /// The members of each group.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// The grants.
    pub rule: Vec<Rule>,
    /// Whose certificates are whose.
    pub certificate: Vec<Certificate>,
    /// The CI systems whose tokens are believed.
    pub oidc: Vec<Issuer>,
}

/// `[[access.oidc]]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Issuer {
    /// Who issues the tokens.
    pub issuer: String,
    /// What they have to be for.
    pub audience: String,
    /// Who comes with them.
    pub user: String,
    /// The file with the keys.
    pub keys: Option<PathBuf>,
    /// PEM file with the authorities to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// How long fetched keys are believed.
    pub max_age: Span,
    /// What else has to stand in them.
    pub claims: BTreeMap<String, BTreeSet<String>>,
}

/// `[audit]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Audit {
    /// The file that lines are added to.
    pub file: Option<PathBuf>,
}

/// `[[access.certificate]]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Certificate {
    /// Who comes with it.
    pub user: String,
    /// The common name of its subject.
    pub common_name: Option<String>,
    /// One of its hosts.
    pub dns_name: Option<String>,
    /// One of its e-mail addresses.
    pub email: Option<String>,
    /// One of its URIs.
    pub uri: Option<String>,
}

/// `[[access.rule]]`
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Rule {
    /// Which repositories.
    #[serde(serialize_with = "super::as_texts")]
    pub repositories: Vec<Pattern>,
    /// What may be done with them.
    #[serde(serialize_with = "super::as_texts")]
    pub allow: Vec<Action>,
    /// To these users.
    pub users: BTreeSet<String>,
    /// To the members of these groups.
    pub groups: BTreeSet<String>,
    /// To everyone who has logged in.
    pub logged_in: bool,
    /// To everyone.
    pub anonymous: bool,
    /// To callers on this machine.
    pub local: bool,
}
