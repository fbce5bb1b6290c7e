//! A run of a rule: tag by tag, the steps of the plan. It belongs to the registry and not to whoever began it; who asks
//! for it again is told how far it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltaport_oci::{Digest, Reference, RepositoryName, Tag};
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;

use super::origin::Origin;
use super::plan::{Absent, Found, Here, Planner, Step};
use super::report::{Now, Outcome, Report, TagReport};
use super::survey::Survey;
use super::{Job, Rule, catalog, moving, origin};
use crate::fill::Cap;
use crate::image::Failed;
use crate::memory::Memory;
use crate::{Error, Registry, Result};

/// How many blobs of one tag are fetched, or wait for their turn on the link, at the same time.
pub(super) const BLOBS: usize = 32;
/// What notes are called that an image is here with everything about it: by rule, local repository, platforms and digest.
const SETTLED: &str = "mirror-settled";
/// How many of these notes there are. One takes about 250 bytes.
const MAX_SETTLED: usize = 65_536;
/// How long that is believed while the tag does not move: signatures may be added to an image that is as it was.
const SETTLED_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// For how many rules the catalog is remembered.
const MAX_CATALOGS: usize = 1024;
/// How many runs are remembered. When there are more, those that are over are forgotten.
const MAX_RUNS: usize = 4096;
/// How many tags one run looks at.
pub(super) const MAX_TAGS: usize = 10_000;

/// Tags, with what they lead to where that has been looked at.
type Wanted = BTreeMap<Tag, Option<Digest>>;

/// A rule, a local repository, and whether it is only planned.
type Key = (String, RepositoryName, bool);

/// The runs there are.
#[derive(Debug)]
pub(crate) struct Mirrors {
    /// The last run of each rule, repository and kind.
    runs: Mutex<BTreeMap<Key, Arc<Run>>>,
    next: AtomicU64,
    /// Repositories that the catalogs of upstreams have for rules.
    pub(super) catalogs: Memory<String, catalog::Found>,
    /// What the transfers of each rule that has a cap share.
    caps: BTreeMap<String, Cap>,
}

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    pub(super) job: Job,
    pub(super) plan: bool,
    pub(super) report: watch::Sender<Report>,
    /// What the origin had sent when it began.
    before: u64,
    /// How many bytes were given to the destination.
    pub(super) sent: AtomicU64,
    pub(super) blobs: moving::Blobs,
}

impl Run {
    fn received(&self) -> u64 {
        self.job.source.received().saturating_sub(self.before)
    }

    /// Waits until it may go on; to plan is allowed at any hour.
    pub(super) async fn in_its_hours(&self) {
        if !self.plan {
            self.job.terms.gate.opened().await;
        }
    }

    /// So many bytes of the steps of the present tag are done.
    pub(super) fn advance(&self, bytes: u64) {
        self.report.send_modify(|report| {
            if let Some(now) = &mut report.now {
                now.bytes = now.bytes.saturating_add(bytes);
            }
        });
    }
}

/// What is planned so far, so that what one tag brings the next finds.
#[derive(Debug, Default)]
pub(super) struct Planned {
    here: Planner,
    there: Planner,
}

impl Mirrors {
    /// `first` is the number of the first run.
    pub(crate) fn new(rules: &[Rule], first: u64) -> Self {
        let capped = rules.iter().filter(|rule| rule.bandwidth.is_some());
        let caps = capped.map(|rule| (rule.name.clone(), Cap::new(rule.bandwidth)));
        Self {
            runs: Mutex::default(),
            next: AtomicU64::new(first),
            catalogs: Memory::new(MAX_CATALOGS),
            caps: caps.collect(),
        }
    }

    /// What the transfers of this rule share.
    pub(super) fn cap(&self, rule: &str) -> Cap {
        self.caps.get(rule).cloned().unwrap_or_default()
    }

    /// What the last run of a rule for a repository says of a tag: whether it was wanted; `None` while there is none that
    /// came to its end.
    pub(super) fn wanted(&self, rule: String, repository: &RepositoryName, tag: &Tag) -> Option<bool> {
        let run = self.runs().get(&(rule, repository.clone(), false)).map(Arc::clone)?;
        let report = run.report.borrow();
        let over = report.done && report.failed.is_none();
        over.then(|| report.tags.iter().any(|wanted| wanted.tag == *tag))
    }

