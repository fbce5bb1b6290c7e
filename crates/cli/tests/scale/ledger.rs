//! What was acknowledged to clients, against which every answer is held.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use deltaport_oci::Digest;
use deltaport_testkit::sample::{Content, Image, Random};

/// How far an image has been removed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// It is under its tag.
    Tagged,
    /// Somebody has asked for its tag to be removed, or for its manifest.
    Leaving,
    /// Its tag was removed. It is there by its digest.
    Untagged,
    /// Its manifest was removed.
    Gone,
}

/// An image that was acknowledged, under a tag that never moves.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) image: Image,
    state: Mutex<State>,
}

impl Entry {
    pub(crate) fn new(repository: &str, tag: &str, image: Image) -> Self {
        let state = Mutex::new(State::Tagged);
        Self { repository: repository.to_owned(), tag: tag.to_owned(), image, state }
    }

    pub(crate) fn state(&self) -> State {
        *lock(&self.state)
    }

    pub(crate) fn set(&self, state: State) {
        *lock(&self.state) = state;
    }

    /// The path of its manifest by tag or by digest.
    pub(crate) fn path(&self, by_tag: bool) -> String {
        let digest = self.image.manifest.digest.to_string();
        format!("/v2/{}/manifests/{}", self.repository, if by_tag { &self.tag } else { &digest })
    }
}

/// A tag that has moved: a delta is wanted between two layers.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) repository: String,
    pub(crate) base: Content,
    pub(crate) target: Content,
}

/// What is known about the delta of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nobody has asked, or nobody was answered.
    Nothing,
    /// It was said that it is being made.
    Promised,
    /// It was fetched, and gives the target back.
    Proven,
    /// It was said that there is none.
    Refused,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Mutex<Vec<Arc<Entry>>>,
    moves: Mutex<Vec<(Move, Known)>>,
    /// Of each repository that somebody pushes to: what the tag `latest` leads to.
    latest: Mutex<Vec<(String, Image)>>,
    /// Where it was promised that a delta is made, whatever came of it since.
    promised: Mutex<Vec<usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("who holds it does not panic")
}

impl Ledger {
    pub(crate) fn add(&self, entry: Entry) {
        lock(&self.entries).push(Arc::new(entry));
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).clone()
    }

    /// One of those that `which` holds for.
    pub(crate) fn any(&self, random: &mut Random, which: impl Fn(&Entry) -> bool) -> Option<Arc<Entry>> {
        let entries = lock(&self.entries);
        let fit: Vec<_> = entries.iter().filter(|entry| which(entry)).collect();
        let at = usize::try_from(random.below(fit.len().max(1) as u64)).expect("a few");
        fit.get(at).map(|entry| Arc::clone(entry))
    }

    /// `latest` of a repository leads to this image from now on.
    pub(crate) fn moved(&self, repository: &str, image: &Image) {
        let mut latest = lock(&self.latest);
        let Some((_, before)) = latest.iter_mut().find(|(name, _)| name == repository) else {
            latest.push((repository.to_owned(), image.clone()));
            return;
        };
        let (base, target) = (before.layers[0].clone(), image.layers[0].clone());
        *before = image.clone();
        if base.digest != target.digest {
            let moved = Move { repository: repository.to_owned(), base, target };
            lock(&self.moves).push((moved, Known::Nothing));
        }
    }

    /// What `latest` of each repository leads to.
    pub(crate) fn latest(&self) -> Vec<(String, Image)> {
        lock(&self.latest).clone()
    }

    /// One of the moves whose delta has not been fetched yet, rather a late one, and its number.
    pub(crate) fn unproven(&self, random: &mut Random) -> Option<(usize, Move)> {
        let moves = lock(&self.moves);
        let open =
            |(_, (_, known)): &(usize, &(Move, Known))| matches!(known, Known::Nothing | Known::Promised);
        let fit: Vec<_> = moves.iter().enumerate().filter(open).collect();
        let back = random.below(fit.len().max(1) as u64).min(random.below(fit.len().max(1) as u64));
        let at = fit.len().checked_sub(1 + usize::try_from(back).expect("a few"))?;
        Some((fit[at].0, fit[at].1.0.clone()))
    }

    /// Something was learnt about the delta of a move.
    pub(crate) fn learn(&self, number: usize, known: Known) {
        lock(&self.moves)[number].1 = known;
        let mut promised = lock(&self.promised);
        if known == Known::Promised && !promised.contains(&number) {
            promised.push(number);
        }
    }

    pub(crate) fn moves(&self) -> Vec<(Move, Known)> {
        lock(&self.moves).clone()
    }

    /// The moves whose deltas were said to be coming at some time.
    pub(crate) fn promised(&self) -> Vec<Move> {
        let moves = lock(&self.moves);
        lock(&self.promised).iter().map(|number| moves[*number].0.clone()).collect()
    }

    /// Layers of images whose manifests were removed.
    pub(crate) fn gone_layers(&self) -> HashSet<Digest> {
        let entries = self.entries();
        let gone = entries.iter().filter(|entry| matches!(entry.state(), State::Gone | State::Leaving));
        gone.flat_map(|entry| entry.image.layers.iter().map(|layer| layer.digest)).collect()
    }
}
