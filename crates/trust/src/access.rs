//! Access rules: which caller may do what with which repository.
//!
//! Rules only grant. A caller may do something when at least one rule says so; no rule takes away what another one
//! gives, so their order does not matter and no list of exceptions has to be thought through. What nobody grants is
//! refused.

mod pattern;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use deltaport_oci::RepositoryName;

use crate::tokens::Scopes;

pub use pattern::{Pattern, PatternError};

/// The most rules that a configuration may have: every one may be looked at for every request.
pub const MAX_RULES: usize = 1024;

/// What somebody wants to do with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read.
    Pull,
    /// Write.
    Push,
    /// Remove.
    Delete,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// The word for it in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text names no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an action; use pull, push or delete")]
pub struct ActionError;

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or(ActionError)
    }
}

/// Who asks, as far as the server could establish it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Caller {
    /// The user that logged in; `None` is anonymous.
    pub user: Option<Arc<str>>,
    /// Whether the request comes from this machine, directly (no proxy, no browser page).
    pub local: bool,
    /// What the credentials grant by themselves, as a robot's do. Rules that are about users or this machine grant
    /// nothing then.
    pub granted: Option<Arc<Scopes>>,
    /// What the credentials are limited to, as an access token is, whatever else is granted.
    pub within: Option<Arc<Scopes>>,
}

impl Caller {
    /// The same caller with credentials that are not limited.
    #[must_use]
    pub fn unlimited(&self) -> Self {
        Self { within: None, ..self.clone() }
    }

    /// What of `asked` the caller may do by these rules, in other words what a token for it is for. `names` are the
    /// repositories that a name may stand for.
    pub fn scopes(
        &self,
        mut asked: Scopes,
        rules: &Rules,
        names: impl Fn(&RepositoryName) -> Vec<RepositoryName>,
    ) -> Scopes {
        asked.retain(|action, name| names(name).iter().any(|name| rules.allows(self, action, name)));
        asked
    }
}

/// One grant: to these callers, these actions, on these repositories. A caller has it when any of the conditions
/// (`users`, `groups`, `logged_in`, `anonymous`, `local`) holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Which repositories.
    pub repositories: Vec<Pattern>,
    /// What may be done with them.
    pub allow: BTreeSet<Action>,
    /// To these users.
    pub users: BTreeSet<String>,
    /// To the members of these groups.
    pub groups: BTreeSet<String>,
    /// To everyone who has logged in.
    pub logged_in: bool,
    /// To everyone, logged in or not: logging in never takes rights away.
    pub anonymous: bool,
    /// To callers on this machine.
    pub local: bool,
}

/// What an operator said about access, before it is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether users can log in at all: there is a password file, or another way.
    pub logins: bool,
    /// Whether callers on this machine may do everything; `None` lets [`Rules::new`] choose.
    pub trust_loopback: Option<bool>,
    /// The members of each group.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// The grants; none means that nothing was said, not that nothing is granted.
    pub rules: Vec<Rule>,
}

/// Why rules were refused. Rules are counted from 1, as a person does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// More than [`MAX_RULES`].
    #[error("there are {0} access rules; at most {MAX_RULES} are possible")]
    TooMany(usize),
    /// A rule without repositories or without actions, which would grant nothing.
    #[error("access rule {0} grants nothing: it needs repositories and allow")]
    Nothing(usize),
    /// A rule without callers, which would grant to nobody.
    #[error(
        "access rule {0} grants to nobody: give it users, groups, logged_in = true, anonymous = true or local = true"
    )]
    Nobody(usize),
    /// A rule names a group that does not exist.
    #[error("access rule {rule} names the group \"{group}\", which is not among the groups")]
    UnknownGroup {
        /// Which rule.
        rule: usize,
        /// The group that it names.
        group: String,
    },
    /// A rule is about users and nobody can log in.
    #[error(
        "access rule {0} is about users, but nobody can log in without a password file (htpasswd), tokens, certificates or \
         an issuer (oidc)"
    )]
    NoLogins(usize),
}

/// Who may do what where. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rules {
    grants: Arc<[Grant]>,
    logins: bool,
    trusts_loopback: bool,
}

