//! When a tag moves, sites that hold its old layers will want the new ones. The deltas are made before they ask.

use std::sync::Arc;

use deltaport_delta::Profile;
use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Descriptor, Digest, Reference, RepositoryName, Tag};

use crate::{Manifest, Registry, Result};

/// How many children of an index are compared.
const MAX_CHILDREN: usize = 32;

/// What tags pointed to before a push.
#[derive(Debug)]
pub(crate) struct Moved {
    before: Vec<Arc<Manifest>>,
}

impl Registry {
    /// Notes what `tags` point to, before they move.
    pub(crate) async fn before_move(&self, repository: &RepositoryName, tags: &[Tag]) -> Result<Moved> {
        let mut before = Vec::<Arc<Manifest>>::new();
        for tag in tags {
            let found = self.store().names().manifest(repository, &Reference::Tag(tag.clone())).await?;
            before.extend(found.filter(|found| before.iter().all(|other| other.digest != found.digest)));
        }
        Ok(Moved { before })
    }

    /// Has deltas made from the layers that tags pointed to, to those of `digest`, where they point now.
    pub(crate) fn after_move(&self, repository: &RepositoryName, moved: Moved, digest: Digest) {
        let before: Vec<_> = moved.before.into_iter().filter(|old| old.digest != digest).collect();
        if before.is_empty() {
            return;
        }
        let (registry, repository) = (self.clone(), repository.clone());
        tokio::spawn(async move {
            for old in before {
                if let Err(error) = registry.prepare(&repository, &old, &digest).await {
                    tracing::warn!(%repository, %digest, %error, "deltas for a moved tag are not made ahead");
                }
            }
        });
    }

    async fn prepare(&self, repository: &RepositoryName, old: &Manifest, new: &Digest) -> Result<()> {
        let Some(new) = self.view(repository, new).await? else { return Ok(()) };
        let Ok(old) = View::parse(&old.media_type, &old.bytes, Limits::DEFAULT) else { return Ok(()) };
        for (old, new) in same_platforms(&old, &new) {
            let (old, new) = (self.view(repository, &old).await?, self.view(repository, &new).await?);
            if let (Some(old), Some(new)) = (old, new) {
                self.prepare_image(repository, &old, &new).await?;
            }
        }
        self.prepare_image(repository, &old, &new).await
    }

    async fn prepare_image(&self, repository: &RepositoryName, old: &View, new: &View) -> Result<()> {
        let names = self.store().names();
        for (base, target) in layer_pairs(old, new) {
            let held = [names.blob(repository, &base).await?, names.blob(repository, &target).await?];
            if let [Some(base_size), Some(target_size)] = held
                && self.is_promising(base_size, target_size)
            {
                self.make_delta(repository, &base, &target, Profile::Best);
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
        let same = |old: &&Descriptor| old.platform.is_some() && old.platform == new.platform;
        old.manifests.iter().find(same).map(|old| (old.digest, new.digest))
    };
    new.manifests.iter().filter_map(pair).filter(|(old, new)| old != new).take(MAX_CHILDREN).collect()
}

/// For each layer that is new, the old one that it most likely replaces: of those that are gone, the one of the most
/// similar size.
fn layer_pairs(old: &View, new: &View) -> Vec<(Digest, Digest)> {
    let is_in = |layers: &[Descriptor], layer: &Descriptor| layers.iter().any(|l| l.digest == layer.digest);
    let gone: Vec<&Descriptor> = old.layers.iter().filter(|layer| !is_in(&new.layers, layer)).collect();
    let fresh = new.layers.iter().filter(|layer| !is_in(&old.layers, layer));
    let pair = |target: &Descriptor| {
        let base = gone.iter().min_by_key(|base| base.size.abs_diff(target.size))?;
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
        assert_eq!(layer_pairs(&view(&[]), &new), []);
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
