//! When a tag moves, sites that hold its old layers will want the new ones. The deltas are made before they ask.

use std::collections::HashSet;

use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Descriptor, Digest, Reference, RepositoryName, Tag};
use deltaport_store::DeltaJob;

use super::jobs::MAX_AHEAD;
use super::{MAX_KEPT, MAX_RATIO};
use crate::{Registry, Result};

/// How many children of an index are compared.
const MAX_CHILDREN: usize = 32;

/// Which deltas are to be made, in the order in which they are, each once.
#[derive(Debug, Default)]
struct Plan {
    /// Base and target.
    pairs: Vec<(Digest, Digest)>,
    seen: HashSet<(Digest, Digest)>,
}

impl Plan {
    /// Adds a pair, unless enough bases of its target are planned already.
    fn add(&mut self, base: Digest, target: Digest) {
        let bases = self.pairs.iter().filter(|(_, other)| *other == target).count();
        if bases < MAX_KEPT && self.pairs.len() < MAX_AHEAD && self.seen.insert((base, target)) {
            self.pairs.push((base, target));
        }
    }
}

impl Registry {
    /// Has deltas made from the layers of what `tags` pointed to before, as far back as
    /// [`Delta::history`](crate::Delta::history) goes, to those of `digest`, where they point now.
    pub(crate) fn prepare_moved(&self, repository: &RepositoryName, tags: Vec<Tag>, digest: Digest) {
        let history = self.options().delta.history;
        if tags.is_empty() || history == 0 {
            return;
        }
        let (registry, repository) = (self.clone(), repository.clone());
        tokio::spawn(async move {
            if let Err(error) = registry.prepare(&repository, &tags, &digest, history).await {
                tracing::warn!(%repository, %digest, %error, "deltas for a moved tag are not made ahead");
            }
        });
    }

    async fn prepare(
        &self,
        repository: &RepositoryName,
        tags: &[Tag],
        digest: &Digest,
        history: usize,
    ) -> Result<()> {
        let mut old = Vec::new();
        for tag in tags {
            let past = self.store().names().tag_past(repository, tag, history).await?;
            old.extend(past.into_iter().filter(|past| past != digest));
        }
        let mut seen = HashSet::new();
        old.retain(|past| seen.insert(*past));
        let Some(new) = (if old.is_empty() { None } else { self.view(repository, digest).await? }) else {
            return Ok(());
        };
        let mut plan = Plan::default();
        for old in &old {
            let Some(old) = self.view(repository, old).await? else { continue };
            self.plan_image(repository, &old, &new, &mut plan).await?;
            for (old, new) in same_platforms(&old, &new) {
                let (old, new) = (self.view(repository, &old).await?, self.view(repository, &new).await?);
                if let (Some(old), Some(new)) = (old, new) {
                    self.plan_image(repository, &old, &new, &mut plan).await?;
                }
            }
        }
        let job = |(base, target)| DeltaJob { repository: repository.clone(), base, target, waited: false };
        Ok(self.make_ahead(plan.pairs.into_iter().map(job).collect()).await?)
    }

    async fn plan_image(
        &self,
        repository: &RepositoryName,
        old: &View,
        new: &View,
        plan: &mut Plan,
    ) -> Result<()> {
        let names = self.store().names();
        for (base, target) in layer_pairs(old, new) {
            let held = [names.blob(repository, &base).await?, names.blob(repository, &target).await?];
            if let [Some(base_size), Some(target_size)] = held
                && self.is_promising(base_size, target_size)
            {
                plan.add(base, target);
            }
        }
        Ok(())
    }

