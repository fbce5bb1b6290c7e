//! Random operations, against a model that is as simple as can be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_store::{Absence, Error, LayerDelta, NewManifest, Options, Store};
use proptest::prelude::*;
use tempfile::TempDir;

use super::home;
use crate::common::*;

const REPOSITORIES: u8 = 3;
const BLOBS: u8 = 5;
const MANIFESTS: u8 = 6;
const TAGS: u8 = 3;
/// The manifest that is an index, and its children.
const INDEX: u8 = 2;
const CHILDREN: [u8; 2] = [0, 1];

#[derive(Clone, Debug)]
enum Op {
    PushBlob { repository: u8, blob: u8 },
    Link { repository: u8, blob: u8 },
    Unlink { repository: u8, blob: u8 },
    PutManifest { repository: u8, manifest: u8, tags: Vec<u8>, strict: bool },
    DeleteManifest { repository: u8, manifest: u8 },
    DeleteTag { repository: u8, tag: u8 },
    Evict { repository: u8, root: u8, children: Vec<u8> },
    PutDelta { repository: u8, base: u8, target: u8, delta: Option<u8> },
    Collect,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let (r, b, m, t) = (0..REPOSITORIES, 0..BLOBS, 0..MANIFESTS, 0..TAGS);
    prop_oneof![
        6 => (r.clone(), b.clone()).prop_map(|(repository, blob)| Op::PushBlob { repository, blob }),
        2 => (r.clone(), b.clone()).prop_map(|(repository, blob)| Op::Link { repository, blob }),
        2 => (r.clone(), b.clone()).prop_map(|(repository, blob)| Op::Unlink { repository, blob }),
        6 => (r.clone(), m.clone(), proptest::collection::vec(t.clone(), 0..3), any::<bool>())
            .prop_map(|(repository, manifest, tags, strict)| Op::PutManifest { repository, manifest, tags, strict }),
        2 => (r.clone(), m.clone()).prop_map(|(repository, manifest)| Op::DeleteManifest { repository, manifest }),
        2 => (r.clone(), t).prop_map(|(repository, tag)| Op::DeleteTag { repository, tag }),
        3 => (r.clone(), prop_oneof![3 => Just(INDEX), 1 => m.clone()], proptest::collection::vec(m, 1..3))
            .prop_map(|(repository, root, children)| Op::Evict { repository, root, children }),
        2 => (r, b.clone(), b.clone(), proptest::option::of(b))
            .prop_map(|(repository, base, target, delta)| Op::PutDelta { repository, base, target, delta }),
        1 => Just(Op::Collect),
        1 => Just(Op::Restart),
    ]
}

fn blob(n: u8) -> bytes::Bytes {
    noise(u64::from(n), 100 + usize::from(n))
}

fn blob_digest(n: u8) -> Digest {
    Digest::sha256(&blob(n))
}

/// Images over some blobs, indexes over images, and artifacts about them.
fn manifest(n: u8) -> NewManifest {
    let artifact = |subject: u8, kind: &str| {
        let json = format!(
            r#"{{"schemaVersion":2,"artifactType":"{kind}","config":{{"mediaType":"c","digest":"{}","size":1}},"layers":[],"subject":{{"mediaType":"m","digest":"{}","size":1}},"annotations":{{"k":"{n}"}}}}"#,
            blob_digest(0),
            manifest(subject).digest
        );
        new_manifest("application/vnd.oci.image.manifest.v1+json", &json, &[])
    };
    match n {
        0 => image(&blob_digest(0), &[blob_digest(1), blob_digest(2)], &[]),
        1 => image(&blob_digest(0), &[blob_digest(3)], &[]),
        2 => {
            let json = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{}","size":1}},{{"mediaType":"m","digest":"{}","size":1}}]}}"#,
                manifest(0).digest,
                manifest(1).digest
            );
            new_manifest("application/vnd.oci.image.index.v1+json", &json, &[])
        }
        3 => artifact(0, "a/one"),
        4 => artifact(2, "a/two"),
        _ => image(&blob_digest(4), &[blob_digest(1), blob_digest(4)], &[]),
    }
}

fn repository_of(n: u8) -> RepositoryName {
    repository(&format!("r{n}"))
}

fn tag_name(n: u8) -> String {
    format!("t{n}")
}

