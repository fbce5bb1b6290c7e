//! Copies the bytes of blobs to where the target keeps them, and proves each by its digest.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deltaport_oci::Digest;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::Step;
use super::reader::Reader;
use crate::bucket::Bucket;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::names::places::{self, Placed};
use crate::names::sql::{Connection, values};
use crate::names::{self, Tx};
use crate::staging::Staging;
use crate::{ByteStore, Options};

/// How many blobs are looked at together.
const PAGE: usize = 500;
/// How many are copied at a time.
const ABREAST: usize = 4;
/// How many bytes of a file are read at a time.
const CHUNK: usize = 1 << 20;
/// How often the copying of a blob is begun.
const ATTEMPTS: u32 = 3;

/// The bytes of the source.
#[derive(Debug)]
pub(super) enum Bytes {
    Files(Layout),
    Objects(Arc<Bucket>),
}

impl Bytes {
    pub(super) fn of(options: &Options) -> Result<Self> {
        Ok(match &options.bytes {
            ByteStore::Directory | ByteStore::Elsewhere(_) => {
                Self::Files(Layout::of(&options.root, &options.bytes, &options.names))
            }
            ByteStore::Bucket(bucket) => Self::Objects(Arc::new(Bucket::new((**bucket).clone())?)),
        })
    }
}

/// What one pass did.
#[derive(Clone, Debug, Default)]
pub(super) struct Copied {
    pub(super) blobs: u64,
    pub(super) bytes: u64,
    /// Blobs that could not be read, most likely because they are gone by now.
    pub(super) put_off: u64,
    pub(super) why: Option<String>,
}

/// A blob of the source.
#[derive(Clone, Debug)]
struct Wanted {
    digest: Digest,
    placed: Placed,
    /// Whether it is a manifest, and nothing else: then its bytes are in its row.
    manifest: bool,
}

/// Goes through all blobs of the source and copies those that the target lacks.
pub(super) async fn pass(
    source: &Reader,
    bytes: &Bytes,
    target: &Arc<Core>,
    seen: &(dyn Fn(Step) + Sync),
) -> Result<Copied> {
    let of = source
        .read(|names| {
            let all = "SELECT count(*) FROM (SELECT digest FROM repository_blob UNION SELECT digest FROM manifest) AS held";
            names.one(all, &[], |row| row.get(0))
        })
        .await?;
    let (there, moved) = (AtomicU64::new(0), AtomicU64::new(0));
    let tell = || {
        let (blobs, copied) = (there.load(Ordering::Relaxed), moved.load(Ordering::Relaxed));
        seen(Step::Bytes { blobs, of, copied });
    };
    let mut copied = Copied::default();
    let mut last = String::new();
    loop {
        let page: Vec<Wanted> = source.read(move |names| page(names, &last)).await?;
        let Some(end) = page.last() else { break };
        last = end.digest.to_string();
        let lacking = lacking(target, &page).await?;
        there.fetch_add((page.len() - lacking.len()) as u64, Ordering::Relaxed);
        let copying = lacking.into_iter().map(|wanted| copy(source, bytes, target, wanted));
        let mut copying = futures_util::stream::iter(copying).buffer_unordered(ABREAST);
        while let Some(outcome) = copying.try_next().await? {
            match outcome {
                Ok(size) => {
                    copied.blobs += 1;
                    copied.bytes += size;
                    moved.fetch_add(size, Ordering::Relaxed);
                    there.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) => {
                    copied.put_off += 1;
                    copied.why.get_or_insert(why);
                }
            }
            tell();
        }
        tell();
    }
    Ok(copied)
}

/// The blobs behind `last` that somebody holds, in the order of digests.
fn page(connection: &Connection, last: &str) -> Result<Vec<Wanted>> {
    connection.query(
        "SELECT digest, size, place,
             NOT EXISTS (SELECT 1 FROM repository_blob WHERE repository_blob.digest = blob.digest)
         FROM blob
         WHERE digest > ?1
             AND (EXISTS (SELECT 1 FROM repository_blob WHERE repository_blob.digest = blob.digest)
                 OR EXISTS (SELECT 1 FROM manifest WHERE manifest.digest = blob.digest))
         ORDER BY digest LIMIT ?2",
        values![last, PAGE],
        |row| {
            let placed = Placed { size: row.get(1)?, place: row.get(2)? };
            Ok(Wanted { digest: row.get(0)?, placed, manifest: row.get(3)? })
        },
    )
}

