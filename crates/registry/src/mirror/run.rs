//! A run of a rule: tag by tag, the steps of the plan. It belongs to the registry and not to whoever began it; who asks
//! for it again is told how far it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltaport_oci::{Digest, Platform, Reference, RepositoryName, Tag};
use deltaport_store as store;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::plan::{Absent, Planner, Step};
use super::survey::{Survey, words};
use super::{Job, Listed, Rule, catalog};
use crate::fill::{Link, Terms};
use crate::image::Failed;
use crate::memory::Memory;
use crate::{Error, Manifest, Registry, Result};

/// How many blobs of one tag are fetched, or wait for their turn on the link, at the same time.
const BLOBS: usize = 32;
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
const MAX_TAGS: usize = 10_000;

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
    caps: BTreeMap<String, Link>,
}

/// One run.
#[derive(Debug)]
struct Run {
    number: u64,
    terms: Arc<Terms>,
    report: watch::Sender<Report>,
}

impl Mirrors {
    pub(crate) fn new(rules: &[Rule]) -> Self {
        let capped = rules.iter().filter(|rule| rule.bandwidth.is_some());
        let caps = capped.map(|rule| (rule.name.clone(), Link::new(usize::MAX, rule.bandwidth)));
        Self {
            runs: Mutex::default(),
            next: AtomicU64::new(1),
            catalogs: Memory::new(MAX_CATALOGS),
            caps: caps.collect(),
        }
    }

    /// What the transfers of this rule share, if it has a cap.
    pub(super) fn cap(&self, rule: &str) -> Option<Link> {
        self.caps.get(rule).cloned()
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

/// What a run did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Report {
    /// The rule, and the places that it means.
    #[serde(flatten)]
    pub rule: Listed,
    /// The number of the run, counted from the start of the process.
    pub run: u64,
    /// Whether nothing was done, only looked at.
    pub planned: bool,
    /// Whether it is over.
    pub done: bool,
    /// How many tags it is about, as soon as that is known.
    pub wanted: usize,
    /// How many bytes the upstream has sent meanwhile, whoever wanted them.
    pub received: u64,
    /// When it goes on, by the clock on the wall, if it is outside its hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_until: Option<String>,
    /// The tags that it has been through.
    pub tags: Vec<TagReport>,
    /// Why it could not be done at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Report {
    /// Whether everything is here that the rule wants, or would be after a run.
    pub fn is_good(&self) -> bool {
        self.done && self.failed.is_none() && self.tags.iter().all(|tag| tag.outcome != Outcome::Failed)
    }
}

/// What became of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TagReport {
    /// The tag.
    pub tag: Tag,
    /// How it ended.
    pub outcome: Outcome,
    /// What the upstream says that it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// What was done, or would be; of a run that failed, up to where it did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The bytes of all manifests and blobs among the steps, without deltas.
    pub bytes: u64,
    /// What was wanted and could not be had. Children that the upstream does not have are among it, also where that is
    /// no failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Failed>,
    /// Why it failed, if that is not about one thing that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How it went with a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// There is nothing to do.
    Unchanged,
    /// The steps would be taken.
    Planned,
    /// The steps were taken.
    Mirrored,
    /// Something could not be had. The tag is where it was.
    Failed,
}

impl TagReport {
    fn new(tag: &Tag, outcome: Outcome) -> Self {
        let tag = tag.clone();
        Self { tag, outcome, digest: None, steps: Vec::new(), bytes: 0, missing: Vec::new(), why: None }
    }

