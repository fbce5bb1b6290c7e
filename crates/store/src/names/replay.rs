//! What names say after every change of a journal: the state from which a database is made again, and with which one
//! is compared.

use std::collections::HashMap;

use deltaport_oci::{Digest, RepositoryName, Tag};

use crate::journal::Change;

/// Names in memory, with when each was last set. Takes some 200 bytes for each.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) links: HashMap<(RepositoryName, Digest), i64>,
    /// Media type, when, and a number that grows with every manifest put.
    pub(crate) manifests: HashMap<(RepositoryName, Digest), (String, i64, u64)>,
    pub(crate) tags: HashMap<(RepositoryName, Tag), (Digest, i64)>,
    pub(crate) deltas: HashMap<(RepositoryName, Digest, Digest), (Option<Digest>, i64)>,
    puts: u64,
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
                self.manifests.insert((repository, digest), (media_type, at, self.puts));
            }
            Change::ManifestDeleted { repository, digest } => {
                self.manifests.remove(&(repository, digest));
            }
            Change::Tag { repository, tag, digest } => {
                self.tags.insert((repository, tag), (digest, at));
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
            Change::Tag { repository, tag, digest } => self
                .tags
                .remove(&(repository.clone(), tag.clone()))
                .is_some_and(|(found, _)| found == *digest),
            Change::Delta { repository, base, target, digest } => self
                .deltas
                .remove(&(repository.clone(), *base, *target))
                .is_some_and(|(found, _)| found == *digest),
            _ => true,
        }
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.links.len() + self.manifests.len() + self.tags.len() + self.deltas.len()
    }
}
