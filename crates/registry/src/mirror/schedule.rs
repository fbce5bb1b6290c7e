//! Rules that are run by the registry itself, again and again.

use std::time::Duration;

use deltaport_store::Slot;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Begin, Job, Outcome, Report, Request, Rule};
use crate::{Error, Registry, Result};

/// How long one look at a run waits for its end; then it is looked at again.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// How often it is looked within the life of a lease whether who runs a rule still lives.
const LOOKS: u32 = 3;

/// What the lease and the times of a rule are called.
fn slot(rule: &Rule) -> String {
    format!("mirror {}", rule.name)
}

impl Registry {
    /// Runs every rule that says when ([`Rule::begin`](super::Rule::begin)), until `stop`. A run in progress is not waited
    /// for: the next goes on where it was. Of several replicas, one runs a rule each time.
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
        let clock = self.options().clock;
        match &rule.begin {
            Begin::Never => {}
            Begin::Every(pause) => loop {
                self.wait_for_turn(rule, *pause).await;
            },
            Begin::At(schedule) => {
                if let Some(due) = rule.hours.hour_of(schedule, (clock.0)()) {
                    self.run_once(rule, due.as_millisecond()).await;
                }
                loop {
                    let due = rule.hours.next(schedule, clock).await;
                    self.run_once(rule, due.as_millisecond()).await;
                }
            }
        }
    }

    /// Runs a rule for a time of its schedule, unless another replica does or has: one that dies of it is followed by
    /// another. Returns when it was run for that time.
    async fn run_once(&self, rule: &Rule, due: i64) {
        let name = slot(rule);
        loop {
            match self.alone(&name, Box::pin(self.run_slot(rule, &name, due))).await {
                Ok(Some(Ok(()))) => return,
                Ok(None) => {}
                Ok(Some(Err(error))) => tell_trouble(rule, &error),
                Err(error) => tell_trouble(rule, &error.into()),
            }
            tokio::time::sleep(self.options().replicas.lease / LOOKS).await;
        }
    }

    /// Runs a rule if so long has passed since its last run, at whichever replica, or that was not ended; otherwise waits.
    async fn wait_for_turn(&self, rule: &Rule, pause: Duration) {
        let name = slot(rule);
        let work = async {
            // The clock of the database counts; should this one go before it, the next run comes earlier by as much.
            let now = Timestamp::now().as_millisecond();
            let due = match self.store().names().slot(&name).await? {
                None => now,
                Some(Slot { due, done: None }) => due,
                Some(Slot { due, done: Some(done) }) => {
                    let next = done.saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
                    if let Ok(left @ 1..) = u64::try_from(next.saturating_sub(now)) {
                        return Ok(Duration::from_millis(left));
                    }
                    next.max(due.saturating_add(1))
                }
            };
            self.run_slot(rule, &name, due).await.map(|()| Duration::ZERO)
        };
        let look = self.options().replicas.lease / LOOKS;
        let left = match self.alone(&name, Box::pin(work)).await {
            Ok(Some(Ok(left))) => left,
            Ok(None) => look,
            Ok(Some(Err(error))) => {
                tell_trouble(rule, &error);
                look
            }
            Err(error) => {
                tell_trouble(rule, &error.into());
                look
            }
        };
        // Not longer than the pause, whatever the clocks say.
        tokio::time::sleep(left.min(pause)).await;
    }

    /// Runs a rule for a time, unless that was done. One that could not be run is not done.
    async fn run_slot(&self, rule: &Rule, name: &str, due: i64) -> Result<()> {
        let names = self.store().names();
        if names.begin_slot(name, due).await? {
            self.run_all(rule).await?;
            names.end_slot(name, due).await?;
        }
        Ok(())
    }

    /// Runs a rule for each of its repositories, one after the other.
    async fn run_all(&self, rule: &Rule) -> Result<()> {
        match self.jobs(rule).await {
            Ok(jobs) => {
                for job in &jobs {
                    self.run_to_the_end(job).await?;
                }
            }
            Err(why) => tracing::warn!(rule = rule.name, why, "a mirror could not be run"),
        }
        Ok(())
    }

    /// Begins a run, or joins one, and waits for its end.
    async fn run_to_the_end(&self, job: &Job) -> Result<()> {
        let mut number = None;
        loop {
            match self.mirror(&job.repository, &job.rule.name, Request::Run, number, LOOK).await {
                Ok(report) if report.done => {
                    tell(&report);
                    return Ok(());
                }
                Ok(report) => number = Some(report.run),
                // Somebody has begun another run since this one ended.
                Err(Error::MirrorUnknown(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// One line in the log for one that could not be begun.
fn tell_trouble(rule: &Rule, error: &Error) {
    tracing::warn!(rule = rule.name, error = %error, "a mirror could not be run; it is tried again");
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
