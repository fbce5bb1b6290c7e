//! Taking the steps of a plan, one tag's at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deltaport_oci::{Digest, Platform, Reference, Tag};
use deltaport_store as store;
use futures_util::{StreamExt as _, stream};

use super::origin::Origin;
use super::plan::Step;
use super::report::{Outcome, TagReport};
use super::run::{BLOBS, Planned, Run};
use super::send::Sent;
use super::survey::Survey;
use super::{Job, origin};
use crate::image::Failed;
use crate::{Manifest, Registry};

/// Why a step could not be taken.
struct Obstacle {
    /// Whether the origin does not have what it is about.
    absent: bool,
    why: String,
}

impl From<String> for Obstacle {
    fn from(why: String) -> Self {
        Self { absent: false, why }
    }
}

impl Registry {
    /// Takes steps until one fails; blobs that stand together are taken together, and all of them to their ends.
    pub(super) async fn take(
        &self,
        run: &Run,
        survey: &Survey,
        steps: Vec<Step>,
        planned: &mut Planned,
        done: &mut TagReport,
    ) {
        let platforms = platforms_of_blobs(survey);
        let mut left = steps.into_iter().peekable();
        let mut admitted = false;
        while let Some(step) = left.next() {
            if !admitted && step.sent() > 0 {
                if let Err(why) = self.admit_to_send(&run.job, survey).await {
                    (done.outcome, done.why) = (Outcome::Failed, Some(why));
                    planned.forget(&step);
                    break;
                }
                admitted = true;
            }
            let mut together = vec![step];
            while together[0].is_blob()
                && let Some(step) =
                    left.next_if(|step| std::mem::discriminant(step) == std::mem::discriminant(&together[0]))
            {
                together.push(step);
            }
            let mut taken = stream::iter(together)
                .map(|step| async {
                    let taken = run.blobs.take(&step);
                    let outcome = self.take_one(run, survey, &step, &taken.sent).await;
                    drop(taken);
                    if outcome.is_ok() {
                        run.advance(step.bytes().saturating_add(step.sent()));
                    }
                    (outcome, step)
                })
                .buffered(BLOBS);
            while let Some((outcome, step)) = taken.next().await {
                match outcome {
                    Ok(()) => done.steps.push(step),
                    Err(obstacle) => {
                        planned.forget(&step);
                        done.outcome = Outcome::Failed;
                        match &step {
                            Step::Blob { digest, .. } | Step::Manifest { digest, .. } => {
                                let platform = platforms.get(digest).cloned().flatten();
                                let Obstacle { absent, why } = obstacle;
                                done.missing.push(Failed {
                                    digest: *digest,
                                    platform,
                                    asked: false,
                                    absent,
                                    why,
                                });
                            }
                            _ => done.why = Some(obstacle.why),
                        }
                    }
                }
            }
            if done.outcome == Outcome::Failed {
                break;
            }
        }
        // What was not even tried is still to be done by whoever needs it next.
        left.for_each(|step| planned.forget(&step));
    }

    /// Fails unless the policy lets the image go on. What comes from an upstream has been judged on its arrival.
    async fn admit_to_send(&self, job: &Job, survey: &Survey) -> Result<(), String> {
        let root = survey.seen.image.first().and_then(|root| survey.manifests.get(&root.digest));
        match (&job.source, root) {
            (Origin::Layout(_), Some(root)) => {
                let reference = Reference::Tag(survey.seen.tag.clone());
                let admitted = self.admit(&job.repository, &reference, root).await;
                admitted.map_err(|error| crate::image::words(&error))
            }
            _ => Ok(()),
        }
    }

    /// Takes a step, and counts on the way what it sends.
    async fn take_one(
        &self,
        run: &Run,
        survey: &Survey,
        step: &Step,
        sent: &Arc<AtomicU64>,
    ) -> Result<(), Obstacle> {
        let job = &run.job;
        match step {
            Step::Manifest { digest, .. } => Ok(self.put(job, survey, digest, None).await?),
            Step::Tag { tag, digest, .. } => Ok(self.put(job, survey, digest, Some(tag)).await?),
            Step::Absent { digest, .. } => {
                let noted = self
                    .store()
                    .names()
                    .note_absence(&job.repository, digest, store::Absence::Upstream)
                    .await;
                Ok(noted.map_err(|error| error.to_string())?)
            }
            Step::Blob { digest, .. } => match self.take_in(job, digest).await? {
                true => Ok(()),
                false => {
                    Err(Obstacle { absent: true, why: format!("{} does not have it", job.source.name()) })
                }
            },
            Step::SendBlob { .. } | Step::SendManifest { .. } | Step::SendTag { .. } => {
                let target = job.to.as_ref().ok_or_else(|| "a step is about no destination".to_owned())?;
                run.in_its_hours().await;
                let Sent { bytes, note } = Box::pin(self.send(job, target, survey, step, sent)).await?;
                run.sent.fetch_add(bytes, Ordering::Relaxed);
                run.report.send_modify(|report| {
                    report.notes.extend(note.filter(|note| !report.notes.contains(note)));
                });
                Ok(())
            }
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
        let names = self.store().names();
        let put = match &job.source {
            // It may make room once no rule wants it any more.
            Origin::Upstream(_) => names.put_fetched(&job.repository, new).await.map(drop),
            Origin::Layout(_) => names.put_manifest(&job.repository, new).await.map(drop),
        };
        put.map_err(|error| error.to_string())?;
        match &job.source {
            Origin::Upstream(source) => {
                self.keep_arrival(source, &job.repository, digest, tag).await.map_err(origin::words)
            }
            Origin::Layout(_) => Ok(()),
        }
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