/// Those of the blobs that the target does not have.
async fn lacking(target: &Arc<Core>, page: &[Wanted]) -> Result<Vec<Wanted>> {
    let asked: Vec<(Digest, bool)> = page.iter().map(|wanted| (wanted.digest, wanted.manifest)).collect();
    let objects = target.bucket.is_some();
    let there: HashSet<Digest> = target
        .database
        .read(move |names| {
            let mut there = HashSet::new();
            for (digest, manifest) in &asked {
                let placed = places::find(names, digest)?;
                if placed.is_some_and(|placed| placed.place.is_some() || !objects || *manifest) {
                    there.insert(*digest);
                }
            }
            Ok(there)
        })
        .await?;
    Ok(page.iter().filter(|wanted| !there.contains(&wanted.digest)).cloned().collect())
}

/// Copies one blob: its size, or why that is left to the next pass. Fails when the target does.
async fn copy(
    source: &Reader,
    bytes: &Bytes,
    target: &Arc<Core>,
    wanted: Wanted,
) -> Result<Result<u64, String>> {
    let Wanted { digest, ref placed, manifest } = wanted;
    let size = placed.size;
    if manifest && target.bucket.is_some() {
        // Its bytes come with its row.
        let change = move |tx: &mut Tx<'_>| names::blobs::ensure(tx, &digest, size);
        return target.database.change(change).await.map(|()| Ok(size));
    }
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        let mut staging = Staging::begin(target, digest.algorithm()).await?;
        match read_into(&mut staging, source, bytes, &wanted).await? {
            Ok(()) => match staging.keep(digest).await {
                Ok(size) => return Ok(Ok(size)),
                Err(Error::Mismatch { actual, .. }) => {
                    return Err(Error::Corrupt(format!(
                        "{digest} has become {actual} where it is moved from; run fsck there"
                    )));
                }
                Err(error) => return Err(error),
            },
            Err(error) => why = format!("{digest}: {error}"),
        }
    }
    Ok(Err(why))
}

/// Reads a blob of the source. Fails with what is wrong there, or for good with what is wrong here.
async fn read_into(
    staging: &mut Staging,
    source: &Reader,
    bytes: &Bytes,
    wanted: &Wanted,
) -> Result<io::Result<()>> {
    let digest = wanted.digest;
    match (bytes, &wanted.placed.place) {
        (Bytes::Files(layout), _) => {
            let path = layout.blob(&digest);
            let mut file = match tokio::task::spawn_blocking(move || File::open(path)).await? {
                Ok(file) => file,
                Err(error) => return Ok(Err(error)),
            };
            loop {
                let read = move || {
                    let mut chunk = vec![0; CHUNK];
                    file.read(&mut chunk).map(|count| {
                        chunk.truncate(count);
                        (file, chunk)
                    })
                };
                let chunk = match tokio::task::spawn_blocking(read).await? {
                    Ok((rest, chunk)) => {
                        file = rest;
                        chunk
                    }
                    Err(error) => return Ok(Err(error)),
                };
                if chunk.is_empty() {
                    return Ok(Ok(()));
                }
                staging.write(chunk.into()).await?;
            }
        }
        (Bytes::Objects(_), None) => {
            let found = source.read(move |names| places::manifest_bytes(names, &digest)).await?;
            match found {
                Some(bytes) => staging.write(bytes).await.map(Ok),
                None => Ok(Err(io::ErrorKind::NotFound.into())),
            }
        }
        (Bytes::Objects(bucket), Some(place)) => {
            let (_, mut body) = match bucket.get(place, 0..wanted.placed.size).await {
                Ok(found) => found,
                Err(fault) => return Ok(Err(io::Error::other(Error::from(fault)))),
            };
            loop {
                match body.try_next().await {
                    Ok(Some(chunk)) => staging.write(chunk).await?,
                    Ok(None) => return Ok(Ok(())),
                    Err(error) => return Ok(Err(io::Error::other(error))),
                }
            }
        }
    }
}
