//! Removing tags that a rule has brought and does not want any more, here and at its destination, but never more of them
//! than it may, and never one that somebody else has put there.

use std::collections::BTreeSet;
use std::str::FromStr;

use deltaport_oci::{Digest, Reference, RepositoryName, Tag};

use super::Job;
use super::destination::{At, Target};
use super::origin::Origin;
use super::report::Removal;
use super::run::MAX_TAGS;
use super::select::belongs_to_digest;
use crate::{Registry, Result};

/// How many tags a run may remove from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// So many.
    Tags(usize),
    /// So many of a hundred that the rule has brought there, rounded up.
    Percent(u8),
}

impl Cap {
    /// How many of `all` these are at most.
    fn of(self, all: usize) -> usize {
        match self {
            Self::Tags(most) => most,
            Self::Percent(percent) => all.saturating_mul(usize::from(percent)).div_ceil(100),
        }
    }
}

impl FromStr for Cap {
    type Err = CapError;

    fn from_str(text: &str) -> Result<Self, CapError> {
        let percent = |text: &str| text.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent);
        match text.strip_suffix('%') {
            Some(text) => percent(text.trim()),
            None => text.parse().ok().map(Self::Tags),
        }
        .ok_or(CapError)
    }
}

/// Why a text is not a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cap is a number of tags such as 20, or a part of them such as 25%")]
pub struct CapError;

/// What may be removed, and why nothing is.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    pub(super) removals: Vec<Removal>,
    pub(super) kept: Option<String>,
}

/// What a rule has brought to a place.
struct Brought {
    /// `None` is this registry.
    target: Option<Target>,
    place: String,
    /// Tags that are not wanted any more, and behind them those of their signatures.
    unwanted: Vec<(Tag, Digest)>,
}

impl Registry {
    /// Whether a rule that keeps what it mirrors here wants a tag that it has brought: as its last run says, and until
    /// there was one since the start of the process, yes. What goes on to a destination is here on its way only.
    pub(crate) async fn is_mirrored(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool> {
        let rules = self.store().names().rules_of(repository.as_str(), tag).await?;
        let kept =
            |name: &String| self.options().mirrors.iter().any(|rule| rule.name == *name && rule.to.is_none());
        let wanted = |rule| self.0.mirrors.wanted(rule, repository, tag).unwrap_or(true);
        Ok(rules.into_iter().filter(kept).any(|rule| belongs_to_digest(tag) || wanted(rule)))
    }

    /// Removes what the rule has brought and is not among `wanted`, or only says what that is. `wanted` are the tags that
    /// the rule selects and the upstream has, so that one which could not be asked for stays.
    pub(super) async fn prune_mirrored(
        &self,
        job: &Job,
        wanted: &BTreeSet<Tag>,
        plan: bool,
    ) -> Result<Pruned, String> {
        let mut pruned = Pruned::default();
        let Some(cap) = job.rule.prune else { return Ok(pruned) };
        let mut places = Vec::new();
        for target in std::iter::once(None).chain(job.to.clone().map(Some)) {
            let place = target.as_ref().map_or_else(|| job.repository.to_string(), |to| to.place.clone());
            let all = self.store().names().mirrored(&job.rule.name, &place, 2 * MAX_TAGS).await;
            let all = all.map_err(|error| error.to_string())?;
            let (attached, tags): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|(tag, _)| belongs_to_digest(tag));
            let count = tags.len();
            let (kept, unwanted): (Vec<_>, Vec<_>) =
                tags.into_iter().partition(|(tag, _)| wanted.contains(tag));
            let most = cap.of(count);
            if unwanted.len() > most {
                pruned.kept = Some(format!(
                    "{} of {count} tags in {place} are not wanted any more, and a run may remove {most}: nothing is \
                     removed; see whether the upstream is as it should be, then raise prune_cap",
                    unwanted.len()
                ));
            }
            let stays = self.trees(job, kept.iter().map(|(_, digest)| *digest)).await?;
            let goes = self.trees(job, unwanted.iter().map(|(_, digest)| *digest)).await?;
            let about = |(tag, _): &(Tag, Digest)| {
                subject_of(tag).is_some_and(|subject| goes.contains(&subject) && !stays.contains(&subject))
            };
            let unwanted = unwanted.into_iter().chain(attached.into_iter().filter(about)).collect();
            places.push(Brought { target, place, unwanted });
        }
        let over = pruned.kept.is_some();
        for mut brought in places {
            for (tag, digest) in std::mem::take(&mut brought.unwanted) {
                let removal = self.remove(job, &brought, tag, digest, plan || over).await?;
                pruned.removals.extend(removal);
            }
        }
        Ok(pruned)
    }