    /// Nothing under this lock can stop half-way, so a poisoned one is as good as any.
    fn runs(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is asked about a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// What a run would do.
    Plan,
    /// A run, in its hours.
    Run,
    /// A run, whatever the hour.
    RunNow,
}

impl Registry {
    /// Runs the rule of this name that fills `repository`, or only plans the run. Joins one that is under way. Waits for
    /// its end, but no longer than `patience`; what is returned is how far it is. With the number of a run, nothing is
    /// begun. A run goes on when nobody waits for it.
    ///
    /// Fails with [`Error::MirrorUnknown`] when there is no such rule, or the run of that number is forgotten: the last
    /// of each rule is remembered.
    pub async fn mirror(
        &self,
        repository: &RepositoryName,
        rule: &str,
        request: Request,
        number: Option<u64>,
        patience: Duration,
    ) -> Result<Report> {
        let plan = request == Request::Plan;
        let here = self.0.mirrors.runs().get(&(rule.to_owned(), repository.clone(), plan)).map(Arc::clone);
        let here = here.filter(|run| match number {
            Some(number) => run.number == number,
            None => !run.report.borrow().done,
        });
        let run = match here {
            Some(run) => run,
            None => {
                let job = self.job_of(repository, rule).await?;
                // One that is to go on now is begun here, whatever the hour is elsewhere.
                if request != Request::RunNow || number.is_some() {
                    let elsewhere = self.elsewhere(repository, rule, plan, number, patience).await?;
                    if let Some(report) = elsewhere {
                        return Ok(report);
                    }
                }
                if number.is_some() {
                    return Err(Error::MirrorUnknown(rule.into()));
                }
                self.begin(job, plan)
            }
        };
        if request == Request::RunNow {
            run.job.terms.gate.force();
        }
        let mut report = run.report.subscribe();
        // How far it is is answer enough.
        let _late = tokio::time::timeout(patience, report.wait_for(|report| report.done)).await;
        Ok(self.so_far(&run))
    }

    /// How far a run is.
    pub(super) fn so_far(&self, run: &Run) -> Report {
        let mut report = run.report.borrow().clone();
        if !report.done {
            (report.received, report.sent) = (run.received(), run.sent.load(Ordering::Relaxed));
            report.rests_until = if run.plan { None } else { run.job.terms.gate.opens() };
            report.moving = run.blobs.list(|blob| self.0.fills.arrived(&run.job.repository, blob));
        }
        report
    }

    /// The run of the rule that is under way, or a new one.
    fn begin(&self, job: Job, plan: bool) -> Arc<Run> {
        let mut runs = self.0.mirrors.runs();
        let key = (job.rule.name.clone(), job.repository.clone(), plan);
        if let Some(run) = runs.get(&key).filter(|run| !run.report.borrow().done) {
            return Arc::clone(run);
        }
        if runs.len() >= MAX_RUNS {
            runs.retain(|_, run| !run.report.borrow().done);
        }
        let number = self.0.mirrors.next.fetch_add(1, Ordering::Relaxed);
        let report = watch::Sender::new(Report::begin(job.listed(), number, plan));
        let before = job.source.received();
        let run = Arc::new(Run {
            number,
            job,
            plan,
            report,
            before,
            sent: AtomicU64::new(0),
            blobs: moving::Blobs::default(),
        });
        runs.insert(key, Arc::clone(&run));
        drop(runs);
        tokio::spawn({
            let (registry, run) = (self.clone(), Arc::clone(&run));
            async move {
                let ended = Ended(Arc::clone(&run));
                tokio::select! {
                    () = registry.go_through(&run) => {}
                    () = registry.tell_others(&run) => {}
                }
                drop(ended);
                registry.tell_the_end(&run).await;
                if !plan {
                    let now = (registry.options().clock.0)().as_second();
                    registry.metrics().mirrored(&run.report.borrow(), now);
                }
            }
        });
        run
    }

