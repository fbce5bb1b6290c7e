//! What was said to be so, against which every answer is held.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use deltaport_oci::Digest;
use serde::{Deserialize, Serialize};

/// A tag, by the path of its manifest; all that it may mean now. `None` is that there is no such tag.
type Tags = BTreeMap<String, BTreeSet<Option<Digest>>>;

/// What everybody who takes part knows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// How many runs there were before this one.
    pub(crate) runs: u64,
    /// How long they took together, in seconds.
    pub(crate) seconds: u64,
    /// Tags at the site that were pushed there.
    own: Mutex<Tags>,
    /// Tags at the upstream; what they mean now.
    upstream: Mutex<Tags>,
    /// Everything that a tag at the upstream ever meant.
    ever: Mutex<BTreeMap<String, BTreeSet<Digest>>>,
    /// Paths of manifests at the site whose upstream is gone, and that were there in full afterwards.
    kept: Mutex<BTreeSet<String>>,
    /// How often each thing was done in this run.
    #[serde(skip)]
    pub(crate) done: Done,
    /// Whether it is over.
    #[serde(skip)]
    stopped: AtomicBool,
}

/// How often each thing was done. One that never was has shown nothing.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) pushed: AtomicU64,
    pub(crate) deleted: AtomicU64,
    pub(crate) pulled: AtomicU64,
    pub(crate) pulled_through: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    pub(crate) mirrored: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) collected: AtomicU64,
    /// Those of earlier runs included: there is only room for so many.
    pub(crate) kept: AtomicU64,
    pub(crate) restarts: AtomicU64,
}

impl Done {
    /// All of them, but what goes wrong by chance.
    pub(crate) fn all(&self) -> [(&'static str, &AtomicU64); 9] {
        [
            ("pushed", &self.pushed),
            ("deleted", &self.deleted),
            ("pulled", &self.pulled),
            ("pulled through", &self.pulled_through),
            ("mirrored", &self.mirrored),
            ("evicted", &self.evicted),
            ("collected", &self.collected),
            ("kept", &self.kept),
            ("started again", &self.restarts),
        ]
    }

    /// Whether each of them has been done.
    pub(crate) fn is_everything(&self) -> bool {
        self.all().iter().all(|(_, often)| often.load(Ordering::Relaxed) > 0)
    }
}

/// One more of it.
pub(crate) fn count(what: &AtomicU64) {
    what.fetch_add(1, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("who holds it does not panic")
}

/// On which side a tag is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Site,
    Upstream,
}

impl Ledger {
    /// Takes what was kept in `file`, if anything was. The file is gone until [`Ledger::keep_in`]: a run that does not
    /// come to its end leaves nothing that the next could hold what is stored against.
    pub(crate) fn taken_from(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut ledger: Self = serde_json::from_str(&text).expect("it was written by an earlier run");
        ledger.done.kept = AtomicU64::new(ledger.kept().len() as u64);
        fs::remove_file(file).expect("it was just read");
        Some(ledger)
    }

    /// Keeps it for the next run, after one of so many seconds.
    pub(crate) fn keep_in(&self, file: &Path, seconds: u64) {
        let mut kept = serde_json::to_value(self).expect("all of it has a form in JSON");
        kept["runs"] = (self.runs + 1).into();
        kept["seconds"] = (self.seconds + seconds).into();
        let text = serde_json::to_vec_pretty(&kept).expect("all of it has a form in JSON");
        fs::write(file, text).expect("there is room for it");
    }

    fn tags(&self, side: Side) -> MutexGuard<'_, Tags> {
        lock(match side {
            Side::Site => &self.own,
            Side::Upstream => &self.upstream,
        })
    }

    /// Somebody asks for a tag to mean `wanted`; until the answer, it may mean this or what it meant before.
    pub(crate) fn asked(&self, side: Side, path: &str, wanted: Option<Digest>) {
        self.tags(side).entry(path.to_owned()).or_insert_with(|| [None].into()).insert(wanted);
        if let (Side::Upstream, Some(digest)) = (side, wanted) {
            lock(&self.ever).entry(path.to_owned()).or_default().insert(digest);
        }
    }

    /// It was acknowledged that a tag means `digest`.
    pub(crate) fn acknowledged(&self, side: Side, path: &str, digest: Option<Digest>) {
        self.tags(side).insert(path.to_owned(), [digest].into());
    }

    /// What a tag may mean.
    pub(crate) fn meant(&self, side: Side, path: &str) -> BTreeSet<Option<Digest>> {
        self.tags(side).get(path).cloned().unwrap_or_else(|| [None].into())
    }

    /// All tags.
    pub(crate) fn paths(&self, side: Side) -> Vec<String> {
        self.tags(side).keys().cloned().collect()
    }

    /// Whether a tag at the upstream ever meant this.
    pub(crate) fn ever_meant(&self, path: &str, digest: &Digest) -> bool {
        lock(&self.ever).get(path).is_some_and(|digests| digests.contains(digest))
    }

    /// A manifest was at the site in full when its upstream did not have it any more.
    pub(crate) fn keep(&self, path: String) {
        lock(&self.kept).insert(path);
    }

    pub(crate) fn kept(&self) -> Vec<String> {
        lock(&self.kept).iter().cloned().collect()
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}
