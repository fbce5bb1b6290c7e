//! Mirroring by tag: rules say which tags of which repository are to be here, with which platforms, and a run makes it so.
//!
//! A run looks at each tag (`survey`), plans (`plan`) and takes the steps of the plan (`run`), one tag after the
//! other; to plan is the same without the last part. Content comes over the same fill as for clients: deltas first, one
//! transfer per blob, resumed where it was. What does not belong to the image under its platforms is not fetched; what
//! says something about it (signatures, attestations, other referrers) always is, and first.

mod catalog;
mod created;
mod destination;
mod elsewhere;
mod hours;
mod layout;
mod moving;
mod origin;
mod plan;
mod prune;
mod report;
mod run;
mod schedule;
pub mod select;
mod send;
mod steps;
mod survey;
pub mod timetable;

use std::path::PathBuf;
use std::sync::Arc;

use deltaport_oci::{RepositoryName, platform};
use serde::{Deserialize, Serialize};

use crate::fill::Terms;
use crate::{Error, Registry, Result};

use destination::Target;
use layout::Layout;
use origin::Origin;
use survey::Survey;

pub use catalog::{Listing, Repositories, Unlisted};
pub use destination::Destination;
pub(crate) use hours::Gate;
pub use hours::{Begin, Clock, Hours, zone};
pub use jiff::tz::TimeZone;
pub use moving::Moving;
pub use plan::Step;
pub use prune::{Cap, CapError};
pub use report::{Now, Outcome, Removal, Report, TagReport};
pub(crate) use run::Mirrors;
pub use run::Request;
pub use select::Selection;

/// What is to be here of a repository of an upstream.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it is called.
    pub name: String,
    /// The upstream, by the name that clients know it by.
    pub host: String,
    /// Which of its repositories; of a layout, the one that is filled here.
    pub repositories: Repositories,
    /// Where the content is instead of at an upstream: an OCI image layout in this directory.
    pub layout: Option<PathBuf>,
    /// Where it goes on to from here.
    pub to: Option<Destination>,
    /// How many tags a run may remove that this rule has brought and does not want any more; `None` removes nothing.
    pub prune: Option<Cap>,
    /// Which of its tags.
    pub tags: Selection,
    /// Which children of their indexes; when that is everything, those that are wanted of the upstream otherwise.
    pub platforms: platform::Filter,
    /// When the registry begins a run by itself.
    pub begin: Begin,
    /// When its runs may go on. Outside these hours a run rests: no manifest or blob is asked for, blobs of which a part
    /// is here are broken off, and only deltas come to their ends.
    pub hours: Hours,
    /// The most bytes of blobs a second that its runs fetch, and as many that they send to a destination; `None` is as many
    /// as nobody else wants.
    pub bandwidth: Option<u64>,
}

impl Rule {
    /// A rule for these tags of a repository, with all that is wanted of its upstream, which runs when it is told to.
    pub fn new(name: &str, host: &str, repositories: Repositories, tags: Selection) -> Self {
        Self {
            name: name.to_owned(),
            host: host.to_owned(),
            repositories,
            layout: None,
            to: None,
            prune: None,
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
    /// The repository that it mirrors, as `host/repository`, or `oci:DIRECTORY`.
    pub source: String,
    /// Where it goes on to from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A rule with the places that it means.
#[derive(Clone, Debug)]
struct Job {
    rule: Rule,
    /// The local repository.
    repository: RepositoryName,
    source: Origin,
    to: Option<Target>,
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
            source: match &self.source {
                Origin::Upstream(source) => format!("{}/{}", self.rule.host, source.repository),
                Origin::Layout(layout) => layout.to_string(),
            },
            to: self.to.as_ref().map(|target| target.place.clone()),
        }
    }
}

impl Registry {
    /// Fails with a sentence when a place that a mirror rule names is not configured, or cannot be mirrored to.
    pub fn check_mirrors(&self) -> Result<(), String> {
        for rule in &self.options().mirrors {
            let Rule { name, host, repositories, .. } = rule;
            if let Some(Destination::Registry { host, .. }) = &rule.to
                && self.0.upstreams.by_host(host).is_none()
            {
                return Err(format!(
                    "the mirror {name} cannot reach its destination: there is no [[upstream]] with host = \"{host}\""
                ));
            }
            let known = match repositories {
                Repositories::One(repository) if rule.layout.is_some() => {
                    if self.check_own(repository).is_err() {
                        return Err(format!(
                            "the mirror {name} cannot fill {repository}, which is an upstream's"
                        ));
                    }
                    true
                }
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
        let upstream = self.0.upstreams.source(repository).map(|source| source.repository);
        for rule in self.options().mirrors.iter().filter(|one| one.name == rule) {
            let there = match &upstream {
                _ if rule.layout.is_some() => repository,
                Some(there) if self.local_name(rule, there).as_ref() == Some(repository) => there,
                _ => continue,
            };
            let job = if self.is_about(rule, there).await { self.job(rule, there) } else { None };
            if let Some(job) = job {
                return Ok(job);
            }
        }
        Err(Error::MirrorUnknown(rule.into()))
    }

    /// What a rule means for a repository of its upstream; `None` when that is not served.
    fn job(&self, rule: &Rule, repository: &RepositoryName) -> Option<Job> {
        let to = match &rule.to {
            Some(destination) => Some(self.target(&destination.for_one(&rule.repositories, repository)?)?),
            None => None,
        };
        let gate = Gate::new(rule.hours.clone(), self.options().clock);
        let terms = |repository: &RepositoryName| {
            let received = self.metrics().received_for(&rule.name, repository);
            Arc::new(Terms { gate, cap: self.0.mirrors.cap(&rule.name), received })
        };
        if let Some(path) = &rule.layout {
            let source = Origin::Layout(Arc::new(Layout::source(path)));
            let terms = terms(repository);
            let (rule, repository) = (rule.clone(), repository.clone());
            return Some(Job { filter: rule.platforms.clone(), rule, repository, source, to, terms });
        }
        let repository = self.local_name(rule, repository)?;
        let source = self.0.upstreams.source(&repository)?;
        let filter = match rule.platforms.is_all() {
            true => source.remote.platforms.clone(),
            false => rule.platforms.clone(),
        };
        let terms = terms(&repository);
        Some(Job { rule: rule.clone(), repository, source: Origin::Upstream(source), to, filter, terms })
    }
}
