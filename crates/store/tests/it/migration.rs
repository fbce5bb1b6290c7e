//! Moving a registry from one pair of engines to another: what is there afterwards, what may be done meanwhile, and what a
//! migration leaves behind that is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deltaport_oci::{Digest, Reference};
use deltaport_store::{ByteStore, Error, Faults, LayerDelta, Migration, Options, Pass, Store};

use crate::bucket;
use crate::common::*;

/// A place for a registry: names in a file or in PostgreSQL, bytes in a directory or in a bucket.
struct Place {
    home: Home,
    bucket: Option<bucket::Home>,
}

impl Place {
    fn new(postgres: bool, bucket: bool) -> Self {
        let home = if postgres { Home::postgres() } else { Home::embedded() };
        Self { home, bucket: bucket.then(bucket::Home::new) }
    }

    /// All combinations, each with what it is called.
    fn every() -> [(&'static str, Self); 5] {
        [
            ("directory", Self::new(false, false)),
            ("directory, bytes in a bucket", Self::new(false, true)),
            ("names in PostgreSQL", Self::new(true, false)),
            ("PostgreSQL and a bucket", Self::new(true, true)),
            ("bytes and names elsewhere", Self { home: Home::split(), bucket: None }),
        ]
    }

    fn options(&self) -> Options {
        let bytes = match &self.bucket {
            Some(bucket) => ByteStore::Bucket(Box::new(bucket.bucket_options())),
            None => self.home.bytes(),
        };
        Options { bytes, ..self.home.options() }
    }

    async fn open(&self) -> Store {
        Store::open(self.options()).await.unwrap()
    }

    /// What is in the tables that are moved.
    fn rows(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for sql in [
            "SELECT id, name FROM repository ORDER BY id",
            "SELECT repository, digest, linked FROM repository_blob ORDER BY repository, digest",
            "SELECT id, repository, digest, media_type, artifact_type, subject, annotations, size, pushed
             FROM manifest ORDER BY id",
            "SELECT manifest, position, kind, digest, present FROM reference ORDER BY manifest, position",
            "SELECT repository, name, digest, updated FROM tag ORDER BY repository, name",
            "SELECT repository, tag, digest, until FROM tag_past ORDER BY repository, tag, digest",
            "SELECT repository, base, target, digest, made FROM layer_delta ORDER BY repository, base, target",
            "SELECT repository, digest, used FROM cached ORDER BY repository, digest",
            "SELECT rule, place, tag, digest FROM mirrored ORDER BY rule, place, tag",
            "SELECT digest, size FROM blob
             WHERE digest IN (SELECT digest FROM repository_blob UNION SELECT digest FROM manifest) ORDER BY digest",
        ] {
            rows.extend(self.home.sql(sql).into_iter().map(|row| format!("{}: {row}", sql.len())));
        }
        rows
    }
}

/// Some of everything.
async fn fill(store: &Store) {
    let (one, two) = (repository("team/one"), repository("two"));
    let shared = push_blob(store, &one, noise(1, 90_000)).await.unwrap();
    let old = push_blob(store, &one, noise(2, 6 << 20)).await.unwrap();
    let new = push_blob(store, &one, noise(3, 50_000)).await.unwrap();
    let delta = push_blob(store, &one, noise(4, 3_000)).await.unwrap();
    let config = push_blob(store, &one, noise(5, 200)).await.unwrap();
    store.names().put_manifest(&one, image(&config, &[shared, old], &["v1", "latest"])).await.unwrap();
    store.names().put_manifest(&one, image(&config, &[shared, new], &["v2", "latest"])).await.unwrap();
    store.names().put_layer_delta(&one, &old, &new, &LayerDelta::Blob(delta)).await.unwrap();
    store.names().put_layer_delta(&one, &new, &old, &LayerDelta::NotWorthIt).await.unwrap();
    assert!(store.names().link_blob(&two, &shared).await.unwrap());
    let lacking = Digest::sha256(b"elsewhere");
    let mut fetched = image(&lacking, &[shared], &["cached"]);
    fetched.required.clear();
    store.names().put_fetched(&two, fetched).await.unwrap();
    store.names().note_mirrored("rule", "two", &tag("cached"), &lacking).await.unwrap();
    // A manifest that is a blob, too.
    let text = image(&config, &[shared], &[]).bytes;
    push_blob(store, &one, text).await.unwrap();
    store.names().put_manifest(&one, image(&config, &[shared], &["both"])).await.unwrap();
}

/// Pulls everything that [`fill`] has pushed.
async fn pulls(store: &Store) {
    let (one, two) = (repository("team/one"), repository("two"));
    for (seed, len) in [(1, 90_000), (2, 6 << 20), (3, 50_000), (4, 3_000), (5, 200)] {
        let bytes = noise(seed, len);
        assert_eq!(pull_blob(store, &one, &Digest::sha256(&bytes)).await.as_deref(), Some(&bytes[..]));
    }
    let shared = Digest::sha256(&noise(1, 90_000));
    assert!(pull_blob(store, &two, &shared).await.is_some());
    for (repository, name) in [(&one, "v1"), (&one, "v2"), (&one, "latest"), (&one, "both"), (&two, "cached")]
    {
        let found =
            store.names().manifest(repository, &Reference::Tag(tag(name))).await.unwrap().expect("a tag");
        assert_eq!(Digest::sha256(&found.bytes), found.digest);
    }
    let past = store.names().tag_past(&one, &tag("latest"), 5).await.unwrap();
    assert_eq!(past.len(), 1);
}

/// A manifest that is a blob, too, comes as one.
async fn pulls_both(store: &Store) {
    let both = image(&Digest::sha256(&noise(5, 200)), &[Digest::sha256(&noise(1, 90_000))], &[]);
    let pulled = pull_blob(store, &repository("team/one"), &both.digest).await;
    assert_eq!(pulled.as_deref(), Some(&both.bytes[..]));
}

/// Copies until nothing is found; the passes.
async fn copy(migration: &Migration) -> Vec<Pass> {
    let mut passes = Vec::new();
    while !passes.last().is_some_and(Pass::found_nothing) {
        assert!(passes.len() < 5, "{passes:#?}");
        passes.push(migration.pass(&|_| {}).await.unwrap());
    }
    passes
}

async fn move_all(from: &Options, to: Options) -> Vec<Pass> {
    let migration = Migration::begin(from, to).await.unwrap();
    migration.hold(Some(Duration::from_secs(60))).await.unwrap();
    let passes = copy(&migration).await;
    migration.finish().await.unwrap();
    migration.hold(None).await.unwrap();
    migration.leave().await.unwrap();
    passes
}

#[tokio::test]
async fn every_pair_of_engines_can_be_moved_to_every_other() {
    for (from, source) in Place::every() {
        let store = source.open().await;
        fill(&store).await;
        store.close().await.unwrap();
        for (to, target) in Place::every() {
            let passes = move_all(&source.options(), target.options()).await;
            assert_eq!(passes.len(), 2, "{from} -> {to}: {passes:#?}");
            assert_eq!(passes[0].put_off, 0, "{from} -> {to}: {passes:#?}");
            assert_eq!(source.rows(), target.rows(), "{from} -> {to}");
            let moved = target.open().await;
            pulls(&moved).await;
            pulls_both(&moved).await;
            // It goes on from there: identifiers are given that no row has.
            let more = repository("three");
            let layer = push_blob(&moved, &more, noise(9, 1000)).await.unwrap();
            moved.names().put_manifest(&more, image(&layer, &[], &["v1"])).await.unwrap();
            moved.collect(std::time::SystemTime::now() + Duration::from_secs(2 * 3600)).await.unwrap();
            pulls(&moved).await;
            moved.close().await.unwrap();
            if target.bucket.is_none() {
                target.home.assert_clean();
            }
        }
        // The last switch holds it still.
        let store = source.open().await;
        pulls(&store).await;
        let refused = push_blob(&store, &repository("two"), noise(8, 10)).await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
        store.close().await.unwrap();
        Migration::release(&source.options()).await.unwrap();
        let store = source.open().await;
        push_blob(&store, &repository("two"), noise(8, 10)).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_is_moved_while_it_is_served() {
    for (source, target) in [
        (Place::new(false, false), Place::new(true, true)),
        (Place::new(true, true), Place::new(false, false)),
    ] {
        let serving = source.open().await;
        fill(&serving).await;
        let migration = Migration::begin(&source.options(), target.options()).await.unwrap();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let pushing = tokio::spawn({
            let (store, acknowledged) = (serving.clone(), Arc::clone(&acknowledged));
            async move {
                let mut pushed = Vec::new();
                for number in 0_u64.. {
                    let repository = repository(&format!("while/{}", number % 3));
                    let layer = match push_blob(&store, &repository, noise(100 + number, 2000)).await {
                        Ok(layer) => layer,
                        Err(Error::Unavailable { .. }) => return pushed,
                        Err(error) => panic!("{error}"),
                    };
                    let image = image(&layer, &[], &[&format!("t{}", number % 5)]);
                    let digest = image.digest;
                    match store.names().put_manifest(&repository, image).await {
                        Ok(()) => {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            pushed.push((repository.clone(), digest));
                        }
                        Err(Error::Unavailable { .. }) => return pushed,
                        Err(error) => panic!("{error}"),
                    }
                    if number % 4 == 3 {
                        let (repository, digest) = pushed.remove(0);
                        let deleted = store.names().delete_manifest(&repository, &digest).await;
                        if matches!(deleted, Err(Error::Unavailable { .. })) {
                            pushed.push((repository, digest));
                            return pushed;
                        }
                        assert!(deleted.unwrap());
                    }
                }
                pushed
            }
        });
        let mut passes = 0;
        while passes < 4 || acknowledged.load(Ordering::Relaxed) < 10 {
            assert!(!pushing.is_finished() && passes < 1000, "nothing is pushed any more");
            migration.pass(&|_| {}).await.unwrap();
            passes += 1;
        }
        migration.hold(Some(Duration::from_secs(60))).await.unwrap();
        let pushed = pushing.await.unwrap();
        // What is there can be pulled all the time.
        pulls(&serving).await;
        copy(&migration).await;
        migration.finish().await.unwrap();
        migration.leave().await.unwrap();
        assert_eq!(source.rows(), target.rows());
        let moved = target.open().await;
        pulls(&moved).await;
        for (repository, digest) in pushed {
            let found = moved.names().manifest(&repository, &Reference::Digest(digest)).await.unwrap();
            assert!(found.is_some(), "{repository}@{digest} was acknowledged");
        }
        moved.close().await.unwrap();
        serving.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_migration_that_ends_at_any_step_is_gone_on_with() {
    let source = Place::new(false, false);
    let store = source.open().await;
    fill(&store).await;
    store.close().await.unwrap();
    let target = Place::new(false, false);
    let (mut killed, mut step) = (0, 1);
    loop {
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let at = step;
        let faults = Faults::new(move |_| match counted.fetch_add(1, Ordering::Relaxed) + 1 {
            call if call >= at => Err(std::io::Error::other("killed")),
            _ => Ok(()),
        });
        let options = Options { faults, ..target.options() };
        let whole = async {
            let migration = Migration::begin(&source.options(), options).await?;
            let copied = async {
                while !migration.pass(&|_| {}).await?.found_nothing() {}
                migration.finish().await
            };
            let copied = copied.await;
            let _ = migration.leave().await;
            copied
        };
        match tokio::time::timeout(Duration::from_secs(60), whole).await.expect("it ends") {
            Ok(()) => break,
            Err(_) => killed += 1,
        }
        let refused = Store::open(target.options()).await;
        match refused {
            Err(Error::Unusable(text)) => assert!(text.contains("migrate"), "{text}"),
            // It was killed before it had begun anything.
            Ok(store) => {
                assert!(store.names().repositories(None, 1).await.unwrap().items.is_empty());
                store.close().await.unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        step += 7;
    }
    assert!(killed > 5, "{killed}");
    assert_eq!(source.rows(), target.rows());
    target.home.assert_clean();
    let moved = target.open().await;
    pulls(&moved).await;
    moved.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_moved_to_where_a_registry_is() {
    let (source, target) = (Place::new(false, false), Place::new(false, false));
    for place in [&source, &target] {
        let store = place.open().await;
        fill(&store).await;
        store.close().await.unwrap();
    }
    let refused = Migration::begin(&source.options(), target.options()).await;
    assert!(matches!(&refused, Err(Error::Unusable(text)) if text.contains("empty")), "{refused:?}");
    let store = target.open().await;
    pulls(&store).await;
    store.close().await.unwrap();
    // Nor from where there is none.
    let nothing = Place::new(false, false);
    let refused = Migration::begin(&nothing.options(), Place::new(false, false).options()).await;
    assert!(matches!(&refused, Err(Error::Unusable(text)) if text.contains("no data")), "{refused:?}");
}

#[tokio::test]
async fn a_replica_at_the_target_changes_nothing_before_it_is_whole() {
    let (source, target) = (Place::new(false, false), Home::hub());
    let store = source.open().await;
    fill(&store).await;
    store.close().await.unwrap();
    // It was started too early, on what was empty.
    let other = target.other();
    let replica = target.open_other(&other).await;
    let migration = Migration::begin(&source.options(), target.options()).await.unwrap();
    migration.pass(&|_| {}).await.unwrap();
    let mine = repository("mine");
    let refused = push_blob(&replica, &mine, noise(8, 10)).await;
    assert!(matches!(&refused, Err(Error::Unavailable { why, .. }) if why.contains("moved")), "{refused:?}");
    copy(&migration).await;
    migration.finish().await.unwrap();
    migration.leave().await.unwrap();
    // From then on it is a replica like any other, and what it acknowledges stays.
    pulls(&replica).await;
    let layer = push_blob(&replica, &mine, noise(8, 10)).await.unwrap();
    replica.names().put_manifest(&mine, image(&layer, &[], &["v1"])).await.unwrap();
    replica.close().await.unwrap();
    let moved = target.open().await;
    pulls(&moved).await;
    assert!(pull_blob(&moved, &mine, &layer).await.is_some());
    moved.close().await.unwrap();
}

#[tokio::test]
async fn a_blob_that_is_damaged_is_not_moved() {
    let (source, target) = (Place::new(false, false), Place::new(true, false));
    let store = source.open().await;
    fill(&store).await;
    store.close().await.unwrap();
    let digest = Digest::sha256(&noise(3, 50_000)).to_string();
    let hex = digest.strip_prefix("sha256:").unwrap();
    let path = source.home.path().join("blobs/sha256").join(&hex[..2]).join(hex);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[77] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let migration = Migration::begin(&source.options(), target.options()).await.unwrap();
    let failed = migration.pass(&|_| {}).await;
    assert!(matches!(&failed, Err(Error::Corrupt(text)) if text.contains(&digest)), "{failed:?}");
    migration.leave().await.unwrap();
}
