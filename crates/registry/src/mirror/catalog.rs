//! Rules for more than one repository: those in the upstream's catalog that fit a pattern, each a job of its own.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltaport_client::ErrorKind;
use deltaport_oci::RepositoryName;
use deltaport_trust::{Action, Caller, Pattern};
use serde::{Deserialize, Serialize};

use super::{Job, Listed, Rule};
use crate::Registry;

/// How many repositories one rule may be about.
const MAX_REPOSITORIES: usize = 1000;
/// How long a catalog is believed. Whoever sees the rules has it asked for.
const LIFE: Duration = Duration::from_secs(60);
/// How long it is believed that there is none.
const FAILED_LIFE: Duration = Duration::from_secs(10);
/// How long all pages of a catalog may take.
const LONGEST: Duration = Duration::from_secs(120);

/// The repositories of an upstream that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repositories {
    /// This one, as it is called there.
    One(RepositoryName),
    /// Those in its catalog that fit.
    Matching(Pattern),
}

impl fmt::Display for Repositories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(name) => name.fmt(f),
            Self::Matching(pattern) => pattern.fmt(f),
        }
    }
}

impl Repositories {
    /// Whether the rule is about this one, if there is one.
    fn has(&self, name: &RepositoryName) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Matching(pattern) => pattern.matches(name.as_str()),
        }
    }

    /// A repository that the rule is about, whether there is such a one or not.
    fn example(&self) -> Option<RepositoryName> {
        match self {
            Self::One(name) => Some(name.clone()),
            Self::Matching(pattern) => pattern.to_string().replace("**", "*").replace('*', "x").parse().ok(),
        }
    }
}

/// The rules there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Listing {
    /// Each with a repository that it fills.
    pub mirrors: Vec<Listed>,
    /// Those whose repositories are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Unlisted>,
}

/// A rule whose repositories are not known.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Unlisted {
    /// Its name.
    pub rule: String,
    /// Why not, in a sentence.
    pub why: String,
}

/// What a catalog has for a rule, or why that is not known.
pub(super) type Found = Result<Arc<[RepositoryName]>, Arc<str>>;

impl Registry {
    /// The mirror rules whose repositories `caller` may pull from, in the order of the configuration, and of each rule in
    /// that of the names. Asks the upstreams of those that are about a pattern for their catalogs, at most once a minute.
    pub async fn mirrors(&self, caller: &Caller) -> Listing {
        let mut listing = Listing::default();
        for rule in &self.options().mirrors {
            match self.jobs(rule).await {
                Ok(jobs) => {
                    let visible = jobs.iter().filter(|job| self.may(caller, Action::Pull, &job.repository));
                    listing.mirrors.extend(visible.map(Job::listed));
                }
                // Seen by whoever could see such a repository.
                Err(why) => {
                    let example = rule.repositories.example().and_then(|name| self.local_name(rule, &name));
                    if example.is_some_and(|example| self.may(caller, Action::Pull, &example)) {
                        listing.failed.push(Unlisted { rule: rule.name.clone(), why });
                    }
                }
            }
        }
        listing
    }

    /// The jobs of a rule, in the order of their repositories.
    pub(super) async fn jobs(&self, rule: &Rule) -> Result<Vec<Job>, String> {
        let names = match &rule.repositories {
            Repositories::One(name) => vec![name.clone()],
            Repositories::Matching(_) => self.cataloged(rule).await?.to_vec(),
        };
        // What the configuration keeps from being served is not mirrored either.
        let jobs: Vec<Job> = names.iter().filter_map(|name| self.job(rule, name)).collect();
        match jobs.is_empty() {
            true => Err(format!("no repository of {} fits {}", rule.host, rule.repositories)),
            false => Ok(jobs),
        }
    }

    /// Whether a rule is about a repository of its upstream. Names that only fit a pattern are none that it is about:
    /// there could be any number of them.
    pub(super) async fn is_about(&self, rule: &Rule, name: &RepositoryName) -> bool {
        let fits = rule.repositories.has(name);
        match &rule.repositories {
            Repositories::One(_) => fits,
            Repositories::Matching(_) => {
                fits && self.cataloged(rule).await.is_ok_and(|all| all.contains(name))
            }
        }
    }

    /// The repositories of the catalog that a rule is about.
    async fn cataloged(&self, rule: &Rule) -> Result<Arc<[RepositoryName]>, String> {
        let memory = &self.0.mirrors.catalogs;
        let found = match memory.recall(&rule.name) {
            Some(found) => found,
            None => {
                let found = self.ask_for_catalog(rule).await.map_err(Arc::from);
                let life = if found.is_ok() { LIFE } else { FAILED_LIFE };
                memory.remember(rule.name.clone(), found.clone(), Instant::now() + life);
                found
            }
        };
        found.map_err(|why| why.to_string())
    }

    async fn ask_for_catalog(&self, rule: &Rule) -> Result<Arc<[RepositoryName]>, String> {
        let Rule { host, repositories, .. } = rule;
        let remote = self.0.upstreams.by_host(host).ok_or_else(|| format!("there is no upstream {host}"))?;
        let asked = tokio::time::timeout(LONGEST, remote.client.catalog()).await;
        let all = asked.map_err(|_| format!("{host} takes too long to say which repositories it has"))?;
        let all = all.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::Denied(_) | ErrorKind::Protocol(_) => format!(
                "{host} does not tell us which repositories it has ({error}); name each in the source of a rule of its own"
            ),
            _ => format!("it is not known which repositories there are: {error}"),
        })?;
        let fitting: BTreeSet<RepositoryName> =
            all.into_iter().filter(|name| repositories.has(name)).collect();
        match fitting.len() {
            many if many > MAX_REPOSITORIES => Err(format!(
                "{many} repositories of {host} fit {repositories}; a rule may be about {MAX_REPOSITORIES}"
            )),
            _ => Ok(fitting.into_iter().collect()),
        }
    }

    /// How a repository of the upstream of a rule is called here, if it is served.
    pub(super) fn local_name(&self, rule: &Rule, name: &RepositoryName) -> Option<RepositoryName> {
        Some(self.locate(name, Some(&rule.host), None).ok()?.repository.into_owned())
    }
}
