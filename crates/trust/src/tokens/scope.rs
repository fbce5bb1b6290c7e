//! Scopes: which repositories a token is for, and what it may be used to do there.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use deltaport_oci::RepositoryName;

use crate::access::{Action, Pattern};

/// The most scopes that one token may have.
pub const MAX_SCOPES: usize = 64;

/// What a scope about repositories begins with ("Docker Registry v2 authentication", token scopes).
const REPOSITORY: &str = "repository";
/// The scope of the list of repositories.
const CATALOG: &str = "registry:catalog:*";
/// Every action.
const EVERYTHING: &str = "*";

/// Some repositories, and what may be done with them: `repository:team/app:pull,push`. The name may be a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Which repositories.
    pub repositories: Pattern,
    /// What may be done with them.
    pub actions: BTreeSet<Action>,
}

/// Why a text is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// It is not of three parts, or not about repositories.
    #[error("{0:?} is not a scope; write repository:NAME:ACTIONS, such as repository:team/app:pull,push")]
    Form(String),
    /// The name is neither one nor a pattern.
    #[error("the scope {scope:?}: {why}")]
    Name {
        /// The scope.
        scope: String,
        /// What is wrong with the name.
        why: crate::PatternError,
    },
    /// An action that there is not.
    #[error("the scope {0:?}: use pull, push and delete, or * for all of them")]
    Action(String),
    /// More than [`MAX_SCOPES`].
    #[error("there are more than {MAX_SCOPES} scopes")]
    TooMany,
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let form = || ScopeError::Form(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(form)?;
        let (name, actions) = rest.rsplit_once(':').ok_or_else(form)?;
        if kind != REPOSITORY {
            return Err(form());
        }
        let repositories = name.parse().map_err(|why| ScopeError::Name { scope: text.to_owned(), why })?;
        let actions = match actions {
            EVERYTHING => Ok(Action::ALL.into()),
            actions => actions.split(',').map(str::parse).collect::<Result<_, _>>(),
        };
        let actions = actions.map_err(|_| ScopeError::Action(text.to_owned()))?;
        Ok(Self { repositories, actions })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<&str> = self.actions.iter().map(|action| action.as_str()).collect();
        write!(f, "{REPOSITORY}:{}:{}", self.repositories.as_str(), actions.join(","))
    }
}

/// Everything that a token is for. Nothing, when it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    scopes: Vec<Scope>,
    catalog: bool,
}