#[derive(Default)]
struct Model {
    repositories: BTreeMap<u8, Contents>,
}

#[derive(Default)]
struct Contents {
    blobs: BTreeSet<u8>,
    manifests: BTreeSet<u8>,
    /// Children of the index that were evicted and have not come back.
    evicted: BTreeSet<u8>,
    tags: BTreeMap<u8, u8>,
    /// What each tag pointed at before, the most recent last.
    past: BTreeMap<u8, Vec<u8>>,
    deltas: BTreeMap<(u8, u8), Option<u8>>,
}

impl Contents {
    fn refers_to(&self, blob: u8) -> bool {
        let digest = blob_digest(blob);
        let refers = |n: &u8| {
            let view = manifest(*n).view;
            view.config.iter().chain(&view.layers).any(|descriptor| descriptor.digest == digest)
        };
        self.manifests.iter().any(refers) || self.deltas.values().any(|delta| *delta == Some(blob))
    }

    fn point(&mut self, tag: u8, manifest: u8) {
        if let Some(before) = self.tags.insert(tag, manifest)
            && before != manifest
        {
            let past = self.past.entry(tag).or_default();
            past.retain(|old| *old != manifest);
            past.push(before);
        }
    }

    /// Whether a tag leads to `manifest` without the index `root`.
    fn leads_to(&self, manifest: u8, root: u8) -> bool {
        let tagged = |n: u8| self.tags.values().any(|target| *target == n);
        tagged(manifest) || (CHILDREN.contains(&manifest) && root != INDEX && tagged(INDEX))
    }

    fn evict(&mut self, manifest: u8, root: u8) -> bool {
        let goes = manifest != root && !self.leads_to(manifest, root) && self.manifests.remove(&manifest);
        if goes && CHILDREN.contains(&manifest) && self.manifests.contains(&INDEX) {
            self.evicted.insert(manifest);
        }
        self.forget_reasons();
        goes
    }

    /// A reason goes with the last index that asks for it, and when what it is about is here.
    fn forget_reasons(&mut self) {
        let (manifests, index) = (&self.manifests, self.manifests.contains(&INDEX));
        self.evicted.retain(|child| index && !manifests.contains(child));
    }

    fn forget_past_of_gone_tags(&mut self) {
        self.past.retain(|tag, _| self.tags.contains_key(tag));
    }

    fn unlink(&mut self, blob: u8) -> bool {
        self.deltas.retain(|(base, target), delta| ![*base, *target].contains(&blob) && *delta != Some(blob));
        self.blobs.remove(&blob)
    }

    fn collect(&mut self) {
        while let Some(blob) = self.blobs.iter().copied().find(|blob| !self.refers_to(*blob)) {
            self.unlink(blob);
        }
    }
}

impl Model {
    fn of(&mut self, repository: u8) -> &mut Contents {
        self.repositories.entry(repository).or_default()
    }

    fn held(&self, blob: u8) -> bool {
        self.repositories.values().any(|contents| contents.blobs.contains(&blob))
    }
}

