//! Making room: which images go, and how it is made sure that they can be fetched again.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use deltaport_client::{self as client, ErrorKind};
use deltaport_oci::{Reference, Tag};
use deltaport_store as store;
use serde::{Deserialize, Serialize};

use crate::image::Lost;
use crate::upstream::{Ask, Lifetime, Source};
use crate::{Registry, Result};

/// What was used so recently is not evicted: whoever was given a manifest is about to ask for what it refers to.
const SETTLE: Duration = Duration::from_secs(5 * 60);
/// For how long an image that its upstream does not have is not asked for again.
pub(super) const KEEP: Duration = Duration::from_secs(6 * 3600);
/// How many images are looked at in one step.
const STEP: usize = 32;
/// How many questions one run may ask upstreams; the next goes on.
const MAX_QUESTIONS: usize = 512;
/// How much more than is too much goes, as a part of the cap, so that the next arrival need not make room again.
const SLACK: u64 = 10;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evicted {
    /// Images that are gone.
    pub images: u64,
    /// Tags that went with them.
    pub tags: u64,
    /// Bytes that the next run of the collector takes off the disk.
    pub bytes: u64,
    /// Images that stay because their upstream does not have all of them any more, or they are not wanted of it.
    pub irreplaceable: u64,
    /// Images that stay because they are pinned, or a mirror rule wants them here.
    pub pinned: u64,
    /// Images that stay because their upstream could not be asked, or they were being fetched or used.
    pub busy: u64,
    /// Bytes that are now here only because they came from upstreams.
    pub cached: u64,
    /// How many bytes more should have gone.
    pub missing: u64,
}

/// What is to become of an image.
enum Verdict {
    /// Everything of it can be fetched again.
    Evict,
    /// Its upstream does not have all of it.
    Keep,
    /// Its upstream does not say now.
    Later,
}

impl Registry {
    /// Evicts images that came from upstreams, the least recently used first, until no more is cached than
    /// [`Space::cached`](crate::Space::cached) and [`Space::free`](crate::Space::free) is free; as of `now`, before which
    /// they must not have been used for five minutes. Asks upstreams, with HEAD, whether they still have what is to go.
    /// Bytes leave the disk with the next run of the collector. A second call waits for the first.
    pub async fn evict(&self, now: SystemTime) -> Result<Evicted> {
        let _alone = self.0.room.evicting.lock().await;
        self.write_uses().await;
        let names = self.store().names();
        let cached = names.cached_bytes().await?;
        let wanted = self.excess(cached).await?;
        let mut run =
            Run { registry: self, wanted, questions: 0, silent: HashSet::new(), evicted: Evicted::default() };
        if wanted > 0 {
            run.make_room(now.checked_sub(SETTLE).unwrap_or(SystemTime::UNIX_EPOCH)).await?;
        }
        let mut evicted = run.evicted;
        evicted.cached = if evicted.images > 0 { names.cached_bytes().await? } else { cached };
        evicted.missing = wanted.saturating_sub(evicted.bytes);
        self.0.room.cached.store(evicted.cached, Ordering::Relaxed);
        self.metrics().cached_bytes.set(i64::try_from(evicted.cached).unwrap_or(i64::MAX));
        self.metrics().evicted_images.inc_by(evicted.images);
        self.metrics().evicted_bytes.inc_by(evicted.bytes);
        if evicted.missing > 0 {
            tracing::warn!(
                ?evicted,
                "more room is taken than should be, and nothing more can be evicted now"
            );
        } else if evicted.images > 0 {
            tracing::info!(?evicted, "images made room");
        }
        Ok(evicted)
    }

    /// How many bytes are to go.
    async fn excess(&self, cached: u64) -> Result<u64> {
        let space = &self.options().space;
        let over = |cap: u64| if cached > cap { cached - (cap - cap / SLACK) } else { 0 };
        let over_cap = space.cached.map_or(0, over);
        let free = self.store().free_disk().await?.filter(|free| *free < space.free);
        let short = free.map_or(0, |free| space.free - free + space.free / SLACK);
        Ok(over_cap.max(short.min(cached)))
    }
}

/// A run in progress.
struct Run<'a> {
    registry: &'a Registry,
    /// How many bytes are to go.
    wanted: u64,
    /// How many questions have been asked.
    questions: usize,
    /// Upstreams that do not answer now.
    silent: HashSet<String>,
    evicted: Evicted,
}