/// A [`Rule`] whose groups have been replaced by their members.
#[derive(Debug)]
struct Grant {
    repositories: Vec<Pattern>,
    allow: BTreeSet<Action>,
    users: BTreeSet<String>,
    logged_in: bool,
    anonymous: bool,
    local: bool,
}

impl Rules {
    /// Checks what the operator said and fills in what was left unsaid:
    ///
    /// - Without rules, everyone who has logged in may do everything, and nobody else may do anything.
    /// - With rules, only they count.
    /// - Besides, callers on this machine may do everything if `trust_loopback` says so; when it says nothing, they may
    ///   exactly as long as nobody can log in and there is no rule. So a registry that was just started works for
    ///   the person who started it, and saying anything about access is enough to close that door.
    pub fn new(access: Access) -> Result<Self, AccessError> {
        if access.rules.len() > MAX_RULES {
            return Err(AccessError::TooMany(access.rules.len()));
        }
        let unsaid = access.rules.is_empty();
        let mut grants = Vec::with_capacity(access.rules.len() + 1);
        for (index, rule) in access.rules.into_iter().enumerate() {
            grants.push(Grant::new(index + 1, rule, &access.groups, access.logins)?);
        }
        if unsaid {
            grants.push(Grant { logged_in: true, ..Grant::everything_to_nobody() });
        }
        let trusts_loopback = access.trust_loopback.unwrap_or(unsaid && !access.logins);
        if trusts_loopback {
            grants.push(Grant { local: true, ..Grant::everything_to_nobody() });
        }
        Ok(Self { grants: grants.into(), logins: access.logins, trusts_loopback })
    }

    /// The decision; the only function in deltaport that makes it.
    pub fn allows(&self, caller: &Caller, action: Action, repository: &RepositoryName) -> bool {
        let permitted = |scopes: &Arc<Scopes>| scopes.permit(action, repository);
        if !caller.within.as_ref().is_none_or(permitted) {
            return false;
        }
        if caller.granted.as_ref().is_some_and(permitted) {
            return true;
        }
        self.grants.iter().any(|grant| {
            grant.allow.contains(&action)
                && grant.is_to(caller)
                && grant.repositories.iter().any(|pattern| pattern.matches(repository.as_str()))
        })
    }

    /// Whether `caller`, who asks about no repository in particular, is answered; otherwise the answer is to log in.
    ///
    /// It is the first thing that every client asks, and some (docker among them) send their password to later
    /// requests only if this one demanded it. So where there are users, everybody else is told to log in, even when a
    /// rule lets them read something: but for callers on this machine that may do everything anyway.
    pub fn admits(&self, caller: &Caller) -> bool {
        caller.user.is_some()
            || (caller.local && self.trusts_loopback)
            || (!self.logins && self.grants.iter().any(|grant| grant.is_to(caller)))
    }
}

impl Grant {
    fn new(
        number: usize,
        rule: Rule,
        groups: &BTreeMap<String, BTreeSet<String>>,
        logins: bool,
    ) -> Result<Self, AccessError> {
        if rule.repositories.is_empty() || rule.allow.is_empty() {
            return Err(AccessError::Nothing(number));
        }
        let about_users = rule.logged_in || !rule.users.is_empty() || !rule.groups.is_empty();
        if !about_users && !rule.anonymous && !rule.local {
            return Err(AccessError::Nobody(number));
        }
        if about_users && !logins {
            return Err(AccessError::NoLogins(number));
        }
        let mut users = rule.users;
        for group in rule.groups {
            let members = groups.get(&group).ok_or(AccessError::UnknownGroup { rule: number, group })?;
            users.extend(members.iter().cloned());
        }
        Ok(Self {
            repositories: rule.repositories,
            allow: rule.allow,
            users,
            logged_in: rule.logged_in,
            anonymous: rule.anonymous,
            local: rule.local,
        })
    }

    fn everything_to_nobody() -> Self {
        Self {
            repositories: vec![Pattern::everything()],
            allow: Action::ALL.into(),
            users: BTreeSet::new(),
            logged_in: false,
            anonymous: false,
            local: false,
        }
    }

    fn is_to(&self, caller: &Caller) -> bool {
        if caller.granted.is_some() {
            return self.anonymous;
        }
        self.anonymous
            || (self.local && caller.local)
            || caller.user.as_deref().is_some_and(|user| self.logged_in || self.users.contains(user))
    }
}
