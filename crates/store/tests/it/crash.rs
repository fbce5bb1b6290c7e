//! A process that dies at every step that durability depends on, and at random instants: whatever it had acknowledged
//! is there afterwards.
//!
//! The test binary runs itself with the settings in its environment; the child writes one line to its standard output
//! for each thing that was acknowledged to it.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_store::{Error, Faults, FsckOptions, Options, Store, fsck};

use crate::common::*;

const ROOT: &str = "STORE_CRASH_ROOT";
const POINT: &str = "STORE_CRASH_POINT";
const NTH: &str = "STORE_CRASH_NTH";
const SEED: &str = "STORE_CRASH_SEED";

/// Points that no push comes past: only a journal large enough to be compacted, or what is fetched. Their own tests have
/// them.
const ELSEWHERE: [&str; 4] = ["journal-replace", "journal-replaced", "partial-sync", "partial-record"];

/// Not a test by itself: what the others run as a child.
#[test]
fn child() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let setting = |name: &str| std::env::var(name).unwrap_or_default();
    let (point, nth): (String, u64) = (setting(POINT), setting(NTH).parse().unwrap_or(0));
    let seed: u64 = setting(SEED).parse().unwrap();
    let hits = AtomicU64::new(0);
    let collecting = point.starts_with("collect");
    let faults = Faults::new(move |name| {
        if name == point && hits.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            std::process::abort();
        }
        Ok(())
    });
    let grace = if collecting { Duration::ZERO } else { Duration::from_secs(3600) };
    let options = Options { faults, grace, ..options(Path::new(&root)) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(options).await.unwrap();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..3 {
            let store = store.clone();
            writers.spawn(async move { push_for_a_while(&store, seed, writer).await });
        }
        if collecting {
            let store = store.clone();
            writers.spawn(async move {
                for _ in 0..40 {
                    store.collect(SystemTime::now()).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        store.close().await.unwrap();
    });
}

fn acknowledge(line: String) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\nack {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Pushes images, by both ways, and replaces and deletes tags.
async fn push_for_a_while(store: &Store, seed: u64, writer: u64) {
    let own = repository(&format!("crash/{writer}"));
    for round in 0..8 {
        let seeds = [1, 2].map(|n| seed * 1000 + writer * 100 + round * 10 + n);
        let manifest = loop {
            let first = upload(store, &own, seeds[0]).await;
            let second = push_blob(store, &own, bytes_of(seeds[1])).await.unwrap();
            acknowledge(format!("blob {own} {first} {}", seeds[0]));
            acknowledge(format!("blob {own} {second} {}", seeds[1]));
            let manifest = image(&first, &[second], &["latest", &format!("r{seed}-{round}")]);
            match store.names().put_manifest(&own, manifest.clone()).await {
                Ok(()) => break manifest,
                Err(Error::Missing(_)) => {}
                Err(error) => panic!("{error}"),
            }
        };
        acknowledge(format!("tag {own} latest {}", manifest.digest));
        acknowledge(format!("tag {own} r{seed}-{round} {}", manifest.digest));
        acknowledge(format!("manifest {own} {} {} {}", manifest.digest, seeds[0], seeds[1]));
        if round % 3 == 2 {
            acknowledge(format!("untag {own} r{seed}-{round} soon"));
            store.names().delete_tag(&own, &tag(&format!("r{seed}-{round}"))).await.unwrap();
            acknowledge(format!("untag {own} r{seed}-{round} now"));
        }
    }
}

fn bytes_of(seed: u64) -> bytes::Bytes {
    noise(seed, 10_000 + (seed as usize * 7919) % 400_000)
}

async fn upload(store: &Store, own: &RepositoryName, seed: u64) -> Digest {
    let (bytes, uploads) = (bytes_of(seed), store.uploads());
    let id = uploads.begin(own, OWNER, None, 1000).await.unwrap();
    acknowledge(format!("upload {own} {id} 0"));
    let half = bytes.len() / 2;
    for part in [bytes.slice(..half), bytes.slice(half..)] {
        let mut appender = uploads.append(own, &id, OWNER, None).await.unwrap();
        appender.write(part).await.unwrap();
        let offset = appender.finish().await.unwrap();
        acknowledge(format!("upload {own} {id} {offset}"));
    }
    let digest = Digest::sha256(&bytes);
    acknowledge(format!("upload {own} {id} ends"));
    uploads.finish(own, &id, OWNER, &digest).await.unwrap();
    digest
}

/// What children have acknowledged so far.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<(RepositoryName, Digest, u64)>,
    manifests: Vec<(RepositoryName, Digest)>,
    /// The newest known state of a tag; `None` when its deletion was begun, so that it may be there or not.
    tags: HashMap<(RepositoryName, String), Option<Digest>>,
    gone: Vec<(RepositoryName, String)>,
    uploads: HashMap<String, (RepositoryName, Option<u64>)>,
}

impl Acknowledged {
    fn read(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let own = || words[2].parse::<RepositoryName>().unwrap();
        match words[..] {
            ["ack", "blob", _, digest, seed] => {
                self.blobs.push((own(), digest.parse().unwrap(), seed.parse().unwrap()));
            }
            ["ack", "tag", _, name, digest] => {
                self.tags.insert((own(), name.to_owned()), Some(digest.parse().unwrap()));
            }
            ["ack", "untag", _, name, when] => {
                self.tags.insert((own(), name.to_owned()), None);
                if when == "now" {
                    self.gone.push((own(), name.to_owned()));
                }
            }
            ["ack", "manifest", _, digest, first, second] => {
                let (first, second) = (bytes_of(first.parse().unwrap()), bytes_of(second.parse().unwrap()));
                let expected = image(&Digest::sha256(&first), &[Digest::sha256(&second)], &[]);
                assert_eq!(expected.digest.to_string(), digest);
                self.manifests.push((own(), expected.digest));
            }
            ["ack", "upload", _, id, offset] => {
                self.uploads.insert(id.to_owned(), (own(), offset.parse().ok()));
            }
            // The test harness's own words, or a line that was cut short.
            _ => assert!(!line.starts_with("ack "), "{line}"),
        }
    }

    /// Takes the lines of a child that has ended; the last one may be incomplete and counts for nothing.
    fn read_from(&mut self, child: &mut Child) {
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while out.read_line(&mut line).unwrap() > 0 {
            if let Some(whole) = line.strip_suffix('\n') {
                self.read(whole);
            }
            line.clear();
        }
        child.wait().unwrap();
    }

    async fn verify(&mut self, root: &Path, blobs_may_be_collected: bool) {
        let report = fsck(
            &FsckOptions {
                bytes: deltaport_store::ByteStore::Directory,
                rehash: false,
                root: root.to_owned(),
                names: deltaport_store::NamesOptions::Directory,
                repair: false,
            },
            &|_| {},
        )
        .unwrap();
        assert!(report.is_clean(), "before anything was recovered: {:#?}", report.findings);
        let store = open(root).await;
        let names = store.names();
        if blobs_may_be_collected {
            self.blobs.clear();
        }
        for (own, digest, seed) in &self.blobs {
            let found = pull_blob(&store, own, digest).await;
            assert!(found.as_deref() == Some(&bytes_of(*seed)[..]), "the blob {digest} of {own}");
        }
        for (own, digest) in &self.manifests {
            let found = names.manifest(own, &Reference::Digest(*digest)).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("the manifest {digest} of {own}"));
            assert_eq!(Digest::sha256(&found.bytes), *digest);
            let view = deltaport_oci::manifest::View::parse(
                &found.media_type,
                &found.bytes,
                deltaport_oci::manifest::Limits::DEFAULT,
            );
            for blob in view.unwrap().blobs() {
                let bytes = pull_blob(&store, own, &blob.digest).await.expect("a blob of a stored image");
                assert_eq!(Digest::sha256(&bytes), blob.digest);
            }
        }
        for ((own, name), digest) in &self.tags {
            let found = names.manifest(own, &Reference::Tag(tag(name))).await.unwrap();
            match digest {
                // `latest` may be newer than its last acknowledgement.
                Some(digest) if name != "latest" => {
                    assert_eq!(found.map(|m| m.digest), Some(*digest), "{own}:{name}");
                }
                Some(_) => assert!(found.is_some(), "{own}:{name}"),
                None => {}
            }
        }
        for (own, name) in &self.gone {
            assert!(names.manifest(own, &Reference::Tag(tag(name))).await.unwrap().is_none(), "{own}:{name}");
        }
        for (id, (own, offset)) in self.uploads.drain() {
            if let Some(acknowledged) = offset {
                let offset = store.uploads().offset(&own, &id, OWNER).await.unwrap();
                assert!(offset >= acknowledged, "{offset} of {acknowledged}");
                let mut appender = store.uploads().append(&own, &id, OWNER, Some(offset)).await.unwrap();
                appender.write(noise(1, 10)).await.unwrap();
                assert_eq!(appender.finish().await.unwrap(), offset + 10);
            }
            match store.uploads().cancel(&own, &id, OWNER).await {
                Ok(()) | Err(Error::NotFound) => {}
                Err(error) => panic!("{error}"),
            }
        }
        store.close().await.unwrap();
        drop(store);
        assert_clean(root);
        let staged = std::fs::read_dir(root.join("staging")).unwrap().count();
        assert_eq!(staged, 0, "files in staging/");
    }
}

fn spawn(root: &Path, point: &str, nth: u64, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .env(POINT, point)
        .env(NTH, nth.to_string())
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets a child die at the `nth` time at every point, one after the other on the same store.
async fn die_at_every_point(nth: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let points = Faults::POINTS.iter().filter(|point| !ELSEWHERE.contains(point));
    for (seed, point) in (1..).zip(points) {
        let mut child = spawn(dir.path(), point, nth, seed);
        acknowledged.read_from(&mut child);
        let died = child.wait().unwrap();
        assert!(!died.success(), "{point} is never passed {nth} times");
        acknowledged.verify(dir.path(), point.starts_with("collect")).await;
    }
}

#[tokio::test]
async fn death_at_the_first_time_at_every_point() {
    die_at_every_point(1).await;
}

#[tokio::test]
async fn death_at_the_second_time_at_every_point() {
    die_at_every_point(2).await;
}

#[tokio::test]
async fn death_at_the_seventh_time_at_every_point() {
    die_at_every_point(7).await;
}

#[tokio::test]
async fn death_at_any_instant() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 1..=12 {
        let mut child = spawn(dir.path(), "", 0, 1000 + round);
        let wait = noise(round, 1)[0];
        tokio::time::sleep(Duration::from_millis(40 + 2 * u64::from(wait))).await;
        child.kill().unwrap();
        acknowledged.read_from(&mut child);
        acknowledged.verify(dir.path(), false).await;
    }
}