async fn apply(store: &Store, model: &mut Model, op: &Op) {
    let names = store.names();
    match op {
        Op::PushBlob { repository, blob: n } => {
            push_blob(store, &repository_of(*repository), blob(*n)).await.unwrap();
            model.of(*repository).blobs.insert(*n);
        }
        Op::Link { repository, blob } => {
            let linked = names.link_blob(&repository_of(*repository), &blob_digest(*blob)).await.unwrap();
            assert_eq!(linked, model.held(*blob));
            if linked {
                model.of(*repository).blobs.insert(*blob);
            }
        }
        Op::Unlink { repository, blob } => {
            let unlinked = names.unlink_blob(&repository_of(*repository), &blob_digest(*blob)).await.unwrap();
            assert_eq!(unlinked, model.of(*repository).unlink(*blob));
        }
        Op::PutManifest { repository, manifest: n, tags, strict } => {
            let mut new = manifest(*n);
            new.tags = tags.iter().map(|n| tag(&tag_name(*n))).collect();
            new.required = if *strict { new.view.blobs().map(|b| b.digest).collect() } else { Vec::new() };
            let contents = model.of(*repository);
            let missing: Vec<Digest> = new
                .required
                .iter()
                .filter(|digest| !contents.blobs.iter().any(|blob| blob_digest(*blob) == **digest))
                .copied()
                .collect();
            match names.put_manifest(&repository_of(*repository), new).await {
                Ok(()) => {
                    assert!(missing.is_empty());
                    contents.manifests.insert(*n);
                    contents.forget_reasons();
                    tags.iter().for_each(|tag| contents.point(*tag, *n));
                }
                Err(Error::Missing(found)) => assert_eq!(found, missing),
                Err(error) => panic!("{error}"),
            }
        }
        Op::DeleteManifest { repository, manifest: n } => {
            let deleted = names.delete_manifest(&repository_of(*repository), &manifest(*n).digest).await;
            let contents = model.of(*repository);
            assert_eq!(deleted.unwrap(), contents.manifests.remove(n));
            contents.tags.retain(|_, target| target != n);
            contents.forget_past_of_gone_tags();
            contents.forget_reasons();
        }
        Op::DeleteTag { repository, tag: n } => {
            let deleted = names.delete_tag(&repository_of(*repository), &tag(&tag_name(*n))).await.unwrap();
            let contents = model.of(*repository);
            assert_eq!(deleted, contents.tags.remove(n).is_some());
            contents.forget_past_of_gone_tags();
        }
        Op::Evict { repository, root, children } => {
            let digests = children.iter().map(|n| manifest(*n).digest).collect();
            let evicted = names.evict(&repository_of(*repository), &manifest(*root).digest, digests).await;
            let contents = model.of(*repository);
            let expected = children.iter().filter(|n| contents.evict(**n, *root));
            assert_eq!(evicted.unwrap(), expected.map(|n| manifest(*n).digest).collect::<Vec<_>>());
        }
        Op::PutDelta { repository, base, target, delta } => {
            let known = delta.map_or(LayerDelta::NotWorthIt, |n| LayerDelta::Blob(blob_digest(n)));
            let (from, to) = (blob_digest(*base), blob_digest(*target));
            let put = names.put_layer_delta(&repository_of(*repository), &from, &to, &known).await;
            let contents = model.of(*repository);
            let held =
                [Some(*base), Some(*target), *delta].iter().flatten().all(|n| contents.blobs.contains(n));
            assert_eq!(put.is_ok(), held, "{put:?}");
            if held {
                contents.deltas.insert((*base, *target), *delta);
            }
        }
        Op::Collect => {
            let later = SystemTime::now() + Duration::from_secs(3601);
            // What one run removes may leave more to remove that it has already passed.
            for _ in 0..3 {
                store.collect(later).await.unwrap();
            }
            model.repositories.values_mut().for_each(Contents::collect);
        }
        Op::Restart => unreachable!("done by the caller"),
    }
}

