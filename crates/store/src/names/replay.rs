//! What names say after every change of a journal: the state from which a database is made again, and with which one
//! is compared.

use std::collections::{HashMap, HashSet, VecDeque};

use deltaport_oci::{Digest, RepositoryName, Tag};

use super::past::{self, MAX_PAST};
use super::{Verdict, from_milliseconds};
use crate::journal::Change;

/// Names in memory, with when each was last set. Takes some 200 bytes for each.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) links: HashMap<(RepositoryName, Digest), i64>,
    /// Media type, when, and a number that grows with every manifest put.
    pub(crate) manifests: HashMap<(RepositoryName, Digest), (String, i64, u64)>,
    /// Those of the manifests that came from an upstream.
    pub(crate) fetched: HashSet<(RepositoryName, Digest)>,
    pub(crate) tags: HashMap<(RepositoryName, Tag), Pointed>,
    /// What was decided about each of the manifests, under its names.
    pub(crate) verdicts: HashMap<(RepositoryName, Digest), HashMap<Option<Tag>, Verdict>>,
    pub(crate) deltas: HashMap<(RepositoryName, Digest, Digest), (Option<Digest>, i64)>,
    puts: u64,
}

/// What a tag points at and pointed at before.
#[derive(Debug)]
pub(crate) struct Pointed {
    pub(crate) digest: Digest,
    /// Since when.
    pub(crate) at: i64,
    /// What it pointed at before, and until when; the oldest first.
    pub(crate) past: VecDeque<(Digest, i64)>,
}

impl Pointed {
    /// Follows a tag that moves, exactly as its rows do.
    fn move_to(&mut self, digest: Digest, at: i64) {
        if digest != self.digest {
            self.past.retain(|(old, _)| *old != digest);
            let until = past::behind(self.past.back().map(|(_, until)| *until), at);
            self.past.push_back((self.digest, until));
            if self.past.len() > MAX_PAST {
                self.past.pop_front();
            }
        }
        (self.digest, self.at) = (digest, at);
    }

    /// Takes `digest` out of the past, with what is older: rows may have been kept for less long than the journal.
    fn take(&mut self, digest: &Digest) -> bool {
        let found = self.past.iter().position(|(old, _)| old == digest);
        found.map(|at| self.past.drain(..=at)).is_some()
    }
}

impl Replay {
    /// Does what a line of the journal says.
    pub(crate) fn apply(&mut self, at: i64, change: Change) {
        match change {
            Change::Link { repository, digest } => {
                self.links.insert((repository, digest), at);
            }
            Change::Unlink { repository, digest } => {
                self.links.remove(&(repository, digest));
            }
            Change::Manifest { repository, digest, media_type } => {
                self.puts += 1;
                self.fetched.remove(&(repository.clone(), digest));
                self.manifests.insert((repository, digest), (media_type, at, self.puts));
            }
            Change::ManifestDeleted { repository, digest } => {
                let key = (repository, digest);
                self.manifests.remove(&key);
                self.fetched.remove(&key);
                self.verdicts.remove(&key);
            }
            Change::Fetched { repository, digest } => {
                self.fetched.insert((repository, digest));
            }
            Change::Verdict { repository, digest, tag, policy, accepted, text } => {
                let verdict = Verdict { tag: tag.clone(), policy, at: from_milliseconds(at), accepted, text };
                self.verdicts.entry((repository, digest)).or_default().insert(tag, verdict);
            }
            Change::Tag { repository, tag, digest } => {
                self.tags
                    .entry((repository, tag))
                    .and_modify(|pointed| pointed.move_to(digest, at))
                    .or_insert_with(|| Pointed { digest, at, past: VecDeque::new() });
            }
            Change::TagDeleted { repository, tag } => {
                self.tags.remove(&(repository, tag));
            }
            Change::Delta { repository, base, target, digest } => {
                self.deltas.insert((repository, base, target), (digest, at));
            }
            Change::DeltaDeleted { repository, base, target } => {
                self.deltas.remove(&(repository, base, target));
            }
            // A journal begins with it; nothing came before.
            Change::Snapshot {} => {}
        }
    }

    /// Takes out what `change` would set; whether it was there just so.
    pub(crate) fn take(&mut self, change: &Change) -> bool {
        match change {
            Change::Link { repository, digest } => {
                self.links.remove(&(repository.clone(), *digest)).is_some()
            }
            Change::Manifest { repository, digest, media_type } => self
                .manifests
                .remove(&(repository.clone(), *digest))
                .is_some_and(|(found, ..)| found == *media_type),
            Change::Fetched { repository, digest } => self.fetched.remove(&(repository.clone(), *digest)),
            Change::Verdict { repository, digest, tag, policy, accepted, text } => self
                .verdicts
                .get_mut(&(repository.clone(), *digest))
                .and_then(|verdicts| verdicts.remove(tag))
                .is_some_and(|found| {
                    (found.policy, found.accepted, &found.text) == (*policy, *accepted, text)
                }),
            // A tag's past comes before its present.
            Change::Tag { repository, tag, digest } => {
                let key = (repository.clone(), tag.clone());
                match self.tags.get_mut(&key) {
                    Some(pointed) if pointed.digest != *digest => pointed.take(digest),
                    _ => self.tags.remove(&key).is_some(),
                }
            }
            Change::Delta { repository, base, target, digest } => self
                .deltas
                .remove(&(repository.clone(), *base, *target))
                .is_some_and(|(found, _)| found == *digest),
            _ => true,
        }
    }

    /// How many names there are; the past of a tag belongs to it.
    pub(crate) fn len(&self) -> usize {
        let verdicts: usize = self.verdicts.values().map(HashMap::len).sum();
        let manifests = self.manifests.len() + self.fetched.len() + verdicts;
        self.links.len() + manifests + self.tags.len() + self.deltas.len()
    }
}
