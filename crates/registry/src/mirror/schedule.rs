//! Rules that are run by the registry itself, again and again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Begin, Job, Outcome, Report, Request, Rule};
use crate::Registry;

/// How long one look at a run waits for its end; then it is looked at again.
const LOOK: Duration = Duration::from_secs(60 * 60);

impl Registry {
    /// Runs every rule that says when ([`Rule::begin`](super::Rule::begin)), until `stop`. A run in progress is not waited
    /// for: the next goes on where it was.
    pub async fn mirror_by_schedule(&self, stop: CancellationToken) {
        let rules = TaskTracker::new();
        for rule in &self.options().mirrors {
            if rule.begin != Begin::Never {
                let (registry, rule, stop) = (self.clone(), rule.clone(), stop.clone());
                rules.spawn(async move { stop.run_until_cancelled(registry.again_and_again(&rule)).await });
            }
        }
        rules.close();
        rules.wait().await;
    }

    async fn again_and_again(&self, rule: &Rule) {
        let Rule { begin, hours, .. } = rule;
        let clock = self.options().clock;
        let at_once = match begin {
            Begin::Never => return,
            Begin::Every(_) => true,
            Begin::At(schedule) => hours.is_hour_of(schedule, (clock.0)()),
        };
        if at_once {
            self.run_all(rule).await;
        }
        loop {
            match begin {
                Begin::Never => return,
                Begin::Every(pause) => tokio::time::sleep(*pause).await,
                Begin::At(schedule) => hours.next(schedule, clock).await,
            }
            self.run_all(rule).await;
        }
    }

    /// Runs a rule for each of its repositories, one after the other.
    async fn run_all(&self, rule: &Rule) {
        match self.jobs(rule).await {
            Ok(jobs) => {
                for job in &jobs {
                    self.run_to_the_end(job).await;
                }
            }
            Err(why) => tracing::warn!(rule = rule.name, why, "a mirror could not be run"),
        }
    }

    /// Begins a run, or joins one, and waits for its end.
    async fn run_to_the_end(&self, job: &Job) {
        let mut number = None;
        loop {
            match self.mirror(&job.repository, &job.rule.name, Request::Run, number, LOOK).await {
                Ok(report) if report.done => return tell(&report),
                Ok(report) => number = Some(report.run),
                // Somebody has begun another run since this one ended.
                Err(_) => return,
            }
        }
    }
}

/// One line in the log for a run.
fn tell(report: &Report) {
    let count = |outcome| report.tags.iter().filter(|tag| tag.outcome == outcome).count();
    let (unchanged, mirrored, failed) =
        (count(Outcome::Unchanged), count(Outcome::Mirrored), count(Outcome::Failed));
    let (rule, repository, received) = (&report.rule.rule, &report.rule.repository, report.received);
    match (&report.failed, failed) {
        (Some(why), _) => tracing::warn!(rule, %repository, why, "a mirror could not be run"),
        (None, 0) => tracing::info!(rule, %repository, unchanged, mirrored, received, "mirrored"),
        (None, _) => {
            tracing::warn!(rule, %repository, unchanged, mirrored, failed, received, "mirrored, but not all of it");
        }
    }
}