    fn failed(tag: &Tag, why: String) -> Self {
        Self { why: Some(why), ..Self::new(tag, Outcome::Failed) }
    }
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
        let run = match number {
            Some(number) => {
                let run =
                    self.0.mirrors.runs().get(&(rule.to_owned(), repository.clone(), plan)).map(Arc::clone);
                run.filter(|run| run.number == number).ok_or_else(|| Error::MirrorUnknown(rule.into()))?
            }
            None => self.begin(self.job_of(repository, rule).await?, plan),
        };
        if request == Request::RunNow {
            run.terms.gate.force();
        }
        let mut report = run.report.subscribe();
        // How far it is is answer enough.
        let _late = tokio::time::timeout(patience, report.wait_for(|report| report.done)).await;
        let mut report = run.report.borrow().clone();
        report.rests_until = if plan || report.done { None } else { run.terms.gate.opens() };
        Ok(report)
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
        let report = Report {
            rule: job.listed(),
            run: number,
            planned: plan,
            done: false,
            wanted: 0,
            received: 0,
            rests_until: None,
            tags: Vec::new(),
            failed: None,
        };
        let run = Arc::new(Run { number, terms: Arc::clone(&job.terms), report: watch::Sender::new(report) });
        runs.insert(key, Arc::clone(&run));
        drop(runs);
        tokio::spawn({
            let (registry, run) = (self.clone(), Arc::clone(&run));
            async move {
                let ended = Ended(Arc::clone(&run));
                registry.go_through(&job, plan, &run.report).await;
                drop(ended);
                if !plan {
                    let now = (registry.options().clock.0)().as_second();
                    registry.metrics().mirrored(&run.report.borrow(), now);
                }
            }
        });
        run
    }

    /// Goes through the tags that a rule wants.
    async fn go_through(&self, job: &Job, plan: bool, report: &watch::Sender<Report>) {
        let in_its_hours = async || {
            if !plan {
                job.terms.gate.opened().await;
            }
        };
        in_its_hours().await;
        if let Err(error) = self.store().names().trim_notes(SETTLED, MAX_SETTLED).await {
            tracing::warn!(rule = job.rule.name, %error, "what runs have noted could not be trimmed");
        }
        let before = job.source.remote.client.received();
        let received = || job.source.remote.client.received().saturating_sub(before);
        let (listed, tags) = match self.wanted(job).await {
            Ok(wanted) => wanted,
            Err(why) => {
                report.send_modify(|report| report.failed = Some(why));
                return;
            }
        };
        report.send_modify(|report| report.wanted = tags.len());
        let mut planner = Planner::default();
        for (tag, digest) in &tags {
            in_its_hours().await;
            let done = Box::pin(self.go_for(job, (tag, *digest), listed.as_ref(), &mut planner, plan)).await;
            if let Some(why) = &done.why {
                tracing::warn!(rule = job.rule.name, repository = %job.repository, %tag, why, "a tag could not be mirrored");
            }
            report.send_modify(|report| {
                report.tags.push(done);
                report.received = received();
            });
        }
    }

    /// The tags of the upstream, if they had to be asked for, and those that are wanted, with what they lead to where that
    /// had to be looked at.
    async fn wanted(&self, job: &Job) -> Result<(Option<BTreeSet<Tag>>, Wanted), String> {
        let (listed, wanted) = match job.rule.tags.named() {
            Some(named) => (None, named),
            None => {
                let listed = self.tags_upstream(job).await.map_err(words)?;
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
        job: &Job,
        (tag, digest): (&Tag, Option<Digest>),
        listed: Option<&BTreeSet<Tag>>,
        planner: &mut Planner,
        plan: bool,
    ) -> TagReport {
        let reference = Reference::Tag(tag.clone());
        let looked = match digest {
            Some(digest) => Ok(Some(digest)),
            None => self.head(job, &reference).await,
        };
        let digest = match looked {
            Ok(Some(digest)) => digest,
            Ok(None) => return TagReport::failed(tag, "the upstream does not have this tag".to_owned()),
            Err(failure) => return TagReport::failed(tag, words(failure)),
        };
        let key = format!("{} {} {} {digest}", job.rule.name, job.repository, job.filter);
        match self.is_settled(job, &reference, &digest, &key).await {
            Ok(true) => return TagReport { digest: Some(digest), ..TagReport::new(tag, Outcome::Unchanged) },
            Ok(false) => {}
            Err(why) => return TagReport { digest: Some(digest), ..TagReport::failed(tag, why) },
        }
        let survey = match Box::pin(self.survey(job, tag, digest, listed)).await {
            Ok(survey) => survey,
            Err(why) => return TagReport { digest: Some(digest), ..TagReport::failed(tag, why) },
        };
        let steps = planner.plan(&survey.seen, &survey.here);
        let host = job.source.remote.client.host();
        let absent = survey.seen.absent.iter().map(|Absent { digest, platform, asked }| {
            let why = format!("{host} does not have it");
            Failed { digest: *digest, platform: platform.clone(), asked: *asked, absent: true, why }
        });
        let mut done = TagReport {
            digest: Some(digest),
            bytes: steps.iter().map(Step::bytes).fold(0, u64::saturating_add),
            missing: absent.collect(),
            ..TagReport::new(tag, if plan { Outcome::Planned } else { Outcome::Mirrored })
        };
        if steps.is_empty() {
            done.outcome = Outcome::Unchanged;
        } else if plan {
            done.steps = steps;
        } else {
            self.take(job, &survey, steps, planner, &mut done).await;
        }
        if done.missing.iter().any(|missing| missing.asked) {
            done.outcome = Outcome::Failed;
        }
        if !plan && done.outcome != Outcome::Failed {
            // Without the note, the next run looks again.
            if let Err(error) = self.store().names().put_note(SETTLED, &key, 0, SETTLED_LIFE).await {
                tracing::warn!(rule = job.rule.name, %error, "it could not be noted that an image is here");
            }
        }
        done
    }

    /// Whether a tag is where the upstream has it, with everything that belongs to it, as a run has found a while ago.
    async fn is_settled(
        &self,
        job: &Job,
        reference: &Reference,
        digest: &Digest,
        key: &str,
    ) -> Result<bool, String> {
        let names = self.store().names();
        if names.note(SETTLED, key).await.map_err(|error| error.to_string())?.is_none() {
            return Ok(false);
        }
        let stored = names.manifest(&job.repository, reference).await;
        match stored.map_err(|error| error.to_string())?.filter(|stored| stored.digest == *digest) {
            Some(stored) => self.is_whole(job, &stored).await.map_err(words),
            None => Ok(false),
        }
    }

    /// Takes steps until one fails; blobs that stand together are fetched together, and all of them to their ends.
    async fn take(
        &self,
        job: &Job,
        survey: &Survey,
        steps: Vec<Step>,
        planner: &mut Planner,
        done: &mut TagReport,
    ) {
        let platforms = platforms_of_blobs(survey);
        let mut left = steps.into_iter().peekable();
        while let Some(step) = left.next() {
            let mut together = vec![step];
            while matches!(together[0], Step::Blob { .. })
                && let Some(step) = left.next_if(|step| matches!(step, Step::Blob { .. }))
            {
                together.push(step);
            }
            let mut taken = stream::iter(together)
                .map(|step| async { (self.take_one(job, survey, &step).await, step) })
                .buffered(BLOBS);
            while let Some((outcome, step)) = taken.next().await {
                match outcome {
                    Ok(()) => done.steps.push(step),
                    Err((absent, why)) => {
                        planner.forget(&step);
                        done.outcome = Outcome::Failed;
                        match &step {
                            Step::Blob { digest, .. } | Step::Manifest { digest, .. } => {
                                let platform = platforms.get(digest).cloned().flatten();
                                done.missing.push(Failed {
                                    digest: *digest,
                                    platform,
                                    asked: false,
                                    absent,
                                    why,
                                });
                            }
                            Step::Absent { .. } | Step::Tag { .. } => done.why = Some(why),
                        }
                    }
                }
            }
            if done.outcome == Outcome::Failed {
                break;
            }
        }
        // What was not even tried is still to be done by whoever needs it next.
        left.for_each(|step| planner.forget(&step));
    }

    /// Takes a step; fails with whether the upstream does not have it, and why.
    async fn take_one(&self, job: &Job, survey: &Survey, step: &Step) -> Result<(), (bool, String)> {
        let names = self.store().names();
        let store = |error: store::Error| (false, error.to_string());
        match step {
            Step::Manifest { digest, .. } => {
                self.put(job, survey, digest, None).await.map_err(|why| (false, why))
            }
            Step::Tag { tag, digest, .. } => {
                self.put(job, survey, digest, Some(tag)).await.map_err(|why| (false, why))
            }
            Step::Absent { digest, .. } => {
                names.note_absence(&job.repository, digest, store::Absence::Upstream).await.map_err(store)
            }
            Step::Blob { digest, .. } => match self.mirror_blob(&job.repository, digest, &job.terms).await {
                Ok(true) => Ok(()),
                Ok(false) => Err((true, format!("{} does not have it", job.source.remote.client.host()))),
                Err(error) => Err((false, crate::image::words(&error))),
            },
        }
    }

    /// Stores a manifest that was looked at, and points a tag at it.
    async fn put(
        &self,
        job: &Job,
        survey: &Survey,
        digest: &Digest,
        tag: Option<&Tag>,
    ) -> Result<(), String> {
        let manifest: &Manifest = survey.manifests.get(digest).ok_or("a step is about what was not seen")?;
        let view = self.view_of(manifest).ok_or("the manifest is longer or deeper than the limits allow")?;
        let new = store::NewManifest {
            digest: *digest,
            bytes: manifest.bytes.clone(),
            view,
            tags: tag.into_iter().cloned().collect(),
            required: Vec::new(),
        };
        let put = self.store().names().put_manifest(&job.repository, new).await;
        put.map_err(|error| error.to_string())?;
        self.keep_arrival(&job.source, &job.repository, digest, tag).await.map_err(words)
    }
}

/// Ends a run however it ends, so that nobody waits for one that has stopped.
struct Ended(Arc<Run>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.report.send_modify(|report| {
            report.done = true;
            if std::thread::panicking() {
                report.failed = Some("the run stopped without saying why".to_owned());
            }
        });
    }
}

/// What the images are for that blobs belong to.
fn platforms_of_blobs(survey: &Survey) -> BTreeMap<Digest, Option<Platform>> {
    let blobs = survey
        .seen
        .image
        .iter()
        .flat_map(|found| found.blobs.iter().map(|(digest, _)| (*digest, found.platform.clone())));
    blobs.collect()
}