    /// Goes through the tags that a rule wants, and removes those that it does not want any more.
    async fn go_through(&self, run: &Run) {
        let (job, report) = (&run.job, &run.report);
        run.in_its_hours().await;
        if let Err(error) = self.store().names().trim_notes(SETTLED, MAX_SETTLED).await {
            tracing::warn!(rule = job.rule.name, %error, "what runs have noted could not be trimmed");
        }
        let (listed, tags) = match self.wanted(job).await {
            Ok(wanted) => wanted,
            Err(why) => {
                report.send_modify(|report| report.failed = Some(why));
                return;
            }
        };
        report.send_modify(|report| report.wanted = tags.len());
        let mut wanted: BTreeSet<Tag> = tags.keys().cloned().collect();
        let mut planned = Planned::default();
        for (tag, digest) in &tags {
            run.in_its_hours().await;
            report.send_modify(|report| report.now = Some(Now { tag: tag.clone(), bytes: 0, of: 0 }));
            let done = Box::pin(self.go_for(run, (tag, *digest), listed.as_ref(), &mut planned)).await;
            if done.outcome == Outcome::Gone {
                wanted.remove(tag);
            }
            if let Some(why) = &done.why {
                tracing::warn!(rule = job.rule.name, repository = %job.repository, %tag, why, "a tag could not be mirrored");
            }
            report.send_modify(|report| {
                report.tags.push(done);
                (report.received, report.sent) = (run.received(), run.sent.load(Ordering::Relaxed));
            });
        }
        let pruned = Box::pin(self.prune_mirrored(job, &wanted, run.plan)).await;
        report.send_modify(|report| match pruned {
            Ok(pruned) => (report.removals, report.kept) = (pruned.removals, pruned.kept),
            Err(why) => report.failed = Some(why),
        });
    }

    /// The tags of the upstream, if they had to be asked for, and those that are wanted, with what they lead to where that
    /// had to be looked at.
    async fn wanted(&self, job: &Job) -> Result<(Option<BTreeSet<Tag>>, Wanted), String> {
        let (listed, wanted) = match job.rule.tags.named() {
            Some(named) => (None, named),
            None => {
                let listed = self.tags_upstream(job).await?;
                let wanted = job.rule.tags.select(&listed);
                (Some(listed), wanted)
            }
        };
        match wanted.len() {
            0 => Err("no tag of the upstream is wanted by the rule".to_owned()),
            many if many > MAX_TAGS => Err(format!("{many} tags are wanted; a rule may want {MAX_TAGS}")),
            _ if job.rule.tags.needs_dates() => Ok((listed, Box::pin(self.newest(job, wanted)).await?)),
            _ => Ok((listed, wanted.into_iter().map(|tag| (tag, None)).collect())),
        }
    }

    /// Looks at one tag, plans, and takes the steps unless they are only planned.
    async fn go_for(
        &self,
        run: &Run,
        (tag, digest): (&Tag, Option<Digest>),
        listed: Option<&BTreeSet<Tag>>,
        planned: &mut Planned,
    ) -> TagReport {
        let job = &run.job;
        let looked = match digest {
            Some(digest) => Ok(Some(digest)),
            None => self.head(job, &Reference::Tag(tag.clone())).await,
        };
        let digest = match looked {
            Ok(Some(digest)) => digest,
            // What is to be removed with it, a failure would keep.
            Ok(None) if job.rule.prune.is_some() => return TagReport::new(tag, Outcome::Gone),
            Ok(None) => return TagReport::failed(tag, "the upstream does not have this tag".to_owned()),
            Err(why) => return TagReport::failed(tag, why),
        };
        let begun = |outcome| TagReport { digest: Some(digest), ..TagReport::new(tag, outcome) };
        let failed = |why| TagReport { digest: Some(digest), ..TagReport::failed(tag, why) };
        let there = match &job.to {
            Some(target) => match target.head(tag).await {
                Ok(there) => there,
                Err(why) => return failed(why),
            },
            None => None,
        };
        let place = job.to.as_ref().map_or("", |to| to.place.as_str());
        let key = format!("{} {} {place} {} {digest}", job.rule.name, job.repository, job.filter);
        if job.to.is_none() || there == Some(digest) {
            match self.is_settled(job, tag, &digest, &key).await {
                Ok(true) => return begun(Outcome::Unchanged),
                Ok(false) => {}
                Err(why) => return failed(why),
            }
        }
        let survey = match Box::pin(self.survey(job, tag, digest, listed)).await {
            Ok(survey) => survey,
            Err(why) => return failed(why),
        };
        let mut steps = planned.here.plan(&survey.seen, &survey.here);
        if let Some(target) = &job.to {
            let there: Here = match Box::pin(target.look(&survey.seen, there)).await {
                Ok(there) => there,
                Err(why) => {
                    steps.iter().for_each(|step| planned.here.forget(step));
                    return failed(why);
                }
            };
            steps.extend(planned.there.plan_there(&survey.seen, &there));
        }
        let from = job.source.name();
        let absent = survey.seen.absent.iter().map(|Absent { digest, platform, asked }| {
            let why = format!("{from} does not have it");
            Failed { digest: *digest, platform: platform.clone(), asked: *asked, absent: true, why }
        });
        let mut done = TagReport {
            bytes: steps.iter().map(Step::bytes).fold(0, u64::saturating_add),
            to_send: steps.iter().map(Step::sent).fold(0, u64::saturating_add),
            missing: absent.collect(),
            ..begun(if run.plan { Outcome::Planned } else { Outcome::Mirrored })
        };
        let of = done.bytes.saturating_add(done.to_send);
        run.report.send_modify(|report| report.now = Some(Now { tag: tag.clone(), bytes: 0, of }));
        if steps.is_empty() {
            done.outcome = Outcome::Unchanged;
        } else if run.plan {
            done.with_deltas = self.with_deltas(job, &survey, &steps).await;
            done.steps = steps;
        } else {
            Box::pin(self.take(run, &survey, steps, planned, &mut done)).await;
        }
        if done.missing.iter().any(|missing| missing.asked) {
            done.outcome = Outcome::Failed;
        }
        if !run.plan && done.outcome != Outcome::Failed {
            if let Err(why) = self.note_brought(job, &survey).await {
                return TagReport { why: Some(why), outcome: Outcome::Failed, ..done };
            }
            // Without the note, the next run looks again.
            if let Err(error) = self.store().names().put_note(SETTLED, &key, 0, SETTLED_LIFE).await {
                tracing::warn!(rule = job.rule.name, %error, "it could not be noted that an image is here");
            }
        }
        done
    }