/// Asks the store everything and compares it with the model.
async fn compare(store: &Store, model: &Model) {
    let names = store.names();
    let mut existing = Vec::new();
    for n in 0..REPOSITORIES {
        let repository = repository_of(n);
        let empty = Contents::default();
        let contents = model.repositories.get(&n).unwrap_or(&empty);
        let exists = !contents.blobs.is_empty() || !contents.manifests.is_empty();
        assert_eq!(names.repository_exists(&repository).await.unwrap(), exists);
        if exists {
            existing.push(repository.clone());
        }
        for n in 0..BLOBS {
            let size = contents.blobs.contains(&n).then_some(blob(n).len() as u64);
            assert_eq!(names.blob(&repository, &blob_digest(n)).await.unwrap(), size);
        }
        for n in 0..MANIFESTS {
            let wanted = manifest(n);
            let found = names.manifest(&repository, &Reference::Digest(wanted.digest)).await.unwrap();
            let expected = contents.manifests.contains(&n).then_some(wanted.bytes);
            assert_eq!(found.map(|m| m.bytes.clone()), expected);
            let absence = names.absence(&repository, &wanted.digest).await.unwrap();
            assert_eq!(absence, contents.evicted.contains(&n).then_some(Absence::Evicted));
            let mut referrers: Vec<_> = contents
                .manifests
                .iter()
                .map(|m| manifest(*m))
                .filter(|m| m.view.subject.as_ref().is_some_and(|s| s.digest == wanted.digest))
                .map(|m| m.view.referrer(m.digest, m.bytes.len() as u64))
                .collect();
            referrers.sort_by_key(|descriptor| descriptor.digest);
            let found = names.referrers(&repository, &wanted.digest, None, None, 10).await.unwrap();
            assert_eq!(found.items, referrers);
        }
        for n in 0..TAGS {
            let found = names.manifest(&repository, &Reference::Tag(tag(&tag_name(n)))).await.unwrap();
            let expected = contents.tags.get(&n).map(|m| manifest(*m).digest);
            assert_eq!(found.map(|m| m.digest), expected);
            let past = names.tag_past(&repository, &tag(&tag_name(n)), 100).await.unwrap();
            let expected = contents.past.get(&n).into_iter().flatten().rev();
            let expected = expected.filter(|m| contents.manifests.contains(m)).map(|m| manifest(*m).digest);
            assert_eq!(past, expected.collect::<Vec<_>>());
        }
        let tags = names.tags(&repository, None, 10).await.unwrap().map(|page| page.items);
        let expected = contents.tags.keys().map(|n| tag(&tag_name(*n))).collect();
        assert_eq!(tags, exists.then_some(expected));
        for base in 0..BLOBS {
            for target in 0..BLOBS {
                let (from, to) = (blob_digest(base), blob_digest(target));
                let found = names.layer_delta(&repository, &from, &to).await.unwrap();
                let expected = contents
                    .deltas
                    .get(&(base, target))
                    .map(|d| d.map_or(LayerDelta::NotWorthIt, |n| LayerDelta::Blob(blob_digest(n))));
                assert_eq!(found, expected);
            }
        }
        let elsewhere = Digest::sha256(b"a layer that is not here");
        let layers: BTreeSet<Digest> =
            names.delta_bases(&repository, &elsewhere, 100).await.unwrap().iter().map(|l| l.digest).collect();
        let expected: BTreeSet<Digest> = contents
            .manifests
            .iter()
            .flat_map(|m| manifest(*m).view.layers)
            .map(|layer| layer.digest)
            .filter(|digest| contents.blobs.iter().any(|n| blob_digest(*n) == *digest))
            .collect();
        assert_eq!(layers, expected);
    }
    assert_eq!(names.repositories(None, 10).await.unwrap().items, existing);
}

async fn open_all(roots: &[&Path], options: Options) -> Vec<Store> {
    let mut stores = Vec::new();
    for root in roots {
        stores.push(Store::open(Options { root: root.to_path_buf(), ..options.clone() }).await.unwrap());
    }
    stores
}

async fn close_all(stores: Vec<Store>) {
    for store in stores {
        store.close().await.unwrap();
    }
}

async fn run(ops: &[Op]) {
    let dir = home();
    // A small cache, so that entries are evicted too.
    let settings = || Options { manifest_cache: 4000, ..dir.options() };
    // Where several may have a store open, one does things and the other is asked.
    let other = (!dir.has_names()).then(|| dir.other());
    let roots: Vec<&Path> = std::iter::once(dir.path()).chain(other.iter().map(TempDir::path)).collect();
    let mut stores = open_all(&roots, settings()).await;
    let mut model = Model::default();
    for (n, op) in ops.iter().enumerate() {
        if matches!(op, Op::Restart) {
            close_all(stores).await;
            stores = open_all(&roots, settings()).await;
        } else {
            apply(&stores[n % stores.len()], &mut model, op).await;
        }
        if n % 8 == 0 {
            compare(&stores[(n + 1) % stores.len()], &model).await;
        }
    }
    for store in &stores {
        compare(store, &model).await;
    }
    close_all(stores).await;
    dir.assert_clean();
    if !dir.is_embedded() {
        return;
    }
    let before = dir.state();
    std::fs::remove_file(dir.file()).unwrap();
    let rebuilt = dir.rebuild();
    assert_eq!(rebuilt.lost, 0, "{rebuilt:#?}");
    assert_eq!(dir.state(), before);
    dir.assert_clean();
    let store = Store::open(settings()).await.unwrap();
    // Reasons are in no journal.
    model.repositories.values_mut().for_each(|contents| contents.evicted.clear());
    compare(&store, &model).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_map_would_do(ops in proptest::collection::vec(op(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(&ops));
    }
}
