//! Names: which repository holds what under which name, as rows of one SQLite database.
//!
//! [`Names`] is the way in. Below it, each kind of row has a file with plain functions over a connection; `writer` runs
//! those that change something, `database` those that ask, and `cache` answers what was asked recently.

pub(crate) mod absences;
pub(crate) mod bases;
pub(crate) mod blobs;
pub(crate) mod cache;
pub(crate) mod cached;
pub(crate) mod database;
pub(crate) mod deltas;
pub(crate) mod doomed;
pub(crate) mod held;
pub(crate) mod jobs;
pub(crate) mod leases;
pub(crate) mod manifests;
pub(crate) mod mirrored;
pub(crate) mod notes;
pub(crate) mod parts;
pub(crate) mod past;
pub(crate) mod places;
pub(crate) mod private;
mod pull;
pub(crate) mod referrers;
pub(crate) mod replay;
pub(crate) mod repositories;
pub(crate) mod review;
pub(crate) mod schema;
pub(crate) mod sessions;
pub(crate) mod shared;
pub(crate) mod snapshot;
pub(crate) mod sql;
pub(crate) mod tags;
pub(crate) mod told;
pub(crate) mod verdicts;
pub(crate) mod writer;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use deltaport_oci::{Descriptor, Digest, RepositoryName, Tag, manifest};

use crate::core::Core;
use crate::error::{Error, Result};

pub use absences::Absence;
pub use bases::Layer;
pub use blobs::Referenced;
pub(crate) use cache::Stale;
use cached::Origin;
pub use cached::{Cached, Evicted};
pub use jobs::{ClaimLimits, DeltaJob};
pub use leases::Slot;
pub use shared::{PostgresOptions, check_database};
pub use told::Told;
pub use verdicts::{MAX_VERDICT_LEN, Verdict};
pub(crate) use writer::{Tx, milliseconds};

/// A manifest as stored.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type, as pushed.
    pub media_type: Arc<str>,
    /// The bytes, as received.
    pub bytes: Bytes,
}

/// A manifest to be stored.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Digest of `bytes`; the caller has checked it.
    pub digest: Digest,
    /// The bytes, as received.
    pub bytes: Bytes,
    /// What they refer to.
    pub view: manifest::View,
    /// Tags to point at it, in the same transaction.
    pub tags: Vec<Tag>,
    /// Blobs and manifests that must be in the repository, or nothing is stored.
    pub required: Vec<Digest>,
}

/// One page of a sorted list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

/// What is known about a delta between two layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerDelta {
    /// It is this blob of the repository.
    Blob(Digest),
    /// It was tried and is not worth its bytes.
    NotWorthIt,
}

/// Names: repositories, manifests, tags and links to blobs. Every method is one transaction; a method that writes
/// returns when the change is durable, the journal included. Reads see every write that returned before they began.
///
/// A future of a method that writes may be dropped: what it was about to do is then either done whole or not at all.
#[derive(Clone, Debug)]
pub struct Names {
    core: Arc<Core>,
}

impl Names {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Stores a manifest, its references (with which of them are present) and its tags; the repository comes into being
    /// with its first content. Fails with [`Error::Missing`] when something in `required` is absent.
    pub async fn put_manifest(&self, repository: &RepositoryName, manifest: NewManifest) -> Result<()> {
        if !manifest.required.is_empty() {
            // The transaction asks again; this only spares the disk the bytes of a manifest that is refused.
            let (repository, required) = (repository.clone(), manifest.required.clone());
            let absent = self
                .core
                .database
                .read(move |names| manifests::missing(names, &repository, &required))
                .await?;
            if !absent.is_empty() {
                return Err(Error::Missing(absent));
            }
        }
        crate::blobs::put_manifest(&self.core, repository.clone(), manifest, Origin::Pushed).await
    }

    /// The same for a manifest that was fetched from an upstream, and that may be evicted therefore unless it was pushed
    /// before. It counts as used now.
    pub async fn put_fetched(&self, repository: &RepositoryName, manifest: NewManifest) -> Result<()> {
        crate::blobs::put_manifest(&self.core, repository.clone(), manifest, Origin::Fetched).await
    }