    /// Removes a tag from a place; `None` when it is somebody else's by now, or gone.
    async fn remove(
        &self,
        job: &Job,
        brought: &Brought,
        tag: Tag,
        digest: Digest,
        keep: bool,
    ) -> Result<Option<Removal>, String> {
        let names = self.store().names();
        let here = Reference::Tag(tag.clone());
        let now = match &brought.target {
            Some(target) => target.head(&tag).await?,
            None => {
                let stored =
                    names.manifest(&job.repository, &here).await.map_err(|error| error.to_string())?;
                stored.map(|stored| stored.digest)
            }
        };
        let place = brought.place.clone();
        let mut removal = Removal { place, tag, digest, done: false, why: None };
        let ours = now == Some(digest);
        if keep {
            return Ok(Some(removal).filter(|_| ours));
        }
        if ours {
            match &brought.target {
                Some(target) => match remove_there(target, &removal).await {
                    Ok(()) => {}
                    Err(why) => {
                        removal.why = Some(why);
                        return Ok(Some(removal));
                    }
                },
                None => {
                    // In a repository of an upstream nobody else puts anything; in one of our own, others may use the
                    // manifest by its digest.
                    let image = matches!(job.source, Origin::Upstream(_));
                    let pruned = names.prune_tag(&job.repository, &removal.tag, &digest, image).await;
                    pruned.map_err(|error| error.to_string())?;
                }
            }
        }
        let forgotten = names.forget_mirrored(&job.rule.name, &brought.place, &removal.tag).await;
        forgotten.map_err(|error| error.to_string())?;
        removal.done = true;
        Ok(Some(removal).filter(|_| ours))
    }

    /// Some manifests with all that is below them here.
    async fn trees(
        &self,
        job: &Job,
        roots: impl Iterator<Item = Digest>,
    ) -> Result<BTreeSet<Digest>, String> {
        let (mut all, mut left) = (BTreeSet::new(), roots.collect::<Vec<_>>());
        while let Some(digest) = left.pop() {
            if !all.insert(digest) {
                continue;
            }
            let stored = self.store().names().manifest(&job.repository, &Reference::Digest(digest)).await;
            let view = stored.map_err(|error| error.to_string())?.and_then(|stored| self.view_of(&stored));
            left.extend(view.into_iter().flat_map(|view| view.manifests).map(|child| child.digest));
        }
        Ok(all)
    }
}

/// The manifest that a tag of a signature is named after. Of longer digests a tag holds the beginning only: nobody knows
/// what it is about.
fn subject_of(tag: &Tag) -> Option<Digest> {
    tag.as_str().split('.').next().unwrap_or_default().replacen('-', ":", 1).parse().ok()
}

async fn remove_there(target: &Target, removal: &Removal) -> Result<(), String> {
    match &target.at {
        At::Layout(layout) => layout.forget(removal.tag.clone(), removal.digest).await.map(drop),
        At::Registry { remote, repository } => {
            match remote.client.delete_tag(repository, &removal.tag).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(format!(
                    "{} does not remove a tag without its manifest, which may have others; remove it there",
                    remote.client.host()
                )),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_a_number_or_a_part_of_all() {
        for (cap, all, most) in [
            (Cap::Tags(3), 100, 3),
            (Cap::Tags(0), 100, 0),
            (Cap::Percent(20), 100, 20),
            (Cap::Percent(20), 4, 1),
            (Cap::Percent(0), 4, 0),
            (Cap::Percent(100), 7, 7),
        ] {
            assert_eq!(cap.of(all), most, "{cap:?} {all}");
        }
        for (text, cap) in
            [("3", Ok(Cap::Tags(3))), ("25%", Ok(Cap::Percent(25))), ("25 %", Ok(Cap::Percent(25)))]
        {
            assert_eq!(text.parse(), cap, "{text}");
        }
        for text in ["", "%", "101%", "-1", "all", "2.5%"] {
            assert_eq!(text.parse::<Cap>(), Err(CapError), "{text}");
        }
    }
}