impl Scopes {
    /// Reads a list of scopes, all of which must be right.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, ScopeError> {
        let mut scopes = Vec::new();
        for text in texts {
            if scopes.len() >= MAX_SCOPES {
                return Err(ScopeError::TooMany);
            }
            scopes.push(text.parse()?);
        }
        Ok(Self { scopes, catalog: false })
    }

    /// Reads what a client asks a token for: scopes with blanks between them, each of one repository. What is not known
    /// here (other kinds of resources, other actions, names that no repository has) is not granted, and no reason to
    /// refuse the rest.
    ///
    /// Fails when there are more than [`MAX_SCOPES`].
    pub fn requested<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, ScopeError> {
        let mut asked = Self::default();
        for text in texts.into_iter().flat_map(str::split_ascii_whitespace) {
            if text == CATALOG {
                asked.catalog = true;
                continue;
            }
            if asked.scopes.len() >= MAX_SCOPES {
                return Err(ScopeError::TooMany);
            }
            asked.scopes.extend(Self::one_repository(text));
        }
        Ok(asked)
    }

    fn one_repository(text: &str) -> Option<Scope> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        // A pattern here would be the wish for a token for everything.
        let name: RepositoryName = name.parse().ok().filter(|_| kind == REPOSITORY)?;
        let actions: BTreeSet<Action> = match actions {
            EVERYTHING => Action::ALL.into(),
            actions => actions.split(',').filter_map(|action| action.parse().ok()).collect(),
        };
        let repositories = name.as_str().parse().ok().filter(|_| !actions.is_empty())?;
        Some(Scope { repositories, actions })
    }

    /// Whether they cover `action` on `repository`.
    pub fn permit(&self, action: Action, repository: &RepositoryName) -> bool {
        self.scopes
            .iter()
            .any(|scope| scope.actions.contains(&action) && scope.repositories.matches(repository.as_str()))
    }

    /// Whether they cover the list of repositories.
    pub fn permit_catalog(&self) -> bool {
        self.catalog
    }

    /// The same, and for `here` what they are for `named`: two names of one repository.
    #[must_use]
    pub fn also(&self, named: &RepositoryName, here: &RepositoryName) -> Self {
        let mut also = self.clone();
        let actions: BTreeSet<Action> =
            Action::ALL.into_iter().filter(|action| self.permit(*action, named)).collect();
        if let Ok(repositories) = here.as_str().parse()
            && !actions.is_empty()
        {
            also.scopes.push(Scope { repositories, actions });
        }
        also
    }

    /// Leaves of each repository what `may` says yes to.
    pub(crate) fn retain(&mut self, may: impl Fn(Action, &RepositoryName) -> bool) {
        for scope in &mut self.scopes {
            let Ok(name) = scope.repositories.as_str().parse::<RepositoryName>() else {
                scope.actions.clear();
                continue;
            };
            scope.actions.retain(|action| may(*action, &name));
        }
        self.scopes.retain(|scope| !scope.actions.is_empty());
    }

    /// Those about repositories.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.iter()
    }

    /// Takes the list of repositories in.
    #[must_use]
    pub(crate) fn with_catalog(self, catalog: bool) -> Self {
        Self { catalog, ..self }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = self.scopes.iter().map(ToString::to_string).collect();
        texts.extend(self.catalog.then(|| CATALOG.to_owned()));
        f.write_str(&texts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn what_an_operator_writes_is_right_or_refused() {
        let scopes = Scopes::parse(["repository:team/**:pull,push", "repository:a:*"]).unwrap();
        assert!(scopes.permit(Action::Push, &name("team/app")));
        assert!(!scopes.permit(Action::Delete, &name("team/app")));
        assert!(scopes.permit(Action::Delete, &name("a")));
        assert!(!scopes.permit(Action::Pull, &name("b")));
        assert_eq!(scopes.to_string(), "repository:team/**:pull,push repository:a:pull,push,delete");
        for text in [
            "",
            "a",
            "repository:a",
            "repository::pull",
            "repository:a:",
            "repository:a:read",
            "registry:a:*",
        ] {
            assert!(Scopes::parse([text]).is_err(), "{text}");
        }
        assert_eq!(Scopes::parse(["repository:a:pull"; MAX_SCOPES + 1]), Err(ScopeError::TooMany));
    }

    #[test]
    fn what_a_client_asks_for_is_granted_as_far_as_it_is_known() {
        let asked = [
            "repository:a/b:pull,push,frob repository(plugin):x:pull",
            "registry:catalog:*",
            "x",
            "repository:**:pull",
        ];
        let scopes = Scopes::requested(asked).unwrap();
        assert_eq!(scopes.to_string(), "repository:a/b:pull,push registry:catalog:*");
        assert!(scopes.permit_catalog() && !scopes.permit(Action::Pull, &name("other")));
        let many = "repository:a:pull ".repeat(MAX_SCOPES + 1);
        assert_eq!(Scopes::requested([&*many]), Err(ScopeError::TooMany));
    }

    #[test]
    fn two_names_of_one_repository() {
        let scopes = Scopes::requested(["repository:library/debian:pull"]).unwrap();
        let (named, here) = (name("library/debian"), name("docker.io/library/debian"));
        assert!(!scopes.permit(Action::Pull, &here));
        let also = scopes.also(&named, &here);
        assert!(also.permit(Action::Pull, &here) && !also.permit(Action::Push, &here));
        assert_eq!(scopes.also(&name("x"), &here), scopes);
    }
}