    /// Removes a manifest and every tag on it; `false` when it was not there. Its repository goes with its last
    /// content.
    pub async fn delete_manifest(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
        let (repository, digest) = (repository.clone(), *digest);
        self.core.database.change(move |tx| manifests::delete(tx, &repository, &digest)).await
    }

    /// Removes a tag, not its manifest; `false` when it was not there.
    pub async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.core.database.change(move |tx| tags::delete(tx, &repository, &tag)).await
    }

    /// The tags of a repository in byte order, behind `last`; `None` when there is no such repository.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page<Tag>>> {
        let (repository, last) = (repository.clone(), last.unwrap_or_default().to_owned());
        self.core.database.read(move |names| tags::list(names, &repository, &last, limit)).await
    }

    /// The manifests that a tag pointed at before, as far as they are still here, the most recent first; at most `limit`,
    /// and never more than 16.
    pub async fn tag_past(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        limit: usize,
    ) -> Result<Vec<Digest>> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.core.database.read(move |names| past::list(names, &repository, &tag, limit)).await
    }

    /// The repositories in byte order, behind `last`.
    pub async fn repositories(&self, last: Option<&str>, limit: usize) -> Result<Page<RepositoryName>> {
        let last = last.unwrap_or_default().to_owned();
        self.core.database.read(move |names| repositories::list(names, &last, limit)).await
    }

    /// Whether the repository exists.
    pub async fn repository_exists(&self, repository: &RepositoryName) -> Result<bool> {
        let repository = repository.clone();
        self.core.database.read(move |names| Ok(repositories::find(names, &repository)?.is_some())).await
    }

    /// The manifests whose subject is `subject`, by digest, behind `last`.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Descriptor>> {
        let (repository, subject, last) = (repository.clone(), *subject, last.copied());
        let artifact_type = artifact_type.map(str::to_owned);
        self.core
            .database
            .read(move |names| {
                let artifact_type = artifact_type.as_deref();
                referrers::list(names, &repository, &subject, artifact_type, last.as_ref(), limit)
            })
            .await
    }

    /// What the manifests of `repository` say about a blob, whether it is here or not; `None` when none refers to it.
    pub async fn referenced(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Referenced>> {
        let (repository, digest) = (repository.clone(), *digest);
        self.core.database.read(move |names| blobs::referenced(names, &repository, &digest)).await
    }

    /// Repositories that hold a blob, at most `limit`; what an anonymous mount chooses from.
    pub async fn repositories_with(&self, digest: &Digest, limit: usize) -> Result<Vec<RepositoryName>> {
        let digest = *digest;
        self.core.database.read(move |names| blobs::holders(names, &digest, limit)).await
    }

    /// Links a blob that some repository holds into `repository`; `false` when its bytes are not here.
    pub async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
        let (repository, digest) = (repository.clone(), *digest);
        // No lock against the collector is needed: both decide in the one thread that changes names, and the collector
        // removes bytes only after it has decided that no repository holds them.
        self.core
            .database
            .change(move |tx| {
                let held = blobs::is_held(tx.connection, &digest)?;
                if held {
                    blobs::link(tx, &repository, &digest)?;
                }
                Ok(held)
            })
            .await
    }

    /// Removes the link from `repository` to a blob; `false` when there was none.
    pub async fn unlink_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool> {
        let (repository, digest) = (repository.clone(), *digest);
        self.core.database.change(move |tx| blobs::unlink(tx, &repository, &digest)).await
    }

    /// Layers that `repository` holds whole and that a delta to the layer `target` may start from, at most `limit`: those
    /// first that it most likely replaces, which tags with `target` pointed at before.
    pub async fn delta_bases(
        &self,
        repository: &RepositoryName,
        target: &Digest,
        limit: usize,
    ) -> Result<Vec<Layer>> {
        let (repository, target) = (repository.clone(), *target);
        self.core.database.read(move |names| bases::of_repository(names, &repository, &target, limit)).await
    }

    /// The same of images in other repositories that are built on the same layers, with the repository of each.
    pub async fn kin_layers(
        &self,
        repository: &RepositoryName,
        target: &Digest,
        limit: usize,
    ) -> Result<Vec<(RepositoryName, Layer)>> {
        let (repository, target) = (repository.clone(), *target);
        self.core.database.read(move |names| bases::of_kin(names, &repository, &target, limit)).await
    }

    /// The images of `repository` that have a blob, the most recently stored first, at most `limit`.
    pub async fn images_with(
        &self,
        repository: &RepositoryName,
        blob: &Digest,
        limit: usize,
    ) -> Result<Vec<Digest>> {
        let (repository, blob) = (repository.clone(), *blob);
        self.core.database.read(move |names| bases::images_with(names, &repository, &blob, limit)).await
    }

    /// Those of `digests` that `repository` holds neither as a blob nor as a manifest.
    pub async fn absent(&self, repository: &RepositoryName, digests: Vec<Digest>) -> Result<Vec<Digest>> {
        let repository = repository.clone();
        self.core.database.read(move |names| manifests::missing(names, &repository, &digests)).await
    }

    /// The indexes of `repository` that refer to a manifest, whether it is here or not; the most recently stored first,
    /// at most `limit`.
    pub async fn indexes_with(
        &self,
        repository: &RepositoryName,
        child: &Digest,
        limit: usize,
    ) -> Result<Vec<Digest>> {
        let (repository, child) = (repository.clone(), *child);
        self.core.database.read(move |names| absences::indexes_with(names, &repository, &child, limit)).await
    }

    /// Why `repository` lacks a manifest that one of its indexes refers to, as far as that is known.
    pub async fn absence(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<Absence>> {
        let (repository, digest) = (repository.clone(), *digest);
        self.core.database.read(move |names| absences::find(names, &repository, &digest)).await
    }

    /// Remembers why `repository` lacks a manifest, until it arrives or no index refers to it any more; does nothing when
    /// it is here, or none does.
    pub async fn note_absence(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        absence: Absence,
    ) -> Result<()> {
        // Clients ask again and again for what is not there; nothing is written for that.
        if self.absence(repository, digest).await? == Some(absence) {
            return Ok(());
        }
        let (repository, digest) = (repository.clone(), *digest);
        let noted = self.core.database.change(move |tx| absences::put(tx, &repository, &digest, absence));
        noted.await.map(|_| ())
    }

    /// Removes those of `children` that are here and to which no tag leads except by the index `root`, which stays as it
    /// is; returns them. What only they referred to is then the collector's.
    pub async fn evict(
        &self,
        repository: &RepositoryName,
        root: &Digest,
        children: Vec<Digest>,
    ) -> Result<Vec<Digest>> {
        let (repository, root) = (repository.clone(), *root);
        self.core.database.change(move |tx| absences::evict(tx, &repository, &root, &children)).await
    }

    /// Notes when manifests were used, if they came from an upstream, and with each the indexes that refer to it.
    pub async fn note_uses(&self, uses: Vec<(RepositoryName, Digest, SystemTime)>) -> Result<()> {
        self.core
            .database
            .change(move |tx| {
                uses.iter().try_for_each(|(repository, digest, at)| {
                    cached::note_use(tx, repository, digest, milliseconds(*at))
                })
            })
            .await
    }

    /// Images from upstreams that were last used before `before`, the least recently used first, behind `last`, at most
    /// `limit`. An image is a manifest that no other here refers to and that is about none here.
    pub async fn oldest_cached(
        &self,
        before: SystemTime,
        last: Option<Cached>,
        limit: usize,
    ) -> Result<Vec<Cached>> {
        let before = milliseconds(before);
        self.core.database.read(move |names| cached::oldest(names, before, last.as_ref(), limit)).await
    }

    /// Removes an image from an upstream with its tags, the manifests below it and those about them. What was pushed stays,
    /// and so does what a tag of its own or another index leads to. What only they referred to leaves the repository in
    /// the same transaction. `None` when the image has been used, tagged, or taken into an index since it was found.
    pub async fn evict_cached(&self, cached: Cached) -> Result<Option<Evicted>> {
        self.core.database.change(move |tx| cached::evict(tx, &cached)).await
    }

    /// Keeps a verdict on a manifest, in place of the one under the same name; the time is that of the commit. `false` when
    /// the manifest is not here, has verdicts under 64 other names, or the text is longer than [`MAX_VERDICT_LEN`].
    pub async fn put_verdict(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        verdict: Verdict,
    ) -> Result<bool> {
        let (repository, digest) = (repository.clone(), *digest);
        self.core.database.change(move |tx| verdicts::put(tx, &repository, &digest, &verdict)).await
    }

    /// The verdicts on a manifest: by its digest, then under its tags.
    pub async fn verdicts(&self, repository: &RepositoryName, digest: &Digest) -> Result<Vec<Verdict>> {
        let (repository, digest) = (repository.clone(), *digest);
        self.core.database.read(move |names| verdicts::list(names, &repository, &digest)).await
    }

    /// How many manifests are here that a policy refuses under some name and accepts under none, as far as it was asked.
    pub async fn refused(&self, policy: &Digest) -> Result<u64> {
        let policy = *policy;
        self.core.database.read(move |names| verdicts::refused(names, &policy)).await
    }

    /// The tags that point at a manifest.
    pub async fn tags_of(&self, repository: &RepositoryName, digest: &Digest) -> Result<Vec<Tag>> {
        let (repository, digest) = (repository.clone(), *digest);
        self.core.database.read(move |names| tags::of(names, &repository, &digest)).await
    }

    /// The layers that a delta of `repository` is between: base and target of each pair.
    pub async fn delta_between(
        &self,
        repository: &RepositoryName,
        delta: &Digest,
    ) -> Result<Vec<(Digest, Digest)>> {
        let (repository, delta) = (repository.clone(), *delta);
        self.core.database.read(move |names| deltas::between(names, &repository, &delta)).await
    }

    /// What is noted under a topic and a key, if that still holds.
    pub async fn note(&self, topic: &'static str, key: &str) -> Result<Option<i64>> {
        let key = key.to_owned();
        self.core.database.read(move |names| notes::find(names, topic, &key)).await
    }

    /// Notes a value for `life`, in place of an earlier one. Notes are no names: they may be forgotten, and are after
    /// [`rebuild`](crate::rebuild). See [`Names::trim_notes`].
    pub async fn put_note(&self, topic: &'static str, key: &str, value: i64, life: Duration) -> Result<()> {
        let key = key.to_owned();
        self.core.database.change(move |tx| notes::put(tx, topic, &key, value, life)).await
    }

    /// Forgets the notes that do not hold any more, and of the others of a topic all but the `limit` that hold longest.
    pub async fn trim_notes(&self, topic: &'static str, limit: usize) -> Result<()> {
        self.core.database.change(move |tx| notes::trim(tx, topic, limit)).await
    }

    /// How many bytes are here only because they came from upstreams: the disk would have as many more without them.
    pub async fn cached_bytes(&self) -> Result<u64> {
        self.core.database.read(cached::bytes).await
    }

    /// The tags that a mirror rule has brought to `place` ([`Names::note_mirrored`]), with what each led to then, in byte
    /// order, at most `limit`.
    pub async fn mirrored(&self, rule: &str, place: &str, limit: usize) -> Result<Vec<(Tag, Digest)>> {
        let (rule, place) = (rule.to_owned(), place.to_owned());
        self.core.database.read(move |names| mirrored::list(names, &rule, &place, limit)).await
    }

    /// The mirror rules that have brought a tag to `place`.
    pub async fn rules_of(&self, place: &str, tag: &Tag) -> Result<Vec<String>> {
        let (place, tag) = (place.to_owned(), tag.clone());
        self.core.database.read(move |names| mirrored::rules(names, &place, &tag)).await
    }

    /// Remembers that a mirror rule has brought a tag to `place`, which the caller names as it likes.
    pub async fn note_mirrored(&self, rule: &str, place: &str, tag: &Tag, digest: &Digest) -> Result<()> {
        let (rule, place, tag, digest) = (rule.to_owned(), place.to_owned(), tag.clone(), *digest);
        self.core.database.change(move |tx| mirrored::put(tx, &rule, &place, &tag, &digest)).await
    }

    /// Remembers that no more.
    pub async fn forget_mirrored(&self, rule: &str, place: &str, tag: &Tag) -> Result<()> {
        let (rule, place, tag) = (rule.to_owned(), place.to_owned(), tag.clone());
        self.core.database.change(move |tx| mirrored::forget(tx, &rule, &place, &tag)).await
    }

    /// Removes a tag that leads to `digest`; with `image`, also that manifest with those below it and those about it, as
    /// far as no other tag and no other index leads to them. What only they referred to leaves the repository in the same
    /// transaction. `None`, and nothing happens, when the tag is gone or leads elsewhere.
    pub async fn prune_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        image: bool,
    ) -> Result<Option<Evicted>> {
        let (repository, tag, digest) = (repository.clone(), tag.clone(), *digest);
        self.core.database.change(move |tx| mirrored::prune(tx, &repository, &tag, &digest, image)).await
    }

    /// Where an upload of a blob to `place`, in another registry, goes on, if one was begun ([`Names::note_upload`]).
    pub async fn upload(&self, place: &str, digest: &Digest) -> Result<Option<String>> {
        let (place, digest) = (place.to_owned(), *digest);
        self.core.database.read(move |names| mirrored::upload(names, &place, &digest)).await
    }

    /// Remembers that; `None` when the upload is over.
    pub async fn note_upload(&self, place: &str, digest: &Digest, upload: Option<String>) -> Result<()> {
        let (place, digest) = (place.to_owned(), *digest);
        self.core
            .database
            .change(move |tx| mirrored::note_upload(tx, &place, &digest, upload.as_deref()))
            .await
    }

    /// What is known about a delta between two layers of a repository.
    pub async fn layer_delta(
        &self,
        repository: &RepositoryName,
        base: &Digest,
        target: &Digest,
    ) -> Result<Option<LayerDelta>> {
        let (repository, base, target) = (repository.clone(), *base, *target);
        self.core.database.read(move |names| deltas::find(names, &repository, &base, &target)).await
    }

    /// The deltas to a layer that a repository keeps, at most `limit`: for each its base and its own digest.
    pub async fn layer_deltas(
        &self,
        repository: &RepositoryName,
        target: &Digest,
        limit: usize,
    ) -> Result<Vec<(Digest, Digest)>> {
        let (repository, target) = (repository.clone(), *target);
        self.core.database.read(move |names| deltas::to(names, &repository, &target, limit)).await
    }

    /// How many deltas to a layer a repository keeps, from whichever bases.
    pub async fn layer_deltas_kept(&self, repository: &RepositoryName, target: &Digest) -> Result<usize> {
        let (repository, target) = (repository.clone(), *target);
        self.core.database.read(move |names| deltas::kept(names, &repository, &target)).await
    }

    /// Remembers a delta (its blob is already linked into the repository and is kept while both layers are), and ends
    /// the job that was to make it. Fails with [`Error::Missing`] when the repository does not hold both layers and the
    /// delta.
    pub async fn put_layer_delta(
        &self,
        repository: &RepositoryName,
        base: &Digest,
        target: &Digest,
        delta: &LayerDelta,
    ) -> Result<()> {
        let (repository, base, target, delta) = (repository.clone(), *base, *target, delta.clone());
        self.core.database.change(move |tx| deltas::put(tx, &repository, &base, &target, &delta)).await
    }

    /// Puts down deltas that are to be made, as long as fewer than `most` of the same urgency stand on the list; returns
    /// for each whether it will be made, or is known. A job that stands becomes more urgent, never less. Jobs survive a
    /// restart and go with either layer.
    pub async fn put_delta_jobs(&self, jobs: Vec<DeltaJob>, most: usize) -> Result<Vec<bool>> {
        // Whoever waits asks again and again; nothing is written for that.
        let jobs: Arc<[DeltaJob]> = jobs.into();
        let asked = Arc::clone(&jobs);
        let standing: Vec<bool> = self
            .core
            .database
            .read(move |names| asked.iter().map(|job| jobs::stands(names, job)).collect())
            .await?;
        if standing.iter().all(|stands| *stands) {
            return Ok(standing);
        }
        self.core
            .database
            .change(move |tx| jobs.iter().map(|job| jobs::put(tx, job, most)).collect::<Result<_>>())
            .await
    }

    /// How many statements were sent to a database that replicas share, since it was opened; 0 when names are in the data
    /// directory.
    pub fn statements(&self) -> u64 {
        self.core.database.shared().map_or(0, shared::Shared::sent)
    }
}

/// A time of a row.
pub(crate) fn from_milliseconds(at: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(at.max(0).unsigned_abs())
}

/// How many rows to ask for in order to learn whether there are more than `limit`.
fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// A page of rows that were asked for with [`one_more`].
fn page<T>(mut items: Vec<T>, limit: usize) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    Page { items, more }
}