    /// How many bytes steps bring with the deltas that the upstream has; `None` where it has none for them.
    async fn with_deltas(&self, job: &Job, survey: &Survey, steps: &[Step]) -> Option<u64> {
        let Origin::Upstream(source) = &job.source else { return None };
        let image = |blob: &Digest| {
            let has = |found: &&Found| found.blobs.iter().any(|(digest, _)| digest == blob);
            survey.seen.image.iter().find(has).map(|found| found.digest)
        };
        let blobs: Vec<(Digest, Digest, u64)> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Blob { digest, size } => Some((image(digest)?, *digest, *size)),
                _ => None,
            })
            .collect();
        let mut foreseen = stream::iter(blobs)
            .map(|(image, digest, size)| async move {
                let delta = self.foresee_delta(source, &job.repository, &image, &digest, size).await;
                delta.map(|delta| size.saturating_sub(delta))
            })
            .buffer_unordered(BLOBS);
        let mut spared = None;
        while let Some(less) = foreseen.next().await {
            spared = less.map(|less| spared.unwrap_or(0) + less).or(spared);
        }
        let all = steps.iter().map(Step::bytes).fold(0, u64::saturating_add);
        spared.map(|spared: u64| all.saturating_sub(spared))
    }

    /// Remembers that the rule has brought a tag, with those that go with it, so that it may remove them again.
    async fn note_brought(&self, job: &Job, survey: &Survey) -> Result<(), String> {
        let (names, place) = (self.store().names(), job.repository.to_string());
        let attached =
            survey.seen.signatures.iter().filter_map(|found| Some((found.tag.as_ref()?, found.digest)));
        let root = survey.seen.image.first().map(|root| (&survey.seen.tag, root.digest));
        for (tag, digest) in attached.chain(root) {
            let noted = names.note_mirrored(&job.rule.name, &place, tag, &digest).await;
            noted.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Whether a tag is where the upstream has it, with everything that belongs to it, as a run has found a while ago.
    async fn is_settled(&self, job: &Job, tag: &Tag, digest: &Digest, key: &str) -> Result<bool, String> {
        let names = self.store().names();
        if names.note(SETTLED, key).await.map_err(|error| error.to_string())?.is_none() {
            return Ok(false);
        }
        let stored = names.manifest(&job.repository, &Reference::Tag(tag.clone())).await;
        match stored.map_err(|error| error.to_string())?.filter(|stored| stored.digest == *digest) {
            Some(stored) => self.is_whole(job, &stored).await.map_err(origin::words),
            None => Ok(false),
        }
    }
}

impl Planned {
    /// Takes back what a step was to bring and did not.
    pub(super) fn forget(&mut self, step: &Step) {
        match step {
            Step::SendBlob { .. } | Step::SendManifest { .. } | Step::SendTag { .. } => {
                self.there.forget(step)
            }
            _ => self.here.forget(step),
        }
    }
}

/// Ends a run however it ends, so that nobody waits for one that has stopped.
struct Ended(Arc<Run>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.report.send_modify(|report| {
            (report.done, report.now) = (true, None);
            if std::thread::panicking() {
                report.failed = Some("the run stopped without saying why".to_owned());
            }
        });
    }
}