impl Run<'_> {
    async fn make_room(&mut self, before: SystemTime) -> Result<()> {
        let names = self.registry.store().names();
        let mut last = None;
        loop {
            let step = names.oldest_cached(before, last, STEP).await?;
            last = step.last().cloned();
            for cached in step {
                if self.evicted.bytes >= self.wanted || self.questions >= MAX_QUESTIONS {
                    return Ok(());
                }
                self.consider(cached).await?;
            }
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// Evicts an image if nothing speaks against it.
    async fn consider(&mut self, cached: store::Cached) -> Result<()> {
        let registry = self.registry;
        let (room, fills) = (&registry.0.room, &registry.0.fills);
        let (repository, digest) = (cached.repository.clone(), cached.digest);
        if registry.options().space.pins.iter().any(|pin| pin.matches(&repository, &cached.tags)) {
            self.evicted.pinned += 1;
            return Ok(());
        }
        for tag in &cached.tags {
            if registry.is_mirrored(&repository, tag).await? {
                self.evicted.pinned += 1;
                return Ok(());
            }
        }
        if cached.missing.iter().any(|blob| fills.is_fetching(&repository, blob)) {
            self.evicted.busy += 1;
            return Ok(());
        }
        if room.is_kept(&repository, &digest) {
            self.evicted.irreplaceable += 1;
            return Ok(());
        }
        match self.judge(&cached).await? {
            Verdict::Evict => {}
            Verdict::Keep => {
                room.keep(&repository, &digest);
                self.evicted.irreplaceable += 1;
                return Ok(());
            }
            Verdict::Later => {
                self.evicted.busy += 1;
                return Ok(());
            }
        }
        // A pull that was noted meanwhile counts, too.
        registry.write_uses().await;
        let Some(evicted) = registry.store().names().evict_cached(cached).await? else {
            self.evicted.busy += 1;
            return Ok(());
        };
        for manifest in &evicted.manifests {
            fills.forget_complete(&repository, manifest);
        }
        tracing::debug!(%repository, %digest, ?evicted, "an image was evicted");
        self.evicted.images += 1;
        self.evicted.tags += evicted.tags;
        self.evicted.bytes += evicted.bytes;
        Ok(())
    }

    /// Whether everything of an image can be fetched again by who asks for it.
    async fn judge(&mut self, cached: &store::Cached) -> Result<Verdict> {
        let Some(source) = self.registry.0.upstreams.source(&cached.repository) else {
            return Ok(Verdict::Keep);
        };
        let Some(manifests) = &cached.manifests else { return Ok(Verdict::Keep) };
        for manifest in manifests {
            // What only an operator could bring would not come again by being asked for.
            match self.registry.check_wanted(&cached.repository, Lost::Manifest(manifest)).await {
                Ok(()) => {}
                Err(crate::Error::Absent(_)) => return Ok(Verdict::Keep),
                Err(error) => return Err(error),
            }
        }
        for tag in &cached.tags {
            let reference = Reference::Tag(tag.clone());
            match self.ask(&source, &reference, |head| moved_as_it_may(&source, tag, cached, head)).await {
                Verdict::Evict => {}
                other => return Ok(other),
            }
        }
        for manifest in manifests {
            let same = |head: &client::ManifestHead| head.digest.is_none_or(|digest| digest == *manifest);
            match self.ask(&source, &Reference::Digest(*manifest), same).await {
                Verdict::Evict => {}
                other => return Ok(other),
            }
        }
        Ok(Verdict::Evict)
    }

    /// Whether the upstream has `reference`, and `good` is what it says about it.
    async fn ask(
        &mut self,
        source: &Source,
        reference: &Reference,
        good: impl Fn(&client::ManifestHead) -> bool,
    ) -> Verdict {
        let remote = &source.remote;
        if self.silent.contains(remote.client.host()) {
            return Verdict::Later;
        }
        if remote.is_paused() || remote.may_ask(Ask::Head).is_err() {
            self.silent.insert(remote.client.host().to_owned());
            return Verdict::Later;
        }
        self.questions += 1;
        let head = remote.client.head_manifest(&source.repository, reference).await;
        remote.note(Ask::Head, &head);
        match head {
            Ok(head) if good(&head) => Verdict::Evict,
            Ok(_) => Verdict::Keep,
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable { .. }) => {
                self.silent.insert(remote.client.host().to_owned());
                Verdict::Later
            }
            Err(_) => Verdict::Keep,
        }
    }
}

/// Whether a tag upstream is what who asks for it may be given: one that never moves must be what it is here.
fn moved_as_it_may(source: &Source, tag: &Tag, cached: &store::Cached, head: &client::ManifestHead) -> bool {
    match source.remote.policy.lifetime(tag) {
        Lifetime::Immutable => head.digest == Some(cached.digest),
        Lifetime::MaxAge(_) => true,
    }
}
