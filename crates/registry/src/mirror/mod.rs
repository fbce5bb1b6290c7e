//! Mirroring by tag: rules say which tags of which repository are to be here, with which platforms, and a run makes it so.
//!
//! A run looks at each tag (`survey`), plans (`plan`) and takes the steps of the plan (`run`), one tag after the
//! other; to plan is the same without the last part. Content comes over the same fill as for clients: deltas first, one
//! transfer per blob, resumed where it was. What does not belong to the image under its platforms is not fetched; what
//! says something about it (signatures, attestations, other referrers) always is, and first.

mod catalog;
mod created;
mod hours;
mod plan;
mod run;
mod schedule;
pub mod select;
mod survey;
pub mod timetable;

use std::sync::Arc;

use deltaport_oci::{RepositoryName, platform};
use serde::{Deserialize, Serialize};

use crate::fill::Terms;
use crate::upstream::Source;
use crate::{Error, Registry, Result};

pub use catalog::{Listing, Repositories, Unlisted};
pub(crate) use hours::Gate;
pub use hours::{Begin, Clock, Hours, zone};
pub use jiff::tz::TimeZone;
pub use plan::Step;
pub(crate) use run::Mirrors;
pub use run::{Outcome, Report, Request, TagReport};
pub use select::Selection;

/// What is to be here of a repository of an upstream.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it is called.
    pub name: String,
    /// The upstream, by the name that clients know it by.
    pub host: String,
    /// Which of its repositories.
    pub repositories: Repositories,
    /// Which of its tags.
    pub tags: Selection,
    /// Which children of their indexes; when that is everything, those that are wanted of the upstream otherwise.
    pub platforms: platform::Filter,
    /// When the registry begins a run by itself.
    pub begin: Begin,
    /// When its runs may go on. Outside these hours a run rests: no manifest or blob is asked for, blobs of which a part
    /// is here are broken off, and only deltas come to their ends.
    pub hours: Hours,
    /// The most bytes of blobs a second that its runs fetch; `None` is as many as nobody else wants.
    pub bandwidth: Option<u64>,
}

impl Rule {
    /// A rule for these tags of a repository, with all that is wanted of its upstream, which runs when it is told to.
    pub fn new(name: &str, host: &str, repositories: Repositories, tags: Selection) -> Self {
        Self {
            name: name.to_owned(),
            host: host.to_owned(),
            repositories,
            tags,
            platforms: platform::Filter::ALL,
            begin: Begin::Never,
            hours: Hours::default(),
            bandwidth: None,
        }
    }
}

/// A rule as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Listed {
    /// Its name.
    pub rule: String,
    /// The repository of this registry that it fills.
    pub repository: RepositoryName,
    /// The repository that it mirrors, as `host/repository`.
    pub source: String,
}

/// A rule with the places that it means.
#[derive(Clone, Debug)]
struct Job {
    rule: Rule,
    /// The local repository.
    repository: RepositoryName,
    source: Source,
    /// Which children of indexes are wanted.
    filter: platform::Filter,
    /// What its transfers have to keep to.
    terms: Arc<Terms>,
}

impl Job {
    fn listed(&self) -> Listed {
        Listed {
            rule: self.rule.name.clone(),
            repository: self.repository.clone(),
            source: format!("{}/{}", self.rule.host, self.source.repository),
        }
    }
}

impl Registry {
    /// Fails when the upstream of a mirror rule is not configured, or does not serve its repository.
    pub fn check_mirrors(&self) -> Result<(), String> {
        for Rule { name, host, repositories, .. } in &self.options().mirrors {
            let known = match repositories {
                Repositories::One(repository) => self.locate(repository, Some(host), None).is_ok(),
                Repositories::Matching(_) => self.0.upstreams.by_host(host).is_some(),
            };
            if !known {
                return Err(format!(
                    "the mirror {name} has no upstream: there is no [[upstream]] with host = \"{host}\" that serves {repositories}"
                ));
            }
        }
        Ok(())
    }

    /// The job of the rule of this name that fills `repository`.
    async fn job_of(&self, repository: &RepositoryName, rule: &str) -> Result<Job> {
        if let Some(there) = self.0.upstreams.source(repository).map(|source| source.repository) {
            for rule in self.options().mirrors.iter().filter(|one| one.name == rule) {
                if self.local_name(rule, &there).as_ref() == Some(repository)
                    && self.is_about(rule, &there).await
                    && let Some(job) = self.job(rule, &there)
                {
                    return Ok(job);
                }
            }
        }
        Err(Error::MirrorUnknown(rule.into()))
    }

    /// What a rule means for a repository of its upstream; `None` when that is not served.
    fn job(&self, rule: &Rule, repository: &RepositoryName) -> Option<Job> {
        let repository = self.local_name(rule, repository)?;
        let source = self.0.upstreams.source(&repository)?;
        let filter = match rule.platforms.is_all() {
            true => source.remote.platforms.clone(),
            false => rule.platforms.clone(),
        };
        let gate = Gate::new(rule.hours.clone(), self.options().clock);
        let received = self.metrics().received_for(&rule.name, &repository);
        let terms = Arc::new(Terms { gate, cap: self.0.mirrors.cap(&rule.name), received });
        Some(Job { rule: rule.clone(), repository, source, filter, terms })
    }
}