    async fn view(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<View>> {
        let manifest = self.store().names().manifest(repository, &Reference::Digest(*digest)).await?;
        Ok(manifest.and_then(|found| View::parse(&found.media_type, &found.bytes, Limits::DEFAULT).ok()))
    }
}

/// The children of two indexes that are for the same platform and differ.
fn same_platforms(old: &View, new: &View) -> Vec<(Digest, Digest)> {
    let pair = |new: &Descriptor| {
        let same = |old: &&Descriptor| match (&old.platform, &new.platform) {
            (Some(old), Some(new)) => old.is_same(new),
            _ => false,
        };
        old.manifests.iter().find(same).map(|old| (old.digest, new.digest))
    };
    new.manifests.iter().filter_map(pair).filter(|(old, new)| old != new).take(MAX_CHILDREN).collect()
}

/// For each layer that is new, the old one that it most likely replaces: of those that are gone and not of another size
/// altogether, one at the same place, counted from the bottom or from the top, or else the one of the most similar size.
fn layer_pairs(old: &View, new: &View) -> Vec<(Digest, Digest)> {
    let digests = |view: &View| view.layers.iter().map(|layer| layer.digest).collect::<HashSet<Digest>>();
    let (held, kept) = (digests(old), digests(new));
    let gone: Vec<(usize, &Descriptor)> =
        old.layers.iter().enumerate().filter(|(_, layer)| !kept.contains(&layer.digest)).collect();
    let fresh = new.layers.iter().enumerate().filter(|(_, layer)| !held.contains(&layer.digest));
    let pair = |(place, target): (usize, &Descriptor)| {
        let rank = |(old_place, base): &&(usize, &Descriptor)| {
            let (small, large) = (base.size.min(target.size), base.size.max(target.size));
            let from_top = old.layers.len() - old_place == new.layers.len() - place;
            let same_place = *old_place == place || from_top;
            (large / MAX_RATIO > small, !same_place, base.size.abs_diff(target.size))
        };
        let (_, base) = gone.iter().min_by_key(rank)?;
        Some((base.digest, target.digest))
    };
    fresh.filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltaport_oci::media_type;

    fn view(layers: &[(&str, u64)]) -> View {
        let descriptor = |(content, size): &(&str, u64)| {
            let digest = Digest::sha256(content.as_bytes());
            format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":{size}}}"#)
        };
        let layers: Vec<String> = layers.iter().map(descriptor).collect();
        let json = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor(&("config", 2)),
            layers.join(",")
        );
        View::parse(media_type::OCI_MANIFEST, json.as_bytes(), Limits::DEFAULT).unwrap()
    }

    #[test]
    fn a_new_layer_replaces_the_gone_one_of_its_size() {
        let old = view(&[("base", 1000), ("app", 50), ("same", 1010)]);
        let new = view(&[("base 2", 1005), ("app 2", 40), ("same", 1010)]);
        let digest = |content: &str| Digest::sha256(content.as_bytes());
        assert_eq!(
            layer_pairs(&old, &new),
            [(digest("base"), digest("base 2")), (digest("app"), digest("app 2")),]
        );
        assert_eq!(layer_pairs(&old, &old), []);
        // Sizes say nothing here: places do.
        let old = view(&[("a", 100), ("b", 100), ("c", 101)]);
        let new = view(&[("a 2", 101), ("b 2", 101), ("c 2", 100)]);
        let expected = ["a", "b", "c"].map(|name| (digest(name), digest(&format!("{name} 2"))));
        assert_eq!(layer_pairs(&old, &new), expected);
        assert_eq!(layer_pairs(&view(&[]), &new), []);
    }

    #[test]
    fn a_plan_has_each_pair_once_and_few_bases() {
        let digest = |n: usize| Digest::sha256(&n.to_le_bytes());
        let mut plan = Plan::default();
        for n in [1, 2, 1, 2] {
            plan.add(digest(n), digest(0));
        }
        assert_eq!(plan.pairs, [(digest(1), digest(0)), (digest(2), digest(0))]);
        (3..100).for_each(|n| plan.add(digest(n), digest(0)));
        assert_eq!(plan.pairs.len(), MAX_KEPT);
        plan.add(digest(0), digest(1));
        assert_eq!(plan.pairs.len(), MAX_KEPT + 1, "another target");
    }

    #[test]
    fn children_are_compared_by_platform() {
        let index = |amd: &str, arm: &str| {
            let child = |content: &str, architecture: &str| {
                let digest = Digest::sha256(content.as_bytes());
                format!(
                    r#"{{"digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
                )
            };
            let json = format!(
                r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
                child(amd, "amd64"),
                child(arm, "arm64")
            );
            View::parse(media_type::OCI_INDEX, json.as_bytes(), Limits::DEFAULT).unwrap()
        };
        let digest = |content: &str| Digest::sha256(content.as_bytes());
        let pairs = same_platforms(&index("a", "b"), &index("a 2", "b"));
        assert_eq!(pairs, [(digest("a"), digest("a 2"))]);
    }
}
