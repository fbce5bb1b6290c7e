//! When images were made, for rules that want the newest.
//!
//! It stands in an annotation, or in the configuration of an image; of an index, that of its first wanted image counts.
//! What is under a digest does not change, so each is looked at once, and remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use deltaport_oci::manifest::View;
use deltaport_oci::{Digest, Reference, Tag, platform};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde::Deserialize;

use super::Job;
use super::survey::QUESTIONS;
use crate::Registry;
use crate::image::MAX_DEPTH;

/// Where images and indexes say it (image-spec, "Pre-Defined Annotation Keys").
const CREATED: &str = "org.opencontainers.image.created";
/// The largest configuration that is looked at, in bytes. Real ones have some kilobytes.
const MAX_CONFIG: u64 = 4 << 20;
/// What notes are called of when an image was made, in milliseconds since 1970: by its digest.
const NOTES: &str = "image-created";
/// The note of an image that does not say it: no time that there is.
const UNSAID: i64 = i64::MIN;
/// How many of these notes there are. One takes about 200 bytes.
const MAX_NOTES: usize = 65_536;
/// How long one is kept.
const LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

#[derive(Deserialize)]
struct Config {
    created: Option<String>,
}

impl Registry {
    /// Of `tags`, those that the rule wants as the newest, with what they lead to. A tag that is gone by now is none of
    /// them.
    ///
    /// Fails with a sentence when one cannot be looked at: without its date, others would be taken in its place.
    pub(super) async fn newest(
        &self,
        job: &Job,
        tags: impl IntoIterator<Item = Tag>,
    ) -> Result<BTreeMap<Tag, Option<Digest>>, String> {
        self.store().names().trim_notes(NOTES, MAX_NOTES).await.map_err(|error| error.to_string())?;
        let looks = stream::iter(tags).map(|tag| async move {
            let cannot = |why| format!("it cannot be told how new {tag} is: {why}");
            let reference = Reference::Tag(tag.clone());
            let Some(digest) = self.head(job, &reference).await.map_err(cannot)? else {
                return Ok(None);
            };
            let created = self.created(job, digest).await.map_err(cannot)?;
            Ok::<_, String>(Some((tag, digest, created)))
        });
        let looks = looks.buffer_unordered(QUESTIONS).try_filter_map(async |look| Ok(look));
        let found: Vec<_> = looks.try_collect().await?;
        let dated = found.iter().map(|(tag, _, created)| (tag.clone(), *created)).collect();
        let newest = job.rule.tags.newest_of(dated);
        let kept = found.into_iter().filter(|(tag, ..)| newest.contains(tag));
        Ok(kept.map(|(tag, digest, _)| (tag, Some(digest))).collect())
    }

    /// When the image of a digest was made, if it says so.
    async fn created(&self, job: &Job, digest: Digest) -> Result<Option<Timestamp>, String> {
        let (names, key) = (self.store().names(), digest.to_string());
        if let Some(noted) = names.note(NOTES, &key).await.map_err(|error| error.to_string())? {
            return Ok(Timestamp::from_millisecond(noted).ok());
        }
        let created = self.look_when(job, digest).await?;
        let value = created.map_or(UNSAID, Timestamp::as_millisecond);
        names.put_note(NOTES, &key, value, LIFE).await.map_err(|error| error.to_string())?;
        Ok(created)
    }

    async fn look_when(&self, job: &Job, digest: Digest) -> Result<Option<Timestamp>, String> {
        let mut next = digest;
        for _ in 0..MAX_DEPTH {
            let manifest = self.get(job, &Reference::Digest(next)).await?;
            // A child that is not there says nothing.
            let Some(manifest) = manifest else { return Ok(None) };
            let view = View::parse(&manifest.media_type, &manifest.bytes, self.manifest_limits())
                .map_err(|error| format!("the upstream sends something else than a manifest: {error}"))?;
            if let Some(created) = view.annotations.get(CREATED).and_then(|text| text.parse().ok()) {
                return Ok(Some(created));
            }
            match (child(&view, &job.filter), &view.config) {
                (Some(child), _) => next = child,
                (None, Some(config)) => return self.look_in(job, &config.digest).await,
                (None, None) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// What a configuration says.
    async fn look_in(&self, job: &Job, config: &Digest) -> Result<Option<Timestamp>, String> {
        let Some(bytes) = self.small_blob(job, config, MAX_CONFIG).await? else { return Ok(None) };
        // What is no configuration of an image, or not this one, says nothing.
        let right = Digest::of(config.algorithm(), &bytes) == *config;
        let read = serde_json::from_slice::<Config>(&bytes).ok().filter(|_| right);
        Ok(read.and_then(|config| config.created?.parse().ok()))
    }
}

/// The first wanted image of an index; without one, the first child.
fn child(view: &View, filter: &platform::Filter) -> Option<Digest> {
    let wanted = filter.select(view).ok().and_then(|selection| {
        let mut images = selection.kept().filter(|child| child.role == platform::Role::Image);
        images.next().map(|child| child.descriptor.digest)
    });
    wanted.or_else(|| view.manifests.first().map(|first| first.digest))
}
