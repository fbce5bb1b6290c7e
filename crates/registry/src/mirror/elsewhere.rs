//! Runs at other replicas: whoever follows a run through a balancer comes to another replica each time, and whoever begins
//! one may come to one that does not know that another is at it.

use std::time::Duration;

use deltaport_oci::RepositoryName;

use super::report::Report;
use super::run::Run;
use crate::{Error, Registry, Result};

/// How often a replica says how far a run is.
const TELL: Duration = Duration::from_secs(2);
/// How often it is looked what it says.
const LOOK: Duration = Duration::from_millis(500);

/// What replicas call the runs of a rule for a repository.
fn topic(rule: &str, repository: &RepositoryName, plan: bool) -> String {
    let kind = if plan { "plan" } else { "run" };
    format!("mirror {kind} {rule} {repository}")
}

impl Registry {
    /// The number that the first run of this process has. Those of replicas are apart, so that one is not taken for
    /// another; whatever they are, they are numbers that every JSON can hold.
    pub(crate) fn first_run(is_shared: bool) -> u64 {
        match is_shared.then(getrandom::u64) {
            Some(Ok(random)) => random >> 12,
            _ => 1,
        }
    }

    /// How far a run at another replica is: that of this number, or the last one if that is under way. Waits for its end,
    /// but no longer than `patience`. `None` when no replica says anything about it, and when who ran it dies meanwhile
    /// unless it was asked for by its number: then another has to be begun.
    pub(super) async fn elsewhere(
        &self,
        repository: &RepositoryName,
        rule: &str,
        plan: bool,
        number: Option<u64>,
        patience: Duration,
    ) -> Result<Option<Report>> {
        let (names, topic) = (self.store().names(), topic(rule, repository, plan));
        let until = tokio::time::Instant::now() + patience;
        let asked_for = number.is_some();
        let (mut number, mut joined) = (number, false);
        loop {
            let Some(told) = names.told(&topic, number).await? else { return Ok(None) };
            let report: Report = serde_json::from_str(&told.text)
                .map_err(|_| Error::internal("another replica tells of a run in other words"))?;
            let lives = told.age < self.options().replicas.lease;
            match (report.done, lives) {
                // One that has ended is none to be joined, and one that has died none to be waited for.
                (true, _) if !asked_for && !joined => return Ok(None),
                (false, false) if !asked_for => return Ok(None),
                (true, _) => return Ok(Some(report)),
                (false, false) => {
                    let failed = Some("the replica that ran it is gone; run it again".to_owned());
                    return Ok(Some(Report { done: true, now: None, failed, ..report }));
                }
                (false, true) if tokio::time::Instant::now() >= until => return Ok(Some(report)),
                (false, true) => (number, joined) = (Some(told.number), true),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Says to other replicas how far a run is, for as long as this is waited for.
    pub(super) async fn tell_others(&self, run: &Run) {
        if !self.store().is_shared() {
            return std::future::pending().await;
        }
        loop {
            let mut report = self.so_far(run);
            // What was done for each tag is told at the end.
            report.tags.iter_mut().for_each(|tag| tag.steps = Vec::new());
            self.tell_of_run(run, &report).await;
            // Who says nothing for as long as a lease lasts is taken for dead.
            tokio::time::sleep(TELL.min(self.options().replicas.lease / 3)).await;
        }
    }

    /// Says to other replicas how a run has ended.
    pub(super) async fn tell_the_end(&self, run: &Run) {
        if self.store().is_shared() {
            self.tell_of_run(run, &self.so_far(run)).await;
        }
    }

    async fn tell_of_run(&self, run: &Run, report: &Report) {
        let topic = topic(&run.job.rule.name, &run.job.repository, run.plan);
        let told = match serde_json::to_string(report) {
            Ok(text) => {
                self.store().names().tell(&topic, run.number, text).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = told {
            tracing::debug!(rule = run.job.rule.name, error, "other replicas are not told how far a run is");
        }
    }
}
